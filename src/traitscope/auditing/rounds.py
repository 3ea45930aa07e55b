"""The rounds of an audit, each with the teachers that are tried next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from traitscope.auditing import job as job_names
from traitscope.auditing import plan, search
from traitscope.auditing.artifacts import (
    AuditArtifacts,
    CanaryRuns,
    NullRun,
    PlaceboRuns,
    PromptRun,
    ReferenceRuns,
    ScoreRuns,
    SpikeInRuns,
    SteeredRun,
)
from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.e_values import likeliest_candidates, log_e_over_model
from traitscope.auditing.detectors.findings import PairedRows
from traitscope.auditing.detectors.row_gradients import RowGradients, read_row_gradients
from traitscope.auditing.evidence import AuditRuns, log_likelihood_pair
from traitscope.auditing.job import (
    PROMPTED,
    REFERENCE,
    SAMPLE,
    STEERED,
    AuditNodes,
    Group,
    Job,
    gradients_of,
    placebo,
    predictions_of,
)
from traitscope.auditing.search import GridPoint
from traitscope.auditing.settings import FEWEST_ROWS, search_blocks
from traitscope.data.traits import load_trait
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import VECTORS


@dataclass(frozen=True)
class Tries:
    """Steered teachers that are tried, and on which rows."""

    batches: list[list[GridPoint]]
    "the teachers, in batches that are scored together"
    rows: tuple[str, ...]
    "names of the nodes whose rows are scored"


TriesBySearch = Mapping[str, Tries]
"""by search: SAMPLE for the audited rows, STEERED for those of the steered spike-in teacher,
REFERENCE for audited rows beside reference rows"""


def round_after(job: Job, runs: AuditRuns, tries: TriesBySearch) -> dict[str, Tries]:
    """The steered teachers that were tried, and those to try next."""
    return _continued(job, runs, tries) if tries else _started(job, runs)


def _started(job: Job, runs: AuditRuns) -> dict[str, Tries]:
    """The first round.

    On the audited rows it tries the places where gradients point. On the steered spike-in
    teacher's rows it tries those of its own trait, which would detect it. Off-model
    rows with a reference have every candidate tried at one block, on both. Gradients would favour
    the audited rows there.
    """
    points = _first_points(job, runs, runs.paired)
    tries = {SAMPLE: Tries(search.batched(points), (SAMPLE,))}
    if len(runs.paired.records) >= FEWEST_ROWS:
        spike_in = _steered_spike_in(runs)
        rows = runs.paired_spike_in(spike_in.rows, spike_in.gradients)
        points = _first_points(job, runs, rows)
        points = [point for point in points if point.trait == spike_in.trait]
        tries[STEERED] = Tries(search.batched(points), (STEERED, placebo(0)))
    if job.config.reference and fit_test.is_off_model(runs.data.scores):
        strength = job.config.strength * search.HALF
        points = []
        for trait in job.traits:
            points.append(GridPoint(load_trait(trait).name, job.null_block, strength))
        tries[REFERENCE] = Tries(search.batched(points), (SAMPLE, placebo(0)))
    return tries


def _steered_spike_in(runs: AuditRuns) -> SpikeInRuns:
    """The spike-in teacher that no prompt imitates."""
    return next(spike_in for spike_in in runs.artifacts.spike_ins if not spike_in.own.prompts)


def _first_points(job: Job, runs: AuditRuns, rows: PairedRows) -> list[GridPoint]:
    z = search.gradient_z_of(
        rows, list(runs.vectors), runs.candidates, runs.directions_LTJD, job.config.seed
    )
    return search.first_round(z, job.config.strength)


def _continued(job: Job, runs: AuditRuns, tries: TriesBySearch) -> dict[str, Tries]:
    """A further round: the neighbours of the teachers with the largest e-values, on the audited
    rows and on those of the steered spike-in teacher."""
    longer = dict(tries)
    longer[SAMPLE] = _with_next(job, runs, tries[SAMPLE], runs.data, runs.artifacts.scores)
    if STEERED in tries:
        spike_in = _steered_spike_in(runs)
        stored = read_row_gradients(runs.at(spike_in.gradients))
        longer[STEERED] = _with_next(job, runs, tries[STEERED], stored, spike_in.own)
    return longer


def _with_next(
    job: Job, runs: AuditRuns, tries: Tries, stored: RowGradients, scores: ScoreRuns
) -> Tries:
    log_e = {}
    for point, folder in runs.steered_folders(scores).items():
        log_e[point] = log_e_over_model(*log_likelihood_pair(stored, folder))
    points = search.next_round(log_e, search_blocks(job.blocks), job.config.strength)
    return replace(tries, batches=[*tries.batches, *search.batched(points)])


def add_round(job: Job, nodes: AuditNodes, folders: Folders, tries: TriesBySearch) -> None:
    """Add the nodes that the tries need: the paraphrases of the likeliest candidates' prompts, and
    steered teachers; beside a reference, its rows under all prompts."""
    wanted = []
    for trait in _likeliest(job, folders):
        for number in range(len(load_trait(trait).paraphrases)):
            wanted.append(plan.scored_under_prompt(job, SAMPLE, trait, number))
    for key, tried in tries.items():
        for rows in tried.rows:
            for number, points in enumerate(tried.batches):
                name = _steered_scores(rows, key, number)
                wanted.append(plan.scored_under_steering(job, name, rows, points))
    if REFERENCE in tries:
        for trait in job.traits:
            wanted.append(plan.scored_under_prompt(job, placebo(0), trait))
    for node in wanted:
        if node.name not in nodes.groups:
            nodes.add(Group.TEACHER_SCORES, node)


def _likeliest(job: Job, folders: Folders) -> list[str]:
    """Candidates whose prompts are also tried in other words."""
    data = read_row_gradients(folders[gradients_of(SAMPLE)])
    log_e = {}
    for trait in job.traits:
        folder = folders[job_names.prompt_scores(SAMPLE, trait)]
        log_e[trait] = log_e_over_model(*log_likelihood_pair(data, folder))
    return likeliest_candidates(log_e)


def _steered_scores(rows: str, key: str, number: int) -> str:
    """Name of the node with the scores of rows under a batch of steered teachers of a search."""
    return f"{rows} under batch {number} of the search on {key}"


@dataclass(frozen=True)
class Index:
    """Where the runs of an audit's nodes lie."""

    job: Job
    "the audit"
    folders: Folders
    "run directories by node"
    root: Path
    "the folder below which they lie"
    tries: TriesBySearch
    "steered teachers that were tried"
    n_nulls: int
    "number of nulls"

    def at(self, name: str) -> Path:
        """The run directory of a node, relative to the root."""
        return self.folders[name].relative_to(self.root)

    def prompts(self, rows: str, traits: Sequence[str]) -> tuple[PromptRun, ...]:
        """Scores of rows under the prompts of some candidates, as far as they are there."""
        runs = []
        for trait in traits:
            loaded = load_trait(trait)
            for paraphrase in (None, *range(len(loaded.paraphrases))):
                node = job_names.prompt_scores(rows, trait, paraphrase)
                if node in self.folders:
                    runs.append(PromptRun(loaded.name, self.at(node), paraphrase))
        return tuple(runs)

    def steered(self, rows: str, key: str) -> tuple[SteeredRun, ...]:
        """Scores of rows under the steered teachers of a search, as far as they are there."""
        runs = []
        for number, points in enumerate(self.tries[key].batches if key in self.tries else ()):
            node = _steered_scores(rows, key, number)
            if node in self.folders:
                runs.append(SteeredRun(self.at(node), tuple(points)))
        return tuple(runs)

    def nulls(self, rows: str) -> tuple[NullRun, ...]:
        """Scores of rows under every null."""
        runs = []
        for number, null in enumerate(plan.nulls_of(is_free=True)[: self.n_nulls]):
            node = job_names.null_scores(rows, number)
            if node in self.folders:
                runs.append(NullRun(self.at(node), null.system_prompt))
        return tuple(runs)


def artifacts_of(index: Index) -> AuditArtifacts:
    """The artifacts of an audit, as far as they are there."""
    job = index.job
    placebos = []
    for name in job.placebos:
        placebos.append(PlaceboRuns(index.at(name), index.at(gradients_of(name))))
    return AuditArtifacts(
        sample=index.at(SAMPLE),
        gradients=index.at(gradients_of(SAMPLE)),
        predictions=index.at(predictions_of(SAMPLE)),
        vectors=index.at(VECTORS),
        traits=tuple(job.config.traits),
        blocks=job.blocks,
        placebos=tuple(placebos),
        scores=ScoreRuns(
            index.prompts(SAMPLE, job.traits),
            index.steered(SAMPLE, SAMPLE),
            index.nulls(SAMPLE),
        ),
        reference=_reference(index),
        spike_ins=_spike_ins(index),
        canaries=_canaries(index),
    )


def _reference(index: Index) -> ReferenceRuns | None:
    if REFERENCE not in index.tries:
        return None
    traits = index.job.traits
    return ReferenceRuns(
        data=ScoreRuns(index.prompts(SAMPLE, traits), index.steered(SAMPLE, REFERENCE)),
        reference=ScoreRuns(
            index.prompts(placebo(0), traits), index.steered(placebo(0), REFERENCE)
        ),
    )


def _spike_ins(index: Index) -> tuple[SpikeInRuns, ...]:
    job = index.job
    if not job.traits:
        return ()
    trait = job.config.traits[0]
    name = load_trait(trait).name
    descriptions = {
        PROMPTED: f"a teacher prompted with the candidate's own prompt ({name})",
        STEERED: (
            f"a teacher steered by {name} at block {job.spike_in_block},"
            f" {job.config.strength:g} mean residual norms"
        ),
    }
    runs = []
    for kind, description in descriptions.items():
        scores = []
        for rows in (kind, placebo(0)):
            prompts: tuple[PromptRun, ...] = ()
            if kind == PROMPTED:
                prompts = (PromptRun(name, index.at(job_names.prompt_scores(rows, trait))),)
            scores.append(ScoreRuns(prompts, index.steered(rows, kind), index.nulls(rows)))
        rows_at, gradients_at = index.at(kind), index.at(gradients_of(kind))
        runs.append(SpikeInRuns(description, name, rows_at, gradients_at, *scores))
    return tuple(runs)


def _canaries(index: Index) -> tuple[CanaryRuns, ...]:
    runs = []
    for trait in index.job.traits:
        for seed in range(index.job.config.canary):
            data = index.at(job_names.canary_answers(SAMPLE, seed, trait))
            control = index.at(job_names.canary_answers(placebo(0), seed, trait))
            runs.append(CanaryRuns(load_trait(trait).name, data, control))
    return tuple(runs)
