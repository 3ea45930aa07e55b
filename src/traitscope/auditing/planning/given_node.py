"""The node of an audit that scores its rows under a teacher that was given."""

from traitscope.auditing.planning.job import GIVEN, SAMPLE, Job
from traitscope.auditing.planning.plan import reading_of
from traitscope.config.audit import TeacherScoresConfig
from traitscope.runs.given_teacher import given_teacher
from traitscope.workflow.graph import Folders, Node


def under_given(job: Job, name: str) -> Node:
    """The token scores of all audited rows under the teacher of this name."""
    teacher = given_teacher(name, job.config.model)

    def config(folders: Folders) -> TeacherScoresConfig:
        return TeacherScoresConfig(
            **{**job.common, "model": teacher.model},
            data=folders[SAMPLE],
            interventions=teacher.short_forms,
            **reading_of(job, folders),
        )

    return Node(GIVEN, TeacherScoresConfig, config, job.reading_nodes, 2 * job.weight)
