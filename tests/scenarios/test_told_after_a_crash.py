"""The issuer is killed between a commit and a delivery: the receiver is told all the same."""

import signal
from pathlib import Path

import trustme
from support.event_receiver import Reply, event_receiver, unverified
from support.issuer import log_in, register, write_agent
from support.process import issuer_process, write_settings
from support.raw_http import RawClient

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_issuer.clock import system_clock


def test_a_fact_reaches_its_receiver_over_a_kill(tmp_path: Path) -> None:
    """Stated while the receiver is down, SIGKILL, started again: each fact once, in order."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    settings = write_settings(tmp_path, '[shared_signals]\nca_file = "ca.pem"\n')
    with event_receiver(ca) as receiver, issuer_process(settings) as process:
        receiver.reply = Reply(status=503)
        admin = log_in(process, process.first_token)  # type: ignore[arg-type]
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(process, admin, agent)  # type: ignore[arg-type]
        raw = RawClient.at(process.url, process.bundle, admin.identity)
        body = {"name": "siem", "audience": "a", "endpoint_url": receiver.url}
        assert raw.ask("POST", "/v1/ssf/streams", body).status == 201
        for kind in ("suspended", "restored", "revoked"):
            call = calls.revoke(target="agent:support/summarizer", kind=kind, reason="x")
            admin.send(call)
        receiver.wait(1, asked=True)
        admin.client.close()
        process.send_signal(signal.SIGKILL)
        process.wait()
        receiver.reply = Reply()
        process.start()
        receiver.wait(3)
        kinds = [next(iter(unverified(each)["events"])) for each in receiver.accepted]
        assert [kind.rpartition("/")[2] for kind in kinds] == [
            "session-revoked",
            "session-established",
            "session-revoked",
        ]
        assert len(set(receiver.jtis)) == 3
