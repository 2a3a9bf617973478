"""What Accredit issues, and how anyone checks it.

SPIFFE IDs, X.509-SVIDs, JWT-SVIDs, WIT-SVIDs, task tokens, trust bundles, revocation facts, and
proofs of the tamper-evident log: parse, build, validate at a given time. No network, no database,
no clock, no framework. Imports nothing else of Accredit; every other package imports this one.

Each module is one noun and opens with what it decides. Import from the modules by name:
``from accredit_credentials.spiffe_id import SpiffeId``.
"""
