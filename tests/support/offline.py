"""A real issuer without sockets: its database, keys and log are real, its clock is the test's.

``Offline`` does at once what takes several calls over the wire: an agent whose manifest is signed
and registered, an instance attested, a fact stated.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from support.clock import SettableClock
from support.issuer import make_config

from accredit_attestors import manifest as manifests
from accredit_attestors.declaration import Action, Code, Delegation, Manifest, Resource
from accredit_attestors.levels import Risk
from accredit_client.calls import certificate_request
from accredit_credentials.keys import PrivateKey, generate_key
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.task_token import BEARER, Binding
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.audit.log import LogReader
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock_guard import Steady
from accredit_issuer.issuance.agent_svids import AttestationRequest
from accredit_issuer.issuance.tokens import IssuedTaskToken, IssuedWit, TaskTokenRequest
from accredit_issuer.issuer import Issuer, initialise, open_issuer
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.stated import FactRequest, StatedFact
from accredit_issuer.settings import Config

T = TypeVar("T")

DIGEST = "sha256:" + "c0" * 32
AUDIENCE = "https://tickets.example.org"


def sample_manifest(now: datetime, **changes: Any) -> Manifest:
    """A good manifest, with ``changes`` to its fields."""
    issued_at = now.replace(microsecond=0)
    good = Manifest(
        agent=AgentId.parse("support/summarizer"),
        version="1.0.0",
        owner="maria@example.org",
        purpose="Summarises tickets",
        code=Code(DIGEST),
        resources=(
            Resource(
                "tickets",
                AUDIENCE,
                (
                    Action("read", Risk.LOW),
                    Action("comment", Risk.MEDIUM),
                    Action("purge", Risk.HIGH),
                ),
            ),
            Resource("notes", "https://notes.example.org", (Action("read", Risk.LOW),), True),
        ),
        delegation=Delegation(max_depth=2),
        issued_at=issued_at,
        expires_at=issued_at + timedelta(days=300),
    )
    return replace(good, **changes)


@dataclass
class Offline:
    """An open issuer, and what a test did with it."""

    config: Config
    clock: SettableClock
    issuer: Issuer
    first_token: str = field(repr=False, default="")
    signers: dict[str, Any] = field(default_factory=dict, repr=False)
    steady: Steady | None = None
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one issuance."""
        return asyncio.run(coroutine)

    def signer(self, name: str = "ci", *namespaces: str) -> Any:
        """The key of a signer that is known."""
        if name not in self.signers:
            key = manifests.generate_signer_key()
            pem = manifests.public_key_pem(key.public_key()).decode()
            self.issuer.administration.add_signer(
                name, pem, namespaces or ("support",), by=Local("test"), now=self.clock()
            )
            self.signers[name] = key
        return self.signers[name]

    def register(self, *, signer: str = "ci", **changes: Any) -> manifests.VerifiedManifest:
        """A registered manifest, of a new version unless one is given."""
        changes.setdefault("version", f"1.0.{next(self._versions)}")
        signed = manifests.sign(sample_manifest(self.clock(), **changes), self.signer(signer))
        now = self.clock()
        manifest = self.issuer.administration.verified(signed.decode(), now)
        self.issuer.administration.register(manifest, by=Local("test"), now=now)
        return manifest

    def join_token(self, manifest: manifests.VerifiedManifest) -> str:
        """A fresh join token for a manifest's agent."""
        agent = manifest.manifest.agent
        return self.issuer.administration.enrol(
            agent, None, by=Local("test"), now=self.clock()
        ).text

    def attestation(
        self,
        manifest: manifests.VerifiedManifest,
        *,
        token: str | None = None,
        digest: str = DIGEST,
        csr: str | None = None,
    ) -> AttestationRequest:
        """What an honest runtime sends, or one with something else in it."""
        nonce, _ = self.issuer.issuance.agents.nonces.issue(self.clock())
        payloads = {
            "manifest": {"envelope": manifest.envelope.decode()},
            "join_token": {"token": token or self.join_token(manifest)},
            "code_digest": {"digest": digest},
        }
        return AttestationRequest(
            nonce=nonce,
            csr=csr or certificate_request(generate_key()),
            evidence=[
                {"kind": kind, "nonce": nonce, "payload": payload}
                for kind, payload in payloads.items()
            ],
        )

    def attest(self, manifest: manifests.VerifiedManifest) -> X509Svid:
        """A new instance."""
        return self.do(self.issuer.issuance.agents.attest(self.attestation(manifest))).svid()

    def agent(self, **changes: Any) -> X509Svid:
        """A new instance of a new manifest."""
        return self.attest(self.register(**changes))

    def renew(self, svid: X509Svid, key: PrivateKey | None = None) -> X509Svid:
        """The next SVID of an instance."""
        evidence = {"kind": "code_digest", "nonce": svid.serial, "payload": {"digest": DIGEST}}
        csr = certificate_request(key or generate_key())
        return self.do(self.issuer.issuance.agents.renew(svid, csr, [evidence])).svid()

    def task_token(self, svid: X509Svid, **changes: Any) -> IssuedTaskToken:
        """A task token."""
        return self.do(self.issuer.issuance.tokens.task_token(svid, task_request(**changes)))

    def wit(self, svid: X509Svid) -> IssuedWit:
        """A WIT-SVID, for a new key."""
        csr = certificate_request(generate_key())
        return self.do(self.issuer.issuance.tokens.wit_svid(svid, csr))

    def state(self, target: str, kind: str = "revoked", reason: str = "test") -> list[StatedFact]:
        """State a fact."""
        request = FactRequest(
            target=Target.parse(target), kind=FactKind(kind), reason=reason, actor=Local("test")
        )
        return self.issuer.revocation.state(request, self.issuer.changes, self.clock())

    def active(self, kind: AuthorityKind) -> str:
        """The id of the authority that signs."""
        return self.issuer.authorities.now_in_force.active(kind).id

    def prepare(self, kind: AuthorityKind) -> str:
        """Prepare another authority by hand; its id."""
        (made,) = self.issuer.rollover.prepare(kind, by=Local("test"))
        return str(made["id"])

    def activate(self, wanted: str, *, early: bool = True) -> None:
        """Let a prepared authority sign, early unless said otherwise."""
        self.issuer.rollover.activate(wanted, early=early, by=Local("test"))

    def replace(self, kind: AuthorityKind) -> str:
        """Prepare and activate another authority; the id of the one that was active."""
        old = self.active(kind)
        self.activate(self.prepare(kind))
        return old

    def crl_of(self, svid: X509Svid) -> x509.CertificateRevocationList:
        """The newest CRL of the SVID's issuing CA, as it is served."""
        authority = next(mark for mark in svid.marks() if mark.startswith("authority:"))
        return self.crl(authority.partition(":")[2])

    def crl(self, authority: str) -> x509.CertificateRevocationList:
        """The newest CRL of an authority, as it is served."""
        crl = self.issuer.revocation.crls.of(authority)
        assert crl is not None
        return x509.load_der_x509_crl(crl.der)

    def is_on_crl(self, svid: X509Svid) -> bool:
        """Whether the newest CRL lists it."""
        serial = svid.leaf.serial_number
        return self.crl_of(svid).get_revoked_certificate_by_serial_number(serial) is not None

    def leaves(self) -> list[bytes]:
        """Every leaf of the log."""
        with self.issuer.database.read() as connection:
            entries = LogReader(connection).entries(0, self.issuer.log.frontier.size)
        return [entry.leaf for entry in entries]

    def reopen(self) -> None:
        """Stop, and start again on the same folder."""
        self.issuer.close()
        self.issuer = open_issuer(self.config, self.clock, self.steady)


def task_request(**changes: Any) -> TaskTokenRequest:
    """A good request of a bearer token, with ``changes``."""
    binding: Binding = changes.pop("binding", BEARER)
    good = TaskTokenRequest(
        resource="notes",
        actions=("read",),
        purpose="summarise ticket 4711",
        task_id=None,
        parent_id=None,
        principal=None,
        binding=binding,
    )
    return replace(good, **changes)


@contextmanager
def offline_issuer(
    folder: Path,
    clock: SettableClock | None = None,
    *,
    steady: Steady | None = None,
    **settings: Any,
) -> Iterator[Offline]:
    """Make an issuer in ``folder`` and open it; ``steady`` is its clock that nobody sets."""
    clock = clock or SettableClock()
    config = make_config(folder, **settings)
    token = initialise(config, clock).text
    offline = Offline(config, clock, open_issuer(config, clock, steady), token, steady=steady)
    try:
        yield offline
    finally:
        offline.issuer.close()
