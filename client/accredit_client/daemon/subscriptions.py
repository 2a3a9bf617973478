"""What one SDS stream has asked for and was sent, and what is due now. Pure.

xDS has two forms. ``WholeSubscription`` (state of the world): each request names everything that is
wanted, each answer has all of it; a request with another nonce than the last is stale.
``DeltaSubscription`` (incremental): a request says what is wanted in addition and what no more, an
answer has what changed and names what is gone. There no request is stale: each one counts, and
its nonce says only which answer it speaks of.

In both a refusal (NACK) is told to the operator, and the same content is not sent again: it would
be refused again. What a name stands for is sent whenever it changed.
"""

import hashlib
from collections.abc import Iterable

from accredit_client.daemon import statuses
from accredit_client.daemon.proto.envoy_discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from accredit_client.daemon.proto.envoy_tls_pb2 import Secret
from accredit_client.daemon.provider import WorkloadState
from accredit_client.daemon.secrets import names_of, secret_of

TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
MAX_NAMES = 128
MAX_SHOWN = 200
WILDCARD = "*"


class WholeSubscription:
    """A stream of the state of the world."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None  # nothing was asked yet
        self._sent: tuple[tuple[str, ...], str] | None = None
        self._count = 0

    def ask(self, request: DiscoveryRequest) -> str | None:
        """Take in a request; returns the proxy's words where it refused what it was sent.

        Raises:
            GRPCError: INVALID_ARGUMENT: of another type, or too many names.
        """
        _check(request.type_url, len(request.resource_names))
        if request.response_nonce and request.response_nonce != str(self._count):
            return None
        self._names = tuple(dict.fromkeys(request.resource_names))
        return _refusal(request)

    def due(self, state: WorkloadState) -> DiscoveryResponse | None:
        """What is to be sent now, if anything.

        Raises:
            GRPCError: PERMISSION_DENIED: a name that the caller has nothing of.
        """
        if self._names is None:
            return None
        response = response_of(state, self._names)
        now = (self._names, response.version_info)
        if now == self._sent:
            return None
        self._sent = now
        self._count += 1
        response.nonce = str(self._count)
        return response


class DeltaSubscription:
    """An incremental stream."""

    def __init__(self) -> None:
        self._names: set[str] | None = None  # nothing was asked yet
        self._has: dict[str, str | None] = {}  # versions there; None: it knows that there is none
        self._owed: set[str] = set()  # answered whether or not they changed
        self._count = 0

    def ask(self, request: DeltaDiscoveryRequest) -> str | None:
        """Take in a request; returns the proxy's words where it refused what it was sent.

        Raises:
            GRPCError: INVALID_ARGUMENT: of another type, or too many names.
        """
        wanted, unwanted = request.resource_names_subscribe, request.resource_names_unsubscribe
        first = self._names is None
        known = dict(request.initial_resource_versions) if first else {}
        names = self._names or set()
        _check(request.type_url, len(names.union(wanted)), len(known))
        if first and not wanted and not unwanted:
            names.add(WILDCARD)
        self._has |= known
        names.update(wanted)
        names.difference_update(unwanted)
        self._names = names
        # What it says to have at the beginning it has. Later it may have forgotten what we know of.
        self._owed.update(each for each in wanted if each not in known)
        if WILDCARD in wanted and not first:
            self._owed.update(self._has)
        if WILDCARD in names:
            self._owed.update(unwanted)  # it cannot know whether the wildcard has them
        else:
            self._owed.difference_update(unwanted)
            self._has = {name: has for name, has in self._has.items() if name in names}
        return _refusal(request)

    def due(self, state: WorkloadState) -> DeltaDiscoveryResponse | None:
        """What is to be sent now, if anything. What a name has nothing of is named as removed."""
        if self._names is None:
            return None
        names = set(self._names)
        if WILDCARD in names:
            names.update(names_of(state))
        response = DeltaDiscoveryResponse(type_url=TYPE_URL)
        for name in sorted(names.union(self._has, self._owed) - {WILDCARD}):
            secret = secret_of(state, name) if name in names else None
            self._answer(response, name, secret)
            if name not in names:
                del self._has[name]
        self._owed.clear()
        return self._numbered(response)

    def withdrawn(self) -> DeltaDiscoveryResponse | None:
        """What is to be sent where the caller has nothing any more: all that it has is removed."""
        response = DeltaDiscoveryResponse(type_url=TYPE_URL)
        for name in sorted(self._has):
            self._answer(response, name, None)
        return self._numbered(response)

    def _answer(self, response: DeltaDiscoveryResponse, name: str, secret: Secret | None) -> None:
        """Add what is to be said of one name, if anything."""
        version = None if secret is None else _digest(secret)
        told = name in self._has and self._has[name] == version
        if told and name not in self._owed:
            return
        self._has[name] = version
        if secret is None:
            response.removed_resources.append(name)
            return
        added = response.resources.add(name=name, version=version)
        added.resource.Pack(secret, deterministic=True)

    def _numbered(self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryResponse | None:
        if not response.resources and not response.removed_resources:
            return None
        self._count += 1
        response.nonce = str(self._count)
        return response


def response_of(state: WorkloadState, names: tuple[str, ...]) -> DiscoveryResponse:
    """The secrets of these names, of all where none is named; the version is their digest.

    Raises:
        GRPCError: PERMISSION_DENIED: a name that the caller has nothing of.
    """
    response = DiscoveryResponse(type_url=TYPE_URL)
    for name in names or names_of(state):
        secret = secret_of(state, name)
        if secret is None and names:
            raise statuses.denied(f"the caller has no secret {name[:MAX_SHOWN]!r}")
        if secret is not None:
            response.resources.add().Pack(secret, deterministic=True)
    response.version_info = _digest(response)
    return response


def shown(names: Iterable[str]) -> str:
    """Names that a proxy made up, for a log: bounded and escaped."""
    return repr(", ".join(names)[:MAX_SHOWN])


def _digest(message: Secret | DiscoveryResponse) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def _check(type_url: str, *counts: int) -> None:
    if type_url not in {"", TYPE_URL}:
        raise statuses.invalid(f"type_url must be {TYPE_URL}")
    if max(counts) > MAX_NAMES:
        raise statuses.invalid(f"more than {MAX_NAMES} names of resources")


def _refusal(request: DiscoveryRequest | DeltaDiscoveryRequest) -> str | None:
    return shown([request.error_detail.message]) if request.HasField("error_detail") else None
