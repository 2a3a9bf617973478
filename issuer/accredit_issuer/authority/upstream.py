"""Who certifies the issuing CAs, and which roots the bundle publishes because of that.

    OwnRoot         roots of the issuer's own making (the default)
    RootFromFiles   a CA that is given: its certificates and its key, read at the start
    ParentIssuer    another Accredit issuer (``parent``)

An upstream makes what ``Authorities`` records: it writes nothing, and the life of what it made is
decided in ``lifecycle``. What certified an issuing CA stays written beside it, so that an issuer
may change from one upstream to another: the next root is another one's, and follows the active one
as any next root does.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.keys import PrivateKey, PublicKey, check_public_key
from accredit_credentials.x509_template import CaTemplate
from accredit_issuer.authority.ca_profile import CaProfile, sign_ca
from accredit_issuer.authority.given_ca import GivenCa, Needs, check_given
from accredit_issuer.authority.lifecycle import Origin
from accredit_issuer.authority.profile import new_serial
from accredit_issuer.errors import InvalidSettings, Unavailable
from accredit_issuer.keys.given import load_given_key
from accredit_issuer.keys.key_manager import KeyManager, ManagedKey
from accredit_issuer.settings import CaInFiles, Config

MAX_CERTIFICATES_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCa:
    """What certifies issuing CAs.

    Attributes:
        id: its key identifier.
        above: the certificates above it, the trust anchor last; empty where it is the anchor.
        key: where the issuer's own key manager keeps it.
    """

    id: str
    certificate: x509.Certificate = field(repr=False)
    above: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)

    @property
    def expires_at(self) -> datetime:
        """When the first of them ends."""
        return min(each.not_valid_after_utc for each in (self.certificate, *self.above))

    @property
    def between(self) -> tuple[x509.Certificate, ...]:
        """What travels with an issuing CA below: up to the trust anchor, without it."""
        return (self.certificate, *self.above[:-1]) if self.above else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingCaRequest:
    """An issuing CA that is to be certified."""

    id: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    now: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedCa:
    """An issuing CA's certificate.

    Attributes:
        chain: certificates between it and the trust anchor, nearest first.
        root: the id of what certified it.
        anchor: the trust anchor above it, where another issuer chose it.
    """

    certificate: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    root: str
    anchor: x509.Certificate | None = field(default=None, repr=False)


class Upstream(ABC):
    """Who certifies issuing CAs."""

    origin: Origin
    follows: bool = False
    """Whether the roots are another issuer's: published as ``anchors`` says, never made here."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def given(self) -> RootCa | None:
        """The one root that can be prepared; None where they are made, one by one."""
        return None

    def probe(self) -> None:  # noqa: B027 (where nobody has to be asked there is nothing to do)
        """Make sure that issuing CAs can be certified, before anything is made.

        Raises:
            InvalidSettings: they cannot.
            Unavailable: not now.
        """

    def anchors(self) -> Mapping[str, x509.Certificate]:
        """The roots of an upstream that is followed, by their ids.

        Raises:
            Unavailable: they are not known.
        """
        return {}

    def disowns(
        self, _parent: str | None, _chain: tuple[x509.Certificate, ...], _key_id: str
    ) -> bool:
        """Whether the upstream wants an issuing CA replaced."""
        return False

    @abstractmethod
    def next_root(self, keys: KeyManager, now: datetime, expires_at: datetime) -> RootCa:
        """The root to prepare.

        Raises:
            Unavailable: there can be none now.
        """

    def certify(self, root: RootCa | None, request: IssuingCaRequest) -> CertifiedCa:
        """Certify an issuing CA below the active root.

        Raises:
            Unavailable: nobody can sign it now.
        """
        if root is None:
            raise Unavailable("no root is active")
        template = ca_template(
            self._config,
            role="issuing CA",
            key_id=request.id,
            key=request.key,
            now=request.now,
            expires_at=min(request.expires_at, root.expires_at),
            root=root,
        )
        return CertifiedCa(
            certificate=self.sign(template, root, request.now), chain=root.between, root=root.id
        )

    def sign(self, template: CaTemplate, root: RootCa, now: datetime) -> x509.Certificate:
        """Sign the certificate of an issuing CA in the name of the active root.

        Raises:
            Unavailable: its key is not held.
            ProfileViolation: it is not one that may be signed.
        """
        key = self._key_of(root)
        if key is None:
            raise Unavailable(f"the key of the root {root.id[:16]} is not held")
        lifetimes = self._config.lifetimes
        profile = _profile(self._config, lifetimes.issuing_ca, path_length=0)
        return sign_ca(profile.check(template, check_public_key(key.public_key()), now), key)

    def _key_of(self, root: RootCa) -> PrivateKey | None:
        return root.key


class OwnRoot(Upstream):
    """Roots of the issuer's own making."""

    origin = Origin.OWN

    def next_root(self, keys: KeyManager, now: datetime, expires_at: datetime) -> RootCa:
        """Make a key and certify it by itself."""
        made = keys.generate()
        try:
            return self._root_of(made, now, expires_at)
        except Exception:
            with suppress(Unavailable):
                keys.remove(made.id)  # another is made when it is tried again
            raise

    def _root_of(self, made: ManagedKey, now: datetime, expires_at: datetime) -> RootCa:
        template = ca_template(
            self._config,
            role="root CA",
            key_id=made.id,
            key=made.private,
            now=now,
            expires_at=expires_at,
        )
        profile = _profile(self._config, self._config.lifetimes.root, path_length=None)
        checked = profile.check(template, template.public_key, now)
        return RootCa(id=made.id, certificate=sign_ca(checked, made.private), key=made.private)


class RootFromFiles(Upstream):
    """A CA that is given; the one that was read at the start, until the next start."""

    origin = Origin.FILES

    def __init__(self, config: Config, ca: GivenCa, key: PrivateKey) -> None:
        super().__init__(config)
        self._root = RootCa(id=ca.id, certificate=ca.certificate, above=ca.above)
        self._key = key

    @property
    def given(self) -> RootCa | None:
        """The CA in the files."""
        return self._root

    def next_root(self, _keys: KeyManager, _now: datetime, _expires_at: datetime) -> RootCa:
        """The CA in the files: it is as it is."""
        return self._root

    def _key_of(self, root: RootCa) -> PrivateKey | None:
        return self._key if root.id == self._root.id else root.key


def root_from_files(config: Config, files: CaInFiles, now: datetime) -> RootFromFiles:
    """The CA in the files, checked as it is at ``now``.

    Raises:
        InvalidSettings: the files cannot be read, or the CA in them cannot be used; the text names
            both files.
    """
    certificates = _read_certificates(files)
    key = load_given_key(files.key_file, files.passphrase_file)
    needs = Needs(
        trust_domain=config.trust_domain,
        dns_names=config.names,
        issuing_ca=config.lifetimes.issuing_ca,
    )
    try:
        ca = check_given(certificates, key.public_key(), needs, now)
    except InvalidSettings as error:
        raise InvalidSettings(
            f"upstream.certificate_file {files.certificate_file} (with upstream.key_file "
            f"{files.key_file}): {error}"
        ) from error
    return RootFromFiles(config, ca, key)


def _read_certificates(files: CaInFiles) -> list[x509.Certificate]:
    file = files.certificate_file
    try:
        with file.open("rb") as stream:
            pem = stream.read(MAX_CERTIFICATES_BYTES + 1)
        if len(pem) > MAX_CERTIFICATES_BYTES:
            raise InvalidSettings(
                f"upstream.certificate_file: {file} is larger than {MAX_CERTIFICATES_BYTES} bytes"
            )
        return x509.load_pem_x509_certificates(pem)
    except OSError as error:
        raise InvalidSettings(f"upstream.certificate_file: {file}: {error.strerror}") from error
    except UNREADABLE as error:
        raise InvalidSettings(
            f"upstream.certificate_file: {file} does not hold certificates in PEM"
        ) from error


def key_id_of_public(key: PublicKey) -> str:
    """The id of any public key: its subject key identifier (RFC 5280 §4.2.1.2, method 1)."""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()


def ca_template(
    config: Config,
    *,
    role: str,
    key_id: str,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    expires_at: datetime,
    root: RootCa | None = None,
) -> CaTemplate:
    """What a CA of ours says: a root where ``root`` is absent, otherwise one below it."""
    return CaTemplate(
        trust_domain=config.trust_domain,
        # The key id makes the name unique: two CAs of one name confuse whoever builds paths.
        common_name=f"Accredit {role} {key_id[:16]}",
        public_key=check_public_key(key.public_key()),
        serial=new_serial(config.replica),
        not_before=(now - config.lifetimes.backdate).replace(microsecond=0),
        not_after=expires_at,
        path_length=None if root is None else 0,
        issuer=root.certificate if root else None,
    )


def _profile(config: Config, lifetime: timedelta, *, path_length: int | None) -> CaProfile:
    return CaProfile(
        trust_domain=config.trust_domain,
        max_lifetime=lifetime,
        backdate=config.lifetimes.backdate,
        replica=config.replica,
        path_length=path_length,
    )
