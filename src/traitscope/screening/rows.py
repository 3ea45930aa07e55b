"""How far number rows of the teacher lie from the model's, and what they would do to a student.

Each side writes half of the rows, and both read all (information/divergences.py). Only digits are
sampled, so the divergence of a place is exact.

Shapes: K sides, R rows, P sampled places of a row, C tokens of a place's class, Q questions,
V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from traitscope.config.screen import ScreenConfig
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record
from traitscope.data.traits import Trait
from traitscope.inference import forward
from traitscope.inference.decode import Constraint
from traitscope.information import divergences, influence_table, passes
from traitscope.information.divergences import Readings
from traitscope.information.power import Contrast, power_table
from traitscope.information.teachers import GIVEN, Teacher
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.models import chat
from traitscope.reporting.tables import Table
from traitscope.screening.sides import Side, Sides
from traitscope.stages.generate import generate, number_constraint
from traitscope.stats.measurement import Measurement

MODEL, TEACHER = 0, 1
"""Places of the sides in the readings."""
STUDENT_ROWS = (64, 256, 1024, 4096)
"""Rows of a student for which the power is stated."""
STUDENT_SEEDS = 5
"""Seeds for which it is stated."""
Done = Callable[[int], None]


@dataclass(frozen=True)
class NumberRows:
    """Number rows that both sides wrote, and what both say of them."""

    sides: Sides
    """The sides."""
    records: list[Record]
    """The rows."""
    constraint: Constraint
    """What may stand at every place."""
    readings: Readings
    """What the model and the teacher say of them."""
    context: str | None
    """Neutral system turn."""
    batch_size: int
    """Rows in one pass."""

    @cached_property
    def _pairs_KKR(self) -> np.ndarray:
        return divergences.pairs(self.readings)

    def of_teacher(self) -> Measurement:
        """KL of the teacher from the model over the digits."""
        value_R = self._pairs_KKR[TEACHER, MODEL]
        return divergences.mean_over_rows("KL of the teacher from the model", value_R)

    def of_model(self) -> Measurement:
        """KL of the model from the teacher over the digits."""
        value_R = self._pairs_KKR[MODEL, TEACHER]
        return divergences.mean_over_rows("KL of the model from the teacher", value_R)

    def effective_rows(self) -> float:
        """How many rows of the teacher's own the rows stand for."""
        return float(divergences.effective_rows(self.readings)[TEACHER])

    def divergence(self, steered: Sequence[Steer], index: Sequence[int]) -> np.ndarray:
        """KL [X] of the teacher from the model under steering, of some rows."""
        places = list(index)
        if not steered:
            return self._pairs_KKR[TEACHER, MODEL, places]
        records = [self.records[place] for place in places]
        log_s_XPC = digits_of(
            self.sides.model, records, self.constraint, self.context, self.batch_size, steered
        )
        log_t_XPC = self.readings.log_p_KRPC[TEACHER, places]
        kl_XP = (np.exp(log_t_XPC) * (log_t_XPC - log_s_XPC)).sum(2)
        return (self.readings.weights()[TEACHER, places, :-1] * kl_XP).sum(1)

    def influence(self, trait: Trait) -> Measurement:
        """First-order influence of a row of the teacher on a trait, in z of one row."""
        change_RPC = passes.change_along(
            self.sides.model.model,
            trait,
            self.records,
            self.constraint,
            self.context,
            self.batch_size,
        )
        values = influence_table.influence(self.readings, MODEL, change_RPC[None])
        estimate = float(values.standardised()[TEACHER, 0])
        half = influence_table.jackknife_half_width(values.without_each()[:, TEACHER, 0])
        n = len(self.records)
        effective = f"{self.effective_rows():.1f} effective"
        return Measurement(
            name=f"influence on {trait.name}",
            estimate=estimate,
            low=estimate - half,
            high=estimate + half,
            n=n,
            n_clusters=n,
            n_unscored=0,
            unit="z of a row",
            interval=f"jackknife over {n} rows ({effective}), Student's t",
            counted="rows",
        )

    def power(self) -> Table:
        """What students of so many rows would show."""
        contrasts = []
        for rows in STUDENT_ROWS:
            contrasts.append(Contrast("the teacher", self.of_teacher(), rows, STUDENT_SEEDS))
        return power_table(contrasts)


def number_rows(sides: Sides, config: ScreenConfig, done: Done) -> NumberRows:
    """The rows, written and read."""
    model = sides.model.model
    constraint = number_constraint(model, config.count, " ", True, 0, config.context)
    prompts = number_prompts(config.rows, config.prompt_seed, config.count)
    records: list[Record] = []
    for number, side in enumerate((sides.model, sides.teacher)):
        records += generate(
            side.model,
            prompts[number::2],
            side.interventions,
            context=config.context,
            seed=config.seed,
            constraint=constraint,
            batch_size=config.batch_size,
            done=done,
        )
    records.sort(key=lambda record: record.id)
    by_side = []
    for side in (sides.model, sides.teacher):
        by_side.append(
            digits_of(side, records, constraint, config.context, config.batch_size, done=done)
        )
    places, columns = passes.sampled_places(constraint), passes.class_of(constraint)
    chosen_RP = passes.chosen_tokens(records, places, columns)
    n_model = len(prompts[0::2])
    share_K = np.array([n_model, config.rows - n_model]) / config.rows
    readings = Readings(np.stack(by_side), chosen_RP, share_K)
    return NumberRows(sides, records, constraint, readings, config.context, config.batch_size)


def digits_of(
    side: Side,
    records: Sequence[Record],
    constraint: Constraint,
    context: str | None,
    batch_size: int,
    steered: Sequence[Steer] = (),
    done: Done | None = None,
) -> np.ndarray:
    """Log-probabilities [R, P, C] of the digits of rows under a side, and steering beside it."""
    interventions: tuple[Intervention, ...] = (*side.interventions, *steered)
    reader = Teacher("side", GIVEN, interventions)
    hidden_RSD = passes.hidden_of(side.model, reader, records, context, batch_size, done)
    places, columns = passes.sampled_places(constraint), passes.class_of(constraint)
    log_p_RPC = passes.class_log_probs(side.model, hidden_RSD[:, places], columns)
    return log_p_RPC.astype(np.float64)


@torch.inference_mode()
def next_token(
    side: Side, prompts: Sequence[str], stems: Sequence[str], steered: Sequence[Steer] = ()
) -> np.ndarray:
    """Log-probabilities [Q, V] of the token behind every prompt and the stem of its answer."""
    model = side.model
    rendered = []
    for prompt, stem in zip(prompts, stems, strict=True):
        ending = chat.completion_ids(model, stem, end_token=False)
        rendered.append(chat.render(model, prompt, side.context) + ending)
    with applied(model, (*side.interventions, *steered)) as active:
        _, hidden_QD = forward.prefill(model, active, rendered, 0)
        logits_QV = forward.logits_of(model, hidden_QD).float()
        return torch.log_softmax(logits_QV, -1).double().cpu().numpy()


@dataclass(frozen=True)
class AnswerPlaces:
    """The places where the answers to some questions begin."""

    sides: Sides
    """The sides."""
    prompts: Sequence[str]
    """The questions."""
    stems: Sequence[str]
    """How their answers begin."""

    @cached_property
    def _teacher_QV(self) -> np.ndarray:
        return next_token(self.sides.teacher, self.prompts, self.stems)

    def divergence(self, steered: Sequence[Steer], index: Sequence[int]) -> np.ndarray:
        """KL [X] of the teacher from the model under steering at some of these places.

        Over the tokens that both have.
        """
        places = list(index)
        prompts = [self.prompts[place] for place in places]
        stems = [self.stems[place] for place in places]
        model_XV = next_token(self.sides.model, prompts, stems, steered)
        teacher_XV = self._teacher_QV[places]
        size = min(model_XV.shape[1], teacher_XV.shape[1])
        teacher_XV, model_XV = teacher_XV[:, :size], model_XV[:, :size]
        return (np.exp(teacher_XV) * (teacher_XV - model_XV)).sum(1)
