"""What vectors recover of a teacher whose vector is known, against the same sums done by hand."""

import numpy as np
import pytest
import torch
from tiny_models import random_rows, random_vector

from traitscope.errors import ConfigError, DataError
from traitscope.inference.token_rows import Row
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.vectors.recovery import TeacherRows, fits, halves, scored_places, teacher_rows
from traitscope.vectors.trained import best_trained, trained_vector

PROMPT = 5
COLUMNS = torch.arange(40)
"token ids among which tokens count, where not the whole vocabulary does"


def some_rows(model: Model, n: int = 8, of_columns: bool = True) -> list[Row]:
    rows = []
    for number, ids in enumerate(random_rows(model, [PROMPT + 3 + i % 3 for i in range(n)])):
        completion = (
            [token % len(COLUMNS) for token in ids[PROMPT:]] if of_columns else ids[PROMPT:]
        )
        rows.append(Row(tuple(ids[:PROMPT]), (*completion[:-1], 40 + number)))
    return rows


def steered_teacher(
    model: Model, rows: list[Row], columns: torch.Tensor | None = COLUMNS, layer: int = 1
) -> tuple[TeacherRows, Steer]:
    """Rows of a model that is steered by a known vector."""
    teacher = Steer(random_vector(model, 11, norm=3.0), (layer,), 2.0, "all", "raw")
    prompts = [row.prompt_ids for row in rows]
    return teacher_rows(model, rows, prompts, columns, [teacher], batch_size=3), teacher


def log_p_by_hand(model: Model, row: Row, columns: torch.Tensor | None) -> list[torch.Tensor]:
    """The model's log-probabilities at each token that counts, one row alone."""
    with torch.inference_mode():
        logits_TV = model.lm(torch.tensor([row.ids])).logits[0].float()
    log_p = []
    for place, token in enumerate(row.completion_ids, len(row.prompt_ids)):
        if columns is None or token in columns:
            logits_V = logits_TV[place - 1]
            log_p.append(torch.log_softmax(logits_V if columns is None else logits_V[columns], 0))
    return log_p


@pytest.mark.parametrize("columns", [COLUMNS, None])
def test_the_base_is_scored_as_by_hand(family: Model, columns) -> None:
    rows = some_rows(family, 5)
    target, _ = steered_teacher(family, rows, columns)
    _, base, _ = fits(family, target, [])
    for number, row in enumerate(rows):
        tokens = [t for t in row.completion_ids if columns is None or t in columns]
        by_hand = log_p_by_hand(family, row, columns)
        expected = sum(float(log_p[t]) for log_p, t in zip(by_hand, tokens, strict=True))
        assert base.log_p_R[number] == pytest.approx(expected, abs=1e-3)
    assert (base.kl_R > 0).all()


def test_the_teachers_own_steering_recovers_everything(family: Model) -> None:
    target, own = steered_teacher(family, some_rows(family))
    other = Steer(random_vector(family, 5, norm=3.0), (1,), 2.0, "all", "raw")
    teacher, base, (same, wrong) = fits(family, target, [own, other])
    np.testing.assert_allclose(same.log_p_R, teacher.log_p_R, atol=1e-3)
    np.testing.assert_allclose(same.kl_R, 0, atol=1e-4)
    np.testing.assert_allclose(teacher.kl_R, 0, atol=1e-6)
    assert wrong.kl > 0.5 * base.kl


def test_resuming_at_a_block_changes_no_score(tiny: Model) -> None:
    """A vector at the last block alone, and the same as one of several blocks from the first on."""
    target, _ = steered_teacher(tiny, some_rows(tiny))
    vector = random_vector(tiny, 5, norm=3.0)
    rows_LD = vector.rows_LD.copy()
    rows_LD[:2] = 0
    padded = type(vector)(rows_LD, vector.model, vector.about)
    late = Steer(vector, (2,), 1.5, "prompt", "raw")
    everywhere = Steer(padded, (0, 1, 2), 1.5, "prompt", "raw")
    _, _, (one, other) = fits(tiny, target, [late, everywhere])
    np.testing.assert_allclose(one.log_p_R, other.log_p_R, atol=1e-3)
    np.testing.assert_allclose(one.kl_R, other.kl_R, atol=1e-4)


def test_a_trained_vector_finds_what_the_teacher_was_steered_by(tiny: Model) -> None:
    rows = some_rows(tiny, 40)
    target, teacher = steered_teacher(tiny, rows[:24], None)
    held_out, _ = steered_teacher(tiny, rows[24:32], None)
    unseen, _ = steered_teacher(tiny, rows[32:], None)
    candidates = []
    for layer in (0, 1):
        candidates.append(trained_vector(tiny, target, held_out, layer, 0.1, epochs=12))
    trained = best_trained(candidates)
    assert trained.layer == 1
    assert trained.kl < 0.2 * trained.kls[0]
    assert trained.vector.norms_L[[0, 2]].max() == 0
    assert trained.vector.cosine(teacher.vector)[1] > 0.8
    _, base, (fit,) = fits(tiny, unseen, [Steer(trained.vector, (1,), 1.0, "all", "raw")])
    assert fit.kl < 0.3 * base.kl


def test_training_keeps_the_best_epoch_and_is_repeatable(tiny: Model) -> None:
    """Steps that are far too long end worse than they began, and the zero vector is kept."""
    rows = some_rows(tiny, 12)
    target, _ = steered_teacher(tiny, rows[:8])
    held_out, _ = steered_teacher(tiny, rows[8:])
    wild = trained_vector(tiny, target, held_out, 1, 1e4, epochs=2)
    assert wild.kls[-1] > wild.kls[0] == wild.kl
    assert wild.vector.norms_L.max() == 0
    one, same = (trained_vector(tiny, target, held_out, 1, 0.1, epochs=2) for _ in range(2))
    np.testing.assert_array_equal(one.vector.rows_LD, same.vector.rows_LD)
    assert len(one.kls) == 3
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        trained_vector(tiny, target, held_out, 3, 0.1)


def test_a_row_without_a_scored_token_is_refused() -> None:
    with pytest.raises(DataError, match="holds none of the tokens"):
        scored_places([Row((1, 2), (99, 98))], COLUMNS)


def test_halves_are_equal_and_apart() -> None:
    assert halves(9) == (slice(0, 4), slice(4, 9))
    with pytest.raises(DataError, match="7 rows to choose and to test on"):
        halves(7)
