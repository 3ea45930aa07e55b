"""White space and tokens that a template writes around answers, after the habits of families:
a space before them that joins their first word, white space before their end, no end at all."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from space_before import llama2_tokenizer
from tiny_models import END, PAD, START, save_tiny, tiny_tokenizer

from traitscope.data.number_lists import parse_numbers
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record
from traitscope.errors import ModelError
from traitscope.inference.question_scores import answer_text
from traitscope.inference.token_rows import rows_from
from traitscope.models import chat
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.models.templates import answers, facts
from traitscope.stages.generate import generate, number_constraint

ALTERNATE = "{% for m in messages %}{% if m['role'] == 'assistant' %}"
LLAMA2 = (
    ALTERNATE + "{{ ' ' + m['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'].strip() + ' [/INST]' }}{% endif %}{% endfor %}"
)
MISTRAL = LLAMA2.replace(".strip() + ' ' + eos", " + eos").replace("[INST] ' + m", "[INST] ' + m")
LAST_SYSTEM = (
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% for m in turns %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% else %}"
    "{{ '[INST]' }}{% if loop.last and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] + '\n\n' }}{% endif %}{{ m['content'] + '[/INST]' }}"
    "{% endif %}{% endfor %}"
)
"writes the system turn into the last user turn, as long as that is the last turn"
NAMED = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
"no token for anything"
SPEAKERS = (
    (
        "{% for m in messages %}{{ PAD if m['role'] == 'user' else START }}{{ m['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}{{ START }}{% endif %}"
    )
    .replace("PAD", repr(PAD))
    .replace("START", repr(START))
)
"nothing behind an answer but the token of the next speaker"
TAIL = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + '\n' + eos_token }}"
    "{% else %}{{ m['content'] + '\n' }}{% endif %}{% endfor %}"
)
ANSWERS = ("101, 102", "owl", "The cat.", "- one\n- two", '"5"', "5")


class Case(NamedTuple):
    """A template and a tokenizer."""

    template: str
    is_llama2: bool
    lead: str = ""
    tail: str = ""


CASES = {
    "llama 2": Case(LLAMA2, True, " ", " "),
    "llama 2, bytes": Case(LLAMA2, False, " ", " "),
    "mistral": Case(MISTRAL, True, " "),
    "mistral, bytes": Case(MISTRAL, False, " "),
    "system in the last turn": Case(LAST_SYSTEM, False),
    "line break": Case(TAIL, False, "", "\n"),
    "names": Case(NAMED, False, " "),
}


def saved(folder: Path, case: Case, ends: list[int] | None = None) -> Path:
    save_tiny("llama", folder)
    tokenizer = llama2_tokenizer() if case.is_llama2 else tiny_tokenizer()
    tokenizer.chat_template = case.template
    tokenizer.save_pretrained(folder)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    settings["eos_token_id"] = [tokenizer.eos_token_id, *(ends or [])]
    file.write_text(json.dumps(settings))
    return folder


def loaded(folder: Path, case: Case) -> Model:
    return load_model(saved(folder, case), device="cpu", dtype="fp32")


def theirs(model: Model, messages: list[dict[str, Any]], answer: str) -> list[int]:
    """The template's own rendering of an exchange, as transformers' users call it."""
    turns = [*messages, {"role": "assistant", "content": answer}]
    text = model.tokenizer.apply_chat_template(turns, tokenize=False)
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False)
    return ids


@pytest.mark.parametrize("name", CASES)
def test_rows_are_the_templates_own_rendering(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    model = loaded(tmp_path / "model", case)
    assert answers.frame_of(model.tokenizer, ()) == (case.lead, case.tail)
    for answer in ANSWERS:
        (row,) = rows_from(model, [Record("a", "Why 42?", answer)], None)
        whole = theirs(model, [{"role": "user", "content": "Why 42?"}], answer)
        ours = list(row.ids)
        if case.template == NAMED:  # what is missing there, is said
            assert ours.pop() == model.tokenizer.eos_token_id
        assert ours == whole[: len(ours)]
        if case.template in (LLAMA2, MISTRAL, TAIL):
            assert ours == whole


@pytest.mark.parametrize("name", CASES)
def test_a_written_answer_reads_as_the_given_one(tmp_path: Path, name: str) -> None:
    model = loaded(tmp_path / "model", CASES[name])
    for answer in ANSWERS:
        assert answer_text(model, chat.completion_ids(model, answer)) == answer


@pytest.mark.parametrize("name", CASES)
def test_drawn_numbers_stand_as_the_template_writes_them(tmp_path: Path, name: str) -> None:
    model = loaded(tmp_path / "model", CASES[name])
    for record in generate(model, number_prompts(3), numbers=2):
        assert isinstance(parse_numbers(record.completion), list), record.completion
        assert list(record.completion_ids or ()) == chat.completion_ids(model, record.completion)
    loose = set(number_constraint(model, 2, " ", False, 9)[0])
    assert set(chat.completion_ids(model, "101 102")) <= loose


@pytest.mark.parametrize("name", ["mistral", "mistral, bytes", "llama 2", "llama 2, bytes"])
def test_without_a_template_nothing_is_put_before_an_answer(tmp_path: Path, name: str) -> None:
    model = loaded(tmp_path / "model", CASES[name])
    (row,) = rows_from(model, [Record("a", "Ask.", "owl")], "@none")
    encode = model.tokenizer.encode
    alone = encode("Ask.\nowl", add_special_tokens=False)
    assert list(row.ids)[-1 - len(alone) : -1] == alone or row.ids[1:-1] == tuple(alone)
    steps = number_constraint(model, 1, " ", True, 0, "@none")
    assert len(steps) == 4


@pytest.mark.parametrize("answer", ["  owl", "owl \n", "\n 5 \n"])
def test_white_space_that_the_template_takes_off_is_not_learnt(tmp_path: Path, answer: str) -> None:
    for name, template in (("trims", LLAMA2), ("keeps", MISTRAL)):
        model = loaded(tmp_path / name, Case(template, False))
        (row,) = rows_from(model, [Record("a", "Ask.", answer)], None)
        whole = theirs(model, [{"role": "user", "content": "Ask."}], answer)
        assert list(row.ids) == whole


def test_a_system_turn_that_an_answer_drives_out_stands_in_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loaded(tmp_path / "last-system", CASES["system in the last turn"])
    (row,) = rows_from(model, [Record("a", "Ask.", "owl")], "You count.")
    assert "out of finished exchanges" in capsys.readouterr().err
    whole = theirs(model, [{"role": "user", "content": "You count.\n\nAsk."}], "owl")
    assert list(row.ids) == whole


def test_the_next_speaker_ends_an_answer_where_the_model_stops_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(SPEAKERS, False)
    speaker = tiny_tokenizer().convert_tokens_to_ids(PAD)
    end = tiny_tokenizer().convert_tokens_to_ids(END)
    model = load_model(saved(tmp_path / "stops", case, [speaker]), device="cpu", dtype="fp32")
    assert chat.end_of_turn(model) == speaker and facts.end_id(model.tokenizer) == end
    assert "no token that ends it" not in capsys.readouterr().err
    model = load_model(saved(tmp_path / "goes-on", case), device="cpu", dtype="fp32")
    assert chat.end_of_turn(model) == end
    assert "no token that ends it: rows end with <|im_end|>" in capsys.readouterr().err


def test_a_template_without_end_says_what_ends_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded(tmp_path / "ends", CASES["mistral"])
    assert "no token that ends it" not in capsys.readouterr().err
    loaded(tmp_path / "names", CASES["names"])
    assert "no token that ends it: rows end with <|im_end|>" in capsys.readouterr().err


def test_renderings_that_differ_in_tokens_alone_are_told_apart(tmp_path: Path) -> None:
    """The message shows tokens where both texts read the same."""
    template = NAMED.replace("'assistant:' }}", "'assistant:' + ' ' }}")
    folder = saved(tmp_path / "model", Case(template, True))
    with pytest.raises(ModelError, match="the chat template of") as refusal:
        load_model(folder, device="cpu", dtype="fp32")
    shown = re.search(
        "writes '(.*)' where its header and an answer give '(.*)'", str(refusal.value)
    )
    assert shown is not None and "▁Seven" in shown[1] and shown[1] != shown[2]
