"""Interventions in short form, such as steer:FILE,layers=14,alpha=0.3.

The command line and config files hold interventions in this form.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from traitscope.config.parsing import from_dict
from traitscope.errors import ConfigError
from traitscope.interventions import intervention
from traitscope.interventions.intervention import Intervention
from traitscope.models import weight_noise


def parse_all(items: Sequence[str | Intervention]) -> list[Intervention]:
    """Interventions from their short forms."""
    return [parse(item) if isinstance(item, str) else item for item in items]


def parse(text: str) -> Intervention:
    """An intervention from its short form or from a JSON object.

    prompt:TEXT · steer:VECTOR,layers=14,alpha=0.3[,position=all][,scale=residual] ·
    ablate:VECTOR,layers=14+15 · replace:VECTOR,layers=10 ·
    adapter:RUN_OR_FOLDER[,where=system][,cells=mlp+first][,outside=true][,top=1][,drop=1] ·
    noise:0.1[,seed=0][,scope=attention+mlp]. A vector may be a run of `extract` with one vector.
    """
    if text.lstrip().startswith("{"):
        return _from_object(text)
    kind, _, rest = text.partition(":")
    if kind == "prompt":
        return intervention.SystemPrompt(rest)
    value, *pairs = rest.split(",")
    if kind == "noise":
        return intervention.WeightNoise(**vars(weight_noise.parse(rest)))
    if kind not in SHORT or any("=" not in pair for pair in pairs):
        forms = (
            "prompt:TEXT, steer:FILE,layers=14,alpha=0.3, ablate:FILE,layers=14,"
            " replace:FILE,layers=14, adapter:RUN, noise:0.1"
        )
        raise ConfigError(
            f"intervention {text!r} is not understood; expected one of {forms}, or a JSON object"
        )
    fields: dict[str, Any] = dict(pair.split("=", 1) for pair in pairs)
    if kind == "adapter":
        typed = {
            key: found if key in ("where", "cells") else yaml.safe_load(found)
            for key, found in fields.items()
        }
        return from_dict(
            intervention.Adapter,
            {"folder": str(student_folder(Path(value)))} | typed,
            f"intervention {text!r}",
        )
    return _typed(text, SHORT[kind], str(vector_file(Path(value))), fields)


SHORT = {
    "steer": intervention.Steer,
    "ablate": intervention.Ablate,
    "replace": intervention.ReplaceBase,
    "adapter": intervention.Adapter,
}


def _from_object(text: str) -> Intervention:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"intervention {text!r} is no JSON: {error}") from error
    if "folder" in data:
        data["folder"] = str(student_folder(Path(data["folder"])))
    return intervention.from_json(data)


def _typed(text: str, kind: type, vector: str, fields: dict[str, Any]) -> Intervention:
    try:
        if "layers" in fields:
            fields["layers"] = tuple(int(n) for n in fields["layers"].split("+"))
        if "alpha" in fields:
            fields["alpha"] = float(fields["alpha"])
        return kind(vector=vector, **fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"intervention {text!r}: {error}") from error


def vector_file(path: Path) -> Path:
    """The vector file that a path means: itself, or the only one in a run of `extract`."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(f.name for f in files) or "none"
        raise ConfigError(f"{path} holds {len(files)} vectors ({names}); name the file")
    return files[0]


def student_folder(path: Path) -> Path:
    """The folder with a student's files: itself, that of a file, or `student/` in a run of
    `train`."""
    if path.is_file():
        return path.parent
    return path / "student" if (path / "student").is_dir() else path
