"""Streams of security events: other products hear of facts (Shared Signals Framework, CAEP)."""
