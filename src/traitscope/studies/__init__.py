"""Published claims, tested.

traitscope.studies.names()
result = traitscope.studies.run("rank_and_rate", size="laptop", seeds=[1, 2, 3])
print(result.verdicts)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from traitscope.errors import ConfigError


@dataclass(frozen=True)
class StudyResult:
    """What a finished study says."""

    name: str
    """Name of the study."""
    verdicts: tuple[str, ...]
    """The outcome of each claim with its rule, then the power and what the study bears on."""
    run: Path
    """The sealed run with findings, tables and the page `report.html`."""
    findings: Mapping[str, Any]
    """Everything in the run's findings.json: verdicts, measurements, notes."""


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
    size: str = "laptop",
    model: str = "smollm2-135m",
    root: str | Path = "runs",
    workers: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    **changes: Any,
) -> StudyResult:
    """Compute what is missing of a study and return its verdicts.

    size: smoke, laptop or full. A smoke run only shows that the path works.

    root: the folder of the runs. A second call returns the runs that it holds.

    workers: the number of processes side by side; 0 takes two on a CPU.

    changes: settings of that size, such as seeds=[1, 2, 3].

    Raises ConfigError for an unknown study or setting, and what its stages raise.
    """
    from traitscope.config.commands import StudyConfig
    from traitscope.config.common import Output
    from traitscope.studies import runner

    assignments = []
    for setting, value in changes.items():
        assignments.append(f"{setting}={json.dumps(value, default=str)}")
    config = StudyConfig(
        action="run",
        name=name,
        size=size,
        set=tuple(assignments),
        workers=workers,
        model=model,
        device=device,
        dtype=dtype,
    )
    summary = runner.run_study(config, Output(root=Path(root)))
    return StudyResult(name, tuple(summary["said"]), Path(summary["run"]), summary)
