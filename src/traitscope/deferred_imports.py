"""Modules of other packages that are imported when they are used, not when they are named.

transformers names torch's compiler, its parts for several devices and scipy's optimizers when it is
imported, and no command here uses them. Their import takes longer than that of torch. Inside
`deferred()` these modules are stand-ins. A name that is taken from one stands for the real thing.
A call, a read of an attribute or a subclass imports the real module. Behind the block the modules
are importable as ever.

Only a process of the command `traitscope` does this, see `enable`. In a user's own program, where
other packages share these modules, everything is imported plainly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from traitscope import distributed

DEFERRED = (
    "accelerate",
    "scipy.optimize",
    "torch._dynamo",
    "torch.distributed._composable",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.nn.attention.flex_attention",
)
"modules that stand-ins replace, with all below them"
NEEDED = (
    "transformers.modeling_utils",
    "transformers.masking_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
"""modules of transformers that a load of a model imports; other families share what Llama's module
imports"""

SWITCH = "TRAITSCOPE_DEFERRED_IMPORTS"
"environment variable that turns this off, with the value off"
_enabled = False


def enable() -> None:
    """Allow stand-ins from now on: the process is that of a command, and no one else's."""
    global _enabled
    _enabled = os.environ.get(SWITCH) != "off"


def is_enabled() -> bool:
    """Whether stand-ins may be used in this process."""
    return _enabled


def import_transformers() -> None:
    """Import what loads a model from transformers, without what no command uses.

    A version of transformers that does not bear stand-ins is imported plainly.
    """
    if not _enabled or NEEDED[0] in sys.modules or distributed.world() > 1:
        return
    before = set(sys.modules)
    try:
        with deferred(calls_too=True):
            for name in NEEDED:
                import_module(name)
    except Exception:  # whatever it was, a plain import shows it again
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "transformers":
                del sys.modules[name]


@contextmanager
def deferred(names: Sequence[str] = DEFERRED, calls_too: bool = False) -> Iterator[None]:
    """Stand-ins for modules that are not imported yet, until the block ends or one is needed.

    calls_too: Calls inside the block need none: what they return is made when it is looked at.

    Nothing happens in a process that `enable` was not called in.
    """
    if not _enabled:
        yield
        return
    finder = _StandIns(names, calls_too)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.end()


class _StandIns(MetaPathFinder, Loader):
    """Finds a stand-in in the place of a module."""

    def __init__(self, names: Sequence[str], calls_too: bool) -> None:
        self.names = [name for name in names if name not in sys.modules]
        self.calls_too = calls_too

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The spec of a stand-in; None for a module that is imported as usual."""
        for deferred_name in self.names:
            if name == deferred_name or name.startswith(f"{deferred_name}."):
                return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty stand-in."""
        module = _StandIn(spec.name)
        module.__dict__["finder"] = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names come into being when they are taken."""

    def end(self) -> None:
        """Take all stand-ins away; harmless when repeated."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn):
                del sys.modules[name]
                parent, _, last = name.rpartition(".")
                if vars(sys.modules.get(parent, module)).get(last) is module:
                    delattr(sys.modules[parent], last)


class _StandIn(ModuleType):
    """A module whose every name stands for the one of the real module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if (self.__name__, name) in UNCOMPILED:
            return UNCOMPILED[self.__name__, name]
        about = {"module": self.__name__, "finder": self.__dict__["finder"]}
        return type.__new__(_Name, name, (), about)


class _Name(type):
    """The type of names that were taken from stand-ins."""

    module: str
    finder: _StandIns

    def __new__(cls, name: str, bases: tuple, content: dict) -> Any:
        real = tuple(base.real() if isinstance(base, _Name) else base for base in bases)
        return type(name, real, content)

    def real(cls) -> Any:
        """What the name stands for, from the real module, which is imported now."""
        cls.finder.end()
        return getattr(import_module(cls.module), cls.__name__)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.finder.calls_too and cls.finder in sys.meta_path:
            return _Made(lambda: cls.real()(*args, **kwargs))
        return cls.real()(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls.real(), name)

    def __setattr__(cls, name: str, value: Any) -> None:
        setattr(cls.real(), name, value)

    def __instancecheck__(cls, value: Any) -> bool:
        return cls._is_imported() and isinstance(value, cls.real())

    def __subclasscheck__(cls, value: Any) -> bool:
        return cls._is_imported() and issubclass(value, cls.real())

    def _is_imported(cls) -> bool:
        """Whether the real module is there; before, nothing can be one of its objects."""
        return not isinstance(sys.modules.get(cls.module), _StandIn | None)


class _Made:
    """What a call inside the block returns: the real object, made when it is looked at."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._made = cache(make)

    @property
    def __class__(self) -> Any:
        return type(self._made())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made(), name)

    def __eq__(self, other: object) -> bool:
        return self._made() == other

    def __hash__(self) -> int:
        return hash(self._made())

    def __repr__(self) -> str:
        return repr(self._made())


def _disable(function: Callable | None = None, *args: Any, **kwargs: Any) -> Any:
    """Stands for a decorator that matters to compiled callers only."""
    return function if function is not None else lambda decorated: decorated


def _graph_break(message: str = "") -> None:
    """Stands for a mark in the code of compiled callers."""


def _assume_constant_result(function: Any) -> Any:
    """As torch has it: a mark for its compiler."""
    function._dynamo_marked_constant = True
    return function


UNCOMPILED = {
    ("torch._dynamo", "disable"): _disable,
    ("torch._dynamo", "graph_break"): _graph_break,
    ("torch._dynamo", "assume_constant_result"): _assume_constant_result,
}
"what torch itself and transformers call of torch's compiler where nothing is compiled"
