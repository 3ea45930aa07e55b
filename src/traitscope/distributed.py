"""The place of this process among those that torchrun started together.

This file imports nothing heavy.
"""

import os
import sys
from functools import cache


def world() -> int:
    """Number of processes; 1 outside of torchrun, whatever else set WORLD_SIZE."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def first() -> bool:
    """Whether this is the first process, which owns the run and alone writes and prints."""
    return rank() == 0


@cache
def say(text: str) -> None:
    """Print a line on stderr, once a process, in the first one of several."""
    if first():
        print(f"traitscope: {text}", file=sys.stderr, flush=True)
