"""From the config of a stage to its function, its address and its run directory.

    with registry.opened(config, out) as run:
        if not run.sealed:
            ...compute, write into run.path...
    return run

The table of all stages is in config/entries.py. This file imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitscope.config import fields
from traitscope.config.command_types import Stage
from traitscope.config.common import Output, check_needed
from traitscope.config.entries import STAGES

if TYPE_CHECKING:
    from traitscope.runs.store import Run


def function(place: str) -> Callable[..., Any]:
    """The function at `module:function` below the package, imported now."""
    module, name = place.split(":")
    return getattr(import_module(f"traitscope.{module}"), name)


def stage_of(config_type: type) -> Stage:
    """The stage whose config has this type. Raises TypeError where no stage has."""
    for stage in STAGES.values():
        if stage.config is config_type:
            return stage
    raise TypeError(
        f"no stage has settings of the type {config_type.__name__}; expected one of"
        f" {', '.join(stage.config.__name__ for stage in STAGES.values())}"
    )


def stage_named(name: str) -> Stage | None:
    """The stage with this name, present or former; None where there is none."""
    named = (stage for stage in STAGES.values() if name in _names(stage))
    return next(named, None)


def address(config: Any, out: Output) -> Path:
    """Where the run of a config lies, or will lie; nothing is computed and nothing is written.

    Raises what the settings raise, such as DataError for a missing input.
    """
    from traitscope.runs import opening

    check_needed(config)
    config = opening.settled(config)
    stage = stage_of(type(config))
    computation = opening.described(config, _further_inputs(stage, config))
    return opening.place_of(_names(stage), computation, out.root / out.study).path


@contextmanager
def opened(
    config: Any,
    out: Output,
    inputs: Mapping[str, Path | Run] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """The run directory of a settled config, sealed when the block ends; see runs.store.stage_run.

    `inputs` are further inputs that the config alone does not determine, `facts` further values
    for the manifest.
    """
    from traitscope.runs import opening

    check_needed(config)
    stage = stage_of(type(config))
    all_inputs = _further_inputs(stage, config)
    all_inputs.update(inputs or {})
    with opening.opened(_names(stage), config, out, stage.resumable, all_inputs, facts) as run:
        yield run


def run_stage(config: Any, out: Output) -> Run:
    """The sealed run of a config, computed unless it is there."""
    return function(stage_of(type(config)).run)(config, out)


def finished(config: Any, out: Output) -> Run | None:
    """The sealed run of a config, where that run is all that its command gives; else None.

    Nothing that computes is imported, so this takes a fraction of a second. The run is checked
    against its manifest as ever. Raises what the settings raise.
    """
    from traitscope.runs import opening
    from traitscope.runs.manifests import is_sealed

    stage = stage_of(type(config))
    if not stage.only_run or fields.written_paths(config) or not _has_runs(stage, out):
        return None
    if not is_sealed(address(config, out)):
        return None
    with opened(opening.settled(config), out) as run:
        return run


def _has_runs(stage: Stage, out: Output) -> bool:
    """Whether a stage has runs in a folder, finished or not."""
    folder = out.root / out.study
    return any(next(folder.glob(f"{name}-*"), None) for name in _names(stage))


def replayed(config: Any, inputs: Mapping[str, Path], out: Output) -> Run:
    """The run of a config, computed from the folders of the inputs that an earlier run recorded."""
    stage = stage_of(type(config))
    if stage.replay:
        return function(stage.replay)(config, inputs, out)
    return run_stage(config, out)


def run(config: Any, root: str | Path = "runs", folder: str = "default") -> Run:
    """Run one stage, or return its sealed run if it is there.

    config: A config of `traitscope.config`, such as TrainConfig. Its type names the stage.
    root: Folder of all runs.
    folder: Subfolder of this run.

    The run has `path`, `sealed`, `digest` and `file(name)`. Raises TypeError for settings of no
    stage, ConfigError for a setting that is missing, and what the stage raises.
    """
    out = Output(root=Path(root), study=folder)
    return finished(config, out) or run_stage(config, out)


def _names(stage: Stage) -> tuple[str, ...]:
    return (stage.name, *stage.formerly)


def _further_inputs(stage: Stage, config: Any) -> dict[str, Path | Run]:
    return dict(function(stage.inputs)(config)) if stage.inputs else {}
