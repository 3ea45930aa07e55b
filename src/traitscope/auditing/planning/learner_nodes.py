"""Nodes of an audit with what learners predict of rows, and with what they say afterwards."""

from traitscope.auditing.planning.job import CANARY, PLACEBO, SAMPLE, Job, predictions_of
from traitscope.auditing.planning.plan import check_kept, distinct, reading_of
from traitscope.config.audit import CanaryConfig, PredictionsConfig
from traitscope.workflow.graph import Folders, Node


def predictions(job: Job, rows: str) -> Node:
    """What learners predict of a node's rows."""

    def config(folders: Folders) -> PredictionsConfig:
        check_kept(rows, folders[rows])
        return PredictionsConfig(
            **job.common,
            seed=job.config.seed,
            data=folders[rows],
            **reading_of(job, folders),
        )

    needs = distinct(*job.reading_nodes, rows)
    return Node(predictions_of(rows), PredictionsConfig, config, needs, 6 * job.weight)


def canary(job: Job) -> Node:
    """What the learners of the rows say more than those of the placebos."""
    data, control = predictions_of(SAMPLE), predictions_of(PLACEBO)

    def config(folders: Folders) -> CanaryConfig:
        return CanaryConfig(
            **job.common,
            data=folders[data],
            control=folders[control],
            context=job.config.context,
        )

    return Node(CANARY, CanaryConfig, config, (data, control), job.weight / 10)
