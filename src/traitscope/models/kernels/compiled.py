"""The library of compiled passes: built once by the machine's C++ compiler, kept in the cache.

Its name holds a digest of source, flags, compiler and processor. So a home folder that several
kinds of machine share holds one library for each. TRAITSCOPE_KERNELS=off leaves it out.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope.errors import TraitscopeError
from traitscope.models.bundled import cache_folder

SOURCE = Path(__file__).with_name("kernels.cpp")
SWITCH = "TRAITSCOPE_KERNELS"
"environment variable that switches the library off"
OFF = "off"
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
"sums in any order, as vectors need; NaN and infinity keep their meaning"
LONG_VECTORS = "-mprefer-vector-width=512"
"a flag of compilers for x86, passed where the processor has such vectors"
SECONDS = 120
"longest time of a compiler"
TYPES = {torch.float32: "float", torch.bfloat16: "bf16"}
"dtypes of the passes, by the ends of their names"


@cache
def library() -> ctypes.CDLL | None:
    """The compiled passes; None where they are switched off or cannot be built."""
    return _built()[0]


def described() -> str:
    """In words: whether the passes are compiled, and if not, why."""
    return _built()[1]


@cache
def _built() -> tuple[ctypes.CDLL | None, str]:
    """The library, and what there is to say of it."""
    switch = os.environ.get(SWITCH, "")
    if switch.lower() == OFF:
        return None, f"switched off by {SWITCH}={OFF}"
    unknown = f" ({SWITCH}={switch} means nothing; write {OFF})" if switch else ""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        return None, "none: no C++ compiler here; install g++ to train faster on a CPU"
    try:
        return ctypes.CDLL(str(_file(compiler))), f"compiled{unknown}"
    except (OSError, subprocess.SubprocessError, TraitscopeError) as error:
        reason = " ".join(str(error).split())[:200]
        return None, f"none: {compiler} cannot build them ({reason}); slower without them"


def _file(compiler: str) -> Path:
    """The file of the library, built if it is not in the cache."""
    flags = list(FLAGS)
    processor = _processor()
    if "avx512f" in processor.split():
        flags.append(LONG_VECTORS)
    version = _output([compiler, "--version"])
    parts = (SOURCE.read_text(encoding="utf-8"), " ".join(flags), compiler, version, processor)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    place = cache_folder() / f"kernels-{digest}.so"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        built = Path(folder) / place.name
        _output([compiler, *flags, "-o", str(built), str(SOURCE)])
        built.replace(place)  # two processes may build at once: both files are right
    return place


def _output(command: list[str]) -> str:
    """What a command prints. Raises SubprocessError, also for one that does not end."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, text=True)
    if done.returncode:
        raise subprocess.SubprocessError(done.stderr[-400:] or f"exit code {done.returncode}")
    return done.stdout


def _processor() -> str:
    """The features of the processor, as far as the system tells them."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return line.partition(":")[2]
    return os.uname().machine


def usable(*tensors: Tensor) -> bool:
    """Whether the passes take these tensors: plain ones of one dtype on a CPU."""
    first = tensors[0]
    if library() is None or first.dtype not in TYPES:
        return False
    for tensor in tensors:
        is_plain = type(tensor) in (Tensor, torch.nn.Parameter)
        if not (is_plain and tensor.is_cpu and tensor.dtype == first.dtype):
            return False
    return True


def call(name: str, dtype: torch.dtype, *values: Any) -> None:
    """Call a pass. Floats are passed as float32, tuples as arrays of whole numbers.

    Tensors must be contiguous where their strides are not passed.
    """
    passed: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            passed.append(ctypes.c_void_p(value.data_ptr()))
        elif isinstance(value, float):
            passed.append(ctypes.c_float(value))
        elif isinstance(value, tuple):
            passed.append((ctypes.c_int64 * len(value))(*value))
        else:
            passed.append(ctypes.c_void_p(None) if value is None else ctypes.c_int64(value))
    getattr(library(), f"{name}_{TYPES[dtype]}")(*passed)
