"""``issuer.toml``: what an operator writes, and the ``Config`` that the issuer runs with.

``Settings`` is the raw file: every key is documented here with its unit and default, and an
unknown key is refused. ``load`` turns it into ``Config``, frozen and checked as a whole: lifetimes
nest (leaf < issuing CA < root), addresses are addresses, and paths are absolute.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from accredit_credentials.errors import CredentialError
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_issuer.addresses import base_url, origin
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.wrong_keys import said_of

# Seconds; no setting allows a credential that lives longer.
LONGEST_X509_SVID = 86400
LONGEST_JWT_SVID = 3600
LONGEST_WIT_SVID = 3600
LONGEST_TASK_TOKEN = 300


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ServerSettings(_Section):
    """Where the issuer listens and how it is called."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8443, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    url: str = "https://localhost:8443"
    """How clients reach it, without a path."""
    token_issuer: str | None = None
    """The ``iss`` of every token, without a path; ``server.url`` where it is left out. Relying
    parties of OpenID Connect fetch our keys below it, with a Web CA's certificate: see
    ``bundle.https_web``."""
    names: list[str] = ["localhost"]
    """DNS names in the issuer's own certificate, for clients that compare host names."""
    replica: int = Field(default=0, ge=0, le=65535)
    """Number of this issuer among several of one trust domain: the first bits of every serial
    number."""


class KeySettings(_Section):
    """How private keys are kept."""

    kind: Literal["disk", "pkcs11"] = "disk"
    """Where: files in the data folder, or a hardware security module."""
    passphrase_file: Path = Path("issuer.passphrase")
    """File with the passphrase that encrypts every private key on disk; ``init`` makes one."""
    unencrypted: bool = False
    """Leave the keys on disk in clear, protected by file permissions only."""
    module: Path | None = None
    """The PKCS#11 module: a shared library."""
    token: str | None = None
    """Label of the token in the module."""
    pin_file: Path | None = None
    """File with the token's user PIN."""


class LifetimeSettings(_Section):
    """Lifetimes in seconds."""

    root: int = Field(default=10 * 365 * 86400, ge=3600)
    """Root CA certificate."""
    issuing_ca: int = Field(default=86400, ge=60)
    """Issuing CA certificate; the next one is prepared at half of it."""
    jwt_key: int = Field(default=86400, ge=60)
    """JWT signing key, and WIT signing key where there are any; the next one is prepared at half
    of it."""
    x509_svid: int = Field(default=3600, ge=5, le=LONGEST_X509_SVID)
    """X.509-SVID of an agent; a manifest may ask for less."""
    jwt_svid: int = Field(default=300, ge=5, le=LONGEST_JWT_SVID)
    """JWT-SVID; a manifest may ask for less."""
    wit_svid: int = Field(default=900, ge=5, le=LONGEST_WIT_SVID)
    """WIT-SVID, where they are issued; never longer than the X.509-SVID that asks for it."""
    task_token: int = Field(default=300, ge=5, le=LONGEST_TASK_TOKEN)
    """Task token; a manifest may ask for less."""
    admin_svid: int = Field(default=8 * 3600, ge=60, le=LONGEST_X509_SVID)
    """X.509-SVID of an admin."""
    join_token: int = Field(default=600, ge=10, le=3600)
    """Join token; whoever enrols an agent may ask for less."""
    enrolment_token: int = Field(default=86400, ge=60, le=7 * 86400)
    """One-time token with which an admin logs in for the first time."""
    nonce: int = Field(default=60, ge=5, le=300)
    """Nonce of an attestation."""
    grace: int = Field(default=7 * 86400, ge=0, le=30 * 86400)
    """How long after its end an X.509-SVID's key still proves whose it was; 0: not at all."""


class RevocationSettings(_Section):
    """How revocation is published."""

    heartbeat: float = Field(default=10.0, ge=0.2, le=60)
    """Seconds between two statements of the feed when nothing happens."""
    crl: int = Field(default=3600, ge=60, le=7 * 86400)
    """Seconds that a CRL is valid; a new one is made at half of it, and at each fact."""
    crl_url: str | None = None
    """Base URL of the CRLs as relying parties reach them; written into every certificate. Without
    it certificates name no CRL."""
    ocsp: int = Field(default=30, ge=5, le=3600)
    """Seconds that an OCSP answer is valid, and for which one without a nonce may be kept."""
    ocsp_url: str | None = None
    """Base URL of the OCSP responder as relying parties reach it; written into every certificate.
    Without it certificates name no responder."""
    status_list_url: str | None = None
    """Base URL of the Token Status Lists as relying parties reach them; written into every task
    token, with the token's index. Without it there are none."""
    status_list_ttl: int = Field(default=30, ge=1, le=300)
    """Seconds after which a relying party fetches a status list again; at twice that it is over."""


class IntrospectionSettings(_Section):
    """Who may ask about which tokens; see docs/credentials.md."""

    resource_servers: dict[str, list[str]] = {}
    """By audience, the SPIFFE IDs of those that answer for it: they may ask about its tokens, as
    whoever's own SPIFFE ID is the audience, and admins who may read about the agent."""


class HttpsWebSettings(_Section):
    """The public documents once more, under a certificate of a Web CA."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8444, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    certificate_file: Path
    """The certificate chain, PEM, leaf first. It and the key are read again when they change."""
    key_file: Path
    """The certificate's private key, PEM, not encrypted."""


class BundleSettings(_Section):
    """How the trust bundle is published."""

    refresh_hint: int = Field(default=300, ge=1, le=86400)
    """Seconds after which clients ask for the bundle again. A new key signs no earlier than three
    times this after it was published."""
    https_web: HttpsWebSettings | None = None
    """A second listener for whoever trusts Web CAs and not us. Without it there is none."""


class WitSettings(_Section):
    """WIT-SVIDs: SPIFFE's incubating kind of token that is bound to a key."""

    enabled: bool = False
    """Issue them to who holds an X.509-SVID of an agent, and publish the keys that sign them."""


class UpstreamSettings(_Section):
    """Who certifies the issuing CAs."""

    kind: Literal["own", "files", "accredit"] = "own"
    """The issuer itself, with roots of its own making; a CA that is given in files; or another
    Accredit issuer of the same trust domain."""
    certificate_file: Path | None = None
    """The CA's certificate, PEM, then those above it, the self-signed root last."""
    key_file: Path | None = None
    """The CA's private key, PKCS#8 PEM."""
    passphrase_file: Path | None = None
    """File with the passphrase of the key file, where it is encrypted."""
    url: str | None = None
    """How the parent is reached, without a path."""
    identity_folder: Path | None = None
    """Folder with an SVID of the parent and its bundle, as ``accredit run`` keeps it."""


class FederationSettings(_Section):
    """How other trust domains are asked for their bundles."""

    ca_file: Path | None = None
    """Certificates (PEM) that endpoints of the profile https_web are verified with, in place of the
    system's."""


class SharedSignalsSettings(_Section):
    """How security events are pushed to their receivers."""

    ca_file: Path | None = None
    """Certificates (PEM) that push endpoints are verified with, in place of the system's."""


class Settings(_Section):
    """The whole of ``issuer.toml``."""

    trust_domain: str
    """Name of the trust domain, such as ``example.org``."""
    data: Path = Path("data")
    """Folder of the database and the keys; relative to the file."""
    server: ServerSettings = ServerSettings()
    keys: KeySettings = KeySettings()
    lifetimes: LifetimeSettings = LifetimeSettings()
    revocation: RevocationSettings = RevocationSettings()
    introspection: IntrospectionSettings = IntrospectionSettings()
    bundle: BundleSettings = BundleSettings()
    wit: WitSettings = WitSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    federation: FederationSettings = FederationSettings()
    shared_signals: SharedSignalsSettings = SharedSignalsSettings()


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes, checked to nest."""

    root: timedelta
    issuing_ca: timedelta
    jwt_key: timedelta
    x509_svid: timedelta
    jwt_svid: timedelta
    wit_svid: timedelta
    task_token: timedelta
    admin_svid: timedelta
    join_token: timedelta
    enrolment_token: timedelta
    nonce: timedelta
    grace: timedelta
    backdate: timedelta = timedelta(seconds=10)

    @property
    def server_svid(self) -> timedelta:
        """X.509-SVID of the issuer's own server."""
        return self.issuing_ca / 2

    @property
    def longest_svid(self) -> timedelta:
        """After this, no X.509-SVID that was issued before is alive."""
        return max(self.x509_svid, self.admin_svid, self.server_svid)

    @property
    def longest_credential(self) -> timedelta:
        """After this, nothing that was issued before is alive."""
        return max(self.longest_svid, self.jwt_svid, self.wit_svid, self.task_token)


@dataclass(frozen=True, slots=True)
class KeysOnDisk:
    """Keys in a folder; without a passphrase they are not encrypted."""

    folder: Path
    passphrase_file: Path | None


@dataclass(frozen=True, slots=True)
class KeysInToken:
    """Keys in a token of a PKCS#11 module."""

    module: Path
    token: str
    pin_file: Path


@dataclass(frozen=True, slots=True)
class CaInFiles:
    """A CA that is given: its certificates, and its key."""

    certificate_file: Path
    key_file: Path
    passphrase_file: Path | None


@dataclass(frozen=True, slots=True)
class ParentAt:
    """Another issuer of the same trust domain, and the folder with our identity there."""

    url: str
    identity_folder: Path


@dataclass(frozen=True, slots=True)
class HttpsWeb:
    """Where the public documents are served under a certificate of a Web CA, and whose."""

    host: str
    port: int
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Config:
    """What the issuer runs with."""

    trust_domain: TrustDomain
    data: Path
    host: str
    port: int
    url: str
    token_issuer: str
    names: tuple[str, ...]
    replica: int
    keys: KeysOnDisk | KeysInToken
    lifetimes: Lifetimes
    heartbeat: float
    crl_lifetime: timedelta
    crl_url: str | None
    ocsp_lifetime: timedelta
    ocsp_url: str | None
    refresh_hint: int
    https_web: HttpsWeb | None
    upstream: CaInFiles | ParentAt | None
    federation_ca_file: Path | None = None
    wit_svids: bool = False
    status_list_url: str | None = None
    status_list_ttl: int = 30
    introspectors: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The audiences that a SPIFFE ID answers for, beside its own."""
    signals_ca_file: Path | None = None

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "issuer.db"

    @property
    def log_origin(self) -> str:
        """The origin line of the log's checkpoints."""
        return f"{self.trust_domain}/accredit-log"


def load(file: Path) -> Config:
    """Read and check ``issuer.toml``.

    Raises:
        InvalidSettings: unreadable, an unknown key, a wrong value, or values that do not fit.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        settings = Settings.model_validate(raw)
    except OSError as error:
        raise InvalidSettings(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is not TOML: {error}") from error
    except ValidationError as error:
        raise InvalidSettings(f"{file}: {said_of(error, Settings)}") from error
    return check(settings, folder=file.parent)


def check(settings: Settings, *, folder: Path) -> Config:
    """Decide whether the settings hold as a whole; paths are relative to ``folder``.

    Raises:
        InvalidSettings: they do not; the text has both numbers.
    """
    try:
        trust_domain = TrustDomain.parse(settings.trust_domain)
    except CredentialError as error:
        raise InvalidSettings(f"trust_domain: {error}") from error
    data = (folder / settings.data).resolve()
    url = origin("server.url", settings.server.url)
    token_issuer = settings.server.token_issuer
    ca_file, signals_ca_file = settings.federation.ca_file, settings.shared_signals.ca_file
    return Config(
        trust_domain=trust_domain,
        data=data,
        host=settings.server.host,
        port=settings.server.port,
        url=url,
        token_issuer=(url if token_issuer is None else origin("server.token_issuer", token_issuer)),
        names=tuple(settings.server.names),
        replica=settings.server.replica,
        keys=_kept_keys(settings.keys, folder=folder, data=data),
        lifetimes=_lifetimes(settings),
        heartbeat=settings.revocation.heartbeat,
        crl_lifetime=timedelta(seconds=settings.revocation.crl),
        crl_url=_status_url("revocation.crl_url", settings.revocation.crl_url),
        ocsp_lifetime=timedelta(seconds=settings.revocation.ocsp),
        ocsp_url=_status_url("revocation.ocsp_url", settings.revocation.ocsp_url),
        refresh_hint=settings.bundle.refresh_hint,
        https_web=_https_web(settings.bundle.https_web, folder),
        upstream=_upstream(settings.upstream, folder),
        federation_ca_file=(folder / ca_file).resolve() if ca_file else None,
        wit_svids=settings.wit.enabled,
        status_list_url=_status_url(
            "revocation.status_list_url", settings.revocation.status_list_url
        ),
        status_list_ttl=settings.revocation.status_list_ttl,
        introspectors=_introspectors(settings.introspection.resource_servers, trust_domain),
        signals_ca_file=(folder / signals_ca_file).resolve() if signals_ca_file else None,
    )


def _status_url(name: str, text: str | None) -> str | None:
    # Plain HTTP is fine: what is fetched there is signed, and asking by TLS for the status of a
    # certificate would need a certificate whose status is known (RFC 5280 §8).
    return base_url(name, text, schemes=("http", "https")) if text else None


def _introspectors(
    raw: Mapping[str, list[str]], trust_domain: TrustDomain
) -> Mapping[str, frozenset[str]]:
    audiences: dict[str, frozenset[str]] = {}
    for audience, servers in raw.items():
        if not audience or not servers:
            raise InvalidSettings("introspection.resource_servers must name audiences and servers")
        for server in servers:
            try:
                spiffe_id = SpiffeId.parse(server)
            except CredentialError as error:
                raise InvalidSettings(f"introspection.resource_servers: {error}") from error
            if spiffe_id.trust_domain != trust_domain or not spiffe_id.path:
                raise InvalidSettings(
                    f"introspection.resource_servers: {server[:200]} must be somebody of "
                    f"{trust_domain}"
                )
            known = audiences.get(str(spiffe_id), frozenset())
            audiences[str(spiffe_id)] = known | {audience}
    return audiences


_UPSTREAM_NEEDS: Mapping[str, tuple[str, ...]] = {
    "own": (),
    "files": ("certificate_file", "key_file"),
    "accredit": ("url", "identity_folder"),
}
_UPSTREAM_MAY: Mapping[str, tuple[str, ...]] = {"files": ("passphrase_file",)}


def _upstream(raw: UpstreamSettings, folder: Path) -> CaInFiles | ParentAt | None:
    needed = _UPSTREAM_NEEDS[raw.kind]
    allowed = ("kind", *needed, *_UPSTREAM_MAY.get(raw.kind, ()))
    for name, value in raw:
        if value is None and name in needed:
            raise InvalidSettings(f"upstream.kind = '{raw.kind}' needs upstream.{name}")
        if value is not None and name not in allowed:
            raise InvalidSettings(f"upstream.{name} does not go with upstream.kind = '{raw.kind}'")
    if raw.certificate_file and raw.key_file:
        passphrase_file = raw.passphrase_file
        return CaInFiles(
            certificate_file=folder.absolute() / raw.certificate_file,
            key_file=folder.absolute() / raw.key_file,
            passphrase_file=folder.absolute() / passphrase_file if passphrase_file else None,
        )
    if raw.url is not None and raw.identity_folder:
        return ParentAt(origin("upstream.url", raw.url), folder.absolute() / raw.identity_folder)
    return None


def _https_web(raw: HttpsWebSettings | None, folder: Path) -> HttpsWeb | None:
    if raw is None:
        return None
    return HttpsWeb(
        host=raw.host,
        port=raw.port,
        # Not resolved: whoever renews certificates turns links to new files.
        certificate_file=folder.absolute() / raw.certificate_file,
        key_file=folder.absolute() / raw.key_file,
    )


def _kept_keys(raw: KeySettings, *, folder: Path, data: Path) -> KeysOnDisk | KeysInToken:
    of_token = {"module": raw.module, "token": raw.token, "pin_file": raw.pin_file}
    if raw.kind == "pkcs11":
        for name in ("passphrase_file", "unencrypted"):
            if name in raw.model_fields_set and getattr(raw, name):
                raise InvalidSettings(f"keys.{name} does not go with keys.kind = 'pkcs11'")
        if not (raw.module and raw.token and raw.pin_file):
            missing = next(name for name, value in of_token.items() if not value)
            raise InvalidSettings(f"keys.kind = 'pkcs11' needs keys.{missing}")
        return KeysInToken(
            module=(folder / raw.module).resolve(),
            token=raw.token,
            pin_file=(folder / raw.pin_file).resolve(),
        )
    for name, value in of_token.items():
        if value is not None:
            raise InvalidSettings(f"keys.{name} does not go with keys.kind = 'disk'")
    if raw.unencrypted and "passphrase_file" in raw.model_fields_set:
        raise InvalidSettings("keys.passphrase_file does not go with keys.unencrypted = true")
    passphrase_file = None if raw.unencrypted else (folder / raw.passphrase_file).resolve()
    return KeysOnDisk(data / "keys", passphrase_file)


def _lifetimes(settings: Settings) -> Lifetimes:
    raw = settings.lifetimes
    _nest("x509_svid", raw.x509_svid, "issuing_ca", raw.issuing_ca)
    _nest("admin_svid", raw.admin_svid, "issuing_ca", raw.issuing_ca)
    _nest("issuing_ca", raw.issuing_ca, "root", raw.root)
    _nest("jwt_svid", raw.jwt_svid, "jwt_key", raw.jwt_key)
    _nest("task_token", raw.task_token, "jwt_key", raw.jwt_key)
    if settings.wit.enabled:
        _nest("wit_svid", raw.wit_svid, "jwt_key", raw.jwt_key)
    published_ahead = 3 * settings.bundle.refresh_hint
    for name, lifetime in (("jwt_key", raw.jwt_key), ("root", raw.root)):
        if published_ahead > lifetime / 4:
            raise InvalidSettings(
                f"lifetimes.{name} ({lifetime} s) must be at least four times as long as a new key "
                f"is published ahead (3 x bundle.refresh_hint = {published_ahead} s)"
            )
    return Lifetimes(**{name: timedelta(seconds=value) for name, value in raw})


def _nest(inner: str, short: int, outer: str, long: int) -> None:
    # Half: at half life the next authority is prepared, and the old one must outlive its leaves.
    if short > long / 2:
        raise InvalidSettings(
            f"lifetimes.{inner} ({short} s) must be at most half of lifetimes.{outer} ({long} s)"
        )
