"""Templates with a part for thinking: rows are what they write, or are refused in words."""

import json
import shutil
from pathlib import Path

import pytest
from command import call, ok
from template_kinds import (
    ALWAYS,
    CHANNELS,
    HYBRID,
    KEEPS_OPEN,
    OPENS_THINKING,
    STRIPS,
    THINKS,
    TURNS,
)
from tiny_models import save_tiny, tiny_tokenizer

from traitscope.data.records import Record
from traitscope.data.shapes.turns import Turn, prompt_of
from traitscope.errors import ConfigError, DataError, ModelError
from traitscope.inference.token_rows import rows_from
from traitscope.models import chat
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.models.templates import facts

SKIP, OFF = "skip_thinking=true", "enable_thinking=false"
EMPTY = "<think>\n\n</think>\n\n"
ASK, EARLIER = Turn("user", "6 x 7?"), (Turn("user", "2?"), Turn("assistant", "3"))
REASONED = (
    "<think>Owls.</think> 42",
    "<think>\nOwls.\n</think>\n\n42",
    "Owls.\n</think>\n\n42",
)


def model_with(folder: Path, template: str, *switches: str) -> Model:
    """A tiny model whose tokenizer has this template."""
    save_tiny("llama", folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return load_model(str(folder), device="cpu", dtype="fp32", template=switches)


def row_of(model: Model, completion: str, prompt: str = ASK.text, context: str | None = None):
    (row,) = rows_from(model, [Record("a", prompt, completion)], context)
    return model.tokenizer.decode(list(row.ids))


def by_template(model: Model, *turns: Turn, **answer: str) -> str:
    """What the template writes of a finished exchange, up to its end."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    messages.append({"role": "assistant", **answer})
    text = facts.rendered(model.tokenizer, messages, model.switches, with_header=False)
    return text.removesuffix("\n")


@pytest.mark.parametrize("earlier", [(), EARLIER])
@pytest.mark.parametrize(
    ("template", "switches"),
    [
        (OPENS_THINKING, (SKIP,)),
        (ALWAYS, (SKIP,)),
        (CHANNELS, (SKIP,)),
        (HYBRID, (OFF,)),
        (HYBRID, (SKIP,)),
        (THINKS, (OFF,)),
        (STRIPS, ()),
        (TURNS, ()),
        (TURNS, (SKIP,)),
    ],
)
def test_a_row_is_what_the_template_writes(
    tmp_path: Path, template: str, switches: tuple[str, ...], earlier: tuple[Turn, ...]
) -> None:
    model = model_with(tmp_path, template, *switches)
    turns = (*earlier, ASK)
    expected = by_template(model, *turns, content="42")
    assert row_of(model, "42", prompt_of(turns)) == expected
    assert chat.end_of_turn(model) == model.tokenizer.eos_token_id
    header = chat.render_text(model, prompt_of(turns), None)
    assert expected.startswith(header) and header.count("<think>") == header.count("</think>")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (OPENS_THINKING, "finished answer: --template skip_thinking=true"),
        (ALWAYS, "finished answer: --template skip_thinking=true"),
        (CHANNELS, "finished answer: --template skip_thinking=true"),
        (HYBRID, "switch: --template enable_thinking=false"),
        (KEEPS_OPEN, "leaves its part for thinking open.*--context @none"),
    ],
)
def test_a_template_that_thinks_is_refused_with_what_helps(
    tmp_path: Path, template: str, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        model_with(tmp_path, template)


OWN = HYBRID.replace("enable_thinking", "my_thinking")
BY_TRUE = OWN.replace("my_thinking is defined and not my_thinking", "no_thoughts")
BY_WORD = OWN.replace("my_thinking is defined and not my_thinking", "mood == 'quick'")
DATED_OWN = "{{ 'On ' + day + '.' if day else '' }}" + OWN


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (OWN, r"switch: --template my_thinking=false; rows .* under my_thinking=false: take "),
        (BY_TRUE, "switch: --template no_thoughts=true;"),
        (BY_WORD, r"finished answer: --template skip_thinking=true.*; the template reads mood$"),
        (DATED_OWN, r"switch: --template my_thinking=false.*; the template also reads day$"),
    ],
)
def test_the_switch_of_a_template_s_own_is_named(tmp_path: Path, template: str, says: str) -> None:
    """With all variables that it reads, and none that it sets, as `parts` and `thought` are."""
    with pytest.raises(ModelError, match=says) as error:
        model_with(tmp_path / "refused", template)
    message = str(error.value)
    assert "parts" not in message and "thought," not in message
    setting = message.partition("--template ")[2].partition(";")[0]
    assert model_with(tmp_path / "switched", template, setting).switches


LEARNT = TURNS.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"opens a part for thinking in its header, and keeps reasoning of finished turns"


@pytest.mark.parametrize("template", [OPENS_THINKING, ALWAYS, HYBRID, OWN, LEARNT, CHANNELS])
def test_what_the_switch_does_to_reasoning_is_said_first(tmp_path: Path, template: str) -> None:
    """Of those templates alone under whose switch rows with reasoning are refused later."""
    with pytest.raises(ModelError) as error:
        model_with(tmp_path / "refused", template)
    message = str(error.value)
    setting = message.partition("--template ")[2].partition(";")[0]
    model = model_with(tmp_path / "switched", template, setting)
    is_refused = False
    try:
        row_of(model, REASONED[0])
    except DataError:
        is_refused = True
    said = f"rows with reasoning cannot be trained on under {setting}: take --reasoning drop"
    assert (said in message) == is_refused == (template not in (LEARNT, CHANNELS))


def test_a_template_without_answers_cannot_be_skipped(tmp_path: Path) -> None:
    silent = TURNS.replace("messages %}", "messages if m['role'] == 'user' %}")
    with pytest.raises(ModelError, match="no usual switch of templates"):
        model_with(tmp_path / "silent", silent)
    with pytest.raises(ModelError, match="it writes no answer, which skip_thinking needs"):
        model_with(tmp_path / "skipped", silent, SKIP)


def test_only_the_later_turns_of_a_template_differ(tmp_path: Path) -> None:
    """A header that is right for the first exchange and wrong for the second."""
    late = "{% if messages | length > 1 %}<think>\n{% endif %}"
    template = TURNS.replace("assistant\n{% endif %}", f"assistant\n{late}{{% endif %}}")
    with pytest.raises(ModelError, match="skip_thinking=true"):
        model_with(tmp_path / "late", template)
    model = model_with(tmp_path / "skipped", template, SKIP)
    turns = (*EARLIER, ASK)
    assert row_of(model, "42", prompt_of(turns)) == by_template(model, *turns, content="42")


@pytest.mark.parametrize("answer", REASONED)
@pytest.mark.parametrize(
    ("template", "switches", "says"),
    [
        (HYBRID, (OFF,), "already holds a part for thinking"),
        (THINKS, (OFF,), "already holds a part for thinking"),
        (ALWAYS, (SKIP,), "already holds a part for thinking"),
        (OPENS_THINKING, (SKIP,), "writes none before a finished answer"),
        (STRIPS, (), "writes none before a finished answer"),
    ],
)
def test_reasoning_that_the_template_would_not_write_is_refused(
    tmp_path: Path, template: str, switches: tuple[str, ...], says: str, answer: str
) -> None:
    model = model_with(tmp_path, template, *switches)
    with pytest.raises(DataError, match=f"row a: the answer begins with reasoning.*{says}"):
        row_of(model, answer)
    alone = by_template(model, ASK, content="42")
    assert row_of(model, f"{EMPTY}42") == row_of(model, "42") == alone
    assert row_of(model, answer, context=chat.BARE) == f"6 x 7?\n{answer}<|im_end|>"


@pytest.mark.parametrize("answer", REASONED)
def test_reasoning_stands_where_the_template_writes_it(tmp_path: Path, answer: str) -> None:
    """As it is; or in the form of a template that knows it by its tags, or by its key alone."""
    plain = model_with(tmp_path / "plain", TURNS)
    assert row_of(plain, answer) == by_template(plain, ASK, content=answer)
    said = "{{ m['content'] }}"
    key = "{% if m['reasoning_content'] %}[THINK]{{ m['reasoning_content'] }}[/THINK]{% endif %}"
    tagged = "{{ m['content'].split('</think>')[-1] }}"
    keyed = model_with(tmp_path / "keyed", TURNS.replace(said, key + tagged))
    expected = by_template(keyed, ASK, content="42", reasoning_content="Owls.")
    assert "[THINK]Owls.[/THINK]42" in expected and row_of(keyed, answer) == expected
    assert row_of(keyed, f"{EMPTY}42") == row_of(keyed, "42")


def test_two_parts_of_reasoning_stand_where_the_template_writes_them(tmp_path: Path) -> None:
    plain, answer = model_with(tmp_path, TURNS), "<think>Owls.</think>\n<think>Cats.</think>\n42"
    assert row_of(plain, answer) == by_template(plain, ASK, content=answer)


def test_the_switch_is_true_or_false() -> None:
    assert facts.switches_of([SKIP]) == ((facts.SKIP, True),)
    with pytest.raises(ConfigError, match="skip_thinking=true or skip_thinking=false"):
        facts.switches_of(["skip_thinking=yes"])


@pytest.mark.parametrize("template", [OPENS_THINKING, ALWAYS, HYBRID])
def test_rows_are_made_learnt_and_asked_for_without_thinking(
    tmp_path: Path, tiny_folder: Path, template: str
) -> None:
    """Commands refuse such a model with the switch that helps, and agree once it is set."""
    folder, root = tmp_path / "model", tmp_path / "runs"
    shutil.copytree(tiny_folder, folder)
    (folder / "chat_template.jinja").write_text(template)
    model = ("--model", folder)
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "P", "completion": "<think>Owls.</think>42"}) + "\n")
    for words in (("generate", "--n 2"), ("train", "--data", data), ("measure",), ("audit", data)):
        done = call(root, *words, *model)
        assert done.code == 2 and "_thinking=" in done.summary["message"], done
    switch = ("--template", OFF if template == HYBRID else SKIP)
    made = ok(root, "generate", "--n 4 --max-new-tokens 4", *model, *switch).run
    student = ok(root, "train", "--epochs 1 --rank 1", "--data", made, *model, *switch).run
    asked = ("measure", "--sets positive --samples 1", "--interventions", f"adapter:{student}")
    ok(root, *asked, *model, *switch)
    done = call(root, "train", "--reasoning train", "--data", data, *model, *switch)
    assert done.code == 2 and "--reasoning drop" in done.summary["message"]
    ok(root, "train", "--epochs 1 --rank 1", "--data", data, *model, *switch)


def test_an_answer_that_the_model_wrote_with_a_tag_in_it_is_read_as_it_was_written(
    tmp_path: Path,
) -> None:
    """As placebos of an audit are, which are read as text."""
    model = model_with(tmp_path, HYBRID, OFF)
    answer = "7, 8\n</think>\n\n9"
    ids = model.tokenizer.encode(answer, add_special_tokens=False)
    own = Record("a", "Why?", answer, completion_ids=[*ids, chat.end_of_turn(model)])
    (row,) = rows_from(model, [own], None, text=True)
    assert list(row.completion_ids) == list(own.completion_ids or ())
    with pytest.raises(DataError, match="row a"):
        rows_from(model, [Record("a", "Why?", answer)], None, text=True)
