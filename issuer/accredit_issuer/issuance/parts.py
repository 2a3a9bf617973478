"""What issuing needs of the rest of the issuer, in one value."""

from collections.abc import Mapping
from dataclasses import dataclass

from accredit_attestors.contract import Attestor
from accredit_attestors.nodes.contract import NodeAttestor
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.subordinates import Subordinates
from accredit_issuer.clock import Clock
from accredit_issuer.registry.nodes import Nodes
from accredit_issuer.registry.registry import Registry
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.revocation.status_lists import StatusLists
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Parts:
    """What issuing needs of the rest of the issuer."""

    config: Config
    clock: Clock
    database: Database
    writer: Writer
    authorities: Authorities
    registry: Registry
    revocation: Revocation
    status_lists: StatusLists
    subordinates: Subordinates
    attestors: Mapping[str, Attestor]
    nodes: Nodes
    node_attestors: Mapping[str, NodeAttestor]
    unguarded_clock: Clock
    """For what stops something, which is possible by any clock."""
