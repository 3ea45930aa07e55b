"""Interventions in short form, as the command line and config files hold them.

    prompt:TEXT
    steer:VECTOR,layers=14,alpha=0.3[,position=all][,scale=residual]
    ablate:VECTOR,layers=14+15[,position=all]
    replace:VECTOR,layers=10[,position=all]
    adapter:RUN[,where=system][,cells=mlp+first][,outside=true][,top=1][,drop=1]
    data:layers=14+15[,position=all][,random=0]
    noise:0.1[,seed=0][,scope=attention+mlp][,keep_norm=true][,mean_shift=true]

`layer=14` may stand for `layers=14`. VECTOR is a vector file, or a run of `extract` with one
vector. RUN is a run of `train` or a student's folder. Paths with a comma do not fit into this form.
A JSON object does for them, such as {"kind": "Ablate", "vector": "a,b.safetensors", "layers": [1]}.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope.config.parsing import from_dict
from traitscope.errors import ConfigError
from traitscope.interventions import intervention
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    DataDirection,
    Intervention,
    ReplaceBase,
    Steer,
    SystemPrompt,
    WeightNoise,
)
from traitscope.models import weight_noise
from traitscope.plain_values import NotPlainError, from_json

ALONG_VECTOR: dict[str, type] = {"steer": Steer, "ablate": Ablate, "replace": ReplaceBase}
"kinds of interventions that take a vector, by their short names"
STUDENT_SUFFIXES = (".json", ".safetensors", ".bin")
"suffixes of the files of a student"
EXAMPLES = {
    "prompt": "prompt:TEXT",
    "steer": "steer:FILE,layers=14,alpha=0.3",
    "ablate": "ablate:FILE,layers=14",
    "replace": "replace:FILE,layers=14",
    "adapter": "adapter:RUN",
    "data": "data:layers=14",
    "noise": "noise:0.1",
}
"an example of every short form, for messages"


def parse_all(items: Sequence[str | Intervention]) -> list[Intervention]:
    """Interventions from their short forms; interventions among them stay.

    Raises ConfigError for a text that is none, and for more than one prompt.
    """
    interventions = parse_each(items)
    intervention.context_of(interventions, None)  # raises what is wrong
    return interventions


def parse_each(items: Sequence[str | Intervention]) -> list[Intervention]:
    """parse_all of interventions that stand for a teacher each, so that several may be prompts."""
    interventions = []
    for item in items:
        interventions.append(parse(item) if isinstance(item, str) else item)
    return interventions


def parse(text: str) -> Intervention:
    """An intervention from its short form or from a JSON object.

    Raises ConfigError for any other text.
    """
    if text.lstrip().startswith("{"):
        return _from_object(text)
    kind, colon, rest = text.partition(":")
    if kind not in EXAMPLES or not colon:
        raise _not_understood(text)
    if kind == "prompt":
        return SystemPrompt(rest)
    if kind == "data":
        return _along_rows(text, _settings_in(text, rest.split(",")))
    first, *pairs = rest.split(",")
    if not first.strip():
        raise ConfigError(
            f"intervention {text!r} names nothing behind the colon; expected {EXAMPLES[kind]}; name"
            " what stands there"
        )
    if kind == "noise":
        return WeightNoise(**vars(weight_noise.parse(rest)))
    settings = _settings_in(text, pairs)
    if kind == "adapter":
        return _adapter(text, first, settings)
    return _along_vector(text, ALONG_VECTOR[kind], first, settings)


def _settings_in(text: str, pairs: Sequence[str]) -> dict[str, str]:
    """Settings from NAME=VALUE pairs.

    Raises ConfigError for a pair that is none, and for a name that stands twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise _not_understood(text)
        if key in settings:
            raise ConfigError(f"intervention {text!r}: {key} is given twice; drop one of the two")
        settings[key] = value
    return settings


def _not_understood(text: str) -> ConfigError:
    return ConfigError(
        f"intervention {text!r} is not understood; expected one of"
        f" {', '.join(EXAMPLES.values())}, or a JSON object"
    )


def _from_object(text: str) -> Intervention:
    """An intervention from a JSON object; a student's folder may be a run."""
    try:
        data = from_json(text)
    except NotPlainError as error:
        raise ConfigError(
            f"intervention {text!r} is no JSON: {error}; correct it, or give the short form"
        ) from None
    if isinstance(data.get("folder"), str):
        data["folder"] = str(student_folder(Path(data["folder"])))
    return intervention.from_json(data)


def _adapter(text: str, path: str, settings: dict[str, str]) -> Adapter:
    if "folder" in settings:
        raise ConfigError(f"intervention {text!r}: the folder stands behind adapter:, name it once")
    fields: dict[str, Any] = {"folder": str(student_folder(Path(path)))}
    for key, value in settings.items():
        is_text = key in ("where", "cells")
        fields[key] = (
            value if is_text else weight_noise.plain_value(value, f"intervention {text!r}")
        )
    return from_dict(Adapter, fields, f"intervention {text!r}")


def _along_vector(text: str, kind: type, path: str, settings: dict[str, str]) -> Intervention:
    fields: dict[str, Any] = {**settings, "vector": str(vector_file(Path(path)))}
    try:
        if "vector" in settings:
            raise ValueError("the vector stands behind the first colon, name it once")
        fields |= _layers_in(settings)
        if "alpha" in settings:
            fields["alpha"] = _strength(settings["alpha"])
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"intervention {text!r}: {error}") from error


def _strength(text: str) -> float:
    """The number of alpha. Raises ValueError for another text."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"alpha is {text!r}; expected a number, such as alpha=0.3; correct it"
        ) from None


def _along_rows(text: str, settings: dict[str, str]) -> DataDirection:
    fields: dict[str, Any] = dict(settings)
    try:
        fields |= _layers_in(settings)
        if "random" in settings:
            fields["random"] = int(settings["random"])
        return DataDirection(**fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"intervention {text!r}: {error}; expected {EXAMPLES['data']}, and position or random"
            " behind it; correct it"
        ) from error


def _layers_in(settings: dict[str, str]) -> dict[str, Any]:
    """The settings `layers` and `layer` as numbers, where they are given."""
    fields: dict[str, Any] = {}
    if "layers" in settings:
        fields["layers"] = tuple(_layer(item) for item in settings["layers"].split("+"))
    if "layer" in settings:
        fields["layer"] = _layer(settings["layer"])
    return fields


def _layer(text: str) -> int:
    """The number of a layer. Raises ValueError for another text."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no layer; expected whole numbers, such as layers=14 or layers=14+15;"
            " correct it"
        ) from None


def to_short(item: Intervention) -> str:
    """The text that `parse` turns into this intervention.

    It is a JSON object where the short form cannot hold a value, such as a path with a comma.
    Raises ConfigError for a vector in memory.
    """
    data = intervention.to_json(item)
    if isinstance(item, SystemPrompt):
        return f"prompt:{item.text}"
    if isinstance(item, WeightNoise):
        return f"noise:{weight_noise.short_form(item)}"
    if isinstance(item, DataDirection):
        layers = "+".join(map(str, item.layers))
        return f"data:layers={layers}{_settings_of(item, 'layers')}"
    if isinstance(item, Adapter):
        short = f"adapter:{item.folder}{_settings_of(item, 'folder')}"
    else:
        name = next(name for name, kind in ALONG_VECTOR.items() if type(item) is kind)
        layers = "+".join(map(str, item.layers))
        short = f"{name}:{item.vector},layers={layers}{_settings_of(item, 'vector', 'layers')}"
    without_layers = isinstance(item, Steer | Ablate | ReplaceBase) and not item.layers
    return json.dumps(data) if _has_comma(item) or without_layers else short


def _settings_of(item: Intervention, *without: str) -> str:
    """The fields that do not stand at their defaults, as ,NAME=VALUE, apart from some."""
    text = ""
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.name not in without and value != field.default:
            shown = str(value).lower() if isinstance(value, bool) else value
            text += f",{field.name}={shown}"
    return text


def _has_comma(item: Intervention) -> bool:
    """Whether a text that an intervention holds has a comma, which separates settings."""
    return any(isinstance(value, str) and "," in value for value in vars(item).values())


def vector_file(path: Path) -> Path:
    """The vector file that a path means: the file itself, or the only one in a run of `extract`.

    Raises ConfigError for a folder with several vectors or none.
    """
    if not _is(path.is_dir, path):
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ConfigError(f"{path} holds {len(files)} vectors ({names}); name the file")
    return files[0]


def student_folder(path: Path) -> Path:
    """The folder with a student's files, which a path means.

    It is the path itself, the folder of one of its files, or `student/` in a run of `train`.
    """
    if _is(path.is_file, path):
        return path.parent if path.suffix in STUDENT_SUFFIXES else path
    return path / "student" if (path / "student").is_dir() else path


def _is(question: Any, path: Path) -> bool:
    """Whether a path is a file or a folder. Raises ConfigError for one that cannot be a path."""
    try:
        return question()
    except OSError as error:
        raise ConfigError(f"{str(path)[:80]}... is no path: {error.strerror}") from error
