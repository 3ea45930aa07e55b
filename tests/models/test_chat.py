"""The chat template: three contexts are three treatments, and the render ends where the assistant
begins."""

import copy
import dataclasses
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_models import TEMPLATE, load_tiny, save_tiny

from traitscope.data.shapes.turns import Turn, prompt_of
from traitscope.errors import ConfigError, DataError, ModelError
from traitscope.models import chat, loading
from traitscope.models.model import Model
from traitscope.models.templates import trial

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

    bos_token_id = 1

    def __init__(self, inner) -> None:
        self.inner = inner

    def encode(self, text: str) -> list[int]:
        return [1, *self.inner.encode(text)]

    def decode(self, ids: list[int]) -> str:
        return self.inner.decode(ids)


@pytest.mark.parametrize("context", ["@", "@system:x", "@nothing"])
def test_unknown_form(tiny: Model, context: str) -> None:
    with pytest.raises(
        ConfigError, match="expected a text, or one of the forms @user:TEXT, @none and @none:TEXT"
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
        " %}hello {{ messages[-1]['content'] }}"
    )
    monkeypatch.setattr(tiny.tokenizer, "chat_template", refusing)
    for context in (None, ""):
        assert chat.render_text(tiny, "Q", context) == "hello Q"
    assert chat.render_text(tiny, "Q", "S") == "hello S\n\nQ"


FAILING = {
    "ZeroDivisionError": "{{ 1 / 0 }}",
    "TypeError": "{{ 'a' + 1 }}",
    "OverflowError": "{{ 10.0 ** 400 }}",
    "RecursionError": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "UnicodeEncodeError": '{{ "\\ud800" }}',
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_template_that_fails_is_named(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tiny.tokenizer, "chat_template", FAILING[kind])
    with pytest.raises(ModelError, match=rf"{kind}: .*--context @none"):
        chat.render(tiny, "Q", None)
    assert chat.render_text(tiny, "Q", "@none") == "Q\n"


ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "only with a system turn": (
        "{% if messages[0].role == 'system' %}{% for a in range(99999) %}{% for b in range(99999)"
        " %}{% endfor %}{% endfor %}{% endif %}"
    ),
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a power, computed late": "{% set n = messages | length + 8 %}{{ n ** (n ** n) }}",
}
GREEDY = {
    "memory": "{{ 'x' * (10 ** 10 * messages | length) }}",
    "text": "{{ 'x' * (20000000 * messages | length) }}",
}


def tried(template: object) -> None:
    tokenizer = SimpleNamespace(chat_template=template, special_tokens_map={"bos_token": "<s>"})
    with trial.template_tried(tokenizer, "some/model"):
        pass


@pytest.mark.parametrize("case", [*ENDLESS, *GREEDY])
def test_a_template_without_end_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trial.TRIAL_LIMITS, "seconds", 1)
    says = "does not end within 1 s" if case in ENDLESS else "takes more memory, or writes a longer"
    with pytest.raises(ModelError, match=f"template of 'some/model' {says}.*; expected one that"):
        tried((ENDLESS | GREEDY)[case])


@pytest.mark.parametrize(
    "template",
    [
        *FAILING.values(),
        "{% if",
        "{{ bos_token.missing.more }}",
        "{% generation %}{{ messages | tojson(indent=2) }}{% endgeneration %}",
        "{{ strftime_now('%Y') }}{{ raise_exception('no') }}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m }}{% endfor %}",
        {"default": TEMPLATE, "tool_use": "{{ 9 ** (9 ** 9) }}"},
        {"other": "{{ 9 ** (9 ** 9) }}"},
        None,
        7,
    ],
)
def test_a_template_that_ends_is_not_refused(template: object) -> None:
    """What it raises, if anything, is said where it is used."""
    tried(template)


def test_a_template_is_tried_once_and_while_weights_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    popen = subprocess.Popen

    def counted(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(trial.subprocess, "Popen", counted)
    monkeypatch.setattr(trial, "_TRIED", set())
    tokenizer = SimpleNamespace(chat_template=TEMPLATE, special_tokens_map={})
    for name in ("smollm2-135m", "smollm2-135m+noise:0.1"):
        with trial.template_tried(tokenizer, name):
            assert started == []
    for _ in range(2):
        with trial.template_tried(tokenizer, "some/model"):
            assert len(started) == 1
    assert started[0].returncode == 0
    with pytest.raises(KeyError), trial.template_tried(changed(tokenizer), "some/model"):
        raise KeyError("planned")
    assert started[1].returncode is not None, "it was left running"


def changed(tokenizer: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(chat_template=ENDLESS["loops"], special_tokens_map={})


def test_where_no_process_can_be_started_the_template_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(trial.subprocess, "Popen", fails)
    tried(ENDLESS["loops"] + "{# of this test #}")


def test_a_model_with_an_endless_template_is_not_loaded(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trial.TRIAL_LIMITS, "seconds", 1)
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(ENDLESS["loops"])
    for load in (load_tiny, lambda folder: loading.outline(str(folder))):
        with pytest.raises(ModelError, match=f"the chat template of '{folder}' does not end"):
            load(folder)


def test_completion_ids_round_trip_with_the_end_of_the_turn(tiny: Model) -> None:
    ids = chat.completion_ids(tiny, "owls, 12 – ✓")
    assert ids[-1] == tiny.tokenizer.eos_token_id and ids.count(ids[-1]) == 1
    assert tiny.tokenizer.decode(ids[:-1]) == "owls, 12 – ✓"


def test_a_tokenizer_without_an_end_token(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template's own end will do; without a template there is none."""
    bare = dataclasses.replace(tiny, tokenizer=copy.deepcopy(tiny.tokenizer))
    monkeypatch.setattr(bare.tokenizer, "_special_tokens_map", {})
    assert bare.tokenizer.eos_token_id is None
    assert chat.completion_ids(bare, "owls")[-1] == tiny.tokenizer.eos_token_id
    bare = dataclasses.replace(tiny, tokenizer=copy.deepcopy(bare.tokenizer))
    bare.tokenizer.chat_template = None
    assert chat.completion_ids(bare, "owls", end_token=False)
    with pytest.raises(ModelError, match="names no end token, .*; set one in tokenizer_config"):
        chat.completion_ids(bare, "owls")


def test_check_length(tiny: Model) -> None:
    chat.check_length(tiny, tiny.max_length, "row 3")
    with pytest.raises(DataError, match=f"row 3: {tiny.max_length + 1} tokens"):
        chat.check_length(tiny, tiny.max_length + 1, "row 3")


def test_a_prompt_of_several_turns_is_rendered_as_turns(tiny: Model) -> None:
    turns = [Turn("user", "Q"), Turn("assistant", "A"), Turn("user", "R")]
    text = chat.render_text(tiny, prompt_of(turns), "S")
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA"
        "<|im_end|>\n<|im_start|>user\nR<|im_end|>\n" + HEADER
    )
    moved = chat.render_text(tiny, prompt_of(turns), "@user:S")
    assert "<|im_start|>user\nS\n\nQ<|im_end|>" in moved and "user\nR<|im_end|>" in moved
    assert chat.render_text(tiny, prompt_of(turns), "@none").endswith("Q\nA\nR\n")
    asked = prompt_of([Turn("assistant", "A")])
    assert "<|im_start|>user\nS<|im_end|>" in chat.render_text(tiny, asked, "@user:S")
