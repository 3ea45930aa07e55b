"""All sealed runs behind some runs, with their settings, for sentences about how they were made."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from traitscope.data.answer_rules import ASKED
from traitscope.data.traits import TRAIT_FILES, load_trait
from traitscope.errors import StoreError
from traitscope.runs import store
from traitscope.runs.manifests import check_unchanged, file_sha256, kept_copies
from traitscope.stages.behaviours.scores import judges_among

VECTOR = ".safetensors"
"suffix of vectors"


class Settings(dict[str, Any]):
    """The settings of a run.  One that it does not have raises StoreError, with the run."""

    def __init__(self, run: store.Run) -> None:
        super().__init__(json.loads(run.file("config.json").read_bytes())["config"])
        self._run = run

    def __missing__(self, name: str) -> Any:
        raise StoreError(
            f"{self._run.path} has no setting {name!r}, which a run of {self._run.stage} has;"
            " another version made it: make it again, or report other runs"
        )


@dataclass(frozen=True)
class Made:
    """A sealed run: its settings and its manifest."""

    run: store.Run
    """The run."""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was sealed."""
        return self.run.manifest()

    @cached_property
    def settings(self) -> Settings:
        """The settings, as JSON values."""
        return Settings(self.run)

    def numbers(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the run; empty where it has none."""
        if name not in self.manifest["outputs"]:
            return {}
        return json.loads(self.run.file(name).read_bytes())

    def input(self, value: str) -> Path:
        """Where an input lies that a setting names, as input:NAME or input:NAME/INSIDE."""
        name, _, inside = value.removeprefix("input:").partition("/")
        place = (self.run.path / self.manifest["inputs"][name]["path"]).resolve()
        return place / inside if inside else place

    @property
    def inputs(self) -> dict[str, Path]:
        """Where all inputs lie, by name."""
        return {name: self.input(name) for name in self.manifest["inputs"]}

    @property
    def measured_trait(self) -> str:
        """The name of the trait whose questions were asked."""
        return self.numbers("measurements.json").get("trait") or _stem(self.settings["trait"])

    @property
    def vector_traits(self) -> list[str]:
        """The names of the traits that vectors were taken of, which name the vectors' files."""
        settings = self.settings["traits"]
        outputs = sorted(self.manifest["outputs"])
        names = [Path(name).stem for name in outputs if "/" not in name and VECTOR in name]
        files = [trait for trait in settings if trait.endswith(TRAIT_FILES)]
        of_files = [name for name in names if name not in settings]
        if len(of_files) != len(files):
            of_files = list(map(_stem, files))
        left = iter(of_files)
        return [next(left) if trait in files else trait for trait in settings]

    @property
    def judges(self) -> list[str]:
        """The judges of the behaviour that was measured, in their order; a trait has none."""
        measured = self.numbers("measurements.json").get("measurements", ())
        return list(judges_among(dict.fromkeys(m["name"].partition(".")[2] for m in measured)))

    @property
    def judge_question(self) -> str:
        """What judges that ask a model asked; empty without such a judge.

        It is empty, too, where the trait's file is not as it was.
        """
        if not any(judge.removeprefix("not:") in ASKED for judge in self.judges):
            return ""
        source = self.manifest["inputs"].get("trait0")
        place = None if source is None else self.input("trait0")
        if place is None or not place.is_file() or file_sha256(place) != source["digest"]:
            return ""
        return load_trait(place, words=False).judge_question


def _stem(trait: str) -> str:
    """The name of a trait; of a file the name of the file."""
    return Path(trait).stem if trait.endswith(TRAIT_FILES) else trait


def model_name(model: str) -> str:
    """The name of a model as sentences have it; of one that lies in a run, the run's name."""
    folder = _run_of_model(model)
    return Path(model).name if folder is None else folder.name


def _run_of_model(model: Any) -> Path | None:
    """The run that a model's folder lies in, such as one of `export`; None for any other."""
    if not isinstance(model, str) or not Path(model).is_dir():
        return None
    return store.run_folder(Path(model).resolve())


def behind(runs: Sequence[store.Run]) -> list[Made]:
    """Return the runs and all runs that they were made from, each once, inputs first.

    Raises StoreError where an input is not there, or where a run was changed: nothing could be said
    of how the numbers came to be.
    """
    seen: dict[Path, Made] = {}
    for run in runs:
        _add(run, seen)
    return list(seen.values())


def _add(run: store.Run, seen: dict[Path, Made]) -> None:
    if run.path.resolve() in seen:
        return
    made = Made(store.Run(run.path.resolve(), run.stage, run.address, True))
    check_unchanged(made.run.path, made.manifest)
    copies = kept_copies(made.manifest)
    for name, place in made.inputs.items():
        if name in copies:
            continue  # the run holds it
        if name.startswith("trait") and not place.exists():
            continue  # its name is a setting
        if not place.exists():
            raise StoreError(
                f"{run.path} was made from {place}, which is not there (input {name!r}); a methods"
                " paragraph says how everything was made: put it back, or report another run"
            )
        folder = store.run_folder(place)
        if folder is not None:
            _add(store.load_run(folder), seen)
    exported = _run_of_model(made.settings.get("model"))
    if exported is not None:  # what was done to a model may stand in its weights
        _add(store.load_run(exported), seen)
    seen[made.run.path] = made
