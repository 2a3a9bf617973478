"""The issuer is killed right after a fact: the status lists of the next process have it."""

import random
from pathlib import Path

from support.issuer import attest, join_token_file, log_in, register, write_agent
from support.process import IssuerProcess, issuer_process, write_settings

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_credentials import status_list, task_token
from accredit_credentials.status_list import Status
from accredit_credentials.task_token import TaskToken
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock

LISTS = '[revocation]\nstatus_list_url = "https://lists.example.org"\n'
ISSUER = "https://localhost:8443"
AUDIENCE = "https://tickets.example.org"
ROUNDS = 3
EACH = 4


def test_every_revoked_token_is_on_its_list_after_a_kill(tmp_path: Path) -> None:
    """Killed as soon as a fact was confirmed: whatever was revoked is invalid, nothing else is."""
    randomness = random.Random()  # noqa: S311 (any of the tokens will do)
    with issuer_process(write_settings(tmp_path, LISTS)) as process:
        admin = log_in(process, process.first_token)  # type: ignore[arg-type]
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(process, admin, agent)  # type: ignore[arg-type]
        token = join_token_file(admin, agent)
        holder = attest(process, agent, token)  # type: ignore[arg-type]
        issued: list[TaskToken] = []
        revoked: set[str] = set()
        for _ in range(ROUNDS):
            issued += [new_token(process, holder) for _ in range(EACH)]
            gone = randomness.choice([each for each in issued if each.jti not in revoked])
            with process.connect(admin.identity) as client:
                client.send(calls.revoke(target=f"jti:{gone.jti}", kind="revoked", reason="x"))
            process.kill()
            revoked.add(gone.jti)
            process.start()
            said = {each.jti for each in issued if status(process, each) is Status.INVALID}
            assert said == revoked
        places = [each.status for each in issued]
        assert len(set(places)) == len(places) == ROUNDS * EACH


def new_token(process: IssuerProcess, holder: X509Identity) -> TaskToken:
    """A task token of the agent."""
    wanted = calls.TaskTokenRequest(resource="tickets", actions=("read",), purpose="x")
    with process.connect(holder) as client:
        text = client.send(calls.task_token(wanted)).access_token
        bundle = client.send(calls.bundle(process.bundle.trust_domain))
    return task_token.verify(
        text, bundle=bundle, issuer=ISSUER, audience=AUDIENCE, now=system_clock()
    )


def status(process: IssuerProcess, token: TaskToken) -> Status:
    """What a stranger learns who fetches the token's list, and verifies it."""
    assert token.status is not None
    path = token.status.uri.removeprefix("https://lists.example.org")
    with process.connect() as client:
        bundle = client.send(calls.bundle(process.bundle.trust_domain))
    known = status_list.verify(
        process.caller().ask("GET", path).body.decode(),
        bundle=bundle,
        issuer=ISSUER,
        uri=token.status.uri,
        now=system_clock(),
    )
    return Status(known.statuses.value(token.status.index))
