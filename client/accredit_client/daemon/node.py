"""The node's own identity: which host this is, proved once and kept.

Trust first, then an SVID by node evidence, then renewals as every identity's. What is held is
written to a folder of the daemon's own (``files``), so that a restart needs neither a new token nor
the issuer. Where the SVID ran out meanwhile, its key is shown as evidence (``former_svid``), and
only where that is refused the token or certificate of the settings. A node that was taken from the
issuer's list asks on, slowly: an operator who lists it again has nothing to do here but to put a
new token into the same file.
"""

import hashlib
import logging
import math
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from accredit_attestors.errors import CannotCollect
from accredit_attestors.nodes import former_svid
from accredit_attestors.nodes.contract import NodeAttestor, NodeCollectContext
from accredit_client import calls, renewal
from accredit_client.answers import X509Answer
from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.call import Call
from accredit_client.daemon.settings import NodeSettings
from accredit_client.effects import Clock, Draw, system_draw, utc_now
from accredit_client.errors import ClientError, InvalidFolder, IssuerRefused
from accredit_client.files import PRIVATE, FolderContent, read_folder, version_of, write_folder
from accredit_client.issuer_keeper import IssuerKeeper
from accredit_client.keeper import Held
from accredit_client.next_key import NextKey
from accredit_client.revocations import MAX_STALENESS
from accredit_client.talk import Blocking, Talk
from accredit_client.trust import Trust, pin_of
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import PrivateKey
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain, node_id
from accredit_credentials.x509_svid import X509Identity

log = logging.getLogger(__name__)

A = TypeVar("A")
NodeAttestors = Callable[[], Mapping[str, NodeAttestor]]

FOLDER = "node"  # in the daemon's data: SVID, key, bundle
TRUST_FILE = "trust"  # beside it: what trust started from

# After these the SVID that is held is worth nothing: only evidence may be.
_LOST = frozenset({"unauthenticated", "forbidden", "revoked"})


class NodeKeeper(IssuerKeeper):
    """Attests with node evidence, renews as everybody, and keeps what it holds on disk."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        data: Path,
        issuer_url: str,
        trust: Trust,
        attestors: NodeAttestors,
        clock: Clock,
        draw: Draw,
    ) -> None:
        super().__init__(
            issuer_url=issuer_url,
            trust=trust,
            manifest_file=None,
            code_root=None,
            join_token_file=None,
            attestors=dict,  # an agent's evidence is none of a node's
            clock=clock,
            draw=draw,
        )
        self._next_key = NextKey(data / FOLDER, PRIVATE)
        self._node = node
        self._data = data
        self._node_attestors = attestors
        self._looked = False
        self._lost = False

    def begin(self) -> Talk:
        """Take up what is on disk; where that is nothing, establish trust and attest."""
        if not self._looked:
            kept = yield Blocking(self._read)
            self._looked = True
            if kept is not None:
                self._take_up(kept)
        held = self._held
        if held is not None and held.life.expired(self.clock()):
            yield from self._again()
        yield from super().begin()
        if held is not None and held is self._held:
            self._refresh_at = self.clock()  # what is on disk may be of long ago

    def _attest(self) -> Talk:
        """Show the key of the SVID that is over; where that does not count, the evidence."""
        held = self._held
        if held is not None and not self._lost and held.life.expired(self.clock()):
            try:
                yield from self._attest_by(held.identity)
            except IssuerRefused as refused:
                if refused.for_now:
                    raise
                log.warning("the SVID that is over does not count: %s", refused)
            else:
                return
        yield from self._attest_by(None)

    def _attest_by(self, former: X509Identity | None) -> Talk:
        key = yield from self._key_for(former)
        nonce = (yield calls.nonce()).nonce
        evidence = yield Blocking(lambda: self._evidence(nonce, key, former))
        csr = calls.certificate_request(key)
        call = calls.node_attestation(node=self._node.name, nonce=nonce, csr=csr, evidence=evidence)
        answer: X509Answer = yield call
        if answer.spiffe_id != self._own_id():
            raise ClientError(f"the issuer named this node {answer.spiffe_id}")
        yield from self._accept(answer, key)
        self._lost = False

    def _decisive(self, call: Call[X509Answer]) -> Generator[Call[Any], Any, X509Answer]:
        """No refusal is the last word: an operator may list the node again."""
        try:
            answer: X509Answer = yield call
        except IssuerRefused as refused:
            if refused.kind in _LOST:
                self._attest_next = True
                self._lost = refused.kind != "unauthenticated"
            raise
        return answer

    def _take(self, identity: X509Identity) -> Talk:
        yield from super()._take(identity)
        held = self.last_held()
        try:
            yield Blocking(lambda: self._write(held))
        except (ClientError, OSError) as error:
            log.error("the node's identity is not kept for a restart: %s", error)  # noqa: TRY400 (one line each)

    def _evidence(
        self, nonce: str, key: PrivateKey, former: X509Identity | None
    ) -> dict[str, object]:
        context = NodeCollectContext(
            trust_domain=self.trusted().trust_domain,
            nonce=nonce,
            public_key=key.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            ),
            join_token_file=self._node.join_token_file,
            certificate_file=self._node.certificate,
            key_file=self._node.key,
            former=former,
        )
        for kind, attestor in self._node_attestors().items():
            if (kind == former_svid.KIND) == (former is not None):
                evidence = attestor.collect(context)
                if evidence is not None:
                    return evidence.to_json()
        raise CannotCollect("this node has no evidence to show")

    def _take_up(self, kept: FolderContent) -> None:
        """Hold what was on disk, as far as it is of this node, and the bundle vouches for it."""
        self._took_bundle(kept.bundle)
        svid = kept.identity.svid
        if svid.spiffe_id != self._own_id():
            log.warning("what is kept is of %s: this node attests anew", svid.spiffe_id)
            return
        try:
            self._validate(svid)
        except Untrusted as error:
            log.warning("what is kept is not vouched for any more: %s", error)
            return
        except ClientError:
            pass  # over, or the clock is wrong: what that means is decided where it is used
        life = renewal.life_of(svid.not_before, svid.not_after, now=self.clock(), draw=self._draw)
        self._hold(kept.bundle, kept.identity, life)

    def _own_id(self) -> object:
        return node_id(self.trusted().trust_domain, self._node.name)

    # On disk

    def _read(self) -> FolderContent | None:
        folder = self._data / FOLDER
        if version_of(folder) is None:
            return None
        try:
            kept = read_folder(folder)
            word = (self._data / TRUST_FILE).read_text()
        except (ClientError, OSError) as error:
            log.warning("what is kept cannot be read, this node attests anew: %s", error)
            return None
        if kept.issuer_url != self.issuer_url or word != self._word():
            log.warning("issuer or trust are others by now: this node attests anew")
            return None
        self._next_key.take_up()
        return kept

    def _write(self, held: Held) -> None:
        _private(self._data)
        fresh = self._data / f".{TRUST_FILE}.{secrets.token_hex(8)}"
        fresh.write_text(self._word())
        fresh.replace(self._data / TRUST_FILE)
        write_folder(
            self._data / FOLDER, FolderContent(self.issuer_url, held.bundle, held.identity)
        )

    def _word(self) -> str:
        """What the operator said trust starts from, as a digest."""
        trust = self._trust
        pins = [trust.pin] if trust.pin is not None else []
        if trust.bundle is not None:
            pins += map(pin_of, trust.bundle.x509_authorities)
        return hashlib.sha256(" ".join(sorted(filter(None, pins))).encode()).hexdigest()


class AsyncNodeIdentity(AsyncAgentIdentity):
    """The node's identity, renewed by one asyncio task; follows the feed and the bundle map.

    A start waits for an issuer that is away for as long as it takes.

    Args:
        node: how this node proves itself.
        data: the daemon's own folder.
        issuer_url: ``https://host[:port]``.
        trust: where trust starts.
        attestors: the kinds of node evidence.
        clock: the time.
        draw: for the jitter.
    """

    def __init__(  # another kind of keeper than the other identities'
        self,
        *,
        node: NodeSettings,
        data: Path,
        issuer_url: str,
        trust: Trust,
        attestors: NodeAttestors,
        clock: Clock = utc_now,
        draw: Draw = system_draw,
    ) -> None:
        keeper = NodeKeeper(
            node=node,
            data=data,
            issuer_url=issuer_url,
            trust=trust,
            attestors=attestors,
            clock=clock,
            draw=draw,
        )
        self._step_listeners: list[Callable[[], None]] = []
        self._federated_of: tuple[object, Mapping[TrustDomain, TrustBundle]] = (None, {})
        self._set_up(
            keeper,
            revocations=True,
            max_staleness=MAX_STALENESS,
            federation=True,
            patience=math.inf,
            draw=draw,
        )

    def on_step(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever SVID, bundle or bundle map may be others."""
        self._step_listeners.append(told)

    async def send(self, call: Call[A]) -> A:
        """Ask the issuer as this node; raises as ``AgentIdentity.fetch_jwt_svid``."""
        return await self._call(call)

    @property
    def spiffe_id(self) -> SpiffeId:
        """Who this host is, also while its SVID is over.

        Raises:
            NotReady: it has not attested yet.
        """
        return self._keeper.last_held().identity.svid.spiffe_id

    @property
    def issuer_url(self) -> str:
        """Where the issuer is."""
        return self._keeper.issuer_url

    @property
    def federated_bundles(self) -> Mapping[TrustDomain, TrustBundle]:
        """The bundles of other trust domains; the same object for as long as nothing changes."""
        federation = self.federation
        if federation is None:
            return {}
        known = federation.map
        if self._federated_of[0] is not known:
            self._federated_of = (known, known.bundles)
        return self._federated_of[1]

    def _tell(self, before: int) -> None:
        super()._tell(before)
        for told in self._step_listeners:
            told()


def _private(folder: Path) -> None:
    """Make the daemon's folder, closed to everybody else.

    Raises:
        InvalidFolder: it is somebody else's, or open to others.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise InvalidFolder(f"folder {folder} must be ours and closed to others (mode 0700)")
