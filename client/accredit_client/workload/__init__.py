"""The workload's side of the node daemon's socket: an identity that is pushed, not fetched.

``endpoint`` (where it is) → ``line`` (the streams and calls, in a thread with a loop of its own) →
``messages`` (what they say, verified) and ``revoked`` (its CRLs) → ``keeper`` (what an identity
makes of it). Only ``line`` needs gRPC, the extra ``accredit[daemon]``, and it is loaded when an
identity begins.
"""
