"""An issuer without sockets that federates with b.example, whose endpoint has them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme
from support.authority import Authority
from support.bundle_endpoint import BundleEndpoint
from support.clock import SettableClock
from support.offline import Offline, offline_issuer

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import BundleMap
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.spiffe_id import TrustDomain, issuer_id
from accredit_issuer.federation.relationships import Standing
from accredit_issuer.federation.rules import Profile, Relationship
from accredit_issuer.registry.changes import Local

B = TrustDomain("b.example")
SERVER = issuer_id(B)
PAYERS = Allowance(Agents.parse("spiffe://b.example/ns/pay/*"), "https://ledger", ("read",))
REAL_NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Federating:
    """An issuer without sockets, and an endpoint of b.example with them."""

    offline: Offline
    endpoint: BundleEndpoint
    b_example: Authority

    @property
    def clock(self) -> SettableClock:
        """The issuer's clock."""
        return self.offline.clock

    def federate(self, bootstrap: TrustBundle | None = None, **values: Any) -> None:
        """Begin a relationship: https_web with nothing allowed, unless it is said otherwise."""
        good: dict[str, Any] = {
            "trust_domain": B,
            "profile": Profile.WEB,
            "endpoint_url": self.endpoint.url,
        }
        self.offline.issuer.relationships.create(
            Relationship(**{**good, **values}), bootstrap, by=Local("test"), now=self.clock()
        )

    def poll(self) -> Standing:
        """What the scheduler does now; how b.example stands after it."""
        self.offline.issuer.polling.poll_due()
        return self.standing

    def after(self, **span: float) -> Standing:
        """Time passes, and the scheduler looks."""
        self.clock.advance(**span)
        return self.poll()

    @property
    def standing(self) -> Standing:
        """How b.example stands."""
        return self.offline.issuer.relationships.one(B)

    @property
    def map(self) -> BundleMap:
        """What verifiers get."""
        return BundleMap.parse(self.offline.issuer.relationships.published().document)

    @property
    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """What the log says of federation: kind and details."""
        values = map(json.loads, self.offline.leaves())
        return [(v["kind"], v["details"]) for v in values if v["kind"].startswith("federation.")]

    def bundle(self, sequence: int | None, **changes: Any) -> TrustBundle:
        """b.example's bundle, with a sequence number."""
        return replace(self.b_example.bundle, sequence=sequence, **changes)


@contextmanager
def offline_with(web_pki: trustme.CA, folder: Path) -> Iterator[Offline]:
    """An issuer that takes ``web_pki`` for the Web PKI."""
    file = folder / "web.pem"
    web_pki.cert_pem.write_to_path(str(file))
    with offline_issuer(folder / "issuer", federation={"ca_file": str(file)}) as offline:
        yield offline
