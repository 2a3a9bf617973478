"""Issuing: what each kind of request takes to become a credential.

Each is one walk through the cycle: who asks → decide → intent → sign → outcome → release. The
decisions are in ``decision``, ``attestation`` and ``tasks``, the order of recording and signing in
``cycle``; ``agent_svids``, ``node_svids``, ``node_instances``, ``tokens``, ``admin_svids``,
``own_svid`` and ``issuing_cas`` put them together. Here those are made, with what they have in
common.
"""

from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.issuance.admin_svids import AdminSvids
from accredit_issuer.issuance.agent_svids import AgentSvids
from accredit_issuer.issuance.claimants import claimant_of
from accredit_issuer.issuance.csr import key_of_request
from accredit_issuer.issuance.cycle import Cycle
from accredit_issuer.issuance.decision import check_standing
from accredit_issuer.issuance.issuing_cas import IssuingCas, SignedCa
from accredit_issuer.issuance.node_instances import NodeInstances
from accredit_issuer.issuance.node_svids import NodeSvids
from accredit_issuer.issuance.own_svid import OwnSvid
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.refusals import Refusals
from accredit_issuer.issuance.together import Together
from accredit_issuer.issuance.tokens import Tokens
from accredit_issuer.issuance.x509_signing import X509Signing
from accredit_issuer.store.loop_writer import LoopWriter


class Issuance:
    """Issues every kind of credential.

    Attributes:
        agents: X.509-SVIDs of agents.
        tokens: their JWT-SVIDs, WIT-SVIDs and task tokens.
        admins: X.509-SVIDs of admins.
        nodes: X.509-SVIDs of nodes.
        instances: those of what nodes run.
        own: the X.509-SVID of this issuer's own server.
        refusals: where a refusal is recorded before it is answered.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        writer = LoopWriter(parts.writer)
        with parts.database.read() as connection:
            self.cycle = Cycle(writer, parts.revocation, connection)
        x509 = X509Signing(parts.config, parts.authorities, self.cycle)
        keys = Together(key_of_request)
        self.refusals = Refusals(writer, parts.clock)
        self.agents = AgentSvids(parts, x509, keys, self.refusals)
        self.nodes = NodeSvids(parts, x509, keys, refusals=self.refusals, nonces=self.agents.nonces)
        self.instances = NodeInstances(parts, x509, self.agents)
        self.tokens = Tokens(parts, self.cycle, keys)
        self.admins = AdminSvids(parts, x509, keys)
        self.own = OwnSvid(parts, x509)
        self._issuing_cas = IssuingCas(
            parts.config, parts.authorities, parts.subordinates, parts.revocation, self.cycle
        )

    async def issuing_ca(self, svid: X509Svid, csr: str) -> SignedCa:
        """An issuing CA for an agent that is a subordinate issuer.

        Raises:
            Refusal: it was not named one, or may have nothing now.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = claimant_of(self._parts.registry, svid)
        check_standing(claimant, self._parts.revocation.facts, now)
        return await self._issuing_cas.issue(svid, claimant, csr, now)
