"""One released credential, looked at again: is it what was decided, recorded and allowed?

Pure: takes the rows as they stand (``Issued``), the record at the release's place in the log, the
certificate of the authority that is said to have signed (``Signer``) and the bounds that no setting
can move (``Bounds``). Returns what is wrong, in words; nothing where nothing is.

In order: the row against its record → the row against what the issuer knows of the holder → the
certificate against the row → its signature → its bytes, read by ``leaf_lint``. What was a setting
when it was signed (a shorter lifetime, names, where its status is found) is not known any more and
is not judged; that the certificate ends when its decision said it would, is.

A token's text is not kept: of it only the digest can be compared.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError, InvalidSpiffeId
from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import IssuingCa, certificate_of
from accredit_credentials.leaf_lint import lint
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain, issuer_id
from accredit_credentials.x509_svid import (
    X509Svid,
    authority_key_id,
    identity_marks,
    unverified_svid,
)
from accredit_credentials.x509_template import LeafTemplate
from accredit_issuer.audit.recorded import Recorded
from accredit_issuer.audit.records import RecordKind, written_moment

X509 = "x509"
CA = "ca"  # of a subordinate issuer; its life follows from a setting without a bound
CERTIFICATES = frozenset({X509, CA})

_TOKEN_AUTHORITIES = {"jwt": "jwt", "task": "jwt", "wit": "wit"}  # the key that each is signed by
_SECOND = timedelta(seconds=1)
_spiffe_id = lru_cache(maxsize=4096)(SpiffeId.parse)  # an agent asks again and again
_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What holds whatever the settings say.

    Attributes:
        trust_domain: the only one that is signed for.
        longest: by kind of credential, from the decision to the end.
        backdate: how far notBefore lies before the decision.
    """

    trust_domain: TrustDomain
    longest: dict[str, timedelta]
    backdate: timedelta


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority: its kind; its certificate and the key in it, None for a key of tokens."""

    kind: str
    issuing: IssuingCa | None = field(repr=False)
    key: ec.EllipticCurvePublicKey | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Read once: it takes as long as a third of a signature's check.
        key = None if self.issuing is None else self.issuing.certificate.public_key()
        object.__setattr__(self, "key", key if isinstance(key, ec.EllipticCurvePublicKey) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """An intent and its release, as the database has them; ``status`` is list and index.

    Attributes:
        id: serial in hex, or jti.
        kind: x509, jwt, wit, task or ca.
        log_index: where the log is said to have its record.
        sha256: of what was released; None in rows of before it was kept.
        certificate: DER; None for tokens, and in rows of before it was kept.
        agent: of the instance's row; None where there is no such row.
        manifest: the same.
        record: what stands at ``log_index``; None where no record does.
    """

    id: str
    kind: str
    subject: str
    instance: str
    admin: str | None
    task: str | None
    authority: str
    decided_at: datetime
    expires_at: datetime
    log_index: int
    sha256: bytes | None = field(repr=False)
    certificate: bytes | None = field(repr=False)
    agent: str | None
    manifest: str | None
    record: Recorded | None = field(repr=False)
    status: tuple[str | None, int | None] = (None, None)

    @property
    def what(self) -> str:
        """What to call it."""
        return f"{'certificate' if self.kind in CERTIFICATES else f'{self.kind} token'} {self.id}"

    @property
    def is_older(self) -> bool:
        """Whether it is of before digests were kept: neither its row nor its record has one."""
        return (
            self.sha256 is None
            and self.certificate is None
            and self.record is not None
            and "sha256" not in self.record.details
        )

    def marks(self) -> tuple[str, ...]:
        """What a revocation fact can match.

        Raises:
            InvalidSpiffeId: its subject is none.
        """
        more = (("manifest", self.manifest), ("task", self.task), ("admin", self.admin))
        return (
            f"{'serial' if self.kind in CERTIFICATES else 'jti'}:{self.id}",
            f"authority:{self.authority}",
            f"instance:{self.instance}",
            *(f"{kind}:{value}" for kind, value in more if value is not None),
            *identity_marks(_spiffe_id(self.subject)),
        )


def examine(issued: Issued, signer: Signer | None, bounds: Bounds) -> list[str]:
    """What is wrong with a released credential. ``signer`` is None where no row has it."""
    problems = [*_record(issued), *_holder(issued, bounds)]
    if issued.kind not in bounds.longest and issued.kind != CA:
        problems.append(f"it is of no known kind: {issued.kind!r}")
    elif signer is None:
        problems.append(f"its authority {issued.authority} is not known")
    elif issued.kind == X509:
        problems += _certificate(issued, signer, bounds)
    elif issued.kind == CA:
        problems += _subordinate_ca(issued, signer)
    else:
        if signer.issuing is not None:
            problems.append("its authority signs certificates")
        elif signer.kind != _TOKEN_AUTHORITIES[issued.kind]:
            problems.append(f"its authority is a {signer.kind} key")
        if issued.certificate is not None:
            problems.append("it has a certificate, and is a token")
    return problems


def _record(issued: Issued) -> Iterator[str]:
    """The row against its record."""
    record = issued.record
    if record is None:
        yield f"log entry {issued.log_index}, its record, is not there or cannot be read"
        return
    if record.kind != RecordKind.CREDENTIAL_ISSUED or record.subject != issued.id:
        yield f"log entry {issued.log_index} is not its record"
        return
    said: dict[str, object] = {
        "at": written_moment(issued.decided_at),
        "actor": issued.subject,
        "details.credential": issued.kind,
        "details.instance": issued.instance,
        "details.authority": issued.authority,
        "details.expires_at": f"{issued.expires_at.isoformat()[:19]}Z",
    }
    if issued.kind == "task" or issued.task is not None:
        said["details.task"] = issued.task
        said["details.status_list"], said["details.status_index"] = issued.status
    if issued.agent is not None:
        said["details.manifest"] = issued.manifest
    if issued.is_older:
        said = {name: value for name, value in said.items() if _stands_in(record, name)}
    else:
        said["details.sha256"] = None if issued.sha256 is None else issued.sha256.hex()
    if different := record.differences(said):
        yield f"its row and its record, log entry {record.index}, differ in: {', '.join(different)}"


def _stands_in(record: Recorded, name: str) -> bool:
    return not name.startswith("details.") or name.removeprefix("details.") in record.details


def _holder(issued: Issued, bounds: Bounds) -> Iterator[str]:
    """The row against what the issuer knows of whom it is about, and against the bounds."""
    try:
        subject = _spiffe_id(issued.subject)
    except InvalidSpiffeId as error:
        yield str(error)
        return
    if subject.trust_domain != bounds.trust_domain:
        yield f"its subject {issued.subject} is not of the trust domain {bounds.trust_domain}"
    yield from _role(issued, subject, bounds)
    # The issuer's own lives for half of its CA's life, a setting without a bound.
    own = subject == issuer_id(bounds.trust_domain)
    longest = None if own else bounds.longest.get(issued.kind)
    if issued.expires_at <= issued.decided_at:
        yield "it ends before it was decided on"
    elif longest is not None and issued.expires_at > issued.decided_at + longest:
        yield f"it lives longer than {longest.total_seconds():.0f} s, which no setting allows"


def _role(issued: Issued, subject: SpiffeId, bounds: Bounds) -> Iterator[str]:
    match subject.segments:
        case ("ns", *_):
            if issued.agent is None:
                yield f"its instance {issued.instance} was never attested"
            elif f"agent:{issued.agent}" not in identity_marks(subject):
                yield f"its instance is of the agent {issued.agent}"
            if issued.admin is not None:
                yield "its row names an admin, and it is an agent's"
        case ("admin", name):
            if issued.admin != name:
                yield f"its row names the admin {issued.admin}"
        case ("node", _):
            if issued.agent is not None or issued.admin is not None:
                yield "its row names an agent's instance or an admin, and it is a node's"
        case _:
            if subject != issuer_id(bounds.trust_domain):
                yield f"its subject {issued.subject} is nobody that the issuer certifies"


def _subordinate_ca(issued: Issued, signer: Signer) -> list[str]:
    """The CA's certificate against its row and the root that certified it."""
    der, above = issued.certificate, signer.issuing
    if der is None or above is None:
        return ["its certificate, or that of its authority, is missing"]
    problems = []
    if hashlib.sha256(der).digest() != issued.sha256:
        problems.append("its certificate is not the one that was released: another SHA-256")
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(above.certificate)
        said = (format(certificate.serial_number, "x"), certificate.not_valid_after_utc)
    except (*UNREADABLE, InvalidSignature, TypeError):
        return [*problems, "its certificate was not signed by its authority"]
    if said != (issued.id, issued.expires_at):
        problems.append("its certificate is another one than its row says")
    return problems


def _certificate(issued: Issued, signer: Signer, bounds: Bounds) -> list[str]:
    """The certificate against its row, its authority and the form of an SVID."""
    der, ca, key = issued.certificate, signer.issuing, signer.key
    if ca is None or key is None:
        return ["its authority has no certificate to sign with"]
    if der is None:
        return [] if issued.is_older else ["its certificate is missing"]
    problems = []
    if hashlib.sha256(der).digest() != issued.sha256:
        problems.append("its certificate is not the one that was released: another SHA-256")
    try:
        # The library reads a field when it is asked for it: any of these can fail.
        svid = unverified_svid([x509.load_der_x509_certificate(der)])
        tbs = svid.leaf.tbs_certificate_bytes
        template = _template(issued, svid)
        problems += _fields(issued, svid, ca, bounds)
        if template.dns_names and svid.spiffe_id != issuer_id(bounds.trust_domain):
            problems.append("its certificate has DNS names, which only the issuer's own has")
        problems += _signature(svid.leaf, der, tbs, key)
        if not problems:
            lint(tbs, template, ca)  # the rest, the authority's key identifier among it
    except CredentialError as error:
        problems.append(f"its certificate does not have the form of a leaf SVID: {error}")
    except UNREADABLE:
        problems.append("its certificate cannot be read")
    return problems


def _fields(issued: Issued, svid: X509Svid, ca: IssuingCa, bounds: Bounds) -> list[str]:
    begin = svid.not_before
    holds = {
        "serial number": svid.serial == issued.id,
        "SPIFFE ID": str(svid.spiffe_id) == issued.subject,
        "instance": svid.instance == issued.instance,
        "manifest": svid.manifest == issued.manifest,
        "notAfter": svid.not_after == issued.expires_at,
        "notBefore": issued.decided_at - bounds.backdate - _SECOND <= begin <= issued.decided_at,
    }
    wrong = ", ".join(name for name, same in holds.items() if not same)
    problems = [f"its certificate and its row differ in: {wrong}"] if wrong else []
    if ca.not_before > issued.decided_at or svid.not_after > ca.not_after:
        problems.append("its certificate is valid while its authority's is not")
    return problems


def _signature(
    leaf: x509.Certificate, der: bytes, tbs: bytes, key: ec.EllipticCurvePublicKey
) -> list[str]:
    try:
        key.verify(leaf.signature, tbs, _ECDSA_SHA256)
    except InvalidSignature:
        return [f"its authority did not sign its certificate, which names {authority_key_id(leaf)}"]
    # What the signature does not cover: the algorithm beside it, and how it is all wrapped.
    if der != certificate_of(tbs, leaf.signature):
        return ["its certificate is not wrapped as ours are"]
    return []


def _template(issued: Issued, svid: X509Svid) -> LeafTemplate:
    """What must have been meant; key, names and addresses of status are the certificate's own."""
    return LeafTemplate(
        spiffe_id=svid.spiffe_id,
        subject_key=SubjectKey.of(svid.leaf.public_key()),  # type: ignore[arg-type]  # see check_leaf
        serial=svid.leaf.serial_number,
        not_before=svid.not_before,
        not_after=issued.expires_at,
        instance=issued.instance,
        manifest=issued.manifest,
        dns_names=_dns_names(svid.leaf),
        crl_url=_crl_url(svid.leaf),
        ocsp_url=_ocsp_url(svid.leaf),
    )


def _dns_names(leaf: x509.Certificate) -> tuple[str, ...]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(names.get_values_for_type(x509.DNSName))


def _crl_url(leaf: x509.Certificate) -> str | None:
    try:
        points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return None
    names = [name.value for point in points for name in point.full_name or ()]
    return str(names[0]) if names else None


def _ocsp_url(leaf: x509.Certificate) -> str | None:
    try:
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return None
    names = [each.access_location.value for each in access]
    return str(names[0]) if names else None
