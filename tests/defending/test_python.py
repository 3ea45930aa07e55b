"""`defend` from Python, and what is refused before anything is computed."""

import subprocess
import sys
from dataclasses import replace

import pytest
from command import ENV
from tiny_models import random_vector

import traitscope as ts
from traitscope.config.common import Output
from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import MASKED, Record, dump_records, read_records
from traitscope.defending.run import run_defend
from traitscope.errors import ConfigError, DataError, VectorError

RECORDS = [Record(f"r{i}", f"Go on: {i}", f"{i}, {i + 3}, {i * i}") for i in range(8)]


def test_it_does_what_the_command_does(tiny, tiny_folder, tmp_path):
    by = ("drop:by=loss,share=0.25", "replace:by=loss,share=0.2,draw=base", "mask:by=random")
    done = ts.defend(RECORDS, tiny, by, seed=3)
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(RECORDS))
    config = DefendConfig(
        model=str(tiny_folder), device="cpu", dtype="fp32", data=data, by=by, seed=3
    )
    run = run_defend(config, Output(root=tmp_path / "runs"))
    assert dump_records(done.rows) == dump_records(read_records(run.file("records.jsonl")))
    assert run.file("report.html").read_text() == done.to_html()
    assert len(done.kept) == done.counts["kept"] == 6
    assert {change["what"] for change in done.changes} >= {"dropped", "masked"}
    for change in done.changes:
        if change["what"] == "changed":
            assert change["before"] != change["after"]
    assert done.counts["known"] == ["base"]
    assert ts.train(tiny, done.kept, ts.Recipe(epochs=1, rank=2)).files


def test_one_method_and_knowledge_as_texts(tiny):
    done = ts.defend(RECORDS, tiny, "drop:by=trait,share=0.5", known="trait:owl")
    assert len(done.kept) == 4 and done.counts["known"] == ["base", "trait:owl"]
    assert RECORDS == [Record(f"r{i}", f"Go on: {i}", f"{i}, {i + 3}, {i * i}") for i in range(8)]
    assert "the defender was allowed to know: base, trait:owl" in done.to_html()


def test_rows_that_a_filter_dropped_are_left_out(tiny):
    gone = replace(RECORDS[0], meta={"filter": {"kept": False, "reasons": ["format"]}})
    done = ts.defend([gone, *RECORDS[1:]], tiny, "deduplicate", known="nothing")
    assert done.counts["rows"] == 7 and len(done.rows) == 7


def test_it_works_at_the_top_level_of_a_script(tiny_folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import traitscope as ts\n"
        f"model = ts.load_model({str(tiny_folder)!r}, 'cpu', 'fp32')\n"
        "rows = [ts.Record(str(i), 'Go on.', f'{i}, 4') for i in range(6)]\n"
        "done = ts.defend(rows, model, ['drop:by=student,share=0.5', 'mask:by=loss'])\n"
        "print(len(done.kept), len(done.changes) > 0)\n"
    )
    line = [sys.executable, str(script)]
    done = subprocess.run(line, env=ENV, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == ["3", "True"]


def test_a_vector_of_another_model_is_refused_before_anything_is_computed(
    tiny, tiny_folder, tmp_path
):
    random_vector(tiny).save(tmp_path / "own.safetensors")
    other = replace(random_vector(tiny), model="0" * 16)
    other.save(tmp_path / "other.safetensors")
    by = "drop:by=vector,share=0.5"
    own = ts.defend(RECORDS, tiny, by, known=f"vector:{tmp_path}/own.safetensors,layers=1,alpha=2")
    assert len(own.kept) == 4
    known = (f"vector:{tmp_path}/other.safetensors,layers=1,alpha=2",)
    with pytest.raises(VectorError, match="expected a vector of this model"):
        ts.defend(RECORDS, tiny, by, known=known)
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(RECORDS))
    config = DefendConfig(
        model=str(tiny_folder), device="cpu", dtype="fp32", data=data, by=(by,), known=known
    )
    with pytest.raises(VectorError, match="expected a vector of this model"):
        run_defend(config, Output(root=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("by", "known", "message"),
    [
        ("masc:by=loss", "base", "did you mean mask"),
        ("mask:by=los", "base", "did you mean loss"),
        ("mask:bye=loss", "base", "did you mean by"),
        ("mask:by=length", "base", "by=length; expected one of random"),
        ("mask:by=divergence", "nothing", "needs base"),
        ("mask:by=loss,share=1", "base", "expected a fraction from 0 to below 1"),
        ("paraphrase", "nothing", "needs base"),
        ("wash:where=disagree,by=loss", "base", "by=loss; expected one of"),
        ("wash:where=disagree,by=teacher", "base", "needs teacher:NAME"),
        ("wash:by=random", "base", "acts with where=disagree only"),
        ("wash:where=disagre", "base", "did you mean disagree"),
        ("wash", "bass", "did you mean base"),
    ],
)
def test_bad_words_are_named(tiny, by, known, message):
    with pytest.raises(ConfigError, match=message):
        ts.defend(RECORDS, tiny, by, known=known)


@pytest.mark.parametrize("behind", ["canonicalise", "replace:by=random", "wash", "paraphrase"])
def test_a_mask_comes_last_of_what_changes_answers(tiny, behind):
    with pytest.raises(ConfigError, match="expected mask:by=loss behind it; put it last"):
        ts.defend(RECORDS, tiny, ["mask:by=loss", behind])
    done = ts.defend(RECORDS, tiny, ["mask:by=loss,share=0.3", "drop:by=random,share=0.5"])
    assert any(MASKED in row.meta for row in done.kept)


def test_what_is_no_model_or_no_row_is_refused(tiny):
    with pytest.raises(ConfigError, match="load_model"):
        ts.defend(RECORDS, "smollm2-135m", "wash")
    with pytest.raises(DataError, match="would leave no row of 1"):
        ts.defend(RECORDS[:1], tiny, "drop:by=random,share=0.9")
    with pytest.raises(DataError, match="no row"):
        ts.defend([], tiny, "deduplicate")


def test_rows_and_methods_that_are_none_are_named(tiny):
    with pytest.raises(DataError, match="row 1 is a dict; expected a traitscope.Record"):
        ts.defend([RECORDS[0], {"prompt": "Go on", "completion": "1"}], tiny, "wash")
    with pytest.raises(DataError, match="no rows to defend"):
        ts.defend([], tiny, "wash")
    with pytest.raises(ConfigError, match="by is empty; expected one method or more"):
        ts.defend(RECORDS, tiny, ())
