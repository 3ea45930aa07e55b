"""The hardware of this machine: device, dtype, free memory and rate of matrix products."""

import os
import time
from pathlib import Path

import torch

from traitscope.errors import ModelError
from traitscope.models import nf4

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"dtypes of the command line in which a model can compute"


def default_dtype(device: str) -> str:
    """The faster dtype of this machine: bf16 on CUDA and on CPUs with bf16 matrix units, else fp32.

    A CPU without AMX or AVX512-BF16 emulates a bf16 product. Two such cores reached 18 GFLOP/s in
    bf16 and 141 GFLOP/s in fp32.
    """
    if device == "cuda":
        return "bf16"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16 products."""
    cpuinfo = Path("/proc/cpuinfo")
    if "AVX512" not in torch.backends.cpu.get_cpu_capability() or not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def compute_dtype(dtype: str, device: str) -> torch.dtype:
    """The torch dtype of matrix products for a dtype of the command line.

    `auto` and `nf4` name no dtype of products. They get the faster one of this machine.
    """
    if dtype in ("auto", nf4.NAME):
        dtype = default_dtype(device)
    return DTYPES[dtype]


def resolve_device(device: str) -> str:
    """`cuda` for `auto` where torch sees a CUDA device, `cpu` for `auto` elsewhere; other names
    stay.

    Raises ModelError for `cuda` where torch sees no CUDA device.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "--device cuda: this torch sees no CUDA device. Use --device cpu, or install a CUDA"
            " torch"
        )
    if device == "auto":
        return "cuda" if available else "cpu"
    return device


def available_memory() -> int:
    """Bytes of memory that this process may still take.

    On Linux this is MemAvailable. Elsewhere it is all physical memory.
    """
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def matmul_rate(
    dtype: torch.dtype,
    m: int = 2048,
    k: int = 576,
    n: int = 1536,
    seconds: float = 0.5,
    device: str = "cpu",
) -> float:
    """Measured rate in FLOP/s of products [m, k] x [k, n], each counted as 2 m k n operations.

    A CPU uses as many threads as torch is set to. `seconds` is how long to measure.
    """
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype)

    def multiply() -> None:
        torch.nn.functional.linear(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    multiply()
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        multiply()
        count += 1
    return 2 * m * k * n * count / (time.perf_counter() - start)
