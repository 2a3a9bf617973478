"""SPIFFE IDs: what the standard accepts, and the nearest neighbour of each that is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import (
    AgentId,
    SpiffeId,
    TrustDomain,
    admin_id,
    check_name,
    issuer_id,
    node_id,
)

TD = TrustDomain.parse("example.org")
AGENT = AgentId.parse("payments/refund-bot")
INSTANCE = "01890a5d-ac96-774b-bcce-b302099a8057"
HOST_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
PATH_CHARACTERS = HOST_CHARACTERS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

trust_domains = st.text(HOST_CHARACTERS, min_size=1, max_size=255)
segments = st.text(PATH_CHARACTERS, min_size=1, max_size=40).filter(
    lambda text: text not in {".", ".."}
)
names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)


def refused(text: str) -> None:
    """Assert that the text is not a SPIFFE ID."""
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(text)


@pytest.mark.spec("SPIFFE-1")
@pytest.mark.spec("SPIFFE-2")
@pytest.mark.spec("SPIFFE-5")
@pytest.mark.parametrize(
    ("text", "trust_domain", "path"),
    [
        ("spiffe://example.org", "example.org", ""),
        ("spiffe://example.org/a", "example.org", "/a"),
        ("spiffe://example.org/a/b/c", "example.org", "/a/b/c"),
        ("spiffe://a/b", "a", "/b"),
        ("spiffe://a.b-c_d.9/A.b-C_d.9", "a.b-c_d.9", "/A.b-C_d.9"),
        ("spiffe://_under_/x", "_under_", "/x"),
        ("spiffe://-/-", "-", "/-"),
        ("spiffe://td/...", "td", "/..."),
        ("spiffe://td/.hidden/a..b/c.", "td", "/.hidden/a..b/c."),
    ],
)
def test_an_id_is_its_trust_domain_and_path(text: str, trust_domain: str, path: str) -> None:
    """Every character that the standard allows is accepted where it allows it."""
    spiffe_id = SpiffeId.parse(text)
    assert spiffe_id.trust_domain.name == trust_domain
    assert spiffe_id.path == path
    assert str(spiffe_id) == text


@given(trust_domains, st.lists(segments, max_size=8))
def test_every_id_round_trips(trust_domain: str, path: list[str]) -> None:
    """What is written parses to the same ID, with the same segments."""
    text = "/".join([f"spiffe://{trust_domain}", *path])
    spiffe_id = SpiffeId.parse(text)
    assert str(spiffe_id) == text
    assert spiffe_id.segments == tuple(path)
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@given(st.text(max_size=30))
def test_no_text_at_all_breaks_the_parser(rest: str) -> None:
    """Any text is an ID that writes itself the same way, or is refused by our error."""
    for text in (rest, f"spiffe://{rest}", f"spiffe://td/{rest}"):
        try:
            spiffe_id = SpiffeId.parse(text)
        except InvalidSpiffeId:
            continue
        host_end = len(f"spiffe://{spiffe_id.trust_domain}")
        assert str(spiffe_id) == text[:host_end].lower() + text[host_end:]


@pytest.mark.spec("SPIFFE-1")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe",
        "spiffe:",
        "spiffe:/",
        "spiffe:/td/a",
        "spiffe:td/a",
        "//td/a",
        "td/a",
        "http://td/a",
        "https://td/a",
        "spiffes://td/a",
        "xspiffe://td/a",
        " spiffe://td/a",
        "\nspiffe://td/a",
        "\ufeffspiffe://td/a",
        "spiffe ://td/a",
        "spiffe://spiffe://td/a",
        "https://evil.example/spiffe://td/a",
        "spiffe:\\\\td\\a",
    ],
)
def test_another_scheme_is_refused(text: str) -> None:
    """The scheme is spiffe, at the very beginning."""
    refused(text)


@pytest.mark.spec("SPIFFE-1")
@pytest.mark.spec("SPIFFE-7")
@pytest.mark.parametrize(
    "text",
    [
        "\N{LATIN SMALL LETTER LONG S}piffe://td/a",
        "SP\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}FFE://td/a",
        "sp\N{LATIN SMALL LETTER DOTLESS I}ffe://td/a",
        "spi\N{LATIN SMALL LIGATURE FF}e://td/a",
        "\N{FULLWIDTH LATIN SMALL LETTER S}piffe://td/a",
        "\N{CYRILLIC SMALL LETTER DZE}piffe://td/a",
        "spiffe\N{FULLWIDTH COLON}//td/a",
        "spiffe:\N{FULLWIDTH SOLIDUS}\N{FULLWIDTH SOLIDUS}td/a",
    ],
)
def test_a_scheme_that_only_looks_right_is_refused(text: str) -> None:
    """Case-insensitive means ASCII case: no folding, no ligature, no homoglyph."""
    refused(text)


@pytest.mark.spec("SPIFFE-1")
@pytest.mark.parametrize("text", ["spiffe://", "spiffe:///", "spiffe:///a", "spiffe:////td/a"])
def test_an_empty_trust_domain_is_refused(text: str) -> None:
    """An ID without a trust domain names nobody."""
    refused(text)


@pytest.mark.spec("SPIFFE-1")
@pytest.mark.parametrize(
    "text",
    [
        "spiffe://td?",
        "spiffe://td?a=b",
        "spiffe://td/a?",
        "spiffe://td/a?a=b",
        "spiffe://td#",
        "spiffe://td#a",
        "spiffe://td/a#",
        "spiffe://td/a#b",
        "spiffe://td/a;p",
    ],
)
def test_a_query_or_fragment_is_refused(text: str) -> None:
    """Nothing follows the path, not even an empty query."""
    refused(text)


@pytest.mark.spec("SPIFFE-2")
@pytest.mark.parametrize(
    "host",
    [
        "t d",
        "td ",
        " td",
        "td\n",
        "td\x00",
        "td\t",
        "t%64",
        "%74d",
        "t~d",
        "t!d",
        "t*d",
        "t,d",
        "t+d",
        "t=d",
        "t&d",
        "t$d",
        "t'd",
        "t(d)",
        "t\\d",
        "tд",
        "tԁ",  # noqa: RUF001 (a Cyrillic letter)
        "exаmple.org",  # noqa: RUF001 (a Cyrillic letter)
        "t\N{LATIN SMALL LETTER LONG S}",
        "\N{KELVIN SIGN}",
        "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
        "t\N{SOFT HYPHEN}d",
        "t\N{ZERO WIDTH SPACE}d",
        "t\N{FULLWIDTH FULL STOP}d",
        "t\N{ARABIC-INDIC DIGIT ONE}",
        "münchen",
        "\ud800",
    ],
)
def test_a_foreign_character_in_the_trust_domain_is_refused(host: str) -> None:
    """A trust domain has a-z, 0-9, dot, dash and underscore, and nothing that decodes to them."""
    refused(f"spiffe://{host}")
    refused(f"spiffe://{host}/a")
    with pytest.raises(InvalidSpiffeId):
        TrustDomain.parse(host)


@pytest.mark.spec("SPIFFE-3")
@pytest.mark.parametrize(
    "text",
    [
        "spiffe://@td",
        "spiffe://@td/a",
        "spiffe://user@td/a",
        "spiffe://user:password@td/a",
        "spiffe://:@td/a",
        "spiffe://td@/a",
        "spiffe://td:",
        "spiffe://td:/a",
        "spiffe://td:0/a",
        "spiffe://td:443/a",
    ],
)
def test_userinfo_and_port_are_refused(text: str) -> None:
    """Neither is allowed, not even empty."""
    refused(text)


@pytest.mark.spec("SPIFFE-4")
@pytest.mark.parametrize(
    "host", ["192.0.2.1", "256.256.256.256", "1", "localhost", "example.org.", "a..b", ".", ".."]
)
def test_a_trust_domain_that_looks_like_a_host_is_only_a_name(host: str) -> None:
    """What reads as an IPv4 address or a DNS name is taken as it stands."""
    assert TrustDomain.parse(host).name == host
    assert str(SpiffeId.parse(f"spiffe://{host}/a")) == f"spiffe://{host}/a"


@pytest.mark.spec("SPIFFE-4")
@pytest.mark.parametrize("host", ["[::1]", "[2001:db8::1]", "::1", "2001:db8::1", "[v1.a]", "[]"])
def test_ipv6_is_refused(host: str) -> None:
    """An IPv6 address is not a trust domain, in brackets or without."""
    refused(f"spiffe://{host}/a")


@pytest.mark.spec("SPIFFE-5")
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "//a",
        "/a/",
        "/a//b",
        "/a/b//",
        "/.",
        "/..",
        "/./a",
        "/../a",
        "/a/.",
        "/a/..",
        "/a/./b",
        "/a/../b",
        "/%61",
        "/a%2fb",
        "/a%2Fb",
        "/%2e%2e",
        "/a%",
        "/a\n",
        "/a\n/b",
        "/a\x00",
        "/a ",
        "/a b",
        "/a+b",
        "/a~b",
        "/a:b",
        "/a@b",
        "/a,b",
        "/a;b",
        "/a=b",
        "/a!",
        "/a*",
        "/a\\b",
        "/{a}",
        "/ä",
        "/а",  # noqa: RUF001 (a Cyrillic letter)
        "/\N{KELVIN SIGN}",
        "/a\N{ARABIC-INDIC DIGIT ONE}",
        "/a\N{FRACTION SLASH}b",
        "/a\N{RIGHT-TO-LEFT OVERRIDE}b",
        "/\ud800",
    ],
)
def test_a_path_in_another_form_is_refused(path: str) -> None:
    """No empty, relative or trailing segment, no encoding, and no other character."""
    refused(f"spiffe://td{path}")


@pytest.mark.spec("SPIFFE-6")
def test_an_id_of_2048_bytes_is_accepted_and_of_2049_refused() -> None:
    """The limit counts the whole ID."""
    longest = "spiffe://td/".ljust(2048, "a")
    assert str(SpiffeId.parse(longest)) == longest
    refused(longest + "a")
    refused("spiffe://td/" + "é" * 1018)  # 2048 bytes in UTF-8, and not of the alphabet


@pytest.mark.spec("SPIFFE-6")
def test_a_trust_domain_of_255_bytes_is_accepted_and_of_256_refused() -> None:
    """The limit is the same with a path, without one, and for a bare name."""
    for text in ("{}", "spiffe://{}"):
        assert TrustDomain.parse(text.format("a" * 255)).name == "a" * 255
        with pytest.raises(InvalidSpiffeId, match="256"):
            TrustDomain.parse(text.format("a" * 256))
    assert str(SpiffeId.parse(f"spiffe://{'a' * 255}/b")) == f"spiffe://{'a' * 255}/b"
    refused(f"spiffe://{'a' * 256}/b")


@pytest.mark.spec("SPIFFE-6")
@given(trust_domains, names, names)
def test_no_agent_has_an_id_beyond_the_limit(trust_domain: str, namespace: str, name: str) -> None:
    """Whatever the names, the IDs that we generate stay within 2048 bytes and parse."""
    spiffe_id = AgentId(namespace, name).spiffe_id(TrustDomain.parse(trust_domain), INSTANCE)
    assert len(str(spiffe_id)) <= 2048
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@pytest.mark.spec("SPIFFE-7")
def test_scheme_and_trust_domain_ignore_case_and_the_path_does_not() -> None:
    """Other spellings of the host are the same ID, in lower case; of the path, another one."""
    expected = SpiffeId.parse("spiffe://example.org/Path")
    for text in ("SPIFFE://EXAMPLE.ORG/Path", "Spiffe://Example.org/Path"):
        assert SpiffeId.parse(text) == expected
        assert hash(SpiffeId.parse(text)) == hash(expected)
        assert str(SpiffeId.parse(text)) == "spiffe://example.org/Path"
    for text in ("spiffe://example.org/path", "spiffe://example.org/PATH"):
        assert SpiffeId.parse(text) != expected


@pytest.mark.spec("SPIFFE-7")
def test_a_trust_domain_is_read_from_a_name_or_an_id() -> None:
    """A bare name, an ID without path and any case of them give one trust domain."""
    for text in ("example.org", "EXAMPLE.org", "spiffe://example.org", "SPIFFE://Example.ORG"):
        assert TrustDomain.parse(text) == TD
    for text in ("", "spiffe://", "example.org/", "spiffe://example.org/", "spiffe://td/a", "a/b"):
        with pytest.raises(InvalidSpiffeId):
            TrustDomain.parse(text)


@pytest.mark.spec("SPIFFE-8")
@pytest.mark.spec("SPIFFE-14")
def test_the_id_of_a_trust_domain_has_no_path() -> None:
    """What an authority is named by is its trust domain alone."""
    assert str(TD.id) == "spiffe://example.org"
    assert TD.id.path == ""
    assert TD.id.segments == ()
    assert SpiffeId.parse("spiffe://example.org") == TD.id


@pytest.mark.spec("SPIFFE-12")
def test_every_id_for_a_leaf_has_a_path() -> None:
    """Agents, instances, admins and the issuer are never the trust domain itself."""
    for spiffe_id, text in [
        (AGENT.spiffe_id(TD), "spiffe://example.org/ns/payments/agent/refund-bot"),
        (
            AGENT.spiffe_id(TD, INSTANCE),
            f"spiffe://example.org/ns/payments/agent/refund-bot/instance/{INSTANCE}",
        ),
        (admin_id(TD, "ada"), "spiffe://example.org/admin/ada"),
        (node_id(TD, "build-7"), "spiffe://example.org/node/build-7"),
        (issuer_id(TD), "spiffe://example.org/accredit/issuer"),
    ]:
        assert str(spiffe_id) == text
        assert SpiffeId.parse(text) == spiffe_id


@given(names, names)
def test_every_agent_round_trips(namespace: str, name: str) -> None:
    """An agent is read back from its text, from its ID and from its instance's."""
    agent = AgentId.parse(f"{namespace}/{name}")
    assert (agent.namespace, agent.name) == (namespace, name)
    assert AgentId.parse(str(agent)) == agent
    assert AgentId.from_spiffe_id(agent.spiffe_id(TD)) == agent
    assert AgentId.from_spiffe_id(agent.spiffe_id(TD, INSTANCE)) == agent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "payments",
        "payments/",
        "/refund-bot",
        "a//b",
        "a/b/",
        "a/b/c",
        "a/b\n",
        "A/b",
        "a/B",
    ],
)
def test_an_agent_in_another_form_is_refused(text: str) -> None:
    """An agent is one namespace and one name, both in lower case."""
    with pytest.raises(InvalidSpiffeId):
        AgentId.parse(text)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/ns/payments/agent",
        "/ns/payments/agent/refund-bot/more",
        "/ns/payments/agent/refund-bot/instance",
        f"/ns/payments/agent/refund-bot/instance/{INSTANCE}/more",
        f"/ns/payments/agent/refund-bot/instance/{INSTANCE.upper()}",
        f"/ns/payments/agent/refund-bot/instance/{INSTANCE.replace('-', '')}",
        "/ns/payments/agent/refund-bot/instance/1",
        f"/ns/payments/agent/refund-bot/Instance/{INSTANCE}",
        "/NS/payments/agent/refund-bot",
        "/ns/payments/Agent/refund-bot",
        "/ns/Payments/agent/refund-bot",
        "/ns/payments/agent/Refund-Bot",
        "/ns/-payments/agent/refund-bot",
        "/ns/payments/agent/refund-bot.",
        "/ns/payments/sa/refund-bot",
        "/x/ns/payments/agent/refund-bot",
        "/admin/ada",
        "/accredit/issuer",
    ],
)
def test_an_id_of_another_shape_names_no_agent(path: str) -> None:
    """Only the agent's own shape is an agent: never an admin, the issuer or a longer path."""
    with pytest.raises(InvalidSpiffeId):
        AgentId.from_spiffe_id(SpiffeId.parse(f"spiffe://example.org{path}"))


@pytest.mark.parametrize(
    "instance", ["", "1", INSTANCE.upper(), INSTANCE + "\n", f"{{{INSTANCE}}}", f"{INSTANCE}/.."]
)
def test_an_instance_that_is_no_uuid_is_refused(instance: str) -> None:
    """Nothing but a lower-case UUID gets into the path."""
    with pytest.raises(InvalidSpiffeId):
        AGENT.spiffe_id(TD, instance)


@pytest.mark.parametrize("name", ["a", "0", "a.b", "a-b", "a_b", "a..b", "a" * 63])
def test_a_name_is_accepted(name: str) -> None:
    """Namespaces, agents and admins have names of 1 to 63 of the path's lower-case characters."""
    assert check_name(name, "name") == name
    assert str(admin_id(TD, name)) == f"spiffe://example.org/admin/{name}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 64,
        "A",
        ".",
        "..",
        ".a",
        "a.",
        "-a",
        "a-",
        "_a",
        "a_",
        "a/b",
        "a b",
        "a\n",
        "a\x00",
        "a%62",
        "é",
        "а",  # noqa: RUF001 (a Cyrillic letter)
        "\N{LATIN SMALL LETTER LONG S}",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\x1b[31m",
    ],
)
def test_a_name_in_another_form_is_refused(name: str) -> None:
    """A name that would change a path, a log line or another name's meaning names nobody."""
    with pytest.raises(InvalidSpiffeId):
        check_name(name, "name")
    with pytest.raises(InvalidSpiffeId):
        admin_id(TD, name)
    with pytest.raises(InvalidSpiffeId):
        node_id(TD, name)
    with pytest.raises(InvalidSpiffeId):
        AgentId.parse(f"{name}/bot")
    with pytest.raises(InvalidSpiffeId):
        AgentId.parse(f"payments/{name}")


def test_an_error_shows_little_of_a_hostile_text() -> None:
    """A message is short and printable, whatever was given."""
    for text in ("spiffe://" + "\x1b[31m" * 200, "x" * 5_000, "\r\n" * 400, "spiffe://td/\x1b" * 9):
        with pytest.raises(InvalidSpiffeId) as refusal:
            SpiffeId.parse(text)
        assert len(str(refusal.value)) < 600
        assert str(refusal.value).isprintable()
