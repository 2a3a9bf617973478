"""Private keys, and the only modules of the issuer that touch them.

    key_manager            what the issuer asks of whoever keeps its keys
    disk  pkcs11  memory   who keeps them
    secret_files           passphrases and PINs
    opening                the one that the settings name
    given                  the key of a CA that was made elsewhere

The issuer's own TLS key is the exception: a handshake needs it in the process, it is made in
``server`` for each of the server's SVIDs, and it is never written anywhere.
"""
