"""Nodes of an audit with what learners predict of rows, and with what they say afterwards."""

from dataclasses import replace

from traitscope.auditing.planning.job import CANARY, PLACEBO, SAMPLE, Job, predictions_of
from traitscope.auditing.planning.plan import check_kept, distinct, reading_of
from traitscope.config.audit import CanaryConfig, PredictionsConfig
from traitscope.workflow.graph import Folders, Node


def predictions(job: Job, rows: str) -> list[Node]:
    """What learners predict of a node's rows: a node for each, and one with all of them.

    The learners are computed side by side, so that the first look does not wait for both in turn.
    """
    rates = PredictionsConfig.rates
    names = [f"{predictions_of(rows)}, learner {number}" for number in range(len(rates))]
    nodes = []
    for number, name in enumerate(names):
        nodes.append(_learner(job, rows, name, number))

    def together(folders: Folders) -> PredictionsConfig:
        parts = [folders[name] for name in names]
        return replace(_predictions(job, rows, folders), parts=tuple(parts))

    needs = distinct(*job.reading_nodes, rows, *names)
    nodes.append(Node(predictions_of(rows), PredictionsConfig, together, needs, 1))
    return nodes


def _learner(job: Job, rows: str, name: str, number: int) -> Node:
    """What one learner predicts; the first one's run also has the scores under the model."""

    def config(folders: Folders) -> PredictionsConfig:
        check_kept(rows, folders[rows])
        rates = (PredictionsConfig.rates[number],)
        return replace(_predictions(job, rows, folders), rates=rates, model_scores=number == 0)

    needs = distinct(*job.reading_nodes, rows)
    return Node(name, PredictionsConfig, config, needs, (4 if number else 5) * job.weight)


def _predictions(job: Job, rows: str, folders: Folders) -> PredictionsConfig:
    return PredictionsConfig(
        **job.common, seed=job.config.seed, data=folders[rows], **reading_of(job, folders)
    )


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
