"""The log, replayed: was each record possible by what stood before it?

What an audit finds in the tables is how everything ended. Whoever can write the database can change
a row, let the issuer act on it and put it back: then the end is as it was, and only the order of
the log tells. So each record is held against those before it, in one pass:

- a credential against the facts in force, the manifest, the admin's invitation, and of a
  subordinate's issuing CA what was granted it;
- a change against the role that its admin was invited with, and against the facts about that admin
  and about what it changed;
- what a node did against what it was listed with: its SVIDs, the instances that it vouched for, and
  which of them it said had changed;
- a one-time or join token against who was given it, whether it was spent and when it ended;
- the certificate of an OCSP responder against the issuing CAs in use, and how long one may live.

Kept in memory: facts in force, issuing CAs in use, admins, subordinates, nodes and what runs there,
tokens that nobody spent, three words of each manifest. Decides nothing about rows, and reads none
but by ``namespace_of``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.revocation import FactKind, FactSet, Target, TargetKind
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import identity_marks
from accredit_issuer.audit.recorded import Recorded
from accredit_issuer.audit.records import RecordKind
from accredit_issuer.audit.told import fact_of
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.responder_profile import MAX_LIFETIME
from accredit_issuer.registry.roles import Admin, Operation, Role, may
from accredit_issuer.revocation.revocation import LASTING

CA = "ca"
X509 = "x509"
SUSPENDED = FactKind.SUSPENDED.value
FIRST_PRUNED = 1000  # facts in memory before those are looked for that can match nothing any more

_SPIFFE = "spiffe://"
_SHOWN = "join_token:id:"
_TOKENS = frozenset({"jwt", "wit", "task"})
_CARRIED = (
    ("instance", "instance"),
    ("manifest", "manifest"),
    ("task", "task"),
    ("parent", "task"),
    ("authority", "authority"),
    ("certified", "authority"),
)

# Who may have caused a record; an admin's role has to allow one of the operations.
OPERATIONS: Mapping[str, tuple[Operation, ...]] = {
    RecordKind.ADMIN_INVITED: (Operation.MANAGE_ADMINS,),
    RecordKind.SIGNER_ADDED: (Operation.MANAGE_SIGNERS,),
    RecordKind.MANIFEST_REGISTERED: (Operation.REGISTER,),
    RecordKind.AGENT_ENROLLED: (Operation.ENROL,),
    RecordKind.FACT_STATED: (Operation.REVOKE,),
    RecordKind.SUBORDINATE_ADDED: (Operation.MANAGE_SUBORDINATES,),
    RecordKind.SUBORDINATE_REMOVED: (Operation.MANAGE_SUBORDINATES,),
    RecordKind.NODE_ADDED: (Operation.MANAGE_NODES,),
    RecordKind.NODE_CHANGED: (Operation.MANAGE_NODES,),
    RecordKind.NODE_REMOVED: (Operation.MANAGE_NODES,),
    RecordKind.NODE_ENROLLED: (Operation.MANAGE_NODES,),
    RecordKind.STREAM_ADDED: (Operation.MANAGE_STREAMS,),
    RecordKind.STREAM_REMOVED: (Operation.MANAGE_STREAMS,),
    RecordKind.FEDERATION_ADDED: (Operation.FEDERATE,),
    RecordKind.FEDERATION_CHANGED: (Operation.FEDERATE,),
    RecordKind.FEDERATION_REMOVED: (Operation.FEDERATE,),
    RecordKind.FEDERATION_BUNDLE_CHANGED: (Operation.FEDERATE,),
    **dict.fromkeys(
        (
            RecordKind.AUTHORITY_PREPARED,
            RecordKind.AUTHORITY_ACTIVATED,
            RecordKind.AUTHORITY_RETIRED,
            RecordKind.AUTHORITY_TAINTED,
            RecordKind.AUTHORITY_REMOVED,
            RecordKind.AUTHORITY_REVOKED,
        ),
        (Operation.MANAGE_AUTHORITIES,),
    ),
}

_spiffe_id = lru_cache(maxsize=4096)(SpiffeId.parse)  # an agent asks again and again


@dataclass(frozen=True, slots=True)
class _Manifest:
    agent: str
    signer: str
    owner: str


@dataclass(frozen=True, slots=True)
class _Token:
    """One that was given out: to whom, and until when (None in earlier records)."""

    holder: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class _Node:
    """A listed node: the id in all of its SVIDs, and whose agents it may run."""

    instance: object
    namespaces: object

    def may_run(self, agent: str) -> bool:
        """Whether an agent, ``namespace/name``, is of a namespace of it."""
        names = self.namespaces
        return isinstance(names, list) and agent.partition("/")[0] in names


class Replay:
    """The state that the log's records make, record by record.

    Args:
        trust_domain: whose log it is.
        namespace_of: where a target lies, as the issuer asks when a fact is stated.
    """

    def __init__(
        self, trust_domain: TrustDomain, namespace_of: Callable[[Target], str | None]
    ) -> None:
        self._trust_domain = trust_domain
        self._namespace_of = namespace_of
        self._facts = FactSet()
        self._prune_at = FIRST_PRUNED
        self._admins: dict[str, Admin] = {}
        self._manifests: dict[str, _Manifest] = {}
        self._granted: dict[str, tuple[object, object]] = {}
        self._nodes: dict[str, _Node] = {}
        self._born_on: dict[str, str] = {}
        self._node_tokens: dict[str, _Token] = {}
        self._join_tokens: dict[str, _Token] = {}
        self._one_time_tokens: dict[str, _Token] = {}
        self._issuing_cas: set[str] = set()
        self._taking: Mapping[str, Callable[[Recorded], Iterable[str]]] = {
            RecordKind.FACT_STATED: self._stated,
            RecordKind.ADMIN_INVITED: self._invited,
            RecordKind.ADMIN_ENROLLED: self._enrolled,
            RecordKind.MANIFEST_REGISTERED: self._registered,
            RecordKind.AGENT_ENROLLED: self._awaited,
            RecordKind.INSTANCE_ATTESTED: self._attested,
            RecordKind.SUBORDINATE_ADDED: self._named,
            RecordKind.SUBORDINATE_REMOVED: self._unnamed,
            RecordKind.NODE_ADDED: self._listed,
            RecordKind.NODE_CHANGED: self._listed,
            RecordKind.NODE_REMOVED: self._unlisted,
            RecordKind.NODE_ENROLLED: self._node_awaited,
            RecordKind.NODE_ATTESTED: self._node_attested,
            RecordKind.INSTANCE_CHANGED: self._code_changed,
            RecordKind.AUTHORITY_PREPARED: self._prepared,
            RecordKind.AUTHORITY_REMOVED: self._removed,
            RecordKind.AUTHORITY_REVOKED: self._removed,
            RecordKind.RESPONDER_CERTIFIED: self._responder,
        }

    def judge(self, record: Recorded) -> list[str]:
        """Why a record was not possible where it stands; then it is taken in, as it is.

        Raises:
            InvalidRecord: it is a fact's, and says none.
        """
        problems: list[str] = []
        if record.kind == RecordKind.CREDENTIAL_ISSUED:
            problems += self._credential(record)
        elif record.kind in OPERATIONS:
            problems += self._change(record)
        take = self._taking.get(record.kind)
        if take is not None:
            problems += take(record)
        return problems

    # Credentials.

    def _credential(self, record: Recorded) -> Iterator[str]:
        try:
            subject = _spiffe_id(record.actor)
        except InvalidSpiffeId:
            return  # said of the credential
        marks = [*_marks(record), *identity_marks(subject)]
        digest = record.details.get("manifest")
        if digest is not None:
            manifest = self._manifests.get(str(digest))
            if manifest is None:
                yield f"no manifest {digest} was registered before it"
            else:
                marks += (f"signer:{manifest.signer}", f"owner:{manifest.owner}")
                if f"agent:{manifest.agent}" not in marks:
                    yield f"its manifest is of the agent {manifest.agent}"
        match subject.segments:
            case ("admin", name) if name not in self._admins:
                yield f"nobody had invited the admin {name} before it"
            case ("node", name):
                yield from self._is_listed(name, record.details.get("instance"))
        if (node := self._born_on.get(str(record.details.get("instance")))) is not None:
            marks.append(f"node:{node}")
            if record.details.get("credential") == X509 and digest in self._manifests:
                yield from self._may_run(node, self._manifests[str(digest)].agent)
        yield from self._against(marks)
        if record.details.get("credential") == CA:
            yield from self._certified(record, subject)

    def _certified(self, record: Recorded, subject: SpiffeId) -> Iterator[str]:
        agent = next((m for m in identity_marks(subject) if m.startswith("agent:")), "")
        granted = self._granted.get(agent.removeprefix("agent:"))
        if granted is None:
            yield f"{record.actor} was no subordinate issuer then, and had an issuing CA certified"
        elif granted != _names(record):
            yield "its issuing CA has other names than were granted then"

    def _is_listed(self, name: str, instance: object) -> Iterator[str]:
        node = self._nodes.get(name)
        if node is None or node.instance != instance:
            yield f"nobody had listed the node {name} before it"

    def _may_run(self, name: str, agent: str) -> Iterator[str]:
        node = self._nodes.get(name)
        if node is None or not node.may_run(agent):
            yield f"the node {name} could not run {agent} then"

    def _against(self, marks: list[str]) -> Iterator[str]:
        fact = self._facts.match(marks)
        if fact is not None:
            yield f"{fact.target} was {fact.kind.value} before it, by the fact {fact.sequence}"

    # Changes.

    def _change(self, record: Recorded) -> Iterator[str]:
        if record.actor.startswith(_SPIFFE):
            yield from self._by_admin(record)
        yield from self._against(_about(record))

    def _by_admin(self, record: Recorded) -> Iterator[str]:
        try:
            actor = _spiffe_id(record.actor)
        except InvalidSpiffeId as error:
            yield str(error)
            return
        match actor.segments:
            case ("admin", name) if actor.trust_domain == self._trust_domain:
                yield from self._against([f"admin:{name}"])
                yield from self._in_role(name, record)
            case ("node", name) if actor.trust_domain == self._trust_domain:
                yield from self._by_node(name, record)
            case _:
                yield f"{record.actor} is no admin, and did what only admins do"

    def _by_node(self, name: str, record: Recorded) -> Iterator[str]:
        """A node suspends what runs there, and does nothing else."""
        kind, _, instance = record.subject.partition(":")
        suspends = record.kind == RecordKind.FACT_STATED and record.details.get("fact") == SUSPENDED
        if not suspends or kind != TargetKind.INSTANCE:
            yield f"{record.actor} is a node, and did what only admins do"
        elif self._born_on.get(instance) != name:
            yield f"the instance {instance} did not run on the node {name}"

    def _in_role(self, name: str, record: Recorded) -> Iterator[str]:
        admin = self._admins.get(name)
        if admin is None:
            yield f"nobody had invited the admin {name} before it"
            return
        operations = OPERATIONS[record.kind]
        if record.kind == RecordKind.FACT_STATED and _kind(record) == TargetKind.AUTHORITY:
            operations = (*operations, Operation.MANAGE_AUTHORITIES)  # ``revoke authority``
        place = self._place(record)
        if not any(may(admin, each, place) for each in operations):
            where = f" in namespace {place}" if place else ""
            yield (
                f"{name} was invited with the role {admin.role.value}, which does not allow to "
                f"{operations[0].value}{where}"
            )

    def _place(self, record: Recorded) -> str | None:
        """The namespace that a change lies in; None: in none."""
        match record.kind:
            case RecordKind.FACT_STATED:
                return self._namespace_of(Target.parse(record.subject))
            case RecordKind.MANIFEST_REGISTERED:
                return str(record.details.get("agent")).partition("/")[0]
            case RecordKind.AGENT_ENROLLED:
                return record.subject.partition("/")[0]
        return None

    # What changes by a record.

    def _stated(self, record: Recorded) -> Iterable[str]:
        self._facts.apply(fact_of(record))
        if len(self._facts) >= self._prune_at:
            now = _moment(record.at)
            self._facts = FactSet(
                each for each in self._facts if each.expires_at > now or each.target.kind in LASTING
            )
            self._prune_at = max(FIRST_PRUNED, 2 * len(self._facts))
        return ()

    def _registered(self, record: Recorded) -> Iterable[str]:
        said = record.details
        self._manifests[record.subject] = _Manifest(
            str(said.get("agent")), str(said.get("signer")), str(said.get("owner"))
        )
        return ()

    def _awaited(self, record: Recorded) -> Iterable[str]:
        self._join_tokens[str(record.details.get("join_token"))] = _given(record)
        return ()

    def _named(self, record: Recorded) -> Iterable[str]:
        self._granted[record.subject] = _names(record)
        return ()

    def _unnamed(self, record: Recorded) -> Iterable[str]:
        self._granted.pop(record.subject, None)
        return ()

    def _listed(self, record: Recorded) -> Iterable[str]:
        said, known = record.details, self._nodes.get(record.subject)
        instance = said.get("instance") if known is None else known.instance
        self._nodes[record.subject] = _Node(instance, said.get("namespaces"))
        return ()

    def _unlisted(self, record: Recorded) -> Iterable[str]:
        self._nodes.pop(record.subject, None)
        return ()

    def _node_awaited(self, record: Recorded) -> Iterable[str]:
        self._node_tokens[str(record.details.get("join_token"))] = _given(record)
        return ()

    def _node_attested(self, record: Recorded) -> Iterator[str]:
        yield from self._is_listed(record.subject, record.details.get("instance"))
        if (token := record.details.get("join_token")) is not None:
            given = self._node_tokens.pop(str(token), None)
            yield from _spent(given, record.subject, "join token", record.at)

    def _code_changed(self, record: Recorded) -> Iterator[str]:
        node = record.details.get("node")
        if self._born_on.get(record.subject) != node:
            yield f"the instance {record.subject} did not run on the node {node}"

    def _prepared(self, record: Recorded) -> Iterable[str]:
        if record.details.get("kind") == AuthorityKind.X509:
            self._issuing_cas.add(record.subject)
        return ()

    def _removed(self, record: Recorded) -> Iterable[str]:
        self._issuing_cas.discard(record.subject)
        return ()

    def _responder(self, record: Recorded) -> Iterator[str]:
        """Nobody but the issuer has one certified, and nobody can revoke it: its life is short."""
        if record.actor.startswith(_SPIFFE):
            yield f"{record.actor} had an OCSP responder certified, which only the issuer does"
        if record.details.get("authority") not in self._issuing_cas:
            yield f"its authority {record.details.get('authority')} was no issuing CA in use then"
        end = record.details.get("expires_at")
        if not isinstance(end, str) or _moment(end) > _moment(record.at) + MAX_LIFETIME:
            yield "its OCSP responder lives longer than any may"

    def _enrolled(self, record: Recorded) -> Iterable[str]:
        token = str(record.details.get("enrolment_token"))
        given = self._one_time_tokens.pop(token, None)
        return _spent(given, record.subject, "one-time token", record.at)

    def _invited(self, record: Recorded) -> Iterator[str]:
        token = str(record.details.get("enrolment_token"))
        self._one_time_tokens[token] = _given(record)
        role, namespaces = _names(record, "role", "namespaces")
        try:
            invited = Admin(record.subject, Role(str(role)), tuple(namespaces))  # type: ignore[arg-type]
        except (ValueError, TypeError):
            yield f"{role!r} is no role, or its namespaces are none"
            return
        known = self._admins.setdefault(record.subject, invited)
        if known != invited:
            yield f"{record.subject} had been invited with the role {known.role.value} before it"

    def _attested(self, record: Recorded) -> Iterator[str]:
        digest = str(record.details.get("manifest"))
        manifest = self._manifests.get(digest)
        if manifest is None:
            yield f"no manifest {digest} was registered before it"
            return
        if (node := record.details.get("node")) is not None:
            self._born_on[record.subject] = str(node)
            yield from self._may_run(str(node), manifest.agent)
            return  # the node vouches for it: what it selected by is the node's own word
        selectors = record.details.get("selectors")
        for each in selectors if isinstance(selectors, list) else ():
            if str(each).startswith(_SHOWN):
                given = self._join_tokens.pop(str(each).removeprefix(_SHOWN), None)
                yield from _spent(given, manifest.agent, "join token", record.at)


def _marks(record: Recorded) -> Iterator[str]:
    """What a fact can match of a credential, by its record."""
    said = record.details
    yield f"{'jti' if said.get('credential') in _TOKENS else 'serial'}:{record.subject}"
    is_ca = said.get("credential") == CA  # what signed it is a root, and no target of facts
    for name, kind in _CARRIED:
        if name in said and not (is_ca and name == "authority"):
            yield f"{kind}:{said[name]}"


def _about(record: Recorded) -> list[str]:
    """What a fact can match of what a change is about."""
    match record.kind:
        case RecordKind.ADMIN_INVITED:
            return [f"admin:{record.subject}"]
        case RecordKind.AGENT_ENROLLED:
            return [f"agent:{record.subject}", f"namespace:{record.subject.partition('/')[0]}"]
        case RecordKind.SUBORDINATE_ADDED:
            return [f"agent:{record.subject}"]
        case RecordKind.MANIFEST_REGISTERED:
            said = record.details
            agent = str(said.get("agent"))
            return [
                f"signer:{said.get('signer')}",
                f"owner:{said.get('owner')}",
                f"manifest:{record.subject}",
                f"agent:{agent}",
                f"namespace:{agent.partition('/')[0]}",
            ]
    return []


def _kind(record: Recorded) -> str:
    return record.subject.partition(":")[0]


def _names(record: Recorded, *wanted: str) -> tuple[object, object]:
    first, second = wanted or ("namespaces", "dns_names")
    return record.details.get(first), record.details.get(second)


def _given(record: Recorded) -> _Token:
    expires_at = record.details.get("expires_at")
    return _Token(record.subject, expires_at if isinstance(expires_at, str) else None)


def _spent(given: _Token | None, holder: str, name: str, at: str) -> Iterator[str]:
    if given is None:
        yield f"its {name} was never given out, or was spent before"
    elif given.holder != holder:
        yield f"its {name} was given to {given.holder}"
    elif given.expires_at is not None and _moment(at) >= _moment(given.expires_at):
        yield f"its {name} was over since {given.expires_at}"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
