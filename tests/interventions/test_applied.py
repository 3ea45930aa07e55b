"""Models under interventions: identities, the algebra each promises, combinations, refusals."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import hooks_left, parameters_of, random_rows, random_vector, row_logits

from traitscope.errors import ConfigError, VectorError
from traitscope.inference import forward
from traitscope.interventions import full_weights, hooks, lora, peft_folder
from traitscope.interventions.adapters import changed_weights
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    ReplaceBase,
    Steer,
)
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.models.model import Model

PROMPTS = [3, 5, 2]
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def residuals(
    model: Model, items: list
) -> tuple[dict[int, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Residuals of real tokens [N, D] by layer, after the interventions; the tokens' roles [N];
    final states."""
    batch = forward.batch_of(random_rows(model, [6, 9, 4]), PROMPTS, model.pad_id)
    with (
        torch.inference_mode(),
        applied(model, items) as active,
        hooks.captured(model.blocks) as store,
    ):
        final = forward.hidden_states(model, active, batch)
    return (
        {n: h[batch.mask_BT] for n, h in store.items()},
        batch.roles_BT[batch.mask_BT],
        final[batch.mask_BT],
    )


def unit_of(vector: Vector, layer: int) -> torch.Tensor:
    return torch.from_numpy(vector.unit().rows_LD[layer])


@pytest.fixture(scope="module")
def adapter(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """A LoRA student with random weights."""
    folder = tmp_path_factory.mktemp("adapter")
    with lora.adapted(tiny, lora.LoraShape(2, 4.0)) as layers:
        lora.initialise(layers, 0)
        for layer in layers.values():
            layer.lora_B.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        for name, data in peft_folder.adapter_files(tiny, layers).items():
            (folder / name).write_bytes(data)
    return Adapter(str(folder))


@pytest.fixture(scope="module")
def whole(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """A fully fine-tuned student with random changes."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(2)
    changed = {
        n: tiny.lm.get_parameter(n) + 0.1 * torch.randn(tiny.lm.get_parameter(n).shape)
        for n in full_weights.trained_names(tiny)
    }
    for name, data in full_weights.student_files(tiny, changed).items():
        (folder / name).write_bytes(data)
    return Adapter(str(folder))


@pytest.mark.parametrize("position", ["prompt", "last", "completion", "all"])
@pytest.mark.parametrize("scale", ["raw", "unit", "residual"])
def test_alpha_zero_changes_no_bit(family: Model, position: str, scale: str) -> None:
    _, _, before = residuals(family, [])
    _, _, after = residuals(family, [Steer(random_vector(family), (0, 1), 0.0, position, scale)])
    assert torch.equal(before, after)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("scale, length", [("raw", 0.5 * 3), ("unit", 0.5), ("residual", 0.5 * 2)])
def test_steer_shifts_by_exactly_alpha_along_the_unit_vector(
    family: Model, layer: int, scale: str, length: float
) -> None:
    """raw: alpha times the row (norm 3); unit: alpha; residual: alpha times the recorded residual
    norm (2 + layer)."""
    vector = random_vector(family, norm=3.0)
    length += 0.5 * layer if scale == "residual" else 0
    clean, _, _ = residuals(family, [])
    steered, _, _ = residuals(family, [Steer(vector, (layer,), 0.5, "all", scale)])
    expected = (length * unit_of(vector, layer)).expand_as(clean[layer])
    torch.testing.assert_close(steered[layer] - clean[layer], expected, **CLOSE)
    if layer:
        assert torch.equal(steered[0], clean[0])


@pytest.mark.parametrize("position", ["prompt", "last", "completion"])
def test_only_the_position_is_shifted(tiny: Model, position: str) -> None:
    vector = random_vector(tiny)
    clean, roles, _ = residuals(tiny, [])
    steered, _, _ = residuals(tiny, [Steer(vector, (1,), 2.0, position, "unit")])
    inside = torch.isin(roles, torch.tensor(hooks.ROLES_OF[position]))
    lengths = (steered[1] - clean[1]).norm(dim=-1)
    assert 0 < inside.sum() < len(roles)
    torch.testing.assert_close(lengths, 2.0 * inside, **CLOSE)


def test_two_steers_at_one_layer_add_up(tiny: Model) -> None:
    one, other = random_vector(tiny, 1), random_vector(tiny, 2)
    apart, _, _ = residuals(
        tiny, [Steer(one, (1,), 1.0, scale="raw"), Steer(other, (1,), 2.0, scale="raw")]
    )
    together, _, _ = residuals(tiny, [Steer(one + 2 * other, (1,), 1.0, scale="raw")])
    torch.testing.assert_close(apart[2], together[2], **CLOSE)


def test_ablate_leaves_no_component_and_nothing_else_changes(family: Model) -> None:
    vector = random_vector(family, norm=0.3)
    clean, _, _ = residuals(family, [])
    ablated, _, _ = residuals(family, [Ablate(vector, (0, 1))])
    for layer in (0, 1):
        assert (clean[layer] @ unit_of(vector, layer)).abs().max() > 0.1
        assert (ablated[layer] @ unit_of(vector, layer)).abs().max() < 1e-5
    change = ablated[0] - clean[0]
    along = (change @ unit_of(vector, 0)).unsqueeze(1) * unit_of(vector, 0)
    torch.testing.assert_close(change, along, **CLOSE)


def test_ablation_undoes_steering_along_the_same_vector(tiny: Model) -> None:
    vector = random_vector(tiny)
    only, _, _ = residuals(tiny, [Ablate(vector, (1,))])
    both, _, _ = residuals(tiny, [Steer(vector, (1,), 5.0, scale="unit"), Ablate(vector, (1,))])
    torch.testing.assert_close(both[2], only[2], **CLOSE)


def test_replace_base_is_the_identity_on_the_base(family: Model) -> None:
    _, _, before = residuals(family, [])
    _, _, after = residuals(family, [ReplaceBase(random_vector(family), (0, 1))])
    torch.testing.assert_close(before, after, **CLOSE)


@pytest.mark.parametrize("kind", ["adapter", "whole", "steer"])
def test_replace_base_gives_a_student_the_bases_component(
    tiny: Model, adapter: Adapter, whole: Adapter, kind: str
) -> None:
    vector = random_vector(tiny)
    student = {
        "adapter": adapter,
        "whole": whole,
        "steer": Steer(random_vector(tiny, 5), (0, 1), 4.0, scale="unit"),
    }[kind]
    base, _, _ = residuals(tiny, [])
    plain, _, _ = residuals(tiny, [student])
    replaced, _, _ = residuals(tiny, [student, ReplaceBase(vector, (1,))])
    unit = unit_of(vector, 1)
    assert (plain[1] @ unit - base[1] @ unit).abs().max() > 0.05
    torch.testing.assert_close(replaced[1] @ unit, base[1] @ unit, **CLOSE)
    rest = replaced[1] - (replaced[1] @ unit).unsqueeze(1) * unit
    torch.testing.assert_close(rest, plain[1] - (plain[1] @ unit).unsqueeze(1) * unit, **CLOSE)


def test_adapter_and_steer_combine(tiny: Model, adapter: Adapter) -> None:
    """The shift at the steered layer is the vector's, on top of the student; the order in the list
    does not matter."""
    vector = random_vector(tiny)
    steer = Steer(vector, (1,), 2.0, scale="unit")
    base, _, _ = residuals(tiny, [])
    student, _, _ = residuals(tiny, [adapter])
    for items in ([adapter, steer], [steer, adapter]):
        both, _, _ = residuals(tiny, items)
        torch.testing.assert_close(
            both[1] - student[1], (2 * unit_of(vector, 1)).expand_as(both[1]), **CLOSE
        )
    assert (student[1] - base[1]).abs().max() > 0.05


def test_model_is_restored_after_an_exception(
    tiny: Model, adapter: Adapter, whole: Adapter
) -> None:
    before, modules = parameters_of(tiny), [type(m) for m in tiny.lm.modules()]
    _, _, clean = residuals(tiny, [])
    for student in (adapter, whole):
        with (
            pytest.raises(KeyError),
            applied(tiny, [student, Steer(random_vector(tiny), (1,), 1.0, scale="raw")]),
        ):
            assert hooks_left(tiny) == 1
            raise KeyError("planned")
        bad = Steer(random_vector(tiny), (9,), 1.0, scale="raw")
        with pytest.raises(ConfigError), applied(tiny, [student, bad]):
            pass
    assert hooks_left(tiny) == 0 and [type(m) for m in tiny.lm.modules()] == modules
    after = parameters_of(tiny)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert torch.equal(residuals(tiny, [])[2], clean)


def test_vector_files_are_read(tiny: Model, tmp_path: Path) -> None:
    vector, path = random_vector(tiny), tmp_path / "v.safetensors"
    path.write_bytes(vector_bytes(vector))
    _, _, from_file = residuals(tiny, [Steer(str(path), (1,), 1.0)])
    _, _, in_memory = residuals(tiny, [Steer(vector, layer=1, alpha=1.0)])
    assert torch.equal(from_file, in_memory)


@pytest.mark.parametrize("layers, named", [((3,), r"\[3\]"), ((0, -1), r"\[-1\]"), ((), "none")])
@pytest.mark.parametrize("kind", [Ablate, ReplaceBase, lambda v, n: Steer(v, n, 1.0)])
def test_layer_out_of_range(tiny: Model, kind, layers: tuple, named: str) -> None:
    item = kind(random_vector(tiny), layers)
    with (
        pytest.raises(
            ConfigError, match=rf"layer {named} of an intervention: .* has layers 0 to 2"
        ),
        applied(tiny, [item]),
    ):
        pass


@pytest.mark.parametrize("kind", [Ablate, ReplaceBase, lambda v, n: Steer(v, n, 1.0)])
def test_vector_of_another_model(tiny: Model, families: dict[str, Model], kind) -> None:
    item = kind(random_vector(families["qwen2"]), (0,))
    with pytest.raises(VectorError, match="extract it again"), applied(tiny, [item]):
        pass


def test_residual_scale_needs_recorded_norms(tiny: Model) -> None:
    bare = dataclasses.replace(random_vector(tiny), about={})
    with (
        pytest.raises(VectorError, match="records no residual norms"),
        applied(tiny, [Steer(bare, (0,), 1.0)]),
    ):
        pass


def test_a_folder_that_holds_no_student(tiny: Model, tmp_path: Path) -> None:
    with (
        pytest.raises(VectorError, match="holds neither a LoRA adapter"),
        applied(tiny, [Adapter(str(tmp_path))]),
    ):
        pass


def test_two_students_at_once(tiny: Model, adapter: Adapter, whole: Adapter) -> None:
    with (
        pytest.raises(ConfigError, match="2 adapters on one model"),
        applied(tiny, [adapter, whole]),
    ):
        pass


def test_plain_adapters_add_up(tiny: Model, adapter: Adapter, tmp_path: Path) -> None:
    """One after the other in the weights is the same as both beside one another."""
    with lora.adapted(tiny, lora.LoraShape(3, 1.5)) as layers:
        lora.initialise(layers, 5)
        for layer in layers.values():
            layer.lora_B.data.normal_(std=0.1, generator=torch.Generator().manual_seed(6))
        for name, data in peft_folder.adapter_files(tiny, layers).items():
            (tmp_path / name).write_bytes(data)
    with applied(tiny, [adapter, Adapter(str(tmp_path))]) as active:
        both = row_logits(tiny, active, [[5, 6, 7]], [2])[0]
    contents = peft_folder.read(Path(adapter.folder), tiny)
    with changed_weights.mounted(tiny, contents), applied(tiny, [Adapter(str(tmp_path))]) as active:
        one_below = row_logits(tiny, active, [[5, 6, 7]], [2])[0]
    with applied(tiny, [adapter]) as active:
        alone = row_logits(tiny, active, [[5, 6, 7]], [2])[0]
    torch.testing.assert_close(both, one_below, rtol=1e-4, atol=1e-4)
    assert (both - alone).abs().max() > 0.01


@pytest.mark.parametrize("scale", ["raw", "unit", "residual"])
def test_a_zero_row_is_refused_and_a_zero_strength_is_not(
    tiny: Model, scale: str, tmp_path: Path
) -> None:
    """A zero row has no direction, so nothing would be steered without a word."""
    with applied(tiny, []) as active:
        clean = row_logits(tiny, active, [[5, 6, 7]], [2])[0]
    vector = random_vector(tiny)
    with applied(tiny, [Steer(vector, (0, 1, 2), 0.0, scale=scale)]) as active:
        assert torch.equal(row_logits(tiny, active, [[5, 6, 7]], [2])[0], clean)
    zero = Vector(0 * vector.rows_LD, tiny.digest, vector.about)
    zero_in_1 = Vector(vector.rows_LD * [[1], [0], [1]], tiny.digest, vector.about)
    zero_in_1.save(tmp_path / "v.safetensors")
    for kind in (Ablate, ReplaceBase, partial(Steer, alpha=0.0, scale=scale)):
        with pytest.raises(VectorError, match="its 3 rows are all zero; expected rows"):
            with applied(tiny, [kind(zero, (0, 1, 2))]):
                pass
        with pytest.raises(VectorError, match="no direction at layer 1: .* of the layers 0, 2, or"):
            with applied(tiny, [kind(tmp_path / "v.safetensors", (0, 1, 2))]):
                pass
        for given, layers in ((tmp_path / "v.safetensors", (0, 2)), (zero_in_1, (0, 1, 2))):
            with applied(tiny, [kind(given, layers)]):
                pass


def test_a_student_of_one_vector_that_was_not_moved_is_its_base(
    tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    zero = Vector(np.zeros((3, 32)), tiny.digest, {"trained_at": 1})
    zero.save(tmp_path / "vector.safetensors")
    with applied(tiny, []) as active:
        clean = row_logits(tiny, active, [[5, 6, 7]], [2])[0]
    with applied(tiny, [Adapter(tmp_path)]) as active:
        assert torch.equal(row_logits(tiny, active, [[5, 6, 7]], [2])[0], clean)
