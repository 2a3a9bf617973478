"""Token Status Lists: the draft's own vectors, and what a verifier makes of a list."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.authority import NOW, Authority
from support.tokens import claims_in, forge

from accredit_credentials import status_list, task_token
from accredit_credentials.errors import (
    CredentialError,
    Expired,
    InvalidStatusList,
    InvalidToken,
    Revoked,
    Stale,
    UnknownAuthority,
    Untrusted,
)
from accredit_credentials.jwt_svid import AgentBlock
from accredit_credentials.keys import b64url, generate_key
from accredit_credentials.status_list import (
    MAX_INDEX,
    MAX_OCTETS,
    StatusList,
    StatusListToken,
    StatusReference,
)
from accredit_credentials.task_token import BEARER, Grant, Task, TaskToken

ISSUER = "https://issuer.example"
URI = "https://issuer.example/v1/status-lists/5f3a"
Changed = Callable[..., str]

# draft-ietf-oauth-status-list-21 §4.1 and §4.2: the two examples.
ONE_BIT = dict(enumerate([1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]))
TWO_BITS = dict(enumerate([1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]))
# The same, Appendix C.1 and C.2: 2^20 statuses, of which these are not 0.
PLACES = (0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345)
LONG_ONE_BIT = dict.fromkeys(PLACES, 1)
LONG_TWO_BITS = dict(zip(PLACES, (1, 2, 1, 3, 1, 1, 2, 1, 1, 2, 3), strict=True))
LONG_ONE_BIT_LST = (
    "eNrt3AENwCAMAEGogklACtKQPg9LugC9k_ACvreiogEAAKkeCQAAAAAAAAAAAAAAAAAAAIBylgQAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAXG9IAAAAAAAAAPwsJAAAAAAAAAAAAAAAvhsSAAAAAAAAAAAA7KpLAAAAAAAA"
    "AAAAAAAAAAAAAJsLCQAAAAAAAAAAADjelAAAAAAAAAAAKjDMAQAAAACAZC8L2AEb"
)
LONG_TWO_BITS_LST = (
    "eNrt2zENACEQAEEuoaBABP5VIO01fCjIHTMStt9ovGVIAAAAAABAbiEBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAEB5WwIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAID0ugQAAAAAAAAAAAAAAAAAQG12SgAAAAAAAAAAAAAAAAAAAAAAAAAAAOCSIQ"
    "EAAAAAAAAAAAAAAAAAAAAAAAD8ExIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAwJEuAQAAAAAAAAAAAAAA"
    "AAAAAAAAAMB9SwIAAAAAAAAAAAAAAAAAAACoYUoAAAAAAAAAAAAAAEBqH81gAQw"
)
VECTORS = [
    pytest.param(1, 16, ONE_BIT, "eNrbuRgAAhcBXQ", id="4.1, 1 bit"),
    pytest.param(2, 12, TWO_BITS, "eNo76fITAAPfAgc", id="4.1, 2 bits"),
    pytest.param(1, 2**20, LONG_ONE_BIT, LONG_ONE_BIT_LST, id="C.1"),
    pytest.param(2, 2**20, LONG_TWO_BITS, LONG_TWO_BITS_LST, id="C.2"),
]


@pytest.mark.parametrize(("bits", "size", "values", "text"), VECTORS)
def test_the_drafts_lists_are_read(bits: int, size: int, values: dict[int, int], text: str) -> None:
    """Each list of the draft has its length, the values it says, and 0 beside them."""
    read = StatusList.of_claim({"bits": bits, "lst": text})
    assert read.size == size
    for index in {*values, *(index + 1 for index in values if index + 1 < size)}:
        assert read.value(index) == values.get(index, 0)


@pytest.mark.parametrize(("bits", "size", "values", "text"), VECTORS)
def test_the_drafts_lists_are_written(
    bits: int, size: int, values: dict[int, int], text: str
) -> None:
    """Each list of the draft is what we make of its values, to the last character."""
    made = StatusList.of_values(values, size=size, bits=bits)
    assert made.to_claim() == {"bits": bits, "lst": text}


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_what_was_put_is_read(bits: int, data: st.DataObject) -> None:
    """Of any size and values: written and read again, each index has its own, and no other."""
    size = data.draw(st.integers(1, 300))
    values = data.draw(
        st.dictionaries(st.integers(0, size - 1), st.integers(0, 2**bits - 1), max_size=40)
    )
    read = StatusList.of_claim(StatusList.of_values(values, size=size, bits=bits).to_claim())
    assert [read.value(index) for index in range(size)] == [values.get(i, 0) for i in range(size)]


@pytest.mark.parametrize("index", [-1, 12, 2**40])
def test_an_index_outside_of_the_list_is_an_error(index: int) -> None:
    """It has no status, least of all a valid one; neither reading nor writing takes another's."""
    short = StatusList.of_values({}, size=12, bits=2)
    with pytest.raises(InvalidStatusList, match="no index"):
        short.value(index)
    with pytest.raises(InvalidStatusList, match="no index"):
        status_list.put(bytearray(3), index, 1, bits=2)


@pytest.mark.parametrize("value", [-1, 4])
def test_a_value_that_does_not_fit_is_refused(value: int) -> None:
    """It would run over into its neighbour."""
    with pytest.raises(InvalidStatusList, match="does not fit"):
        StatusList.of_values({3: value}, size=12, bits=2)


def packed(octets: bytes) -> str:
    """A list of these octets."""
    return b64url(zlib.compress(octets))


BAD = {
    "no object": "eNo76fITAAPfAgc",
    "no bits": {"lst": packed(b"a")},
    "three bits": {"bits": 3, "lst": packed(b"abc")},
    "no number of bits": {"bits": True, "lst": packed(b"a")},
    "bits in text": {"bits": "2", "lst": packed(b"a")},
    "no list": {"bits": 2},
    "a list of numbers": {"bits": 2, "lst": [1, 2]},
    "padded": {"bits": 2, "lst": "eNo76fITAAPfAgc="},
    "not compressed": {"bits": 2, "lst": b64url(b"abc")},
    "deflate without its frame": {"bits": 2, "lst": b64url(zlib.compress(b"abc")[2:-4])},
    "cut": {"bits": 2, "lst": b64url(zlib.compress(b"abcdefgh" * 9)[:-3])},
    "more behind it": {"bits": 2, "lst": b64url(zlib.compress(b"abc") + b"x")},
    "another checksum": {"bits": 2, "lst": b64url(zlib.compress(b"abc")[:-1] + b"\0")},
    "empty": {"bits": 2, "lst": packed(b"")},
    "one octet too many": {"bits": 2, "lst": packed(bytes(MAX_OCTETS + 1))},
    "a bomb": {"bits": 1, "lst": packed(bytes(64 * MAX_OCTETS))},
}


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in BAD.items()])
def test_what_is_no_list_is_refused(value: object) -> None:
    """Another form, damaged data, and what would unpack to more than a list may have."""
    with pytest.raises(InvalidStatusList):
        StatusList.of_claim(value)


def test_the_longest_list_is_read() -> None:
    """The bound itself is a list; members that nobody knows change nothing (§4.2)."""
    value = {"bits": 8, "lst": packed(bytes(MAX_OCTETS)), "aggregation_uri": "x", "more": [1]}
    assert StatusList.of_claim(value).size == MAX_OCTETS


def a_list(**changes: Any) -> StatusListToken:
    """A good list: index 1 is invalid, 2 suspended, 3 something of somebody's own."""
    good = StatusListToken(
        issuer=ISSUER,
        uri=URI,
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=1),
        ttl=30,
        statuses=StatusList.of_values({1: 1, 2: 2, 3: 3}, size=8, bits=2),
    )
    return replace(good, **changes)


def verify(text: str, authority: Authority, **changes: Any) -> StatusListToken:
    """Verify as who follows a token's reference, at the good time."""
    expected = {"bundle": authority.bundle, "issuer": ISSUER, "uri": URI, "now": NOW}
    return status_list.verify(text, **{**expected, **changes})


@pytest.fixture
def changed(authority: Authority) -> Changed:
    """Signs the good list again, with some claims changed; None removes one."""
    good = claims_in(status_list.sign(a_list(), authority.jwt_key, authority.kid))

    def change(typ: str = "statuslist+jwt", **claims: object) -> str:
        kept = {k: v for k, v in {**good, **claims}.items() if v is not None}
        header = {"alg": "ES256", "kid": authority.kid, "typ": typ}
        return forge(header, kept, authority.jwt_key)

    return change


def test_a_signed_list_is_verified(authority: Authority, changed: Changed) -> None:
    """What was signed is what is read; claims that nobody knows are passed over (§5.1)."""
    text = status_list.sign(a_list(), authority.jwt_key, authority.kid)
    assert verify(text, authority) == a_list()
    assert verify(changed(more={"a": 1}, nbf=5), authority) == a_list()


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"iss": None}, InvalidToken),
        ({"iss": "https://other.example"}, Untrusted),
        ({"sub": None}, InvalidToken),
        ({"sub": f"{URI}/"}, Untrusted),
        ({"iat": None}, InvalidToken),
        ({"exp": None}, InvalidToken),
        ({"exp": int(NOW.timestamp())}, Expired),
        ({"iat": int(NOW.timestamp()) + 30}, Expired),
        ({"nbf": int(NOW.timestamp()) + 30}, Expired),
        ({"ttl": None}, InvalidStatusList),
        ({"ttl": 0}, InvalidStatusList),
        ({"ttl": -1}, InvalidStatusList),
        ({"ttl": True}, InvalidStatusList),
        ({"ttl": "30"}, InvalidStatusList),
        ({"status_list": None}, InvalidStatusList),
        ({"status_list": {"bits": 2, "lst": packed(bytes(8 * MAX_OCTETS))}}, InvalidStatusList),
        ({"typ": "JWT"}, InvalidToken),
        ({"typ": "at+jwt"}, InvalidToken),
        ({"typ": "application/statuslist+jwt"}, InvalidToken),
    ],
)
def test_a_list_with_one_thing_wrong_is_refused(
    changed: Changed, authority: Authority, claims: dict[str, Any], error: type[CredentialError]
) -> None:
    """Each claim that decides something decides, and the good list beside it is accepted."""
    with pytest.raises(error):
        verify(changed(**claims), authority)
    assert verify(changed(), authority) == a_list()


def test_a_list_of_another_key_is_refused(authority: Authority) -> None:
    """Neither a key that the bundle has not, nor one that takes the name of one it has."""
    foreign = generate_key()
    with pytest.raises(Untrusted):
        verify(status_list.sign(a_list(), foreign, authority.kid), authority)
    with pytest.raises(UnknownAuthority):
        verify(status_list.sign(a_list(), foreign, "other"), authority)


def test_a_list_too_large_is_not_even_parsed(authority: Authority) -> None:
    """The limit is on the text, before anything of it is looked at."""
    with pytest.raises(InvalidToken, match="the limit is"):
        verify("e" * (status_list.MAX_TOKEN_CHARS + 1), authority)


def test_a_valid_index_is_accepted() -> None:
    """Up to the last moment of the list."""
    last = a_list().expires_at - timedelta(microseconds=1)
    for now in (NOW, last):
        status_list.check(StatusReference(0, URI), a_list(), now=now)


@pytest.mark.parametrize(
    ("index", "says"), [(1, "invalid"), (2, "suspended"), (3, "3, which is not valid")]
)
def test_anything_but_valid_is_refused(index: int, says: str) -> None:
    """Invalid, suspended, and values whose meaning we do not know."""
    with pytest.raises(Revoked, match=f"status is {says}$"):
        status_list.check(StatusReference(index, URI), a_list(), now=NOW)


@pytest.mark.parametrize(
    ("reference", "known", "seconds", "error"),
    [
        (StatusReference(0, URI), None, 0, Stale),
        (StatusReference(0, URI), a_list(), 60, Stale),
        (StatusReference(0, URI), a_list(), -11, Stale),
        (StatusReference(0, f"{URI}0"), a_list(), 0, Untrusted),
        (StatusReference(8, URI), a_list(), 0, InvalidStatusList),
    ],
    ids=["no list", "over", "of the future", "another list", "out of range"],
)
def test_who_does_not_know_refuses(
    reference: StatusReference,
    known: StatusListToken | None,
    seconds: int,
    error: type[CredentialError],
) -> None:
    """Without a list, with one that is over, with another, and beyond its end."""
    with pytest.raises(error):
        status_list.check(reference, known, now=NOW + timedelta(seconds=seconds))


def a_token(authority: Authority, **changes: Any) -> TaskToken:
    """A task token, to be signed."""
    good = TaskToken(
        issuer=ISSUER,
        principal=str(authority.id()),
        client=authority.id(),
        audience="https://a.example",
        jti="1",
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        grants=(Grant(resource="a", location="https://a.example", actions=("read",)),),
        task=Task(id="1", purpose="x"),
        agent=AgentBlock(version="1", instance="1", manifest="1", assurance="self"),
        binding=BEARER,
    )
    return replace(good, **changes)


def accepted(text: str, authority: Authority) -> TaskToken:
    """What its resource server makes of it."""
    return task_token.verify(
        text, bundle=authority.bundle, issuer=ISSUER, audience="https://a.example", now=NOW
    )


def test_a_task_token_says_where_its_status_is(authority: Authority) -> None:
    """The claim has the draft's form and comes back; without one there is no claim."""
    token = a_token(authority, status=StatusReference(4711, URI))
    text = task_token.sign(token, authority.jwt_key, authority.kid)
    assert claims_in(text)["status"] == {"status_list": {"idx": 4711, "uri": URI}}
    assert accepted(text, authority).status == token.status
    without = task_token.sign(a_token(authority), authority.jwt_key, authority.kid)
    assert "status" not in claims_in(without)
    assert accepted(without, authority).status is None


@pytest.mark.parametrize("status", [{}, {"other": {"a": 1}}])
def test_another_mechanism_is_none_of_ours(authority: Authority, status: object) -> None:
    """A status without a list is no reference (§6.1 leaves room for others)."""
    claims = {**task_token.claims_of(a_token(authority)), "status": status}
    header = {"alg": "ES256", "kid": authority.kid, "typ": "at+jwt"}
    assert accepted(forge(header, claims, authority.jwt_key), authority).status is None


@pytest.mark.parametrize(
    "status",
    [
        5,
        [],
        {"status_list": []},
        {"status_list": {"uri": URI}},
        {"status_list": {"idx": 1}},
        {"status_list": {"idx": -1, "uri": URI}},
        {"status_list": {"idx": MAX_INDEX + 1, "uri": URI}},
        {"status_list": {"idx": True, "uri": URI}},
        {"status_list": {"idx": 1.0, "uri": URI}},
        {"status_list": {"idx": "1", "uri": URI}},
        {"status_list": {"idx": 1, "uri": ""}},
        {"status_list": {"idx": 1, "uri": "u" * 2049}},
    ],
)
def test_a_reference_of_another_form_spoils_the_token(authority: Authority, status: object) -> None:
    """A token that says where its status is, and not where, is not accepted as if it did not."""
    claims = {**task_token.claims_of(a_token(authority)), "status": status}
    header = {"alg": "ES256", "kid": authority.kid, "typ": "at+jwt"}
    with pytest.raises(InvalidToken):
        accepted(forge(header, claims, authority.jwt_key), authority)
