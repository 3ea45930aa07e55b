"""Whether an adapter changes anything, from its weights alone; read without torch.

LoRA      W + s B A is W where A or B is zero
others    not looked at: DoRA, and weights of whole modules, are compared with no base here
"""

import math
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.interventions.adapters.settings import WEIGHTS

FACTOR = re.compile(
    r"(?P<map>.*)\.lora_(embedding_)?(?P<letter>[AB])(\.(?!weight$)[^.]+)?(\.weight)?"
)
"name of a factor of a low-rank addition"
SETTLED = 2 * 10**9
"nanoseconds after which a file's time tells a change: two writes may share a tick of the clock"


def no_effect(folder: Path) -> tuple[str, ...]:
    """What to say of an adapter that changes nothing; nothing of any other one."""
    file = Path(folder) / WEIGHTS
    try:
        about = file.stat()
        is_settled = time.time_ns() - about.st_mtime_ns > SETTLED
        find = _zero_factor if is_settled else _zero_factor.__wrapped__
        zero = find(str(file), about.st_mtime_ns, about.st_size)
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return ()
    if not zero:
        return ()
    return (
        f"{folder} changes nothing: {zero} of its adapter are zero, as before training; expected a"
        " trained adapter; train it, or name another one, unless it is meant as a control",
    )


def _has_any(about: Mapping[str, Any]) -> bool:
    """Whether a stored tensor has a number that is neither 0 nor -0."""
    data = np.frombuffer(about["data"], np.uint8)
    width = data.size // max(1, math.prod(about["shape"]))
    if width < 1:
        return False
    numbers = data.reshape(-1, width)  # the sign is the first bit of the last byte
    return bool(numbers[:, :-1].any() or (numbers[:, -1] & 0x7F).any())


@lru_cache(maxsize=256)
def _zero_factor(file: str, changed: int, size: int) -> str:
    """Which matrices make every addition of an adapter zero; empty where some addition is none."""
    from safetensors import SafetensorError, deserialize

    try:
        stored = deserialize(Path(file).read_bytes())
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    is_zero: dict[str, dict[str, bool]] = {}
    for name, about in stored:
        factor = FACTOR.fullmatch(name)
        if factor is None:
            return ""
        letters = is_zero.setdefault(factor["map"], {})
        letters[factor["letter"]] = not _has_any(about)
    if not is_zero or not all(any(letters.values()) for letters in is_zero.values()):
        return ""
    has_zero_b = all(letters.get("B") for letters in is_zero.values())
    return "all matrices B" if has_zero_b else "A or B of every map"
