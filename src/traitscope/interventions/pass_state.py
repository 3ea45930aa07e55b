"""The state of the running forward pass, which hooks and adapter layers read.

Hooks and layers lie inside a transformers model, so nobody can hand them arguments. Each of them
holds a reference to one `CurrentPass` instead. The order is:

    1. `applied(model, interventions)` makes one CurrentPass. Every hook and layer gets it.
    2. Where ReplaceBase acts, inference.forward first runs the base's own pass, in which no
       intervention acts, and keeps its residuals.
    3. inference.forward runs the pass itself: `with current.running(PassState(...))`.
    4. Hooks and layers read `current.state` while the pass runs.
    5. The state is gone when the pass ends, also after an exception.

A PassState is set once and never changed. Shapes: B rows, T tokens of the pass, D d_model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class PassState:
    """One forward pass."""

    roles_BT: Tensor
    "the role of every token, see hooks.py"
    adapter_on_BT: Tensor | None = None
    "bool, where a LoRA student acts that acts at some tokens only; None without such a student"
    student_rows: tuple[int, ...] = ()
    "number of rows of each packed student, in order; empty where none are packed"
    base_hidden: Mapping[int, Tensor] = field(default_factory=dict)
    "by layer, residuals [B, T, D] of the base on the same tokens; filled where ReplaceBase acts"
    is_base: bool = False
    "whether this is the base's own pass, in which no intervention acts"


class CurrentPass:
    """The pass that is running on a model; hooks and layers of the model share one of these."""

    def __init__(self, state: PassState | None = None) -> None:
        self.state = state

    @contextmanager
    def running(self, state: PassState) -> Iterator[None]:
        """Let hooks and layers see this state until the context ends."""
        before = self.state
        self.state = state
        try:
            yield
        finally:
            self.state = before
