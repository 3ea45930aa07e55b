"""Lineages of students: who writes for whom, what they share, and what planted runs conclude."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import sealed_students
from command import call
from concluded import (
    COMMON,
    HOLDS,
    NEGLIGIBLE,
    SILENT,
    UNDECIDED,
    concluded,
    estimates,
    outcomes,
    unmet,
)
from planted_runs import PlantedRuns

from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig, GenerateConfig, TrainConfig
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import generations
from traitscope.studies.equal_kl import RANDOM_VECTORS
from traitscope.studies.lineages.graph import (
    LINEAGES,
    RANDOM,
    TREATED,
    UNMODIFIED,
    answers_name,
    digits_name,
    student_name,
    students_of,
)
from traitscope.workflow import schedule
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Node
from traitscope.workflow.standard_nodes import VECTORS

SIZE = replace(generations.SIZES["smoke"], seeds=(1, 2, 3, 4, 5))
MOVED = "students of generation 1 rise over those of the random lineage"
OF_ANY_ROWS = 0.3
"rise that students of every lineage have"
SPREAD = 0.05
"planted difference between neighbouring seeds"


def planted(
    root: Path,
    rises: Mapping[int, float],
    eas: float = 0.1,
    teacher: float = 1.0,
    every_trait: bool = False,
) -> dict[str, Path]:
    """Treated students that rise over the others by a planted amount in each generation.

    Seeds differ in it, by a factor that all generations share. EAS is planted at the steered block,
    with `every_trait` against all vectors.
    """
    runs = PlantedRuns(root)
    runs.answers("base", perplexity=10.0)
    runs.answers("teacher", teacher)
    for seed in SIZE.seeds:
        summaries = [{"name": "unmodified", "kind": "neutral", "against": {}}]
        for lineage, generation in students_of(SIZE):
            is_treated = lineage == TREATED
            rise = rises[generation] * (1 + SPREAD * (seed - 3)) if is_treated else 0.0
            asked = answers_name(lineage, generation, seed)
            runs.answers(asked, OF_ANY_ROWS + rise, perplexity=10.0 + generation)
            gain = eas if is_treated else 0.0
            student = student_name(lineage, generation, seed)
            by_vector = {
                "v_student": [0.0, 0.02 + gain, 0.0, 0.0],
                "other/owl": [0.0, 0.02 + (gain if every_trait else 0.0), 0.0, 0.0],
            }
            runs.eas(student, by_vector)
            nats = {"estimate": generation + 0.1 * seed}
            summaries.append({"name": student, "kind": "given", "against": {"unmodified": nats}})
        runs.json(digits_name(seed), "summary.json", {"teachers": summaries})
    return runs.folders


def table(findings: generations.Findings, name: str) -> Table:
    (found,) = (each for each in findings.tables if each.name == name)
    return found


def test_a_trait_that_every_step_keeps_holds(tmp_path: Path) -> None:
    findings = concluded(generations, SIZE, planted(tmp_path, {1: 0.8, 2: 0.8, 3: 0.8}))
    assert outcomes(findings) == [HOLDS] * 3
    assert [verdict.stated.primary for verdict in findings.verdicts] == [True, False, False]
    assert estimates(findings) == pytest.approx([0.8, 0.8, 0.1], abs=0.03)
    for row in table(findings, "retention").rows:
        assert row[1].estimate == pytest.approx(1.0, abs=0.03) and row[3] == ""
        assert row[1].low < 1 < row[1].high


def test_a_trait_that_is_lost_in_the_third_generation_does_not(tmp_path: Path) -> None:
    folders = planted(tmp_path, {1: 0.8, 2: 0.4, 3: 0.0}, eas=0.0)
    findings = concluded(generations, SIZE, folders)
    assert outcomes(findings)[:2] == [NEGLIGIBLE, HOLDS]
    assert outcomes(findings)[2] in (NEGLIGIBLE, UNDECIDED)
    kept = {row[0]: row[1] for row in table(findings, "retention").rows}
    assert list(kept) == ["1 to 2", "2 to 3", "1 to 3"]
    assert kept["1 to 2"].estimate == pytest.approx(0.5, abs=0.03)
    assert kept["2 to 3"].estimate == pytest.approx(0.0, abs=0.03)


def test_a_turn_towards_every_trait_is_not_specific(tmp_path: Path) -> None:
    folders = planted(tmp_path, {1: 0.8, 2: 0.8, 3: 0.8}, every_trait=True)
    findings = concluded(generations, SIZE, folders)
    assert outcomes(findings)[:2] == [HOLDS] * 2
    assert outcomes(findings)[2] in (NEGLIGIBLE, UNDECIDED)
    assert estimates(findings)[2] == pytest.approx(0.0, abs=0.03)


def test_no_share_is_given_of_what_is_not_away_from_zero(tmp_path: Path) -> None:
    """The second generation has lost the trait, and no generation has EAS."""
    folders = planted(tmp_path, {1: 0.8, 2: 0.0, 3: 0.4}, eas=0.0)
    findings = concluded(generations, SIZE, folders)
    assert outcomes(findings)[:2] == [HOLDS, NEGLIGIBLE]
    rows = {row[0]: row[1:] for row in table(findings, "retention").rows}
    rise, eas, why = rows["2 to 3"]
    assert rise.estimate != rise.estimate and eas.estimate != eas.estimate
    assert why.startswith("of the rise: the lower mean is ") and "; of EAS: the lower mean" in why
    assert rows["1 to 3"][0].estimate == pytest.approx(0.5, abs=0.03)
    assert rows["1 to 3"][2].startswith("of EAS: ")


def test_without_a_rise_of_the_first_generation_nothing_is_said_of_later_ones(
    tmp_path: Path,
) -> None:
    findings = concluded(generations, SIZE, planted(tmp_path, {1: 0.0, 2: 0.8, 3: 0.8}))
    assert outcomes(findings) == [SILENT, SILENT, HOLDS]
    assert unmet(findings) == {MOVED}


def test_a_teacher_without_its_trait_decides_nothing(tmp_path: Path) -> None:
    folders = planted(tmp_path, {1: 0.8, 2: 0.8, 3: 0.8}, teacher=-0.1)
    findings = concluded(generations, SIZE, folders)
    assert outcomes(findings) == [SILENT] * 3 and unmet(findings) == {HAS_TRAIT}


def test_what_all_lineages_drift_is_no_trait(tmp_path: Path) -> None:
    """Log-probability and perplexity of the controls are shown; a rise is over them."""
    findings = concluded(generations, SIZE, planted(tmp_path, {1: 0.8, 2: 0.4, 3: 0.2}))
    for number, row in enumerate(table(findings, "generations").rows):
        assert row[0] == number + 1
        for measured in row[1:3]:
            assert measured.estimate == pytest.approx(0.8 / 2**number, abs=0.03)
    drifted = {row[:2]: row[2:] for row in table(findings, "drift").rows}
    assert list(drifted) == students_of(SIZE) and len(drifted) == 9
    for (lineage, generation), (minus_base, eas, perplexity, digits) in drifted.items():
        planted_rise = 0.8 / 2 ** (generation - 1) if lineage == TREATED else 0.0
        assert minus_base.estimate == pytest.approx(OF_ANY_ROWS + planted_rise, abs=0.03)
        assert eas.estimate == pytest.approx(0.1 if lineage == TREATED else 0.0, abs=0.03)
        assert perplexity.estimate == 10 + generation
        assert digits.estimate == pytest.approx(generation + 0.3)


def test_seeds_that_disagree_leave_it_undecided(tmp_path: Path) -> None:
    """The rise of the third generation has the size that counts, in one seed alone."""
    folders = planted(tmp_path, {1: 0.8, 2: 0.8, 3: 0.0})
    runs = PlantedRuns(tmp_path / "one seed")
    asked = answers_name(TREATED, 3, 1)
    runs.answers(asked, OF_ANY_ROWS + 1.0)
    findings = concluded(generations, SIZE, folders | runs.folders)
    assert outcomes(findings)[0] == UNDECIDED


class Graph:
    """The nodes of a size by name, and their settings; every search has found the strength 0.8."""

    def __init__(self, root: Path) -> None:
        self.nodes: dict[str, Node] = {}
        for node in generations.nodes(SIZE, COMMON):
            self.nodes[node.name] = node
        self.folders = {name: root / f"{number}" for number, name in enumerate(self.nodes)}
        for seed in SIZE.seeds:
            name = SIZE.controls.of(seed).name
            self.folders[name] = sealed_students.sealed_strength(root, name, 0.8).path

    def config(self, name: str) -> object:
        return self.nodes[name].config(self.folders)

    def lineage(
        self, lineage: str, generation: int, seed: int
    ) -> tuple[GenerateConfig, FilterConfig, TrainConfig]:
        """Settings of the rows that a student learns, of their filter, and of its training."""
        train = self.config(student_name(lineage, generation, seed))
        assert isinstance(train, TrainConfig)
        kept = self.config(self.at(train.data))
        assert isinstance(kept, FilterConfig)
        written = self.config(self.at(kept.data))
        assert isinstance(written, GenerateConfig)
        return written, kept, train

    def at(self, folder: object) -> str:
        (name,) = (name for name, path in self.folders.items() if path == folder)
        return name


def test_every_student_learns_what_the_one_before_wrote_and_starts_afresh(tmp_path: Path) -> None:
    graph = Graph(tmp_path)
    for lineage in LINEAGES:
        for generation in (2, 3):
            for seed in SIZE.seeds:
                written, _, train = graph.lineage(lineage, generation, seed)
                parent = student_name(lineage, generation - 1, seed)
                assert written.interventions == (f"adapter:{graph.folders[parent]}",)
                assert train.during == () and train.teacher == ()
                assert train.recipe.targets == "sampled" and written.vocabulary == "template"


def test_lineages_differ_in_their_first_teacher_alone(tmp_path: Path) -> None:
    graph = Graph(tmp_path)
    for generation in SIZE.each_generation:
        for seed in SIZE.seeds:
            settings = []
            for lineage in LINEAGES:
                written, kept, train = graph.lineage(lineage, generation, seed)
                settings.append(
                    (
                        replace(written, interventions=()),
                        replace(kept, data=Path()),
                        replace(train, data=Path()),
                    )
                )
            assert settings[0] == settings[1] == settings[2]
    for place, seed in enumerate(SIZE.seeds):
        firsts = [graph.lineage(lineage, 1, seed)[0].interventions for lineage in LINEAGES]
        (steered,), (random,), unmodified = firsts
        vectors, randoms = graph.folders[VECTORS], graph.folders[RANDOM_VECTORS]
        assert f"{vectors}/cat.safetensors" in steered and "alpha=0.6" in steered
        assert f"{randoms}/random-{place}.safetensors" in random and "alpha=0.8" in random
        assert unmodified == ()


def test_generations_and_seeds_share_no_prompts_and_no_start(tmp_path: Path) -> None:
    graph = Graph(tmp_path)
    prompts, starts = set(), set()
    for generation in SIZE.each_generation:
        for seed in SIZE.seeds:
            written, _, train = graph.lineage(TREATED, generation, seed)
            prompts.add((written.prompt_seed, written.seed))
            starts.add(train.seed)
    assert len(prompts) == len(starts) == 3 * len(SIZE.seeds)


def test_digits_are_read_in_the_order_in_which_they_are_reported(tmp_path: Path) -> None:
    graph = Graph(tmp_path)
    for seed in SIZE.seeds:
        read = graph.config(digits_name(seed)).steered
        expected = []
        for lineage, generation in students_of(SIZE):
            expected.append(f"adapter:{graph.folders[student_name(lineage, generation, seed)]}")
        assert list(read) == expected


def computed(root: Path, model: Path, strength: float) -> dict[str, Path]:
    """The treated and the unmodified lineage of one seed on a tiny model, really trained."""
    recipe = replace(SIZE.recipe, lr=0.05, epochs=2)
    size = replace(SIZE, seeds=(1,), rows=6, numbers=5, strength=strength, recipe=recipe)
    nodes = []
    for node in generations.nodes(size, COMMON | {"model": str(model)}):
        is_random = RANDOM in node.name or node.name.startswith("equal KL")
        if not is_random and node.name != digits_name(1):
            nodes.append(node)
    return schedule.run(nodes, Output(root=root), How())


def said(folders: Mapping[str, Path], lineage: str, generation: int) -> bytes:
    return (folders[answers_name(lineage, generation, 1)] / "scores.jsonl").read_bytes()


def test_what_the_first_teacher_is_is_all_that_tells_lineages_apart(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Beside a teacher that is steered by nothing, both lineages are the same to the byte. What a
    real one does is still there in the third generation."""
    same = computed(tmp_path, tiny_folder, strength=0.0)
    other = computed(tmp_path, tiny_folder, strength=3.0)
    for generation in SIZE.each_generation:
        unmodified = said(same, UNMODIFIED, generation)
        assert said(same, TREATED, generation) == unmodified
        assert said(other, UNMODIFIED, generation) == unmodified
        assert said(other, TREATED, generation) != unmodified


def test_full_size_has_the_published_generations_and_few_are_refused(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generations.SIZES["full"].generations == 10
    assert {lineage for lineage, _ in students_of(SIZE)} == {TREATED, RANDOM, UNMODIFIED}
    words = ["study", "plan", "generations", "--size", "smoke", "--model", tiny_folder]
    assert call(tmp_path / "runs", *words, "--set", "generations=2").code == 2
    said = capsys.readouterr().err
    assert "generations=2; expected 3 or more" in said and "raise it" in said
