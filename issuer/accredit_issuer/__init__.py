"""The issuer: decides, signs, records and takes back.

Edges (``api``, ``cli``, ``scheduler``) → decisions (``issuance``, ``revocation``) → vocabulary
(``registry``, and the packages below). Effects (database, keys, clock) are passed in; only ``app``
wires them. Imports ``accredit_credentials`` and ``accredit_attestors``; never ``accredit_client``.
"""
