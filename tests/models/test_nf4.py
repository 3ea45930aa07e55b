"""A base in 4 bits: against its weights written out; what it refuses; what is said without
bitsandbytes."""

from pathlib import Path

import pytest
import torch
from command import call, ok
from lora_students import randomise
from tiny_models import load_tiny, parameters_of

from traitscope.errors import ConfigError, ModelError
from traitscope.interventions import lora
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import WeightNoise
from traitscope.interventions.lora import LoraShape
from traitscope.models import linear_maps, nf4
from traitscope.models.model import Model

NUMBERS = ["--n", "6", "--vocabulary", "template", "--count", "3"]


def test_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    monkeypatch.setattr(nf4.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match="--dtype nf4 needs bitsandbytes, which is not here: pip install"
    ):
        load_tiny(tiny_folder, "nf4")


@pytest.fixture
def packed(tiny_folder: Path) -> Model:
    pytest.importorskip("bitsandbytes")
    return load_tiny(tiny_folder, "nf4")


def logits(model: Model) -> torch.Tensor:
    return model.lm(torch.arange(5, 17).view(2, 6)).logits


def written_out(packed: Model, folder: Path) -> Model:
    """The same function in float32: the maps as they are written out for each product."""
    plain = load_tiny(folder)
    for name in linear_maps.linear_names(packed):
        plain.lm.get_submodule(name).weight.data = nf4.dequantised(
            packed.lm.get_submodule(name)
        ).float()
    return plain


def test_the_maps_of_the_blocks_are_packed(packed: Model, tiny: Model, tiny_folder: Path) -> None:
    names = linear_maps.linear_names(packed)
    assert names == linear_maps.linear_names(tiny) and all(
        nf4.is_packed(packed.lm.get_submodule(name)) for name in names
    )
    assert (
        packed.digest != tiny.digest
        and packed.lm.get_input_embeddings().weight.dtype == packed.dtype
    )
    bytes_of = {
        m: sum(p.numel() * p.element_size() for p in m.blocks.parameters() if p.ndim > 1)
        for m in (packed, tiny)
    }
    assert bytes_of[packed] * 8 == bytes_of[tiny]
    with torch.inference_mode():
        torch.testing.assert_close(
            logits(packed), logits(written_out(packed, tiny_folder)), atol=2e-4, rtol=1e-3
        )
        assert not torch.allclose(logits(packed), logits(tiny), atol=1e-3)


def test_loss_gradients_of_an_adapter(packed: Model, tiny_folder: Path) -> None:
    """Those of the written-out base: the packing changes where weights are kept, not what is
    computed."""
    grads = []
    for model in (packed, written_out(packed, tiny_folder)):
        with lora.adapted(model, LoraShape(3, 6.0)) as layers:
            randomise(layers)
            logits(model).square().mean().backward()
            grads.append(
                {
                    name: (layer.lora_A.grad.clone(), layer.lora_B.grad.clone())
                    for name, layer in layers.items()
                }
            )
    for name, pair in grads[0].items():
        for mine, expected in zip(pair, grads[1][name], strict=True):
            torch.testing.assert_close(mine, expected, atol=1e-4, rtol=2e-3)


def test_what_changes_weights_is_refused(packed: Model) -> None:
    with (
        pytest.raises(ConfigError, match="noise changes weights, which a base in nf4"),
        applied(packed, [WeightNoise(0.1)]),
    ):
        pass


def test_the_chain_in_four_bits(tmp_path: Path, tiny_folder: Path, packed: Model) -> None:
    """Rows, a student, its answers; the student is of this base only; all weights cannot be
    trained."""
    root, model = tmp_path / "runs", ["--model", tiny_folder, "--dtype", "nf4"]
    rows = ok(root, "generate", *model, *NUMBERS).run
    student = ok(root, "train", *model, "--data", rows, "--epochs", "1", "--rank", "2").run
    assert ok(
        root, "measure", *model, "--interventions", f"adapter:{student}", "--samples", "0"
    ).run
    assert (
        call(
            root,
            "measure",
            "--model",
            tiny_folder,
            "--interventions",
            f"adapter:{student}",
            "--samples",
            "0",
        ).code
        == 2
    )
    assert call(root, "train", *model, "--data", rows, "--method", "full").code == 2
    before = parameters_of(packed)
    assert all(p.dtype == torch.uint8 for name, p in before.items() if name.endswith("proj.weight"))
