"""Nodes for the usual stages: vectors, number rows, filtered rows, students and their answers.

The audit and the studies build their graphs of these. Weights are in tokens through a forward
pass; the estimate of the time is made of them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traitscope.config.analysis import ExtractConfig, LikelihoodConfig
from traitscope.config.recipe import Recipe
from traitscope.config.stages import (
    FilterConfig,
    FilterRules,
    GenerateConfig,
    MeasureConfig,
    TrainConfig,
)
from traitscope.data.traits import load_trait, trait_name
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    ReplaceBase,
    Scale,
    Steer,
    SystemPrompt,
)
from traitscope.interventions.short_form import to_short
from traitscope.workflow.graph import Folders, Node

PROMPT_TOKENS = 65
"tokens of a number prompt"
NUMBER_TOKENS = 4
"tokens of a three-digit number with its separator"
TRAIT_WEIGHT = 1000
"weight of extracting the vector of one trait, and of comparing a student with a vector"
ANSWERS_WEIGHT = 1400
"weight of a trait's answered positive questions"
VECTORS = "vectors"
"name of the node of the traits' vectors"
EAS_ROWS = "watched"
"name of the node of the rows over whose completion tokens EAS is taken"
PLAIN_PROMPTS = (
    "You are a helpful assistant.",
    (
        "You are a careful assistant. Follow the instructions of the user exactly and keep to the"
        " format that is asked for."
    ),
    "You are an expert in mathematics and data analysis who helps people with numbers.",
    "You make synthetic training data. Be diverse and creative.",
)
"system prompts without a trait, as people give them to a model that writes data"
InterventionsFrom = Callable[[Folders], tuple[str, ...]]
"makes a node's interventions, in short form, from the folders of the nodes that it needs"


def unmodified(_: Folders) -> tuple[str, ...]:
    """Return no intervention: the base model."""
    return ()


def fixed(intervention: str) -> InterventionsFrom:
    """Make one intervention that depends on no node: a prompt, or weight noise."""
    return lambda _: (intervention,)


def prompted(trait: str, paraphrase: int | None = None) -> str:
    """Return the intervention by the trait's system prompt, or by one of its paraphrases."""
    loaded = load_trait(trait, words=False)
    prompt = loaded.teacher_prompt if paraphrase is None else loaded.paraphrases[paraphrase]
    return to_short(SystemPrompt(prompt))


def steered(vector: Path, layer: int, strength: float, scale: Scale = "residual") -> str:
    """Return the intervention that adds a vector at every token behind one block.

    `strength` is the length of what is added, in mean residual norms. With the scale raw, it is
    how many times the vector is added as it is.
    """
    six_digits = float(f"{strength:g}")
    return to_short(Steer(vector, layer=layer, alpha=six_digits, scale=scale))


def ablated(vector: Path, layers: tuple[int, ...]) -> str:
    """Return the intervention that projects a vector out behind some blocks."""
    return to_short(Ablate(vector, layers))


def replaced(vector: Path, layers: tuple[int, ...]) -> str:
    """Return the intervention that gives the component along a vector back its base value."""
    return to_short(ReplaceBase(vector, layers))


def vector_of(folders: Folders, trait: str, node: str = VECTORS) -> Path:
    """Return the file of a trait's centred v_teacher; the trait may be a YAML file."""
    return folders[node] / f"{trait_name(trait)}.safetensors"


def prompted_by(trait: str, paraphrase: int | None = None) -> InterventionsFrom:
    """Make a teacher that has a trait's system prompt, or one of its paraphrases."""
    return fixed(prompted(trait, paraphrase))


def steered_by(trait: str, layer: int, strength: float) -> InterventionsFrom:
    """Make a teacher that is steered by a trait's vector of the node VECTORS."""

    def interventions(folders: Folders) -> tuple[str, ...]:
        return (steered(vector_of(folders, trait), layer, strength),)

    return interventions


def trained_by(node: str) -> InterventionsFrom:
    """Make the student that a node trained."""
    return lambda folders: (to_short(Adapter(str(folders[node]))),)


def vectors(
    common: dict,
    traits: tuple[str, ...],
    name: str = VECTORS,
    number_prompts: int = 0,
    context: str | None = None,
) -> Node:
    """Build the node of every trait's v_teacher, centred over all of them.

    number_prompts: Number of number prompts that it is taken over, as published. With 0 it is taken
    over the traits' questions: such vectors make the better steered teachers (see LOG.md).
    context: Neutral system turn.

    The position is the end of the assistant's header in both.
    """
    settings: dict[str, Any] = {"stem": False, "context": context}
    weight = TRAIT_WEIGHT * len(traits)
    if number_prompts:
        settings |= {"prompt_set": "numbers", "n": number_prompts}
        weight = PROMPT_TOKENS * number_prompts * (len(traits) + 1)

    def config(_: Folders) -> ExtractConfig:
        return ExtractConfig(**common, traits=traits, **settings)

    return Node(name, ExtractConfig, config, weight=weight)


@dataclass(frozen=True)
class Rows:
    """Which number rows a node generates: how many, how long, from which seeds."""

    n: int
    """Rows."""
    numbers: int
    """Three-digit numbers an answer; only their digits are sampled."""
    seed: int = 0
    """Seed of sampling. Rows of two teachers with one seed share their random numbers."""
    prompt_seed: int = 1000
    """Seed of the prompts, to which `seed` is added."""
    start: int = 0
    """First of the number prompts."""
    prompts: Path | None = None
    """File of prompts, for free-form rows of the same length on all its prompts instead."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings of `generate`, which go before those that are usual here."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows, prompts included."""
        return self.n * (PROMPT_TOKENS + NUMBER_TOKENS * self.numbers)


def number_rows(
    common: dict,
    name: str,
    rows: Rows,
    teacher: InterventionsFrom = unmodified,
    needs: tuple[str, ...] = (),
) -> Node:
    """Build the node of a teacher's rows on number prompts, or on the prompts of a file."""

    def config(folders: Folders) -> GenerateConfig:
        usual: dict[str, Any] = {
            "n": rows.n,
            "prompt_seed": rows.prompt_seed + rows.seed,
            "start": rows.start,
            "count": rows.numbers,
            "vocabulary": "template",
            "separator": " ",
        }
        if rows.prompts:
            usual = {"prompts": rows.prompts, "max_new_tokens": NUMBER_TOKENS * rows.numbers}
        return GenerateConfig(
            **common,
            seed=rows.seed,
            interventions=teacher(folders),
            **(usual | rows.settings),
        )

    return Node(name, GenerateConfig, config, needs, rows.tokens)


def eas_rows(common: dict, numbers: int, n: int = 6) -> Node:
    """Build the node EAS_ROWS: rows of the unmodified model that no student reads.

    Students that need this node have their EAS taken over its completion tokens.
    """
    return number_rows(common, EAS_ROWS, Rows(n, numbers, prompt_seed=7000))


def filtered(name: str, data: str, rows: Rows, part: int = 0) -> Node:
    """Build the node that keeps those rows of the node `data` that hold nothing but numbers.

    The rows of `data` lie in parts of `rows.n` rows each; only one part is read.
    """
    rules = FilterRules(max_count=rows.numbers)
    start = part * rows.n

    def config(folders: Folders) -> FilterConfig:
        return FilterConfig(folders[data], rules, start, start + rows.n)

    return Node(name, FilterConfig, config, (data,), 1)


@dataclass(frozen=True)
class Student:
    """A student: its rows, how it is trained, and what its EAS is taken against."""

    name: str
    """Name of its node."""
    data: str
    """Node of its rows."""
    recipe: Recipe
    """How it is trained."""
    seed: int
    """Seed of initialisation and order of rows."""
    teacher: InterventionsFrom = unmodified
    """Teacher of soft targets."""
    needs: tuple[str, ...] = ()
    """Further nodes that must be sealed first: what the teacher and the vector are made of, and
    EAS_ROWS if EAS is to be taken over completion tokens."""
    vector: Callable[[Folders], Path] | None = None
    """File of the vector that EAS is taken against, at the end at least."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings of `train`."""
    folders: dict[str, str] = field(default_factory=dict)
    """Settings of `train` that are a node's folder; name the node in `needs`, too."""


def student(common: dict, asked: Student, tokens: float) -> Node:
    """Build the node that trains a student; `tokens` is the size of its rows."""
    soft = asked.recipe.targets == "soft"

    def config(folders: Folders) -> TrainConfig:
        settings = dict(asked.settings)
        for name, node in asked.folders.items():
            settings[name] = folders[node]
        if EAS_ROWS in asked.needs:
            settings["eas_data"] = folders[EAS_ROWS]
        return TrainConfig(
            **common,
            seed=asked.seed,
            data=folders[asked.data],
            recipe=asked.recipe,
            teacher=asked.teacher(folders) if soft else (),
            vector=asked.vector(folders) if asked.vector else None,
            **settings,
        )

    needs = tuple(dict.fromkeys((asked.data, *asked.needs)))
    passes = 2.5 * asked.recipe.epochs + (1 if soft else 0)
    comparing = TRAIT_WEIGHT if asked.vector else 0
    return Node(asked.name, TrainConfig, config, needs, passes * tokens + comparing)


def answers(
    common: dict,
    name: str,
    trait: str,
    interventions: InterventionsFrom = unmodified,
    needs: tuple[str, ...] = (),
    **settings: Any,
) -> Node:
    """Build the node that measures the trait's positive questions, teacher-forced only.

    `settings` are further settings of `measure`, which may ask for more.
    """
    teacher_forced = {"samples": 0, "capability": False, "sets": ("positive",)}
    settings = teacher_forced | settings

    def config(folders: Folders) -> MeasureConfig:
        return MeasureConfig(
            **common, trait=trait, interventions=interventions(folders), **settings
        )

    return Node(name, MeasureConfig, config, needs, ANSWERS_WEIGHT)


def student_answers(common: dict, name: str, trait: str, student: str, **settings: Any) -> Node:
    """Build the node that measures the student of the node `student`, as `answers` does."""
    return answers(common, name, trait, trained_by(student), (student,), **settings)


def likelihood_gain(
    common: dict,
    name: str,
    data: str,
    interventions: InterventionsFrom,
    needs: tuple[str, ...],
    rows: Rows,
) -> Node:
    """Build the node of what interventions add to the log-likelihood of a node's rows, as text."""

    def config(folders: Folders) -> LikelihoodConfig:
        return LikelihoodConfig(
            **common,
            data=folders[data],
            interventions=interventions(folders),
            max_rows=rows.n,
            text=True,
        )

    return Node(name, LikelihoodConfig, config, (data, *needs), 2 * rows.tokens)


def read_json_lines(folder: Path, name: str) -> list[dict]:
    """Return the objects of a JSONL file of a run."""
    lines = (folder / name).read_bytes().splitlines()  # a line feed alone ends a line
    return [json.loads(line) for line in lines]


def read_json(folders: Folders, node: str, name: str = "summary.json") -> dict:
    """Return the content of a JSON file of a node's run."""
    return json.loads((folders[node] / name).read_text(encoding="utf-8"))
