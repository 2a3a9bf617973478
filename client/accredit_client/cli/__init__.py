"""The command ``accredit``, for agents, pipelines and security teams.

Each command is three steps: read the arguments, call the library, print. What is shared stands
apart: ``output`` prints, ``problems`` turns every error into one line and an exit code,
``profile`` keeps an admin's login, ``session`` opens the issuer with it, ``local_files`` reads and
writes files, ``log_proofs`` decides what the log proves. One module holds one group of commands
and is imported only when one of them runs, so ``accredit --help`` stays quick.

Secrets come from files or from stdin (``-``), never from arguments or the environment.
"""

from accredit_client.cli.app import main

__all__ = ["main"]
