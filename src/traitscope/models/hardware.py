"""The hardware of this machine: device, dtype, free memory and rate of matrix products.

What an address needs, device and dtype, is found without importing torch.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from traitscope.errors import ModelError

if TYPE_CHECKING:
    import torch

NF4 = "nf4"
"name of the 4-bit quantisation (nf4.py) as a dtype of the command line"
WIDE = ("avx512vl", "avx512bw", "avx512dq", "fma")
"flags of a CPU on which torch takes its AVX-512 kernels"
CPUINFO = Path("/proc/cpuinfo")
"where Linux lists the flags of the CPU"
AMX, AVX512_BF16 = "amx_bf16", "avx512_bf16"
"flags of a CPU with instructions for bf16 products"
HIDES_AMX = frozenset({"GenuineIntel", "avx512_fp16"})
"""words of a CPU that is built with AMX. Without the flag of AMX a virtual machine hides it, and
what is left for bf16 products is slower than fp32"""
NARROWER = ("default", "avx2")
"values of ATEN_CPU_CAPABILITY with which torch takes narrower kernels all the same"


def default_dtype(device: str) -> str:
    """The faster dtype of this machine: bf16 on CUDA and CPUs with fast bf16 products, else fp32.

    A CPU without AMX or AVX512-BF16 emulates a bf16 product. Two such cores reached 18 GFLOP/s in
    bf16 and 141 GFLOP/s in fp32. A core with Intel's AVX512-BF16 alone reached 94 and 168 GFLOP/s.
    """
    if device == "cuda":
        return "bf16"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    """Whether torch's kernels use fast instructions of this CPU for bf16 products."""
    if os.environ.get("ATEN_CPU_CAPABILITY") in NARROWER or not CPUINFO.exists():
        return False
    words = set(CPUINFO.read_text().split())
    if not words.issuperset(WIDE):
        return False
    return AMX in words or (AVX512_BF16 in words and not words.issuperset(HIDES_AMX))


def dtypes() -> dict[str, torch.dtype]:
    """Return the dtypes in which a model can compute, by their names on the command line."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}


def compute_dtype(dtype: str, device: str) -> torch.dtype:
    """The torch dtype of matrix products for a dtype of the command line.

    `auto` and `nf4` name no dtype of products. They get the faster one of this machine.
    """
    if dtype in ("auto", NF4):
        dtype = default_dtype(device)
    return dtypes()[dtype]


def resolve_device(device: str) -> str:
    """`cuda` for `auto` where torch sees a CUDA device, `cpu` for `auto` elsewhere; other names
    stay.

    Raises ModelError for `cuda` where torch sees no CUDA device.
    """
    available = cuda_is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "--device cuda: this torch sees no CUDA device. Use --device cpu, or install a CUDA"
            " torch"
        )
    if device == "auto":
        return "cuda" if available else "cpu"
    return device


def cuda_is_available() -> bool:
    """Whether torch sees a CUDA device; torch is not imported where it cannot see one."""
    if "torch" not in sys.modules and not _torch_may_see_cuda():
        return False
    import torch

    return torch.cuda.is_available()


def _torch_may_see_cuda() -> bool:
    """Whether the installed torch is built for GPUs, and the driver is here that it would load."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    about = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    if re.search(r"^hip\b.*= None$", about, re.MULTILINE) is None:
        return True
    if re.search(r"^cuda\b.*= None$", about, re.MULTILINE):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


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
    import torch

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
