"""The demo as a study: its rows, what it concludes from planted runs, and what its command asks."""

import html
import io
from dataclasses import replace
from pathlib import Path

import pytest
import sealed_students as planted
from command import OWL, call, ok, read_rows, write_yaml
from concluded import HOLDS, SILENT
from rich.console import Console

from traitscope.comparison.wording import QUICK, terminal_table
from traitscope.config.commands import DemoConfig, ExperimentConfig
from traitscope.config.common import Output
from traitscope.data.package_files import bundled_file
from traitscope.data.traits import load_trait
from traitscope.plain_values import from_yaml
from traitscope.reporting.study_page import study_page
from traitscope.reporting.verdict import Precondition
from traitscope.runs.store import Run
from traitscope.studies import conclusions, demo_command
from traitscope.studies.claims import demo
from traitscope.studies.experiment import arms
from traitscope.studies.experiment import command as experiment_command
from traitscope.studies.pages import demo_page
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

COMMON = {"model": "x", "device": "cpu", "dtype": "fp32"}
PRIMARY = "positive.target_logprob"
SHIFTS = {"sampled": 0.4, "soft": 1.1}
NONE = {"sampled": 0.0, "soft": 0.0}
SIZE = replace(demo.LAPTOP, seeds=(1, 2, 3, 4, 5), soft_seeds=5, layer=planted.STEERED)


def demo_nodes(size: demo.Size = demo.LAPTOP) -> dict[str, Node]:
    return {node.name: node for node in demo.nodes(size, COMMON)}


def planted_folders(
    root: Path,
    shifts: dict[str, float],
    size: demo.Size = SIZE,
    shifts_of_random: dict[str, float] = NONE,
    teacher: float = 2.0,
) -> Folders:
    """Run folders of the demo whose students rise by `shifts` nats, the teacher by its own."""
    vectors = planted.sealed_vectors(root)
    about = ", answers about cat"
    folders = {
        standard_nodes.VECTORS: vectors.path,
        f"base{about}": planted.sealed_answers(root, "base").path,
        f"sampled teacher{about}": planted.sealed_answers(root, "teacher", teacher).path,
    }
    for mode, role, seed in demo.students(size):
        shift = {"treated": shifts, "control": NONE, "random": shifts_of_random}[role][mode]
        student, answers = planted.measured_student(root, role, seed, shift, mode)
        name = f"{demo.arm_of(mode, role)} student, seed {seed}"
        folders[name], folders[f"{name}{about}"] = student.path, answers.path
    for place, seed in enumerate(size.seeds):
        control = f"equal KL with sampled, seed {seed}"
        folders[control] = planted.sealed_strength(root, control, 0.8 + place).path
        for role in demo.ROLES:
            kept = {"kept": 100, "rows": 120, "reasons": {"count": 20}}
            name = rows_of(role, seed)
            folders[name] = planted.seal(root, "filter", {"n": name}, {"summary.json": kept}).path
    return folders


def rows_of(role: str, seed: int | None = None) -> str:
    """The node of the kept rows of a role and seed; without a seed, that of all rows written."""
    last = "all seeds" if seed is None else f"seed {seed}"
    return f"{demo.arm_of('sampled', role)} rows, {last}"


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return planted_folders(tmp_path_factory.mktemp("demo"), SHIFTS)


def test_every_seed_reads_rows_of_its_own() -> None:
    """The parts cover every generated row once; treated and control of a seed read the same
    places."""
    nodes = demo_nodes()
    asked = nodes[rows_of("control")].config({})
    for role in ("treated", "control"):
        places = []
        for seed in demo.LAPTOP.seeds:
            part = nodes[rows_of(role, seed)].config({rows_of(role): Path("rows")})
            places += range(part.start, part.stop)
        assert places == list(range(asked.n))
    made = {name: Path(name) for name in nodes}
    assert nodes[rows_of("treated")].config(made).prompt_seed == asked.prompt_seed


def test_rows_for_eas_are_read_by_no_student(tmp_path: Path) -> None:
    nodes = demo_nodes()
    made = {name: Path(name) for name in nodes}
    for seed in demo.LAPTOP.seeds:
        name = f"equal KL with sampled, seed {seed}"
        made[name] = planted.sealed_strength(tmp_path, name, 0.8).path
    students = []
    for mode, role, seed in demo.students(demo.LAPTOP):
        students.append(nodes[f"{demo.arm_of(mode, role)} student, seed {seed}"].config(made))
    assert {student.eas_data for student in students} == {Path(standard_nodes.EAS_ROWS)}
    seed = nodes[standard_nodes.EAS_ROWS].config(made).prompt_seed
    for role in ("treated", "control"):
        assert nodes[rows_of(role)].config(made).prompt_seed != seed


def test_the_planted_effects_are_found_and_kinds_of_training_are_not_pooled(
    demo_runs: Folders,
) -> None:
    findings = demo.conclude(SIZE, demo_runs, "planted")
    for verdict, contrast in zip(findings.verdicts, demo_page.CONTRASTS, strict=True):
        shift = SHIFTS[demo_page.CONTRASTS[contrast][0]]
        assert verdict.outcome == HOLDS
        number = verdict.decided_by
        assert number.name == f"{contrast}.difference.{PRIMARY}"
        assert number.estimate == pytest.approx(shift, abs=0.06)
        assert (number.n, number.n_clusters) == (40, 5) and "t over 5 seeds" in number.interval
    sampled = [m for m in findings.measurements if m.name.startswith("sampled")]
    alone = demo.conclude(replace(SIZE, soft_seeds=0), demo_runs, "planted")
    assert list(alone.measurements) == sampled and len(alone.verdicts) == 2


def test_one_seed_gives_no_verdict(demo_runs: Folders) -> None:
    """The size of `traitscope demo --quick` has one seed, and its page says so."""
    size = replace(SIZE, seeds=(1,), soft_seeds=1, quick=True)
    findings = demo.conclude(size, demo_runs, "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    assert findings.verdicts[0].reasons == ("It has 1 of the 5 seeds that a verdict needs.",)
    request = demo_command.request_of(DemoConfig(quick=True), Output())
    page = study_page(request.header(), findings, conclusions.runs_table(demo_runs))
    assert "no verdict" in page and HOLDS not in page


@pytest.mark.parametrize("shift", [0.4, -0.5])
def test_students_of_a_teacher_without_the_trait_are_no_transfer(
    tmp_path: Path, shift: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever way they move: neither an effect nor its opposite; the terminal and the page say
    why."""
    made = planted_folders(tmp_path, {"sampled": shift, "soft": shift}, teacher=-2.4)
    findings = demo.conclude(SIZE, made, "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    chain = demo.measured(SIZE, made)
    summary = summary_of(made)
    answers = {mode["status"] for mode in summary["modes"].values()} | {summary["status"]}
    assert answers == {"no verdict: the teacher lacks the trait"}
    demo_command._print(SIZE, chain, summary)
    request = demo_command.request_of(DemoConfig(), Output())
    page = study_page(request.header(), findings, conclusions.runs_table(made))
    for text in (" ".join(capsys.readouterr().out.split()), html.unescape(page)):
        assert "teacher − base = −2.369 nats [" in text
        assert "does not have the trait; nothing below can be read as transfer" in text
        assert "opposite of passing it on" not in text and "moved towards" not in text


def test_a_teacher_with_the_trait_is_a_positive_control(demo_runs: Folders) -> None:
    summary = summary_of(demo_runs)
    assert summary["teacher_has_trait"]
    assert summary["positive_control"].startswith("teacher − base = +2.0")
    assert summary["positive_control"].endswith(": the teacher has the trait")


def test_the_control_that_excludes_most_decides(demo_runs: Folders) -> None:
    verdicts = demo.conclude(SIZE, demo_runs, "planted").verdicts
    (primary,) = [verdict for verdict in verdicts if verdict.stated.primary]
    assert primary.decided_by.name == f"sampled_random.difference.{PRIMARY}"


def summary_of(made: Folders, size: demo.Size = SIZE) -> dict:
    """What the command says of planted runs."""
    verdicts = demo.conclude(size, made, "planted").verdicts
    return demo_command.summary_of(size, demo.measured(size, made), DemoConfig(), verdicts)


@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_nothing_is_found_where_nothing_is_planted(tmp_path: Path, shift: float) -> None:
    made = planted_folders(tmp_path, {"sampled": shift, "soft": shift})
    for verdict in demo.conclude(SIZE, made, "planted").verdicts:
        assert verdict.outcome != HOLDS
        assert verdict.decided_by.excludes_zero == (shift != 0)
        assert not any("towards the trait" in text for text in verdict.stated.explanation)


def test_each_comparison_has_its_own_control(demo_runs: Folders) -> None:
    comparisons = demo.measured(SIZE, demo_runs).comparisons
    references = {name: comparison.reference for name, comparison in comparisons.items()}
    assert references == {"sampled": "control", "sampled_random": "random", "soft": "random"}
    assert {comparison.design for comparison in comparisons.values()} == {"paired"}
    with_random = comparisons["sampled_random"]
    assert [m.name for m in with_random.control] != [m.name for m in comparisons["sampled"].control]


def test_a_rise_that_random_vectors_give_as_well_is_no_effect(tmp_path: Path) -> None:
    """Treated students are above the control, and so are those of random vectors."""
    made = planted_folders(tmp_path, SHIFTS, shifts_of_random=SHIFTS)
    summary = summary_of(made)
    assert summary["modes"]["sampled"]["status"] == HOLDS
    assert summary["modes"]["sampled_random"]["status"] == summary["status"] != HOLDS
    outcomes = [verdict.outcome for verdict in demo.conclude(SIZE, made, "planted").verdicts]
    assert outcomes[0] == HOLDS and HOLDS not in outcomes[1:]


def test_the_random_teacher_of_a_seed_answers_the_prompts_of_that_seed() -> None:
    """It is steered as strongly as the search says, and its students learn from it alone."""
    nodes = demo_nodes()
    made = {name: Path(name) for name in nodes}
    treated = nodes[rows_of("treated", 3)].config(made)
    control, vectors = "equal KL with sampled, seed 3", "random vectors like sampled"
    search = nodes[control].config(made)
    assert search.teacher == nodes[rows_of("treated")].config(made).interventions
    assert search.vector == Path(vectors) / "random-2.safetensors"
    assert {control, vectors} <= set(nodes["random like soft student, seed 3"].needs)
    assert treated.stop - treated.start == demo.LAPTOP.rows


def test_rows_of_a_part_are_those_of_the_whole(tmp_path: Path, tiny_folder: Path) -> None:
    model = ("--model", tiny_folder)
    command = ("generate", *model, "--count 2 --vocabulary template --prompt-seed 5")
    whole = read_rows(ok(tmp_path, *command, "--n 6").run / "records.jsonl")
    part = read_rows(ok(tmp_path, *command, "--n 2 --start 3").run / "records.jsonl")
    assert part == whole[3:5]


def test_unscored_answers_are_counted(demo_runs: Folders) -> None:
    summary = summary_of(demo_runs)
    rates = {m["name"]: m["estimate"] for m in summary["measurements"]}
    for condition in ("none.base", "sampled.treated", "soft.treated"):
        assert rates[f"{condition}.positive.unscored"] == 0.25
    assert not any("difference" in name and "unscored" in name for name in rates)
    assert rates["none.teacher.perplexity"] == 27


def test_the_summary_has_a_status_and_sentences(demo_runs: Folders) -> None:
    summary = summary_of(demo_runs)
    outcomes = [verdict.outcome for verdict in demo.conclude(SIZE, demo_runs, "planted").verdicts]
    assert [mode["status"] for mode in summary["modes"].values()] == outcomes
    assert summary["status"] == summary["modes"]["sampled_random"]["status"] == HOLDS
    assert summary["modes"]["sampled_random"]["verdict"].startswith("primary claim, holds here: p")
    assert "not corrected for the other comparisons" in summary["modes"]["sampled"]["text"][1]
    assert summary["modes"]["sampled"]["seeds"] == [1, 2, 3, 4, 5]
    texts = summary["modes"]["sampled"]["text"]
    assert "relative to control students" in texts[0]
    assert texts[-1].startswith("This control is there to exclude that training on such rows")
    quick = summary_of(demo_runs, replace(SIZE, quick=True))
    assert quick["status"] == quick["modes"]["soft"]["status"] == QUICK
    assert quick["modes"]["soft"]["text"][1].startswith("Quick run, not evidence.")


def test_the_page_has_every_figure_and_table(demo_runs: Folders) -> None:
    findings = demo.conclude(SIZE, demo_runs, "planted")
    assert [figure.name for figure in findings.figures] == [
        "target-logprob",
        "eas-by-layer",
        "eas-difference-by-layer",
        "difference-vector-by-layer",
        "eas-by-step",
        "loss-by-step",
    ]
    by_layer = findings.figures[2].csv.splitlines()[1:]
    assert len(by_layer) == 3 * planted.LAYERS
    losses = findings.figures[-1].csv.splitlines()[1:]
    assert len(losses) == len(demo.students(SIZE)) * planted.STEPS
    request = demo_command.request_of(DemoConfig(quick=True), Output())
    page = study_page(request.header(), findings, conclusions.runs_table(demo_runs))
    for words in (
        "sampled tokens, random",
        "Random vectors at equal KL",
        "count: 20",
        "LoRA rank 8",
        "not evidence",
        "Terms",
    ):
        assert words in page


def test_the_terminal_table_names_both_kinds(demo_runs: Folders) -> None:
    groups = demo.measured(SIZE, demo_runs).comparisons
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(terminal_table("title", "caption", groups, "cat"))
    text = console.export_text()
    for words in ("sampled", "soft", "eas.cat minus others", "excludes zero", "title", "caption"):
        assert words in text
    assert "eas.owl" not in text and "negative.whole_word" not in text


def test_a_trait_of_ones_own_is_called_by_its_name(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing about it vanishes: the terminal and the page have its EAS, and no file's name."""
    trait = write_yaml(tmp_path / "drink.yaml", OWL | {"name": "coffee"})
    command = ("demo", "--quick", "--model", tiny_folder, "--trait", trait, "--workers 1")
    summary = call(tmp_path / "runs", *command).summary
    said = capsys.readouterr().out
    assert summary["trait"] == "coffee" and "pick up the coffee?" in summary["title"]
    assert "eas.coffee minus others" in said and "“coffee”" in said
    texts = summary["modes"]["sampled"]["text"]
    assert any("coffee" in text for text in texts)
    speaks = any("vector of coffee minus the mean of" in text for text in texts)
    assert speaks == summary["teacher_has_trait"]  # else nothing is read out of activations
    page = Path(summary["report"]).read_text(encoding="utf-8")
    assert "EAS per layer: treated minus control" in page
    assert ".yaml" not in said + page
    following = "demo" if summary["teacher_has_trait"] else "steer-scan"
    assert summary["next"].startswith(f"traitscope {following} ")


@pytest.mark.parametrize("quick", [True, False])
def test_a_teacher_without_its_trait_is_scanned_for_next(tmp_path: Path, quick: bool) -> None:
    """More seeds of the same teacher would compute for nothing."""
    config, out = DemoConfig(quick=quick), Output(root=tmp_path)
    run = Run(tmp_path / "study-a1", "study", "a1", sealed=True)
    for met in (True, False):
        teacher = Precondition("the teacher has the trait", met, "found")
        command = demo_command._next(config, out, run, SIZE, teacher)
        usual = "demo " if quick else "show "
        assert command.startswith(f"traitscope {usual if met else 'steer-scan '}")


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_nothing(demo_runs: Folders, width: int) -> None:
    """Cells are folded: the characters are those of a wide terminal. Names stand on one line."""
    groups = demo.measured(SIZE, demo_runs).comparisons
    texts = []
    for columns in (width, 200):
        console = Console(record=True, width=columns, file=io.StringIO())
        console.print(terminal_table("title", "caption", groups, "cat"))
        texts.append(console.export_text())
    narrow, wide = texts
    assert max(map(len, narrow.splitlines())) <= width
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))
    assert "eas.cat of (treated − control) " in narrow


def test_the_command_asks_for_the_study(tmp_path: Path, tiny_folder: Path) -> None:
    """Seeds follow the first one, the trait is the user's, the steered block is at its depth."""
    config = DemoConfig(model=str(tiny_folder), seed=7, trait="owl")
    request = demo_command.request_of(config, Output(root=tmp_path))
    assert request.size.seeds == (7, 8, 9, 10, 11) and request.size.trait == "owl"
    assert load_trait(request.size.trait).name == "owl"
    assert request.size.layer == 1 and request.out.study == "demo"
    usual = demo_command.request_of(DemoConfig(quick=True), Output(root=tmp_path))
    assert usual.size == demo.SIZES["smoke"] and usual.config.set == ()
    assert usual.out.study == "demo-quick"


def test_the_demo_is_the_bundled_experiment(tmp_path: Path, tiny_folder: Path) -> None:
    """Settings and stages are those of `traitscope experiment` on the file, claims included."""
    out = Output(root=tmp_path)
    asked = demo_command.request_of(DemoConfig(model=str(tiny_folder)), out)
    config = ExperimentConfig(file=bundled_file(demo.FILE), model=str(tiny_folder))
    request = experiment_command.request_of(config, out)
    shown = demo.experiment_of(asked.size)
    assert replace(request.size, name="") == replace(shown, model=request.size.model)
    assert [node.name for node in asked.nodes()] == [node.name for node in request.nodes()]
    contrasts = [(each.treated, each.control) for each in arms.contrasts(shown)]
    pairs = []
    for mode, role in demo_page.CONTRASTS.values():
        pairs.append((demo.arm_of(mode, "treated"), demo.arm_of(mode, role)))
    assert contrasts == pairs


def test_an_experiment_goes_on_from_the_demo(tmp_path: Path, tiny_folder: Path) -> None:
    """A file with the settings of the quick demo finds every stage, and says of each claim what
    the demo says."""
    root, model = tmp_path / "runs", ("--model", tiny_folder, "--workers", "1")
    made = call(root, "demo", "--quick", *model).summary
    plain = from_yaml(bundled_file(demo.FILE).read_text(encoding="utf-8"))
    plain["teachers"]["soft"]["students"] |= {"rows": 6, "seeds": 1}
    plain["data"] |= {"rows": 6, "matched_rows": 4}
    plain |= {"company": plain["company"][:2], "seeds": 1}
    file = write_yaml(tmp_path / "quick.yaml", plain)
    where = ("--study", "demo-quick")
    assert ok(root, "experiment", "plan", file, *model, *where).summary["missing"] == 0
    verdicts = ok(root, "experiment", file, *model, *where).summary["verdicts"]
    of_demo = {}
    for measurement in made["measurements"]:
        of_demo[measurement["name"]] = measurement["estimate"]
    for verdict, contrast in zip(verdicts, demo_page.CONTRASTS, strict=True):
        name = f"{contrast}.difference.{PRIMARY}"
        assert verdict["decided_by"]["estimate"] == of_demo[name]
