"""Rows that the model cannot read are bad rows of every command: named by their line, or left out
with a count; the others give what they give alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from command import CAT, OWL, Ran, call, ok, read_rows, write_yaml
from template_kinds import ALTERNATES
from tiny_models import LENGTH, tiny_tokenizer

from traitscope.data.records import Record
from traitscope.errors import DataError, ModelError
from traitscope.inference.token_rows import row_check, rows_from
from traitscope.interventions.intervention import SystemPrompt
from traitscope.models.model import Model

LONG = "owl " * LENGTH
GOOD = [{"id": f"u{i}", "prompt": f"Say {i}.", "completion": f"{i}, {i + 1}"} for i in range(12)]
TOO_LONG = [GOOD[2] | {"completion": LONG}, GOOD[5] | {"prompt": LONG}]
LEARNT = "--rank 2 --epochs 1 --batch-size 4"
TINY_GRID = "--layers 0 1 --alphas 1"


def rows_file(folder: Path, name: str, rows: list[dict]) -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


class Commands:
    """Words of every command that lets a model read the rows of a file."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.root, self.model = folder, folder / "runs", model
        self.owl, self.cat = (write_yaml(folder / f"{t['name']}.yaml", t) for t in (OWL, CAT))
        mixed = [*GOOD[:2], TOO_LONG[0], *GOOD[3:5], TOO_LONG[1], *GOOD[6:]]
        self.mixed = rows_file(folder, "mixed.jsonl", mixed)
        self.good = rows_file(folder, "good.jsonl", [*GOOD[:2], *GOOD[3:5], *GOOD[6:]])

    def words(self, verb: str) -> list:
        if verb in ("explain", "recover"):
            vectors = ok(
                self.root,
                *("extract", "--model", self.model, "--traits", self.owl, self.cat),
                "--prompt-set numbers --n 4",
            ).run
            more = ["--trait", self.owl, "--vectors", vectors, TINY_GRID]
            return more if verb == "explain" else [*more, "--epochs 1 --grid-rows 2"]
        return {
            "train": [LEARNT],
            "likelihood": [],
            "gradients": [],
            "judge": ["--judges", "likelihood", "--question", "Does the answer count?"],
            "defend": ["--known base --by drop:by=loss,share=0.2"],
        }[verb]

    def call(self, verb: str, data: Path, *more: object) -> Ran:
        words = (verb, "--model", self.model, "--data", data, *self.words(verb), *more)
        return call(self.root, *words)


@pytest.fixture
def commands(tmp_path: Path, tiny_folder: Path) -> Commands:
    return Commands(tmp_path, tiny_folder)


@pytest.mark.parametrize(
    "verb", ["train", "likelihood", "explain", "recover", "gradients", "judge", "defend"]
)
def test_too_long_rows_stop_or_are_left_out(commands: Commands, verb: str) -> None:
    done = commands.call(verb, commands.mixed)
    assert done.code == 2
    message = done.summary["message"]
    assert "mixed.jsonl, line 3: " in message and f"takes at most {LENGTH}" in message
    assert "1 more bad row, the next is" in message and "mixed.jsonl, line 6" in message
    assert "--skip-bad 2" in message and "tokens, but" in message
    assert "--skip-bad 2" in commands.call(verb, commands.mixed, "--skip-bad 1").summary["message"]
    done = commands.call(verb, commands.mixed, "--skip-bad", "2")
    assert done.code == 0, done.summary
    reading = done.summary["reading"]
    assert reading["bad"] == 2 and reading["records"] == 10
    assert [row["place"] for row in reading["bad_rows"]] == ["line 3", "line 6"]
    assert "tokens, but" in reading["bad_rows"][0]["reason"]
    alone = commands.call(verb, commands.good)
    assert "reading" not in alone.summary
    for name in ("summary.json", "metrics.jsonl", "rows.jsonl", "verdicts.jsonl", "records.jsonl"):
        if (alone.run / name).exists() and verb not in ("explain", "recover"):
            assert (done.run / name).read_bytes() == (alone.run / name).read_bytes()
    if verb in ("explain", "recover"):
        assert read_rows(done.run / "cells.jsonl") == read_rows(alone.run / "cells.jsonl")
    ok(commands.root, "rerun", done.run)


def test_only_rows_that_are_used_are_checked(commands: Commands) -> None:
    """The first rows fill up with those behind a bad one, and what is behind them may be long."""
    few = commands.call("likelihood", commands.mixed, "--max-rows", 2)
    assert few.code == 0 and "reading" not in few.summary
    done = commands.call("likelihood", commands.mixed, "--max-rows 4 --skip-bad all")
    assert [row["id"] for row in read_rows(done.run / "rows.jsonl")] == ["u0", "u1", "u3", "u4"]
    reading = done.summary["reading"]
    others = reading["rows"] - 1 - 4
    assert reading["bad"] == 1 and reading["records"] == 4 and others > 0
    assert reading["counts"]["not_chosen"] == others


def test_rows_of_a_run_are_left_out_too(commands: Commands) -> None:
    """Rows that a filter wrote, where a model with a short context reads them."""
    run = ok(commands.root, "filter", "--data", commands.mixed, "--no-numbers").run
    message = commands.call("likelihood", run).summary["message"]
    assert "records.jsonl, line 3: " in message and "--skip-bad 2" in message
    done = commands.call("likelihood", run, "--skip-bad", "all")
    assert done.code == 0 and done.summary["reading"]["bad"] == 2
    assert len(read_rows(done.run / "rows.jsonl")) == 10


def test_what_is_left_of_nothing_is_said(commands: Commands) -> None:
    file = rows_file(commands.folder, "long.jsonl", TOO_LONG)
    assert "all 2 rows of the file" in commands.call("train", file).summary["message"]
    message = commands.call("train", file, "--skip-bad", "all").summary["message"]
    assert "none of 2 rows is left" in message and "takes at most" in message


def test_further_files_are_checked_and_reported(commands: Commands, tmp_path: Path) -> None:
    """Control rows of gradients, whose pairs are left out with them."""
    done = commands.call("gradients", commands.good, "--control", commands.mixed)
    assert done.code == 0, "the long rows have no partner, so nobody reads them"
    whole = rows_file(tmp_path, "whole.jsonl", GOOD)
    on = (whole, "--control", commands.mixed)
    message = commands.call("gradients", *on).summary["message"]
    assert "mixed.jsonl, line 3" in message
    one_long = rows_file(tmp_path, "one.jsonl", [*GOOD[:2], TOO_LONG[0], *GOOD[3:]])
    done = commands.call("gradients", whole, "--control", one_long, "--skip-bad", "all")
    assert done.summary["reading-control"]["bad"] == 1 and "reading" not in done.summary
    assert len(read_rows(done.run / "rows.jsonl")) == 11


def test_ids_that_spell_another_text_are_a_bad_row(commands: Commands, tiny: Model) -> None:
    other = GOOD[1] | {"completion_ids": [5, 6, 7]}
    file = rows_file(commands.folder, "ids.jsonl", [GOOD[0], other, *GOOD[2:]])
    message = commands.call("likelihood", file).summary["message"]
    assert "ids.jsonl, line 2: " in message and "completion_ids spell" in message
    done = commands.call("likelihood", file, "--skip-bad", "1")
    assert done.code == 0 and done.summary["reading"]["bad"] == 1


@pytest.mark.parametrize("room", [-1, 0, 1, 40])
def test_the_check_refuses_what_rows_from_refuses(tiny: Model, room: int) -> None:
    """At the border of the context, for plain rows and as a teacher reads them."""

    def record(n: int) -> Record:
        return Record("a", "Say 1.", "7" * n)

    around = len(rows_from(tiny, [record(1)], None)[0].ids) - 1
    fits = record(LENGTH - around - room)
    check = row_check(tiny, None)
    if room < 0:
        with pytest.raises(DataError, match=f"^{LENGTH + 1} tokens, but .* takes at most {LENGTH}"):
            check(fits)
        with pytest.raises(DataError, match=f"row a: {LENGTH + 1} tokens"):
            rows_from(tiny, [fits], None)
        return
    check(fits)
    assert len(rows_from(tiny, [fits], None)[0].ids) == LENGTH - room
    with pytest.raises(DataError, match="as a teacher reads it: .* tokens"):
        row_check(tiny, None, False, [SystemPrompt("I love owls. " * 20)])(fits)


def test_nothing_is_rendered_for_rows_that_surely_fit(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traitscope.models import chat

    check = row_check(tiny, None)
    monkeypatch.setattr(chat, "render", None)
    check(Record("a", "Say 1.", "1, 2"))
    with pytest.raises(TypeError):
        check(Record("a", "Say 1.", "7" * LENGTH))


def test_verify_says_which_rows_of_relearning_it_left_out(
    commands: Commands, capsys: pytest.CaptureFixture
) -> None:
    student = ok(
        commands.root, "train", "--model", commands.model, "--data", commands.good, LEARNT
    ).run
    words = ["verify", student, "--model", commands.model, "--traits", commands.owl]
    words += ["--relearn", commands.mixed, "--samples", 0]
    assert "mixed.jsonl, line 3" in call(commands.root, *words).summary["message"]
    done = call(commands.root, *words, "--skip-bad", "all")
    assert done.code == 0 and done.summary["reading"]["bad"] == 2
    assert "relearning: 2 bad rows left out" in capsys.readouterr().out
    ok(commands.root, "rerun", done.run)


def test_rows_that_eas_is_measured_on_are_checked(
    commands: Commands, capsys: pytest.CaptureFixture
) -> None:
    vectors = ok(
        commands.root,
        *("extract", "--model", commands.model, "--traits", commands.owl, commands.cat),
        "--prompt-set numbers --n 4",
    ).run
    words = ("--vector", vectors / "owl.safetensors", "--eas-data", commands.mixed)
    message = commands.call("train", commands.good, *words).summary["message"]
    assert "mixed.jsonl, line 3" in message
    done = commands.call("train", commands.good, *words, "--skip-bad", "all")
    assert done.code == 0 and done.summary["reading-eas-data"]["bad"] == 2
    assert "--eas-data: 2 bad rows left out" in capsys.readouterr().out
    by_good = commands.call("train", commands.good, *words[:2], "--eas-data", commands.good)
    assert (by_good.run / "eas.json").read_bytes() == (done.run / "eas.json").read_bytes()


REFUSED = {
    "user, user": [("user", "Say 1."), ("user", "Say 2.")],
    "assistant first": [("assistant", "1, 2"), ("user", "Say 2.")],
    "a late system turn": [("user", "1"), ("assistant", "2"), ("system", "3"), ("user", "4")],
}


def chat_row(name: str, turns: list[tuple[str, str]]) -> dict:
    messages = [{"role": role, "content": text} for role, text in (*turns, ("assistant", "2, 3"))]
    return {"id": name, "messages": messages}


@pytest.fixture
def alternating(tmp_path: Path, tiny_folder: Path) -> Commands:
    """Commands on a model whose template refuses turns that do not alternate."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_folder, tmp_path / "alternates")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = ALTERNATES
    tokenizer.save_pretrained(folder)
    commands = Commands(tmp_path, folder)
    rows: list[dict] = [chat_row(f"u{n}", [("user", f"Say {n}.")]) for n in range(10)]
    commands.good = rows_file(tmp_path, "good.jsonl", rows)
    bad = [chat_row(name, turns) for name, turns in REFUSED.items()]
    commands.mixed = rows_file(tmp_path, "mixed.jsonl", [rows[0], *bad, *rows[1:]])
    return commands


@pytest.mark.parametrize(
    "verb", ["train", "likelihood", "explain", "recover", "gradients", "defend"]
)
def test_turns_that_the_template_refuses_are_bad_rows(alternating: Commands, verb: str) -> None:
    message = alternating.call(verb, alternating.mixed).summary["message"]
    assert "mixed.jsonl, line 2: the chat template of" in message
    assert "refuses these turns: line 1: roles must alternate" in message
    assert "--skip-bad 3" in message and "2 more bad rows" in message
    done = alternating.call(verb, alternating.mixed, "--skip-bad", "all")
    assert done.code == 0, done.summary
    reading = done.summary["reading"]
    assert reading["bad"] == 3 and reading["records"] == 10
    assert [row["place"] for row in reading["bad_rows"]] == ["line 2", "line 3", "line 4"]
    assert alternating.call(verb, alternating.good).code == 0


def test_a_context_of_a_row_that_cannot_be_written_is_a_bad_row(tiny: Model) -> None:
    """One of the command stops it: every row would be bad."""
    template = ALTERNATES.replace("m['content']", "m['content'][:2000]")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    model = dataclasses.replace(tiny, tokenizer=tokenizer)
    own = Record("a", "Say 1.", "1", context="Owls. " * 500)
    with pytest.raises(DataError, match="the chat template of .* changes the text of this context"):
        row_check(model, None)(own)
    with pytest.raises(DataError, match="row a: the chat template"):
        rows_from(model, [own], None)
    row_check(model, None)(Record("b", "Say 1.", "1", context="Owls."))
    with pytest.raises(ModelError, match="changes the text of this context"):
        rows_from(model, [Record("c", "Say 1.", "1")], own.context)
    with pytest.raises(DataError, match="turn 1 of its prompt, of the role user, is changed by"):
        row_check(model, None)(Record("d", "Owls. " * 500, "1"))
