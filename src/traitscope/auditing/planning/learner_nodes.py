"""Nodes of an audit with what learners predict of rows, and with what they say afterwards."""

from traitscope.auditing.planning.job import CANARY, PLACEBO, SAMPLE, Job, predictions_of
from traitscope.auditing.planning.plan import check_kept, distinct, reading_of
from traitscope.config.audit import CanaryConfig, PredictionsConfig
from traitscope.workflow.graph import Folders, Node


def predictions(job: Job, rows: str) -> list[Node]:
    """What each learner predicts of a node's rows: one node a learner, to be computed side by
    side."""
    nodes = []
    for number, rate in enumerate(PredictionsConfig.rates):
        nodes.append(_predictions(job, rows, number, rate))
    return nodes


def _predictions(job: Job, rows: str, number: int, rate: float) -> Node:
    def config(folders: Folders) -> PredictionsConfig:
        check_kept(rows, folders[rows])
        return PredictionsConfig(
            **job.common,
            seed=job.config.seed,
            data=folders[rows],
            rates=(rate,),
            score_model=number == 0,
            **reading_of(job, folders),
        )

    needs = distinct(*job.reading_nodes, rows)
    return Node(predictions_of(rows, number), PredictionsConfig, config, needs, 3 * job.weight)


def predictions_names(rows: str) -> list[str]:
    """Names of the nodes with what learners predict of a node's rows."""
    return [predictions_of(rows, number) for number in range(len(PredictionsConfig.rates))]


def canary_node(job: Job) -> Node:
    """What the learners of the rows say more than those of the placebos."""
    data, control = predictions_names(SAMPLE), predictions_names(PLACEBO)

    def config(folders: Folders) -> CanaryConfig:
        return CanaryConfig(
            **job.common,
            data=tuple(folders[name] for name in data),
            control=tuple(folders[name] for name in control),
            context=job.config.context,
        )

    return Node(CANARY, CanaryConfig, config, (*data, *control), job.weight / 10)
