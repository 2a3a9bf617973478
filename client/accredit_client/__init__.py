"""The client: holds an identity and renews it, and checks what others present.

Imports ``accredit_credentials`` and ``accredit_attestors``; meets the issuer only over the wire.
"""
