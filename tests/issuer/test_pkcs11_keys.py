"""Keys in a security module: they never leave it, and an issuer survives the module's absence."""

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.exceptions import DeviceRemoved
from pkcs11.types import Session
from sqlalchemy import func, select
from support.clock import SettableClock
from support.issuer import (
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    make_config,
    register,
    serving,
    write_agent,
)
from support.ocsp import status
from support.offline import Offline, offline_issuer
from support.process import issuer_process, stop, write_settings
from support.raw_http import Answer, RawClient
from support.softhsm import LABEL, PIN, SoftToken, soft_token

import accredit_issuer.keys
from accredit_attestors.manifest import generate_signer_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.cli.doctor import examine
from accredit_issuer.clock import system_clock
from accredit_issuer.errors import InvalidSettings, Unavailable
from accredit_issuer.issuer import Issuer, initialise, open_issuer
from accredit_issuer.keys.key_manager import KeyExists, KeyMissing
from accredit_issuer.keys.opening import open_keys
from accredit_issuer.keys.pkcs11 import PAUSE_SECONDS, Pkcs11Keys
from accredit_issuer.settings import KeysInToken
from accredit_issuer.store.models import credentials, releases

DOMAIN = TrustDomain.parse("example.org")
SHA256 = ec.ECDSA(hashes.SHA256())


@pytest.fixture
def token(tmp_path: Path) -> Iterator[SoftToken]:
    """A token of its own."""
    with soft_token(tmp_path / "token") as made:
        yield made


class Ticks:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def pause(self) -> None:
        """Until a module that did not answer is asked again."""
        self.now += PAUSE_SECONDS


@pytest.fixture
def ticks() -> Ticks:
    """A monotonic clock."""
    return Ticks()


def kept(token: SoftToken) -> KeysInToken:
    """The token as the settings name it."""
    return KeysInToken(token.module, LABEL, token.pin_file)


@pytest.fixture
def keys(token: SoftToken, ticks: Ticks) -> Iterator[Pkcs11Keys]:
    """An open manager without keys."""
    manager = Pkcs11Keys(kept(token), DOMAIN, ticks)
    yield manager
    manager.close()


def private_keys(session: Session) -> list[Any]:
    """The private keys of a token."""
    return list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))


def test_a_key_in_the_token_is_sensitive_and_never_extractable(
    keys: Pkcs11Keys, token: SoftToken
) -> None:
    """Of each kind of key: made in the token, kept there, for signing only."""
    keys.generate()
    keys.generate_log_key()
    keys.close()
    with token.session() as session:
        found = private_keys(session)
        assert {key[Attribute.KEY_TYPE] for key in found} == {KeyType.EC, KeyType.EC_EDWARDS}
        for key in found:
            for attribute in ("TOKEN", "PRIVATE", "LOCAL", "SENSITIVE", "ALWAYS_SENSITIVE", "SIGN"):
                assert key[Attribute[attribute]] is True
            for attribute in ("EXTRACTABLE", "DECRYPT", "UNWRAP", "DERIVE"):
                assert key[Attribute[attribute]] is False
            assert key[Attribute.NEVER_EXTRACTABLE] is True


def test_a_token_that_does_not_guard_a_key_gets_none(
    keys: Pkcs11Keys, token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the key that was made could be taken out it is destroyed, and it says so."""

    def careless(session: Session, kind: KeyType, curve: bytes, label: str) -> Any:
        parameters = session.create_domain_parameters(
            kind, {Attribute.EC_PARAMS: curve}, local=True
        )
        open_to_all = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
        return parameters.generate_keypair(store=True, label=label, private_template=open_to_all)

    monkeypatch.setattr("accredit_issuer.keys.pkcs11._generate", careless)
    for generate in (keys.generate, keys.generate_log_key):
        with pytest.raises(Unavailable, match="extracted"):
            generate()
    keys.close()
    with token.session() as session:
        assert list(session.get_objects({Attribute.TOKEN: True})) == []


def test_a_token_that_keeps_no_id_keeps_no_key(
    keys: Pkcs11Keys, token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that could not be found again is not left behind."""
    read_only = pkcs11.Attribute.LOCAL  # in the place of the id
    monkeypatch.setattr("accredit_issuer.keys.pkcs11._ID", read_only)
    with pytest.raises(Unavailable):
        keys.generate()
    keys.close()
    with token.session() as session:
        assert list(session.get_objects({Attribute.TOKEN: True})) == []


def test_private_bytes_are_refused(keys: Pkcs11Keys) -> None:
    """Nothing gives the private half away, and a copy is the same key."""
    key, log_key = keys.generate().private, keys.generate_log_key()
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for give in (
        lambda: key.private_bytes(*form),
        key.private_numbers,
        lambda: key.exchange(ec.ECDH(), key.public_key()),
        lambda: log_key.private_bytes(*form),
        log_key.private_bytes_raw,
    ):
        with pytest.raises(UnsupportedAlgorithm):
            give()
    for each in (key, log_key):
        assert copy.copy(each) is each
        assert copy.deepcopy(each) is each


def test_it_signs_by_ecdsa_over_sha256_only(keys: Pkcs11Keys) -> None:
    """A digest made before is signed as it is; other algorithms and lengths are refused."""
    key = keys.generate().private
    hashing = hashes.Hash(hashes.SHA256())
    hashing.update(b"data")
    prehashed = ec.ECDSA(Prehashed(hashes.SHA256()))
    digest = hashing.finalize()
    key.public_key().verify(key.sign(digest, prehashed), b"data", SHA256)
    for data, algorithm in (
        (digest[:-1], prehashed),
        (digest + b"\0", prehashed),
        (b"data", ec.ECDSA(hashes.SHA384())),
        (b"data", ec.ECDSA(hashes.SHA1())),  # noqa: S303 (refused)
    ):
        with pytest.raises(UnsupportedAlgorithm):
            key.sign(data, algorithm)


def test_what_the_token_signs_wrongly_does_not_leave_it(
    keys: Pkcs11Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature of another key, a faulty one or a short one is no answer."""
    made, other, log_key = keys.generate(), keys.generate(), keys.generate_log_key()
    sign = keys.sign

    def with_another(_key: str, data: bytes, mechanism: Any) -> bytes:
        return sign(other.id, data, mechanism)

    def faulty(key: str, data: bytes, mechanism: Any) -> bytes:
        signature = sign(key, data, mechanism)
        return signature[:-1] + bytes([signature[-1] ^ 1])

    def short(key: str, data: bytes, mechanism: Any) -> bytes:
        return sign(key, data, mechanism)[:-1]

    for wrong in (with_another, faulty, short):
        monkeypatch.setattr(keys, "sign", wrong)
        with pytest.raises(Unavailable, match="signs wrongly"):
            made.private.sign(b"x", ec.ECDSA(hashes.SHA256()))
        if wrong is not with_another:
            with pytest.raises(Unavailable, match="signs wrongly"):
                log_key.sign(b"x")
    monkeypatch.undo()
    assert made.private.sign(b"x", ec.ECDSA(hashes.SHA256()))


def test_two_issuers_share_a_token(keys: Pkcs11Keys, token: SoftToken) -> None:
    """Each trust domain has a log key of its own; one's second is refused by its label."""
    other = Pkcs11Keys(kept(token), TrustDomain.parse("other.example"))
    mine, theirs = keys.generate_log_key(), other.generate_log_key()
    assert mine.public_key() != theirs.public_key()
    assert keys.load_log_key().public_key() == mine.public_key()
    with pytest.raises(KeyExists, match=r"accredit other\.example log"):
        other.generate_log_key()


def test_a_wrong_pin_is_sent_once(keys: Pkcs11Keys, token: SoftToken, ticks: Ticks) -> None:
    """The error names token and file without the PIN; tokens lock, so only a new PIN is tried."""
    token.pin_file.write_text("wrong-horse\n")
    for found in ("PinIncorrect", "was refused before", "was refused before"):
        ticks.pause()
        with pytest.raises(Unavailable, match=found) as refused:
            keys.check()
        assert LABEL in str(refused.value)
        assert str(token.pin_file) in str(refused.value)
        for secret in (PIN, "wrong-horse"):
            assert secret not in f"{refused.value!r} {refused.value.__cause__!r}"
    token.pin_file.write_text(PIN)
    assert keys.check()
    with token.gone(), pytest.raises(Unavailable):
        keys.check()
    token.pin_file.write_text("other-horse\n")
    for found in ("PinIncorrect", "was refused before"):
        ticks.pause()
        with pytest.raises(Unavailable, match=found):
            keys.check()


def test_what_cannot_be_opened_is_named(token: SoftToken, tmp_path: Path) -> None:
    """A missing module, token and PIN file, and a PIN that is none, are one sentence each."""
    empty = tmp_path / "empty"
    empty.touch(mode=0o600)
    binary = tmp_path / "binary"
    binary.touch(mode=0o600)
    binary.write_bytes(b"\xff\xfe\xff\xfe")
    good = kept(token)
    for wrong, named in (
        (replace(good, module=tmp_path / "none.so"), "none.so"),
        (replace(good, module=empty), "empty"),
        (replace(good, token="another"), "another"),
        (replace(good, pin_file=tmp_path / "nowhere"), r"keys\.pin_file: .*nowhere"),
        (replace(good, pin_file=empty), "4 to 255 bytes"),
        (replace(good, pin_file=binary), "UTF-8"),
    ):
        with pytest.raises(Unavailable, match=named):
            Pkcs11Keys(wrong, DOMAIN).check()


def test_without_the_extra_the_setting_is_named(
    token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PKCS#11 is not installed the error says what to install, and other kinds work."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    monkeypatch.delitem(sys.modules, "accredit_issuer.keys.pkcs11")
    monkeypatch.delattr(accredit_issuer.keys, "pkcs11")
    with pytest.raises(InvalidSettings, match=r"keys\.kind is pkcs11: install accredit\[pkcs11\]"):
        open_keys(make_config(tmp_path, keys=token.settings))
    open_keys(make_config(tmp_path, keys={"unencrypted": True})).close()


def test_a_lost_session_is_opened_again(keys: Pkcs11Keys, token: SoftToken) -> None:
    """Closed, logged out or forgotten by the module: nobody notices, and no key is made twice."""
    made = keys.generate()
    log_key = keys.generate_log_key()
    library = pkcs11.lib(str(token.module))
    for lose in (
        lambda: keys._session.close() if keys._session else None,
        library.reinitialize,
        library.finalize,
    ):
        for use in (
            lambda: made.private.sign(b"data", SHA256),
            lambda: log_key.sign(b"data"),
            lambda: keys.load(made.id),
            keys.load_log_key,
            keys.generate,
            keys.check,
        ):
            lose()
            assert use()
    keys.close()
    with token.session() as session:
        assert len(private_keys(session)) == 5


def test_who_initialises_the_module_anew_exchanges_no_keys(
    keys: Pkcs11Keys, token: SoftToken
) -> None:
    """Handles start again from one: whoever held some asks for its keys once more."""
    mine = [keys.generate().private for _ in range(3)]
    for key in mine:
        key.sign(b"data", SHA256)
    with pytest.raises(Unavailable):
        Pkcs11Keys(replace(kept(token), token="another"), DOMAIN).check()
    other = Pkcs11Keys(kept(token), DOMAIN)
    theirs = [other.generate().private for _ in range(3)]
    for key in (*theirs, *mine, *theirs):
        key.public_key().verify(key.sign(b"data", SHA256), b"data", SHA256)


def test_a_logout_behind_our_back_loses_no_key(keys: Pkcs11Keys, token: SoftToken) -> None:
    """Where another session of the process logged out, a key is looked for once more."""
    made = keys.generate()
    assert keys._session is not None
    again = next(pkcs11.lib(str(token.module)).get_tokens(token_label=LABEL)).open()
    keys._session.close()
    keys._session = again
    assert keys.load(made.id).sign(b"data", SHA256)


def test_a_module_that_is_gone_is_not_asked_at_each_call(
    keys: Pkcs11Keys, token: SoftToken, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure the next calls fail at once, until the pause is over."""
    made = keys.generate()
    asked = []
    open_session = keys._open_session
    monkeypatch.setattr(keys, "_open_session", lambda *a: asked.append(1) or open_session(*a))
    with token.gone():
        for _ in range(5):
            with pytest.raises(Unavailable, match="the keys cannot be used now"):
                made.private.sign(b"data", SHA256)
        assert len(asked) == 2  # as it is, and with the module initialised anew
        ticks.pause()
        with pytest.raises(Unavailable):
            keys.load(made.id)
        assert len(asked) == 4
    ticks.pause()
    assert made.private.sign(b"data", SHA256)


def test_any_failure_of_the_module_is_unavailable(
    keys: Pkcs11Keys, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is pulled out while it signs, also right after the session was opened anew."""
    made = keys.generate()

    def pulled_out(*_: object) -> Any:
        raise DeviceRemoved

    with monkeypatch.context() as patch:
        patch.setattr(keys, "_handle", pulled_out)
        with pytest.raises(Unavailable) as failed:
            made.private.sign(b"data", SHA256)
        assert "DeviceRemoved" in repr(failed.value.__cause__)
    ticks.pause()
    assert made.private.sign(b"data", SHA256)


def test_a_key_that_was_destroyed_elsewhere_is_unavailable(keys: Pkcs11Keys, ticks: Ticks) -> None:
    """Whoever still holds it cannot sign with it, and whoever looks does not find it."""
    made = keys.generate()
    keys.remove(made.id)
    with pytest.raises(Unavailable):
        made.private.sign(b"data", SHA256)
    with pytest.raises(KeyMissing):
        keys.load(made.id)


def test_after_the_end_nothing_signs(keys: Pkcs11Keys, token: SoftToken, ticks: Ticks) -> None:
    """A closed manager does not log in again."""
    made = keys.generate()
    keys.close()
    ticks.pause()
    with pytest.raises(Unavailable):
        made.private.sign(b"data", SHA256)


def test_an_issuer_with_its_keys_in_a_token(token: SoftToken, tmp_path: Path) -> None:
    """It issues, rotates and starts again; no key is on disk, and removed keys leave the token."""
    short = {
        "lifetimes": {"issuing_ca": 7200, "x509_svid": 60, "admin_svid": 60, "jwt_key": 7200},
        "bundle": {"refresh_hint": 60},
    }
    with offline_issuer(tmp_path / "issuer", keys=token.settings, **short) as offline:
        first = {a.id for a in offline.issuer.authorities.now_in_force.authorities}
        svid = offline.agent()
        assert offline.task_token(svid).token
        offline.state(f"serial:{svid.serial}")
        assert offline.is_on_crl(svid)
        assert status(offline, svid) == "revoked"
        assert status(offline, offline.agent()) == "good"
        offline.reopen()
        assert offline.agent()
        offline.clock.advance(hours=12)
        offline.issuer.keep_up()
        held = {a.id for a in offline.issuer.authorities.now_in_force.authorities}
        assert len(held - first) >= 2
        assert offline.agent()
        assert not (offline.config.data / "keys").exists()
    with token.session() as session:
        in_token = {key[Attribute.ID].hex() for key in private_keys(session)}
    assert in_token == held | {""}  # and the log's


def _count(issuer: Issuer, table: Any) -> int:
    with issuer.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def _open(token: SoftToken, folder: Path, clock: SettableClock, ticks: Ticks) -> Offline:
    config = make_config(folder, keys=token.settings)
    first = initialise(config, clock).text
    keys = Pkcs11Keys(kept(token), config.trust_domain, ticks)
    return Offline(config, clock, open_issuer(config, clock, keys=keys), first)


def test_nothing_is_half_issued_without_the_token(
    token: SoftToken, tmp_path: Path, ticks: Ticks
) -> None:
    """While it is gone: intents without outcome, no record, no release; then it goes on."""
    offline = _open(token, tmp_path / "issuer", SettableClock(), ticks)
    issuer = offline.issuer
    try:
        svid = offline.agent()
        manifest = offline.register()
        request = offline.attestation(manifest)
        before = (_count(issuer, credentials), _count(issuer, releases), issuer.log.head)
        with token.gone():
            with pytest.raises(Unavailable):
                offline.renew(svid)
            with pytest.raises(Unavailable):
                offline.task_token(svid)
            with pytest.raises(Unavailable):
                offline.do(issuer.issuance.agents.attest(request))
            with pytest.raises(Unavailable):
                offline.state(f"serial:{svid.serial}")
            # Rotation waits: what it could not make is not in force.
            offline.clock.advance(hours=13)
            with pytest.raises(Unavailable):
                issuer.keep_up()
            offline.clock.advance(hours=-13)
            issuer.guarded_clock.confirm()
        # A renewal and a task token need no record before their signature: two intents stand.
        assert _count(issuer, credentials) == before[0] + 2
        assert (_count(issuer, releases), issuer.log.head) == before[1:]
        ticks.pause()
        assert offline.renew(svid)
        assert offline.task_token(svid).token
        # The join token was not spent.
        assert offline.do(issuer.issuance.agents.attest(offline.attestation(manifest)))
        issuer.keep_up()
        assert offline.state(f"serial:{svid.serial}")
    finally:
        issuer.close()
    offline.issuer = open_issuer(offline.config, offline.clock)
    offline.issuer.close()


def test_callers_are_told_when_to_come_back(token: SoftToken, tmp_path: Path, ticks: Ticks) -> None:
    """Over HTTP: 503 with Retry-After and no word of the token; afterwards every answer."""
    config = make_config(tmp_path / "issuer", keys=token.settings)
    first = initialise(config, system_clock).text
    keys = Pkcs11Keys(kept(token), config.trust_domain, ticks)
    with serving(config, keys=keys) as (issuer, url):
        running = RunningIssuer(issuer, url, first)
        with running.clients:
            admin = log_in(running, first)
            agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
            register(running, admin, agent)
            identity = attest(running, agent, join_token_file(admin, agent))
            as_agent = RawClient.at(running.url, running.bundle, identity)
            as_admin = RawClient.at(running.url, running.bundle, admin.identity)

            def ask() -> list[Answer]:
                task = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
                return [
                    as_agent.ask("POST", "/v1/task-tokens", task),
                    as_agent.ask("POST", "/v1/svids/jwt", {"audience": ["https://a.example"]}),
                    as_admin.ask("POST", "/v1/agents/support/summarizer/join-tokens", {}),
                ]

            with token.gone():
                released = _count(issuer, releases)
                for answer in ask():
                    assert (answer.status, answer.kind) == (503, "unavailable")
                    assert int(answer.headers["retry-after"]) >= PAUSE_SECONDS
                    assert LABEL.encode() not in answer.body
                recorded = as_admin.ask("POST", "/v1/agents/support/summarizer/join-tokens", {})
                assert recorded.json["detail"] == (
                    "could not be recorded: the key manager does not answer"
                )
                assert _count(issuer, releases) == released
                assert _readiness(as_admin) == (503, "the keys cannot be used now")
                assert as_admin.ask("GET", "/v1/whoami").status == 200
                assert as_admin.ask("GET", "/v1/bundle").status == 200
            ticks.pause()
            assert [answer.status for answer in ask()] == [200, 200, 201]


def _readiness(client: RawClient) -> tuple[int, str | None]:
    answer = client.ask("GET", "/health/ready")
    return answer.status, answer.json.get("reason")


def test_the_commands_with_a_token(token: SoftToken, tmp_path: Path) -> None:
    """``init``, ``run`` and ``doctor``: an admin logs in, an agent attests, no key is on disk."""
    file = write_settings(tmp_path, token.settings_text)
    with issuer_process(file) as process:
        running = RunningIssuer(process, process.url, process.first_token)  # type: ignore[arg-type]
        admin = log_in(running, process.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        assert attest(running, agent, join_token_file(admin, agent))
        assert stop(process) == 0
        with running.clients:
            pass
    findings = examine(file, system_clock())
    assert all(finding.ok for finding in findings)
    assert f"in token {LABEL!r}, never extractable" in {finding.found for finding in findings}
    assert not (tmp_path / "data" / "keys").exists()
    assert not (tmp_path / "issuer.passphrase").exists()
    token.pin_file.write_text("wrong-horse\n")
    pkcs11.lib(str(token.module)).finalize()
    wrong = [finding for finding in examine(file, system_clock()) if not finding.ok]
    assert [finding.what for finding in wrong] == ["keys", "log"]
    assert "wrong-horse" not in str(wrong)
