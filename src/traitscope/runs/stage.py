"""What the `run_*` wrapper of every stage shares: settle the config, open its run directory, load
the model once.

A wrapper reads

    with stage.opened("generate", config, out) as run:
        if not run.sealed:
            ...compute, write into run.path...
    return run
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from traitscope.config.common import TAUGHT, OnModel, Output
from traitscope.config.parsing import from_dict
from traitscope.data.records import Record, iter_records
from traitscope.data.traits import load_trait, trait_path
from traitscope.errors import ConfigError, DataError, TraitError, TraitscopeError, VectorError
from traitscope.interventions import full_weights, intervention
from traitscope.interventions.intervention import Intervention
from traitscope.models import weight_noise
from traitscope.models.hardware import default_dtype, resolve_device
from traitscope.models.loading import digest_of, load_model
from traitscope.models.model import Model
from traitscope.runs import store


def settled(config: Any) -> Any:
    """The config with `auto` replaced by what this machine has, so that the address says what was
    computed, and files of the hub by local copies."""
    if not isinstance(config, OnModel):
        return config
    device = resolve_device(config.device)
    dtype = default_dtype(device) if config.dtype == "auto" else config.dtype
    fetched = {
        name: _fetched(value)
        for name, value in vars(config).items()
        if isinstance(value, Path) and str(value).startswith(HUB)
    }
    return dataclasses.replace(config, device=device, dtype=dtype, **fetched)


HUB = "hub:"
"before a file of a data set on the Hugging Face hub: hub:OWNER/NAME/FILE"


def _fetched(path: Path) -> Path:
    """The local copy of a file of a data set on the hub. Raises DataError where it cannot be
    had."""
    from huggingface_hub import hf_hub_download

    owner, _, rest = str(path).removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and file):
        raise DataError(
            f"{path}: expected {HUB}OWNER/NAME/FILE, such as"
            f" {HUB}JailbreakBench/JBB-Behaviors/data/harmful-behaviors.csv"
        )
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset"))
    except (
        Exception
    ) as error:  # the hub client raises many unrelated types; all mean "not to be had from here"
        raise DataError(
            f"{path} could not be fetched from the hub ({type(error).__name__}); check name and"
            " network, or name a local copy"
        ) from error


class Missing(Exception):
    """While planning: a run that is not there yet, and where it would be."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


_PLANNING = False


@contextmanager
def planning() -> Iterator[None]:
    """Inside the block no stage computes or writes: a sealed run is returned, for any other
    `Missing` is raised."""
    global _PLANNING
    before, _PLANNING = _PLANNING, True
    try:
        yield
    finally:
        _PLANNING = before


def _refuse_missing(folder: Path, stage: str, plain: dict, found: dict, digest: str | None) -> None:
    digests = {name: store.source_of(name, source)[1] for name, source in found.items()}
    path = folder / f"{stage}-{store.address(stage, plain, digests, digest)}"
    if not (path / "manifest.json").exists():
        raise Missing(path)


@contextmanager
def opened(
    stage: str,
    config: Any,
    out: Output,
    resumable: bool = False,
    inputs: dict[str, Path | store.Run] | None = None,
    facts: dict[str, Any] | None = None,
) -> Iterator[store.Run]:
    """The run directory that belongs to `config`; see store.stage_run."""
    plain, found = _plain(config)
    found |= inputs or {}
    facts = dict(facts or {})
    digest = None
    if isinstance(config, OnModel):
        import torch

        digest = model_digest(config.model)
        facts |= {"device": _device_name(config.device), "threads": torch.get_num_threads()}
    if _PLANNING:
        _refuse_missing(out.root / out.study, stage, plain, found, digest)
    with store.stage_run(
        out.root / out.study, stage, plain, found, digest, resumable, facts
    ) as run:
        try:
            yield run
        except TraitscopeError:
            _drop_empty(run)
            raise


def _drop_empty(run: store.Run) -> None:
    """Remove the directory of a run that was refused before it had written anything."""
    if [path.name for path in run.path.iterdir()] == ["config.json"]:
        run.file("config.json").unlink()
        run.path.rmdir()


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def _plain(config: Any) -> tuple[dict, dict[str, Path]]:
    """The config as JSON values, with every path replaced by the name of an input, and those
    inputs."""
    inputs: dict[str, Path] = {}
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in TAUGHT:
            value = [
                _named(item, f"{field.name}{i}", inputs) for i, item in enumerate(parse_all(value))
            ]
        elif isinstance(value, Path):
            inputs[field.name] = value
            value = f"input:{field.name}"
        elif isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
            inputs |= {f"{field.name}{i}": item for i, item in enumerate(value)}
            value = [f"input:{field.name}{i}" for i in range(len(value))]
        elif dataclasses.is_dataclass(value):
            value = dataclasses.asdict(value)
        plain[field.name] = value
    return plain, {name: _input(path) for name, path in inputs.items()}


def _named(item: Intervention, name: str, inputs: dict[str, Path]) -> dict:
    """An intervention as JSON whose file or folder is an input of that name, with the place inside
    a run behind it."""
    data = intervention.to_json(item)
    for key in ("vector", "folder"):
        if key in data:
            path = Path(data[key])
            if key == "vector" and not path.is_file():
                raise VectorError(f"no vector file at {path}; make one with: traitscope extract")
            whole = path if path.is_file() else run_folder(path) or _weights(path)
            inputs[name] = whole
            if whole.parent == path and (path / "adapter_config.json").is_file():
                inputs[f"{name}_config"] = path / "adapter_config.json"
            inside = path.relative_to(whole).as_posix() if whole in path.parents else ""
            data[key] = f"input:{name}" + (f"/{inside}" if inside else "")
    return data


def _input(path: Path) -> Path | store.Run:
    """A file, or the sealed run that a folder belongs to."""
    if not path.exists():
        raise DataError(f"{path} does not exist; name a run directory or a file")
    return path if path.is_file() else store.load_run(run_folder(path) or path)


def run_folder(path: Path) -> Path | None:
    """The sealed run that a path lies in."""
    names = ("manifest.json", "config.json")
    return next(
        (p for p in (path, *path.parents) if all((p / name).is_file() for name in names)), None
    )


def _weights(folder: Path) -> Path:
    """The file that stands for a student's folder outside any run."""
    found = [
        folder / name
        for name in ("adapter_model.safetensors", full_weights.WEIGHTS, intervention.TRAINED)
        if (folder / name).is_file()
    ]
    if not found:
        raise VectorError(
            f"{folder} holds no student: expected a run of `train`, or a folder with"
            " adapter_model.safetensors"
        )
    return found[0]


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


def iter_rows(path: Path) -> Iterator[Record]:
    """The records of a run or a JSONL file, one by one."""
    return iter_records(path / "records.jsonl" if path.is_dir() else path)


def rows_of(path: Path) -> list[Record]:
    """The records of a run or a JSONL file."""
    return list(iter_rows(path))


def iter_kept(path: Path) -> Iterator[Record]:
    """The records of a run or a JSONL file that its filter kept, one by one. Raises DataError where
    there is none."""
    none = True
    for record in iter_rows(path):
        if record.kept:
            none = False
            yield record
    if none:
        raise DataError(f"{path} has no kept row; expected one or more; check its filter")


def kept_rows(path: Path) -> list[Record]:
    """The same as a list."""
    return list(iter_kept(path))


def trait_inputs(names: Sequence[str]) -> dict[str, Path]:
    """The files behind traits, so that an edited trait file is another address. Raises TraitError
    for a broken one."""
    found = [load_trait(name).name for name in names]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise TraitError(
            f"the trait {twice[0]!r} is named twice; expected distinct names; drop one, or"
            " rename it"
        )
    return {f"trait{i}": trait_path(name) for i, name in enumerate(names)}


@cache
def model_digest(name: str) -> str:
    """Digest of a model's files without loading it; computed once a process."""
    return digest_of(name)


@lru_cache(maxsize=2)
def model_for(name: str, device: str, dtype: str) -> Model:
    """The loaded model; the last two of a process are kept."""
    return load_model(name, device, dtype)


def model_of(config: OnModel) -> Model:
    """The model that a settled config names."""
    return model_for(config.model, config.device, config.dtype)
