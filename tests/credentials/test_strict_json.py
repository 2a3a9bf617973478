"""JSON objects with one meaning."""

import pytest

from accredit_credentials.strict_json import NotStrictJson, parse_object


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        (' {"a": [1, 2.5, true, null, "x"]}\n', {"a": [1, 2.5, True, None, "x"]}),
        (b'{"a": "\xc3\xa9"}', {"a": "é"}),
        ('{"a": {"b": 1}, "b": {"b": 1}}', {"a": {"b": 1}, "b": {"b": 1}}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": "\\\\ud800"}', {"a": "\\ud800"}),
        ('{"a": 1e308}', {"a": 1e308}),
    ],
)
def test_an_object_with_one_meaning_is_read(text: str | bytes, value: object) -> None:
    """One JSON object, in text or UTF-8, is its value."""
    assert parse_object(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"a"',
        "null",
        "1",
        "{",
        "{}{}",
        "{} x",
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": 01}',
        '{"a": "\n"}',
        '\ufeff{"a": 1}',
        b"\xef\xbb\xbf{}",
        b"\xff",
        b'{"a": "\xed\xa0\x80"}',
        b"{\x00}",
        '{"a": 1, "a": 1}',
        '{"a": 1, "\\u0061": 2}',
        '{"a": {"b": 1, "b": 2}}',
        '{"a": [{"b": 1, "b": 2}]}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e400}',
        '{"a": -1e400}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
        b'{"a": "\\uDFFF"}',
        b'{"\\ud800": 1}',
        b'{"a": "\\ude00\\ud83d"}',
        '{"a": "\ud800"}',
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a": ' * 100_000 + "1" + "}" * 100_000,
    ],
)
def test_anything_else_is_refused(text: str | bytes) -> None:
    """What two parsers could read in two ways is refused with one kind of error."""
    with pytest.raises(NotStrictJson):
        parse_object(text)
