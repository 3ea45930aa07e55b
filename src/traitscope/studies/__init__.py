"""Published claims, tested.

import traitscope as ts

ts.studies.names()
ts.studies.run_file("mine.yaml")  # a user's own experiment
result = ts.studies.run("rank_and_rate", size="laptop", seeds=[1, 2, 3])
print(result.verdicts[0])
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal

from traitscope.errors import ConfigError

if TYPE_CHECKING:
    from traitscope.config.common import ControlTokens, Device, Dtype
    from traitscope.studies.result import StudyResult

SizeValue = (
    bool | int | float | str | Path | Sequence["SizeValue"] | Mapping[str, "SizeValue"] | None
)
"""A setting of a study's size. Which settings there are is the study's own: `traitscope study plan`
prints them."""


def names() -> list[str]:
    """Return the names of all studies, sorted."""
    from traitscope.studies import claims

    return sorted(module.name for module in iter_modules(claims.__path__))


def check_name(name: str) -> None:
    """Raise ConfigError for a name that no study has; `-` may stand for `_`."""
    if name.replace("-", "_") not in names():
        what = f"no study {name!r};" if name else "which study?"
        near = get_close_matches(name.replace("-", "_"), names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{what} {hint}expected one of {', '.join(names())}; see: traitscope study list"
        )


def run(
    name: str,
    *,
    size: Literal["smoke", "laptop", "full"] = "laptop",
    model: str | Path = "smollm2-135m",
    root: str | Path = "runs",
    workers: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
    executor: Literal["local", "ray", "submitit"] = "local",
    cluster: Sequence[str] = (),
    max_jobs: int = 0,
    pack: int = 0,
    **changes: SizeValue,
) -> StudyResult:
    """Compute what is missing of a study, print its verdicts, and return them.

    size: smoke, laptop or full. A smoke run only shows that the path works.
    root: Folder of all runs. A second call returns the runs that it holds.
    workers: Processes side by side; 0 takes two on a CPU and one on a GPU.
    executor: Where stages run: here, on a Ray cluster, or as jobs of Slurm; `cluster` has its
    settings, `max_jobs` the most jobs at one time.
    pack: Most students that share a pass; 0 takes one on a CPU and 16 on a GPU.
    changes: Settings of that size, such as seeds=[1, 2, 3].

    Raises ConfigError for an unknown study or setting, and what its stages raise.
    """
    from traitscope.config.commands import StudyConfig
    from traitscope.config.common import Output
    from traitscope.studies import runner
    from traitscope.studies.result import result_of

    assignments = []
    for setting, value in changes.items():
        assignments.append(f"{setting}={json.dumps(value, default=str)}")
    config = StudyConfig(
        action="run",
        name=name,
        size=size,
        set=tuple(assignments),
        workers=workers,
        model=str(model),
        device=device,
        dtype=dtype,
        template=tuple(template),
        control_tokens=control_tokens,
        same_as=same_as,
        executor=executor,
        cluster=tuple(cluster),
        max_jobs=max_jobs,
        pack=pack,
    )
    summary = runner.run_study(config, Output(root=Path(root)))
    return result_of(Path(summary["run"]))


def run_file(
    file: str | Path,
    *,
    model: str = "",
    seed: int = 1,
    root: str | Path = "runs",
    workers: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
    executor: Literal["local", "ray", "submitit"] = "local",
    cluster: Sequence[str] = (),
    max_jobs: int = 0,
    pack: int = 0,
) -> StudyResult:
    """Compute what is missing of the experiment in a file, print its verdicts, and return them.

    file: YAML or JSON, as `traitscope experiment` reads it.
    model: Model in the place of the file's.
    seed: First of the seeds, where the file gives their number.
    root, workers, executor, cluster, max_jobs, pack: As in `run`.

    Raises ConfigError for a file that cannot work, and what its stages raise.
    """
    from traitscope.config.commands import ExperimentConfig
    from traitscope.config.common import Output
    from traitscope.studies.experiment import command
    from traitscope.studies.result import result_of

    config = ExperimentConfig(
        file=Path(file),
        model=model,
        seed=seed,
        workers=workers,
        device=device,
        dtype=dtype,
        template=tuple(template),
        control_tokens=control_tokens,
        same_as=same_as,
        executor=executor,
        cluster=tuple(cluster),
        max_jobs=max_jobs,
        pack=pack,
    )
    summary = command.run_experiment(config, Output(root=Path(root)))
    return result_of(Path(summary["run"]))
