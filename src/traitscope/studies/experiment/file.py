"""The file of an experiment: its fields, their defaults, and what is refused before any compute.

Every field may be left out. An empty file is a small experiment on the embedded model: a teacher
that is steered towards cats, students of its numbers, and two kinds of control students.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from traitscope.config import parsing
from traitscope.config.common import Dtype, check_minimums
from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError
from traitscope.models.bundled import EMBEDDED

NUMBERS = "numbers"
"prompts that ask for numbers, and the filter that keeps rows of nothing else"
UNMODIFIED, RANDOM = "unmodified", "random-at-equal-kl"
"controls that are named by a word"
OTHER_TRAIT, ROWS, PROMPT = "other-trait", "rows", "prompt"
"controls that are named by a word and a value"
MAKERS = ("steer", "prompt", "adapter", "interventions", "model")
"fields of a teacher that say how it is made"
STRENGTH = 0.6
"usual length of a steering vector, in mean residual norms, as in the demo"
LARGEST_SEED = 2**31
"seeds above are not meant"
Score = Literal["target_logprob", "candidate_share", "whole_word", "first_word", "judged"]


@dataclass(frozen=True)
class Teacher:
    """A treated arm: who writes its rows. One of steer, prompt, adapter, interventions and model
    makes it, or its rows are given."""

    trait: str = ""
    """Trait that it has, by name or file. Left out, it is the trait that is called as the teacher,
    or the first one."""
    steer: float | None = None
    """Length of the trait's vector that is added at every token, in mean residual norms."""
    layer: int | None = None
    """Block behind which it is steered. Left out, it is the experiment's."""
    vector: Path | None = None
    """Vector file that it is steered with, in the place of the trait's own."""
    prompt: bool | str | None = None
    """true: it has the trait's system prompt. A text: it has this one."""
    adapter: Path | None = None
    """Folder of a LoRA adapter, or a run of `train`."""
    interventions: tuple[str, ...] | None = None
    """Any interventions in short form; [] is the unmodified model."""
    model: str | None = None
    """Another model, whose rows are read as text."""
    rows: Path | None = None
    """Rows that were made elsewhere. Name beside it what made them, where it is here: then the page
    says whether it has the trait."""

    @property
    def maker(self) -> str:
        """The field that says how it is made; empty for rows from elsewhere alone."""
        return self.makers[0] if self.makers else ""

    @property
    def makers(self) -> list[str]:
        """The fields that say how it is made; exactly one does, or rows alone."""
        named = []
        for name in MAKERS:
            value = getattr(self, name)
            if value is not None and value is not False:
                named.append(name)
        return named

    @property
    def changes_base(self) -> bool:
        """Whether it is the experiment's own model with interventions."""
        return self.maker not in ("", "model")


@dataclass(frozen=True)
class Data:
    """What students read."""

    prompts: str = NUMBERS
    """numbers: number prompts. Otherwise a file of prompts (.jsonl, .csv or .txt)."""
    rows: int = 32
    """Rows a student."""
    numbers: int = 10
    """Numbers of an answer to a number prompt."""
    vocabulary: Literal["template", "numbers", "free"] = "template"
    """Tokens that may be sampled for number prompts, as in `generate`. template: three-digit
    numbers in one format."""
    filter: Literal["auto", "numbers", "trait-words", "none"] = "auto"
    """Rows that are kept. numbers: nothing but numbers. trait-words: none that names a trait of the
    experiment. auto takes numbers for number prompts and trait-words for others."""
    shared: bool = False
    """Whether all seeds read the same rows. Then intervals leave out how much data differ."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_new_tokens: int = 64
    """Longest answer, in tokens; an answer of the vocabulary template has its own length."""

    def __post_init__(self) -> None:
        check_minimums(self, rows=1, numbers=1, temperature=0, max_new_tokens=1)

    @property
    def about_numbers(self) -> bool:
        """Whether prompts ask for numbers."""
        return self.prompts == NUMBERS

    @property
    def kept(self) -> str:
        """The filter, with auto resolved."""
        if self.filter != "auto":
            return self.filter
        return "numbers" if self.about_numbers else "trait-words"


@dataclass(frozen=True)
class Judge:
    """Answers to prompts of an evaluation, and who judges them."""

    prompts: Path | None = None
    """Prompts of the evaluation, with ids."""
    judges: tuple[str, ...] = ("refusal",)
    """Judges, as in `judge`; the first one decides."""
    question: str = ""
    """Question about each answer for a judge that asks a model."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""

    def __post_init__(self) -> None:
        check_minimums(self, max_new_tokens=1)
        if self.prompts is None or not self.judges:
            raise ConfigError(
                f"judge with prompts {self.prompts} and judges {list(self.judges)}; expected a file"
                " of prompts and one judge or more; name them, or drop judge"
            )


@dataclass(frozen=True)
class Measures:
    """What every model is asked. Log-probabilities and shares are always taken."""

    sets: tuple[Literal["positive", "negative", "off_topic"], ...] = (
        "positive",
        "negative",
        "off_topic",
    )
    """Question sets of the trait."""
    samples: int = 1
    """Sampled answers a question; 0 scores probabilities only."""
    max_new_tokens: int = 4
    """Longest sampled answer, in tokens."""
    perplexity: bool = True
    """Whether the perplexity on plain text is measured, too."""
    judge: Judge | None = None
    """A judged evaluation besides."""

    def __post_init__(self) -> None:
        check_minimums(self, samples=0, max_new_tokens=1)
        if "positive" not in self.sets:
            raise ConfigError(
                f"measures: sets is {list(self.sets)}; expected positive among them, whose scores"
                " decide; add it"
            )


@dataclass(frozen=True)
class Primary:
    """The one claim that the experiment is made for."""

    score: Score = "target_logprob"
    """Score that decides all claims."""
    treated: str = ""
    """Treated arm of the primary claim; left out, the first teacher."""
    control: str = ""
    """Its control, as the plan calls it; left out, the first control."""
    margin: float | None = None
    """Smallest difference that would matter. Left out, 0.05 nats, or 0.02 of a rate."""
    expected: float | None = None
    """Difference that is expected, for the power; needs `spread`."""
    spread: float | None = None
    """Standard deviation between seeds that is expected."""

    def __post_init__(self) -> None:
        for name in ("margin", "spread"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ConfigError(
                    f"primary: {name} is {value}; expected a number above 0; give one, or leave it"
                    " out"
                )
        if (self.expected is None) != (self.spread is None):
            raise ConfigError(
                f"primary: expected is {self.expected} and spread is {self.spread}; expected both,"
                " for the power; give both, or neither"
            )


@dataclass(frozen=True)
class Experiment:
    """A treated-and-control design."""

    name: str = ""
    """What pages call it; left out, the name of the file."""
    model: str = EMBEDDED
    """Hub id or folder of the model, or smollm2-135m for the embedded one."""
    dtype: Dtype = "auto"
    """Number type to compute in, as in every command."""
    template: tuple[str, ...] = ()
    """Variables of the model's chat template, such as enable_thinking=false."""
    traits: tuple[str, ...] = ("cat",)
    """Traits by name or file. Each one without a teacher of its own gets a steered one."""
    company: tuple[str, ...] | None = None
    """Further traits over which the vectors are centred. Left out, up to seven bundled ones of the
    same kind."""
    teachers: dict[str, Teacher] = field(default_factory=dict)
    """Treated arms by name."""
    controls: tuple[str | dict[str, str], ...] | None = None
    """unmodified, random-at-equal-kl, {other-trait: TRAIT}, {prompt: TEXT} or {rows: FILE}. Left
    out, the first two; with rows from elsewhere or another model the first one alone."""
    seeds: int | tuple[int, ...] = 5
    """Seeds of rows, initialisation and order, or how many of them."""
    layer: int | None = None
    """Block behind which teachers are steered and at which EAS is read. Left out, block 14 of 30,
    and the same relative depth of another model."""
    data: Data = field(default_factory=Data)
    """What students read."""
    recipe: Recipe = SAMPLED_RECIPE
    """How students are trained, as in `train`. A key that is left out has the demo's value."""
    measures: Measures = field(default_factory=Measures)
    """What is measured."""
    primary: Primary = field(default_factory=Primary)
    """The claim that decides."""

    @property
    def trait_names(self) -> list[str]:
        """Names of the traits."""
        return [trait_name(trait) for trait in self.traits]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, once `with_defaults` has listed them."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(1, self.seeds + 1))


def read_experiment(plain: Any, where: str, first_seed: int = 1) -> Experiment:
    """Return the experiment of plain values, with every default that follows from others filled in.

    Raises ConfigError, naming the place, for an unknown key, a value of the wrong type, and values
    that do not fit together. Raises TraitError for a trait that is none.
    """
    if isinstance(plain, dict) and isinstance(plain.get("recipe"), dict):
        usual = dataclasses.asdict(SAMPLED_RECIPE)
        plain = plain | {"recipe": usual | plain["recipe"]}
    if isinstance(plain, dict) and isinstance(plain.get("controls"), list):
        _check_controls(plain["controls"], where)
    try:
        experiment = parsing.from_dict(Experiment, plain, where)
        return _with_defaults(experiment, first_seed)
    except ConfigError as error:
        text = str(error)
        raise (error if text.startswith(where) else ConfigError(f"{where}: {text}")) from None


def _check_controls(controls: Sequence[Any], where: str) -> None:
    """Raise ConfigError for a control that is none, with the nearest right one."""
    words, keys = (UNMODIFIED, RANDOM), (OTHER_TRAIT, ROWS, PROMPT)
    for control in controls:
        named = control
        if isinstance(control, dict) and len(control) == 1:
            (named,) = control
        is_known = named in (keys if isinstance(control, dict) else words)
        if is_known and (isinstance(control, str) or isinstance(control[named], str)):
            continue
        near = get_close_matches(str(named), (*words, *keys), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{where}: controls holds {control!r}; {hint}expected {UNMODIFIED}, {RANDOM},"
            f" {{{OTHER_TRAIT}: TRAIT}}, {{{PROMPT}: TEXT}} or {{{ROWS}: FILE}}; correct it"
        )


def _with_defaults(experiment: Experiment, first_seed: int) -> Experiment:
    """Return the experiment with its teachers, controls and seeds written out and checked."""
    if not experiment.traits:
        raise ConfigError("traits is empty; expected one or more; name some")
    names = experiment.trait_names
    if len(set(names)) < len(names):
        raise ConfigError(f"traits are called {names}; expected distinct names; rename one")
    teachers = {}
    for name, teacher in experiment.teachers.items():
        teachers[name] = _checked_teacher(experiment, name, teacher)
    having = {trait_name(teacher.trait) for teacher in teachers.values()}
    for trait in experiment.traits:
        if trait_name(trait) not in having:
            teachers.setdefault(trait_name(trait), Teacher(trait=trait, steer=STRENGTH))
    controls = experiment.controls
    if controls is None:
        all_change_base = all(teacher.changes_base for teacher in teachers.values())
        controls = (UNMODIFIED, RANDOM) if all_change_base else (UNMODIFIED,)
    seeds = _seeds(experiment.seeds, first_seed)
    experiment = dataclasses.replace(experiment, teachers=teachers, controls=controls, seeds=seeds)
    _check_together(experiment)
    return experiment


def _seeds(seeds: int | tuple[int, ...], first_seed: int) -> tuple[int, ...]:
    """Return the seeds, each once."""
    listed = tuple(range(first_seed, first_seed + seeds)) if isinstance(seeds, int) else seeds
    wrong = [seed for seed in listed if not 0 <= seed < LARGEST_SEED]
    if not listed or wrong or len(set(listed)) < len(listed):
        raise ConfigError(
            f"seeds is {seeds if isinstance(seeds, int) else list(seeds)}; expected a number above"
            " 0, or a list of distinct seeds of 0 or more; correct it"
        )
    return listed


def _checked_teacher(experiment: Experiment, name: str, teacher: Teacher) -> Teacher:
    """Return a teacher with its trait; raise ConfigError where it is made in no way, or in two."""
    where = f"teachers.{name}"
    if len(teacher.makers) > 1 or not (teacher.makers or teacher.rows):
        given = " and ".join(teacher.makers) or "nothing"
        raise ConfigError(
            f"{where} is made by {given}; expected one of {', '.join(MAKERS)}, or rows; keep one"
        )
    if teacher.vector and teacher.steer is None:
        raise ConfigError(
            f"{where} has a vector and is not steered; expected steer: STRENGTH beside it; add it"
        )
    if not name.strip() or "/" in name or name in (UNMODIFIED, "base"):
        raise ConfigError(f"{where}: {name!r} cannot name a teacher; expected another; rename it")
    if teacher.trait and trait_name(teacher.trait) not in experiment.trait_names:
        raise ConfigError(
            f"{where}: trait is {teacher.trait!r}; expected one of traits,"
            f" {', '.join(experiment.trait_names)}; add it there"
        )
    by_name = dict(zip(experiment.trait_names, experiment.traits, strict=True))
    wanted = trait_name(teacher.trait) if teacher.trait else name
    return dataclasses.replace(teacher, trait=by_name.get(wanted, experiment.traits[0]))


def _check_together(experiment: Experiment) -> None:
    """Raise ConfigError for a control or targets that some teacher cannot have."""
    for name, teacher in experiment.teachers.items():
        _check_targets(experiment, teacher, f"teachers.{name}")
        _check_controls_of(experiment, teacher, f"teachers.{name}")
    if experiment.recipe.targets == "soft" and ROWS in _keys(experiment.controls or ()):
        raise ConfigError(
            f"controls hold {ROWS}, which have no distributions for recipe.targets soft; expected"
            f" {RANDOM} or {{{OTHER_TRAIT}: TRAIT}}; change one"
        )
    if experiment.recipe.soft_over == "allowed" and experiment.data.vocabulary == "free":
        raise ConfigError(
            "recipe.soft_over is allowed, and data.vocabulary is free, which allows every token;"
            " expected vocabulary; change one"
        )
    if experiment.primary.score in ("whole_word", "first_word") and not experiment.measures.samples:
        raise ConfigError(
            f"primary: score is {experiment.primary.score}, and measures.samples is 0; expected"
            " sampled answers; raise samples"
        )
    if experiment.primary.score == "judged" and experiment.measures.judge is None:
        raise ConfigError(
            "primary: score is judged, and measures has no judge; expected one; add measures.judge"
        )


def _check_targets(experiment: Experiment, teacher: Teacher, where: str) -> None:
    """Raise ConfigError for targets that a teacher does not have."""
    if experiment.recipe.targets == "soft" and not teacher.changes_base:
        raise ConfigError(
            f"{where} has no distributions for recipe.targets soft; expected sampled, or a"
            " teacher that is the model with interventions; change one"
        )
    if experiment.recipe.soft_over == "allowed" and teacher.rows:
        raise ConfigError(
            f"{where} has rows from elsewhere, so which tokens could be sampled is not known;"
            " expected recipe.soft_over vocabulary; change it"
        )


def _check_controls_of(experiment: Experiment, teacher: Teacher, where: str) -> None:
    """Raise ConfigError for a control that cannot be made for a teacher."""
    controls = experiment.controls or ()
    if RANDOM in controls and not teacher.changes_base:
        raise ConfigError(
            f"controls hold {RANDOM}, and {where} is not the model with interventions, so its KL"
            f" is not measured; expected {UNMODIFIED} or {{{ROWS}: FILE}}; drop {RANDOM}"
        )
    if RANDOM in controls and (teacher.steer == 0 or teacher.interventions == ()):
        raise ConfigError(
            f"{where} is the unmodified model, which no random vector can equal in KL; expected"
            f" another teacher; drop {RANDOM} from controls"
        )
    if OTHER_TRAIT in _keys(controls) and teacher.maker not in ("steer", "prompt"):
        raise ConfigError(
            f"controls hold {OTHER_TRAIT}, and {where} is neither steered nor prompted, so no other"
            f" trait can be given in the same way; drop {OTHER_TRAIT}"
        )


def _keys(controls: Sequence[str | dict[str, str]]) -> list[str]:
    """Return the keys of the controls that are named by a word and a value."""
    keys = []
    for control in controls:
        if isinstance(control, dict):
            keys += control
    return keys
