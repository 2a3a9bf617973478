"""The issuer believes an authority's row only as far as its keys and signatures prove it.

Each test stops a real issuer, changes its database as somebody with the file and no key could, and
starts it again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, insert, select, text, update
from support.clock import NOW
from support.offline import Offline, offline_issuer

from accredit_credentials.keys import generate_key
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.stored import AuthorityDamaged, Stored, check_certified
from accredit_issuer.keys.key_manager import KeyMissing, key_id_of
from accredit_issuer.registry.changes import Local
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities

Tampering = Callable[[Connection], None]
PEM = serialization.Encoding.PEM


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    """A public key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(PEM, form).decode()


def row_of(connection: Connection, kind: str) -> Any:
    """The only authority of a kind."""
    return connection.execute(select(authorities).where(authorities.c.kind == kind)).one()


def certificate_of(row: Any) -> x509.Certificate:
    """What a row holds."""
    return x509.load_pem_x509_certificate(row.public.encode())


def resigned(
    like: x509.Certificate, public: Any, by: ec.EllipticCurvePrivateKey, **changes: Any
) -> x509.Certificate:
    """A certificate as another one, for a key, signed by a key that is not ours."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(changes.get("issuer", like.issuer))
        .public_key(public)
        .serial_number(like.serial_number)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
    )
    for extension in like.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(by, hashes.SHA256())


def put(kind: str, pem: str) -> Tampering:
    """Another public part."""
    return lambda c: (
        c.execute(update(authorities).where(authorities.c.kind == kind).values(public=pem)) and None
    )


def strangers_jwt_key(connection: Connection) -> None:
    """A stranger's key under the id of ours."""
    put("jwt", pem_of(generate_key()))(connection)


def strangers_certificate(kind: str) -> Tampering:
    """A stranger's certificate with every name and identifier of ours."""

    def tamper(connection: Connection) -> None:
        key = generate_key()
        like = certificate_of(row_of(connection, kind))
        put(kind, resigned(like, key.public_key(), key).public_bytes(PEM).decode())(connection)

    return tamper


def our_key_signed_by_a_stranger(kind: str, **more: str) -> Tampering:
    """Our key in a certificate that we did not sign: as long as its maker likes."""

    def tamper(connection: Connection) -> None:
        like = certificate_of(row_of(connection, kind))
        changed = resigned(like, like.public_key(), generate_key())
        put(kind, changed.public_bytes(PEM).decode())(connection)
        if more:
            of_it = update(authorities).where(authorities.c.kind == kind)
            connection.execute(of_it.values(**more))

    return tamper


def strangers_root_of_the_same_identifier(connection: Connection) -> None:
    """A root that is said to be given: its identifier may be of any key."""
    strangers_certificate("root")(connection)
    of_it = update(authorities).where(authorities.c.kind == "root")
    connection.execute(of_it.values(origin="files"))


def another_id(connection: Connection) -> None:
    """The key of ours under an id that is not its own."""
    connection.execute(text("UPDATE authority SET id = :id WHERE kind = 'jwt'"), {"id": "0" * 40})


def another_parent(connection: Connection) -> None:
    """The issuing CA is said to be below what is no root."""
    jwt = row_of(connection, "jwt").id
    of_it = update(authorities).where(authorities.c.kind == "x509")
    connection.execute(of_it.values(parent=jwt))


def added(kind: str) -> Tampering:
    """A whole authority of a stranger, with the right id for its key."""

    def tamper(connection: Connection) -> None:
        key, row = generate_key(), row_of(connection, kind)
        values = {**row._mapping, "id": key_id_of(key.public_key()), "public": pem_of(key)}
        if kind != "jwt":
            made = resigned(certificate_of(row), key.public_key(), key)
            values["public"] = made.public_bytes(PEM).decode()
        connection.execute(
            insert(authorities).values(
                **values,
            )
        )

    return tamper


def start_after(offline: Offline, tamper: Tampering) -> None:
    """Stop it, change its database, start it."""
    offline.issuer.close()
    database = Database(offline.config.database)
    with database.writing.begin() as connection:
        tamper(connection)
    database.close()
    offline.reopen()


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        pytest.param(strangers_jwt_key, "not the one that its id says", id="jwt key"),
        pytest.param(strangers_certificate("root"), "not the one that its id says", id="root"),
        pytest.param(strangers_certificate("x509"), "not the one that its id says", id="x509"),
        pytest.param(
            strangers_root_of_the_same_identifier, "the log does not tell", id="given root"
        ),
        pytest.param(our_key_signed_by_a_stranger("root"), "did not sign", id="root's signature"),
        pytest.param(our_key_signed_by_a_stranger("x509"), "did not sign", id="x509's signature"),
        pytest.param(
            our_key_signed_by_a_stranger("root", origin="files"),
            "the log does not tell",
            id="given root's signature",
        ),
        pytest.param(another_id, "not the one that its id says", id="id"),
        pytest.param(another_parent, "the root that certified it is not there", id="parent"),
        pytest.param(put("root", "nonsense"), "cannot be read", id="unreadable"),
        pytest.param(put("jwt", "nonsense"), "cannot be read", id="unreadable key"),
    ],
)
def test_a_changed_authority_stops_the_start(
    tmp_path: Path, tamper: Tampering, problem: str
) -> None:
    """An issuer whose rows hold another authority than was made publishes nothing: it refuses."""
    with offline_issuer(tmp_path / "issuer") as offline:
        with pytest.raises(AuthorityDamaged, match=problem) as refused:
            start_after(offline, tamper)
        assert "restore a backup" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["root", "x509", "jwt"])
def test_an_added_authority_stops_the_start(tmp_path: Path, kind: str) -> None:
    """A stranger's authority is added with all that belongs to it, but for a key that we keep."""
    with (
        offline_issuer(tmp_path / "issuer") as offline,
        pytest.raises((AuthorityDamaged, KeyMissing)),
    ):
        start_after(offline, added(kind))


@pytest.mark.parametrize("origin", ["files", "parent"])
@pytest.mark.parametrize("state", ["prepared", "active", "retired", "tainted"])
def test_a_root_that_is_said_to_be_given_stops_the_start(
    tmp_path: Path, origin: str, state: str
) -> None:
    """No key of ours proves a given root: one that the log does not tell of is not published."""

    def tamper(connection: Connection) -> None:
        added("root")(connection)
        mine = select(authorities.c.id).order_by(authorities.c.id)
        known = set(connection.execute(mine.where(authorities.c.kind == "root")).scalars())
        theirs = known - {own}
        of_it = update(authorities).where(authorities.c.id.in_(theirs))
        connection.execute(of_it.values(origin=origin, state=state))

    with offline_issuer(tmp_path / "issuer") as offline:
        own = offline.active(AuthorityKind.ROOT)
        with pytest.raises(AuthorityDamaged, match="the log does not tell of a given root"):
            start_after(offline, tamper)


def test_a_record_that_was_written_into_the_log_proves_nothing(tmp_path: Path) -> None:
    """A leaf that was changed to tell of a stranger's root is not under the checkpoint."""

    def tamper(connection: Connection) -> None:
        row = row_of(connection, "root")
        connection.execute(text("UPDATE authority SET origin = 'files' WHERE kind = 'root'"))
        leaves = connection.execute(text('SELECT "index", leaf FROM log_leaf')).all()
        index, leaf = next((i, x) for i, x in leaves if row.id.encode() in x)
        connection.execute(
            text('UPDATE log_leaf SET leaf = :leaf WHERE "index" = :index'),
            {"leaf": leaf.replace(b'"origin":"own"', b'"origin":"files"'), "index": index},
        )

    with (
        offline_issuer(tmp_path / "issuer") as offline,
        pytest.raises(AuthorityDamaged, match="the log does not tell of a given root"),
    ):
        start_after(offline, tamper)


def test_what_the_issuer_made_itself_is_believed(offline: Offline) -> None:
    """Rolled over, retired, tainted, removed, and from before parents were written: it starts."""
    for kind in AuthorityKind:
        old = offline.replace(kind)
        offline.issuer.rollover.taint(old, "test", by=Local("test"))
        offline.reopen()
        offline.issuer.rollover.revoke(old, "test", by=Local("test"))
        offline.reopen()
    for _ in range(6):
        offline.clock.advance(hours=11)
        offline.issuer.keep_up()
        offline.reopen()
    start_after(offline, lambda c: c.execute(text("UPDATE authority SET parent = NULL")) and None)
    offline.agent()


def chain_of_three() -> list[tuple[x509.Certificate, ec.EllipticCurvePrivateKey]]:
    """Anchor, a CA below it, and one below that."""
    made: list[tuple[x509.Certificate, ec.EllipticCurvePrivateKey]] = []
    for number in range(3):
        key = generate_key()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"ca {number}")])
        above, signer = made[-1] if made else (None, key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(above.subject if above else name)
            .public_key(key.public_key())
            .serial_number(number + 1)
            .not_valid_before(NOW)
            .not_valid_after(NOW.replace(year=NOW.year + 1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        made.append((builder.sign(signer, hashes.SHA256()), key))
    return made


def stored(certificate: x509.Certificate, name: str, **changes: Any) -> Stored:
    """A row, as it is read."""
    values: dict[str, Any] = {
        "id": name,
        "public": certificate.public_key(),
        "certificate": certificate,
        "chain": (),
        "parent": None,
        "is_given": True,
        **changes,
    }
    return Stored(**values)


def test_a_given_root_is_believed_with_what_is_above_it() -> None:
    """Its chain leads to the anchor, and so does that of an issuing CA below; not another's."""
    (anchor, _), (given, _), (issuing, _) = chain_of_three()
    (stranger, _), (other, _), _ = chain_of_three()
    root = stored(given, "r", chain=(anchor,))
    below = stored(issuing, "i", parent="r", chain=(given,))
    check_certified([root, below], {"r": root})
    followed = stored(anchor, "a")  # of a parent issuer the anchor itself is the row
    check_certified([followed, stored(issuing, "i", parent="a", chain=(given,))], {"a": followed})
    for wrong in (stored(given, "r", chain=(stranger,)), stored(other, "r", chain=(anchor,))):
        with pytest.raises(AuthorityDamaged, match="did not sign"):
            check_certified([wrong], {"r": wrong})
    for chain in ((), (other,), (anchor,)):
        with pytest.raises(AuthorityDamaged, match="did not sign"):
            check_certified([stored(issuing, "i", parent="r", chain=chain)], {"r": root})
