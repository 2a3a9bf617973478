"""``issuer.toml``: unknown keys are refused, values fit each other, errors have both numbers."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from accredit_issuer.cli.app import TEMPLATE
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.settings import KeysInToken, KeysOnDisk, Settings, check, load


def read(folder: Path, text: str) -> Any:
    """Load a file with this text."""
    file = folder / "issuer.toml"
    file.write_text(text)
    return load(file)


def test_the_template_that_init_writes_holds(tmp_path: Path) -> None:
    """What ``init`` writes is accepted, and paths are relative to the file."""
    config = read(tmp_path, TEMPLATE.format(trust_domain="example.org"))
    assert config.data == tmp_path / "data"
    assert config.log_origin == "example.org/accredit-log"
    assert config.lifetimes.x509_svid == timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("trust_domain = 'example.org'\ntrustdomain = 'x'", "trustdomain"),
        ("trust_domain = 'example.org'\n[server]\nprot = 1", "server.prot"),
        ("trust_domain = 'example.org'\n[lifetime]\nroot = 1", "lifetime"),
        ("trust_domain = 'example.org'\n[lifetimes]\nbackdate = 1", "lifetimes.backdate"),
        ("", "trust_domain"),
        ("trust_domain = 7", "trust_domain"),
        ("trust_domain = ''", "trust_domain"),
        ("trust_domain = 'a b'", "trust_domain"),
        ("trust_domain = 'example.org/x'", "trust_domain"),
        ("trust_domain = 'example.org'\n[server]\nport = 65536", "server.port"),
        ("trust_domain = 'example.org'\n[server]\nport = -1", "server.port"),
        ("trust_domain = 'example.org'\n[lifetimes]\nnonce = 301", "lifetimes.nonce"),
        ("trust_domain = 'example.org'\n[lifetimes]\ntask_token = 301", "lifetimes.task_token"),
        ("trust_domain = 'example.org'\n[lifetimes]\nx509_svid = 0", "lifetimes.x509_svid"),
        ("trust_domain = 'example.org'\n[revocation]\nheartbeat = 0.1", "revocation.heartbeat"),
        ("trust_domain = 'example.org'\n[bundle]\nrefresh_hint = 0", "bundle.refresh_hint"),
        ("trust_domain = 'example.org'\n[keys]\nkind = 'memory'", "keys.kind"),
        ("trust_domain = 'example.org'\n[keys]\npassphrase = 'x'", "keys.passphrase"),
        ("trust_domain = 'example.org'\n[keys]\npin = '1234'", "keys.pin"),
        ("trust_domain = 'a'\ntrust_domain = 'b'", "not TOML"),
        ("\0", "not TOML"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    """A key that is unknown, missing or out of its bounds is refused by its full name."""
    with pytest.raises(InvalidSettings, match=named):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "trust_domain = 'a'\n[keys]\npassphras_file = 'x'",
            "unknown key keys.passphras_file; did you mean passphrase_file?",
        ),
        ("trustdomain = 'a'", "unknown key trustdomain; did you mean trust_domain?"),
        (
            "trust_domain = 'a'\n[bundle.https_web]\nkeyfile = 'x'",
            "unknown key bundle.https_web.keyfile; did you mean key_file?",
        ),
        ("trust_domain = 'a'\n[keys]\nzzz = 1", "unknown key keys.zzz"),
        ('trust_domain = "a"\n"x\\u001b[2J" = 1', "unknown key 'x\\x1b[2J'"),
        ("", "trust_domain is missing"),
    ],
)
def test_a_misspelt_key_is_told_what_was_meant(tmp_path: Path, text: str, said: str) -> None:
    """An unknown key is called so, with the nearest that there is; none is invented."""
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'issuer.toml'}: {said}"


def make(**settings: Any) -> Any:
    """Check settings."""
    raw = {"trust_domain": "example.org", **settings}
    return check(Settings.model_validate(raw), folder=Path("/tmp"))


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({"lifetimes": {"issuing_ca": 7000, "admin_svid": 60}}, ("3600 s", "7000 s")),
        ({"lifetimes": {"issuing_ca": 57599}}, ("28800 s", "57599 s")),
        ({"lifetimes": {"root": 172799}}, ("86400 s", "172799 s")),
        ({"lifetimes": {"jwt_svid": 3600, "jwt_key": 7199}}, ("3600 s", "7199 s")),
        ({"lifetimes": {"jwt_key": 3599}}, ("3599 s", "900 s")),
        ({"bundle": {"refresh_hint": 7201}}, ("86400 s", "21603 s")),
        (
            {"lifetimes": {"root": 172800, "jwt_key": 10**6}, "bundle": {"refresh_hint": 14401}},
            ("172800 s", "43203 s"),
        ),
    ],
)
def test_lifetimes_nest(settings: dict[str, Any], numbers: tuple[str, str]) -> None:
    """What has to fit into something longer is refused one second too long, with both numbers."""
    with pytest.raises(InvalidSettings) as refused:
        make(**settings)
    assert all(number in str(refused.value) for number in numbers), str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"lifetimes": {"issuing_ca": 7200, "admin_svid": 60}},
        {"lifetimes": {"issuing_ca": 57600}},
        {"lifetimes": {"root": 172800}},
        {"lifetimes": {"jwt_svid": 1800, "jwt_key": 3600}},
        {"bundle": {"refresh_hint": 7200}},
    ],
)
def test_the_neighbours_that_fit(settings: dict[str, Any]) -> None:
    """Exactly half, and exactly four times, is accepted."""
    assert make(**settings)


@pytest.mark.spec("SPIFFE-86")
@pytest.mark.parametrize("name", ["url", "token_issuer"])
@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8443",
        "https://host/path",
        "https://",
        "https://host:0",
        "https://host:99999",
        "https://user@host",
        "https://host?x=1",
        "https://host#x",
        "ftp://host",
        "localhost:8443",
        "https://[::1",
        " ",
    ],
)
def test_an_address_is_an_address(url: str, name: str) -> None:
    """The issuer's URLs are https, with a host, and without user, path, query and fragment."""
    with pytest.raises(InvalidSettings, match=rf"server\.{name}"):
        make(server={name: url})


@pytest.mark.parametrize("name", ["crl_url", "ocsp_url"])
@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://user@host", "http://host?x=1"])
def test_where_status_is_found_is_an_address(url: str, name: str) -> None:
    """Plain HTTP and a path are fine, for what is found there is signed; nothing else is."""
    with pytest.raises(InvalidSettings, match=rf"revocation\.{name}"):
        make(revocation={name: url})
    config = make(revocation={name: "http://status.example.org/pki/"})
    assert getattr(config, name) == "http://status.example.org/pki"
    assert getattr(make(revocation={name: ""}), name) is None


def test_an_empty_address_is_none() -> None:
    """Nothing between the quotes is no address."""
    for name in ("url", "token_issuer"):
        with pytest.raises(InvalidSettings, match=rf"server\.{name}"):
            make(server={name: ""})


def test_the_longest_credential_covers_every_kind() -> None:
    """Facts and authorities outlast whatever can be signed, the server's own SVID too."""
    lifetimes = make().lifetimes
    assert lifetimes.longest_credential >= lifetimes.issuing_ca / 2
    assert lifetimes.longest_svid >= max(lifetimes.x509_svid, lifetimes.admin_svid)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error has the path and the reason."""
    with pytest.raises(InvalidSettings, match=r"cannot read .*nowhere"):
        load(tmp_path / "nowhere.toml")


TOKEN = {"kind": "pkcs11", "module": "/m.so", "token": "t", "pin_file": "pin"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, KeysOnDisk(Path("/tmp/data/keys"), Path("/tmp/issuer.passphrase"))),
        ({"passphrase_file": "p"}, KeysOnDisk(Path("/tmp/data/keys"), Path("/tmp/p"))),
        ({"unencrypted": True}, KeysOnDisk(Path("/tmp/data/keys"), None)),
        (TOKEN, KeysInToken(Path("/m.so"), "t", Path("/tmp/pin"))),
        ({**TOKEN, "unencrypted": False}, KeysInToken(Path("/m.so"), "t", Path("/tmp/pin"))),
    ],
)
def test_how_keys_are_kept(keys: dict[str, Any], expected: object) -> None:
    """Encrypted on disk, unless the settings say otherwise; paths are relative to the file."""
    assert make(keys=keys).keys == expected


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"unencrypted": True, "passphrase_file": "p"}, ("passphrase_file", "unencrypted")),
        ({"module": "/m.so"}, ("module", "kind")),
        ({"token": "t"}, ("token", "kind")),
        ({"pin_file": "pin"}, ("pin_file", "kind")),
        ({**TOKEN, "unencrypted": True}, ("unencrypted", "kind")),
        ({**TOKEN, "passphrase_file": "p"}, ("passphrase_file", "kind")),
        ({**TOKEN, "module": None}, ("module", "kind")),
        ({**TOKEN, "token": None}, ("token", "kind")),
        ({**TOKEN, "token": ""}, ("token", "kind")),
        ({**TOKEN, "pin_file": None}, ("pin_file", "kind")),
    ],
)
def test_keys_are_kept_in_one_way(keys: dict[str, Any], names: tuple[str, str]) -> None:
    """Settings of another way, or too few of this one, are refused with both names."""
    with pytest.raises(InvalidSettings) as refused:
        make(keys=keys)
    assert all(f"keys.{name}" in str(refused.value) for name in names), str(refused.value)
