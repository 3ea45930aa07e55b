"""YAML and JSON of others: plain values come out, and everything else is one error."""

import random
import string
import time

import pytest

from traitscope.plain_values import NotPlainError, from_json, from_yaml, shown


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
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice, again in line 3"),
        ('b: [{"a": 1, a: 1}]', "the key 'a' stands twice"),
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
        ('[{"b": 1, "a": 2, "b": 1}]', "the key 'b' stands twice"),
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


def bomb(levels: int, key: str = "") -> str:
    """Lists of ten aliases each, ten times as many values a level; they stand under a key."""
    lines = [f"{key}a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"{key}a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    """The same with `<<`, which copies what it merges."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {{<<: [{aliases}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(9), merge_bomb(9)], ids=["aliases", "merges"])
def test_a_small_text_that_stands_for_very_much_is_refused_at_once(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(NotPlainError, match="more than 100000 values"):
        from_yaml(text)
    assert time.monotonic() - started < 2


def test_a_key_may_stand_over_a_merged_one() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\nd: {<<: *b, y: 4}"
    assert from_yaml(text)["c"] == {"x": 3} and from_yaml(text)["d"] == {"x": 2, "y": 4}


def test_aliases_and_merges_that_stand_for_little_are_read() -> None:
    assert from_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
    assert from_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}")["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize("text", ["a: 0x" + "f" * 5000, "a: " + "9" * 4299], ids=["hex", "long"])
def test_an_integer_that_cannot_be_written_out_is_refused(text: str) -> None:
    with pytest.raises(NotPlainError, match="digits"):
        from_yaml(text)


def test_json_is_refused_where_later_code_would_go_too_deep() -> None:
    assert from_json("[" * 90 + "]" * 90) is not None
    with pytest.raises(NotPlainError, match="nested too deep"):
        from_json("[" * 200 + "]" * 200)
    wide = from_json("[" + "[]," * 5000 + "[]]")
    assert len(wide) == 5001


def test_a_message_shows_a_value_cut() -> None:
    assert shown("a" * 10) == "'" + "a" * 10 + "'"
    assert len(shown(["x"] * 1000)) < 100
