"""Artifacts of an audit: which sealed run is what, as types and as a JSON file.

`traitscope audit` writes the file for the stages that answer from it (steps/naming.py and
steps/answer.py). Run directories are named relative to the folder of the file.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.auditing.search import GridPoint
from traitscope.config.parsing import from_dict
from traitscope.data.trait_files import trait_files
from traitscope.errors import ConfigError
from traitscope.runs import store

SCHEMA = 6
"version of the file; an older one is refused"
READING_STAGES = ("row_gradients", "predictions", "teacher_scores", "pushes", "odds")
"stages that read rows, by their present and former names"
READING_SETTINGS = ("context", "numbers", "text", "end_token")
"settings of theirs that say how rows are read"


@dataclass(frozen=True)
class PromptRun:
    """Token scores under a candidate's prompt."""

    candidate: str
    "name of the trait"
    run: Path
    "the run's directory"
    paraphrase: int | None = None
    "number of the paraphrase; None for the prompt itself"


@dataclass(frozen=True)
class SteeredRun:
    """Token scores under steered teachers, which share a run."""

    run: Path
    "the run's directory"
    points: tuple[GridPoint, ...]
    "the teachers, in the order of the run's folders"


@dataclass(frozen=True)
class NullRun:
    """Token scores under a null."""

    run: Path
    "the run's directory"
    system_prompt: str | None = None
    "the plain system prompt of the null, if it is one"


@dataclass(frozen=True)
class ScoreRuns:
    """Token scores of one set of rows under everybody."""

    prompts: tuple[PromptRun, ...] = ()
    "under candidates' prompts"
    steered: tuple[SteeredRun, ...] = ()
    "under steered teachers"
    nulls: tuple[NullRun, ...] = ()
    "under nulls"


@dataclass(frozen=True)
class FewRun:
    """Token scores of a few rows under a candidate's prompt."""

    candidate: str
    "name of the trait"
    run: Path
    "the run's directory"


@dataclass(frozen=True)
class GivenRun:
    """Token scores of all rows under a teacher that was given."""

    name: str
    "what the user called it"
    run: Path
    "the run's directory"


@dataclass(frozen=True)
class ReferenceRuns:
    """Reference rows, matched with the audited ones, where these decide."""

    rows: Path
    "the run with the rows"
    scores: ScoreRuns
    "their token scores, under the teachers that the audited rows are scored under"


@dataclass(frozen=True)
class SpikeInRuns:
    """A spike-in teacher: made by the audit itself, to know what it would have detected."""

    description: str
    "how the teacher was made"
    trait: str
    "name of its trait"
    rows: Path
    "the run with its rows"
    gradients: Path
    "the run with their row gradients"
    clean_rows: Path
    "the run with the model's own answers to the same prompts"
    clean_gradients: Path
    "the run with their row gradients"
    own: ScoreRuns
    "token scores of the teacher's rows"
    clean: ScoreRuns
    "token scores of the model's own rows, under the same teachers and nulls"


@dataclass(frozen=True)
class AuditArtifacts:
    """The sealed runs that an audit's answer depends on."""

    sample: Path
    "the run with the audited rows"
    predictions: Path
    "the run with what learners predicted of them"
    traits: tuple[str, ...]
    "candidate traits, bundled names or YAML files"
    blocks: int
    "blocks of the model"
    vectors: Path | None = None
    "the run with the vectors of the candidates"
    placebo: Path | None = None
    "the run with the model's own answers to the prompts, or with reference rows"
    few: tuple[FewRun, ...] = ()
    "token scores of a few rows under every candidate's prompt"
    scores: ScoreRuns = field(default_factory=ScoreRuns)
    "token scores of all rows"
    given: GivenRun | None = None
    "token scores of all rows under a teacher that was given"
    reference: ReferenceRuns | None = None
    "reference rows, where these decide"
    spike_ins: tuple[SpikeInRuns, ...] = ()
    "spike-in teachers"
    too_few: Path | None = None
    "answers of which too few have the format of the data, where nothing was compared for that"

    def paths(self) -> list[Path]:
        """Every run directory that is named, each once, relative to the file's folder."""
        return list(dict.fromkeys(_paths_in(self)))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the schema."""
        values = _plain(asdict(self))
        if values["too_few"] is None:  # files without it are as they were
            del values["too_few"]
        return {"schema": SCHEMA, **values}

    def write(self, path: Path) -> None:
        """Write the file."""
        atomic_files.write_json(path, self.as_dict())


def _paths_in(value: Any) -> Iterator[Path]:
    """Every field of a dataclass, and of dataclasses in it, that is a path."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _paths_in(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from _paths_in(getattr(value, item.name))


def _plain(value: Any) -> Any:
    """The same with paths as texts and tuples as lists."""
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def read_artifacts(path: Path) -> AuditArtifacts:
    """The artifacts that a file names. Raises ConfigError where there is no such file, where it is
    broken, and where an earlier version wrote it."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no file of an audit ({error}); expected the parts-*.json that `traitscope"
            " audit` writes; name that file"
        ) from None
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"{path} has schema {schema}; expected {SCHEMA}, that of this version; run `traitscope"
            " audit` again"
        )
    del plain["schema"]
    return from_dict(AuditArtifacts, plain, str(path))


def inputs_of_config(config: Any) -> dict[str, Path | store.Run]:
    """Everything that the answer to a config with the field `parts` depends on: the runs that its
    file names, and the traits' own files.

    Raises ConfigError if the runs do not belong together.
    """
    artifacts = read_artifacts(config.parts)
    folder = config.parts.parent
    runs = {}
    for number, path in enumerate(artifacts.paths()):
        runs[f"part{number}"] = store.load_run(folder / path)
    _check_alike(runs)
    return runs | trait_files(artifacts.traits)


def _check_alike(runs: Mapping[str, store.Run]) -> None:
    """Raises ConfigError for runs of several models, and for rows that were read in several
    ways."""
    models: dict[str, Path] = {}
    ways: dict[str, Path] = {}
    for run in runs.values():
        model = run.manifest()["model"]
        if model:
            models[model] = run.path
        if run.stage in READING_STAGES:
            config = json.loads(run.file("config.json").read_text(encoding="utf-8"))["config"]
            config = {"end_token": True} | config  # which earlier versions did not ask for
            way = {name: config[name] for name in READING_SETTINGS}
            ways[json.dumps(way)] = run.path
    _check_one("of model", models)
    _check_one("with rows read as", ways)


def _check_one(what: str, places: Mapping[str, Path]) -> None:
    if len(places) < 2:
        return
    (one, one_path), (other, other_path) = list(places.items())[:2]
    raise ConfigError(
        f"{one_path} is {what} {one}, {other_path} is {what} {other}; expected one model and"
        " context, for which alone the error rate holds; run `traitscope audit` again"
    )
