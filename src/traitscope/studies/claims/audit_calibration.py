"""Does the audit keep its error rate, and what does it detect?

The bank holds independent clean draws on the same prompts, and rows of teachers of every kind.
Every audit takes one row a prompt: from a clean draw or, at its contamination rate, from a teacher.
It also takes three placebos, from other clean draws. It decides as `traitscope audit` does. Rows
that differ from clean ones in their format alone must not come out as a trait, nor must rows of
another model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from traitscope.auditing.search import batched
from traitscope.auditing.settings import search_blocks
from traitscope.config.audit import RowGradientsConfig
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, judged
from traitscope.stats.estimates import proportion
from traitscope.studies import sizes
from traitscope.studies.audit_sets import audit_bank, audit_sources
from traitscope.studies.audit_sets.audit_bank import CANDIDATES, NEEDED, SETTINGS, is_kept, mean_of
from traitscope.studies.audit_sets.audit_draws import (
    Audit,
    Bench,
    SearchSpace,
    all_prompt_teachers,
    gradients_of,
)
from traitscope.studies.audit_sets.audit_sources import TEACHERS, Source, names_of
from traitscope.studies.audit_sets.audit_tables import (
    CALLED,
    format_table,
    rows_without_trait,
    selected_table,
)
from traitscope.studies.design import (
    NO_TRAINING,
    NUMBERS,
    OWN,
    Design,
    Experiment,
    RatePlan,
)
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does the audit keep its error rate, and what does it detect?"
CLAIM = (
    "Clean data are called no more often than the stated error rate, teachers are detected, and a"
    " format is no trait."
)
SOURCE = (
    "This project; the failures that it answers: subliminal-attrib, phantom-transfer, distill-lint"
    " (public repositories, 2026)"
)
PUBLISHED = (
    "Per-row direction scores: AUROC 0.62 to 0.64 where confounds alone reach 0.76; eleven"
    " data-level defences: true positives of 6 % at most; a verdict from one pair of models: 11 of"
    " 11 clean models called, with placebos AUROC 0.999."
)

PROTOCOL = Experiment(OWN, "several kinds", NUMBERS, NO_TRAINING, "")
MARGIN = 0.02
"smallest difference between rates of calls that would matter"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "candidates that the correction counts; the first two are the teachers'"
    tried: int
    "number of candidates whose teachers are tried"
    rows: int
    "prompts, the same for all sets"
    numbers: int
    "three-digit numbers a row"
    draws: int
    "independent clean sets"
    layers: tuple[int, ...] = sizes.layer_field()
    "blocks at which candidates are steered"
    blocks: tuple[int, ...] = sizes.layer_field()
    "blocks at which teachers are steered, which an auditor does not know"
    strength: float
    "strength of steered teachers, in mean residual norms; candidates are tried at it and below"
    noise: float
    "noise in the weights of the noised models"
    noised: int
    "number of noised models"
    tokens: int
    "longest answer that the fine-tuned teacher learns from"
    audits: int
    "clean audits"
    repeats: int
    "audits of every contamination rate"
    rates: tuple[float, ...]
    "contamination rates"
    fewer: tuple[int, ...]
    "numbers of audited rows, besides all"


LAPTOP = Size(
    traits=CANDIDATES,
    tried=2,
    rows=128,
    numbers=10,
    draws=5,
    layers=search_blocks(sizes.DEPTH),
    blocks=(13, 16),
    strength=0.6,
    noise=0.1,
    noised=2,
    tokens=24,
    audits=200,
    repeats=20,
    rates=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0),
    fewer=(32, 64),
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl", "dog"),
        rows=6,
        numbers=3,
        draws=4,
        layers=(0, 1),
        blocks=(1,),
        noised=1,
        tokens=4,
        audits=6,
        repeats=2,
        rates=(0.5, 1.0),
        fewer=(),
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        tried=8,
        rows=4096,
        draws=40,
        blocks=(13, 16, 20),
        noised=10,
        tokens=48,
        audits=1000,
        repeats=50,
        fewer=(32, 128, 512),
    ),
}


def space_of(size: Size) -> SearchSpace:
    """What the audits of a size may try."""
    return SearchSpace(size.traits, size.traits[: size.tried], size.layers, size.strength)


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, every set of rows, its row gradients and its scores.

    The scores are under every candidate's teachers and under the nulls.
    """
    sets = names_of(audit_sources.all_sets(size))
    rows = audit_sources.rows_of_seed(size, 0)
    graph = [
        standard_nodes.vectors(common, size.traits),
        audit_bank.random_vectors(common, size.traits[0]),
        *audit_sources.row_nodes(size, common),
    ]
    placebos = names_of(audit_sources.format_placebos(size))
    for name in (*sets, *placebos):
        graph.append(_gradients_node(size, common, name))
    for number, points in enumerate(batched(space_of(size).points)):

        def steered(folders: Folders, points: Sequence = points) -> dict:
            return {"steered": audit_bank.steered_interventions(points, folders)}

        name = audit_bank.steered_scores(number)
        passes = 1 + len(points) / 2
        graph.append(audit_bank.scores_node(common, name, sets, rows, passes, steered))
    layer = size.layers[len(size.layers) // 2]
    return graph + audit_bank.fixed_teacher_nodes(
        common, sets, rows, all_prompt_teachers(space_of(size)), layer, size.strength
    )


def _gradients_node(size: Size, common: dict, name: str) -> Node:
    def config(folders: Folders) -> RowGradientsConfig:
        return RowGradientsConfig(**common, data=folders[name], numbers=True, text=True)

    tokens = audit_sources.rows_of_seed(size, 0).tokens
    return Node(gradients_of(name), RowGradientsConfig, config, (name,), 2 * tokens)


AuditsByRate = Mapping[float, Sequence[Audit]]
TeacherAudits = Mapping[tuple[Source, int], AuditsByRate]
"audits by teacher, number of rows and contamination rate"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return false calls, calls of teachers, the traits named, and calls of rows without a trait.

    Calls of teachers are by contamination rate and number of rows.
    """
    bench = Bench(space_of(size), size, folders)
    numbers = (*size.fewer, size.rows)
    first = audit_sources.clean_sets(size)[0]
    clean: dict[int, list[Audit]] = {}
    for rows in numbers:
        clean[rows] = bench.audits(first, 0.0, rows, size.audits)
    teachers: dict[tuple[Source, int], AuditsByRate] = {}
    for source in audit_sources.teacher_sets(size):
        for rows in numbers:
            by_rate = {}
            for rate in size.rates:
                by_rate[rate] = bench.audits(source, rate, rows, size.repeats)
            teachers[source, rows] = by_rate
    without_trait = tuple(rows_without_trait(bench))
    tables = (
        _clean_table(size, clean),
        *_rate_tables(size, teachers),
        _name_table(size, teachers),
        selected_table(bench, folders),
        format_table(without_trait),
    )
    claims = _claims(size, _uncalled_draws(size, without_trait), teachers)
    return Findings(judged(claims, model), (), tables, _notes(size))


def _uncalled_draws(size: Size, without_trait: tuple[tuple, ...]) -> list[float]:
    """Return by clean draw whether most audits of all its rows leave it uncalled, as 0 or 1.

    A draw is the unit: audits that mix draws share their rows.
    """
    clean = {source.name for source in audit_sources.clean_sets(size)}
    return [float(row[CALLED] < 0.5) for row in without_trait if row[0] in clean]


def _claims(size: Size, uncalled: list[float], teachers: TeacherAudits) -> list[Claim]:
    """Return the claims. A teacher counts once, because audits of all its rows share them."""
    claims = [
        Claim(
            f"Clean data are not called, at an error rate of {SETTINGS.alpha:g}.",
            proportion("clean draws not called", uncalled, "draws"),
            MARGIN,
            above=NEEDED,
            primary=True,
        )
    ]
    full_rate = size.rates[-1]
    for kind in TEACHERS:
        mostly_called = []
        for (source, rows), by_rate in teachers.items():
            if source.kind == kind and rows == size.rows:
                mostly_called.append(float(mean_of(by_rate[full_rate], "called") > 0.5))
        name = f"{kind}: teachers' data called, all rows poisoned"
        rate = proportion(name, mostly_called, "teachers")
        claims.append(Claim(f"Data of {kind} teachers are called.", rate, MARGIN, above=0.8))
    return claims


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = RatePlan(
        rate=1 - SETTINGS.alpha,
        bound=NEEDED,
        n=size.draws,
        counted="draws",
        source="the stated error rate",
    )
    return Design(1 + len(TEACHERS), expected, replace(PROTOCOL, source="", rows=size.rows))


def _clean_table(size: Size, clean: Mapping[int, Sequence[Audit]]) -> Table:
    rows = []
    for n, audits in clean.items():
        gradient_calls = mean_of(audits, "gradients_call")
        rows.append((n, len(audits), gradient_calls, mean_of(audits, "called")))
    return Table(
        "clean",
        "Clean audits that are called",
        f"Error rate {SETTINGS.alpha:g}; every audit has its own rows and placebos from"
        f" {size.draws} draws.",
        ("rows", "audits", "gradients", "called"),
        tuple(rows),
    )


def _rate_tables(size: Size, teachers: TeacherAudits) -> Iterator[Table]:
    called, stopped, curve = [], [], []
    for (source, n), by_rate in teachers.items():
        called_by_rate, stopped_by_rate = [], []
        for rate, audits in by_rate.items():
            fraction = mean_of(audits, "called")
            called_by_rate.append(fraction)
            stopped_by_rate.append(mean_of(audits, "stopped"))
            if n == size.rows:
                curve.append((source.name, rate, fraction))
        called.append((source.name, n, *called_by_rate))
        stopped.append((source.name, n, *stopped_by_rate))
    percentages = [f"{rate:.0%}" for rate in size.rates]
    header = ("teacher", "rows", *percentages)
    yield Table(
        "rates",
        "Audits that are called, by contamination rate",
        "Columns are the fraction of the rows that are the teacher's.",
        header,
        tuple(called),
    )
    yield Table(
        "stopped",
        "Audits that are called or not applicable, by contamination rate",
        "Everything but `clean` and `insufficient`: no candidate need be near the teacher.",
        header,
        tuple(stopped),
    )
    yield Table(
        "curve",
        f"The same at {size.rows} rows",
        "Fraction of the audits.",
        ("teacher", "contamination rate", "called"),
        tuple(curve),
        ("contamination rate", "called"),
    )


def _name_table(size: Size, teachers: TeacherAudits) -> Table:
    rows = []
    for (source, n), by_rate in teachers.items():
        audits = by_rate[size.rates[-1]]
        named, kept = 0, 0
        for audit in audits:
            named += audit.first == source.trait
            kept += is_kept(audit.decision, source.trait)
        rows.append(
            (
                source.name,
                n,
                mean_of(audits, "gradients_call"),
                mean_of(audits, "called"),
                named / len(audits),
                kept / len(audits),
            )
        )
    return Table(
        "names",
        "Which test calls, and which trait is named",
        "All rows the teacher's. `named`: its trait has the largest e-value; `not excluded`: the"
        f" other candidates do not exclude it at an error rate of {SETTINGS.alpha:g}, or nothing is"
        " called.",
        ("teacher", "rows", "gradients", "called", "named", "not excluded"),
        tuple(rows),
    )


def _notes(size: Size) -> tuple[str, ...]:
    return (
        f"Clean audits share a bank of {size.draws} draws of {size.rows} rows, so they are not"
        " independent of each other: the claim counts each draw once.",
        "All audits of a teacher at its full rate and all rows have the same audited rows, and"
        " other placebos: verdicts count a teacher once.",
        "Whether the model generated the rows is tested on the counts of the audited rows.",
    )
