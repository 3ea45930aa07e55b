"""YAML and JSON of others: plain values come out, and everything else is one error."""

import random
import string

import pytest

from traitscope.plain_values import NotPlainError, from_json, from_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, null, true]", {"a": 1, "b": ["x", 2.5, None, True]}),
        ("'2024-01-01'", "2024-01-01"),
        ('{"a": [1, {"b": "é"}]}', {"a": [1, {"b": "é"}]}),
        ("", None),
    ],
)
def test_plain_yaml(text: str, value: object) -> None:
    assert from_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 2024-01-01", "2024-01-01 is a date; put it in quotes"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: 2024-01-01 10:00:00", "is a date"),
        ("a: !!bool maybe", "a tag.*does not fit its value .*maybe"),
        ("a: !!timestamp foo", "a tag.*does not fit its value"),
        ("a: !!binary YQ==", "is a bytes"),
        ("a: !!set {x, y}", "is a set"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!int x", "invalid literal"),
        ("? [1, 2]\n: x", "unhashable"),
        ("a: [", "expected"),
        ("a: *b", "undefined alias"),
        ("&a [*a]", "nested too deep"),
        ("[" * 20000, "."),
    ],
)
def test_yaml_that_is_not_plain(text: str, says: str) -> None:
    with pytest.raises(NotPlainError, match=says) as raised:
        from_yaml(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r'{"a": "\ud800"}', "half of a character"),
        (rb'{"\uDC00": 1}', "half of a character"),
        ('{"a": NaN}', "NaN is not a JSON value"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "digit"),
        ('{"a": 1', "Expecting"),
        (b"\xff\xfe\x00", "codec"),
    ],
)
def test_json_that_is_not_plain(text: str | bytes, says: str) -> None:
    with pytest.raises(NotPlainError, match=says):
        from_json(text)


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert from_json(r'{"a": "\ud83e\udd89"}') == {"a": "🦉"}


def test_whatever_the_text_nothing_else_is_raised() -> None:
    rng = random.Random(0)
    parts = [*string.printable, "!!", "!!bool ", "!!int ", "!!float ", "!!timestamp ", "!!map "]
    parts += [
        "- ",
        ": ",
        "? ",
        "&a ",
        "*a ",
        "<<: ",
        "2024-02-30",
        "\\ud800",
        "\x85",
        "é",
        "'",
        '"',
    ]
    refused = 0
    for _ in range(3000):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 20)))
        for read in (from_yaml, from_json):
            try:
                read(text)
            except NotPlainError:
                refused += 1
    assert 3000 < refused < 6000
