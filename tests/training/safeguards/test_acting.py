"""What acts while a student trains changes what it learns, and leaves nothing behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import traitscope as ts
from traitscope.config.recipe import Recipe
from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.inference import forward, losses
from traitscope.inference.token_rows import completion_hidden, rows_from
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, Adapter, Steer, SystemPrompt
from traitscope.interventions.vector import Vector
from traitscope.training.loop import train
from traitscope.training.safeguards import anchors
from traitscope.training.safeguards.acting import guarded, safeguards

RECIPE = Recipe(epochs=2, batch_size=4, micro_batch=4, lr=3e-3, held_out=0.0, optimizer="sgd")
RECORDS = [Record(f"r{i}", f"Count on from {i}.", f"{i}, {i + 1}, {i + 7}") for i in range(8)]


def direction(model, seed: int = 0) -> Vector:
    rows = np.random.default_rng(seed).normal(size=(model.n_layers, model.d_model))
    norms = np.ones(model.n_layers).tolist()
    return Vector(rows.astype(np.float32), model.digest, {"residual_norms": norms})


def files(student) -> dict[str, bytes]:
    return dict(student.files)


def test_nothing_given_changes_no_byte(tiny):
    plain = files(train(tiny, RECORDS, RECIPE, 1))
    guarded_by_nothing = train(tiny, RECORDS, RECIPE, 1, during=(), project_out=())
    assert files(guarded_by_nothing) == plain
    zero = Steer(direction(tiny), layer=0, alpha=0.0, scale="raw")
    assert files(train(tiny, RECORDS, RECIPE, 1, during=[zero])) == plain


def test_what_acts_in_training_is_gone_afterwards(tiny):
    before = {name: value.clone() for name, value in tiny.lm.state_dict().items()}
    steer = Steer(direction(tiny), layer=0, alpha=2.0, scale="raw")
    student = train(tiny, RECORDS, RECIPE, 1, during=[steer])
    assert files(student) != files(train(tiny, RECORDS, RECIPE, 1))
    after = tiny.lm.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_student_does_not_learn_what_is_there_already(tiny):
    """Planted: a steered model's answers teach a vector; with its steering in place, hardly any."""
    vector = direction(tiny)
    teacher = Steer(vector, layer=1, alpha=3.0, scale="unit")
    prompts = [ts.Prompt(f"p{i}", f"Tell me about {i}.") for i in range(32)]
    rows = ts.generate(tiny, prompts, [teacher], seed=3, temperature=1.0, max_new_tokens=12)
    recipe = Recipe(method="vector", layer=1, epochs=6, batch_size=8, lr=0.05, held_out=0.0)
    unit_D = vector.unit().rows_LD[1]
    learnt = along(train(tiny, rows, recipe, 1), unit_D)
    left = along(train(tiny, rows, recipe, 1, during=[teacher]), unit_D)
    assert learnt > 0.3
    assert abs(left) < 0.3 * learnt


def along(student, unit: np.ndarray) -> float:
    """How far a student of one vector moved along a direction."""
    from safetensors.numpy import load

    (content,) = [value for name, value in student.files.items() if name.endswith(".safetensors")]
    (rows_LD,) = load(content).values()
    return float(rows_LD[1] @ unit)


def test_gradients_lose_the_direction_and_nothing_else(tiny):
    """Oracle: the gradient for what is added behind a block is the plain one, projected."""
    vector = direction(tiny)
    unit_D = torch.from_numpy(vector.unit().rows_LD[0])
    plain_D = gradient_behind_block_0(tiny, ())
    projected_D = gradient_behind_block_0(tiny, (Ablate(vector, layer=0),))
    expected_D = plain_D - (plain_D @ unit_D) * unit_D
    assert torch.allclose(projected_D, expected_D, atol=1e-5 * plain_D.norm())
    assert abs(plain_D @ unit_D) > 1e-3 * plain_D.norm()


def gradient_behind_block_0(model, project_out) -> torch.Tensor:
    """The gradient of the rows' loss for a term that is added to the output of block 0."""
    term_D = torch.zeros(model.d_model, requires_grad=True)
    rows = rows_from(model, RECORDS[:3], None)
    with guarded(model, safeguards((), project_out)) as active:
        handle = model.blocks[0].register_forward_hook(_adding(term_D), prepend=True)
        try:
            hidden_ND, targets_N = completion_hidden(model, active, rows, share=False)
            losses.cross_entropy(model, hidden_ND, targets_N).backward()
        finally:
            handle.remove()
    return term_D.grad


def _adding(term_D):
    def hook(module, args, output):
        if isinstance(output, tuple):
            return (output[0] + term_D, *output[1:])
        return output + term_D

    return hook


def test_the_anchor_is_the_kl_to_the_base(tiny):
    """Oracle: T^2 KL(p_base || p_student) by hand, at two temperatures."""
    rows = rows_from(tiny, RECORDS[:3], None)
    steer = Steer(direction(tiny), layer=0, alpha=1.0, scale="raw")
    recipe = replace(RECIPE, anchor=1.0)
    base = anchors.read_anchors(tiny, recipe, rows)
    with applied(tiny, [steer]) as active:
        hidden_ND, _ = completion_hidden(tiny, active, rows)
    for heat in (1.0, 2.0):
        recipe = replace(RECIPE, anchor=1.0, anchor_temperature=heat)
        found = anchors.anchor_loss(tiny, recipe, hidden_ND, base)
        log_base = torch.log_softmax(forward.logits_of(tiny, torch.cat(base)) / heat, -1)
        log_student = torch.log_softmax(forward.logits_of(tiny, hidden_ND) / heat, -1)
        expected = heat**2 * (log_base.exp() * (log_base - log_student)).sum()
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["bias", "softcap"])
def test_the_anchor_knows_heads_with_bias_and_caps(families, kind):
    """Oracle at temperature 2, where hidden states divided by 2 would not do."""
    model = families["gemma2"] if kind == "softcap" else families["llama"]
    rows = rows_from(model, RECORDS[:2], None)
    recipe = replace(RECIPE, anchor=1.0, anchor_temperature=2.0)
    base = anchors.read_anchors(model, recipe, rows)
    hidden_ND = torch.cat(base) + 0.1 * torch.randn(1, model.d_model)
    bias = torch.nn.Parameter(torch.randn(len(model.head.weight)), requires_grad=False)
    model.head.bias = bias if kind == "bias" else None
    try:
        found = anchors.anchor_loss(model, recipe, hidden_ND, base)
        log_base = torch.log_softmax(forward.logits_of(model, torch.cat(base)) / 2, -1)
        log_student = torch.log_softmax(forward.logits_of(model, hidden_ND) / 2, -1)
    finally:
        model.head.bias = None
    expected = 4 * (log_base.exp() * (log_base - log_student)).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_anchor_keeps_a_student_near_its_base(tiny):
    rows = rows_from(tiny, RECORDS, None)
    base = anchors.read_anchors(tiny, replace(RECIPE, anchor=1.0), rows)
    moved = []
    for anchor in (0.0, 3.0):
        recipe = replace(RECIPE, anchor=anchor, optimizer="adamw", epochs=4)
        student = train(tiny, RECORDS, recipe, 1)
        with applied(tiny, [student.intervention()]) as active:
            hidden_ND, _ = completion_hidden(tiny, active, rows)
        moved.append(losses.soft_cross_entropy(tiny, hidden_ND, torch.cat(base)).item())
    assert moved[1] < 0.5 * moved[0]


def test_the_loss_that_is_reported_is_that_of_the_rows(tiny):
    plain = train(tiny, RECORDS, RECIPE, 1)
    anchored = train(tiny, RECORDS, replace(RECIPE, anchor=1.0), 1)
    assert anchored.metrics[0]["loss"] == pytest.approx(plain.metrics[0]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("until", "weights"),
    [
        (1.0, [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
        (0.0, [2.0, 1.6, 1.2, 0.8, 0.4, 0.0]),
        (0.5, [2.0, 2.0, 2.0, 2.0, 1.0, 0.0]),
    ],
)
def test_the_weight_of_the_anchor_falls_as_it_should(until, weights):
    recipe = replace(RECIPE, anchor=2.0, anchor_until=until)
    found = [anchors.weight(recipe, step, 6) for step in range(6)]
    assert found == pytest.approx(weights)


@pytest.mark.parametrize(
    ("during", "project_out", "message"),
    [
        ([SystemPrompt("You love owls.")], [], "a system turn for training is --context"),
        ([Adapter("folder", top=1)], [], "a whole adapter"),
        ([], [SystemPrompt("x")], "expected ablate:FILE"),
    ],
)
def test_what_cannot_act_in_training_is_refused(during, project_out, message):
    with pytest.raises(ConfigError, match=message):
        safeguards(during, project_out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor_until": 1.5, "anchor": 1.0}, "a fraction from 0 to 1"),
        ({"anchor_temperature": 0.0, "anchor": 1.0}, "a temperature above 0"),
        ({"anchor_until": 0.5}, "there is no anchor to shape"),
        ({"anchor": -1.0}, "anchor -1"),
    ],
)
def test_a_broken_anchor_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(RECIPE, **changes)
