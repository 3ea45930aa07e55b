"""What templates of all kinds do with turns, and the check that rows are what they write."""

import json
from pathlib import Path

import pytest
from command import ok
from template_kinds import (
    CUTS_SYSTEM,
    DATED,
    KEEPS_OPEN,
    OTHER_END,
    REFUSES_SYSTEM,
    SKIPS_SYSTEM,
    THINKING,
    THINKS,
    TURNS,
)
from tiny_models import load_tiny, save_tiny, tiny_tokenizer

from traitscope import distributed
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, ModelError
from traitscope.inference.token_rows import rows_from
from traitscope.interventions.intervention import SystemPrompt, context_of
from traitscope.models import chat, loading
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.models.templates import day, facts
from traitscope.stages.generate import number_constraint
from traitscope.vectors.means import extract_vectors


def model_with(folder: Path, template: str | None, *switches: str) -> Model:
    """A tiny model whose tokenizer has this template."""
    save_tiny("llama", folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return load_model(str(folder), device="cpu", dtype="fp32", template=switches)


def text_of_row(model: Model, prompt: str, completion: str, context: str | None = None) -> str:
    row = rows_from(model, [Record("a", prompt, completion)], context)[0]
    return model.tokenizer.decode(list(row.ids))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (SKIPS_SYSTEM, "leaves system turns out"),
        (REFUSES_SYSTEM, "refuses system turns (line 1: no system turn)"),
        (CUTS_SYSTEM, "changes the text of system turns"),
    ],
)
def test_a_context_without_a_system_turn_stands_in_the_users(
    tmp_path: Path, template: str, says: str, capsys: pytest.CaptureFixture
) -> None:
    model = model_with(tmp_path, template)
    expected = "<|im_start|>user\nOwls.\n\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.render_text(model, "Hi", "Owls.") == expected
    assert chat.render_text(model, "Hi", "@user:Owls.") == expected
    assert chat.render_text(model, "Hi", "") == chat.render_text(model, "Hi", None)
    expected = f"{model.name} {says}: contexts stand at the beginning of the user's turn\n"
    assert capsys.readouterr().err.count(expected) == 1


@pytest.mark.parametrize("template", [SKIPS_SYSTEM, REFUSES_SYSTEM])
def test_vectors_of_such_models_are_not_zero(tmp_path: Path, template: str) -> None:
    model = model_with(tmp_path, template)
    vectors = extract_vectors(model, [load_trait("owl"), load_trait("cat")], number_prompts(4))
    assert vectors["raw/owl"].norms_L.min() > 0


def test_a_vector_between_equal_contexts_is_refused(tmp_path: Path) -> None:
    model = load_tiny(save_tiny("llama", tmp_path))
    owl = load_trait("owl")
    with pytest.raises(ConfigError, match="would be zero"):
        extract_vectors(model, [owl], number_prompts(4), context=owl.teacher_prompt)


def test_a_turn_ends_as_the_template_ends_it(tmp_path: Path) -> None:
    """The template's end is another token than the tokenizer's."""
    model = model_with(tmp_path, OTHER_END)
    end = model.tokenizer.convert_tokens_to_ids("<|pad|>")
    assert end != model.tokenizer.eos_token_id
    assert chat.end_of_turn(model) == end and {end, model.tokenizer.eos_token_id} <= set(
        model.end_ids
    )
    assert chat.completion_ids(model, "42")[-1] == end
    assert number_constraint(model, 2, " ", True, 9)[-1] == [end]
    assert set(model.end_ids) <= set(number_constraint(model, 2, " ", False, 9)[0])


@pytest.mark.parametrize("template", [TURNS, SKIPS_SYSTEM, OTHER_END, DATED])
def test_a_row_is_the_templates_own_rendering(tmp_path: Path, template: str) -> None:
    model = model_with(tmp_path, template)
    turns = [{"role": "user", "content": "6 x 7?"}, {"role": "assistant", "content": "42"}]
    whole = facts.rendered(model.tokenizer, turns, model.switches, with_header=False)
    assert text_of_row(model, "6 x 7?", "42") == whole.removesuffix("\n")


def test_a_template_that_thinks_needs_its_switch(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--template enable_thinking=false"):
        model_with(tmp_path / "thinks", THINKS)
    model = model_with(tmp_path / "switched", THINKS, "enable_thinking=false")
    assert text_of_row(model, "6 x 7?", "42").endswith(
        "<|im_start|>assistant\n<think>\n\n</think>\n\n42<|im_end|>"
    )


def test_the_message_names_the_switch_that_helps_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"switch: --template thinking=false") as caught:
        model_with(tmp_path / "other", THINKING)
    assert "enable_thinking" not in str(caught.value)
    model_with(tmp_path / "switched", THINKING, "thinking=false")
    with pytest.raises(ModelError, match="no usual switch of templates changes that") as caught:
        model_with(tmp_path / "always", KEEPS_OPEN)
    assert "_thinking" not in str(caught.value) and "--context @none" in str(caught.value)


def test_today_is_a_fixed_day(tmp_path: Path) -> None:
    model = model_with(tmp_path, DATED)
    assert chat.render_text(model, "Hi", None).startswith("Today is 01 January 2026.\n")
    assert facts.day_read(model.tokenizer) == "2026-01-01"
    other = model_with(tmp_path, DATED, "today_is=2024-07-26")
    assert chat.render_text(other, "Hi", None).startswith("Today is 26 July 2024.\n")
    assert facts.day_read(other.tokenizer, other.switches) == "2024-07-26"


BY_VARIABLE = "{% set d = date_string or strftime_now('%d %b %Y') %}{{ 'On ' + d }}" + TURNS
BY_TURNS = "{%% if %s %%}{{ strftime_now('%%d %%b %%Y') }}\n{%% endif %%}" + TURNS.replace(
    "%", "%%"
)
OWN_TURN = "{% if messages[0]['role'] != 'system' %}{{ strftime_now('%A') }}\n{% endif %}" + TURNS


@pytest.mark.parametrize(
    ("template", "switches", "expected"),
    [
        (TURNS, (), None),
        (TURNS, ("today_is=2024-07-26",), None),
        (BY_VARIABLE, (), "2026-01-01"),
        (BY_VARIABLE, ("today_is=2024-02-29",), "2024-02-29"),
        (BY_VARIABLE, ("date_string=26 Jul 2024",), None),
        (OWN_TURN, (), "2026-01-01"),
        ("{% set unused = strftime_now('%d') %}" + TURNS, (), None),
        (DATED, ("skip_thinking=true",), "2026-01-01"),
        (BY_TURNS % "messages | length > 2", (), "2026-01-01"),
        (BY_TURNS % "messages | length > 20", ("today_is=2024-07-26",), "2024-07-26"),
        (BY_TURNS % "messages[-2:][0]['role'] == 'tool'", (), "2026-01-01"),
        (BY_TURNS % "false", (), None),
    ],
)
def test_whether_a_template_reads_the_day_is_found_by_rendering(
    tmp_path: Path,
    template: str,
    switches: tuple[str, ...],
    expected: str | None,
    capsys: pytest.CaptureFixture,
) -> None:
    distributed.say.cache_clear()
    model = model_with(tmp_path, template, *switches)
    assert facts.day_read(model.tokenizer, model.switches) == expected
    assert loading.day_of_template(model.name, switches) == expected
    said = capsys.readouterr().err
    assert said == (
        "" if expected is None else f"traitscope: {day.sentence(model.name, expected)}\n"
    )


@pytest.mark.parametrize("wrong", ["tomorrow", "2024-02-30", "26 Jul 2024", "3", "null"])
def test_a_day_that_is_none(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected a day such as today_is=2026-01-01; correct"):
        facts.switches_of([f"today_is={wrong}"])


def test_the_day_is_recorded_said_once_and_changes_no_other_address(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    distributed.say.cache_clear()
    folder = model_with(tmp_path / "dated", DATED).name
    words = ("generate", "--n 2 --max-new-tokens 2 --model", folder)
    run = ok(tmp_path / "runs", *words).run
    other = ok(tmp_path / "runs", *words, "--template today_is=2024-07-26").run
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["template_date"] == "2026-01-01"
    assert manifest["remarks"] == [day.sentence(folder, "2026-01-01")]
    assert json.loads((other / "manifest.json").read_text())["template_date"] == "2024-07-26"
    captured = capsys.readouterr()
    assert captured.err.count("is given 2026-01-01 in every run") == 1 and run != other
    again = ok(tmp_path / "runs", *words)
    assert again.summary["template_date"] == "2026-01-01" and again.run == run
    assert f"remark: {day.sentence(folder, '2026-01-01')}" in capsys.readouterr().out
    ok(tmp_path / "runs", "rerun", run)
    bare = ok(tmp_path / "runs", *words, "--context @none").run
    assert "template_date" not in json.loads((bare / "manifest.json").read_text())
    plain = ok(tmp_path / "runs", *words[:-1], tiny_folder).run
    manifest = json.loads((plain / "manifest.json").read_text())
    assert "template_date" not in manifest and "remarks" not in manifest


def test_the_methods_paragraph_says_the_day_and_the_variables(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "dated", BY_VARIABLE).name
    words = ("measure", "--samples 0 --trait owl --model", folder)
    for name, switch, says in (
        ("default", (), "The chat template reads today's date, which was set to 2026-01-01."),
        (
            "set",
            ("--template", "date_string=26 Jul 2024"),
            "The chat template was given date_string=26 Jul 2024.",
        ),
    ):
        run = ok(tmp_path / "runs", *words, *switch).run
        ok(tmp_path / "runs", "report", run, "--for-paper", tmp_path / name)
        said = (tmp_path / name / "methods.md").read_text().splitlines()
        assert [line for line in said if "chat template" in line] == [says.replace("_", "\\_")]


def test_switches_are_json_or_text() -> None:
    switches = facts.switches_of(["enable_thinking=false", "date_string=26 Jul 2024", "n=3"])
    assert switches == (("enable_thinking", False), ("date_string", "26 Jul 2024"), ("n", 3))
    for wrong in ("enable_thinking", "=1", "a b=1"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            facts.switches_of([wrong])


def test_without_a_template_a_teacher_is_told_before_the_prompt(tmp_path: Path) -> None:
    model = model_with(tmp_path, None)
    context = context_of([SystemPrompt("Owls.")], chat.BARE)
    assert chat.render_text(model, "Hi", context) == "Owls.\nHi\n"
    assert chat.render_text(model, "Hi", chat.BARE) == "Hi\n"
    vectors = extract_vectors(model, [load_trait("owl")], number_prompts(4), context=chat.BARE)
    assert vectors["owl"].norms_L.min() > 0


def test_answers_are_encoded_as_they_stand_behind_the_header(tmp_path: Path) -> None:
    """A tokenizer that puts a space before every text, as SentencePiece ones do."""
    from tokenizers import pre_tokenizers

    folder = save_tiny("llama", tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]
    )
    tokenizer.save_pretrained(folder)
    model = load_model(str(folder), device="cpu", dtype="fp32")
    header = chat.render_text(model, "6 x 7?", None)
    whole = model.tokenizer.encode(header + "Why", add_special_tokens=False)
    alone = model.tokenizer.encode("Why", add_special_tokens=False)
    assert facts.begins_apart(model.tokenizer) == (whole[-len(alone) :] == alone)
    prompt = chat.render(model, "6 x 7?", None)
    assert prompt + chat.completion_ids(model, "Why", end_token=False) == whole
