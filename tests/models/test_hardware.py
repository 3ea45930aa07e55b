"""Device, dtype and memory of this machine."""

from pathlib import Path

import pytest
import torch
from tiny_models import load_tiny

from traitscope.errors import ModelError
from traitscope.models import hardware


def test_dtype(tiny_folder: Path) -> None:
    assert load_tiny(tiny_folder, "bf16").dtype == torch.bfloat16
    assert hardware.default_dtype("cuda") == "bf16"
    assert hardware.default_dtype("cpu") in hardware.dtypes()


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.resolve_device("auto") == hardware.resolve_device("cpu") == "cpu"
    with pytest.raises(ModelError, match="--device cuda"):
        hardware.resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (hardware.resolve_device("auto"), hardware.resolve_device("cpu")) == ("cuda", "cpu")


def test_available_memory_is_plausible() -> None:
    assert 2**24 < hardware.available_memory() < 2**46
