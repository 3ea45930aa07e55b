"""Groups of nodes: what they wait for, and what they are asked to do."""

from pathlib import Path

from traitscope.config.recipe import Recipe
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.short_form import parse_all
from traitscope.studies import shared_nodes
from traitscope.workflow import graph
from traitscope.workflow.standard_nodes import Rows, Student, number_rows

COMMON = {"model": "smollm2-135m", "device": "cpu", "dtype": "fp32"}


def test_answers_are_those_of_the_student_that_stands_before_them() -> None:
    rows = Rows(4, 3)
    student = Student("student", "rows", Recipe(), seed=5)
    nodes = [
        *shared_nodes.student_and_answers(
            COMMON, student, rows.tokens, "owl", "said", capability=True
        ),
        number_rows(COMMON, "rows", rows),
    ]
    assert [node.name for node in graph.ordered(nodes)] == ["rows", "student", "said"]
    trained, answers = (
        node.config({"rows": Path("r"), "student": Path("s")}) for node in nodes[:2]
    )
    assert (trained.data, trained.seed) == (Path("r"), 5)
    assert parse_all(answers.interventions) == [Adapter("s")]
    assert (answers.trait, answers.capability, answers.sets) == ("owl", True, ("positive",))


def test_random_vectors_are_like_a_vector_of_their_source() -> None:
    node = shared_nodes.random_vectors_like(
        COMMON, "random", "vectors", lambda folders: folders["vectors"] / "cat.safetensors", 2
    )
    config = node.config({"vectors": Path("v")})
    assert (node.needs, config.like, config.randoms) == (("vectors",), Path("v/cat.safetensors"), 2)
