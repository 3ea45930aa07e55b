"""What a study is: one file in `claims/` for each published claim, with the names of `Study`."""

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, cast

from traitscope.errors import ConfigError
from traitscope.reporting.verdict import Findings
from traitscope.studies import check_name, claims
from traitscope.studies.design import Design, Experiment
from traitscope.studies.sizes import check_layer_fields
from traitscope.workflow.graph import Folders, Node

TEXTS = ("TITLE", "CLAIM", "SOURCE", "PUBLISHED")
"names of the texts of a study"
SIZE_NAMES = ("smoke", "laptop", "full")
"names of the sizes of a study"
FUNCTIONS = {
    "nodes": ("size", "common"),
    "conclude": ("size", "folders", "model"),
    "design": ("size",),
}
"parameters of the functions of a study"


class Study(Protocol):
    """A published claim, the stages that test it, and the rule that concludes on it.

    The layers of a smoke size are those of a tiny model, and stay as they are. A study with
    `SMOKE_AT_DEPTH = True` counts them in the embedded model, as in the other sizes.

    A study of networks of its own names its model in the experiment of its `design`, and its number
    type as `DTYPE`.
    """

    TITLE: str
    """The question, as a heading."""
    CLAIM: str
    """The published claim in one sentence."""
    SOURCE: str
    """Where the claim was published."""
    PUBLISHED: str
    """The published numbers."""
    SIZES: Mapping[str, Any]
    """Frozen dataclasses by name: smoke, laptop, full."""
    PROTOCOL: Experiment
    """The published protocol that the study is compared with."""
    __file__: str
    """The file of the study, whose digest enters the address of its conclusion."""

    def nodes(self, size: Any, common: dict) -> list[Node]:
        """Build the stages; `common` holds model, device and dtype."""

    def design(self, size: Any) -> Design:
        """Return what the primary claim could show at a size, and how the experiment is made."""

    def conclude(self, size: Any, folders: Folders, model: str) -> Findings:
        """Return verdicts and tables from the folders of all nodes; it computes no stage.

        The size has its traits by name (sizes.named). So a node is called by `trait_name(trait)`.
        """


def load(name: str) -> Study:
    """Return the study of that name.

    Raises ConfigError for an unknown name, and for a file that lacks a part of a study.
    """
    check_name(name)
    return as_study(import_module(f"{claims.__name__}.{name.replace('-', '_')}"))


def as_study(module: ModuleType) -> Study:
    """Return a module as the study that it is.

    Raises ConfigError where it lacks a part of a study, or a part has another form.
    """
    for name in TEXTS:
        text = getattr(module, name, None)
        if not isinstance(text, str) or not text:
            raise _incomplete(module, f"{name} is {text!r}; expected a text")
    for name, parameters in FUNCTIONS.items():
        _check_function(module, name, parameters)
    published = getattr(module, "PROTOCOL", None)
    if not isinstance(published, Experiment):
        raise _incomplete(module, f"PROTOCOL is {published!r}; expected an Experiment")
    sizes = getattr(module, "SIZES", None)
    if not isinstance(sizes, Mapping) or set(sizes) != set(SIZE_NAMES):
        raise _incomplete(module, f"SIZES is {sizes!r}; expected sizes {', '.join(SIZE_NAMES)}")
    for size in sizes.values():
        if not is_dataclass(size):
            raise _incomplete(module, f"a size is {size!r}; expected a frozen dataclass")
        check_layer_fields(type(size))
    return cast(Study, module)


def _check_function(module: ModuleType, name: str, parameters: tuple[str, ...]) -> None:
    function = getattr(module, name, None)
    expected = f"{name}({', '.join(parameters)})"
    if not inspect.isfunction(function):
        raise _incomplete(module, f"{name} is {function!r}; expected the function {expected}")
    given = tuple(inspect.signature(function).parameters)
    if given != parameters:
        raise _incomplete(module, f"{name} takes {', '.join(given)}; expected {expected}")


def _incomplete(module: ModuleType, what: str) -> ConfigError:
    return ConfigError(
        f"{module.__name__} is no study: {what}; see traitscope.studies.protocol.Study"
    )
