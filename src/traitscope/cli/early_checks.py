"""Checks of settings that need no model and import nothing heavy: bad input is refused at once."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from traitscope import studies
from traitscope.cli.checks.written_paths import check_folder, check_writable, named
from traitscope.cli.tracking import tracker
from traitscope.config.analysis import ExtractConfig
from traitscope.config.audit import AuditConfig
from traitscope.config.commands import DemoConfig, ShowConfig, StudyConfig
from traitscope.config.common import Output, check_needed
from traitscope.config.fields import flag_of, use_of
from traitscope.config.recipe import FEW_STEPS, SAMPLED_RECIPE
from traitscope.config.screen import ScreenConfig, SteerScanConfig
from traitscope.config.stages import GenerateConfig, MeasureConfig, TrainConfig
from traitscope.config.students.verify import VerifyConfig
from traitscope.data.hub.files import FORMS, is_of_hub
from traitscope.data.own_traits import needs
from traitscope.data.row_files import rows_file
from traitscope.data.trait_files import trait_files, trait_names
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, DataError
from traitscope.plurals import counted
from traitscope.runs import row_intake, store
from traitscope.runs.manifests import RUN_NAME

USES: dict[needs.Use, tuple[type, ...]] = {
    "vectors": (ExtractConfig,),
    "scores": (MeasureConfig,),
    "differences": (DemoConfig, VerifyConfig),
    "teachers": (SteerScanConfig,),
    "candidate": (AuditConfig, ScreenConfig),
}
"What commands do with their traits; others read their questions and words."
READ = "a run directory or a file, or a run below --root by its name"
"what a path is that is read, whatever it holds"
HOLDS = {
    "rows": "a file of rows or a run, or a run below --root by its name",
    "prompts": "a file of prompts (.txt, .jsonl or .csv) or a run with rows",
    "vector": "a vector's file, or a run of extract with one vector",
    "design": "the file of an experiment (YAML or JSON); traitscope experiment --example FILE.yaml"
    " writes one",
}
"what a path is by what it holds"
OF_HUB = ("rows", "prompts")
"what a data set of the hub holds"
FILES = ("prompts", "design")
"what a path holds that no folder but a run has"


def check_settings(config: Any, out: Output) -> None:
    """Raise the error of the first setting that cannot work.

    It is missing, a trait or a study that does not exist, or a path that cannot be read or written.
    """
    check_needed(config)
    _check_all_read(config)
    out.check_folder()
    if out.track:
        tracker.parsed(out.track)
    with named("root", out.root):
        (out.root / out.study).exists()
    trait_files(_traits_of(config))
    needs.check(_traits_of(config), _use_of(config))
    for name in trait_names(getattr(config, "influence", ())):
        load_trait(name)
    if isinstance(config, StudyConfig) and config.action != "list":
        studies.check_name(config.name)
    for field in dataclasses.fields(config):
        for path in _paths_in(getattr(config, field.name)):
            with named(field.name, path):
                if use_of(field) == "written":
                    check_writable(field.name, path)
                elif use_of(field) == "folder":
                    check_folder(field.name, path)
                else:
                    _check_readable(field, path)


def _check_all_read(config: Any) -> None:
    """Raise ConfigError for settings of prompts or tasks that the command does not ask."""
    if not isinstance(config, ExtractConfig | GenerateConfig | MeasureConfig):
        return
    names, why = config.not_read
    usual = {field.name: field.default for field in dataclasses.fields(config)}
    given = [name for name in names if getattr(config, name) != usual[name]]
    if given:
        shown = " ".join(f"{flag_of(name)} {getattr(config, name)}" for name in given)
        raise ConfigError(
            f"{shown} would not be read: {why}; expected no such setting; leave it out"
        )


def advice(config: Any) -> list[str]:
    """Return what is likely not meant by settings that work, or lets their numbers say little.

    A student that takes few optimizer steps hardly learns its rows. A trait with few questions, or
    without company, has few numbers.
    """
    if isinstance(config, TrainConfig):
        rows = _rows_of(config) if config.data is not None else []
        return [*_few_steps(config, len(rows)), *_held_out_copies(config, rows)]
    traits = _traits_of(config)
    said = [*needs.advice(traits, _use_of(config)), *needs.same_prompts(traits)]
    if isinstance(config, ExtractConfig):
        said += _not_read(config)
    is_given = isinstance(config, SteerScanConfig) and config.vector is not None
    if isinstance(config, ExtractConfig | SteerScanConfig) and traits and not is_given:
        said += needs.company_advice(traits)
    return said


def _rows_of(config: TrainConfig) -> list[int]:
    """A number for each row of a training, the same for rows that hold the same."""
    numbers = []
    for record in islice(row_intake.iter_kept(config), config.max_rows):
        texts = (record.context or "", record.prompt, record.completion)
        numbers.append(hash(tuple(map(tuple, map(str.split, texts)))))
    return numbers


def _held_out_copies(config: TrainConfig, rows: Sequence[int]) -> list[str]:
    """Say how many held-out rows are trained on, too: then their loss is none of unseen rows."""
    from traitscope.training.inputs import split

    trained, held_out = split(len(rows), config.recipe, config.seed)
    seen = {rows[i] for i in trained}
    copies = 0
    for i in held_out:
        copies += rows[i] in seen
    if not copies:
        return []
    return [
        f"{copies} of {counted(len(held_out), 'held-out row')}"
        f" {'is a copy' if copies == 1 else 'are copies'} of rows that are trained on, so that"
        " the held-out loss is not that of unseen rows; drop copies first: traitscope defend --data"
        f" {config.data} --by deduplicate"
    ]


def _few_steps(config: TrainConfig, rows: int) -> list[str]:
    """Say how many optimizer steps a training takes, where they are fewer than FEW_STEPS."""
    recipe = config.recipe
    if not rows:
        return []
    trained = rows - recipe.held_out_rows(rows)
    an_epoch = recipe.steps_an_epoch(trained)
    if an_epoch * recipe.epochs >= FEW_STEPS:
        return []
    advice = f"the demo takes --batch-size {SAMPLED_RECIPE.batch_size}"
    if recipe.batch_size <= SAMPLED_RECIPE.batch_size:
        advice = "give more rows, or more --epochs"
    return [
        f"{counted(trained, 'row')} in batches of {recipe.batch_size}:"
        f" {counted(an_epoch, 'step')} an epoch,"
        f" {an_epoch * recipe.epochs} in all. With fewer than {FEW_STEPS} steps a student hardly"
        f" learns its rows; {advice}"
    ]


def _not_read(config: ExtractConfig) -> list[str]:
    """What trait files of other tools say that has no place here."""
    said = []
    for name in config.traits:
        trait = load_trait(name, words=False)
        if trait.not_read:
            said.append(f"{name}: {' and '.join(trait.not_read)} are not read")
    return said


def _check_readable(field: dataclasses.Field, path: Path) -> None:
    """Raise DataError, naming the flag, for a path with nothing behind it.

    Of a folder, raises StoreError where it is no sealed run, and DataError where it should hold
    rows and does not, or be a file.
    """
    if is_of_hub(path):
        return
    use = use_of(field)
    expected = HOLDS.get(use, READ)
    if not path.exists():
        if use in OF_HUB:
            expected += f"; of the hub: {FORMS}"
        raise DataError(f"{flag_of(field.name)} {path} does not exist; name {expected}")
    is_run = store.run_folder(path) is not None or RUN_NAME.fullmatch(path.name)
    if use in FILES and path.is_dir() and not is_run:
        raise DataError(f"{flag_of(field.name)} {path} is a folder; name {expected}")
    holds_rows = use == "rows"
    if holds_rows and path.is_dir() and not (path / "config.json").exists():
        rows_file(path)
    store.source_at(path)
    if holds_rows:
        rows_file(path)


def _traits_of(config: Any) -> list[str]:
    """The traits that a config names; `show` only looks for names in runs."""
    if isinstance(config, ShowConfig):
        return []
    if hasattr(config, "trait"):
        return [config.trait, *getattr(config, "company", ())]
    return trait_names(getattr(config, "traits", ()))


def _use_of(config: Any) -> needs.Use:
    """What a command does with its traits."""
    for use, configs in USES.items():
        if isinstance(config, configs):
            return use
    return "words"


def _paths_in(value: Any) -> Iterator[Path]:
    """The paths that a setting holds."""
    values = value if isinstance(value, tuple) else (value,)
    for item in values:
        if isinstance(item, Path):
            yield item
