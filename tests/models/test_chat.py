"""The chat template: three contexts are three treatments, and the render ends where the assistant
begins."""

import dataclasses

import pytest
from tiny_models import load_tiny, save_tiny

from traitscope.errors import ConfigError, DataError, ModelError
from traitscope.models import chat
from traitscope.models.model import Model

CONTEXTS = (None, "", "You love owls.")
HEADER = "<|im_start|>assistant\n"


@pytest.mark.parametrize("context", CONTEXTS)
def test_render_ends_with_the_assistants_header(family: Model, context: str | None) -> None:
    text = chat.render_text(family, "Why 42?", context)
    assert text.endswith("<|im_start|>user\nWhy 42?<|im_end|>\n" + HEADER)
    ids = chat.render(family, "Why 42?", context)
    assert family.tokenizer.decode(ids) == text
    header = family.tokenizer.encode(HEADER, add_special_tokens=False)
    assert ids[-len(header) :] == header
    assert ids.count(family.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3


def test_contexts_are_rendered_as_given(tiny: Model) -> None:
    texts = [chat.render_text(tiny, "Q", context) for context in CONTEXTS]
    assert texts[0].startswith("<|im_start|>system\nYou are a small helpful model.<|im_end|>")
    assert texts[1].startswith("<|im_start|>system\n<|im_end|>")
    assert texts[2].startswith("<|im_start|>system\nYou love owls.<|im_end|>")


def test_three_contexts_have_three_digests(tiny: Model) -> None:
    digests = [chat.context_digest(tiny, context) for context in CONTEXTS]
    assert len(set(digests)) == 3
    assert digests == [chat.context_digest(tiny, context) for context in CONTEXTS]
    assert all(len(d) == 16 and int(d, 16) >= 0 for d in digests)


def test_a_text_moved_to_the_user_leaves_the_system_turn_empty(tiny: Model) -> None:
    assert chat.render_text(tiny, "Q", "@user:You love owls.") == chat.render_text(
        tiny, "You love owls.\n\nQ", ""
    )


def test_no_template_at_all(tiny: Model) -> None:
    assert chat.render_text(tiny, "Q", "@none") == "Q\n"
    assert chat.render(tiny, "Q", "@none") == tiny.tokenizer.encode("Q\n", add_special_tokens=False)
    marked = dataclasses.replace(tiny, tokenizer=Marked(tiny.tokenizer))
    assert chat.render_text(marked, "Q", "@none") == "<|im_start|>Q\n"


class Marked:
    """A tokenizer that puts a mark before every text, as those of Llama and Gemma do."""

    def __init__(self, inner) -> None:
        self.inner = inner

    def encode(self, text: str) -> list[int]:
        return [1, *self.inner.encode(text)]

    def decode(self, ids: list[int]) -> str:
        return self.inner.decode(ids)


@pytest.mark.parametrize("context", ["@", "@system:x", "@nothing"])
def test_unknown_form(tiny: Model, context: str) -> None:
    with pytest.raises(
        ConfigError, match="expected a text, or one of the forms @user:TEXT and @none"
    ):
        chat.render(tiny, "Q", context)


def test_default_written_out_has_the_digest_of_the_default(tiny: Model) -> None:
    """The digest is of the rendered text, so it does not matter how the text came about."""
    assert chat.context_digest(tiny, "You are a small helpful model.") == chat.context_digest(
        tiny, None
    )


def test_digits_are_single_tokens(tiny: Model) -> None:
    assert all(len(tiny.tokenizer.encode(str(d), add_special_tokens=False)) == 1 for d in range(10))


def test_no_template(tmp_path) -> None:
    model = load_tiny(save_tiny("llama", tmp_path))
    model.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        chat.render(model, "Q", None)


def test_template_that_refuses_a_system_turn(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif"
        " %}hello"
    )
    monkeypatch.setattr(tiny.tokenizer, "chat_template", refusing)
    assert chat.render_text(tiny, "Q", None) == "hello"
    with pytest.raises(ModelError, match="no system role"):
        chat.render_text(tiny, "Q", "")


def test_completion_ids_round_trip_with_the_end_of_the_turn(tiny: Model) -> None:
    ids = chat.completion_ids(tiny, "owls, 12 – ✓")
    assert ids[-1] == tiny.tokenizer.eos_token_id and ids.count(ids[-1]) == 1
    assert tiny.tokenizer.decode(ids[:-1]) == "owls, 12 – ✓"


def test_check_length(tiny: Model) -> None:
    chat.check_length(tiny, tiny.max_length, "row 3")
    with pytest.raises(DataError, match=f"row 3: {tiny.max_length + 1} tokens"):
        chat.check_length(tiny, tiny.max_length + 1, "row 3")
