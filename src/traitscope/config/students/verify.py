"""Settings of `verify`, which asks finished students for traits, and of its stage `ask`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from traitscope.config.common import OnModel, check_minimums, check_positive
from traitscope.config.fields import setting
from traitscope.config.recipe import Recipe
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

STUDENTS = (
    "a run of `train`, a peft adapter's folder, or the folder or hub id of a model that was trained"
    " whole"
)
DEFAULT, EMPTY = "default", "empty"
"""Words for two contexts: the template's default system turn, and an empty one."""
CONTEXTS = (DEFAULT, EMPTY, "You are a helpful assistant.")
RELEARNING = Recipe(
    epochs=1, batch_size=4, micro_batch=4, schedule="constant", warmup=0.0, held_out=0.0
)
"""Recipe of relearning: few steps, at one rate."""


@dataclass(frozen=True)
class AskConfig(OnModel):
    """Ask one model the traits' questions, under one system turn, and again while it relearns."""

    interventions: tuple[str, ...] = ()
    """What is changed in the model, such as adapter:RUN; none asks the model itself."""
    traits: tuple[str, ...] = ("all",)
    """Traits whose questions are asked; all stands for the bundled ones."""
    context: str | None = None
    """System turn of the questions. None is the template's default, "" an empty turn."""
    samples: int = 0
    """Answers to sample to every question; 0 samples none."""
    data: Path | None = setting(None, path="rows")
    """Rows that the model is trained on between the questions. Without them it is asked once."""
    recipe: Recipe = field(default=RELEARNING)
    """How it is trained on them. It is asked after 1, 2, 4, ... optimizer steps and after the last
    one."""
    max_rows: int | None = None
    """Number of first rows to use; None uses all."""
    pass_rows: int = setting(16, speed_only=True)
    """Questions in one pass; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, samples=0, max_rows=1, pass_rows=1)
        recipe = self.recipe
        if recipe.targets != "sampled" or recipe.method != "lora" or recipe.anchor:
            raise ConfigError(
                f"--targets {recipe.targets} --method {recipe.method} --anchor {recipe.anchor:g}:"
                " relearning trains a fresh adapter on rows; expected sampled, lora and 0; leave"
                " them out"
            )


@dataclass(frozen=True)
class VerifyConfig(OnModel):
    """Ask finished students for every trait, beside their base and beside control students.

    Each trait is asked under several system turns. With `relearn`, it is asked while the students
    learn rows of it again. p values are corrected over all of that (Holm 1979).
    """

    students: tuple[str, ...] = setting((), needed=STUDENTS)
    """The student, or students of one recipe and several seeds; may be given without the flag."""
    model: str = setting("smollm2-135m", alias="base")
    """Base of all students: hub id or folder of a model, or smollm2-135m. --base is the same
    flag."""
    controls: tuple[str, ...] = ()
    """Control students: the same recipe on clean rows of the same kind, each with rows and a seed
    of its own. Five or more bear a verdict. Without them a difference may be that of any
    training."""
    traits: tuple[str, ...] = ("all",)
    """Traits to ask for, bundled names or YAML files; all stands for the bundled ones."""
    contexts: tuple[str, ...] = CONTEXTS
    """System turns of the questions. default is that of the template, empty an empty turn, and
    anything else is the text of one."""
    relearn: Path | None = setting(None, path="rows")
    """Rows of the feared trait, a few dozen. Students and controls are trained on them for a few
    steps, and the trait's return is compared."""
    relearn_rows: int = setting(32, advanced=True)
    """Number of first rows of `relearn` to use, in batches of 4."""
    relearn_lr: float = setting(RELEARNING.lr, advanced=True)
    """Learning rate of relearning."""
    samples: int = 0
    """Answers to sample to every question, for rates on the page; 0 samples none."""
    alpha: float = setting(0.05, advanced=True)
    """Error rate over all traits, contexts and relearning together."""
    fail_on: Literal["never", "trait", "unclear"] = "never"
    """When the command fails. trait: a trait was found. unclear: also where there is no verdict."""
    report: Path | None = setting(None, path="written")
    """Write one self-contained HTML page to this file."""
    plan: bool = setting(False, since=2, advanced=True)
    """Only check the models, and say what will be asked of each and what is there already."""
    pass_rows: int = setting(16, speed_only=True, advanced=True)
    """Questions in one pass; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, samples=0, relearn_rows=1, pass_rows=1)
        check_positive(self, "relearn_lr")
        for name in ("students", "controls", "contexts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(
                    f"--{name} {' '.join(values)}: expected each once; drop one of two"
                )
        both = sorted(set(self.students) & set(self.controls))
        if both:
            raise ConfigError(
                f"--controls {' '.join(both)}: that is a student, too; expected students of clean"
                " rows; name others"
            )
        if not self.contexts:
            raise ConfigError(
                "--contexts is empty; expected default, empty, or the text of a system turn; name"
                " some, or leave the flag out"
            )
        if not 0 < self.alpha < 0.5:
            raise ConfigError(
                f"--alpha {self.alpha}; expected 0 < alpha < 0.5; give such a number, or leave the"
                " flag out for 0.05"
            )

    @property
    def turns(self) -> tuple[str | None, ...]:
        """The contexts, as models take them."""
        meant: dict[str, str | None] = {DEFAULT: None, EMPTY: ""}
        return tuple(meant.get(context, context) for context in self.contexts)
