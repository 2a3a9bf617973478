"""``accredit-issuer`` below a company's CA, as an operator sets it up: init, run, doctor, show."""

import json
import subprocess
from pathlib import Path

from support.given import given_chain, rsa_key
from support.issuer import attest, join_token_file, log_in, register, write_agent
from support.process import COMMAND, TIMEOUT, issuer_process, write_settings

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import validate
from accredit_issuer.clock import system_clock

PASSPHRASE = b"correct horse battery"


def test_an_issuer_below_a_companys_ca(tmp_path: Path) -> None:
    """It starts, an agent's chain ends at the company's root, and no tool of ours is surprised."""
    given = given_chain({}, {}, keys=[rsa_key(), rsa_key()], now=system_clock())
    upstream = given.write(tmp_path / "ca", passphrase=PASSPHRASE)
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in upstream.items())
    file = write_settings(tmp_path, f"[upstream]\n{lines}")
    with issuer_process(file) as process:
        assert process.bundle.x509_authorities == (given.root,)
        admin = log_in(process, process.first_token)  # type: ignore[arg-type]
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(process, admin, agent)  # type: ignore[arg-type]
        identity = attest(process, agent, join_token_file(admin, agent))  # type: ignore[arg-type]
        bundle = process.connect(identity).send(calls.bundle(TrustDomain.parse("example.org")))
        assert bundle.x509_authorities == (given.root,)
        validate(identity.svid, bundles={bundle.trust_domain: bundle}, now=system_clock())
        assert identity.svid.intermediates[1:] == given.certificates[:1]
        shown = json.loads(_run("authority", "show", "--json", "--config", str(file)))
        origins = {each["kind"]: each["origin"] for each in shown["authorities"]}
        assert origins == {"root": "files", "x509": "own", "jwt": "own"}
        assert "given in files" in _run("authority", "show", "--config", str(file))
        found = json.loads(_run("doctor", "--json", "--config", str(file)))
        assert found["ok"], found
        (told,) = (each["found"] for each in found["findings"] if each["what"] == "upstream")
        assert "from files" in told


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments], check=True, capture_output=True, text=True, timeout=TIMEOUT
    )
    return done.stdout
