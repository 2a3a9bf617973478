"""Our own client on a host with a node daemon: a threaded server, an asyncio client, and thieves.

Both are processes of users of their own, found by the daemon as anybody is. What they say is
checked from outside.
"""

import json
import socket
import ssl
from typing import Any

from support.calling import AGENT_UID, as_root
from support.node_daemon import Host, Workload, host, identity_of
from support.waiting import until

from accredit_client import calls
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Identity

pytestmark = [as_root]

OTHER_UID = AGENT_UID + 100
SERVER = "spiffe://example.org/ns/support/agent/summarizer"
CLIENT = "spiffe://example.org/ns/support/agent/triage"

COMMON = f"""\
import asyncio
import encodings.idna  # what is loaded later is not readable by our user
import json
import os
import socket
import ssl
import sys
import threading

from accredit_client import AgentIdentity, AsyncAgentIdentity
from accredit_client.workload import line

uid, gid = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
os.environ["SPIFFE_ENDPOINT_SOCKET"] = sys.argv[3]
SERVER, CLIENT = "{SERVER}", "{CLIENT}"


def say(**what):
    print(json.dumps(what), flush=True)


def x509(identity):
    one = identity.x509
    return dict(chain=one.svid.pem, key=one.key_pem.decode(), serial=one.svid.serial,
                instance=one.svid.instance)


def common(identity, command, words):
    if command == "x509":
        say(**x509(identity))
    elif command == "state":
        say(state=identity.status.state.value)
    else:
        return False
    return True
"""

THREADED = (
    COMMON
    + """
refusals = []


def answer(raw):
    try:
        with context.wrap_socket(raw, server_side=True) as connection:
            while asked := connection.recv(100):
                connection.sendall(asked)
    except OSError as error:
        refusals.append(str(error))


def serve():
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


say(ready=os.getpid())
for said in sys.stdin:
    command, *words = said.split()
    try:
        if command == "start":
            identity = AgentIdentity.discover(revocations=True).start()
            context = identity.server_context(peer=CLIENT)
            listener = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=serve, daemon=True).start()
            say(port=listener.getsockname()[1])
        elif command == "refusals":
            say(refusals=refusals)
        elif not common(identity, command, words):
            say(token=identity.fetch_jwt_svid(words[0]).token)
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
"""
)

TASKED = (
    COMMON
    + """

async def dial(port):
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=identity.client_context(peer=SERVER), server_hostname="x"
    )


async def ping(reader, writer):
    writer.write(b"hello")
    heard = await reader.read(100)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return dict(heard=heard.decode(), shown=shown.hex())


async def main():
    global identity
    held = None
    while said := await asyncio.to_thread(sys.stdin.readline):
        command, *words = said.split()
        try:
            if command == "start":
                identity = await AsyncAgentIdentity.discover(revocations=True).start()
                say(started=True)
            elif command == "open":
                held = await dial(int(words[0]))
                say(**await ping(*held))
            elif command == "ping":
                say(**await ping(*held))
            elif command == "dial":
                reader, writer = await dial(int(words[0]))
                say(**await ping(reader, writer))
                writer.close()
            elif not common(identity, command, words):
                say(token=(await identity.fetch_jwt_svid(words[0])).token)
        except Exception as error:
            say(error=f"{type(error).__name__}: {error}")


say(ready=os.getpid())
asyncio.run(main())
"""
)


def shown(workload: Workload) -> X509Identity:
    """What a workload holds."""
    return identity_of(workload.ask("x509"))


def is_held(workload: Workload, before: X509Identity) -> bool:
    """Whether it is fresh and another SVID than before."""
    return "error" not in (said := workload.ask("x509")) and said["serial"] != before.svid.serial


def refused(place: Host, thief: X509Identity, port: int) -> bool:
    """Whether the server lets nobody in who shows this."""
    context = client_context(bundle=place.issuer.bundle, identity=thief, peer_check=lambda _: None)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw) as connection:
                connection.sendall(b"hello")
                return connection.recv(100) != b"hello"
        except (ssl.SSLError, ConnectionError):
            return True


def said(workload: Workload, *words: str) -> dict[str, Any]:
    """What it says, which is no error."""
    answer = workload.ask(*words)
    assert "error" not in answer, json.dumps(answer)
    return answer


def test_a_threaded_and_an_asyncio_workload_live_by_the_daemon() -> None:
    """Both ways by mTLS, through rotation, a new daemon, and a revocation with its reason."""
    with host(x509_svid=12) as place:
        threaded, tasked = (
            place.agent(code=THREADED),
            place.agent("triage", uid=OTHER_UID, code=TASKED),
        )
        place.listed()
        daemon = place.daemon()
        server = place.workload(threaded)
        client = place.workload(tasked, uid=OTHER_UID)
        port = said(server, "start")["port"]
        said(client, "start")
        first, second = shown(server), shown(client)
        # Who requires CRLs lets nobody in before the daemon has them.
        until(lambda: "error" not in client.ask("dial", str(port)))
        assert said(client, "open", str(port))["shown"] == first.svid.der[0].hex()

        until(lambda: is_held(server, first) and is_held(client, second))
        assert shown(server).svid.instance == first.svid.instance
        assert said(client, "ping")["heard"] == "hello"
        fresh = said(client, "dial", str(port))["shown"]
        assert fresh != first.svid.der[0].hex()

        assert daemon.stop() == 0
        assert said(client, "dial", str(port))["heard"] == "hello"
        daemon.start()
        for each, before in ((server, first), (client, second)):
            until(
                lambda each=each, before=before: (  # type: ignore[misc]
                    each.ask("x509").get("instance") not in {None, before.svid.instance}
                )
            )
        until(lambda: "error" not in client.ask("dial", str(port)))
        assert said(client, "ping")["heard"] == "hello"
        token = said(client, "jwt", "https://api.example.org")["token"]
        assert said(client, "jwt", "https://api.example.org")["token"] == token

        stolen = shown(client)
        assert not refused(place, stolen, port)
        target = f"instance:{stolen.svid.instance}"
        place.admin.send(calls.revoke(target=target, kind="revoked", reason="incident 9"))
        until(lambda: client.ask("state") == {"state": "refused"})
        why = client.ask("x509")["error"]
        assert why.startswith("IdentityRefused")
        assert "incident 9" in why
        assert "IdentityRefused" in client.ask("jwt", "https://api.example.org")["error"]
        # Refused at once where the CA's next list is awaited, and by its name once that is there.
        until(
            lambda: (
                refused(place, stolen, port)
                and any("list of revoked" in each for each in said(server, "refusals")["refusals"])
            )
        )
        assert said(server, "state")["state"] in {"fresh", "late"}
