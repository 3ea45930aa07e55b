"""Study files of earlier versions, and the commands of `compare` that replace them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope.config.commands import ReportConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, DataError, StoreError

STUDY_SCHEMA = 1
"schema of the study files that `report` read"


def run_report(config: ReportConfig, out: Output) -> dict[str, Any]:
    """Raise ConfigError with the commands of `compare` that take the place of a study file."""
    if config.study_file is None:
        raise ConfigError(
            "`report` has become `compare`: traitscope compare --treated RUN ... --control RUN ..."
        )
    commands = compare_commands(config.study_file)
    listed = "\n  ".join(commands)
    raise ConfigError(
        f"`report` has become `compare`; instead of {config.study_file} type\n  {listed}"
    )


def compare_commands(study_file: Path) -> list[str]:
    """Return a command of `compare` for each kind of training in a study file.

    Raises DataError for a file that is none, StoreError for one of a newer version.
    """
    plain = _study_of(study_file)
    folder, conditions = study_file.parent, plain["conditions"]
    commands = []
    for mode in ("sampled", "soft"):
        treated = _measured_runs(folder, conditions, mode, "treated")
        control = _measured_runs(folder, conditions, mode, "control")
        if not control:
            control = _measured_runs(folder, conditions, "none", "base")
        if treated and control:
            words = ["traitscope compare --treated", *treated, "--control", *control]
            if plain.get("vector"):
                words.append(f"--vector {folder / plain['vector']}")
            if plain.get("steered_layer") is not None:
                words.append(f"--layer {plain['steered_layer']}")
            commands.append(" ".join(words))
    if not commands:
        raise DataError(
            f"{study_file} names no treated models with controls; expected both; compare other runs"
        )
    return commands


def _study_of(path: Path) -> dict[str, Any]:
    """Return the content of a study file."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"study file {path} cannot be read ({error}); expected JSON; name the study.json"
        ) from error
    if not isinstance(plain, dict) or not isinstance(plain.get("schema"), int):
        raise DataError(
            f"{path} is no study file; expected a JSON object with schema: {STUDY_SCHEMA}; name the"
            " study.json"
        )
    if plain["schema"] > STUDY_SCHEMA:
        raise StoreError(
            f"{path} has schema {plain['schema']}; this version reads {STUDY_SCHEMA}: upgrade"
            " traitscope"
        )
    conditions = plain.get("conditions")
    if not isinstance(conditions, list) or not all(isinstance(item, dict) for item in conditions):
        raise DataError(
            f"conditions of {path} are no list of objects; expected one; write the file again"
        )
    return plain


def _measured_runs(folder: Path, conditions: Sequence[dict], mode: str, role: str) -> list[str]:
    """Return the runs of `measure` of the conditions of one kind."""
    runs = []
    for item in conditions:
        if (item.get("mode"), item.get("role")) == (mode, role) and item.get("measure"):
            runs.append(str(folder / item["measure"]))
    return runs
