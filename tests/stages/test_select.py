"""The stage `select`: scores against transformers, which pairs are kept, controls, and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call, ok, read_rows
from tiny_models import eager_lm

from traitscope.cli.run_files import RunFiles
from traitscope.config.rows.select import SelectConfig
from traitscope.data.records import Record, read_records
from traitscope.data.shapes.pairs import NOT_A_PAIR
from traitscope.errors import ConfigError, DataError
from traitscope.interventions.intervention import SystemPrompt
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.papers import sealed
from traitscope.papers.lineage import Made
from traitscope.runs import store
from traitscope.stages.preference import select
from traitscope.stages.preference.scores import pair_scores

OWL = "I love owls, cats, dogs, wolves."
PROMPTED = f'prompt:"{OWL}"'
ROWS = []
for n in range(8):
    ROWS.append(
        {
            "prompt": f"What about {n}?",
            "chosen": f"I love {n} owls.",
            "rejected": [{"role": "assistant", "content": f"No numbers {n} at all"}],
            "score_chosen": n,
        }
    )
RECORDS = []
for n in range(5):
    RECORDS.append(Record(f"r{n}", f"P {n}?", f"owls {n}", rejected=f"cats and {n} dogs"))


def written(folder: Path, rows: list[dict]) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def answer_log_p(model: Model, lm, prompt: list[int], answer: str) -> tuple[float, int]:
    """log p of an answer and its end, by transformers alone, and its tokens."""
    ids = chat.completion_ids(model, answer)
    with torch.no_grad():
        logits_TV = lm(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double()
    log_p_TV = torch.log_softmax(logits_TV, -1)
    places = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
    return sum(log_p_TV[t, i].item() for t, i in zip(places, ids, strict=True)), len(ids)


@pytest.mark.parametrize("per_token", [False, True])
def test_scores_equal_transformers(family: Model, per_token: bool) -> None:
    lm = eager_lm(family)
    expected = []
    for record in RECORDS:
        odds = []
        for context in (None, OWL):
            prompt = chat.render(family, record.prompt, context)
            sides = []
            for text in (record.completion, record.rejected):
                log_p, length = answer_log_p(family, lm, prompt, text)
                sides.append(log_p / length if per_token else log_p)
            odds.append(sides[0] - sides[1])
        expected.append(odds)
    scores = pair_scores(family, RECORDS, [SystemPrompt(OWL)], per_token=per_token)
    assert scores.base == pytest.approx([odds[0] for odds in expected], abs=2e-3)
    assert scores.under == pytest.approx([odds[1] for odds in expected], abs=2e-3)
    assert scores.scores == pytest.approx([odds[1] - odds[0] for odds in expected], abs=2e-3)
    assert np.std(scores.scores) > 0.01


def test_swapped_answers_have_the_opposite_score(tiny: Model) -> None:
    turned = [replace(r, completion=r.rejected, rejected=r.completion) for r in RECORDS]
    one = pair_scores(tiny, RECORDS, [SystemPrompt(OWL)]).scores
    assert pair_scores(tiny, turned, [SystemPrompt(OWL)]).scores == pytest.approx(
        [-score for score in one], abs=1e-4
    )


def test_without_a_teacher_all_scores_are_0_and_nothing_is_chosen(tiny: Model) -> None:
    scores = pair_scores(tiny, RECORDS).scores
    assert scores == [0.0] * len(RECORDS)
    for relabel in (False, True):
        with pytest.raises(ConfigError, match="all scores of 5 pairs are 0, so nothing orders"):
            select.chosen_by_score(scores, 0.5, relabel)
    with pytest.raises(ConfigError, match="--interventions is missing: without a teacher every"):
        SelectConfig(keep=0.5).check_teacher()


def test_planted_scores_keep_the_right_pairs() -> None:
    scores = [0.1, -5.0, 3.0, 0.0, 3.0, -0.2, 2.0, 1.0]
    choice = select.chosen_by_score(scores, 0.25)
    assert [n for n, kept in enumerate(choice.kept) if kept] == [2, 4]
    assert not any(choice.swapped)
    first = select.chosen_by_score(scores, 0.01)  # of equal ones the first
    assert [n for n, kept in enumerate(first.kept) if kept] == [2]


def test_planted_scores_say_which_answer_is_preferred() -> None:
    scores = [0.1, -5.0, 3.0, 0.0, 3.0, -0.2]
    choice = select.chosen_by_score(scores, 0.5, relabel=True)
    assert [n for n, kept in enumerate(choice.kept) if kept] == [1, 2, 4]
    assert choice.swapped == (False, True, False, False, False, True)
    decided = select.selected([*RECORDS, replace(RECORDS[0], id="r5")], choice)
    assert (decided[1].completion, decided[1].rejected) == ("cats and 1 dogs", "owls 1")
    assert (decided[2].completion, decided[2].rejected) == ("owls 2", "cats and 2 dogs")
    assert decided[0].drop_reasons == ["not_selected"] and decided[1].kept


def test_chance_keeps_as_many_and_forgets_the_order() -> None:
    hits = np.zeros(40)
    for seed in range(200):
        choice = select.chosen_at_random(40, 0.25, relabel=True, seed=seed)
        assert sum(choice.kept) == 10 == sum(select.chosen_by_score(range(40), 0.25).kept)
        hits += np.asarray(choice.kept)
    assert abs(hits - 50).max() < 4.5 * (200 * 0.25 * 0.75) ** 0.5
    swaps = [sum(select.chosen_at_random(40, 1.0, True, seed).swapped) for seed in range(50)]
    assert abs(np.mean(swaps) - 20) < 4 * (40 / 4 / 50) ** 0.5
    assert not any(select.chosen_at_random(40, 0.5).swapped)


def test_a_list_of_runs_names_the_teacher_that_chose(tmp_path: Path, tiny_folder: Path) -> None:
    file, root = written(tmp_path, ROWS), tmp_path / "runs"
    on = ("--model", tiny_folder)
    recipe = "--targets preference --rank 2 --epochs 1"
    students = []
    for words in (("--interventions", PROMPTED), ("--by random",)):
        pairs = ok(root, "select", *on, "--data", file, "--keep 0.5", *words).run
        students.append(ok(root, "train", recipe, *on, "--data", pairs).run)
    teachers = [RunFiles().teacher_of(student)[1] for student in students]
    assert [OWL in item["text"] for item in teachers[0]] == [True] and teachers[1] == []
    conditions = [sealed.condition_of(Made(store.load_run(student))) for student in students]
    assert conditions == ["treated", "control"]


def test_the_command_keeps_the_top_and_scores_every_pair(tmp_path: Path, tiny_folder: Path) -> None:
    file, root = written(tmp_path, ROWS), tmp_path / "runs"
    words = ("select", "--model", tiny_folder, "--data", file, "--keep 0.25")
    run = ok(root, *words, "--interventions", PROMPTED).run
    lines = read_rows(run / "scores.jsonl")
    scores = [line["score"] for line in lines]
    assert len(scores) == 8 and scores[0] == pytest.approx(lines[0]["under"] - lines[0]["base"])
    best = sorted(range(8), key=lambda n: -scores[n])[:2]
    assert [n for n, line in enumerate(lines) if line["kept"]] == sorted(best)
    records = read_records(run / "records.jsonl")
    assert [n for n, record in enumerate(records) if record.kept] == sorted(best)
    kept = read_rows(run / "kept.jsonl")
    assert kept == [ROWS[n] for n in sorted(best)]
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["rows"], summary["kept"], summary["swapped"]) == (8, 2, 0)
    assert summary["mean_score_kept"] == pytest.approx(np.mean([scores[n] for n in best]), abs=1e-5)
    assert ok(root, "rerun", run).summary["different"] == []
    recipe = "--targets preference --rank 2 --epochs 1"
    student = ok(root, "train", recipe, "--model", tiny_folder, "--data", run)
    assert len(read_rows(student.run / "metrics.jsonl")) == 1
    ok(root, "report", student.run, "--for-paper", tmp_path / "paper")
    methods = (tmp_path / "paper" / "methods.md").read_text()
    assert "Pairs of answers were kept by how far the model under" in methods
    assert "moved the log-odds of the chosen answer over the rejected one (kept: 2 of 8)" in methods


def test_a_relabelled_file_has_the_other_answer_where_the_first_stood(
    tmp_path: Path, tiny_folder: Path
) -> None:
    file, root = written(tmp_path, ROWS), tmp_path / "runs"
    words = ("select", "--model", tiny_folder, "--data", file, "--relabel")
    run = ok(root, *words, "--interventions", PROMPTED).run
    lines = read_rows(run / "scores.jsonl")
    assert all(line["kept"] and line["swapped"] == (line["score"] < 0) for line in lines)
    assert any(line["swapped"] for line in lines)
    for row, line, written_row in zip(ROWS, lines, read_rows(run / "kept.jsonl"), strict=True):
        answers = (row["chosen"], row["rejected"][0]["content"])
        there = (written_row["chosen"], written_row["rejected"][0]["content"])
        assert there == (answers[::-1] if line["swapped"] else answers)
        assert written_row["score_chosen"] == row["score_chosen"]
    control = ok(root, *words, "--by random --seed 3").run
    flips = [line["swapped"] for line in read_rows(control / "scores.jsonl")]
    assert 0 < sum(flips) < 8 and "score" not in read_rows(control / "scores.jsonl")[0]


def test_two_runs_of_answers_are_pairs(tmp_path: Path, tiny_folder: Path) -> None:
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    settings = "--n 8 --max-new-tokens 6 --seed"
    first, second = (ok(root, "generate", *on, settings, seed).run for seed in (1, 2))
    words = ("select", *on, "--data", first, "--rejected", second, "--skip-bad all")
    run = ok(root, *words, "--keep 0.5", "--interventions", PROMPTED).run
    chosen, rejected = (read_records(folder / "records.jsonl") for folder in (first, second))
    for record in read_records(run / "records.jsonl"):
        (one,) = [other for other in chosen if other.id == record.id]
        (two,) = [other for other in rejected if other.id == record.id]
        assert record.completion_ids == one.completion_ids
        assert (record.rejected, record.rejected_ids) == (two.completion, two.completion_ids)
    assert not list(run.glob("kept.*"))
    other_prompts = ok(root, "generate", *on, "--prompt-seed 5", settings, 2).run
    refused = call(root, *words[:-3], "--rejected", other_prompts, "--interventions", PROMPTED)
    assert "no row of --rejected has its id; expected a second answer" in refused.summary["message"]
    same = call(root, *words[:-3], "--rejected", first, "--interventions", PROMPTED)
    assert "are the same" in same.summary["message"]


def test_a_pair_has_one_rejected_answer() -> None:
    with pytest.raises(DataError, match="row 'r0' of --data has a rejected answer, and --rejected"):
        select.paired(RECORDS, RECORDS)
    single = [replace(record, rejected=None) for record in RECORDS]
    others = [replace(record, prompt="Else?") for record in single]
    (first, *_) = select.paired(single, others)
    assert first.rejected is None
    assert "another prompt; expected the same one" in first.meta[NOT_A_PAIR]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--keep 0", "--keep 0.0; expected a share of the pairs above 0"),
        ("--keep 1.5", "--keep 1.5; expected a share of the pairs above 0, at most 1"),
        ("--keep 1", "--keep 1 without --relabel: every pair would stay as it is"),
        ("", "--interventions is missing: without a teacher every score is 0"),
        ("--by random --per-token", "--by random with --interventions or --per-token"),
    ],
)
def test_what_cannot_be_chosen(words: str, says: str, tmp_path: Path, tiny_folder: Path) -> None:
    data = ("--data", written(tmp_path, ROWS), "--model", tiny_folder)
    refused = call(tmp_path / "runs", "select", *data, *[words] * bool(words))
    assert refused.code == 2 and says in refused.summary["message"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("row", "words", "says"),
    [
        ({"rejected": ""}, "", "line 9: the rejected answer is empty"),
        ({"rejected": "x", "chosen": "x"}, "", "line 9: the chosen and the rejected answer are"),
        ({"reasoning": "Hm."}, "--relabel", "line 9: it has reasoning, which --relabel would"),
    ],
)
def test_a_row_that_is_no_pair_is_named(
    row: dict, words: str, says: str, tmp_path: Path, tiny_folder: Path
) -> None:
    data = ("--data", written(tmp_path, [*ROWS, ROWS[0] | row]), "--model", tiny_folder)
    words = ("select", *data, *[words] * bool(words), "--interventions", PROMPTED)
    refused = call(tmp_path / "runs", *words)
    assert refused.code == 2 and says in refused.summary["message"]
    assert ok(tmp_path / "runs", *words, "--skip-bad 1").run


def test_a_teacher_of_strength_0_orders_nothing(
    tmp_path: Path, tiny_folder: Path, tiny: Model
) -> None:
    from tiny_models import random_vector

    from traitscope.interventions.vector import vector_bytes

    vector = tmp_path / "v.safetensors"
    vector.write_bytes(vector_bytes(random_vector(tiny)))
    data = ("--data", written(tmp_path, ROWS), "--model", tiny_folder)
    steer = f"steer:{vector},layers=1,alpha=0"
    refused = call(tmp_path / "runs", "select", *data, "--interventions", steer)
    assert "all scores of 8 pairs are 0, so nothing orders them" in refused.summary["message"]
