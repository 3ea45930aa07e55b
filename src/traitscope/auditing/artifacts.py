"""The parts of an audit: which runs are what, and the audited rows with their placebos.

The audit's file is JSON: `intake`, `data`, `vectors`, `traits`, `placebos` ([{rows, pushes}]),
`odds` ({trait: {teacher: run}} of prompts), `aimed` ([{run, cells: [[trait, block, strength]]}] of
vectors), `reference_odds` ({told: {trait: {teacher: run}}, own: aimed, beside: aimed} of a
reference's rows), `nulls` ([run]), `canary` ({trait: [[answers of a student of the data, of a
placebo]]}), `fitted` ([run] of vectors trained on the data and on every placebo), `planted` ({kind:
{teacher, trait, rows, pushes, odds: [{own, clean}], aimed: {own: aimed, clean: aimed}, nulls: {own,
clean}}}); paths are relative to its folder, and what there is none of is empty.

Shapes: R rows, K rows a prompt (the audited one first), L layers, D d_model, N placebo rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.data import row_files
from traitscope.data.trait_files import trait_files
from traitscope.errors import ConfigError, DataError
from traitscope.inference.steering_gradients import Stored, read_pushes
from traitscope.interventions.intervention import TRAINED
from traitscope.interventions.vector import Vector, load_vector
from traitscope.runs import store

READING, READ = ("pushes", "odds"), ("context", "numbers", "text")
"stages that read rows, and how"
SCHEMA = 2
"of the audit's file"
CLEAN = 1024
"most placebo rows that a covariance is taken from"


@dataclass(frozen=True, slots=True)
class Text:
    """All that an answer needs of a row: its tokens would take most of the memory."""

    id: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class Groups:
    """The audited rows with their placebos, prompt by prompt."""

    records: list[Text]
    "audited rows that have all placebos"
    texts_RK: list[list[str]]
    stores: list[Stored]
    pairs: list[list[int]]


@dataclass(frozen=True)
class Parts:
    """What the stages left, read."""

    plain: dict[str, Any]
    "the audit's file"
    folder: Path
    "where it lies"
    vectors: dict[str, Vector]
    "of the candidates and of other traits"
    placebos: list[tuple[list[Text], Stored]]
    "rows and pushes of every draw"

    def run(self, name: str) -> Path:
        """The folder of a run that the file names."""
        return self.folder / name

    def groups(self) -> Groups:
        """The audited rows with their placebos."""
        return grouped(
            texts_of(self.run(self.plain["intake"])),
            read_pushes(self.run(self.plain["data"])),
            self.placebos,
        )

    def planted(self, about: dict[str, Any]) -> Groups:
        """A planted teacher's rows with the placebos."""
        return grouped(
            texts_of(self.run(about["rows"])), read_pushes(self.run(about["pushes"])), self.placebos
        )

    def fitted(self) -> list[np.ndarray]:
        """Vectors [L, D] that were trained on the data and on every placebo; empty without
        --fit."""
        return [
            load_vector(self.run(path) / "student" / TRAINED).rows_LD
            for path in self.plain["fitted"]
        ]

    def clean(self, source: str = "pushes") -> np.ndarray:
        """Pushes [N, L, D] of placebo rows, or their features."""
        each = -(-CLEAN // len(self.placebos))
        stores = [found for _, found in self.placebos]
        return np.concatenate(
            [
                (s.rows if source == "pushes" else s.features)(range(min(each, len(s.ids))))
                for s in stores
            ]
        )


def plain_parts(path: Path | None) -> dict[str, Any]:
    """The audit's file.  Raises ConfigError where there is none, or no JSON."""
    if path is None:
        raise ConfigError(
            "--parts is missing: name the parts.json of an audit; `traitscope audit` writes and"
            " reads it"
        )
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no audit's file ({error}); expected the parts.json that `traitscope audit`"
            " writes"
        ) from None
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        raise ConfigError(
            f"{path} is no audit's file of this version (expected schema {SCHEMA}); run `traitscope"
            " audit` again"
        )
    return plain


def inputs_of_config(config: Any) -> dict[str, Path | store.Run]:
    """Everything that the answer to a config with the field `parts` depends on."""
    return inputs_of(plain_parts(config.parts), config.parts.parent)


def inputs_of(plain: dict[str, Any], folder: Path) -> dict[str, Path | store.Run]:
    """Everything that an answer depends on: the runs that the file names, and the traits' own
    files."""
    runs = {f"part{n}": store.load_run(folder / path) for n, path in enumerate(_paths(plain))}
    _check_alike(list(runs.values()))
    return runs | trait_files(plain["traits"])


def _check_alike(runs: Sequence[store.Run]) -> None:
    """Raises ConfigError for parts of several models, and for rows that were read in several
    ways."""
    models = {model: run.path for run in runs if (model := run.manifest()["model"])}
    configs = {
        run.path: json.loads(run.file("config.json").read_text(encoding="utf-8"))["config"]
        for run in runs
        if run.stage in READING
    }
    ways = {
        json.dumps({name: config[name] for name in READ}): path for path, config in configs.items()
    }
    for what, found in (("of model", models), ("with rows read as", ways)):
        if len(found) > 1:
            one, other = (f"{path} is {what} {value}" for value, path in list(found.items())[:2])
            raise ConfigError(
                f"{one}, {other}; a calibration holds for one model and context; run `traitscope"
                " audit` again"
            )


def _paths(value: Any) -> list[str]:
    """Every folder that the audit's file names."""
    if isinstance(value, dict):
        return [
            path
            for key, inner in value.items()
            if key not in ("schema", "teacher", "trait", "traits", "cells")
            for path in _paths(inner)
        ]
    return (
        [path for inner in value for path in _paths(inner)] if isinstance(value, list) else [value]
    )


def read_parts(plain: dict[str, Any], folder: Path) -> Parts:
    """What the runs of an audit's file hold; pushes stay on disk."""
    files = sorted((folder / plain["vectors"]).glob("*.safetensors"))
    vectors = {file.stem: load_vector(file) for file in files}
    placebos = [
        (texts_of(folder / p["rows"]), read_pushes(folder / p["pushes"])) for p in plain["placebos"]
    ]
    return Parts(plain, folder, vectors, placebos)


def texts_of(folder: Path) -> list[Text]:
    """The rows of a run, read one by one."""
    return [Text(r.id, r.prompt, r.completion) for r in row_files.iter_rows(folder)]


def grouped(
    records: Sequence[Text], data: Stored, placebos: Sequence[tuple[list[Text], Stored]]
) -> Groups:
    """Rows with a placebo on the same prompt in every set.  Raises DataError where no row has."""
    sets = [
        ({r.id: r for r in rows}, {key: i for i, key in enumerate(found.ids)})
        for rows, found in placebos
    ]
    own = {key: i for i, key in enumerate(data.ids)}
    kept = [r for r in records if r.id in own and all(r.id in index for _, index in sets)]
    if not kept:
        raise DataError(
            "no row has a placebo in every set; expected the model to answer these prompts in the"
            " format of the data; name a --reference"
        )
    texts = [[r.completion, *(rows[r.id].completion for rows, _ in sets)] for r in kept]
    return Groups(
        kept,
        texts,
        [data, *(found for _, found in placebos)],
        [[own[r.id], *(index[r.id] for _, index in sets)] for r in kept],
    )
