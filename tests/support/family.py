"""A parent issuer that runs, and what its child needs to run below it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from support.clock import SettableClock
from support.issuer import (
    AGENT_TOML,
    Admin,
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.files import FolderContent, write_folder
from accredit_credentials.keys import PrivateKey, SubjectKey, generate_key
from accredit_credentials.spiffe_id import AgentId, SpiffeId
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate
from accredit_credentials.x509_template import LeafTemplate, leaf_builder
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer

ROOT, X509 = AuthorityKind.ROOT, AuthorityKind.X509
CHILD = AgentId.parse("infra/child")
MINUTE = timedelta(minutes=1)


@dataclass
class Family:
    """A parent that runs, and the folder with what its child is there."""

    parent: RunningIssuer
    admin: Admin
    folder: Path
    identity: X509Identity = field(repr=False)
    clock: SettableClock

    @property
    def identity_folder(self) -> Path:
        """As ``accredit run`` keeps it."""
        return self.folder / "identity"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Of the child."""
        upstream = {
            "kind": "accredit",
            "url": self.parent.url,
            "identity_folder": str(self.identity_folder),
        }
        return {"upstream": upstream, **more}

    def refresh(self) -> None:
        """What ``accredit run`` does: renew, fetch the bundle, write both."""
        write_folder(
            self.identity_folder,
            FolderContent(self.parent.url, self.parent.bundle, self.identity),
        )

    def name_child(self, *namespaces: str, dns_names: tuple[str, ...] = ("localhost",)) -> None:
        """Make the child's agent a subordinate."""
        call = calls.add_subordinate(
            CHILD, namespaces=namespaces or ("support",), dns_names=dns_names
        )
        self.admin.send(call)

    @contextmanager
    def child(self) -> Iterator[RunningIssuer]:
        """Make the child and serve it."""
        with running_issuer(self.folder / "child", clock=self.clock, **self.settings()) as child:
            yield child


@contextmanager
def family_in(folder: Path) -> Iterator[Family]:
    """A parent with an agent that is to run a child; it is not named a subordinate yet."""
    clock = SettableClock(system_clock())
    with running_issuer(folder / "parent", clock=clock) as parent:
        admin = log_in(parent, parent.first_token)
        toml = AGENT_TOML.replace("support/summarizer", str(CHILD))
        agent = write_agent(
            folder / "child-agent", key=generate_signer_key(), now=clock(), toml=toml
        )
        register(parent, admin, agent)
        identity = attest(parent, agent, join_token_file(admin, agent))
        family = Family(parent, admin, folder, identity, clock)
        family.refresh()
        yield family


def check_valid(family: Family, svid: X509Svid) -> None:
    """Validate by what the parent publishes."""
    bundle = family.parent.bundle
    validate(svid, bundles={bundle.trust_domain: bundle}, now=family.clock())


def signed_by(
    issuer: Issuer, path: str, now: SettableClock, key: PrivateKey | None = None
) -> X509Svid:
    """A leaf that the issuer's CA signs although nobody decided on it."""
    ca = issuer.authorities.now_in_force.active(X509)
    assert ca.certificate is not None
    assert ca.key is not None
    template = LeafTemplate(
        spiffe_id=SpiffeId(issuer.config.trust_domain, path),
        subject_key=SubjectKey.of((key or generate_key()).public_key()),
        serial=4711,
        not_before=now().replace(microsecond=0) - MINUTE,
        not_after=now().replace(microsecond=0) + MINUTE,
        instance="0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
    )
    algorithm = ca.certificate.signature_hash_algorithm
    assert algorithm is not None
    leaf = leaf_builder(template, ca.certificate).sign(ca.key, algorithm)
    return X509Svid(template.spiffe_id, leaf, (ca.certificate, *ca.chain))
