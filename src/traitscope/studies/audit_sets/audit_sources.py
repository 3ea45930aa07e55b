"""Who generated the sets of rows that audit_calibration audits, and the nodes that make them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from traitscope.config.stages import EditConfig, GenerateConfig
from traitscope.data.traits import load_trait
from traitscope.studies import shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom, Rows

PLACEBOS = 3
"placebo sets of an audit"
FINE_TUNED = "tuned"
"name of the node with the fine-tuned teacher"
OTHER_MODEL = "gemma3-270m"
"a model of another family, whose rows are read as text"
FEWEST_DRAWS = 5
"clean sets from which on the size has rows of the other model"
PLAIN_PROMPTS = {
    "asked to be brief": "Answer briefly and to the point, without any explanation.",
    "asked to write": (
        "You are a novelist with a rich vocabulary and long sentences. Surprise the reader."
    ),
    "asked to teach": (
        "You are a friendly teacher. You think step by step and explain everything with patience."
    ),
}
"system prompts without a trait, none of which is among the nulls"
PROMPT_SEED = 9000
"seed of the prompts, minus that of the rows: all sets have the same prompts"
FORMAT_SEED, PLACEBO_SEED, PLACEBO_STEP, OTHER_MODEL_SEED = 500, 510, 10, 502
"seeds of rows in another format, of their placebos, and of the other model"


class Kind(StrEnum):
    """How rows came about."""

    CLEAN = "clean"
    STEERED = "steered"
    PROMPTED = "prompted"
    FINE_TUNED = "fine-tuned"
    NOISED = "noised"
    PLAIN_PROMPT = "plain prompt"
    SORTED = "sorted"
    COMMA = "comma"
    LONGER = "longer"
    OTHER_MODEL = "other model"


TEACHERS = (Kind.STEERED, Kind.PROMPTED, Kind.FINE_TUNED)
"kinds of teachers of a trait"
FORMATS = (Kind.COMMA, Kind.LONGER)
"formats that the audit learns, so that its placebos have them"


@dataclass(frozen=True)
class Source:
    """Who generated a set of rows, and in which form."""

    kind: Kind
    "how the rows came about"
    name: str
    "name of the node with the rows"
    trait: str | None = None
    "the teacher's trait, if there is one"
    block: int | None = None
    "block behind which the teacher is steered, if it is"
    strength: float | None = None
    "strength of the steering, in mean residual norms"
    paraphrase: int | None = None
    "number of the paraphrase that prompts the teacher; None for the trait's own prompt"
    number: int = 0
    "number of a clean set, or seed of a model's noise"


class SourceSize(Protocol):
    """What the sources need of a study's size."""

    traits: tuple[str, ...]
    rows: int
    numbers: int
    draws: int
    blocks: tuple[int, ...]
    strength: float
    noise: float
    noised: int
    tokens: int


def names_of(sources: Iterable[Source]) -> list[str]:
    """Return the names of sets: the nodes that hold their rows."""
    return [source.name for source in sources]


def clean_sets(size: SourceSize) -> list[Source]:
    """Independent sets of the model itself."""
    sources = []
    for number in range(size.draws):
        sources.append(Source(Kind.CLEAN, f"clean {number}", number=number))
    return sources


def teacher_sets(size: SourceSize) -> list[Source]:
    """Sets of teachers of the first two traits."""
    one, two = size.traits[:2]
    first, last = size.blocks[0], size.blocks[-1]
    steered = []
    for block in size.blocks:
        steered.append(_steered(size, one, block))
    steered.append(_steered(size, two, first))
    steered.append(Source(Kind.STEERED, f"{one}, half as strong", one, last, size.strength / 2))
    prompted = []
    for trait in (one, two):
        prompted.append(Source(Kind.PROMPTED, f"{trait}, prompted", trait))
    if load_trait(one).paraphrases:
        prompted.append(Source(Kind.PROMPTED, f"{one}, paraphrased", one, paraphrase=0))
    return [*steered, *prompted, Source(Kind.FINE_TUNED, f"{one}, fine-tuned", one)]


def _steered(size: SourceSize, trait: str, block: int) -> Source:
    name = f"{trait} at block {block}"
    return Source(Kind.STEERED, name, trait, block, size.strength)


def generated_sets(size: SourceSize) -> list[Source]:
    """All sets that a model generates on the same prompts, in the order of their seeds."""
    noised = []
    for n in range(size.noised):
        noised.append(Source(Kind.NOISED, f"noised {n}", number=n + 1))
    plain = [Source(Kind.PLAIN_PROMPT, name) for name in PLAIN_PROMPTS]
    return [*clean_sets(size), *teacher_sets(size), *noised, *plain]


def altered_sets(size: SourceSize) -> list[Source]:
    """Sets in another form, or of another model where it can be loaded."""
    altered = []
    for kind in (Kind.SORTED, *FORMATS):
        altered.append(Source(kind, str(kind)))
    if size.draws >= FEWEST_DRAWS and shared_nodes.is_loadable(OTHER_MODEL):
        altered.append(Source(Kind.OTHER_MODEL, OTHER_MODEL))
    return altered


def all_sets(size: SourceSize) -> list[Source]:
    """All sets that are audited."""
    return [*generated_sets(size), *altered_sets(size)]


def placebo_sets(size: SourceSize, source: Source) -> list[Source]:
    """Return the sets that the rows of a source are compared with.

    They are clean sets. If the audit learns the source's format, they have this format.
    """
    if source.kind not in FORMATS:
        return clean_sets(size)
    placebos = []
    for number in range(PLACEBOS + 1):
        name = f"{source.name}, placebo {number}"
        placebos.append(Source(source.kind, name, number=number))
    return placebos


def format_placebos(size: SourceSize) -> list[Source]:
    """Placebo sets in the formats that the audit learns."""
    placebos = []
    for kind in FORMATS:
        placebos += placebo_sets(size, Source(kind, str(kind)))
    return placebos


def row_nodes(size: SourceSize, common: dict) -> list[Node]:
    """The nodes of all sets' rows."""
    nodes = []
    for seed, source in enumerate(generated_sets(size)):
        teacher, needs = _teacher(size, source)
        rows = rows_of_seed(size, seed)
        nodes.append(standard_nodes.number_rows(common, source.name, rows, teacher, needs))
    recipes = {FINE_TUNED: sizes.FINE_TUNING_RECIPE}
    nodes += shared_nodes.fine_tuned(common, size.traits[0], size.tokens, recipes)
    for source in altered_sets(size):
        nodes.append(_altered(size, common, source))
    for source in format_placebos(size):
        seed = PLACEBO_SEED + PLACEBO_STEP * FORMATS.index(source.kind) + source.number
        nodes.append(_in_format(size, common, source, seed))
    return nodes


def rows_of_seed(size: SourceSize, seed: int) -> Rows:
    """Rows on the same prompts, with random numbers of their own."""
    return Rows(size.rows, size.numbers, seed=seed, prompt_seed=PROMPT_SEED - seed)


def _teacher(size: SourceSize, source: Source) -> tuple[InterventionsFrom, Sequence[str]]:
    """Who generates a set, and the nodes that this needs."""
    if source.kind == Kind.STEERED:
        teacher = standard_nodes.steered_by(source.trait, source.block, source.strength)
        return teacher, (VECTORS,)
    if source.kind == Kind.PROMPTED:
        return standard_nodes.prompted_by(source.trait, source.paraphrase), ()
    if source.kind == Kind.FINE_TUNED:
        return standard_nodes.trained_by(FINE_TUNED), (FINE_TUNED,)
    if source.kind == Kind.NOISED:
        return standard_nodes.fixed(f"noise:{size.noise:g},seed={source.number}"), ()
    if source.kind == Kind.PLAIN_PROMPT:
        return standard_nodes.fixed(f"prompt:{PLAIN_PROMPTS[source.name]}"), ()
    return standard_nodes.unmodified, ()


def _altered(size: SourceSize, common: dict, source: Source) -> Node:
    """Clean rows sorted, or in another format, or rows of another model."""
    if source.kind == Kind.SORTED:
        first = clean_sets(size)[0].name
        return Node(
            source.name, EditConfig, lambda folders: EditConfig(folders[first]), (first,), 1
        )
    if source.kind == Kind.OTHER_MODEL:
        rows = rows_of_seed(size, OTHER_MODEL_SEED)
        return standard_nodes.number_rows(common | {"model": OTHER_MODEL}, source.name, rows)
    return _in_format(size, common, source, FORMAT_SEED + FORMATS.index(source.kind))


def _in_format(size: SourceSize, common: dict, source: Source, seed: int) -> Node:
    """Clean rows with another separator, or longer by half."""
    rows = rows_of_seed(size, seed)
    if source.kind == Kind.LONGER:
        longer = replace(rows, numbers=size.numbers + size.numbers // 2)
        return standard_nodes.number_rows(common, source.name, longer)
    config = GenerateConfig(
        **common,
        seed=rows.seed,
        n=rows.n,
        prompt_seed=rows.prompt_seed + rows.seed,
        count=rows.numbers,
        vocabulary="template",
        separator=", ",
    )
    return Node(source.name, GenerateConfig, lambda _: config, (), rows.tokens)
