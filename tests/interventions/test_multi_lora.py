"""Packed students: each computes what it would alone."""

from pathlib import Path

import pytest
import torch
from lora_students import randomise, write
from tiny_models import parameters_of, random_rows
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.interventions import lora, peft_folder
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.interventions.multi_lora import Pack, PackedLinear
from traitscope.interventions.pass_state import CurrentPass, PassState
from traitscope.models import linear_maps
from traitscope.models.model import Model

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
SHAPES = [LoraShape(3, 6.0), LoraShape(1, 9.0), LoraShape(5, 2.0)]


def members(linear: torch.nn.Module) -> list[LoraLinear]:
    found = [LoraLinear(linear, shape.rank, shape.alpha) for shape in SHAPES]
    for n, layer in enumerate(found):
        randomise({"map": layer}, seed=n)
    return found


def grads(layers: list[LoraLinear]) -> list[Tensor | None]:
    return [p.grad for layer in layers for p in (layer.lora_A, layer.lora_B)]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("rows", [(2, 2, 2), (1, 3, 2), (2, 0, 4)])
def test_values_and_gradients_are_those_of_each_alone(
    family: Model, rows: tuple[int, ...], batched: bool
) -> None:
    """Both ways of adding, at equal and unequal numbers of rows, at different ranks; none of a
    student without rows."""
    linear = family.lm.get_submodule(linear_maps.linear_names(family)[0])
    alone, together = members(linear), members(linear)
    width = linear_maps.weight_of(linear).shape[1]
    x = torch.randn(6, 4, width, generator=torch.Generator().manual_seed(1))
    inputs = [x.clone().requires_grad_(True) for _ in range(2)]
    expected = torch.cat(
        [layer(part) for layer, part in zip(alone, inputs[0].split(rows), strict=True) if len(part)]
    )
    current = CurrentPass(PassState(torch.zeros(6, 4), student_rows=rows))
    joint = PackedLinear(linear, together, current)
    joint.batched = batched
    found = joint(inputs[1])
    torch.testing.assert_close(found, expected, **CLOSE)
    pattern = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    for y in (expected, found):
        (y * pattern).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, **CLOSE)
    for n, (one, other) in enumerate(zip(grads(together), grads(alone), strict=True)):
        if rows[n // 2]:
            torch.testing.assert_close(one, other, **CLOSE)
        else:
            assert other is None and (one is None or not one.any())


def saved(model: Model, place: Path) -> list[Path]:
    folders = []
    for n, shape in enumerate(SHAPES):
        with lora.adapted(model, shape) as layers:
            randomise(layers, seed=n)
            folders.append(write(place / f"student{n}", peft_folder.adapter_files(model, layers)))
    return folders


@pytest.mark.parametrize("shared", [0, 6])
@pytest.mark.parametrize("how", ["rows", "prefill"])
def test_a_pass_is_that_of_each_alone(family: Model, tmp_path: Path, how: str, shared: int) -> None:
    """With and without a beginning that all rows share, which runs once a student."""
    before = parameters_of(family)
    folders = saved(family, tmp_path)
    head = list(range(20, 20 + shared))
    prompts = [head + row for row in random_rows(family, [4, 7, 2, 5])]

    def hidden(active: object, rows: list) -> Tensor:
        if how == "prefill":
            state, last = forward.prefill(family, active, rows, 3)
            state.take(torch.arange(len(rows)).repeat_interleave(2))
            fed = torch.full((2 * len(rows), 2), 9)
            ones = torch.ones_like(fed, dtype=torch.bool)
            more = forward.hidden_states(
                family, active, forward.Batch(fed, ones, 3 * ones.long()), state
            )
            return torch.cat([last.repeat_interleave(2, 0).unsqueeze(1), more], 1)
        found, batch = forward.rows_hidden(family, active, rows, [len(row) - 1 for row in rows])
        return found[batch.mask_BT]

    expected = []
    for folder in folders:
        with applied(family, [Adapter(str(folder))]) as active, torch.inference_mode():
            expected.append(hidden(active, prompts))
    with (
        applied(family, []) as active,
        active.packed(folders) as pack,
        torch.inference_mode(),
    ):
        found = hidden(active, prompts * 3)
        with pack.only(1):
            single = hidden(active, prompts)
        pack.rows = (4, 0, 4)
        some = hidden(active, prompts * 2)
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(single, expected[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(some, torch.cat([expected[0], expected[2]]), atol=1e-4, rtol=1e-4)
    assert active.pack is None
    after = parameters_of(family)
    assert before.keys() == after.keys() and all(
        torch.equal(before[name], after[name]) for name in before
    )


def test_rows_that_cannot_be_dealt_out_are_refused() -> None:
    pack = Pack(3)
    assert pack.owners(6) == (0, 0, 1, 1, 2, 2)
    pack.rows = (1, 0, 2)
    assert pack.owners(3) == (0, 2, 2)
    with pytest.raises(ConfigError, match=r"4 rows for 3 packed students with \(1, 0, 2\) rows"):
        pack.owners(4)
    with pytest.raises(ConfigError, match="are mixed"):
        pack.row_counts((0, 1, 0))


def test_a_pass_that_nobody_announced_is_refused(tiny: Model, tmp_path: Path) -> None:
    folders = saved(tiny, tmp_path)
    with (
        applied(tiny, []) as active,
        active.packed(folders),
        pytest.raises(ConfigError, match="run the model through traitscope.inference.forward"),
    ):
        tiny.lm(torch.arange(8).view(2, 4))
