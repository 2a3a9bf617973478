"""How much rests on an authority: told before it is revoked."""

from support.offline import Offline

from accredit_issuer.authority.lifecycle import AuthorityKind

LIFE = 3600


def resting(offline: Offline) -> dict[str, int]:
    """What the overview says of each authority."""
    return {each["id"]: each["resting"] for each in offline.issuer.rollover.overview()}


def test_what_has_not_expired_is_counted_by_its_authority(offline: Offline) -> None:
    """Certificates on their CA and its root, tokens on their key; what is over on none."""
    ids = {kind: offline.active(kind) for kind in AuthorityKind}
    assert {resting(offline)[each] for each in ids.values()} == {0}
    svid = offline.agent()
    offline.renew(svid)
    offline.task_token(svid)
    offline.wit(svid)
    told = {kind: resting(offline)[each] for kind, each in ids.items()}
    assert told == {
        AuthorityKind.ROOT: 2,
        AuthorityKind.X509: 2,
        AuthorityKind.JWT: 1,
        AuthorityKind.WIT: 1,
    }
    offline.replace(AuthorityKind.X509)
    new = offline.active(AuthorityKind.X509)
    offline.renew(svid)
    counted = resting(offline)
    assert (counted[new], counted[ids[AuthorityKind.X509]]) == (1, 2)
    assert counted[ids[AuthorityKind.ROOT]] == 3
    offline.clock.advance(seconds=LIFE)
    assert set(resting(offline).values()) == {0}


def test_counting_reads_the_index(offline: Offline) -> None:
    """What expired long ago costs nothing."""
    with offline.issuer.database.read() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT authority, count(*) FROM credential "
            "WHERE kind IN ('x509', 'jwt', 'task', 'ca') AND expires_at > '2026' GROUP BY authority"
        ).all()
    assert any("ix_credential_kind_expires_at (kind=? AND expires_at>?)" in row[3] for row in plan)
