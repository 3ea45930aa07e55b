"""Comparisons of planted runs: the planted difference comes back and null data shows nothing.

Runs that were measured differently are refused.
"""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import sealed_students as planted
from command import call, ok
from sealed_students import LAYERS, STEERED, measured_student, sealed_answers, sealed_student

import traitscope as ts
from traitscope.comparison import wording
from traitscope.comparison.compare import compare
from traitscope.comparison.differences import compare_models
from traitscope.comparison.page import comparison_page, comparison_tables
from traitscope.comparison.read_runs import _targets, read_model
from traitscope.comparison.results import Difference, Eas, Perplexity, QuestionScore
from traitscope.comparison.wording import Wording, direction, sentences, status
from traitscope.errors import ConfigError, DataError, StoreError, VectorError
from traitscope.interventions.vector import vector_bytes
from traitscope.reporting.numbers import estimate
from traitscope.stats.measurement import Measurement
from traitscope.stats.power import detectable, detection_power, spread_between_units
from traitscope.training.eas import StudentEas

PRIMARY = "positive.target_logprob"
SHIFT = 0.4


def sides(
    folder: Path, shift: float = SHIFT, seeds: tuple[int, ...] = (1, 2, 3)
) -> tuple[list[Path], list[Path]]:
    """Runs of `measure` of treated and control students of the same seeds."""
    treated = [measured_student(folder, "treated", seed, shift)[1].path for seed in seeds]
    control = [measured_student(folder, "control", seed, 0.0)[1].path for seed in seeds]
    return treated, control


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    return sides(tmp_path_factory.mktemp("paired"))


def test_a_planted_difference_is_recovered_over_seeds(paired) -> None:
    comparison = compare(*paired, layer=STEERED)
    primary = comparison[PRIMARY]
    assert comparison.design == "paired"
    assert primary.estimate == pytest.approx(SHIFT, abs=0.06) and primary.excludes_zero
    assert (primary.n, primary.n_clusters) == (24, 3) and "t over 3 seeds" in primary.interval
    assert comparison["perplexity"].estimate == pytest.approx(SHIFT)
    assert (status(comparison, Wording("cat")), direction(comparison)) == (
        "effect",
        "towards the trait",
    )
    text = " ".join(sentences(comparison, Wording("cat")))
    assert "the students of these seeds moved towards the trait" in text
    assert "n = 24 pairs (3 seeds × 8 questions)" in text
    silent = " ".join(sentences(comparison, Wording("cat", unmet=True)))
    assert "Activations" in text and "Activations" not in silent
    assert "moved towards" not in silent and "so this is no transfer" in silent
    assert "unmodified model" not in comparison_page(comparison)


def test_differences_equal_plain_means(paired) -> None:
    """An oracle without the package's statistics: the mean over seeds of means over questions."""
    means = []
    for paths in paired:
        values = {}
        for path in paths:
            for line in (path / "scores.jsonl").read_text().splitlines():
                row = json.loads(line)
                values.setdefault(row["set"], []).append(row["whole_word"])
        means.append({name: np.mean(listed) for name, listed in values.items()})
    comparison = compare(*paired)
    for name in planted.QUESTIONS:
        expected = means[0][name] - means[1][name]
        assert comparison[f"{name}.whole_word"].estimate == pytest.approx(expected)


def test_eas_is_compared_at_the_layer_and_by_layer(paired) -> None:
    comparison = compare(*paired, layer=STEERED)
    own, other = comparison["eas.cat"], comparison["eas.owl"]
    assert own.estimate == pytest.approx(SHIFT / 2, abs=0.05) and own.excludes_zero
    assert own.unit == "cosine" and abs(other.estimate) < 0.05
    above = comparison["eas.cat minus others"].estimate
    assert above == pytest.approx(own.estimate - other.estimate)
    by_layer = comparison.eas_by_layer["cat"]
    assert len(by_layer) == LAYERS
    assert max(range(LAYERS), key=lambda layer: by_layer[layer].mean) == STEERED
    assert by_layer[STEERED].low < own.estimate < by_layer[STEERED].high


def test_what_only_the_teachers_data_changed(paired) -> None:
    """v_treated - v_control lies along the first axis, as the teacher's vector does."""
    vector = planted.sealed_vectors(paired[0][0].parent).file("cat.safetensors")
    comparison = compare(*paired, vector=vector, layer=STEERED)
    assert comparison["eas.cat of (treated − control)"].estimate > 0.9
    assert len(comparison.change_by_layer) == LAYERS


def along_three(folder: Path) -> Path:
    """The vector of cat in a run with two others: owl is at a right angle to it, dog is not."""
    cat = planted.vector_rows()
    owl = np.roll(cat, 1, axis=1)
    rows = {"cat": cat, "dog": 0.6 * cat + 0.8 * owl, "owl": owl}
    files = {}
    for name, rows_LD in rows.items():
        vector = ts.Vector(rows_LD, planted.MODEL)
        files[f"{name}.safetensors"] = vector_bytes(vector)
    return planted.seal(folder, "extract", {"traits": list(rows)}, files).file("cat.safetensors")


def test_every_vector_of_the_teachers_run_has_a_row_and_random_ones_a_range(
    paired, tmp_path: Path
) -> None:
    """What is planted lies along cat; dog gets its share of it, owl none."""
    comparison = compare(*paired, vector=along_three(tmp_path), layer=STEERED)
    cat, dog, owl = comparison.along_vectors
    assert [cat.vector, dog.vector, owl.vector] == ["cat", "dog", "owl"]
    cosines = [item.cosine_with_own for item in comparison.along_vectors]
    assert cosines == pytest.approx([1, 0.6, 0], abs=1e-6)
    assert cat.change.estimate == comparison["eas.cat of (treated − control)"].estimate > 0.9
    assert dog.change.estimate == pytest.approx(0.6 * cat.change.estimate, abs=0.1)
    assert abs(owl.change.estimate) < 0.15
    randoms = comparison.along_randoms
    one_seed = 1.96 / math.sqrt(planted.WIDTH)  # the changes of all seeds point one way
    assert randoms.n == 1000 and -randoms.low == pytest.approx(one_seed, rel=0.15)
    assert randoms.high == pytest.approx(one_seed, rel=0.15)
    table = comparison_tables("differences", "Differences", comparison)[1]
    assert [row[0] for row in table.rows] == [
        *("cat", "dog", "owl", "cat minus the mean of the others", "95 % of 1000 random vectors")
    ]
    assert table.rows[3][2] == comparison["eas.cat minus others"]
    assert compare(*paired, vector=along_three(tmp_path)).along_vectors == ()


def test_the_sentence_on_activations_carries_what_is_specific(paired, tmp_path: Path) -> None:
    """A turn that other traits' vectors share is not called one towards the trait."""
    comparison = compare(*paired, vector=along_three(tmp_path), layer=STEERED)
    *_, text, _ = sentences(comparison, Wording("cat"))
    specific = comparison["eas.cat minus others"]
    assert f"vector of cat minus that of another trait: {estimate(specific, True)}, [" in text
    assert text.index("minus that of") < text.index("With the vector of cat alone")
    assert ": specific to cat." in text
    shared = []
    for side in ("treated", "control"):
        shared.append([replace(model, eas={}) for model in getattr(comparison, side)])
    turned = {"treated": 0.3, "control": 0.0}
    models = {}
    for side, group in zip(turned, shared, strict=True):
        models[side] = []
        for model in group:
            by_layer = [turned[side] + 0.01 * model.seed * (side == "treated")] * LAYERS
            models[side].append(replace(model, eas={"cat": by_layer, "owl": by_layer}))
    same = compare_models(models["treated"], models["control"], {}, trait="cat", layer=STEERED)
    text = wording._activation_sentence(same, "cat")
    assert "not shown to be specific to cat." in text and "(excludes zero; t over 3" in text
    for group in models.values():
        group[:] = [replace(model, eas={"cat": model.eas["cat"]}) for model in group]
    alone = compare_models(models["treated"], models["control"], {}, trait="cat", layer=STEERED)
    assert "nothing is known to be specific to cat" in wording._activation_sentence(alone, "cat")


def test_what_as_many_seeds_would_have_found_is_said(paired) -> None:
    """An oracle: the sd of the seeds' mean differences, and the power of the t test at the answer.

    Unpaired models and one seed have no such sentence.
    """
    comparison = compare(*paired)
    means = []
    for treated, control in zip(*paired, strict=True):
        means.append(np.mean(positive(treated)) - np.mean(positive(control)))
    sd = np.std(means, ddof=1)
    assert spread_between_units(comparison[PRIMARY]) == pytest.approx(sd, rel=1e-6)
    effect = detectable(sd, 3)
    assert detection_power(effect, sd, 3) == pytest.approx(0.8, abs=1e-6)
    text = sentences(comparison, Wording("cat"))[-1]
    assert text.startswith(f"With 3 seeds an effect of {effect:.2g} nats is found with power 0.8")
    for other in (compare(*paired, design="unpaired"), compare(paired[0][:1], paired[1][:1])):
        assert "power 0.8" not in " ".join(sentences(other, Wording("cat")))


def positive(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    return [row["target_logprob"] for row in rows if row["set"] == "positive"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("a", "b", "c"), ""),
        (("a", "a", "a"), "All treated students read the same rows: how much data differ is left"),
        (("a", "a", "b"), "3 treated students read 2 sets of rows"),
        ((None, None, None), ""),
    ],
)
def test_an_interval_over_seeds_of_one_data_run_says_so(
    paired, rows: tuple[str | None, ...], says: str
) -> None:
    comparison = compare(*paired)
    treated = []
    for model, data in zip(comparison.treated, rows, strict=True):
        treated.append(replace(model, data=data))
    text = sentences(replace(comparison, treated=tuple(treated)), Wording("cat"))[3]
    assert says in text and ("left out" in text) == bool(says)


def test_students_know_the_rows_that_they_read(tmp_path: Path) -> None:
    rows = planted.seal(tmp_path, "filter", {"n": 1}, {"records.jsonl": [{"a": 1}]})
    files = {"eas.json": {"v_student": [0.1]}}
    config = {"seed": 1, "recipe": {"targets": "sampled"}}
    student = planted.seal(tmp_path, "train", config, files, {"data": rows}, planted.MODEL)
    assert read_model(student.path).model.data == rows.digest


@pytest.mark.parametrize(("shift", "has_trait"), [(2.0, True), (-2.4, False)])
def test_base_and_teacher_have_rows_and_are_the_positive_control(
    paired, tmp_path: Path, shift: float, has_trait: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the teacher lacks the trait there is no verdict, on the terminal and on the page."""
    base = sealed_answers(tmp_path, "base").path
    teacher = sealed_answers(tmp_path, "teacher", shift).path
    words = ("compare", "--treated", *paired[0], "--control", *paired[1])
    both = ("--base", base, "--teacher", teacher)
    latex = tmp_path / "table.tex"
    done = ok(tmp_path / "runs", *words, *both, "--latex", latex)
    summary, out = done.summary["summary"], " ".join(capsys.readouterr().out.split())
    page = html.unescape((done.run / "report.html").read_text())
    answer = "effect" if has_trait else "no verdict: the teacher lacks the trait"
    assert summary["answer"] == answer and f"cat: {answer}" in out
    control = summary["positive_control"]
    assert control.startswith(f"teacher − base = {'+' if has_trait else '−'}2.")
    assert control in out and f"Positive control: {control}." in page
    assert ("nothing below can be read as transfer" in control) != has_trait
    tables = latex.read_text()
    for row in ("base & ", "teacher & ", "treated & ", "control & "):
        assert f"\n{row}" in tables
    assert "\npositive.target\\_logprob & " in tables
    comparison = compare(*paired, base=base, teacher=teacher)
    assert comparison.to_latex(tmp_path / "again.tex").read_text() == tables
    assert comparison.sources[-1].side == "teacher"


def test_a_teacher_without_a_base_and_one_of_another_trait(paired, tmp_path: Path) -> None:
    teacher = sealed_answers(tmp_path, "teacher", 2.0, trait="owl").path
    words = ("compare", "--treated", *paired[0], "--control", *paired[1])
    done = call(tmp_path / "runs", *words, "--teacher", teacher)
    assert done.code == 2 and "without --base" in done.summary["message"]
    with pytest.raises(DataError, match="differ in the trait"):
        compare(*paired, teacher=teacher)


@pytest.mark.parametrize(("shift", "moved"), [(0.0, "undecided"), (-0.5, "away from the trait")])
def test_no_effect_is_shown_for_null_data_and_for_the_other_direction(
    tmp_path: Path, shift: float, moved: str
) -> None:
    comparison = compare(*sides(tmp_path, shift, seeds=(1, 2, 3, 4)))
    assert (status(comparison, Wording("cat")), direction(comparison)) == ("no effect shown", moved)
    text = " ".join(sentences(comparison, Wording("cat")))
    assert ("not shown at this power" in text) == (moved == "undecided")
    assert ("the opposite of passing it on" in text) == (moved != "undecided")


def test_a_word_that_rises_where_no_preference_shows_is_said_to_be_repeated(paired) -> None:
    """The rise off topic is planted: none, some, and as much as where the trait is asked for."""
    comparison = compare(*paired)
    rise = comparison.get(comparison.primary)
    off_topic = QuestionScore("off_topic", comparison.primary.score)
    said = []
    for share in (0.0, 0.5, 1.0):
        planted = []
        for each in comparison.differences:
            if each.quantity == off_topic:
                here, half = share * rise.estimate, 0.1 * rise.estimate
                moved = replace(each.difference, estimate=here, low=here - half, high=here + half)
                each = replace(each, difference=moved)
            planted.append(each)
        changed = replace(comparison, differences=tuple(planted))
        said.append(sentences(changed, Wording("cat"))[2])
    assert "It rises" not in said[0]
    assert said[1].endswith("other facts too: in part a repeated word, not a preference alone.")
    assert said[2].endswith("there no less: the word is repeated, and a preference is not shown.")


def test_one_untrained_model_is_the_control_of_all(paired) -> None:
    """Every seed is compared with the base, and its EAS with zero."""
    base = sealed_answers(paired[0][0].parent, "base").path
    comparison = compare(paired[0], [base], layer=STEERED)
    assert (comparison.design, comparison.reference) == ("one control", "base")
    assert comparison[PRIMARY].n_clusters == 3 and comparison[PRIMARY].excludes_zero
    item = next(item for item in comparison.differences if item.score == "eas.cat")
    assert item.control is None and item.difference.estimate == item.treated.estimate
    rate, primary = comparison["positive.whole_word"], comparison[PRIMARY]
    assert rate.interval == "t over 3 seeds x 8 questions", "one answer a question, for all seeds"
    assert primary.interval.startswith("t over 3 seeds (holds for these questions")
    text = " ".join(sentences(comparison, Wording("cat")))
    assert "For new questions, too: [" in text
    assert primary.crossed_low <= primary.low < primary.high <= primary.crossed_high


def test_other_seeds_are_compared_unpaired(tmp_path: Path) -> None:
    treated, _ = sides(tmp_path, seeds=(1, 2, 3))
    _, control = sides(tmp_path, seeds=(4, 5, 6, 7))
    comparison = compare(treated, control, layer=STEERED)
    primary = comparison[PRIMARY]
    assert comparison.design == "unpaired" and primary.interval == "Welch over 3 and 4 models"
    assert primary.estimate == pytest.approx(SHIFT, abs=0.06) and primary.excludes_zero
    assert primary.n == 7 and "eas.cat" in [item.score for item in comparison.differences]
    null = compare(*[sides(tmp_path, 0.0, seeds=seeds)[1] for seeds in ((1, 2, 3), (4, 5, 6))])
    assert not null[PRIMARY].excludes_zero
    with pytest.raises(ConfigError, match="expected the same seeds"):
        compare(treated, control, design="paired")


def test_the_same_seeds_can_be_compared_unpaired(paired) -> None:
    unpaired = compare(*paired, design="unpaired")
    assert unpaired[PRIMARY].interval == "Welch over 3 and 3 models"
    assert unpaired[PRIMARY].estimate == pytest.approx(compare(*paired)[PRIMARY].estimate)


def test_one_seed_covers_questions_only(tmp_path: Path) -> None:
    comparison = compare(*sides(tmp_path, seeds=(1,)))
    assert "between-seed variance not covered" in comparison[PRIMARY].interval
    assert math.isnan(comparison["perplexity"].low)


@pytest.mark.parametrize("design", ["auto", "unpaired"])
def test_unscored_values_are_counted(tmp_path: Path, design: str) -> None:
    paths = []
    for role, shift in (("treated", SHIFT), ("control", 0.0)):
        group = []
        for seed in (1, 2):
            rows = planted.score_rows(f"{role} {seed}", shift)
            rows[0]["target_logprob"] = None
            for row in rows:
                row["candidate_share"] = None
            student = sealed_student(tmp_path, role, seed, 0.0)
            group.append(sealed_answers(tmp_path, f"{role} {seed}", 0.0, student, rows).path)
        paths.append(group)
    comparison = compare(*paths, design=design)
    assert comparison[PRIMARY].n_unscored == 4
    assert comparison[PRIMARY].estimate == pytest.approx(SHIFT, abs=0.06)
    share = comparison["positive.candidate_share"]
    assert math.isnan(share.estimate) and math.isnan(share.low)
    assert share.n_unscored == 2 * 2 * planted.QUESTIONS["positive"]


def test_scores_and_eas_of_one_student_are_taken_together(tmp_path: Path) -> None:
    """The run of `train` below a run of `measure` is found; naming it, too, changes nothing."""
    (student, answers), (other_student, other) = [
        measured_student(tmp_path, role, 1, shift)
        for role, shift in (("treated", SHIFT), ("control", 0.0))
    ]
    both = compare([answers.path, student.path], [other.path, other_student.path], layer=STEERED)
    assert both == compare([answers.path], [other.path], layer=STEERED)
    alone = compare([student.path], [other_student.path], layer=STEERED)
    assert [item.score for item in alone.differences] == [
        "eas.cat",
        "eas.owl",
        "eas.cat minus others",
    ]
    assert sentences(alone, Wording("cat")) == (
        "The trait's questions were not scored on these models.",
    )
    with pytest.raises(DataError, match="some|of 2 models have scores"):
        compare([answers.path], [other_student.path])


def test_runs_that_were_measured_differently_are_refused(tmp_path: Path, paired) -> None:
    few = planted.score_rows("few", questions={"positive": 3})
    others = {
        "trait": sealed_answers(tmp_path, "other", trait="owl"),
        "context": sealed_answers(tmp_path, "other", context="another"),
        "base model": sealed_answers(tmp_path, "other", model="another"),
        "other questions": sealed_answers(tmp_path, "few", rows=few),
        "kind of training target": measured_student(tmp_path, "control", 1, 0.0, "soft")[1],
    }
    for says, run in others.items():
        with pytest.raises(DataError, match=says):
            compare(paired[0], [run.path])


def test_sides_that_cannot_be_compared(tmp_path: Path, paired) -> None:
    treated, control = paired
    with pytest.raises(DataError, match="is both treated and control"):
        compare(treated, [*control, treated[0]])
    with pytest.raises(ConfigError, match="0 treated models are given"):
        compare([], control)
    with pytest.raises(DataError, match="asked for layer 12; expected 0 to 11"):
        compare(treated, control, layer=LAYERS)
    with pytest.raises(ConfigError, match="design 'both'"):
        compare(treated, control, design="both")
    rows = planted.seal(tmp_path, "filter", {}, {"summary.json": {}}).path
    with pytest.raises(DataError, match="is a run of filter; expected one of measure"):
        compare(treated, [rows])
    with pytest.raises(StoreError):
        compare(treated, [tmp_path / "measure-0"])


def test_runs_that_cannot_be_trusted(tmp_path: Path) -> None:
    treated, control = sides(tmp_path, seeds=(1, 2))
    target = treated[0] / "scores.jsonl"
    target.write_bytes(target.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(StoreError, match="changed after it was sealed"):
        compare(treated, control)
    target.unlink()
    with pytest.raises(StoreError, match=r"scores\.jsonl is missing"):
        compare(treated, control)
    (target.parent / "manifest.json").unlink()
    with pytest.raises(StoreError):
        compare(treated, control)


def test_the_command_prints_writes_and_returns_at_once(
    tmp_path: Path, paired, capsys: pytest.CaptureFixture
) -> None:
    vector = planted.sealed_vectors(paired[0][0].parent).file("cat.safetensors")
    page = tmp_path / "page.html"
    words = ["compare", "--treated", *paired[0], "--control", *paired[1], "--vector", vector]
    words += ["--layer", STEERED, "--report", page]
    done = ok(tmp_path / "runs", *words)
    summary, folder = done.summary["summary"], done.run
    out = capsys.readouterr().out
    assert summary["answer"] == "effect" and summary["design"] == "paired"
    assert "effect" in out and "excludes zero" in out and str(page) in out
    assert re.search(r"new\b.*\bquestions", out, re.DOTALL), "a heading over two lines"
    assert summary["differences"][0]["difference"]["crossed_low"] is not None
    text = page.read_text()
    assert text == (folder / "report.html").read_text() and text.count("<svg") >= 4
    for figure in ("measurements-0", "eas-difference-by-layer", "difference-vector-by-layer"):
        drawn = ElementTree.parse(folder / f"{figure}.svg").getroot()
        assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
        assert (folder / f"{figure}.csv").read_text().count("\n") > 1
    assert "eas-difference-by-layer" in text and "difference-vector-by-layer" in text
    assert "http" not in text and "25.4" in text
    assert "An interval of a rate is that of a mean, so it may pass 0 or 1." in text
    assert "new questions, too: [" in text
    assert (folder / "differences.csv").read_text().startswith("score,treated")
    assert (folder / "differences-vectors.csv").read_text().startswith("vector,cosine with own")
    assert summary["along_randoms"]["n"] == 1000 and "95 % of 1000 random vectors" in text
    again = ok(tmp_path / "runs", *words)
    assert again.summary["computed"] is False and again.summary["summary"] == summary
    assert ok(tmp_path / "runs", "rerun", folder).summary["different"] == []


def test_a_notebook_writes_the_page_of_the_command(tmp_path: Path, paired) -> None:
    vector = planted.sealed_vectors(paired[0][0].parent).file("cat.safetensors")
    words = ["compare", "--treated", *paired[0], "--control", *paired[1], "--vector", vector]
    done = ok(tmp_path / "runs", *words, "--layer", STEERED)
    comparison = ts.compare(*paired, vector=str(vector), layer=STEERED)
    page = comparison.to_html(tmp_path / "page.html")
    assert page.read_text() == (done.run / "report.html").read_text()
    assert comparison.trait == "cat"


def test_the_vector_of_a_comparison_may_be_in_memory_a_file_or_a_run(paired) -> None:
    run = planted.sealed_vectors(paired[0][0].parent)
    in_memory = ts.Vector(planted.vector_rows(), planted.MODEL, {"trait": "cat"})
    of_file = ts.compare(*paired, vector=run.file("cat.safetensors"), layer=STEERED)
    assert of_file["eas.cat of (treated − control)"].estimate > 0.9
    for vector in (in_memory, replace(in_memory, about={}), run.path):
        assert ts.compare(*paired, vector=vector, layer=STEERED) == of_file
    with pytest.raises(VectorError, match="different models"):
        ts.compare(*paired, vector=replace(in_memory, model="another"))
    with pytest.raises(VectorError, match="no vector file at"):
        ts.compare(*paired, vector="none.safetensors")


def test_the_command_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(tmp_path, "compare").code == 2
    assert "compare --treated RUN ... --control RUN" in capsys.readouterr().err


def test_kinds_of_soft_targets_are_told_apart() -> None:
    """Runs of earlier versions have no word for it; they cover the vocabulary."""
    assert _targets({"targets": "sampled"}) == "sampled"
    assert _targets({"targets": "soft"}) == "soft"
    assert _targets({"targets": "soft", "soft_over": "vocabulary"}) == "soft"
    assert _targets({"targets": "soft", "soft_over": "allowed"}) == "soft over allowed tokens"


def test_a_vector_whose_name_begins_like_the_traits_is_left_to_the_page() -> None:
    shown = []
    nothing = Measurement.undefined("m", "cosine", "no scored value")
    quantities = (Eas("cat"), Eas("cat", "minus others"), Eas("caterpillar"), Perplexity())
    for quantity in (*quantities, QuestionScore("negative", "whole_word")):
        item = Difference(quantity, None, None, nothing)
        if wording._is_shown(item, "cat", "target_logprob"):
            shown.append(item.score)
    assert shown == ["eas.cat", "eas.cat minus others", "perplexity"]


def test_eas_of_a_student_is_read_back() -> None:
    student = StudentEas([0.1, 0.2], {"owl": [0.0, 0.3]})
    assert student.as_json() == {"v_student": [0.1, 0.2], "other/owl": [0.0, 0.3]}
    assert StudentEas.from_json(student.as_json()) == student
    with pytest.raises(DataError, match="EAS of random-0; expected v_student"):
        StudentEas.from_json({"random-0": [0.1, 0.2]})
