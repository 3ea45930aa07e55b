"""The file of an experiment: its fields and their defaults.

Every field may be left out. An empty file is a small experiment on the embedded model. Its teacher
is steered towards cats, its students read numbers, and there are two kinds of control students.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from traitscope.config.common import Dtype, check_minimums, check_strengths
from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.config.rows.reading import USUAL, Reading
from traitscope.data.traits import load_trait, trait_name
from traitscope.errors import ConfigError
from traitscope.models.bundled import EMBEDDED
from traitscope.studies.equal_kl import MATCHED_ROWS

NUMBERS = "numbers"
"prompts that ask for numbers, and the filter that keeps rows of nothing else"
UNMODIFIED, RANDOM = "unmodified", "random-at-equal-kl"
"controls that are named by a word"
OTHER_TRAIT, ROWS, PROMPT = "other-trait", "rows", "prompt"
"controls that are named by a word and a value"
MAKERS = ("steer", "prompt", "adapter", "interventions", "model")
"fields of a teacher that say how it is made"
ANSWER_TOKENS, JUDGED_TOKENS = 4, 40
"usual longest sampled answer, of a trait with a word and of a behaviour"
USUAL_LAYER = 14
"block of the embedded model behind which teachers are steered, if nobody names one"
STRENGTH = 0.6
"usual length of a steering vector, in mean residual norms, as in the demo"
Score = Literal["target_logprob", "candidate_share", "whole_word", "first_word", "judged"]


def judge_of(trait: str) -> str:
    """The first judge of a trait by name or file; empty where it has a word."""
    judges = load_trait(trait, words=False).judges
    return judges[0] if judges else ""


@dataclass(frozen=True)
class Students:
    """What differs for the students of one teacher, and for those of its controls. Left out, it is
    what the experiment says."""

    recipe: Recipe | None = None
    """How they are trained. A key that is left out has the experiment's value."""
    rows: int | None = None
    """How many of the rows they read, the first ones."""
    seeds: int | None = None
    """How many of the seeds they have, the first ones."""
    controls: tuple[str | dict[str, str], ...] | None = None
    """Their controls."""

    def __post_init__(self) -> None:
        for name in ("rows", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"students: {name} is {value}; expected 1 or more; correct it")


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
    template: tuple[str, ...] | None = None
    """Variables of that model's chat template, for it alone. Left out, they are the experiment's;
    [] sets none."""
    rows: Path | None = None
    """Rows that were made elsewhere. Name beside it what made them, where it is here: then the page
    says whether it has the trait."""
    reading: Reading | None = None
    """How its rows are read. Left out, as the experiment's are."""
    students: Students | None = None
    """What differs for its students, such as targets. Teachers that are made alike write once."""

    def __post_init__(self) -> None:
        if self.steer is not None:
            check_strengths("a teacher's steer is", self.steer)

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
    pooled: bool = False
    """Whether one run makes the rows of all seeds, which is faster, and each seed reads its part. A
    further seed then makes all of them anew."""
    matched_rows: int = MATCHED_ROWS
    """Rows over which a random vector gets the KL of the teacher."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_new_tokens: int = 64
    """Longest answer, in tokens; an answer of the vocabulary template has its own length."""

    def __post_init__(self) -> None:
        check_minimums(
            self, "data", rows=1, numbers=1, temperature=0, max_new_tokens=1, matched_rows=2
        )
        if self.pooled and (self.shared or not self.about_numbers):
            raise ConfigError(
                f"data is pooled, with prompts {self.prompts} and shared {self.shared}; expected"
                " number prompts that are other ones for each seed; drop pooled"
            )

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
        check_minimums(self, "judge", max_new_tokens=1)
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
    max_new_tokens: int | None = None
    """Longest sampled answer, in tokens. Left out, 4; of a behaviour, 40."""
    perplexity: bool = True
    """Whether the perplexity on plain text is measured, too."""
    judge: Judge | None = None
    """A judged evaluation besides."""

    def __post_init__(self) -> None:
        check_minimums(self, "measures", samples=0)
        if self.max_new_tokens is not None:
            check_minimums(self, "measures", max_new_tokens=1)
        if "positive" not in self.sets:
            raise ConfigError(
                f"measures: sets is {list(self.sets)}; expected positive among them, whose scores"
                " decide; add it"
            )


@dataclass(frozen=True)
class Primary:
    """The one claim that the experiment is made for."""

    score: Score | None = None
    """Score that decides all claims. Left out, target_logprob; of a behaviour, judged: the rate of
    its first judge, or of that of measures.judge."""
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
        if self.expected is not None and not abs(self.expected) < 1e6:
            raise ConfigError(
                f"primary: expected is {self.expected}; expected a finite number; give one, or"
                " leave it out"
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
    """Variables of the model's chat template, such as {enable_thinking: false}, or
    [enable_thinking=false]."""
    traits: tuple[str, ...] = ("cat",)
    """Traits by name or file. Each one without a teacher of its own gets a steered one. They may be
    behaviours, which have judges in the place of words."""
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
    reading: Reading = USUAL
    """How rows from elsewhere are read, those of teachers and of controls: map, turns, reasoning
    and skip_bad."""
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
    def judge(self) -> str:
        """The judge that decides; empty where a word is scored."""
        if self.primary.score != "judged":
            return ""
        if self.measures.judge is not None:
            return self.measures.judge.judges[0]
        return judge_of(self.traits[0])

    def judge_about(self, trait: str) -> str:
        """The first judge of one of the traits, by name or file; empty where it has a word."""
        if self.primary.score != "judged":
            return ""
        for each in self.traits:
            if trait_name(each) == trait_name(trait):
                return judge_of(each)
        return ""

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, once `with_defaults` has listed them."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(1, self.seeds + 1))

    def students_of(self, teacher: str) -> Students:
        """What holds for the students of a teacher and of its controls, nothing left out."""
        asked = self.teachers[teacher].students or Students()
        return Students(
            asked.recipe or self.recipe,
            asked.rows or self.data.rows,
            asked.seeds or len(self.all_seeds),
            (self.controls or ()) if asked.controls is None else asked.controls,
        )

    def writer_of(self, teacher: str) -> str:
        """The first teacher that is made alike: it writes the rows of both."""
        alike = replace(self.teachers[teacher], students=None)
        for name, other in self.teachers.items():
            if replace(other, students=None) == alike:
                return name
        return teacher

    @property
    def all_controls(self) -> tuple[str | dict[str, str], ...]:
        """The controls of all teachers, each once."""
        listed: list[str | dict[str, str]] = []
        for name in self.teachers:
            listed += [each for each in self.students_of(name).controls or () if each not in listed]
        return tuple(listed)
