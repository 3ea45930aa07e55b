"""The phases of an audit: which stages are computed next, by what is known.

    first_look   students predict the rows; every candidate's prompt is tried on a few of them;
                 gradients of some rows
    likeliest    the likeliest candidates' prompts, on all rows
    steered      those that are likely on all rows, in other words; steered teachers on a few rows,
                 where the gradients point at a candidate's vector
    near         their neighbours, twice
    finalists    the best steered teachers, on all rows
    excuses      if rows would be called: the nulls that cost a pass each, and placebos
    rivals       if a candidate is called: teachers of all others like its best one, on all rows
    own_answers  what the last phase needs of the model's own: placebos, or answers beside those of
                 spike-in teachers
    drawn_again  if fewer than half of the prompts have such an answer in the format: one more draw
    last         if they are still called: students of placebos, if asked for;
                 else, if the tests apply, spike-in teachers, to know what would have been called

Every phase costs something only where the answer may depend on it. Rows are called only after all
nulls were read. So leaving a null unread never adds a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from traitscope.auditing import search
from traitscope.auditing.artifacts import AuditArtifacts
from traitscope.auditing.decide import decide, needs_nulls
from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.e_values import PARAPHRASED, log_e_over_model
from traitscope.auditing.detectors.findings import EValueFinding
from traitscope.auditing.detectors.row_gradients import read_row_gradients
from traitscope.auditing.evidence import evidence_of, few_rows
from traitscope.auditing.planning import answers, learner_nodes, plan
from traitscope.auditing.planning.given_node import under_given
from traitscope.auditing.planning.index import Index, artifacts_of
from traitscope.auditing.planning.job import (
    PLACEBO,
    SAMPLE,
    SPIKE_INS,
    AuditNodes,
    Group,
    Job,
    gradients_of,
    prompt_scores,
    steered_scores,
)
from traitscope.auditing.runs import AuditRuns, log_likelihood_pair
from traitscope.auditing.search import GridPoint
from traitscope.auditing.settings import (
    CONTINUED,
    DRAWS,
    FEWEST_ROWS,
    LEAST_LOG_E,
    SEARCH_ROWS,
    Settings,
    search_blocks,
)
from traitscope.data.traits import load_trait
from traitscope.workflow.graph import Folders


@dataclass
class Audit:
    """An audit under way."""

    job: Job
    "what was asked for"
    root: Path
    "the folder below which its runs lie"
    is_free: bool
    "whether the rows are free text"
    nodes: AuditNodes
    "what was computed, and what is to be computed next"
    folders: Folders = field(default_factory=dict)
    "run directories by node"
    tries: list[list[GridPoint]] = field(default_factory=list)
    "steered teachers that are tried on a few rows, in batches that are scored together"
    finalists: list[GridPoint] = field(default_factory=list)
    "steered teachers that are tried on all rows"
    rivals: list[GridPoint] = field(default_factory=list)
    "steered teachers of other candidates, where the called one's is"

    @property
    def settings(self) -> Settings:
        """How the decision is made."""
        config = self.job.config
        return Settings(config.alpha, config.power, config.dose)

    @property
    def artifacts(self) -> AuditArtifacts:
        """The artifacts, as far as they are there."""
        steered = {"all": self.finalists, "rivals": self.rivals}
        index = Index(self.job, self.folders, self.root, steered, self.is_free)
        return artifacts_of(index)

    @property
    def runs(self) -> AuditRuns:
        """The runs, opened."""
        return AuditRuns(self.artifacts, self.root)

    @property
    def strength(self) -> float:
        """The largest strength that is tried."""
        return self.job.config.strength


def first_look(audit: Audit) -> None:
    """Students predict the rows; beside them every candidate's prompt is tried on a few rows."""
    job = audit.job
    audit.nodes.add(Group.PREDICTIONS, *learner_nodes.predictions(job, SAMPLE))
    for trait in job.config.traits:
        few = plan.under_prompt(job, SAMPLE, trait, is_few=True)
        audit.nodes.add(Group.TEACHER_SCORES, few)
    audit.nodes.add(Group.VECTORS, *plan.vector_nodes(job))
    audit.nodes.add(Group.GRADIENTS, plan.row_gradients(job, SAMPLE))
    if job.config.teacher is not None:
        audit.nodes.add(Group.GIVEN_TEACHER, under_given(job, job.config.teacher))
    if job.config.peer:
        audit.nodes.add(Group.PLACEBOS, *answers.placebo_nodes(job))


def likeliest(audit: Audit) -> None:
    """The likeliest candidates' prompts on all rows.

    The first one is tried in any case, so that it is known what it explains.
    """
    job = audit.job
    by_name = few_rows(audit.runs)
    log_e = {trait: by_name[load_trait(trait).name] for trait in job.config.traits}
    ranked = sorted(log_e, key=lambda trait: -log_e[trait])
    n_likely = sum(value >= LEAST_LOG_E for value in log_e.values())
    for trait in ranked[: max(1, min(CONTINUED, n_likely))]:
        audit.nodes.add(Group.TEACHER_SCORES, plan.under_prompt(job, SAMPLE, trait))
    if _is_strange_beside_reference(audit):
        _add_reference(audit)


def _is_strange_beside_reference(audit: Audit) -> bool:
    scores = audit.runs.predictions.model
    return bool(audit.job.config.reference) and fit_test.is_off_model(scores)


def _add_reference(audit: Audit) -> None:
    """Rows that do not fit the model are compared with reference rows: every candidate's prompt,
    and its vector at one block, on both. Gradients would favour the audited rows there."""
    job = audit.job
    strength = audit.strength * search.HALF
    points = []
    for trait in job.config.traits:
        points.append(GridPoint(load_trait(trait).name, job.null_block, strength))
    audit.finalists = points
    for rows in (SAMPLE, PLACEBO):
        for trait in job.config.traits:
            audit.nodes.add(Group.TEACHER_SCORES, plan.under_prompt(job, rows, trait))
        _add_steered(audit, rows, "all", points, 0)


def steered(audit: Audit) -> None:
    """The likeliest prompts in other words; the first round of steered teachers, on a few rows."""
    runs = audit.runs
    for trait in _worth_paraphrasing(audit):
        for number in range(len(load_trait(trait).paraphrases)):
            node = plan.under_prompt(audit.job, SAMPLE, trait, number)
            audit.nodes.add(Group.TEACHER_SCORES, node)
    if audit.finalists:
        return
    stored = read_row_gradients(audit.folders[gradients_of(SAMPLE)])
    blocks = search_blocks(audit.job.blocks)
    z = search.gradient_z(stored.rows(range(len(stored.ids))), runs.vectors, blocks)
    _try(audit, search.first_round(z, audit.strength))


def _worth_paraphrasing(audit: Audit) -> list[str]:
    """The candidates whose prompts are likeliest on all rows, if they are likely."""
    log_e = {}
    for trait in audit.job.config.traits:
        folder = audit.folders.get(prompt_scores(SAMPLE, trait))
        if folder is not None:
            log_e[trait] = log_e_over_model(*log_likelihood_pair(audit.runs.predictions, folder))
    likely = [trait for trait, value in log_e.items() if value >= LEAST_LOG_E]
    return sorted(likely, key=lambda trait: -log_e[trait])[:PARAPHRASED]


def near(audit: Audit) -> None:
    """The neighbours of the best steered teachers, on a few rows."""
    log_e = _tried(audit)
    if log_e:
        blocks = search_blocks(audit.job.blocks)
        _try(audit, search.next_round(log_e, blocks, audit.strength))


def _try(audit: Audit, points: Sequence[GridPoint]) -> None:
    for batch in search.batched(points):
        name = steered_scores(SAMPLE, "few", len(audit.tries))
        audit.tries.append(batch)
        node = plan.under_steering(audit.job, name, SAMPLE, batch, SEARCH_ROWS)
        audit.nodes.add(Group.TEACHER_SCORES, node)


def _tried(audit: Audit) -> dict[GridPoint, float]:
    """Log e-values on a few rows, by steered teacher."""
    predictions = audit.runs.predictions
    log_e = {}
    for batch_number, batch in enumerate(audit.tries):
        folder = audit.folders[steered_scores(SAMPLE, "few", batch_number)]
        for number, point in enumerate(batch):
            pair = log_likelihood_pair(predictions, folder, number)
            log_e[point] = log_e_over_model(*pair)
    return log_e


def finalists(audit: Audit) -> None:
    """The best steered teachers, on all rows."""
    if audit.finalists:
        return
    audit.finalists = search.finalists(_tried(audit))
    _add_steered(audit, SAMPLE, "all", audit.finalists, 0)


def _add_steered(audit: Audit, rows: str, key: str, points: Sequence[GridPoint], n: int) -> None:
    if points:
        name = steered_scores(rows, key, 0)
        node = plan.under_steering(audit.job, name, rows, points, n)
        audit.nodes.add(Group.TEACHER_SCORES, node)


def excuses(audit: Audit) -> None:
    """Nulls and placebos, where rows would be called without them."""
    evidence = evidence_of(audit.runs, audit.settings, audit.job.config.seed)
    if needs_nulls(evidence, audit.settings):
        audit.nodes.add(Group.NULLS, *plan.under_nulls(audit.job, SAMPLE, audit.is_free))
        audit.nodes.add(Group.PLACEBOS, *answers.placebo_nodes(audit.job))


def rivals(audit: Audit) -> None:
    """Teachers of all other candidates like the best one of the candidate that is called.

    A trait is named only if every other one was tried on all rows, and is excluded.
    """
    job = audit.job
    evidence = evidence_of(audit.runs, audit.settings, job.config.seed)
    decision = decide(evidence, audit.settings)
    if decision.status != "suspect" or job.config.reference or not decision.traits:
        return
    best = decision.traits[0]
    if best.detector != EValueFinding.detector or best.p_corrected > audit.settings.alpha:
        return
    teacher = decision.e_values.where[best.name]
    others = [trait for trait in job.config.traits if load_trait(trait).name != best.name]
    if isinstance(teacher, GridPoint):
        points = [replace(teacher, trait=load_trait(trait).name) for trait in others]
        audit.rivals = [point for point in points if point not in audit.finalists]
        _add_steered(audit, SAMPLE, "rivals", audit.rivals, 0)
        return
    for trait in others:
        audit.nodes.add(Group.TEACHER_SCORES, plan.under_prompt(job, SAMPLE, trait))


def _wanted_at_last(audit: Audit) -> Group | None:
    """What the last phase adds: spike-in teachers, placebos alone, or students of placebos."""
    job = audit.job
    evidence = evidence_of(audit.runs, audit.settings, job.config.seed)
    if evidence.rows < FEWEST_ROWS:
        return None
    status = decide(evidence, audit.settings).status
    if status == "not-applicable":  # placebos tell rows that were sorted from the model's own
        return Group.PLACEBOS
    if status == "suspect":
        return Group.CANARY if job.config.canary else None
    return Group.SPIKE_INS if job.config.spike_ins else None


def own_answers(audit: Audit) -> None:
    """The model's own answers that the last phase compares with."""
    wanted = _wanted_at_last(audit)
    if wanted == Group.SPIKE_INS:
        audit.nodes.add(Group.SPIKE_INS, *plan.spike_in_answers(audit.job))
    elif wanted is not None:
        audit.nodes.add(Group.PLACEBOS, *answers.placebo_nodes(audit.job))


def drawn_again(audit: Audit) -> None:
    """One more draw, where fewer than half of the prompts have an answer in the format."""
    for name, make in answers.OWN_NODES.items():
        share = answers.share_in_format(audit.folders, name)
        if share is None or share.is_half or (name == PLACEBO and audit.job.config.reference):
            continue
        draws = sum(node.name.startswith(f"{name} raw") for node in audit.nodes.nodes)
        audit.nodes.replace(*make(audit.job, draws + 1))


def last(audit: Audit) -> None:
    """Students of placebos where rows are called, else spike-in teachers.

    They need answers of the model itself in the format of the data.
    """
    job = audit.job
    placebos = answers.share_in_format(audit.folders, PLACEBO)
    if job.config.peer and placebos is not None and placebos.is_enough:
        audit.nodes.add(Group.FEATURES, *plan.feature_nodes(job))
    wanted = _wanted_at_last(audit)
    if wanted == Group.CANARY and placebos is not None and placebos.is_enough:
        students = learner_nodes.predictions(job, PLACEBO)
        audit.nodes.add(Group.CANARY, *students, learner_nodes.canary(job))
    shares = [answers.share_in_format(audit.folders, rows) for rows in SPIKE_INS]
    if wanted == Group.SPIKE_INS and all(share and share.is_enough for share in shares):
        audit.nodes.add(Group.SPIKE_INS, *plan.spike_in_nodes(job, audit.is_free))


PHASES: tuple[Callable[[Audit], None], ...] = (
    first_look,
    likeliest,
    steered,
    *(near,) * search.NEAR_ROUNDS,
    finalists,
    excuses,
    rivals,
    own_answers,
    *(drawn_again,) * (DRAWS - 1),
    last,
)
"the phases, in their order"
