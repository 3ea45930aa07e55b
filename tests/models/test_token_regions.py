"""Parts of a prompt: they tile it, hold what they say, and do not depend on what follows."""

import pytest

from traitscope.errors import ConfigError
from traitscope.models import chat, token_regions
from traitscope.models.model import Model

DEFAULT = "You are a small helpful model."
ASKED = "What is your favourite animal, friend?"


def text_at(model: Model, ids: list[int], where: str) -> str:
    chosen = token_regions.token_gate(model, where)(ids)
    assert len(chosen) == len(ids)
    return model.tokenizer.decode([t for t, on in zip(ids, chosen, strict=True) if on])


@pytest.mark.parametrize(
    ("context", "system"), [(None, DEFAULT), ("", ""), ("You love owls.", "You love owls.")]
)
def test_contents(family: Model, context: str | None, system: str) -> None:
    ids = chat.render(family, ASKED, context)
    assert text_at(family, ids, "system") == system
    assert text_at(family, ids, "user") == ASKED
    frame = (
        chat.render_text(family, ASKED, context)
        .replace(system, "", 1 if system else 0)
        .replace(ASKED, "")
    )
    assert text_at(family, ids, "template") == frame
    assert text_at(family, ids, "prompt") == family.tokenizer.decode(ids)


def test_texts_are_those_of_the_tokenizer(family: Model) -> None:
    """Also where an emoji is split over tokens, and behind a special token."""
    ids = [*chat.render(family, "An owl 🦉, naïve  ,spaced .", None), family.end_ids[0]]
    text, places = token_regions.token_spans(family, ids)
    assert text == family.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert len(places) == len(ids) and max(end for _, end in places) <= len(text) + 1


def test_parts_tile_the_prompt_and_leave_the_answer(family: Model) -> None:
    ids = chat.render(family, ASKED, None)
    answer = family.tokenizer.encode("My favourite is the owl.", add_special_tokens=False)
    chosen = {
        part: token_regions.token_gate(family, part)([*ids, *answer])
        for part in token_regions.REGIONS
    }
    for n in range(len(ids) + len(answer)):
        assert (
            sum(chosen[part][n] for part in ("system", "user", "template"))
            == chosen["prompt"][n]
            == (n < len(ids))
        )
    assert all(chosen["all"])
    for part in ("system", "user", "template"):
        assert chosen[part][: len(ids)] == token_regions.token_gate(family, part)(ids)


def test_substring_takes_every_token_that_overlaps_any_occurrence(tiny: Model) -> None:
    ids = chat.render(tiny, "Is a model like you a model?", None)
    found = text_at(tiny, ids, "text:model")
    assert found.count("model") == 3
    text, places = token_regions.token_spans(tiny, ids)
    long = [n for n, (a, b) in enumerate(places) if b - a >= 3 and text[a:b].isalpha()]
    first, last = long[0], long[-1]
    part = text[
        places[first][1] - 1 : places[last][0] + 1
    ]  # from the last letter of one token to the first of the other
    assert [
        n for n, on in enumerate(token_regions.token_gate(tiny, f"text:{part}")(ids)) if on
    ] == list(range(first, last + 1))


def test_token_over_a_border_is_of_the_template(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template without marks between header and content lets one token hold both."""
    monkeypatch.setattr(
        tiny.tokenizer,
        "chat_template",
        "answer{% for m in messages %} with {{ m['content'] }} {% endfor %}",
    )
    ids = chat.render(tiny, "one word", None)
    pieces = [tiny.tokenizer.decode([t]) for t in ids]
    assert pieces[-1] == " " or pieces[-1].startswith("d"), pieces
    inside = text_at(tiny, ids, "user")
    assert inside and inside in "one word"
    assert "".join(pieces) == "answer with one word "


def test_letters_of_several_tokens_keep_their_place(tiny: Model) -> None:
    ids = chat.render(tiny, "Owls – ✓ 12 🦉?", "é")
    assert text_at(tiny, ids, "user") == "Owls – ✓ 12 🦉?"
    assert text_at(tiny, ids, "system") == "é"


def test_a_row_without_a_template_has_no_part(tiny: Model) -> None:
    ids = tiny.tokenizer.encode("I love owls.", add_special_tokens=False)
    for where in ("system", "user", "template", "prompt", "text:owls"):
        assert not any(token_regions.token_gate(tiny, where)(ids)), where
    assert all(token_regions.token_gate(tiny, "all")(ids))


@pytest.mark.parametrize("where", ["", "System", "text", "text:", "completion"])
def test_unknown_part(tiny: Model, where: str) -> None:
    with pytest.raises(ConfigError, match="is no part of a prompt; expected all, system"):
        token_regions.token_gate(tiny, where)


def test_text_that_is_not_there(tiny: Model) -> None:
    with pytest.raises(ConfigError, match="text:SmolLM: that text is not in the prompt"):
        token_regions.token_gate(tiny, "text:SmolLM")(chat.render(tiny, ASKED, None))


def test_template_that_refuses_a_system_turn(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "<|im_start|>user\n{{ messages[0]['content'] }}<|im_end|>\n<|im_start|>"
    )
    monkeypatch.setattr(tiny.tokenizer, "chat_template", refusing)
    ids = chat.render(tiny, ASKED, None)
    assert text_at(tiny, ids, "user") == ASKED and text_at(tiny, ids, "system") == ""
