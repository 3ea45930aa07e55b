"""The node that says what a study's number rows can carry: which teachers, which students."""

import json
from pathlib import Path

import pytest

from traitscope import studies
from traitscope.config.analysis import InformationConfig
from traitscope.config.recipe import Recipe
from traitscope.information.power import DEMO
from traitscope.studies import protocol
from traitscope.workflow import information_node, standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import Rows, Student

COMMON = {"model": "m", "device": "cpu", "dtype": "fp32"}
CAT, OWL = "prompt:You love cats.", "prompt:You love owls."


def sealed(folder: Path, *nats: float) -> Path:
    """The summary of a run with given teachers at these divergences."""
    folder.mkdir()
    teachers = [{"name": "unmodified", "kind": "neutral", "against": {}}]
    for number, value in enumerate(nats):
        measured = {"name": "d", "estimate": value, "low": value / 2, "high": None}
        measured |= {"n": 9, "n_clusters": 9, "n_unscored": 0, "unit": "nats a row"}
        about = {"name": f"teacher {number}", "kind": "given"}
        teachers.append(about | {"against": {"unmodified": measured}})
    (folder / "summary.json").write_text(json.dumps({"teachers": teachers}))
    return folder


def graph(targets: str = "sampled") -> list[Node]:
    """Two prompted teachers and the base; the first one's rows in two parts, a student on each."""
    rows, recipe = Rows(20, 3), Recipe(targets=targets)
    nodes = [
        standard_nodes.number_rows(COMMON, "cat data", Rows(40, 3), standard_nodes.fixed(CAT)),
        standard_nodes.number_rows(COMMON, "owl data", rows, standard_nodes.fixed(OWL)),
        standard_nodes.number_rows(COMMON, "base data", rows),
        standard_nodes.filtered("cat part 0", "cat data", rows, 0),
        standard_nodes.filtered("cat part 1", "cat data", rows, 1),
        standard_nodes.filtered("base kept", "base data", rows),
    ]
    students = [
        Student("cat 0", "cat part 0", recipe, 1),
        Student("cat 1", "cat part 1", recipe, 2),
        Student("cat 1, again", "cat part 1", recipe, 2, settings={"eas_every": 3}),
        Student("cat few", "cat part 0", recipe, 1, settings={"max_rows": 5}),
        Student("base", "base kept", recipe, 1),
    ]
    for student in students:
        nodes.append(standard_nodes.student(COMMON, student, 1000))
    return nodes


def test_the_teachers_are_those_of_sampled_digits() -> None:
    node = information_node.node(graph(), COMMON)
    assert node is not None and node.needs == () and node.weight > 0
    config = node.config({})
    assert isinstance(config, InformationConfig)
    assert config.steered == (CAT, OWL) and config.traits == () and config.count == 3
    assert config.exact_rows == 0


def test_students_are_counted_by_seed_and_part(tmp_path: Path) -> None:
    """Two students of one seed and one part are one replicate; the base's rows do not count."""
    folders = {information_node.NAME: sealed(tmp_path / "run", 0.3, 0.2)}
    found = information_node.tested(graph(), folders, COMMON)
    assert [(item.teacher, item.rows, item.seeds) for item in found] == [
        ("teacher 0", 20, 2),
        ("teacher 0", 5, 1),
    ]
    assert found[0].nats.estimate == 0.3
    table = information_node.table(graph(), folders, COMMON)
    assert len(table.rows) == 2 and DEMO.source in table.caption


def test_a_teacher_that_another_stage_finds_counts_neither_before_nor_after(tmp_path: Path) -> None:
    def found_by_a_stage(folders: Folders) -> tuple[str, ...]:
        return ((folders["search"] / "teacher.txt").read_text(encoding="utf-8"),)

    nodes = [
        standard_nodes.number_rows(
            COMMON, "found data", Rows(20, 3), found_by_a_stage, ("search",)
        ),
        *graph(),
    ]
    (tmp_path / "teacher.txt").write_text("prompt:You love elks.", encoding="utf-8")
    folders = {"search": tmp_path, information_node.NAME: sealed(tmp_path / "run", 0.3, 0.2)}
    node = information_node.node(nodes, COMMON)
    assert node is not None and node.needs == ()
    assert node.config(folders) == node.config({})
    found = information_node.tested(nodes, folders, COMMON)
    assert [item.teacher for item in found] == ["teacher 0", "teacher 0"]


def test_a_student_that_writes_rows_is_no_teacher_before_training() -> None:
    """Whatever lies between the digits and its training; a student of other text is one."""
    writes = {}
    for name, data in (("of digits", "cat part 0"), ("of text", "said")):
        student = Student(f"student {name}", data, Recipe(), 1)
        writer = standard_nodes.trained_by(student.name)
        writes[name] = [
            standard_nodes.student(COMMON, student, 1000),
            standard_nodes.number_rows(
                COMMON, f"rows {name}", Rows(20, 3), writer, (student.name,)
            ),
        ]
    said = Rows(20, 3, prompts=Path("prompts.txt"))
    text = standard_nodes.number_rows(COMMON, "said", said, standard_nodes.fixed(CAT))
    before = information_node.node(graph(), COMMON)
    after = information_node.node([*writes["of digits"], *graph()], COMMON)
    assert before is not None and after is not None
    assert after.config({}) == before.config({}) and after.needs == before.needs == ()
    other = information_node.node([*graph(), text, *writes["of text"]], COMMON)
    assert other is not None and other.needs == ("student of text",)
    assert len(other.config({"student of text": Path("run")}).steered) == 3


def test_nothing_is_said_without_students_of_digits(tmp_path: Path) -> None:
    assert information_node.node(graph()[:6], COMMON) is None
    assert information_node.node([], COMMON) is None
    assert information_node.node(graph(), COMMON | {"model": "another"}) is None
    folders = {information_node.NAME: sealed(tmp_path / "run", 0.3, 0.2)}
    for nodes, sealed_folders in ((graph("soft"), folders), (graph(), {})):
        table = information_node.table(nodes, sealed_folders, COMMON)
        assert not table.rows and table.caption == information_node.NOTHING


@pytest.mark.parametrize("name", studies.names())
def test_every_study_can_be_asked(name: str) -> None:
    study = protocol.load(name)
    for size in study.SIZES.values():
        nodes = study.nodes(size, COMMON)
        node = information_node.node(nodes, COMMON)
        names = {other.name for other in nodes}
        assert node is None or set(node.needs) <= names
        assert information_node.NAME not in names


def test_the_demo_has_five_seeds_of_its_steered_teacher(tmp_path: Path) -> None:
    study = protocol.load("demo")
    nodes = study.nodes(study.SIZES["laptop"], COMMON)
    node = information_node.node(nodes, COMMON)
    assert node is not None and node.needs == (standard_nodes.VECTORS,)
    folders = {information_node.NAME: sealed(tmp_path / "run", 13.4)}
    (found,) = information_node.tested(nodes, folders, COMMON)
    assert (found.rows, found.seeds) == (DEMO.rows, DEMO.seeds)
