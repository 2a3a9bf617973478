"""What is proved about an agent, and by whom.

Evidence is what a claimant shows; an attestation is what a verifier made of it. This package has
the contract between the two, the signed manifest that says what should run, and one module for
each kind of evidence, with ``collect`` (the claimant's side) beside ``verify`` (the issuer's). It
never issues, stores or revokes anything, and reads no clock. Imports ``accredit_credentials`` only.

Read from the bottom up::

    code_digest   join_token   manifest     one kind of evidence each, loaded by plugins
    agent_file                              agent.toml, from which a manifest is made
    contract                                Evidence, Attested, and what passes between
    signing                                 who may sign a manifest, and who did
    statement                               the manifest's wire form
    declaration                             what a manifest says
    dsse   signer_keys   tree               signed envelopes, their keys, a measured tree
    strict   files   levels   errors        reading without guessing; ordered words; what may fail
"""
