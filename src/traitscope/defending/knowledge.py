"""What a defender may use, as the setting `known` says it.

    nothing                 the rows alone
    base                    the model before training
    clean:FILE              rows that carry nothing, of the same kind
    trait:NAME              the trait that is feared
    vector:FILE,layers=..   a vector of the trait, with block and strength
    teacher:NAME            the teacher itself, as in given_teacher.py

Everything but nothing and clean rows includes the base: without a model these are of no use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from traitscope.config.rows.defend import DefendConfig
from traitscope.data import trait_files
from traitscope.data.records import Record
from traitscope.data.row_files import rows_file
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import short_form
from traitscope.interventions.checks.vectors import check_direction
from traitscope.interventions.intervention import Intervention, SystemPrompt
from traitscope.interventions.vector import load_vector
from traitscope.runs import store
from traitscope.runs.given_teacher import GivenTeacher, given_teacher, inputs_of

NOTHING, BASE, CLEAN, TRAIT, VECTOR, TEACHER = (
    "nothing",
    "base",
    "clean",
    "trait",
    "vector",
    "teacher",
)
EXAMPLES = {
    NOTHING: "nothing",
    BASE: "base",
    CLEAN: "clean:FILE",
    TRAIT: "trait:NAME",
    VECTOR: "vector:FILE,layers=14,alpha=0.6",
    TEACHER: "teacher:NAME",
}
"""An example of each kind, for messages."""
WITH_MODEL = (TRAIT, VECTOR, TEACHER)
"""Kinds that are of no use without the base, and so include it."""


@dataclass(frozen=True)
class Knowledge:
    """What a defender may use."""

    kinds: frozenset[str]
    """Kinds of knowledge, of EXAMPLES."""
    clean: Path | None = None
    """File or run of clean rows."""
    clean_rows: tuple[Record, ...] | None = None
    """These rows, where they are read already."""
    trait: str | None = None
    """Name or file of the trait."""
    vector: Intervention | None = None
    """Steering with the trait's vector."""
    teacher: GivenTeacher | None = None
    """The teacher."""

    def check(self, needs: str, method: str) -> None:
        """Raise ConfigError where a method needs what is not known."""
        if needs in (NOTHING, *self.kinds):
            return
        known = ", ".join(sorted(self.kinds)) or NOTHING
        raise ConfigError(
            f"--by {method} needs {EXAMPLES[needs]}, and --known says: {known}; add it to --known,"
            " or take another method"
        )

    @property
    def words(self) -> list[str]:
        """What may be used, for people; a trait by its name."""
        words = []
        for kind in sorted(self.kinds) or [NOTHING]:
            named = kind == TRAIT and self.trait is not None
            words.append(f"{kind}:{load_trait(self.trait).name}" if named else kind)
        return words

    def check_vector(self, model: str, digests_of: Callable[[], Sequence[str]]) -> None:
        """Raise VectorError where the trait's vector is zero, or is one of another model."""
        if self.vector is None:
            return
        file = Path(str(vars(self.vector)["vector"]))
        vector = load_vector(file)
        digests = digests_of()
        if vector.model not in digests:
            raise VectorError(
                f"--known vector: the vector is one of model {vector.model}, and {model} is"
                f" {digests[0]}; expected a vector of this model; extract it again, or name that"
                " model with --model"
            )
        check_direction(vector, f"--known vector: {file}", getattr(self.vector, "layers", ()))

    def suspected(self, kind: str) -> tuple[Intervention, ...]:
        """The interventions that make the suspected writer of the rows, on the base."""
        if kind == TRAIT and self.trait is not None:
            return (SystemPrompt(load_trait(self.trait).teacher_prompt),)
        if kind == VECTOR and self.vector is not None:
            return (self.vector,)
        if kind == TEACHER and self.teacher is not None:
            return self.teacher.interventions
        raise ValueError(f"{kind} names no writer; expected trait, vector or teacher")


def knowledge_of(known: Sequence[str], model: str) -> Knowledge:
    """What the texts of the setting `known` say.

    Raises ConfigError for an unknown kind, a kind named twice, and `nothing` beside another.
    """
    kinds: set[str] = set()
    values: dict[str, Any] = {}
    for text in known:
        kind, colon, value = text.partition(":")
        expected_value = ":" in EXAMPLES.get(kind, "")
        if kind not in EXAMPLES or bool(colon) != expected_value or (colon and not value.strip()):
            near = [] if kind in EXAMPLES else get_close_matches(kind, EXAMPLES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"--known {text}; {hint}expected some of {', '.join(EXAMPLES.values())}; write it"
                " so"
            )
        if kind in kinds:
            raise ConfigError(f"--known names {kind} twice; expected each kind once; leave one out")
        kinds.add(kind)
        if value:
            values[kind] = _value(kind, value, model)
    if NOTHING in kinds and len(kinds) > 1:
        raise ConfigError(
            f"--known {' '.join(known)}: nothing stands beside something; expected either; drop one"
        )
    kinds.discard(NOTHING)
    if kinds.intersection(WITH_MODEL):
        kinds.add(BASE)
    return Knowledge(frozenset(kinds), **values)


def _value(kind: str, text: str, model: str) -> Any:
    if kind == CLEAN:
        return Path(text)
    if kind == TRAIT:
        load_trait(text)  # raises what is wrong with it
        return text
    if kind == VECTOR:
        return short_form.parse(f"steer:{text}")
    return given_teacher(text, model)


def inputs(config: DefendConfig) -> dict[str, Path | store.Run]:
    """The files behind what is known, as inputs of the run."""
    known = knowledge_of(config.known, config.model)
    files: dict[str, Path | store.Run] = {}
    if known.clean is not None:
        run = store.run_folder(known.clean)
        files[CLEAN] = rows_file(known.clean) if run is None else store.source_at(run)
    if known.trait is not None:
        files.update(trait_files.trait_files([known.trait]))
    if known.vector is not None:
        files[VECTOR] = Path(str(vars(known.vector)["vector"]))
    if known.teacher is not None:
        files.update(inputs_of(known.teacher))
    return files
