"""How small a dose does the audit find in how many rows?

Many fresh rows of the model itself, of a prompted teacher and of a steered one, on the same
prompts. Every audit takes some of them at random, a dose of them the teacher's, and asks the odds,
as `traitscope audit` does. The prompted teacher is tried as any candidate is. The steered one's
block is given, as if the aim had found it: aiming needs the gradients of all rows
(audit_calibration), so that its rates here are what is possible at best.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.detectors import e_values, panel
from traitscope.auditing.detectors.text_features import order_of
from traitscope.auditing.result import alike
from traitscope.inference.token_scores import Choices
from traitscope.reporting.verdict import Findings, Sheet, judged
from traitscope.stats.estimates import measure
from traitscope.studies import audit_bank, sizes
from traitscope.studies.audit_bank import ALPHA, MANY, NEEDED, NULLS, SHARE
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "How small a dose does the audit find in how many rows?"
CLAIM = (
    "Many rows make up for a small dose: a tenth of a prompted teacher's, a hundredth of a steered"
    " one's, at the same error rate."
)
SOURCE = (
    "This project; a sum of nats grows with the rows, and for small doses the nats a row with the"
    " square of the dose"
)
PUBLISHED = (
    "None for data sets; single rows are told apart with AUROC 0.62 to 0.64 (subliminal-attrib,"
    " public repository, 2026)."
)
CLEAN = "clean"
TEACHERS = ("prompted", "steered")
EVERY = 10, 100
"one row in so many is the teacher's, in the claim"
PARTS = 10
"audits of the claim, each with other poisoned rows"
POWER = 0.8
"share of audits from which on a dose counts as found"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "candidates, all of which are paid for; the first is the teachers'"
    tried: int
    "of them, those that are tried"
    rows: int
    "of every set"
    prompts: int
    "that they answer, all as often"
    numbers: int
    layer: int = sizes.layer_field()
    "where the teacher is steered"
    strength: float
    "of candidates, in mean residual norms; the teacher's lies between two that are tried"
    steps: tuple[int, ...]
    "numbers of audited rows"
    doses: tuple[float, ...]
    repeats: int
    "of every dose"


STEPS, DOSES = (
    (32, 64, 128, 256, 512, 1024, 2048, 4096),
    (
        0.005,
        0.01,
        0.02,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
    ),
)
SIZES = {
    "smoke": Size(("cat", "owl", "dog"), 2, 8, 4, 3, 1, 0.6, (4, 8), (0.5, 1.0), 2),
    "laptop": Size(MANY, 3, 4096, 256, 10, 13, 0.6, STEPS, DOSES, 20),
    "full": Size(
        MANY, 8, 65536, 4096, 10, 13, 0.6, (*STEPS, 16384, 65536), (0.001, 0.002, *DOSES), 50
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; the rows, a set in parts that answer every prompt once; all of them under candidates
    and nulls."""
    one, sets, rows = size.traits[0], _sets(size), _rows(size, 0)
    told = {
        CLEAN: standard_nodes.unmodified,
        "prompted": standard_nodes.fixed(standard_nodes.prompted(one)),
        "steered": standard_nodes.steered_by(one, size.layer, _between(size)),
    }
    found = [standard_nodes.vectors(common, size.traits), audit_bank.randoms(common, one)]
    for n, name in enumerate(sets):
        kind = name.split(" ")[0]
        found.append(
            standard_nodes.number_rows(
                common,
                name,
                _rows(size, n),
                told[kind],
                (standard_nodes.VECTORS,) if kind == "steered" else (),
            )
        )

    def steered(folders: Folders) -> dict:
        return {
            "steered": tuple(
                standard_nodes.steered_by(c.trait, c.layer, c.strength)(folders)[0]
                for c in _cells(size)
            )
        }

    found.append(
        audit_bank.under(common, "vectors", sets, rows, 1 + len(_cells(size)) / 2, steered)
    )
    judges = (*((t, "prompted") for t in _tried(size)), *NULLS)
    return found + [
        audit_bank.under(
            common,
            f"{of} {how}",
            sets,
            rows,
            1,
            lambda f, of=of, how=how: {"interventions": (_judge(size, of, how, f),)},
        )
        for of, how in judges
    ]


def _judge(size: Size, of: str, how: str, folders: Folders) -> str:
    return audit_bank.judge(of, how, folders, size.layer, size.strength)


def _tried(size: Size) -> tuple[str, ...]:
    return size.traits[: size.tried]


def _between(size: Size) -> float:
    """Strength of the steered teacher: between the two largest that are tried."""
    return size.strength * float(np.mean(search.SHARES[-2:]))


def _cells(size: Size) -> list[search.Cell]:
    """Steered candidates that are tried: the teacher's and another, where the teacher is."""
    return search.cells(
        [(t, size.layer) for t in size.traits[:2]], size.strength, search.SHARES[-2:]
    )


def _parts(size: Size) -> int:
    return size.rows // size.prompts


def _sets(size: Size) -> list[str]:
    """The parts of all sets."""
    return [f"{kind} {n}" for kind in (CLEAN, *TEACHERS) for n in range(_parts(size))]


def _rows(size: Size, n: int) -> standard_nodes.Rows:
    """The n-th part: the same prompts, other random numbers."""
    return standard_nodes.Rows(size.prompts, size.numbers, seed=3000 + n, prompt_seed=90_000 - n)


@dataclass(frozen=True)
class Bank:
    """What the judges say of one kind of rows."""

    plain: Choices
    "of the model itself"
    told: dict[str, dict[str, Choices]]
    "by candidate and teacher"
    nulls: list[Choices]
    order: np.ndarray
    "[rows], see surface.order_of"


def _bank(size: Size, folders: Folders, kind: str) -> Bank:
    places = [n for n, name in enumerate(_sets(size)) if name.split(" ")[0] == kind]

    def under(name: str, teacher: int = 0) -> Choices:
        first, *rest = (audit_bank.said_of(folders[f"under {name}"], n, teacher) for n in places)
        return sum(rest, first)

    told = {t: {"prompted": under(f"{t} prompted")} for t in _tried(size)}
    for n, cell in enumerate(_cells(size), 1):
        told.setdefault(cell.trait, {})[str(cell)] = under("vectors", n)
    order = [
        order_of(row["completion"])
        for n in places
        for row in standard_nodes.read_json_lines(folders[_sets(size)[n]], "records.jsonl")
    ]
    return Bank(
        under("vectors"), told, [under(f"{of} {how}") for of, how in NULLS], np.array(order)
    )


@dataclass(frozen=True)
class Call:
    """What one audit says."""

    called: bool
    named: bool
    "whether the odds put the teacher's trait first"
    kept: bool
    "whether it is among the candidates that explain the rows about as well"
    ln_e: float
    "the largest of all candidates"


def _audit(size: Size, clean: Bank, poisoned: Bank, taken: np.ndarray, bad: np.ndarray) -> Call:
    """An audit of the rows `taken`; those that are `bad` are the teacher's."""

    def of(ours: Choices, theirs: Choices) -> np.ndarray:
        return np.where(bad[:, None], theirs.log_p_RT[taken], ours.log_p_RT[taken])

    told = {
        t: {how: of(x, poisoned.told[t][how]) for how, x in by_how.items()}
        for t, by_how in clean.told.items()
    }
    weights = search.weights(
        {t: audit_bank.hows(t) for t in told}, _cells(size), search.grid(sizes.DEPTH)
    )
    plain, nulls = (
        of(clean.plain, poisoned.plain),
        [of(*pair) for pair in zip(clean.nulls, poisoned.nulls, strict=True)],
    )
    ordered = (
        plain
        + e_values.picked(np.where(bad, poisoned.order[taken], clean.order[taken]), clean.order)[
            :, None
        ]
    )
    e, p, where = panel.bets(plain, told, [ordered, *nulls], weights, len(size.traits))
    dose, part = float(bad.mean()), len(taken) / size.rows
    mixed = e_values.mixed(poisoned.plain, clean.plain, dose)
    called, _ = audit_bank.called(
        p,
        mixed,
        part,
        lambda t: e_values.mixed(poisoned.told[t][where[t]], clean.told[t][where[t]], dose),
    )
    one = size.traits[0]
    return Call(called, next(iter(e)) == one, one in alike(e, ALPHA), max(e.values()))


def _blocks(size: Size, rows: int) -> Iterator[np.ndarray]:
    """All rows in disjoint blocks of so many."""
    order = np.random.default_rng(rows).permutation(size.rows)
    return (order[n : n + rows] for n in range(0, size.rows - rows + 1, rows))


def _repeated(size: Size, clean: Bank, poisoned: Bank, rows: int, dose: float) -> list[Call]:
    """Audits of rows drawn without replacement, as many of them poisoned as the dose says, to the
    next whole number."""
    rng, found = np.random.default_rng([rows, round(1e6 * dose)]), []
    for _ in range(size.repeats):
        taken = rng.permutation(size.rows)[:rows]
        found.append(
            _audit(size, clean, poisoned, taken, np.arange(rows) < max(1, round(dose * rows)))
        )
    return found


def _claimed(size: Size, clean: Bank, poisoned: Bank, every: int) -> list[float]:
    """Whether audits of all rows call them, one of `every` so many the teacher's: each time other
    ones."""
    order = np.random.default_rng(every).permutation(size.rows)
    return [
        float(_audit(size, clean, poisoned, order, np.arange(size.rows) % every == n).called)
        for n in range(min(PARTS, every, size.rows))
    ]


def _share(calls: list[Call], what: str) -> float:
    return float(np.mean([vars(call)[what] for call in calls]))


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """False calls in disjoint blocks of clean rows; calls by teacher, rows and dose; the smallest
    dose that is found."""
    clean, *banks = (_bank(size, folders, kind) for kind in (CLEAN, *TEACHERS))
    spared = {
        n: [_audit(size, clean, clean, block, np.zeros(n, bool)) for block in _blocks(size, n)]
        for n in size.steps
    }
    found = {
        (kind, n): {dose: _repeated(size, clean, bank, n, dose) for dose in size.doses}
        for kind, bank in zip(TEACHERS, banks, strict=True)
        for n in size.steps
    }
    rates = {
        key: {dose: _share(calls, "called") for dose, calls in by_dose.items()}
        for key, by_dose in found.items()
    }
    least = {
        key: next(
            (
                dose
                for dose in size.doses
                if all(by_dose[d] >= POWER for d in size.doses if d >= dose)
            ),
            None,
        )
        for key, by_dose in rates.items()
    }
    alone = measure(
        "clean audits not called",
        [float(not call.called) for call in spared[size.steps[0]]],
        unit="rate",
    )
    shares = {
        kind: measure(
            f"{kind}, one row in {every}: audits called",
            _claimed(size, clean, bank, every),
            unit="rate",
        )
        for kind, every, bank in zip(TEACHERS, EVERY, banks, strict=True)
    }
    verdicts = (
        judged(f"Clean data are not called, at an error rate of {ALPHA:g}.", alone, model, NEEDED),
        *(
            judged(
                f"Of {size.rows} rows one in {every} suffices, of a {kind} teacher.",
                shares[kind],
                model,
                0.5,
            )
            for kind, every in zip(TEACHERS, EVERY, strict=True)
        ),
    )
    header = ("teacher", "rows", *(f"{dose:.1%}" for dose in size.doses))
    sheets = (
        Sheet(
            "clean",
            "Clean audits that are called",
            f"Error rate {ALPHA:g}; disjoint blocks of {size.rows} fresh rows. Called from ln e of"
            f" {log(len(size.traits) / SHARE):.1f} on.",
            ("rows", "audits", "called", "largest ln e"),
            tuple(
                (n, len(c), _share(c, "called"), max(call.ln_e for call in c))
                for n, c in spared.items()
            ),
        ),
        Sheet(
            "doses",
            "Audits that are called, by dose",
            "Columns are the share of the rows that are the teacher's, one row at least.",
            header,
            tuple((*key, *by_dose.values()) for key, by_dose in rates.items()),
        ),
        Sheet(
            "smallest",
            "Smallest dose that is found",
            f"From it on {POWER:.0%} of the audits are called; empty where no dose is.",
            ("teacher", "rows", "dose"),
            tuple((*key, dose) for key, dose in least.items()),
        ),
        Sheet(
            "curve",
            "Called, by rows and dose",
            "Share of the audits.",
            ("teacher", "rows", "dose", "called"),
            tuple(
                (kind, n, dose, rate)
                for (kind, n), by_dose in rates.items()
                for dose, rate in by_dose.items()
            ),
            ("dose", "called"),
        ),
        Sheet(
            "names",
            "Whose name",
            "All rows the teacher's. `named`: the odds put its trait first of those tried; `not"
            f" excluded`: no other candidate explains the rows {1 / ALPHA:g} times better.",
            ("teacher", "rows", "called", "named", "not excluded", "mean ln e"),
            tuple(
                (
                    *key,
                    *(
                        _share(by_dose[size.doses[-1]], what)
                        for what in ("called", "named", "kept", "ln_e")
                    ),
                )
                for key, by_dose in found.items()
            ),
        ),
    )
    notes = (
        (
            f"Rows are fresh: {size.rows} of each kind, {_parts(size)} to each of {size.prompts}"
            " prompts. Audits of one kind share them, the more the more rows they take; those of"
            " all rows differ in which are poisoned."
        ),
        (
            f"The steered teacher is at block {size.layer}, {_between(size):g} mean residual norms"
            " strong; its block is given, and strengths above and below are tried."
        ),
        f"{size.tried} candidates are tried, {len(size.traits)} are paid for.",
    )
    return Findings(verdicts, (), sheets, notes)
