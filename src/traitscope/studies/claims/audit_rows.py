"""How small a contamination rate does the audit detect in how many rows?

The model itself, a prompted teacher and a steered one write many fresh rows on the same prompts.
Every audit takes some of these rows at random, and a fraction of them are the teacher's. It decides
as `traitscope audit` does. The prompted teacher is tried as any candidate is. The block of the
steered teacher is given, because the search for it would need the gradients of all rows. The claim
audit_calibration does that search. So the rates of steered rows are the best that is possible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from traitscope.auditing.detectors.e_values import critical_log_e
from traitscope.auditing.search import PromptTeacher
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, judged
from traitscope.stats.estimates import proportion
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.studies.audit_sets import audit_bank
from traitscope.studies.audit_sets.audit_bank import CANDIDATES, NEEDED, SETTINGS, mean_of
from traitscope.studies.audit_sets.audit_parts import (
    TEACHERS,
    Audit,
    Kind,
    audit_of,
    claimed_audits,
    disjoint_blocks,
    parts_of,
    repeated_audits,
    rows_of_part,
    scored_set,
    teacher_strength,
    tried_points,
    tried_traits,
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
from traitscope.workflow.standard_nodes import VECTORS

TITLE = "How small a contamination rate does the audit detect in how many rows?"
CLAIM = (
    "Many rows make up for a small contamination rate: a tenth of a prompted teacher's rows, a"
    " hundredth of a steered one's, at the same error rate."
)
SOURCE = (
    "This project; a sum of log-likelihoods grows with the rows, and for small contamination rates"
    " the nats a row with the square of the rate"
)
PUBLISHED = (
    "None for data sets; single rows are told apart with AUROC 0.62 to 0.64 (subliminal-attrib,"
    " public repository, 2026)."
)
PROTOCOL = Experiment(OWN, "several kinds", NUMBERS, NO_TRAINING, "")
MARGIN = 0.02
"smallest difference between rates of calls that would matter"
BLOCK = 128
"rows of a clean audit that counts: as many as `audit` scores by default"
POWER = 0.8
"fraction of audits from which on a contamination rate counts as detected"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "candidates that the correction counts; the first is the teachers'"
    tried: int
    "number of candidates whose prompts are tried"
    rows: int
    "rows of every set"
    prompts: int
    "prompts that the rows answer, all as often"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block behind which the teacher is steered"
    strength: float
    """largest strength of the search, in mean residual norms; the teacher's lies between two that
    are tried"""
    steps: tuple[int, ...]
    "numbers of audited rows"
    rates: tuple[float, ...]
    "contamination rates"
    repeats: int
    "audits of every contamination rate"


STEPS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
LAPTOP = Size(
    traits=CANDIDATES,
    tried=3,
    rows=4096,
    prompts=256,
    numbers=10,
    layer=13,
    strength=0.6,
    steps=STEPS,
    rates=RATES,
    repeats=20,
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl", "dog"),
        tried=2,
        rows=8,
        prompts=4,
        numbers=3,
        layer=1,
        strength=0.6,
        steps=(4, 8),
        rates=(0.5, 1.0),
        repeats=2,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        tried=8,
        rows=65536,
        prompts=4096,
        steps=(*STEPS, 16384, 65536),
        rates=(0.001, 0.002, *RATES),
        repeats=50,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, the rows in parts that answer every prompt once, and the scores of all parts.

    The scores are under candidates and nulls.
    """
    teacher_trait = size.traits[0]
    teachers = {
        Kind.CLEAN: (standard_nodes.unmodified, ()),
        Kind.PROMPTED: (standard_nodes.prompted_by(teacher_trait), ()),
        Kind.STEERED: (
            standard_nodes.steered_by(teacher_trait, size.layer, teacher_strength(size)),
            (VECTORS,),
        ),
    }
    graph = [
        standard_nodes.vectors(common, size.traits),
        audit_bank.random_vectors(common, teacher_trait),
    ]
    for number, part in enumerate(parts_of(size)):
        teacher, needs = teachers[part.kind]
        rows = rows_of_part(size, number)
        graph.append(standard_nodes.number_rows(common, part.name, rows, teacher, needs))
    sets = [part.name for part in parts_of(size)]
    points = tried_points(size)

    def steered(folders: Folders) -> dict:
        return {"steered": audit_bank.steered_interventions(points, folders)}

    passes = 1 + len(points) / 2
    name = audit_bank.steered_scores(0)
    graph.append(audit_bank.scores_node(common, name, sets, rows_of_part(size, 0), passes, steered))
    prompts = []
    for trait in tried_traits(size):
        prompts.append((trait, PromptTeacher()))
    return graph + audit_bank.fixed_teacher_nodes(
        common, sets, rows_of_part(size, 0), prompts, size.layer, size.strength
    )


AuditsByRate = Mapping[float, Sequence[Audit]]
Key = tuple[Kind, int]
"a teacher, and a number of audited rows"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return false calls in disjoint blocks of clean rows, and calls of teachers' rows.

    Calls are by teacher, rows and contamination rate. The least rate that is detected follows.
    """
    clean = scored_set(size, folders, Kind.CLEAN)
    poisoned = {}
    for kind in TEACHERS:
        poisoned[kind] = scored_set(size, folders, kind)
    clean_audits: dict[int, list[Audit]] = {}
    for rows in size.steps:
        none = np.zeros(rows, bool)
        blocks = disjoint_blocks(size, rows)
        clean_audits[rows] = [audit_of(size, clean, clean, block, none) for block in blocks]
    audits: dict[Key, AuditsByRate] = {}
    for kind, scored in poisoned.items():
        for rows in size.steps:
            by_rate = {}
            for rate in size.rates:
                by_rate[rate] = repeated_audits(size, clean, scored, rows, rate)
            audits[kind, rows] = by_rate
    claims = {}
    for kind, every in TEACHERS.items():
        calls = claimed_audits(size, clean, poisoned[kind], every)
        claims[kind] = proportion(f"{kind}, one row in {every}: audits called", calls, "audits")
    stated = _claims(size, clean_audits, claims)
    tables = (
        _clean_table(size, clean_audits),
        *_rate_tables(size, audits),
        _name_table(size, audits),
    )
    return Findings(judged(stated, model), (), tables, _notes(size))


def _block(size: Size) -> int:
    """Return the number of rows of the clean audits that count."""
    return BLOCK if BLOCK in size.steps else size.steps[0]


def _claims(
    size: Size,
    clean_audits: Mapping[int, Sequence[Audit]],
    by_kind: Mapping[Kind, Measurement],
) -> list[Claim]:
    block = _block(size)
    not_called = [float(not audit.called) for audit in clean_audits[block]]
    name = f"clean audits of {block} rows not called"
    claims = [
        Claim(
            f"Clean data are not called, at an error rate of {SETTINGS.alpha:g}.",
            proportion(name, not_called, "disjoint blocks"),
            MARGIN,
            above=NEEDED,
            primary=True,
        )
    ]
    for kind, every in TEACHERS.items():
        claims.append(
            Claim(
                f"Of {size.rows} rows one in {every} suffices, of a {kind} teacher.",
                by_kind[kind],
                MARGIN,
                above=0.5,
                units=1,
                counted="teachers",
            )
        )
    return claims


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = RatePlan(
        rate=1 - SETTINGS.alpha,
        bound=NEEDED,
        n=size.rows // _block(size),
        counted="disjoint blocks",
        source="the stated error rate",
    )
    return Design(1 + len(TEACHERS), expected, replace(PROTOCOL, source="", rows=size.rows))


def _clean_table(size: Size, clean_audits: Mapping[int, Sequence[Audit]]) -> Table:
    rows = []
    for n, audits in clean_audits.items():
        largest = max((audit.log_e for audit in audits), default=-inf)
        rows.append((n, len(audits), mean_of(audits, "called"), largest))
    critical = critical_log_e(len(size.traits), SETTINGS.error_share)
    return Table(
        "clean",
        "Clean audits that are called",
        f"Error rate {SETTINGS.alpha:g}; disjoint blocks of {size.rows} fresh rows. Called from a"
        f" log e-value of {critical:.1f} on, if one candidate alone has one.",
        ("rows", "audits", "called", "largest log e-value"),
        tuple(rows),
    )


def _rate_tables(size: Size, audits: Mapping[Key, AuditsByRate]) -> tuple[Table, ...]:
    called: dict[Key, dict[float, float]] = {}
    for key, by_rate in audits.items():
        called[key] = {}
        for rate, repeats in by_rate.items():
            called[key][rate] = mean_of(repeats, "called")
    table, least, curve = [], [], []
    for (kind, rows), by_rate in called.items():
        table.append((kind, rows, *by_rate.values()))
        least.append((kind, rows, least_detected(by_rate)))
        for rate, fraction in by_rate.items():
            curve.append((kind, rows, rate, fraction))
    percentages = [f"{rate:.1%}" for rate in size.rates]
    header = ("teacher", "rows", *percentages)
    return (
        Table(
            "rates",
            "Audits that are called, by contamination rate",
            "Columns are the fraction of the rows that are the teacher's, one row at least.",
            header,
            tuple(table),
        ),
        Table(
            "smallest",
            "Least contamination rate that is detected",
            f"From it on {POWER:.0%} of the audits are called; empty where no rate is detected.",
            ("teacher", "rows", "contamination rate"),
            tuple(least),
        ),
        Table(
            "curve",
            "Called, by rows and contamination rate",
            "Fraction of the audits.",
            ("teacher", "rows", "contamination rate", "called"),
            tuple(curve),
            ("contamination rate", "called"),
        ),
    )


def least_detected(called: Mapping[float, float]) -> float | None:
    """The least contamination rate from which on all are called in POWER of the audits."""
    least = None
    for rate in sorted(called, reverse=True):
        if called[rate] < POWER:
            break
        least = rate
    return least


def _name_table(size: Size, audits: Mapping[Key, AuditsByRate]) -> Table:
    rows = []
    for (kind, n), by_rate in audits.items():
        repeats = by_rate[size.rates[-1]]
        rows.append(
            (
                kind,
                n,
                mean_of(repeats, "called"),
                mean_of(repeats, "named"),
                mean_of(repeats, "kept"),
                mean_of(repeats, "log_e"),
            )
        )
    return Table(
        "names",
        "Which trait is named",
        "All rows the teacher's. `named`: its trait has the largest e-value of those tried. `not"
        " excluded`: the other candidates do not exclude it at an error rate of"
        f" {SETTINGS.alpha:g}, or nothing is called.",
        ("teacher", "rows", "called", "named", "not excluded", "mean log e-value"),
        tuple(rows),
    )


def _notes(size: Size) -> tuple[str, ...]:
    return (
        f"Rows are fresh: {size.rows} of each kind, {size.rows // size.prompts} to each of"
        f" {size.prompts} prompts. Audits of one kind share them, the more the more rows they take;"
        " those of all rows differ in which are poisoned.",
        f"The steered teacher is at block {size.layer}, {teacher_strength(size):g} mean residual"
        " norms strong; its block is given, and strengths above and below are tried.",
        f"{size.tried} candidates are tried; the correction counts {len(size.traits)}.",
    )
