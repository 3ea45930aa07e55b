"""Random LoRA students for tests."""

from pathlib import Path

import torch
from torch import Tensor, nn

from traitscope.interventions import lora
from traitscope.interventions.lora import LoraLinear


def logits_of(lm: nn.Module) -> Tensor:
    ids = torch.arange(5, 17).view(2, 6)
    with torch.inference_mode():
        return lm(ids).logits


def randomise(layers: dict[str, LoraLinear], seed: int = 0) -> None:
    lora.initialise(layers, seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        layer.lora_B.data.normal_(std=0.2, generator=generator)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
