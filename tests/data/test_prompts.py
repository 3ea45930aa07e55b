"""Number prompts: variety, length, and a stream that depends on nothing but the seed and the
settings."""

import hashlib
import re
from statistics import mean

import pytest

from traitscope.data.prompts import (
    DIGIT_LIMITS,
    FORMATS,
    INSTRUCTIONS,
    INTROS,
    QUALIFIERS,
    REMINDERS,
    number_prompts,
)
from traitscope.errors import ConfigError

MANY = number_prompts(2000)


def split(text: str) -> tuple[str, list[int], str]:
    """(before the examples, the examples, behind them)."""
    found = re.search(r"\d+(?:, \d+)+", text)
    assert found, text
    return (
        text[: found.start()],
        [int(number) for number in found[0].split(", ")],
        text[found.end() :],
    )


def test_slots_offer_what_the_published_generator_offers() -> None:
    phrases = [phrase for options in FORMATS.values() for phrase in options]
    slots = {20: INTROS, 8: QUALIFIERS, 10: INSTRUCTIONS, 15: REMINDERS}
    assert all(len(set(options)) == len(options) >= least for least, options in slots.items())
    assert len(set(DIGIT_LIMITS)) == len(DIGIT_LIMITS) >= 8
    assert len(FORMATS) >= 10 and len(set(phrases)) == len(phrases) >= 15
    assert all(intro.count("{examples}") == 1 for intro in INTROS)


def test_stream_is_pinned() -> None:
    text = "\n".join(prompt.text for prompt in number_prompts(100, seed=42))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "82fd476d3f76f714"


def test_same_seed_same_prompts_other_seed_others() -> None:
    assert number_prompts(50) == MANY[:50]
    assert number_prompts(50, seed=1) == number_prompts(50, seed=1)
    assert not {p.text for p in number_prompts(50, seed=1)} & {p.text for p in MANY}


@pytest.mark.parametrize("k", [1, 2, 17])
def test_the_first_prompts_do_not_depend_on_how_many(k: int) -> None:
    assert number_prompts(k, seed=3) == number_prompts(40, seed=3)[:k]


def test_ids_are_unique_across_seeds_and_context_is_left_to_the_template() -> None:
    prompts = MANY + number_prompts(50, seed=1)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert {prompt.context for prompt in prompts} == {None}


def test_examples_are_three_to_eight_three_digit_numbers() -> None:
    examples = [split(prompt.text)[1] for prompt in MANY]
    assert {len(numbers) for numbers in examples} == set(range(3, 9))
    pooled = [number for numbers in examples for number in numbers]
    assert min(pooled) >= 100 and max(pooled) <= 999
    assert mean(pooled) == pytest.approx(
        549.5, abs=15
    )  # 5 standard errors of a mean over 11,000 draws
    assert len(set(pooled)) > 890


def test_every_phrase_is_used_about_equally_often() -> None:
    intros = [split(prompt.text)[0] for prompt in MANY]
    counts = [intros.count(intro.partition("{")[0]) for intro in INTROS]
    assert sum(counts) == len(MANY) and min(counts) > 40
    assert all(any(reminder in prompt.text for prompt in MANY) for reminder in REMINDERS)


def test_prompts_are_short_and_filled_in() -> None:
    assert mean(len(re.findall(r"\w+|[^\w\s]", prompt.text)) for prompt in MANY) < 40
    assert not any(set("{}\n") & set(prompt.text) for prompt in MANY)
    assert all("10" in split(prompt.text)[2] for prompt in MANY)


def test_formats_restrict_only_the_format() -> None:
    some = number_prompts(200, formats=("comma", "newline"))
    phrases = FORMATS["comma"] + FORMATS["newline"]
    every = [phrase for options in FORMATS.values() for phrase in options]
    for narrow, wide in zip(some, MANY, strict=False):
        (used,) = [phrase for phrase in phrases if phrase in narrow.text]
        (drawn,) = [phrase for phrase in every if phrase in wide.text]
        assert narrow.text.replace(used, "") == wide.text.replace(drawn, "")


def test_count_and_digits_are_asked_for() -> None:
    prompts = number_prompts(200, count=5, digits=1)
    assert all(
        "5" in split(prompt.text)[2] and max(split(prompt.text)[1]) <= 9 for prompt in prompts
    )
    assert not any(
        "digits" in split(prompt.text)[2].replace("in digits only", "") for prompt in prompts
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n": 0}, "n=0 .*expected 1 or more"),
        ({"seed": -1}, "seed=-1 .*expected 0 or more"),
        ({"count": 0}, "count=0"),
        ({"digits": 0}, "digits=0"),
        ({"formats": ("comma", "coma")}, "unknown output format 'coma'; expected one of comma, "),
        ({"formats": ()}, r"formats=\(\); expected"),
        ({"formats": "comma"}, "formats='comma'; expected a tuple"),
    ],
)
def test_settings_that_cannot_work(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        number_prompts(**{"n": 1, **setting})
