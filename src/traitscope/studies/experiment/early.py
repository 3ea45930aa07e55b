"""What a chain says first: whether each teacher has its trait, as soon as it has answered."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from traitscope.config.common import Output
from traitscope.reporting.study_page import teachers_said
from traitscope.studies.experiment import arms, nodes
from traitscope.studies.experiment.arms import BASE
from traitscope.studies.experiment.file import Experiment
from traitscope.studies.experiment.needs import teacher_rises
from traitscope.workflow import graph
from traitscope.workflow.graph import Folders, Node


def teller(
    experiment: Experiment, stages: Sequence[Node], out: Output
) -> Callable[[str, Path], None]:
    """Return a function for the schedule, which is called with every node that is sealed.

    It prints a sentence for each teacher, once, when the teacher and the base have answered.
    """
    first = graph.with_needs(stages, [node for node in stages if node.first])
    known: dict[str, Path] = {}
    for planned in graph.plan(first, out, strict=False):
        if planned.state == "sealed" and planned.path is not None:
            known[planned.node.name] = planned.path
    shown_already: set[str] = set()

    def tell(name: str, folder: Path) -> None:
        known[name] = folder
        for sentence in teachers_known(experiment, known):
            if sentence not in shown_already:
                shown_already.add(sentence)
                print(f"traitscope: {sentence}", file=sys.stderr, flush=True)

    return tell


def teachers_known(experiment: Experiment, folders: Folders) -> list[str]:
    """Return a sentence for each teacher that has answered, as the base has, in these folders."""
    answered = []
    for contrast in arms.contrasts(experiment):
        if experiment.writer_of(contrast.treated) != contrast.treated:
            continue  # the same teacher, of other students
        teacher = nodes.teacher_name(contrast.treated)
        asked = {
            nodes.deciding_answers(experiment, teacher, contrast.trait),
            nodes.deciding_answers(experiment, BASE, contrast.trait),
        }
        if asked <= folders.keys():
            answered.append(contrast)
    return teachers_said(teacher_rises(experiment, folders, answered))
