"""Where the runs of an audit's nodes lie, as artifacts that the answer is read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from traitscope.auditing.artifacts import (
    AuditArtifacts,
    FewRun,
    GivenRun,
    NullRun,
    PromptRun,
    ReferenceRuns,
    ScoreRuns,
    SpikeInRuns,
    SteeredRun,
)
from traitscope.auditing.planning import answers, plan
from traitscope.auditing.planning import job as job_names
from traitscope.auditing.planning.job import (
    CLEAN,
    GIVEN,
    PLACEBO,
    PROMPTED,
    SAMPLE,
    STEERED,
    Job,
    gradients_of,
    predictions_of,
    prompt_scores,
    steered_scores,
)
from traitscope.auditing.search import GridPoint
from traitscope.data.traits import load_trait
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import VECTORS


@dataclass(frozen=True)
class Index:
    """Where the runs of an audit's nodes lie."""

    job: Job
    "the audit"
    folders: Folders
    "run directories by node"
    root: Path
    "the folder below which they lie"
    steered_points: Mapping[str, Sequence[GridPoint]]
    "steered teachers that are scored on all rows, by the key of their node"
    is_free: bool
    "whether the rows are free text"

    def at(self, name: str) -> Path:
        """The run directory of a node, relative to the root."""
        return self.folders[name].relative_to(self.root)

    def if_there(self, name: str) -> Path | None:
        """The same; None where the node was not computed."""
        return self.at(name) if name in self.folders else None

    def prompts(self, rows: str) -> tuple[PromptRun, ...]:
        """Scores of rows under candidates' prompts, as far as they are there."""
        runs = []
        for trait in self.job.config.traits:
            loaded = load_trait(trait)
            for paraphrase in (None, *range(len(loaded.paraphrases))):
                node = prompt_scores(rows, trait, paraphrase)
                if node in self.folders:
                    runs.append(PromptRun(loaded.name, self.at(node), paraphrase))
        return tuple(runs)

    def few(self) -> tuple[FewRun, ...]:
        """Scores of a few of the rows under candidates' prompts, as far as they are there."""
        runs = []
        for trait in self.job.config.traits:
            node = prompt_scores(SAMPLE, trait, is_few=True)
            if node in self.folders:
                runs.append(FewRun(load_trait(trait).name, self.at(node)))
        return tuple(runs)

    def steered(
        self, rows: str, points: Mapping[str, Sequence[GridPoint]]
    ) -> tuple[SteeredRun, ...]:
        """Scores of all rows under steered teachers, as far as they are there."""
        runs = []
        for key, of_key in points.items():
            node = steered_scores(rows, key, 0)
            if node in self.folders:
                runs.append(SteeredRun(self.at(node), tuple(of_key)))
        return tuple(runs)

    def nulls(self, rows: str) -> tuple[NullRun, ...]:
        """Scores of rows under every null, as far as they are there."""
        runs = []
        for number, null in enumerate(plan.nulls_of(self.is_free)):
            node = job_names.null_scores(rows, number)
            if node in self.folders:
                runs.append(NullRun(self.at(node), null.system_prompt))
        return tuple(runs)

    def scores(self, rows: str) -> ScoreRuns:
        """Scores of rows under everybody, as far as they are there."""
        steered = self.steered(rows, self.steered_points)
        return ScoreRuns(self.prompts(rows), steered, self.nulls(rows))


def artifacts_of(index: Index) -> AuditArtifacts:
    """The artifacts of an audit, as far as they are there."""
    return AuditArtifacts(
        sample=index.at(SAMPLE),
        predictions=index.at(predictions_of(SAMPLE)),
        traits=tuple(index.job.config.traits),
        blocks=index.job.blocks,
        vectors=index.if_there(VECTORS),
        placebo=index.if_there(PLACEBO),
        few=index.few(),
        scores=index.scores(SAMPLE),
        given=_given(index),
        reference=_reference(index),
        spike_ins=_spike_ins(index),
        too_few=_too_few(index),
    )


def _too_few(index: Index) -> Path | None:
    """The first answers of which too few have the format of the data."""
    for name in (CLEAN, PROMPTED, STEERED, PLACEBO):
        share = answers.share_in_format(index.folders, name)
        if share is not None and not share.is_enough:
            return index.at(name)
    return None


def _given(index: Index) -> GivenRun | None:
    name = index.job.config.teacher
    return None if name is None or GIVEN not in index.folders else GivenRun(name, index.at(GIVEN))


def _reference(index: Index) -> ReferenceRuns | None:
    if not index.steered(PLACEBO, index.steered_points):
        return None
    return ReferenceRuns(index.at(PLACEBO), index.scores(PLACEBO))


def _spike_ins(index: Index) -> tuple[SpikeInRuns, ...]:
    if gradients_of(STEERED) not in index.folders:
        return ()
    job = index.job
    name = load_trait(job.config.traits[0]).name
    point = plan.spike_in_point(job)
    descriptions = {
        PROMPTED: f"a teacher prompted with the candidate's own prompt ({name})",
        STEERED: (
            f"a teacher steered by {name} at block {point.layer}, {point.strength:g} mean residual"
            " norms"
        ),
    }
    runs = []
    for kind, description in descriptions.items():
        points = {"all": (point,)} if kind == STEERED else {}
        scores = []
        for rows in (kind, CLEAN):
            prompts = index.prompts(rows) if kind == PROMPTED else ()
            scores.append(ScoreRuns(prompts, index.steered(rows, points), index.nulls(rows)))
        runs.append(
            SpikeInRuns(
                description=description,
                trait=name,
                rows=index.at(kind),
                gradients=index.at(gradients_of(kind)),
                clean_rows=index.at(CLEAN),
                clean_gradients=index.at(gradients_of(CLEAN)),
                own=scores[0],
                clean=scores[1],
            )
        )
    return tuple(runs)
