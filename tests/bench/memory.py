"""Memory of an issuer that knows many agents, and of a client.

Children are scripts of their own, so that what the bench itself holds counts for nothing.
"""

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from issuers import Session, new_folder, started
from rows import Row, measure
from support.issuer import AGENT_TOML, write_agent

from accredit_attestors import manifest as manifests
from accredit_attestors import signing
from accredit_attestors.agent_file import load as load_agent_file
from accredit_attestors.manifest import generate_signer_key
from accredit_attestors.signing import Signer
from accredit_credentials.keys import public_key_digest
from accredit_credentials.spiffe_id import AgentId
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer
from accredit_issuer.store import models
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.writer import Transaction

AGENTS = 10_000
GROUP = 1000

RESIDENT = """
from pathlib import Path
def resident():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
"""

ISSUER = """
import sys
from sqlalchemy import select
import accredit_issuer.server
from accredit_issuer.app import make_app
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import open_issuer
from accredit_issuer.settings import load
from accredit_issuer.store import models
issuer = open_issuer(load(Path(sys.argv[1])), system_clock)
app = make_app(issuer)
before = resident()
with issuer.database.read() as connection:
    known = connection.execute(select(models.instances.c.id, models.instances.c.manifest)).all()
for instance, manifest in known:
    issuer.registry.instance(instance)
    issuer.registry.manifest(manifest)
print(before, resident())
issuer.close()
"""

CLIENT = """
import sys
from accredit_client import AgentIdentity, Issuer, TaskTokenAuth, TaskTokenVerifier, calls
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import TrustDomain
bundle = TrustBundle.parse(TrustDomain.parse("example.org"), Path(sys.argv[1]).read_bytes())
with Issuer.at(sys.argv[2], bundle=bundle) as issuer:
    issuer.send(calls.nonce())
    print(resident())
"""


@measure("memory")
def memory(_session: Session) -> Iterator[Row]:
    """Resident memory, with many agents registered and attested."""
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name:
        folder = Path(name)
        _, bundle = new_folder(folder / "issuer", lambda issuer: _register(issuer, folder))
        bundle_file = folder / "bundle.json"
        bundle_file.write_text(bundle.to_json())
        with started(folder / "issuer") as process:
            yield Row(
                name="memory_issuer",
                value=process.resident_mb,
                unit="MB",
                promise="<= 150 MB with 100,000 agents",
                met=process.resident_mb <= 150,
                note=f"scale: {AGENTS:,} agents registered, idle after the start",
            )
            url = f"https://{process.host}:{process.port}"
            used = float(_child(RESIDENT + CLIENT, bundle_file, url))
        before, after = map(
            float, _child(RESIDENT + ISSUER, folder / "issuer" / "issuer.toml").split()
        )
        yield Row(
            name="memory_issuer.used",
            value=after,
            unit="MB",
            promise="<= 150 MB with 100,000 agents",
            met=after <= 150,
            note=f"scale: {AGENTS:,} agents, each of which asked once; {before:.0f} MB before; "
            "no more than 10,000 are kept in memory",
        )
        bare = float(_child(RESIDENT + "print(resident())"))
        yield Row(
            name="memory_client",
            value=used - bare,
            unit="MB",
            promise="<= 40 MB above the interpreter",
            met=used - bare <= 40,
            note=f"after one call over TLS; the interpreter alone has {bare:.0f} MB",
        )


def _child(code: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _register(issuer: Issuer, folder: Path) -> None:
    """Register and attest agents the short way: signed for real, written in large groups."""
    now, key = system_clock(), generate_signer_key()
    write_agent(folder / "agent", key=key, now=now, toml=AGENT_TOML)
    sample = load_agent_file(folder / "agent" / "agent.toml").manifest(now)
    signer = Signer("fleet", key.public_key(), ("fleet",))
    issuer.writer.run(
        lambda t: t.add(
            BulkInsert(models.signers),
            {
                "name": signer.name,
                "key_id": public_key_digest(key.public_key()),
                "public_key": manifests.public_key_pem(key.public_key()).decode(),
                "namespaces": ["fleet"],
                "created_at": now,
                "created_by": "bench",
                "log_index": 0,
            },
        )
    ).result()
    for start in range(0, AGENTS, GROUP):
        rows = []
        for number in range(start, start + GROUP):
            agent = AgentId.parse(f"fleet/agent-{number}")
            envelope = signing.sign(replace(sample, agent=agent), key)
            rows.append(signing.verify(envelope, signers=(signer,), now=now))
        issuer.writer.run(lambda t, rows=rows: _write(t, rows)).result()  # type: ignore[misc]


def _write(transaction: Transaction, verified: list[signing.VerifiedManifest]) -> None:
    for each in verified:
        declared = each.manifest
        transaction.add(
            _MANIFEST,
            {
                "digest": each.digest,
                "agent": str(declared.agent),
                "namespace": declared.agent.namespace,
                "version": declared.version,
                "owner": declared.owner,
                "signer": each.signer,
                "envelope": each.envelope.decode(),
                "registered_at": declared.issued_at,
                "registered_by": "bench",
                "expires_at": declared.expires_at,
                "log_index": 0,
            },
        )
        transaction.add(
            _INSTANCE,
            {
                "id": str(uuid.uuid4()),
                "agent": str(declared.agent),
                "manifest": each.digest,
                "assurance": str(declared.assurance),
                "selectors": ["manifest:signer:fleet"] * 4,
                "born_at": declared.issued_at,
                "log_index": 0,
            },
        )


_MANIFEST, _INSTANCE = BulkInsert(models.manifests), BulkInsert(models.instances)
