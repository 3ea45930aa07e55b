"""Outcome validity: what students take from sets of the menu, beside what the audit says of them.

Three students learn each set. Their rise is asked in the questions of the writer's trait; sets
without one are asked for a trait by their number. The rise is the mean over questions of

    log share(student) - log share(unmodified model)

where the share is that of the trait's word among words of its kind. So a shift of all of them,
which any training on numbers brings about, is no rise.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.config.stages import MeasureConfig, TrainConfig
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.short_form import to_short
from traitscope.stages.measure import run_measure
from traitscope.stages.train import run_train
from traitscope.studies.calibration.audited import cpu_seconds
from traitscope.studies.calibration.results import Line, Version, code_digest, digest_of
from traitscope.studies.calibration.sets import rows, words, writers
from traitscope.studies.calibration.sets.menu import KINDS, SetName, plan_of, seed_of
from traitscope.studies.calibration.sets.place import Workplace
from traitscope.workflow.standard_nodes import read_json_lines

STUDENTS = 3
"students of a set"
LEARNS = ("training/loop.py", "training/step.py", "inference/question_scores.py")
"code that a rise follows from, beside the model's passes"
SCORE = "candidate_share"
"score of a question"
SMALLEST = 1e-12
"least share whose logarithm is taken"
RATES = ("", " 50%", " 25%", " 10%")
"contamination rates, as in the names of kinds; each has teachers of its own"
OTHERS: Mapping[str, int] = {
    "text, prompted": 2,
    "text, steered": 2,
    "text, tuned": 2,
    "benign tuned": 3,
    "random vector": 3,
    "plain": 3,
    "text": 1,
}
"further kinds, with their number of sets"


def all_sets() -> list[SetName]:
    """The 40 sets, in order. No two of them share a writer, so that they are independent."""
    names = []
    for place, rate in enumerate(RATES):
        for number in (2 * place, 2 * place + 1):
            for kind in ("prompted", "steered", "tuned"):
                names.append(SetName(f"{kind}{rate}", number))
    for kind, count in OTHERS.items():
        plan = KINDS[kind].plan(0)
        # The first teachers are those of the number sets.
        first = 2 * len(RATES) if plan.is_text and plan.changed else 0
        for number in range(first, first + count):
            names.append(SetName(kind, number))
    first_come = {name: (name.number, KINDS[name.kind].family, name.kind) for name in names}
    return sorted(names, key=first_come.__getitem__)


@dataclass(frozen=True)
class Outcomes:
    """How students learn sets and are asked."""

    place: Workplace
    "where rows are made and students trained, and on which model"
    recipe: Recipe = SAMPLED_RECIPE
    "recipe of the students"
    asked: Mapping[str, Any] = field(default_factory=dict)
    "settings of `measure` that are not the defaults here"

    @property
    def version(self) -> Version:
        """The digests of settings and code."""
        settings = [self.place.model, self.place.rows, vars(self.recipe), dict(self.asked)]
        return Version(digest_of(settings), code_digest(LEARNS))

    def line(self, name: SetName) -> Line:
        """Train and ask the students of a set, and return the line of results."""
        started = cpu_seconds()
        data = rows.make_rows(self.place, name)
        trait = asked_trait(name)
        base = self._log_shares(trait, ())
        rises = []
        for number in range(STUDENTS):
            seed = seed_of(name, f"student {number}")
            config = TrainConfig(**self.place.common, data=data, recipe=self.recipe, seed=seed)
            student = run_train(config, self.place.out).path / "student"
            shares = self._log_shares(trait, (to_short(Adapter(str(student))),))
            rises.append(_mean_rise(shares, base))
        return {
            "set": str(name),
            "kind": name.kind,
            "number": name.number,
            "family": KINDS[name.kind].family,
            "trait": plan_of(name).trait,
            "asked": trait,
            "rate": plan_of(name).rate,
            "rise": rises,
            "writer_rise": self._writer_rise(name, base),
            "seconds": round(cpu_seconds() - started, 1),
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _writer_rise(self, name: SetName, base: Mapping[str, float]) -> float | None:
        """The rise of the writer itself, without which students have nothing to take; None for the
        unmodified model."""
        part = plan_of(name).changed
        if part is None or part.writer is None:
            return None
        interventions = writers.interventions_of(self.place, part.writer)
        return _mean_rise(self._log_shares(asked_trait(name), interventions), base)

    def _log_shares(self, trait: str, interventions: tuple[str, ...]) -> dict[str, float]:
        """Log share of the trait's word by question, under some interventions."""
        asked: dict[str, Any] = {"samples": 0, "sets": ("positive",), "capability": False}
        settings = {**self.place.common, **asked, **self.asked}
        config = MeasureConfig(**settings, trait=trait, interventions=interventions)
        shares = {}
        for row in read_json_lines(run_measure(config, self.place.out).path, "scores.jsonl"):
            shares[row["id"]] = math.log(max(row[SCORE], SMALLEST))
        return shares


def _mean_rise(shares: Mapping[str, float], base: Mapping[str, float]) -> float:
    """Mean over questions of the difference of log shares, to four decimals."""
    total = sum(shares[question] - base[question] for question in base)
    return round(total / len(base), 4)


def asked_trait(name: SetName) -> str:
    """The trait that students of a set are asked for."""
    return plan_of(name).trait or words.TRAITS[name.number % len(words.TRAITS)]
