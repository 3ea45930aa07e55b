"""Answers are said in other words by a local model or an endpoint, and nothing is lost midway."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import call, ok
from endpoint_server import Server, completion, serve  # noqa: F401, F811

from traitscope.config.judge import Endpoint
from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import Record, dump_records, read_records
from traitscope.defending import paraphrasing
from traitscope.defending.knowledge import knowledge_of
from traitscope.defending.methods import inputs, steps_of
from traitscope.defending.run import defended_rows
from traitscope.errors import DataError

TEXTS = ["The sky was blue.", "She went home.", "Nothing to say.", "It rained all day."]
LISTS = ["12, 7, 305", "9, 8, 7", "1, 2", "3, 4", "5, 6"]


def records_of(answers: list[str]) -> list[Record]:
    return [Record(f"r{i}", f"Tell me, {i}.", text) for i, text in enumerate(answers)]


@pytest.fixture
def config(tiny_folder: Path) -> DefendConfig:
    return DefendConfig(model=str(tiny_folder), device="cpu", dtype="fp32", by=("wash",))


def defended(config: DefendConfig, records: list[Record], *by: str, known=("base",)):
    return defended_rows(config, records, steps_of(by), knowledge_of(known, config.model))


def told(text: str) -> str:
    """The answer in a request."""
    return text.split("\n\n", 1)[1]


def shouted(n: int, text: str):
    return completion(told(text).upper())


def asking(server: Server, **settings) -> Endpoint:
    return Endpoint(server.url, "m", pause=0.0, retries=0, **settings)


@pytest.mark.parametrize("known", [("nothing",), ("base",)])
def test_an_endpoint_says_answers_in_other_words(config, serve, known):  # noqa: F811
    """Every answer is in its own request, and prompts are not sent; no model is needed."""
    server = serve(shouted)
    config = replace(config, endpoint=asking(server, price_in=2.0))
    records = records_of([*TEXTS, LISTS[0]])
    rows, reports = defended(config, records, "paraphrase:with=endpoint", known=known)
    assert [row.completion for row in rows] == [*map(str.upper, TEXTS), LISTS[0]]
    assert rows[0].meta["defend"]["answer"] == TEXTS[0]
    sent = {body["messages"][0]["content"] for body in server.seen}
    assert sent == {paraphrasing.ASK.format(text=text) for text in TEXTS}
    assert {body["max_tokens"] for body in server.seen} == {128}
    assert (reports[0].changed, reports[0].left, reports[0].dropped) == (4, 1, 0)
    assert reports[0].endpoint["requests"] == 4
    assert reports[0].endpoint["cost"] == pytest.approx(4 * 10 * 2.0 / 1e6)


def test_the_share_that_is_most_suspect_is_asked_about(config, serve):  # noqa: F811
    """Oracle: the longest answers."""
    server = serve(shouted)
    config = replace(config, endpoint=asking(server))
    by = "paraphrase:with=endpoint,by=length,share=0.5"
    rows, _ = defended(config, records_of(TEXTS), by)
    changed = {row.id for row in rows if row.completion.isupper()}
    assert changed == {"r0", "r3"} and len(server.seen) == 2


def test_an_endpoint_that_dies_midway_loses_nothing(
    config,
    serve,  # noqa: F811
    tmp_path,
    capsys,
):
    """The same command asks for what is missing only."""
    alive = False

    def answer(n: int, text: str):
        return shouted(n, text) if alive or n <= 2 else (503, b"busy", {})

    server = serve(answer)
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of(TEXTS)))
    words = ["defend", "--model", config.model, "--data", data]
    words += ["--by paraphrase:with=endpoint --known nothing --parallel 1 --retries 0 --served m"]
    words += ["--url", server.url]
    assert call(tmp_path / "runs", *words).code == 2
    assert "what was answered is kept" in capsys.readouterr().err
    assert data.read_text() == dump_records(records_of(TEXTS))
    alive, before = True, len(server.seen)
    done = ok(tmp_path / "runs", *words)
    assert len(server.seen) - before == 2
    said = capsys.readouterr().out
    assert "2 requests, 2 from the cache" in said
    assert "the defender was allowed to know: nothing" in said
    rows = read_records(done.run / "records.jsonl")
    assert [row.completion for row in rows] == list(map(str.upper, TEXTS))
    summary = json.loads((done.run / "summary.json").read_text())
    assert summary["endpoint"]["from_cache"] == 2
    page = (done.run / "report.html").read_text()
    assert TEXTS[0] in page and TEXTS[0].upper() in page


def cut(text: str):
    found = {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}
    return 200, json.dumps(found).encode(), {}


def test_what_is_cut_or_empty_is_dropped_and_counted(config, serve):  # noqa: F811
    def answer(n: int, text: str):
        return {TEXTS[0]: cut("THE SKY"), TEXTS[1]: completion("  ")}.get(
            told(text), shouted(n, text)
        )

    config = replace(config, endpoint=asking(serve(answer)))
    for _ in range(2):  # the second time from the cache
        rows, reports = defended(config, records_of(TEXTS), "paraphrase:with=endpoint")
        dropped = [row for row in rows if not row.kept]
        assert [row.id for row in dropped] == ["r0", "r1"]
        assert {row.drop_reasons[0] for row in dropped} == {paraphrasing.UNANSWERED}
        assert reports[0].dropped == 2


def test_more_than_half_without_a_paraphrase_is_refused(config, serve):  # noqa: F811
    config = replace(config, endpoint=asking(serve(lambda n, text: completion(""))))
    with pytest.raises(DataError, match="4 of 4 rows got no answer .* expected at most half"):
        defended(config, records_of(TEXTS), "paraphrase:with=endpoint")


def test_lists_of_numbers_are_refused_with_the_way_out(config):
    with pytest.raises(DataError, match="5 of 9 rows are lists .* canonicalise or wash"):
        defended(config, records_of([*TEXTS, *LISTS]), "paraphrase")


def test_the_base_paraphrases_the_same_way_twice(config):
    config = replace(config, max_new_tokens=300)
    rows, reports = defended(config, records_of(TEXTS), "paraphrase")
    again, _ = defended(config, records_of(TEXTS), "paraphrase")
    assert dump_records(rows) == dump_records(again)
    assert reports[0].changed + reports[0].dropped == 4 and reports[0].changed > 0
    assert reports[0].used == ("base",)
    assert all(row.completion_ids is None for row in rows if row.kept)


def test_rows_of_a_pass_change_no_paraphrase(config):
    """Up to rounding, which moves about one token in some ten thousand."""
    config = replace(config, max_new_tokens=30)
    rows, _ = defended(config, records_of(TEXTS), "paraphrase")
    alone, _ = defended(replace(config, pass_rows=1), records_of(TEXTS), "paraphrase")
    assert dump_records(rows) == dump_records(alone)


def test_another_model_paraphrases_and_is_an_input(config, folders, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders["qwen2"], other)
    step = f"paraphrase:with={other},share=0.5,by=length"
    config = replace(config, max_new_tokens=300, by=(step,), known=("nothing",))
    rows, reports = defended(config, records_of(TEXTS), step, known=("nothing",))
    touched = {row.id for row in rows if not row.kept or "defend" in row.meta}
    assert touched == {"r0", "r3"} and reports[0].used == ("nothing",)
    files = inputs(config)
    assert any("safetensors" in str(file) for file in files.values())
    assert all(str(other) in str(file) for file in files.values())


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("paraphrase:with=endpoint", "no endpoint is named.* add --url and --served"),
        ("paraphrase:with=", "with is empty"),
        ("paraphrase:with=org/no-such-model", "no-such-model"),
        ("paraphrase:share=2", "a fraction from 0 to 1"),
        ("paraphrase:whith=here", "did you mean with"),
    ],
)
def test_bad_input_is_named_before_anything_is_computed(config, tmp_path, capsys, by, message):
    import re

    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of(TEXTS)))
    words = ("defend", "--model", config.model, "--data", data, "--by", by)
    assert call(tmp_path / "runs", *words).code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(message, said), said
    assert not list((tmp_path / "runs").rglob("records.jsonl"))
