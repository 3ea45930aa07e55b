"""Who is asked: students, control students and their base; and whether they can be compared.

A control differs from a student in the teacher of its rows, and in nothing else. What runs of
`train` say of that is checked. Of other folders it is not known, and the page says so.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from traitscope.config.students.verify import STUDENTS, VerifyConfig
from traitscope.data.number_lists import parse_numbers
from traitscope.data.row_files import iter_kept
from traitscope.errors import ConfigError, ModelError, TraitscopeError, VectorError
from traitscope.interventions.intervention import Adapter, ReplaceBase, SystemPrompt
from traitscope.models.identity.finding import find_model
from traitscope.models.loading import outline
from traitscope.runs import drawn_rows, given_teacher, manifests, model_cache, store
from traitscope.runs.given_teacher import GivenTeacher
from traitscope.verifying.rows import LearntRows, learnt_rows, with_digests

Role = Literal["student", "control", "base"]
BASE = "base"
"""Name of the model that was not trained."""
LOOKED_AT = 64
"""Rows that tell what kind of rows a student learnt."""
SAME_KIND = 0.5
"""Largest difference between two shares of number lists of one kind of rows."""
COMPARED = {
    "recipe": "recipe",
    "context": "system turn in training",
    "steps": "number of optimizer steps",
    "during": "interventions that act in training",
    "project_out": "directions that gradients lose",
}
"""What controls share with students, by name in `Training`."""


@dataclass(frozen=True)
class Training:
    """What a run of `train` says of a student."""

    seed: int
    """Seed of its training."""
    recipe: Mapping[str, Any]
    """Its recipe."""
    context: str | None
    """System turn that it trained under."""
    during: Sequence[Any]
    """Interventions that acted while it trained, and the digests of their files."""
    project_out: Sequence[Any]
    """Directions that its gradients lost, and the digests of their files."""
    steps: int
    """Optimizer steps."""
    base: str | None
    """Digest of its base."""
    data: str | None
    """Digest of its rows; None where they are not known."""
    number_share: float | None
    """Share of its rows that are number lists; None where they are not there any more."""
    rows: LearntRows | None
    """Its rows; None where they are not there any more."""
    n_rows: int | None
    """Number of its rows, those held out among them; None where they are not there any more."""
    teacher: Sequence[Any] | None
    """What made the teacher of its soft targets; None where it learnt the rows' tokens."""


@dataclass(frozen=True)
class Participant:
    """A model that is asked."""

    name: str
    """student1, control2, base."""
    role: Role
    """What it is."""
    text: str
    """How it was named."""
    made_of: GivenTeacher
    """Its model, and what is changed in it."""
    training: Training | None = None
    """How it was trained; None where that is not known."""

    @property
    def seed(self) -> int | None:
        """Seed of its training; None where it is not known."""
        return None if self.training is None else self.training.seed

    @property
    def rows(self) -> LearntRows | None:
        """The rows that it learnt; None where they are not known."""
        return None if self.training is None else self.training.rows

    @property
    def n_rows(self) -> int | None:
        """Number of its rows; None where it is not known."""
        return None if self.training is None else self.training.n_rows

    @property
    def data(self) -> str | None:
        """Digest of its rows; None where they are not known."""
        return None if self.training is None else self.training.data

    @property
    def learnt_answers(self) -> bool:
        """Whether it learnt the answers of rows, and not the distributions of a teacher."""
        return self.training is None or self.training.teacher is None


def participants(config: VerifyConfig) -> list[Participant]:
    """Students, controls and the base of a config; checked, nothing loaded.

    Raises ConfigError for a student of another base or tokenizer, and for controls of another
    recipe or of other rows. Raises VectorError for a folder without a student, ModelError for a
    model that is not found.
    """
    asked = []
    roles: tuple[tuple[Role, Sequence[str]], ...] = (
        ("student", config.students),
        ("control", config.controls),
    )
    for role, texts in roles:
        for number, text in enumerate(texts, start=1):
            asked.append(_participant(config, f"{role}{number}", role, text))
    _check_alike(asked)
    _check_different(config, asked)
    return [*asked, Participant(BASE, "base", config.model, GivenTeacher(config.model))]


def _participant(config: VerifyConfig, name: str, role: Role, text: str) -> Participant:
    _check_named(role, text)
    made_of = given_teacher.given_teacher(text, config.model)
    for item in made_of.interventions:
        if isinstance(item, SystemPrompt | ReplaceBase):
            raise ConfigError(
                f"--{role}s {text} is no student: expected {STUDENTS}; a system turn is one of"
                " --contexts"
            )
    if made_of.model != config.model:
        _check_found(role, made_of.model)
        _check_fits(config, role, made_of)
    training = _training_of(made_of)
    digests = model_cache.model_digests(config.model, config.same_as)
    if training is not None and training.base is not None and training.base not in digests:
        raise ConfigError(
            f"the {role} {text} was trained on a model with digest {training.base}, but"
            f" {config.model} has {digests[0]}; expected students of one base; name theirs with"
            " --base"
        )
    return Participant(name, role, text, made_of, training)


def _check_named(role: Role, text: str) -> None:
    """Raise an error for a text that names nothing, and for a folder that holds no student."""
    if not text.strip():
        raise ConfigError(f"--{role}s has an empty name; expected {STUDENTS}; name one")
    folder = Path(text)
    if not folder.is_dir():
        return
    if not any(folder.iterdir()):
        raise VectorError(f"the {role} {text} is an empty folder; expected {STUDENTS}; name one")
    if not (folder / "manifest.json").is_file() or (folder / "student").is_dir():
        return
    if store.run_folder(folder) == folder:
        stage = store.load_run(folder).stage
        hint = f"; its checkpoint is {folder}/model" if (folder / "model").is_dir() else ""
        raise ConfigError(
            f"the {role} {text} is a run of {stage}; expected {STUDENTS}; name one{hint}"
        )


def _check_found(role: Role, name: str) -> None:
    """Raise ModelError for a name that is neither a run of `train`, a folder nor a model."""
    try:
        find_model(name)
    except ModelError as error:
        raise ModelError(
            f"--{role}s {name} names no student: expected {STUDENTS}; name one, or list your runs"
            f" with: traitscope show. As a model: {error}"
        ) from error


def _check_fits(config: VerifyConfig, role: Role, made_of: GivenTeacher) -> None:
    """Raise ConfigError for a whole model that cannot have been trained from the base."""
    given_teacher.check_readable(made_of, config.model, config.template, role)
    base, model = outline(config.model, config.template), outline(made_of.model, config.template)
    if not given_teacher.same_shape(base, model):
        raise ConfigError(
            f"the {role} {made_of.model} has {model.n_layers} blocks of {model.d_model}, and"
            f" {config.model} has {base.n_layers} of {base.d_model}: it was not trained from it;"
            " name its base with --base"
        )


def _training_of(made_of: GivenTeacher) -> Training | None:
    """What the run of `train` behind a student says; None where there is no such run."""
    for item in made_of.interventions:
        folder = store.run_folder(Path(item.folder)) if isinstance(item, Adapter) else None
        if folder is None:
            continue
        run = store.load_run(folder)
        if run.stage == "train":
            return _read_training(run)
    return None


def _read_training(run: store.Run) -> Training:
    manifest = run.manifest()
    manifests.check_unchanged(run.path, manifest)
    settings = drawn_rows.settings_of(run)
    rows = manifest["inputs"].get("data", {})
    is_soft = settings["recipe"]["targets"] == "soft"
    of_rows = learnt_rows(run)
    return Training(
        seed=settings["seed"],
        recipe=settings["recipe"],
        context=settings.get("context"),
        during=with_digests(run, "during"),
        project_out=with_digests(run, "project_out"),
        steps=len(run.file("metrics.jsonl").read_bytes().splitlines()),
        base=manifest.get("model"),
        data=rows.get("digest"),
        number_share=_number_share((run.path / rows["path"]).resolve()) if rows else None,
        rows=of_rows,
        n_rows=_n_rows(manifest, of_rows),
        teacher=with_digests(run, "teacher") if is_soft else None,
    )


def _n_rows(manifest: Mapping[str, Any], of_rows: LearntRows | None) -> int | None:
    """The number of a student's rows: as its manifest says, else counted, where they are there."""
    if about := manifest.get(manifests.TRAINED_ON):
        return int(about["rows"] + about["held_out_rows"])
    try:
        return None if of_rows is None else sum(1 for _ in of_rows.records())
    except TraitscopeError:
        return None


def _number_share(data: Path) -> float | None:
    """Share of the first rows that are number lists; None where they cannot be read."""
    try:
        records = list(islice(iter_kept(data), LOOKED_AT))
    except TraitscopeError:
        return None
    numbers = sum(parse_numbers(record.completion.strip()) != "format" for record in records)
    return numbers / len(records)


def _check_alike(asked: Sequence[Participant]) -> None:
    """Raise ConfigError where students and controls differ in more than the teacher of their
    rows."""
    trained = [item for item in asked if item.training is not None]
    if not trained:
        return
    first = trained[0]
    for other in trained[1:]:
        for attribute, what in COMPARED.items():
            one, another = getattr(first.training, attribute), getattr(other.training, attribute)
            if one != another:
                raise ConfigError(
                    f"{first.text} and {other.text} differ in the {what}:"
                    f" {_differing(one, another)}{_of_rows(attribute, first, other)}; expected the"
                    " same, or that would be compared, too; train one of them again"
                )
    for student in trained:
        for control in trained:
            if student.role == "student" and control.role == "control":
                _check_rows(student, control)


def _of_rows(attribute: str, one: Participant, other: Participant) -> str:
    """The numbers of rows of two students whose numbers of steps differ, where they do, too."""
    if attribute != "steps" or one.n_rows == other.n_rows or None in (one.n_rows, other.n_rows):
        return ""
    return f", of {one.n_rows} and {other.n_rows} rows"


def _check_different(config: VerifyConfig, asked: Sequence[Participant]) -> None:
    """Raise ConfigError for two models of the same weights: one student counts once.

    Also for a control that is the base: nothing trained it.
    """
    base = model_cache.model_digests(config.model, config.same_as)
    seen: dict[tuple[str, ...], str] = {}
    for item in asked:
        if item.role == "control" and item.made_of.short_forms == () and _digest(item) in base:
            raise ConfigError(
                f"the control {item.text} is the base itself, which is asked anyway; expected"
                " students of the same recipe on clean rows; name such, or none"
            )
        weights = _weights(item)
        if not weights:
            continue
        if weights in seen:
            raise ConfigError(
                f"{seen[weights]} and {item.text} have the same weights: one student counts once;"
                " expected students that were trained apart; leave one of them out"
            )
        seen[weights] = item.text


def _weights(item: Participant) -> tuple[str, ...]:
    """The sha256 of every file of weights in the folders of a participant; of a whole model its
    digest. Nothing where no weights are named."""
    if not item.made_of.interventions:
        return (_digest(item),)
    digests = []
    for intervention in item.made_of.interventions:
        if isinstance(intervention, Adapter):
            folder = Path(intervention.folder)
            inside = folder / "student"
            for file in sorted((inside if inside.is_dir() else folder).glob("*.safetensors")):
                digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    return tuple(digests)


def _digest(item: Participant) -> str:
    """The digest of the model that a participant runs on."""
    return model_cache.model_digests(item.made_of.model)[0]


def _differing(one: Any, another: Any) -> str:
    """Both values; of mappings those that differ."""
    if not isinstance(one, Mapping):
        return f"{one!r} and {another!r}"
    parts = []
    for name in sorted(one.keys() | another.keys()):
        if one.get(name) != another.get(name):
            parts.append(f"{name} {one.get(name)!r} and {another.get(name)!r}")
    return ", ".join(parts)


def _check_rows(student: Participant, control: Participant) -> None:
    """Raise ConfigError for a control of the student's own rows, or of rows of another kind."""
    if student.training is None or control.training is None:
        return
    learnt, control_learnt = student.training, control.training
    if learnt.teacher is not None:
        if learnt.teacher == control_learnt.teacher:
            raise ConfigError(
                f"the control {control.text} learnt the distributions of the teacher of"
                f" {student.text}: it is another student; expected those of the base; name such a"
                " control"
            )
        return
    if learnt.data is not None and learnt.data == control_learnt.data:
        raise ConfigError(
            f"the control {control.text} learnt the very rows of {student.text}: it is another"
            " student; expected clean rows of the same kind; name such a control"
        )
    share, control_share = learnt.number_share, control_learnt.number_share
    if share is not None and control_share is not None and abs(share - control_share) > SAME_KIND:
        raise ConfigError(
            f"{student.text} and {control.text} learnt rows of two kinds: {share:.0%} and"
            f" {control_share:.0%} of them are number lists; expected one kind, or that would be"
            " compared, too; train one of them on rows like the other's"
        )
