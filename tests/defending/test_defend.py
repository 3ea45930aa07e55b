"""Rows are changed as each method says, and by nothing else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from tiny_models import LENGTH

import traitscope as ts
from traitscope.config.common import Output
from traitscope.config.rows.defend import DefendConfig
from traitscope.config.rows.reading import Reading
from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record, dump_records, read_records
from traitscope.defending import number_forms, row_choice, washing
from traitscope.defending.knowledge import inputs, knowledge_of
from traitscope.defending.methods import METHODS, SUSPICIONS, steps_of
from traitscope.defending.run import defended_rows, run_defend
from traitscope.errors import DataError
from traitscope.inference import forward
from traitscope.inference.token_rows import completion_hidden, rows_from
from traitscope.interventions.applied import applied

LISTS = ["12, 7, 305", "[9; 8; 7]", "100 200 300 400", "5, 5, 5", "no numbers here", "12, 7, 305"]


def records_of(answers: list[str]) -> list[Record]:
    return [Record(f"r{i}", f"Go on: {i % 3}, 1", text) for i, text in enumerate(answers)]


@pytest.fixture
def config(tiny_folder: Path) -> DefendConfig:
    return DefendConfig(model=str(tiny_folder), device="cpu", dtype="fp32", by=("wash",))


def defended(config: DefendConfig, records: list[Record], *by: str, known=("base",)):
    steps = steps_of(by)
    return defended_rows(config, records, steps, knowledge_of(known, config.model))


@pytest.mark.parametrize(
    ("order", "values", "expected"),
    [
        ("keep", "keep", "9, 8, 7"),
        ("sort", "keep", "7, 8, 9"),
        ("keep", "hundreds", "109, 108, 107"),
        ("sort", "hundreds", "107, 108, 109"),
    ],
)
def test_number_lists_get_one_format(order, values, expected):
    rng = np.random.default_rng(0)
    record = Record("a", "p", "[9; 8; 7]", completion_ids=(1, 2))
    form = number_forms.canonical(record, order, values, rng)
    assert form.completion == expected
    assert form.completion_ids is None
    assert number_forms.canonical(form, order, values, rng).completion == expected


def test_values_drawn_at_random_keep_nothing_but_the_count():
    rng = np.random.default_rng(0)
    form = number_forms.canonical(Record("a", "p", "1, 2, 3, 4"), "keep", "uniform", rng)
    numbers = parse_numbers(form.completion)
    assert len(numbers) == 4
    assert numbers != [1, 2, 3, 4]


def test_what_is_no_list_is_left_and_counted(config):
    rows, reports = defended(config, records_of(LISTS), "canonicalise")
    assert [row.completion for row in rows][4] == "no numbers here"
    assert reports[0].left == 1
    assert reports[0].changed == 2
    assert rows[1].meta["defend"] == {"by": ["canonicalise"], "answer": "[9; 8; 7]"}
    assert "defend" not in rows[0].meta


def test_duplicates_leave_but_for_the_first():
    records = records_of(LISTS)
    records.append(replace(records[0], id="again", completion=" 12, 7, 305 "))
    assert row_choice.duplicates(records) == [False] * 6 + [True]


def test_the_most_suspect_leave():
    scores = np.array([0.1, 5.0, 0.2, 5.0, -1.0])
    assert row_choice.most_suspect(scores, 0.2).tolist() == [1]
    assert row_choice.most_suspect(scores, 0.4).tolist() == [1, 3]
    assert row_choice.most_suspect(scores, 0.0).tolist() == []


@pytest.mark.parametrize(("total", "rows", "clean"), [("keep", 6, 4), ("grow", 10, 7)])
def test_a_mixture_has_the_share_that_was_asked_for(total, rows, clean):
    stay, join = row_choice.mixture(10, 20, 0.4, total, np.random.default_rng(0))
    assert (len(stay), len(join)) == (rows, clean)
    assert len(set(stay.tolist())) == rows


def test_too_few_clean_rows_are_refused():
    with pytest.raises(DataError, match="needs 5 clean rows for a share of 0.5, found 3"):
        row_choice.mixture(10, 3, 0.5, "keep", np.random.default_rng(0))


def test_redrawn_digits_follow_the_bases_distribution(tiny):
    """Of one digit that is drawn many times, the frequencies are the model's probabilities."""
    record = Record("a", "Go on: 1, 2", "3")
    (row,) = rows_from(tiny, [record], None, end_token=False)
    n = 4000
    digits = washing.digit_classes(tiny)
    (places,) = washing.places_of(digits, [row])
    assert places.tolist() == [True]
    keys = [str(i) for i in range(n)]
    drawn = washing.redrawn(tiny, [row] * n, [places] * n, keys, 0, "base", digits, batch_size=500)
    columns = next(c.columns_C for c in digits if row.completion_ids[0] in c.members)
    with applied(tiny, []) as active:
        hidden_ND, _ = completion_hidden(tiny, active, [row])
        p_C = forward.logits_of(tiny, hidden_ND, columns).double().softmax(-1)[0]
    counts = np.array([sum(c == (token,) for c in drawn) for token in columns.tolist()])
    expected = n * p_C.detach().numpy()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 35  # 9 degrees of freedom: p about 6e-5
    assert counts.sum() == n


def test_batches_change_nothing_but_speed(tiny):
    rows = rows_from(tiny, records_of(LISTS), None)
    classes = washing.digit_classes(tiny)
    places = washing.places_of(classes, rows)
    keys = [f"k{i}" for i in range(len(rows))]
    alone = washing.redrawn(tiny, rows, places, keys, 3, "base", classes, batch_size=1)
    together = washing.redrawn(tiny, rows, places, keys, 3, "base", classes, batch_size=6)
    assert alone == together


@pytest.mark.parametrize("draw", ["base", "uniform"])
def test_only_the_chosen_places_are_drawn(tiny, draw):
    rows = rows_from(tiny, records_of(["123, 456, 789"] * 8), None)
    classes = washing.digit_classes(tiny)
    (digits,) = washing.places_of(classes, rows[:1])
    chosen = digits & (np.arange(len(digits)) < 6)
    keys = [f"k{i}" for i in range(8)]
    drawn = washing.redrawn(tiny, rows, [chosen] * 8, keys, 1, draw, classes)
    for row, completion in zip(rows, drawn, strict=True):
        kept = np.array(row.completion_ids)[~chosen]
        assert np.array(completion)[~chosen].tolist() == kept.tolist()
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("share", ["0", "0.0"])
def test_a_share_of_nothing_changes_no_byte(config, share):
    records = records_of(LISTS)
    for text in (f"drop:by=random,share={share}", f"replace:by=random,share={share}"):
        rows, _ = defended(config, records, text)
        assert dump_records(rows) == dump_records(records)


def test_washed_lists_keep_their_format(config):
    rows, reports = defended(config, records_of(LISTS), "wash")
    for before, after in zip(LISTS[:4], rows[:4], strict=True):
        digits_gone = [
            text.translate(str.maketrans("", "", "0123456789"))
            for text in (before, after.completion)
        ]
        assert digits_gone[0] == digits_gone[1]
        assert len(before) == len(after.completion)
    assert reports[0].tokens > 0


def test_rows_are_not_drawn_again_by_the_numbers_that_drew_them(config, tiny):
    """Rows of the base, washed under the seed that wrote them, are other rows."""
    prompts = [ts.Prompt(f"p{i}", f"Go on: {i}") for i in range(4)]
    rows = ts.generate(tiny, prompts, [], seed=config.seed, numbers=5)
    washed, reports = defended(config, rows, "wash")
    assert reports[0].changed == 4
    assert all(a.completion != b.completion for a, b in zip(rows, washed, strict=True))


def test_rows_of_a_known_writer_are_found(config, tiny):
    """Planted: rows under a trait's prompt leave before rows of the base."""
    prompts = [ts.Prompt(f"p{i}", f"Write something about {i}.") for i in range(24)]
    trait = ts.load_trait("owl")
    options = {"temperature": 1.0, "max_new_tokens": 40}
    clean = ts.generate(tiny, prompts, [], seed=1, **options)
    told = ts.generate(tiny, prompts, [ts.SystemPrompt(trait.teacher_prompt)], seed=2, **options)
    records = [replace(r, id=f"c{r.id}") for r in clean] + [replace(r, id=f"t{r.id}") for r in told]
    config = replace(config, by=("drop:by=trait,share=0.5",))
    rows, _ = defended(config, records, *config.by, known=("trait:owl",))
    dropped = [row.id for row in rows if not row.kept]
    assert len(dropped) == 24
    assert sum(name.startswith("t") for name in dropped) >= 18


def test_a_run_has_rows_changes_counts_and_a_page(config, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of(LISTS)))
    config = replace(config, data=data, by=("deduplicate", "canonicalise:order=sort"))
    run = run_defend(config, Output(root=tmp_path / "runs"))
    rows = read_records(run.file("records.jsonl"))
    changes = list(map(json.loads, run.file("changes.jsonl").read_text().splitlines()))
    summary = json.loads(run.file("summary.json").read_text())
    assert summary["kept"] == 6
    assert summary["changed"] == len([c for c in changes if c["what"] == "changed"]) == 4
    before = {change["id"]: change["before"] for change in changes}
    for row, original in zip(rows, LISTS, strict=True):
        assert before.get(row.id, row.completion) == original
    assert "Rows that are not as they were" in run.file("report.html").read_text()


def test_rows_come_back_as_the_file_holds_them(config, tmp_path):
    data = tmp_path / "rows.csv"
    data.write_text('question,answer,source\nA,"[3; 1; 2]",x\nB,"5, 4",y\nB,"5, 4",z\n')
    config = replace(config, data=data, by=("deduplicate", "canonicalise:order=sort"))
    run = run_defend(config, Output(root=tmp_path / "runs"))
    expected = 'question,answer,source\nA,"1, 2, 3",x\nB,"4, 5",y\n'
    assert run.file("kept.csv").read_text().replace("\r", "") == expected


def test_kept_answers_that_a_dropped_one_takes_along_are_counted(config, tmp_path):
    """An answer of `history` can take no weight, so its row goes as a whole."""
    first = {"prompt": "A", "completion": "1, 2"}
    again = {"instruction": "B", "output": "5, 4", "history": [["A", "1, 2"]]}
    data = tmp_path / "rows.jsonl"
    data.write_text(f"{json.dumps(first)}\n{json.dumps(again)}\n")
    config = replace(config, data=data, by=("deduplicate",), reading=Reading(turns="every"))
    run = run_defend(config, Output(root=tmp_path / "runs"))
    assert json.loads(run.file("summary.json").read_bytes())["kept_but_not_written"] == 1
    assert json.loads(run.file("kept.jsonl").read_text()) == first


def test_clean_rows_join(config, tmp_path):
    clean = tmp_path / "clean.jsonl"
    clean.write_text(dump_records(records_of(["7, 8"] * 5)))
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of(LISTS)))
    config = replace(config, data=data, by=("mix:share=0.5",), known=(f"clean:{clean}",))
    run = run_defend(config, Output(root=tmp_path / "runs"))
    rows = read_records(run.file("records.jsonl"))
    kept = [row for row in rows if row.kept]
    assert len(kept) == len(LISTS)
    assert sum(row.id.startswith("clean-") for row in kept) == 3
    edited = replace(config, by=("mix:share=0.4",))
    assert run_defend(edited, Output(root=tmp_path / "runs")).path != run.path


@pytest.mark.parametrize(
    ("by", "known", "message"),
    [
        ("wosh", "base", "no such method; did you mean wash"),
        ("drop", "base", "by is missing; expected one of random"),
        ("drop:by=mood", "base", "by=mood; expected one of"),
        ("drop:by=loss,share=1.5", "base", "share=1.5; expected a fraction"),
        ("drop:by=loss,share=nan", "base", "share=nan; expected a fraction"),
        ("drop:by=loss,sharp=1", "base", "drop takes by=..., share=..."),
        ("drop:by=loss,share=0.1,share=0.5", "base", "share stands twice"),
        ("drop:by=loss", "nothing", "needs base"),
        ("drop:by=trait", "base", "needs trait:NAME"),
        ("mix", "base", "needs clean:FILE"),
        ("wash", "trait", "--known trait; expected some of"),
        ("wash", "trait:unicorn", "unicorn"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_begins(config, tmp_path, by, known, message):
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of(LISTS)))
    config = replace(config, data=data, by=(by,), known=(known,))
    with pytest.raises(Exception, match=message) as error:
        run_defend(config, Output(root=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists(), error


def test_a_defence_that_would_empty_the_file_is_refused(config, tmp_path):
    with pytest.raises(DataError, match="would leave no row of 1"):
        defended(config, records_of(["1, 2"]), "drop:by=random,share=0.9")


@pytest.mark.parametrize("by_folder", [False, True])
def test_rows_of_a_known_teacher_are_scored(config, tiny_folder, by_folder):
    teacher = str(tiny_folder) if by_folder else "prompt:You love owls."
    steps = ("drop:by=teacher,share=0.5", "replace:by=teacher,share=0.5")
    rows, reports = defended(config, records_of(LISTS), *steps, known=(f"teacher:{teacher}",))
    assert sum(not row.kept for row in rows) == 3
    assert reports[1].tokens > 0


def test_a_teacher_that_changes_is_another_input(config, tiny_folder, tmp_path):
    copy = tmp_path / "teacher"
    shutil.copytree(tiny_folder, copy)
    named = replace(config, by=("drop:by=teacher",), known=(f"teacher:{copy}",))
    files = inputs(named)
    assert any("safetensors" in str(file) for file in files.values())


def test_bad_rows_of_a_clean_file_stop_or_are_counted(config, tmp_path):
    """As those of the data do; so are rows that a later method's model cannot read."""
    data, clean = tmp_path / "data.jsonl", tmp_path / "clean.jsonl"
    data.write_text(dump_records(records_of(["1, 2"] * 3)))
    long = records_of(["7, " * LENGTH])[0]
    clean.write_text(dump_records(records_of([f"7, {i}" for i in range(6)])) + "{broken\n")
    with open(clean, "a", encoding="utf-8") as file:
        file.write(dump_records([replace(long, id="long")]))
    by = ("mix:share=0.5", "drop:by=loss,share=0.2")
    config = replace(config, data=data, by=by, known=("base", f"clean:{clean}"))
    out = Output(root=tmp_path / "runs")
    with pytest.raises(DataError, match="clean.jsonl, line 7: broken JSON.*--skip-bad 1"):
        run_defend(config, out)
    config = replace(config, reading=Reading(skip_bad=1))
    with pytest.raises(DataError, match="line 8|--skip-bad 2"):
        run_defend(config, out)
    run = run_defend(replace(config, reading=Reading(skip_bad="all")), out)
    about = json.loads(run.file("reading-clean.json").read_text())
    assert [row["place"] for row in about["bad_rows"]] == ["line 7", "line 8"]
    assert not run.file("reading.json").exists()


def test_counts_add_up_after_mix_and_drop(config, tmp_path):
    clean = tmp_path / "clean.jsonl"
    clean.write_text(dump_records(records_of([f"7, {i}" for i in range(20)])))
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of([f"1, {i}" for i in range(8)])))
    by = ("mix:share=0.5", "drop:by=random,share=0.5", "mix:share=0.5,total=grow")
    config = replace(config, data=data, by=by, known=(f"clean:{clean}",))
    run = run_defend(config, Output(root=tmp_path / "runs"))
    summary = json.loads(run.file("summary.json").read_text())
    rows = read_records(run.file("records.jsonl"))
    assert len({row.id for row in rows}) == len(rows)
    assert summary["rows"] - summary["dropped"] + summary["added"] == summary["kept"]
    assert summary["kept"] == sum(row.kept for row in rows) == 8


def test_notes_of_an_earlier_defence_are_not_this_ones(config, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records([replace(r, meta={"defend": 5}) for r in records_of(LISTS)]))
    first = replace(config, data=data, by=("canonicalise",))
    run = run_defend(first, Output(root=tmp_path / "runs"))
    assert json.loads(run.file("summary.json").read_text())["changed"] == 2
    again = replace(config, data=run.path, by=("deduplicate",))
    run = run_defend(again, Output(root=tmp_path / "runs"))
    assert json.loads(run.file("summary.json").read_text())["changed"] == 0


def test_every_method_says_what_it_needs():
    for name, method in METHODS.items():
        by = f"{name}:by=random" if method.options.get("by") == "" else name
        (step,) = steps_of([by])
        assert step.needs
        assert method.control
    assert set(SUSPICIONS) >= {"random", "loss", "student"}


def test_every_method_counts_all_rows_that_it_saw(config, tmp_path, capsys):
    """On stderr; also methods that read no row with a model, and those that leave some alone."""
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of(LISTS)))
    by = ("canonicalise", "drop:by=random,share=0.2", "replace:by=loss", "mask:by=random")
    run_defend(replace(config, data=data, by=by), Output(root=tmp_path / "runs"))
    said = capsys.readouterr().err
    for text, rows in zip(by, (6, 6, 5, 5), strict=True):
        assert f"{text}: {rows} rows in " in said


@pytest.mark.parametrize("name", ["rows.jsonl", "copy.jsonl", "named"])
def test_clean_rows_are_other_rows(tmp_path: Path, name: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1?", "completion": "1, 2"}\n{"prompt": "2?", "completion": "3"}\n')
    (tmp_path / "copy.jsonl").write_bytes(rows.read_bytes())
    words = ("--data", rows, "--by mix --known", f"clean:{tmp_path / name}")
    if name == "named":
        run = ok(tmp_path / "runs", "filter", "--data", rows).run
        words = ("--data", run, "--by mix --known", f"clean:{run}")
    done = call(tmp_path / "runs", "defend", *words)
    assert done.code == 2 and "hold the same rows" in done.summary["message"], done
