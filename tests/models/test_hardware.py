"""Device, dtype and memory of this machine."""

import os
import subprocess
import sys
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


WITHOUT_TORCH = """
import sys
from pathlib import Path
from traitscope.models import hardware
found = [hardware.resolve_device("auto"), hardware.default_dtype("cpu")]
assert "torch" not in sys.modules or hardware._torch_may_see_cuda()
import torch
wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
words = Path("/proc/cpuinfo").read_text().split()
is_slow = "GenuineIntel" in words and "avx512_fp16" in words
bf16 = wide and ("amx_bf16" in words or ("avx512_bf16" in words and not is_slow))
print(found == ["cuda" if torch.cuda.is_available() else "cpu", "bf16" if bf16 else "fp32"])
"""


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="flags of a CPU are read in /proc")
@pytest.mark.parametrize("capability", ["", "default", "avx2", "avx512"])
def test_device_and_dtype_are_those_of_torch(capability: str) -> None:
    """They enter addresses, and are found without importing torch."""
    chosen = {"ATEN_CPU_CAPABILITY": capability} if capability else {}
    words = [sys.executable, "-c", WITHOUT_TORCH]
    env = os.environ | chosen
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "True\n"


WIDE = "avx512vl avx512bw avx512dq fma"


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", f"{WIDE} avx512_bf16 avx512_fp16 amx_bf16", "bf16"),
        ("GenuineIntel", f"{WIDE} avx512_bf16 avx512_fp16", "fp32"),
        ("GenuineIntel", f"{WIDE} avx512_bf16", "bf16"),
        ("AuthenticAMD", f"{WIDE} avx512_bf16", "bf16"),
        ("AuthenticAMD", f"{WIDE} avx512_bf16 avx512_fp16", "bf16"),
        ("AuthenticAMD", WIDE, "fp32"),
        ("GenuineIntel", "fma amx_bf16", "fp32"),
    ],
)
def test_a_hidden_matrix_unit_leaves_fp32_as_the_faster_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, expected: str
) -> None:
    """Without AMX, bf16 products of a processor built for it are slower than fp32 ones."""
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    hardware.CPUINFO.write_text(f"vendor_id : {vendor}\nflags : {flags}\n")
    assert hardware.default_dtype("cpu") == expected
