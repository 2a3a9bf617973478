"""The node daemon: gives identities, on a unix socket, to the processes of its host.

Needs the extra ``accredit[daemon]``; of the light client only ``workload.line`` imports
from it, the messages. The socket's side:
``server`` (connections and their bounds) → ``rpc`` (one call) → ``workload_api``, ``sds``,
``own_calls`` (what is asked) → ``provider`` (the contract with whoever knows the answers). Who
calls is ``callers`` and ``selectors``; what code runs there, ``measuring``.
"""
