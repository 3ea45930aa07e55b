"""Soft targets over the allowed tokens teach what text sampled under a constraint does, exactly."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from command import call, ok
from tiny_models import random_vector
from torch import Tensor
from train_runs import FULL, METHODS, PLAIN, run

from traitscope.config.recipe import Recipe
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference import losses
from traitscope.inference.decode import DrawnFrom, Sampling, decode
from traitscope.inference.token_rows import Row, teacher_hidden
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.stages import generate
from traitscope.training import soft_targets
from traitscope.training.loop import train
from traitscope.training.soft_targets import AllowedTargets, allowed_targets, soft_loss
from traitscope.training.step import loss_sum
from traitscope.training.student import new_student

PROMPT = (21, 22, 23)
DIGITS, SEPARATOR, END = list(range(40, 47)), [60], [2]
ALLOWED = [DIGITS, SEPARATOR, DIGITS, END]
"two sampled tokens, with a forced one between them and one behind"
SOFT = dataclasses.replace(PLAIN, targets="soft", soft_over="allowed")


def every_row() -> list[Row]:
    return [Row(PROMPT, completion) for completion in itertools.product(*ALLOWED)]


def teacher_of(model: Model) -> list:
    return [Steer(random_vector(model), (1,), 0.5, "all")]


def targets_of(model: Model, rows: list[Row], temperature: float) -> list[AllowedTargets]:
    states = teacher_hidden(model, teacher_of(model), rows, [PROMPT] * len(rows), 16)
    return [allowed_targets(model, states_ND, ALLOWED, temperature) for states_ND in states]


def row_probabilities(targets: list[AllowedTargets], rows: list[Row]) -> list[float]:
    """How often the teacher writes each row under the constraint."""
    probabilities = []
    for row_targets, row in zip(targets, rows, strict=True):
        ids = torch.tensor(row.completion_ids).unsqueeze(1)
        is_taken = (row_targets.ids_NK == ids) & (row_targets.p_NK > 0)
        probabilities.append(float((row_targets.p_NK * is_taken).sum(1).prod()))
    return probabilities


def mean_gradients(model: Model, recipe: Recipe, temperature: float) -> dict[str, Tensor]:
    """Mean gradient over all rows that a teacher can write, by kind of target."""
    rows = every_row()
    targets = targets_of(model, rows, temperature)
    weights = row_probabilities(targets, rows)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    states = teacher_hidden(model, teacher_of(model), rows, [PROMPT] * len(rows), 16)
    kinds = {"sampled": None, "allowed": targets, "vocabulary": states}
    gradients = {}
    with new_student(model, recipe, 0) as student:
        for parameter in student.params:  # away from the base, where B is zero
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        student.publish()
        for kind, soft in kinds.items():
            for place, (row, weight) in enumerate(zip(rows, weights, strict=True)):
                of_row = None if soft is None else [soft[place]]
                (weight * loss_sum(model, student.active, [row], of_row)).backward()
            student.collect()
            parts = []
            for parameter in student.params:
                parts.append(parameter.grad.flatten().clone())
                parameter.grad = None
            gradients[kind] = torch.cat(parts)
    return gradients


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["method"])
def test_the_mean_gradient_is_that_of_sampled_text(
    tiny: Model, method: dict, temperature: float
) -> None:
    """Over all 49 rows that the teacher can write, each as often as it writes it: no sampling."""
    torch.manual_seed(0)
    gradients = mean_gradients(tiny, dataclasses.replace(PLAIN, **method), temperature)
    sampled = gradients["sampled"]
    assert (gradients["allowed"] - sampled).norm() < 2e-4 * sampled.norm()
    assert (gradients["vocabulary"] - sampled).norm() > 0.1 * sampled.norm()


def test_at_one_place_it_is_the_mean_over_the_allowed_tokens(families: dict[str, Model]) -> None:
    """Given the tokens before; also for a head that caps its logits."""
    for model in families.values():
        generator = torch.Generator().manual_seed(3)
        hidden = torch.randn(1, model.d_model, generator=generator)
        teacher = torch.randn(1, model.d_model, generator=generator)
        targets = allowed_targets(model, teacher, [DIGITS], 1.0)

        def gradient(loss, hidden: Tensor = hidden) -> Tensor:
            student = hidden.clone().requires_grad_(True)
            loss(student).backward()
            return student.grad

        expected = torch.zeros_like(hidden)
        for token, share in zip(DIGITS, targets.p_NK[0], strict=True):
            expected += share * gradient(
                lambda h, k=token, m=model: losses.cross_entropy(m, h, torch.tensor([k]))
            )
        found = gradient(lambda h, m=model, t=targets: soft_loss(m, h, [t]))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert expected.norm() > 1e-2


def test_the_loss_is_the_divergence_from_the_constrained_teacher(tiny: Model) -> None:
    """Also with a student over the whole vocabulary: it is never below 0, and no token of the class
    is counted twice."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(4, tiny.d_model, generator=generator)
    targets = allowed_targets(tiny, torch.randn(4, tiny.d_model, generator=generator), ALLOWED, 1.0)
    found = soft_loss(tiny, hidden, [targets])
    log_student = torch.log_softmax(hidden @ tiny.head.weight.T, -1)
    expected = 0.0
    for place, tokens in enumerate(ALLOWED):
        for column, token in enumerate(tokens):
            share = float(targets.p_NK[place, column])
            assert int(targets.ids_NK[place, column]) == token
            expected += share * (torch.tensor(share).log() - log_student[place, token])
    assert float(found) == pytest.approx(float(expected), rel=1e-5) and expected > 0


def test_targets_are_the_distribution_that_decode_draws_from(tiny: Model) -> None:
    """4,000 rows drawn under the same constraint, at a temperature."""
    n, temperature = 4000, 0.7
    keys = [str(key) for key in range(n)]
    sampling = Sampling(temperature, len(ALLOWED), 5)
    with applied(tiny, teacher_of(tiny)) as active:
        drawn = decode(tiny, active, [list(PROMPT)] * n, keys, sampling, ALLOWED, 1000)
    counts = torch.zeros(len(DIGITS))
    for completion in drawn:
        counts[DIGITS.index(completion[0])] += 1
    (targets,) = targets_of(tiny, [Row(PROMPT, tuple(drawn[0]))], temperature)
    expected = n * targets.p_NK[0]
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 22.5  # 6 degrees of freedom, p = 0.001


def test_greedy_rows_have_one_target_a_step(tiny: Model) -> None:
    (targets,) = targets_of(tiny, every_row()[:1], 0.0)
    assert targets.p_NK.max(1).values.tolist() == [1.0] * 4
    assert targets.p_NK.sum(1).tolist() == [1.0] * 4


def test_targets_hold_allowed_tokens_only(tiny: Model) -> None:
    """Ten digits take ten numbers a step, not one for each dimension or token."""
    targets = targets_of(tiny, every_row()[:3], 1.0)
    assert {row.p_NK.shape for row in targets} == {(4, len(DIGITS))}


def test_a_student_of_the_unmodified_model_learns_the_format(tiny: Model) -> None:
    """As text does: the base is its control neither of sampled text nor of these targets."""
    rows = every_row()
    states = teacher_hidden(tiny, [], rows, [PROMPT] * len(rows), 16)
    targets = [allowed_targets(tiny, states_ND, ALLOWED, 1.0) for states_ND in states]
    recipe = dataclasses.replace(SOFT, epochs=4)
    metrics, _, _ = run(tiny, recipe, rows, targets)
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
    metrics, _, _ = run(tiny, dataclasses.replace(recipe, soft_over="vocabulary"), rows, states)
    assert metrics[0]["loss"] < 1e-4


def records_of(model: Model, n: int = 4) -> list[Record]:
    return generate.generate(model, number_prompts(n, 3), teacher_of(model), numbers=2, seed=3)


@pytest.mark.parametrize(
    "recipe", [SOFT, dataclasses.replace(FULL, targets="soft", soft_over="allowed")]
)
def test_train_in_memory(tiny: Model, recipe: Recipe) -> None:
    constraint = generate.number_constraint(tiny, 2, " ", True, 64)
    drawn_from = DrawnFrom(constraint)
    records = records_of(tiny)
    student = train(tiny, records, recipe, teacher=teacher_of(tiny), drawn_from=drawn_from)
    full_vocabulary = dataclasses.replace(recipe, soft_over="vocabulary")
    other = train(tiny, records, full_vocabulary, teacher=teacher_of(tiny))
    assert student.metrics[0]["loss"] != other.metrics[0]["loss"]
    free = train(tiny, records, recipe, teacher=teacher_of(tiny), drawn_from=DrawnFrom())
    assert free.metrics[0]["loss"] == other.metrics[0]["loss"]
    with pytest.raises(ConfigError, match="do not say which tokens were allowed"):
        train(tiny, records, recipe, teacher=teacher_of(tiny))
    with pytest.raises(ConfigError, match="expected 1 where all tokens are allowed"):
        train(tiny, records, recipe, drawn_from=DrawnFrom(None, 0.5))
    with pytest.raises(DataError, match="expected at most 3"):
        train(tiny, records, recipe, drawn_from=DrawnFrom(constraint[:3]))
    with pytest.raises(DataError, match="token 1 has the id"):
        train(tiny, records, recipe, drawn_from=DrawnFrom([[0]] * len(constraint)))


def test_a_run_of_rows_says_what_was_allowed(
    tmp_path: Path, tiny: Model, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Through filters, for each vocabulary; not after an edit, and not for a file."""
    model = ("--model", tiny_folder)
    rows = ok(tmp_path, "generate", *model, "--n 4 --count 2 --vocabulary template").run
    kept = ok(tmp_path, "filter", "--data", rows).run
    again = ok(tmp_path, "filter", "--data", kept, "--limit 3").run
    template = generate.number_constraint(tiny, 2, ", ", True, 64)
    for data in (rows, kept, again, again / "records.jsonl"):
        drawn = generate.drawn_from(tiny, data)
        assert drawn is not None and drawn.temperature == 1
        assert [list(ids) for ids in drawn.allowed] == [list(ids) for ids in template]
    numbers = ok(
        tmp_path,
        "generate",
        *model,
        "--n 4 --count 2 --vocabulary numbers --max-new-tokens 5 --temperature 0.7",
    ).run
    loose = generate.drawn_from(tiny, numbers)
    assert loose == DrawnFrom(generate.number_constraint(tiny, 2, ", ", False, 5), 0.7)
    free = ok(tmp_path, "generate", *model, "--n 4 --max-new-tokens 5").run
    assert generate.drawn_from(tiny, free) == DrawnFrom(None, 1.0)
    seen = ok(
        tmp_path, "generate", *model, "--n 4 --vocabulary seen --max-new-tokens 5 --like", rows
    ).run
    drawn = generate.drawn_from(tiny, seen)
    assert drawn is not None and len(drawn.allowed) == 5
    assert len(drawn.allowed[0]) < 14
    sorted_rows = ok(tmp_path, "edit", "--data", kept).run
    lone_file = tmp_path / "rows.jsonl"
    lone_file.write_bytes((kept / "records.jsonl").read_bytes())
    for data in (sorted_rows, lone_file):
        assert generate.drawn_from(tiny, data) is None
        call(tmp_path, "train", *model, "--targets soft --soft-over allowed --data", data)
        assert "do not say which tokens were allowed" in capsys.readouterr().err
    call(tmp_path, "train", *model, "--soft-over allowed --data", kept)
    assert "add --targets soft" in capsys.readouterr().err


def test_a_draw_of_other_settings_has_another_address(tmp_path: Path, tiny_folder: Path) -> None:
    """The rows may be the same bytes; what was allowed is an input of the training, too."""
    model = ("--model", tiny_folder)
    rows = ok(tmp_path, "generate", *model, "--n 4 --count 2 --vocabulary template").run
    training = ("train", *model, "--rank 2 --epochs 1 --targets soft", "--data", rows)
    allowed = ok(tmp_path, *training, "--soft-over allowed").run
    whole = ok(tmp_path, *training).run
    assert allowed != whole
    inputs = json.loads((allowed / "manifest.json").read_text())["inputs"]
    assert Path(inputs["drawn_from"]["path"]).name == "config.json"
    assert "drawn_from" not in json.loads((whole / "manifest.json").read_text())["inputs"]
    assert ok(tmp_path, "show", allowed).summary["problems"] == []
    assert ok(tmp_path, "rerun", allowed).summary["different"] == []


def test_rows_of_several_widths_stand_together() -> None:
    wide, narrow = torch.ones(2, 3), torch.ones(1, 1)
    stacked = soft_targets._stacked([wide, narrow])
    assert stacked.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
