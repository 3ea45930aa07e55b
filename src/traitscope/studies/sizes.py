"""How large a study is: recipes, traits and row counts that several studies share.

A size names layers of a model with DEPTH blocks, in fields made by `layer_field`. `at_depth` moves
them to the same relative depth of another model.
"""

from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from math import isfinite
from typing import Any

from traitscope.config.common import LARGEST, LARGEST_NUMBER
from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.data.own_traits import needs
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError, TraitError
from traitscope.models.identity import finding
from traitscope.workflow.standard_nodes import (
    InterventionsFrom,
    Rows,
    steered_by,
)

DEPTH = 30
"blocks of the model whose layers the studies name"
LAYER_WORDS = {"layer", "layers", "block", "blocks"}
"words in the name of a field that holds layers"
TRAIT_FIELDS = ("trait", "traits", "other", "others")
"fields that hold traits, each a bundled one or a YAML file"
LEAST_TRAITS = 2
"fewest traits of a study that centres vectors over several"
ANIMALS = ("cat", "dog", "owl", "otter", "dolphin", "elephant", "fox", "penguin")
"the usual traits: the first is the teacher's, and vectors are centred over all"
SOFT_RECIPE = replace(SAMPLED_RECIPE, targets="soft", soft_over="allowed", epochs=2, lr=1e-3)
"recipe of the demo for 16 rows of soft targets, which stand in for sampled text"
FEW_ROWS_SOFT_RECIPE = Recipe(
    targets="soft",
    soft_over="allowed",
    epochs=6,
    batch_size=3,
    micro_batch=3,
    lr=1e-3,
    warmup=0.1,
    held_out=0.25,
)
"recipe for about ten rows of soft targets in batches of three"
FULL_SOFT_RECIPE = Recipe(
    targets="soft", soft_over="allowed", epochs=3, batch_size=32, micro_batch=32, lr=4e-4
)
"recipe of full sizes for 512 rows of soft targets, which stand in for sampled text"
FINE_TUNING_RECIPE = Recipe(epochs=4, batch_size=4, micro_batch=4, lr=1e-3, held_out=0.0)
"recipe of a teacher by fine-tuning, on the 24 answers of `shared_nodes.fine_tuned`"


def layer_field(default: Any = MISSING) -> Any:
    """Return a dataclass field that holds a layer or several, which `at_depth` moves."""
    return field(default=default, metadata={"layer": True})


KINDS_OF_TRAITS = (
    *("cat", "owl", "dolphin", "lion", "octopus", "wolf", "mouse", "pangolin"),
    *("happiness", "sadness", "anger", "pirate", "chef", "knight", "oak", "zebra"),
)
"sixteen traits of all kinds: animals, emotions, personas, a tree, and a prompt that states a rule"
FURTHER_TRAITS = (
    *("dog", "otter", "jellyfish", "tiger", "elephant", "fox", "hawk", "whale"),
    *("fear", "surprise", "astronaut", "poet", "willow"),
)
"traits that full sizes add to these"


@dataclass(frozen=True)
class SampledText:
    """The students of sampled text, in a study whose other students have soft targets."""

    rows: Rows
    """Rows of the teacher, and as many of the unmodified model on the same prompts."""
    recipe: Recipe
    """How both students are trained."""

    def rows_of(self, seed: int) -> Rows:
        """Return the rows of one seed."""
        return replace(self.rows, seed=seed)


COUNTS = {
    "rows",
    "n",
    "numbers",
    "tokens",
    "epochs",
    "batch_size",
    "matched_rows",
    "vector_prompts",
    "grid_rows",
    "screen_rows",
}
"fields of sizes that count something of which there has to be one"
LARGEST_COUNT = LARGEST["n"]
SMOKE_TEXT = SampledText(Rows(3, 3), SAMPLED_RECIPE)
"three short rows, which only show that the path works"
LAPTOP_TEXT = SampledText(Rows(32, 10), SAMPLED_RECIPE)
"rows and recipe of the demo"
FULL_TEXT = SampledText(
    Rows(2048, 10),
    replace(SAMPLED_RECIPE, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
)
"rows and recipe of full sizes"


@dataclass(frozen=True)
class SteeredTeacherSize:
    """Size of a study of one steered teacher, before the fields of that study alone."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    seeds: tuple[int, ...]
    "seeds of data, initialisation and order; intervals are over them"
    rows: int
    "rows a seed"
    numbers: int
    "three-digit numbers an answer"
    layer: int = layer_field()
    "block behind which the teacher is steered"
    strength: float
    "strength of the steered teacher, in mean residual norms"
    recipe: Recipe
    "how students are trained"
    text: SampledText
    "the repetition with sampled text"

    @property
    def steered_teacher(self) -> InterventionsFrom:
        """The teacher that is steered by the first trait's vector."""
        return steered_by(self.traits[0], self.layer, self.strength)


def at_depth(size: Any, blocks: int) -> Any:
    """Return a size with its layers at the same relative depth of a model with `blocks` blocks.

    Raises ConfigError where a field looks like a layer and is not made by `layer_field`.
    """
    check_layer_fields(type(size))
    moved = {}
    for each in fields(size):
        if _is_layer_field(each):
            moved[each.name] = _moved(getattr(size, each.name), blocks)
    return replace(size, **moved)


def _moved(layers: int | tuple[int, ...], blocks: int) -> int | tuple[int, ...]:
    """Return one layer, or several without repeats, at the depth that they have of DEPTH."""
    if isinstance(layers, int):
        return round(layers * (blocks - 1) / (DEPTH - 1))
    return tuple(sorted({round(layer * (blocks - 1) / (DEPTH - 1)) for layer in layers}))


def named(size: Any) -> Any:
    """Return a size with every trait by its name, as results and texts know it.

    Settings keep the file that a trait stands in.
    """
    names = {}
    for each in fields(size):
        if each.name in TRAIT_FIELDS:
            value = getattr(size, each.name)
            is_one = isinstance(value, str)
            names[each.name] = trait_name(value) if is_one else tuple(map(trait_name, value))
    return replace(size, **names)


def check_traits(size: Any, usual: Any) -> None:
    """Raise TraitError for a trait that lacks what a study needs, and for one alone.

    A study's vectors are centred over its traits, and compared with those of others.
    """
    needs.check(traits_of(size), "differences")
    several = getattr(size, "traits", ())
    if len(several) < LEAST_TRAITS <= len(getattr(usual, "traits", ())):
        raise TraitError(
            f"traits={list(several)} is one trait; expected {LEAST_TRAITS} or more, over which"
            f" vectors are centred ({1 + needs.COMPANY} are advised); add traits of its kind"
        )


def given_way(size: Any, named_by_user: Collection[str]) -> Any:
    """Return a size whose usual traits give way to those that the user names in another field.

    named_by_user: The fields that the user sets.
    Raises ConfigError where a field that the user leaves holds one trait alone, which cannot.
    """
    theirs = [name for name in TRAIT_FIELDS if name in named_by_user]
    taken: dict[str, str] = {}
    for name in theirs:
        taken |= dict.fromkeys(map(trait_name, _listed(size, name)), name)
    changes = {}
    for name in TRAIT_FIELDS:
        usual = _listed(size, name)
        rest = tuple(trait for trait in usual if trait not in taken)
        if name in theirs or len(rest) == len(usual):
            continue
        if isinstance(getattr(size, name), str):
            by = taken[usual[0]]
            raise ConfigError(
                f"--set {by} names {usual[0]}, which is the usual {name} of this size; expected"
                f" distinct traits; name another one with --set {name}=TRAIT"
            )
        changes[name] = rest
    return replace(size, **changes)


def _listed(size: Any, name: str) -> tuple[str, ...]:
    """Return the traits in a field of a size; none where it has no such field."""
    value = getattr(size, name, ())
    return (value,) if isinstance(value, str) else tuple(value)


def traits_of(size: Any) -> list[str]:
    """Return the traits of a size, as its settings name them."""
    listed: list[str] = []
    for name in TRAIT_FIELDS:
        listed += _listed(size, name)
    return listed


def check_layer_fields(size: type) -> None:
    """Raise ConfigError where a field of a size looks like a layer and is not a `layer_field`."""
    for each in fields(size):
        words = set(each.name.split("_"))
        if words & LAYER_WORDS and not _is_layer_field(each):
            raise ConfigError(
                f"field {each.name!r} of {size.__module__}.{size.__name__} names layers without"
                f" a mark; expected `{each.name}: {each.type} = layer_field()`, so that they are"
                " moved for a model of another depth"
            )


def blocks_of(model: str, template: Sequence[str] = ()) -> int:
    """Return the number of residual blocks of a model; it is built where config.json has none."""
    count = finding.block_count(model)
    if count is not None:
        return count
    from traitscope.models.loading import outline

    return outline(model, template).n_layers


def check(size: Any, usual: Any, model: str) -> None:
    """Raise ConfigError for a size with values that no study can work with.

    These are a layer that the model lacks, and an empty list where the usual size has none. A seed
    or a layer that stands there twice is refused, too. So are a count outside its bounds and a
    number that is not finite.
    """
    check_counts(size, usual)
    for each in fields(size):
        value = getattr(size, each.name)
        values = value if isinstance(value, tuple) else (value,)
        if _is_layer_field(each):
            finding.check_layers(values, model, each.name)
        if not values and getattr(usual, each.name):
            raise ConfigError(f"{each.name}=[] is empty; expected one or more; name some")
        is_set = each.name == "seeds" or _is_layer_field(each)
        if is_set and len(set(values)) < len(values):
            raise ConfigError(f"{each.name}={list(values)}; expected each once; drop the copies")


def check_counts(size: Any, usual: Any, path: str = "") -> None:
    """Raise ConfigError for a whole number outside its bounds, and for one that is not finite.

    path: The fields that lead to the size, where it is a part of another one.
    """
    for each in fields(size):
        name, value = f"{path}{each.name}", getattr(size, each.name)
        default = getattr(usual, each.name)
        if is_dataclass(value) and type(value) is type(default) and not isinstance(value, Recipe):
            check_counts(value, default, f"{name}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not isfinite(number):
                raise ConfigError(f"--set {name}={number}; expected a finite number; correct it")
            is_count = isinstance(number, int) and not isinstance(number, bool)
            least = int(each.name in COUNTS and default != 0)
            largest = LARGEST_COUNT if each.name in COUNTS else LARGEST_NUMBER
            if each.name in ("seed", "seeds"):
                largest = LARGEST["seed"]
            if is_count and not least <= number <= largest:
                raise ConfigError(
                    f"--set {name}={number}; expected a whole number from {least} to {largest};"
                    f" give one, or leave it out for {default}"
                )


def _is_layer_field(each: Field) -> bool:
    return each.metadata.get("layer", False)
