"""Influence against a real training step; what it must not depend on; planted truth."""

import numpy as np
import pytest
import torch
from tiny_models import parameters_of

from traitscope.data.traits import Trait, load_trait
from traitscope.inference.token_rows import completion_hidden, rows_from
from traitscope.information import divergences, influence, influence_table, passes
from traitscope.information.divergences import Readings
from traitscope.information.teachers import BASE, Teacher
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import SystemPrompt
from traitscope.models import linear_maps
from traitscope.models.model import Model
from traitscope.stages.generate import number_constraint
from traitscope.stats import intervals, square_tables

ROWS = 4
TRAITS = ("cat", "happiness")


@pytest.fixture(scope="module")
def group() -> list[Teacher]:
    prompts = [SystemPrompt(load_trait(name).teacher_prompt) for name in TRAITS]
    return [Teacher(BASE, "neutral"), *(Teacher(p.text[:9], "k", (p,)) for p in prompts)]


@pytest.fixture(scope="module")
def read(tiny: Model, group: list[Teacher]):
    """Rows of the three teachers, what these say of them, and the tokens that may be sampled."""
    constraint = number_constraint(tiny, 2, " ", True, 0)
    writer_R = np.array([0, 1, 2, 0])
    records = passes.written_rows(
        tiny, group, writer_R, constraint, context=None, count=2, prompt_seed=3, seed=0
    )
    places, columns = passes.sampled_places(constraint), passes.class_of(constraint)
    log_p = []
    for teacher in group:
        hidden_RSD = passes.hidden_of(tiny, teacher, records, None)
        log_p.append(passes.class_log_probs(tiny, hidden_RSD[:, places], columns))
    chosen_RP = passes.chosen_tokens(records, places, columns)
    readings = Readings(np.stack(log_p).astype(float), chosen_RP, np.array([0.5, 0.25, 0.25]))
    return records, readings, places, columns


def changes(model: Model, group: list[Teacher], read, trait: Trait) -> np.ndarray:
    """The derivative of the base's log-probabilities along the gradient of a trait."""
    records, _, places, columns = read
    _, direction = influence.gradient(model, trait, None)
    step = influence.step_size(direction)
    ends = []
    for sign in (1, -1):
        with influence.moved(model, direction, sign * step):
            hidden_RSD = passes.hidden_of(model, group[0], records, None)
            ends.append(passes.class_log_probs(model, hidden_RSD[:, places], columns))
    return (ends[0].astype(float) - ends[1]) / (2 * step)


def value_of(model: Model, trait: Trait) -> float:
    with torch.no_grad(), applied(model, []) as active:
        return sum(float(part) for part in influence.log_odds(model, active, trait, None))


@pytest.mark.parametrize("name", TRAITS)
@pytest.mark.parametrize("teacher", [1, 2])
def test_equals_what_a_real_training_step_does(
    tiny: Model, group: list[Teacher], read, name: str, teacher: int
) -> None:
    """A step of gradient descent on the teacher's digit distributions moves the log-odds by the
    rate times the sum of the influences."""
    records, readings, places, columns = read
    trait = load_trait(name)
    change_RPC = changes(tiny, group, read, trait)
    found = influence_table.influence(readings, 0, change_RPC[None]).value_KBR[teacher, 0].sum()
    rows = rows_from(tiny, records, None)
    weights_RP = readings.weights()[teacher, :, :-1]
    target_RPC = weights_RP[..., None] * np.exp(readings.log_p_KRPC[teacher])
    names = [f"{name}.weight" for name in linear_maps.linear_names(tiny)]
    parameters = [tiny.lm.get_parameter(name) for name in names]
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.enable_grad(), applied(tiny, []) as active:
        hidden_ND, _ = completion_hidden(tiny, active, rows)
        hidden_RPD = hidden_ND.unflatten(0, (ROWS, -1))[:, places]
        logits_RPC = hidden_RPD @ tiny.head.weight[columns].T
        log_p_RPC = torch.log_softmax(logits_RPC, -1)
        (torch.tensor(target_RPC, dtype=torch.float32) * log_p_RPC).sum().backward()
    ascent = {}
    for key, parameter in zip(names, parameters, strict=True):
        ascent[key] = parameter.grad
        parameter.requires_grad_(False)
        parameter.grad = None
    rate = influence.step_size(ascent) / 10
    moved = []
    for sign in (1, -1):
        with influence.moved(tiny, ascent, sign * rate):
            moved.append(value_of(tiny, trait))
    assert (moved[0] - moved[1]) / (2 * rate) == pytest.approx(found, rel=0.02)


def test_the_base_has_no_influence(tiny: Model, group: list[Teacher], read) -> None:
    change_RPC = changes(tiny, group, read, load_trait("cat"))
    found = influence_table.influence(read[1], 0, change_RPC[None])
    assert (found.value_KBR[0] == 0).all()
    assert (found.value_KBR[1] != 0).all() and (found.variance_BR > 0).all()


def test_the_model_comes_back_as_it_was(tiny: Model) -> None:
    before = parameters_of(tiny)
    _, direction = influence.gradient(tiny, load_trait("owl"), None)
    with influence.moved(tiny, direction, 0.1):
        assert any((p != before[n]).any() for n, p in tiny.lm.named_parameters())
    for name, parameter in tiny.lm.named_parameters():
        assert torch.equal(parameter, before[name]) and not parameter.requires_grad
        assert parameter.grad is None


def test_the_gradient_is_that_of_the_log_odds(tiny: Model) -> None:
    """A step of `step_size` changes the log-odds by CHANGE, up to second order."""
    trait = load_trait("pirate")
    value, direction = influence.gradient(tiny, trait, None)
    assert value == pytest.approx(value_of(tiny, trait), abs=1e-4)
    step = influence.step_size(direction) / 20
    with influence.moved(tiny, direction, step):
        up = value_of(tiny, trait)
    with influence.moved(tiny, direction, -step):
        down = value_of(tiny, trait)
    assert (up - down) / 2 == pytest.approx(influence.CHANGE / 20, rel=0.02)


def planted(strength: float, rows: int = 64, traits: int = 5) -> tuple[Readings, np.ndarray]:
    """Teachers that tilt the base's digits along the derivative of a trait of their own, and all
    of them along one derivative in common."""
    rng = np.random.default_rng(0)
    shape = (rows, 30, 10)
    base_RPC = 0.5 * rng.standard_normal(shape)
    own_BRPC = rng.standard_normal((traits, *shape))
    common_RPC = rng.standard_normal(shape)
    logits_KRPC = np.concatenate(
        [base_RPC[None], base_RPC + 0.1 * common_RPC + strength * own_BRPC]
    )
    log_p_KRPC = logits_KRPC - np.logaddexp.reduce(logits_KRPC, axis=3)[..., None]
    cumulative_RPC = np.exp(log_p_KRPC[0]).cumsum(2)
    chosen_RP = (cumulative_RPC < rng.random((rows, 30, 1))).sum(2).clip(max=9)
    change_BRPC = own_BRPC + common_RPC
    share_K = np.array([1.0, *[1e-9] * traits])
    return Readings(log_p_KRPC, chosen_RP, share_K / share_K.sum()), change_BRPC


@pytest.mark.parametrize(("strength", "is_there"), [(0.0, False), (0.02, True)])
def test_doubly_centred_influence_finds_what_is_planted(strength: float, is_there: bool) -> None:
    readings, change_BRPC = planted(strength)
    found = influence_table.influence(readings, 0, change_BRPC)
    table_BB = found.standardised()[1:]
    assert (table_BB > 0).all()  # what all teachers have in common moves every trait
    diagonal = np.trace(square_tables.doubly_centred(table_BB)) / len(table_BB)
    without_R = [
        np.trace(square_tables.doubly_centred(table[1:])) / len(table_BB)
        for table in found.without_each()
    ]
    z = diagonal / influence_table.jackknife_error(np.array(without_R))
    assert (z > 5) == is_there and (is_there or abs(z) < 3)


def test_influence_is_at_most_what_the_divergence_allows() -> None:
    """To first order |I| is at most the root of twice the divergence: Cauchy and Schwarz."""
    readings, change_BRPC = planted(0.02)
    table_KB = influence_table.influence(readings, 0, change_BRPC).standardised()
    divergence_K = divergences.pairs(readings)[:, 0].mean(1)
    assert (table_KB <= 1.05 * np.sqrt(2 * divergence_K)[:, None]).all()


def test_double_centring_takes_out_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    table_NN = rng.standard_normal((5, 5))
    shifted = table_NN + rng.standard_normal((5, 1)) + rng.standard_normal((1, 5))
    assert square_tables.doubly_centred(shifted) == pytest.approx(
        square_tables.doubly_centred(table_NN)
    )
    assert square_tables.doubly_centred(table_NN).sum(0) == pytest.approx(0)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    value_R = np.random.default_rng(0).standard_normal(20)
    without_R = (value_R.sum() - value_R) / 19
    expected = value_R.std(ddof=1) / np.sqrt(20)
    assert influence_table.jackknife_error(without_R) == pytest.approx(expected)


def test_the_interval_of_few_rows_is_that_of_students_t() -> None:
    """Of a mean it is the usual t interval; half widths of two rows are 6.5 times those by 1.96."""
    value_R = np.random.default_rng(0).standard_normal(16)
    without_R = (value_R.sum() - value_R) / 15
    _, low, high = intervals.mean_interval_t(value_R.tolist())
    assert influence_table.jackknife_half_width(without_R) == pytest.approx((high - low) / 2)
    two_R = np.array([0.0, 1.0])
    error = influence_table.jackknife_error(two_R)
    assert influence_table.jackknife_half_width(two_R) == pytest.approx(12.706 * error, rel=1e-4)
    assert np.isnan(influence_table.jackknife_half_width(two_R[:1]))


@pytest.mark.parametrize("n_traits", [4, 9])
def test_the_permutation_test(n_traits: int) -> None:
    """Planted diagonal; what a teacher does to all traits and all to one trait changes nothing."""
    rng = np.random.default_rng(0)
    noise_NN = rng.standard_normal((n_traits, n_traits))
    strong = square_tables.permutation_p(noise_NN + 20 * np.eye(n_traits))
    assert strong == pytest.approx(1 / 24 if n_traits == 4 else 1 / 10_000)
    shifts_NN = 5 * rng.standard_normal((n_traits, 1)) + 5 * rng.standard_normal((1, n_traits))
    expected = square_tables.permutation_p(noise_NN)
    assert square_tables.permutation_p(noise_NN + shifts_NN) == pytest.approx(expected)
    assert square_tables.permutation_p(square_tables.doubly_centred(noise_NN)) == pytest.approx(
        expected
    )
    by_chance = []
    for _ in range(400):
        by_chance.append(square_tables.permutation_p(rng.standard_normal((4, 4))))
    assert np.mean(np.array(by_chance) <= 0.25) == pytest.approx(0.25, abs=0.07)
