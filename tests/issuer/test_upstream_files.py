"""Issuing below a CA that is given in files: validation, life cycle, replacement, refusals."""

import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import uri_san
from support.clock import NOW, SettableClock
from support.given import Given, given_chain, p256, rsa_key
from support.issuer import make_config
from support.judges import ask, openssl, program
from support.offline import Offline, offline_issuer

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.x509_svid import X509Svid, validate
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.cli.doctor import Root, root_certificates
from accredit_issuer.cli.timeline import draw
from accredit_issuer.clock import system_clock
from accredit_issuer.errors import InvalidSettings, Refusal, Unavailable
from accredit_issuer.issuer import initialise, open_issuer
from accredit_issuer.registry.changes import Local

ROOT, X509 = AuthorityKind.ROOT, AuthorityKind.X509
HOUR = timedelta(hours=1)


def check_valid(offline: Offline, svid: X509Svid, bundle: TrustBundle | None = None) -> None:
    """Validate with the bundle as it is published now, or with another."""
    bundle = bundle or offline.issuer.bundle
    validate(svid, bundles={bundle.trust_domain: bundle}, now=offline.clock())


def shown(offline: Offline) -> dict[str, Any]:
    """The authorities in use as operators see them, by their ids."""
    return {each["id"]: each for each in offline.issuer.rollover.overview()}


def give(offline: Offline, given: Given, folder: Path) -> None:
    """Put another CA into the files, and restart."""
    config = make_config(offline.config.data.parent, upstream=given.write(folder))
    offline.config = replace(offline.config, upstream=config.upstream)
    offline.reopen()


def pem_file(folder: Path, name: str, *certificates: x509.Certificate) -> Path:
    """Certificates in a file."""
    file = folder / name
    encoded = [each.public_bytes(serialization.Encoding.PEM) for each in certificates]
    file.write_bytes(b"".join(encoded))
    return file


KEYS: dict[str, Any] = {
    "P-256": p256,
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": rsa_key,
    "RSA 4096": lambda: rsa_key(4096),
}


@pytest.mark.parametrize("make_key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_agent_below_a_given_ca(tmp_path: Path, make_key: Any, depth: int) -> None:
    """Its chain leads to the given root, for our validation, OpenSSL and GnuTLS alike."""
    given = given_chain(*[{}] * depth, keys=[make_key(), *(p256() for _ in range(depth - 1))])
    upstream = given.write(tmp_path / "ca")
    with offline_issuer(tmp_path / "issuer", upstream=upstream) as offline:
        svid = offline.agent()
        assert offline.issuer.bundle.x509_authorities == (given.root,)
        assert svid.intermediates[1:] == given.certificates[:-1]
        log = Log(offline.config.log_origin, offline.issuer.keys.load_log_key())
        with offline.issuer.database.read() as connection:
            assert not inspect(connection, offline.config, log, offline.clock()).findings
        check_valid(offline, svid)
        other = replace(offline.issuer.bundle, x509_authorities=(given_chain({}).root,))
        with pytest.raises(Untrusted):
            check_valid(offline, svid, other)
    root = pem_file(tmp_path, "root.pem", given.root)
    leaf = pem_file(tmp_path, "leaf.pem", svid.leaf)
    chain = pem_file(tmp_path, "chain.pem", *svid.intermediates)
    at = str(int(offline.clock().timestamp()))
    command = ("verify", "-attime", at, "-CAfile", root, "-x509_strict", "-purpose", "sslclient")
    verdict = openssl(*command, "-untrusted", chain, leaf)
    assert verdict.accepted, verdict.text
    assert not openssl(*command, leaf).accepted


def test_gnutls_takes_it_too(tmp_path: Path) -> None:
    """GnuTLS verifies a chain below a given intermediate with an RSA key."""
    certtool = program("certtool")
    clock = SettableClock(system_clock())
    given = given_chain({}, {}, keys=[rsa_key(3072), rsa_key(3072)], now=clock())
    upstream = given.write(tmp_path / "ca")
    with offline_issuer(tmp_path / "issuer", clock, upstream=upstream) as offline:
        svid = offline.agent()
    chain = pem_file(tmp_path, "chain.pem", *svid.certificates)
    root = pem_file(tmp_path, "root.pem", given.root)
    said = ask(certtool, "--verify", "--infile", chain, "--load-ca-certificate", root)
    assert "Verified. The certificate is trusted." in said.text, said.text


def test_the_issuer_makes_no_root_and_keeps_no_key_of_it(tmp_path: Path) -> None:
    """The given key stays in its file; in the issuer's folder are keys of its own only."""
    given = given_chain({}, {})
    upstream = given.write(tmp_path / "ca", passphrase=b"correct horse battery")
    with offline_issuer(tmp_path / "issuer", upstream=upstream) as offline:
        root = offline.issuer.authorities.now_in_force.active(ROOT)
        assert root.key is None
        names = {file.stem for file in (offline.config.data / "keys").iterdir()}
        assert root.id not in names
        assert names == {"log", offline.active(X509), offline.active(AuthorityKind.JWT)}
        assert Root(given.root).pin == root_certificates(offline.config)[0].pin
        offline.reopen()
        check_valid(offline, offline.agent())


def test_where_it_came_from_is_shown(tmp_path: Path) -> None:
    """The overview, the drawing and the record of its preparation say that it was given."""
    given = given_chain({}, {})
    with offline_issuer(tmp_path / "issuer", upstream=given.write(tmp_path / "ca")) as offline:
        views = shown(offline)
        root = views[offline.active(ROOT)]
        assert root["origin"] == "files"
        assert views[offline.active(X509)]["origin"] == "own"
        assert "last_use" in root["planned"]
        assert "given in files" in "\n".join(draw(list(views.values()), offline.clock()))
        told = [leaf for leaf in offline.leaves() if b'"origin":"files"' in leaf]
        assert len(told) == 1
        with pytest.raises(Refusal, match="the root is given"):
            offline.prepare(ROOT)


def test_issuing_cas_go_on_below_it(tmp_path: Path) -> None:
    """Over weeks issuing CAs follow each other below the one root, and none outlives it."""
    end = NOW + timedelta(days=9)
    given = given_chain({"end": end}, {})
    clock = SettableClock()
    with offline_issuer(
        tmp_path / "issuer", clock, upstream=given.write(tmp_path / "ca")
    ) as offline:
        root, seen = offline.active(ROOT), set[str]()
        while clock() < end - HOUR:
            offline.issuer.keep_up()
            assert offline.active(ROOT) == root
            seen.add(offline.active(X509))
            svid = offline.agent()
            assert svid.not_after <= end
            check_valid(offline, svid)
            clock.advance(hours=13)
        assert len(seen) > 9
        clock.now = end + HOUR
        offline.issuer.keep_up()  # the JWT keys go on
        with pytest.raises((Unavailable, Refusal)):
            offline.agent()
        with pytest.raises(InvalidSettings, match="expired at"):
            offline.reopen()


def test_another_ca_in_the_files(tmp_path: Path) -> None:
    """After a restart it is published, signs once everybody can know it, and the old one goes."""
    old, new = given_chain({}, {}), given_chain({}, {})
    folder = tmp_path / "ca"
    with offline_issuer(tmp_path / "issuer", upstream=old.write(folder)) as offline:
        clock = offline.clock
        before = offline.active(ROOT)
        clock.advance(hours=11)
        offline.issuer.keep_up()
        early = offline.agent()
        give(offline, new, folder)
        assert offline.issuer.bundle.x509_authorities == (old.root, new.root)
        assert offline.active(ROOT) == before
        began = clock()
        svids = [early]
        while offline.active(ROOT) == before:
            clock.advance(minutes=20)
            offline.issuer.keep_up()
            svids = [each for each in svids if clock() < each.not_after]
            svids.append(offline.agent())
            for each in svids:
                check_valid(offline, each)
        assert clock() - began >= offline.config.lifetimes.longest_svid
        assert svids[-1].intermediates[-1] == new.certificates[0]
        assert offline.issuer.bundle.x509_authorities == (old.root, new.root)
        clock.advance(hours=26)
        offline.issuer.keep_up()
        assert offline.issuer.bundle.x509_authorities == (new.root,)


def test_another_ca_when_the_issuing_ca_is_about_to_end(tmp_path: Path) -> None:
    """The key of the old one is gone: where nothing below it is left, the new one signs at once."""
    old, new = given_chain({}, {}), given_chain({}, {})
    folder = tmp_path / "ca"
    with offline_issuer(tmp_path / "issuer", upstream=old.write(folder)) as offline:
        before, ca = offline.active(ROOT), offline.active(X509)
        offline.clock.advance(hours=23)  # the machine slept: no successor was prepared
        give(offline, new, folder)
        assert (offline.active(ROOT), offline.active(X509)) == (before, ca)
        planned = shown(offline)[new_id(offline)]["active_from"]
        offline.clock.advance(hours=1)
        assert planned == f"{offline.clock():%Y-%m-%dT%H:%M:%SZ}"
        offline.issuer.keep_up()
        assert offline.active(ROOT) != before
        check_valid(offline, offline.agent())


def new_id(offline: Offline) -> str:
    """The id of the root that is prepared."""
    (found,) = (
        a.id
        for a in offline.issuer.authorities.now_in_force.authorities
        if a.kind is ROOT and a.state is State.PREPARED
    )
    return found


def test_a_third_ca_before_the_second_signed(tmp_path: Path) -> None:
    """What was given and never signed goes, and what is in the files now takes its place."""
    chains = [given_chain({}) for _ in range(3)]
    folder = tmp_path / "ca"
    with offline_issuer(tmp_path / "issuer", upstream=chains[0].write(folder)) as offline:
        give(offline, chains[1], folder)
        second = new_id(offline)
        give(offline, chains[2], folder)
        assert new_id(offline) != second
        assert set(offline.issuer.bundle.x509_authorities) == {chains[0].root, chains[2].root}
        with pytest.raises(InvalidSettings, match="is removed here already"):
            give(offline, chains[1], folder)


def test_back_to_one_that_was_retired(tmp_path: Path) -> None:
    """A CA whose key was retired is refused, and so is another certificate of one in use."""
    key = p256()
    old, new = given_chain({}, {}), given_chain({}, {}, keys=[key, p256()])
    folder = tmp_path / "ca"
    with offline_issuer(tmp_path / "issuer", upstream=old.write(folder)) as offline:
        give(offline, new, folder)
        offline.activate(new_id(offline))
        with pytest.raises(InvalidSettings, match="is retired here already"):
            give(offline, old, folder)
        with pytest.raises(InvalidSettings, match="in use here with other certificates"):
            give(offline, given_chain({}, {}, keys=[key, p256()]), folder)
        give(offline, new, folder)
        check_valid(offline, offline.agent())


def test_a_given_root_is_tainted_and_revoked_like_any(tmp_path: Path) -> None:
    """Once another signs, the old one can be tainted with what is below it, and revoked."""
    old, new = given_chain({}, {}), given_chain({}, {})
    folder = tmp_path / "ca"
    with offline_issuer(tmp_path / "issuer", upstream=old.write(folder)) as offline:
        first, ca = offline.active(ROOT), offline.active(X509)
        give(offline, new, folder)
        offline.activate(new_id(offline))
        rollover = offline.issuer.rollover
        rollover.taint(first, "seen elsewhere", by=Local("test"))
        assert offline.issuer.bundle.tainted == {first, ca}
        rollover.revoke(first, "seen elsewhere", by=Local("test"))
        assert offline.issuer.bundle.x509_authorities == (new.root,)
        assert offline.issuer.revocation.facts.match([f"authority:{ca}"]) is not None


def test_from_own_roots_to_a_given_one_and_back(tmp_path: Path) -> None:
    """Each way the next root is published first, and what was issued stays valid to its end."""
    given = given_chain({}, {})
    with offline_issuer(tmp_path / "issuer") as offline:
        own = offline.active(ROOT)
        give(offline, given, tmp_path / "ca")
        assert offline.active(ROOT) == own
        offline.clock.advance(hours=11)
        offline.issuer.keep_up()
        svid = offline.agent()
        offline.clock.advance(minutes=59)
        offline.issuer.keep_up()
        offline.clock.advance(minutes=2)
        offline.issuer.keep_up()
        assert (
            offline.issuer.authorities.now_in_force.active(ROOT).certificate
            == (given.certificates[0])
        )
        check_valid(offline, offline.agent())
        offline.config = replace(offline.config, upstream=None)
        offline.reopen()
        assert new_id(offline) != own
        for _ in range(24):
            offline.clock.advance(hours=1)
            offline.issuer.keep_up()
            svid = offline.agent()
            check_valid(offline, svid)
        assert offline.issuer.authorities.now_in_force.active(ROOT).standing.origin.value == "own"
        offline.clock.advance(hours=30)
        offline.issuer.keep_up()
        assert given.root not in offline.issuer.bundle.x509_authorities


def test_an_anchor_of_two_is_published_once(tmp_path: Path) -> None:
    """Two intermediates below one root make a bundle with one authority."""
    root_key, folder = p256(), tmp_path / "ca"
    one = given_chain({}, {}, keys=[p256(), root_key])
    end = one.certificates[0].not_valid_after_utc
    two = given_chain({"end": end - HOUR}, {}, keys=[p256(), root_key])
    two = replace(two, certificates=(two.certificates[0], one.root))
    with offline_issuer(tmp_path / "issuer", upstream=one.write(folder)) as offline:
        give(offline, two, folder)
        assert offline.issuer.bundle.x509_authorities == (one.root,)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Another's key, an open file, a wrong passphrase or no PEM: refused, and nothing is made."""
    given = given_chain({}, {})
    upstream = given.write(tmp_path / "ca")
    key_file, certificate_file = Path(upstream["key_file"]), Path(upstream["certificate_file"])
    good = key_file.read_bytes(), certificate_file.read_bytes()

    def refused(words: str, **more: Any) -> str:
        config = make_config(tmp_path / "issuer", upstream={**upstream, **more})
        with pytest.raises(InvalidSettings, match=words) as caught:
            initialise(config, SettableClock())
        assert not config.data.exists()
        return str(caught.value)

    other = given_chain({}, {}).write(tmp_path / "other")
    said = refused("is of another key", key_file=other["key_file"])
    assert other["key_file"] in said
    assert str(certificate_file) in said
    key_file.chmod(0o604)
    refused("mode 0604, expected 0600")
    key_file.chmod(0o640)
    certificate_file.write_text("nothing")
    refused("does not hold certificates in PEM")
    certificate_file.write_bytes(b"x" * 70_000)
    refused("larger than 65536 bytes")
    certificate_file.unlink()
    refused("No such file")
    certificate_file.write_bytes(good[1])
    for content in (b"nothing", b"-----BEGIN EC PRIVATE KEY-----\n", b"x" * 17_000):
        key_file.write_bytes(content)
        refused("not a private key in PKCS#8 PEM")
    key_file.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    refused("cannot be opened")
    key_file.write_bytes(good[0])
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("another passphrase\n")
    refused("is not encrypted, and", passphrase_file=str(passphrase))
    secret = given.write(tmp_path / "secret", passphrase=b"correct horse battery")
    said = refused("cannot be opened", **{**secret, "passphrase_file": str(passphrase)})
    assert "another" not in said
    passphrase.chmod(0o644)
    said = refused("upstream.passphrase_file", **{**secret, "passphrase_file": str(passphrase)})
    upstream = {name: value for name, value in secret.items() if name != "passphrase_file"}
    refused("is encrypted: set upstream.passphrase_file")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o640


def test_another_trust_domains_ca(tmp_path: Path) -> None:
    """The table of faults stands in the way of a start, with both files in its words."""
    given = given_chain({"add": [(uri_san("spiffe://other.org"), False)]}, {})
    config = make_config(tmp_path / "issuer", upstream=given.write(tmp_path / "ca"))
    with pytest.raises(InvalidSettings, match=r"ca\.pem .*ca\.key.*spiffe://example.org or none"):
        initialise(config, SettableClock())


def test_a_ca_that_expires_while_nobody_runs(tmp_path: Path) -> None:
    """An issuer whose given CA has less left than an issuing CA lives does not start."""
    given = given_chain({"end": NOW + 30 * HOUR}, {})
    with offline_issuer(tmp_path / "issuer", upstream=given.write(tmp_path / "ca")) as offline:
        offline.clock.advance(hours=7)
        with pytest.raises(InvalidSettings, match=r"\(86400 s\) is longer .* \(82800 s\)"):
            open_issuer(offline.config, offline.clock)
