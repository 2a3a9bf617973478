"""Another Accredit issuer of the same trust domain that certifies this one's issuing CAs.

``ParentIssuer`` asks it over mutual TLS with the SVID in the identity folder. It makes no root: it
publishes those of the parent's bundle, as the folder and the parent's last answer have it. What
comes back is checked like a CA that is given, before anything is signed with it. While the parent
cannot be asked, what is there goes on, and ``trouble`` says why.
"""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from accredit_credentials.bundle import UNREADABLE, TrustBundle
from accredit_credentials.errors import CredentialError, InvalidCertificate, Untrusted
from accredit_credentials.keys import check_public_key
from accredit_credentials.reach import namespaces_of
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import CaTemplate, subject_key_id
from accredit_issuer.authority.given_ca import Needs, check_given, is_signed_by
from accredit_issuer.authority.lifecycle import Origin
from accredit_issuer.authority.parent_exchange import MAX_ANSWER, exchange
from accredit_issuer.authority.upstream import CertifiedCa, IssuingCaRequest, RootCa, Upstream
from accredit_issuer.errors import InvalidSettings, Unavailable
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.keys.parent_identity import ParentIdentity, read_parent_identity
from accredit_issuer.settings import Config, ParentAt

EXCHANGE_SECONDS = 10.0  # for everything together: connection, handshake, question, answer
MAX_SHOWN = 200  # characters of what the parent says
_SUCCESS = 200


class ParentUnavailable(Unavailable):
    """The parent cannot be asked now, or says no: what is there stays in use."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the parent sent: an issuing CA, what is above it, and its roots."""

    certificate: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    roots: tuple[x509.Certificate, ...] = field(repr=False)


class ParentIssuer(Upstream):
    """Has issuing CAs certified by another issuer."""

    origin = Origin.PARENT
    follows = True

    def __init__(self, config: Config, parent: ParentAt) -> None:
        super().__init__(config)
        self._parent = parent
        self._bundle: TrustBundle | None = None
        self._answered: tuple[x509.Certificate, ...] = ()

    def probe(self) -> None:
        """Ask the parent who we are.

        Raises:
            InvalidSettings: the folder holds no identity of this trust domain.
            ParentUnavailable: the parent cannot be asked.
        """
        identity = read_parent_identity(self._parent.identity_folder, self._config.trust_domain)
        self._ask(identity, "GET", "/v1/whoami", None)

    def anchors(self) -> Mapping[str, x509.Certificate]:
        """The parent's roots by their ids, the newest that is known of them.

        Raises:
            ParentUnavailable: the folder cannot be read, and never could.
        """
        try:
            identity = self._identity()
        except ParentUnavailable:
            if self._bundle is None:
                raise
        else:
            if self._bundle is None or self._bundle.sequence != identity.bundle.sequence:
                self._answered = ()  # the folder may know more by now
            self._bundle = identity.bundle
        if self._bundle is None:
            raise ParentUnavailable("no bundle of the parent is known")
        return {
            subject_key_id(each): each for each in (*self._bundle.x509_authorities, *self._answered)
        }

    def disowns(self, parent: str | None, chain: tuple[x509.Certificate, ...], key_id: str) -> bool:
        """Whether the parent's bundle says that an issuing CA has to be replaced."""
        if self._bundle is None or parent is None:
            return False
        above = {parent, key_id, *map(subject_key_id, chain)}
        known = {subject_key_id(each) for each in (*self._bundle.x509_authorities, *self._answered)}
        return bool(above & self._bundle.tainted) or parent not in known

    def next_root(self, _keys: KeyManager, _now: datetime, _expires_at: datetime) -> RootCa:
        """None: the parent's roots are followed.

        Raises:
            ParentUnavailable: always.
        """
        raise ParentUnavailable("the roots are the parent's")

    def certify(self, root: RootCa | None, request: IssuingCaRequest) -> CertifiedCa:
        """Have an issuing CA certified by the parent; ``root`` is ignored.

        Raises:
            ParentUnavailable: it cannot be asked, says no, or sends what cannot be used.
        """
        del root
        identity = self._identity()
        csr = _csr(request.key)
        body = self._ask(identity, "POST", "/v1/issuing-cas", {"csr": csr})
        try:
            answer = read_answer(body)
            roots = (*identity.bundle.x509_authorities, *answer.roots)
            certified = check_answer(answer, roots, request, self._config)
        except (InvalidSettings, CredentialError, NotStrictJson, *UNREADABLE) as error:
            raise ParentUnavailable(
                f"the parent's issuing CA cannot be used: {str(error)[:MAX_SHOWN]}"
            ) from error
        self._answered = answer.roots
        return certified

    def sign(self, template: CaTemplate, root: RootCa, now: datetime) -> x509.Certificate:
        """No: what the parent certifies has no room below it (pathLen 0).

        Raises:
            Unavailable: always.
        """
        del template, root, now
        raise Unavailable("this issuer is a subordinate itself: ask its parent")

    def describe(self, now: datetime) -> tuple[str, bool]:
        """The state of the identity folder in a few words, and whether it can be used.

        Raises:
            InvalidSettings: it cannot be read.
        """
        found = read_parent_identity(self._parent.identity_folder, self._config.trust_domain)
        svid = found.identity.svid
        text = f"{svid.spiffe_id} at {self._parent.url}, SVID until {svid.not_after:%H:%M:%S} UTC"
        return text, svid.not_after > now

    def _identity(self) -> ParentIdentity:
        try:
            return read_parent_identity(self._parent.identity_folder, self._config.trust_domain)
        except InvalidSettings as error:
            raise ParentUnavailable(str(error)) from error

    def _ask(
        self, identity: ParentIdentity, method: str, path: str, body: Mapping[str, Any] | None
    ) -> bytes:
        wanted = issuer_id(self._config.trust_domain)

        def is_parent(svid: X509Svid) -> None:
            if svid.spiffe_id != wanted:
                raise Untrusted(f"the parent is {svid.spiffe_id}, expected {wanted}")

        try:
            context = client_context(
                bundle=identity.bundle, peer_check=is_parent, identity=identity.identity
            )
            said = exchange(self._parent.url, context, method, path, body, seconds=EXCHANGE_SECONDS)
        except (OSError, http.client.HTTPException, CredentialError) as error:
            raise ParentUnavailable(
                f"the parent {self._parent.url} cannot be asked: {str(error)[:MAX_SHOWN]!r}"
            ) from error
        if said.status != _SUCCESS or len(said.body) > MAX_ANSWER:
            raise ParentUnavailable(
                f"the parent says no: {_problem(said.body)} (status {said.status})"
            )
        return said.body


def read_answer(body: bytes) -> Answer:
    """Read what the parent sent.

    Raises:
        NotStrictJson: not the documented object.
        InvalidCertificate: not certificates.
    """
    found = parse_object(body)
    if not all(isinstance(found.get(name), str) for name in ("certificate", "chain", "roots")):
        raise NotStrictJson("the answer must have certificate, chain and roots")
    read = {
        name: tuple(x509.load_pem_x509_certificates(found[name].encode())) if found[name] else ()
        for name in ("certificate", "chain", "roots")
    }
    if len(read["certificate"]) != 1:
        raise InvalidCertificate("the answer must have one certificate")
    return Answer(read["certificate"][0], read["chain"], read["roots"])


def check_answer(
    answer: Answer,
    roots: tuple[x509.Certificate, ...],
    request: IssuingCaRequest,
    config: Config,
) -> CertifiedCa:
    """Decide whether an issuing CA that was sent is the one that was asked for, and can be used.

    Raises:
        InvalidSettings: another key, no path to one of ``roots``, limits that our own server does
            not keep, or no CA that may sign now.
    """
    last = (answer.certificate, *answer.chain)[-1]
    anchor = next((each for each in roots if is_signed_by(last, each)), None)
    if anchor is None:
        raise InvalidSettings("it leads to none of the parent's roots")
    needs = Needs(
        trust_domain=config.trust_domain,
        dns_names=config.names,
        issuing_ca=timedelta(0),
        cas_below=0,
    )
    chain = (answer.certificate, *answer.chain, anchor)
    check_given(chain, check_public_key(request.key.public_key()), needs, request.now)
    if namespaces_of(answer.certificate) is None:
        raise InvalidSettings("it is not limited to namespaces")
    return CertifiedCa(
        certificate=answer.certificate,
        chain=answer.chain,
        root=subject_key_id(anchor),
        anchor=anchor,
    )


def _csr(key: ec.EllipticCurvePrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _problem(body: bytes) -> str:
    """The detail of a problem document, as far as it can be shown."""
    try:
        detail = str(parse_object(body).get("detail", ""))
    except NotStrictJson:
        detail = ""
    return repr(detail[:MAX_SHOWN]) if detail else "without a reason"
