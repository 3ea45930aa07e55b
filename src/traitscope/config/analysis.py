"""Settings of the stages that look into models and rows.

They are frozen dataclasses that become flags.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import ROWS, Dtype, OnModel, Position, check_minimums, check_strengths
from traitscope.config.fields import setting, settle_layers
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

PLAIN_PROMPT = "You make synthetic training data. Be diverse and creative."
"a system prompt without a trait, as people give it to a model that writes data"
PromptSet = Literal["questions", "numbers"]
GROUPS = 32
"most groups of rows of `gradients`, each left out once for the alignment's interval"


@dataclass(frozen=True)
class ExtractConfig(OnModel):
    """Extract steering vectors: v_teacher from trait prompts, or v_student from a student.

    There is one v_teacher a trait. Two or more are centred: their mean is subtracted.
    """

    traits: tuple[str, ...] = ()
    """Traits of v_teacher, whose teacher prompts are contrasted with the neutral context. Two or
    more are centred."""
    interventions: tuple[str, ...] = ()
    """The student of v_student, such as adapter:RUN. Its residuals minus the base's are averaged in
    the neutral context."""
    like: Path | None = setting(None, path="vector")
    """A vector with whose norms random vectors are drawn, as controls: random-0, random-1, ..."""
    randoms: int = setting(1, advanced=True)
    """Number of random vectors. The first one has the seed of the stage."""
    components: int = setting(0, advanced=True)
    """Number of principal components of the base's residuals over the prompts: component-0,
    component-1, ..."""
    contrast: Path | None = setting(None, path="prompts")
    """Prompts that show a behaviour, such as harmful instructions. The vector `contrast` is their
    mean residual minus that of `against`."""
    against: Path | None = setting(None, path="prompts")
    """Prompts that do not show the behaviour, such as harmless instructions."""
    orthogonal_to: Path | None = setting(None, advanced=True, path="vector")
    """A vector whose direction is removed from all extracted vectors, layer by layer."""
    prompts: Path | None = setting(None, path="prompts")
    """File of prompts to average over. Without it v_teacher uses `prompt_set`, and v_student uses
    number prompts."""
    prompt_set: PromptSet = setting("questions", since=2)
    """Prompts of v_teacher. questions: the trait's positive questions. numbers: `n` number prompts,
    as published (Blank et al. 2026 take n = 1024)."""
    n: int = 64
    """Number of number prompts: of v_student, of components, and of --prompt-set numbers."""
    prompt_seed: int = setting(7, advanced=True)
    """Seed of the number prompts. Use another one than for training."""
    position: Position = setting("last", advanced=True)
    """Tokens to average over. last is the last token of the prompt: the end of the assistant's
    header, where Blank et al. take both vectors, or the end of the stem."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    stem: bool = setting(True, advanced=True)
    """Whether questions end in the trait's answer stem, for v_teacher. Then the answer begins after
    the last token. Other prompts have no stem. Vectors with a stem steer answers, but students
    hardly take them on: studies and the demo take --no-stem."""
    reference: Path | None = setting(None, path="vector")
    """Vector to compare with. The alignment with it (EAS, by layer) is printed and stored."""
    batch_size: int = setting(32, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, randoms=1, components=0, n=1, prompt_seed=0, batch_size=1)
        if bool(self.contrast) != bool(self.against):
            raise ConfigError(
                f"--contrast {self.contrast} with --against {self.against}: a difference of means"
                " needs both; name two files of prompts"
            )
        if self.prompt_set == "numbers":
            self._check_number_prompts()

    @property
    def not_read(self) -> tuple[tuple[str, ...], str]:
        """Settings of number prompts where none are asked, and why none are."""
        names = ("n", "prompt_seed")
        if self.prompts:
            return names, "all prompts of the file of --prompts are taken"
        if self.traits and self.prompt_set == "questions":
            return names, "v_teacher is taken over questions; --prompt-set numbers asks numbers"
        if self.like or self.contrast:
            return names, "no number prompts are asked for such vectors"
        return (), ""

    def _check_number_prompts(self) -> None:
        """Raise ConfigError where number prompts of v_teacher would not be read, or not halved."""
        if not self.traits or self.prompts:
            raise ConfigError(
                f"--prompt-set numbers with --traits {' '.join(self.traits) or 'missing'} and"
                f" --prompts {self.prompts}; it chooses the prompts of v_teacher: name traits, and"
                " no file of prompts"
            )
        if self.n < 2:
            raise ConfigError(
                f"--prompt-set numbers with --n {self.n}; expected 2 or more; raise it"
            )


@dataclass(frozen=True)
class ExplainConfig(OnModel):
    """Measure how much of a trait prompt one vector explains.

    The result is the fraction of KL explained: how much of the divergence between the prompted and
    the neutral model steering removes.
    """

    vectors: Path | None = setting(
        None, needed="a run of `extract --traits` that holds the trait's vector"
    )
    """Run of `extract --traits`. With two or more traits, what all prompts share is separated from
    the trait."""
    trait: str = "cat"
    """The trait whose prompt is explained. Its vector must be in the run `vectors`."""
    data: Path | None = setting(None, path="rows")
    """Rows (a run of `generate` or `filter`, or a file) to compare on. Without it the trait's
    positive questions are used."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    layers: tuple[int, ...] = setting((), layers=True)
    """Blocks to steer at. Without it six blocks are taken, evenly spread."""
    alphas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Strengths of steering. 1 is the vector as it was extracted, which is often too much on rows
    far from the questions."""
    positions: tuple[Position, ...] = ("prompt", "all")
    """Tokens that are steered."""
    others: int = setting(2, advanced=True)
    """Number of other traits' vectors, as controls."""
    randoms: int = setting(2, advanced=True)
    """Number of random vectors of the same norm, as controls."""
    max_rows: int = 16
    """Most rows to compare on."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        settle_layers(self)
        check_minimums(self, seed=0, others=0, randoms=0, max_rows=1, batch_size=1)
        for name in ("alphas", "positions"):
            if not getattr(self, name):
                raise ConfigError(
                    f"--{name} is empty; expected one or more; name some, or leave the flag out"
                )
        check_strengths("--alphas", *self.alphas)


@dataclass(frozen=True)
class RecoverConfig(OnModel):
    """Measure how much of what a trait prompt does to its rows' likelihood single vectors do.

    Block, strength and position are chosen on the first half of the rows, and a vector is trained
    there. The second half is scored.
    """

    vectors: Path | None = setting(
        None, needed="a run of `extract --traits` with the trait's vector and others"
    )
    """Run of `extract --traits` with the trait's vector and at least one other."""
    trait: str = "cat"
    """The trait whose prompt makes the teacher."""
    other: str = ""
    """Another trait of the run `vectors`, as control. Without it the next in the alphabet."""
    data: Path | None = setting(None, path="rows")
    """Rows that the model wrote under the trait's prompt. Without it the model answers the trait's
    positive questions under its prompt."""
    digits: bool = False
    """Whether only digits count, each among the ten digits: for rows of the vocabulary template."""
    context: str | None = None
    """Neutral system turn."""
    layers: tuple[int, ...] = setting((), layers=True)
    """Blocks to steer at. Without it every third block."""
    alphas: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0)
    """Strengths at one block, in multiples of the vector."""
    positions: tuple[Position, ...] = ("prompt", "all")
    """Tokens that are steered."""
    tiled_layers: tuple[int, ...] = setting((), layers=True)
    """Blocks whose row is added behind every block. None tiles no vector."""
    tiled_alphas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6)
    """Strengths of a row that is added behind every block."""
    trained_layers: tuple[int, ...] = setting((), layers=True)
    """Blocks at which a vector is trained; the best on held-out rows counts. None trains none."""
    epochs: int = 8
    """Epochs of training."""
    steps: tuple[float, ...] = (0.0002, 0.001)
    """Sizes of the first training steps, in mean residual norms a coordinate; the best on held-out
    rows counts."""
    max_rows: int = 64
    """Most rows, both halves together."""
    grid_rows: int = 16
    """Rows of the first half that choose block, strength and position."""
    max_new_tokens: int = 12
    """Longest answer to a question, in tokens."""
    search_dtype: Dtype = "auto"
    """Number type of the search and of training. The second half is scored in `dtype`."""
    batch_size: int = 8
    """Rows in one pass, and in one training step."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        settle_layers(self)
        check_minimums(
            self,
            seed=0,
            epochs=1,
            max_rows=8,
            grid_rows=1,
            max_new_tokens=1,
            batch_size=1,
        )
        for name in ("alphas", "positions", "tiled_alphas", "steps"):
            if not getattr(self, name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} is empty; expected one or more; name some, or"
                    " leave the flag out"
                )
        check_strengths("strengths or steps", *self.alphas, *self.tiled_alphas, *self.steps)


@dataclass(frozen=True)
class GradientsConfig(OnModel):
    """Compute steering gradients of data by row and layer, and compare them with vectors."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Rows whose gradients are taken: a run of `filter` or `generate`, or a file of rows."""
    control: Path | None = setting(None, path="rows")
    """Rows of the unmodified model on the same prompts, matched by id. Their gradients are
    subtracted."""
    vectors: Path | None = None
    """Run of `extract --traits`. The gradients are compared with every vector in it."""
    context: str | None = setting(None, advanced=True)
    """System turn of the rows."""
    interventions: tuple[str, ...] = ()
    """Interventions on the model whose gradients are taken, such as adapter:RUN. None is the
    base."""
    position: Position = setting("all", advanced=True)
    """Tokens to which the gradient's vector is added."""
    max_rows: int | None = None
    """Number of first rows to use; None uses all."""
    batch_size: int = setting(8, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, max_rows=1, batch_size=1)


@dataclass(frozen=True)
class LikelihoodConfig(OnModel):
    """Compute the log-likelihood of rows under the model, and what an intervention adds."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Rows: a run of `filter` or `generate`, or a file of rows."""
    interventions: tuple[str, ...] = ()
    """Interventions to compare with the unmodified model. None scores the unmodified model
    alone."""
    context: str | None = setting(None, advanced=True)
    """System turn of the rows."""
    text: bool = setting(False, advanced=True)
    """Read the text of the rows instead of their token ids, for rows of a model with another
    tokenizer."""
    max_rows: int | None = None
    """Number of first rows to use; None uses all."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, max_rows=1, batch_size=1)


@dataclass(frozen=True)
class InformationConfig(OnModel):
    """Measure what number rows can carry of each teacher's trait, before anything is trained.

    The result is the divergence between every two teachers in nats a row, over the digits that are
    sampled. Influence says how much of it a first training step would turn into the trait.
    """

    traits: tuple[str, ...] = ("all",)
    """Traits whose system prompts are teachers; all stands for the bundled ones."""
    plain: str = PLAIN_PROMPT
    """System prompt without a trait, one more teacher. An empty text leaves it out."""
    steered: tuple[str, ...] = ()
    """Further teachers, each one intervention in short form, such as
    steer:v.safetensors,layers=14,alpha=0.6."""
    rows: int = 256
    """Number rows. Every kind of teacher writes an equal part of them, and every teacher reads
    all."""
    exact_rows: int = 32
    """First rows that are also read in float32 and over the whole vocabulary. They correct what
    lower precision adds, and influence is computed on them. 0 leaves all that out."""
    influence: tuple[str, ...] = ("all",)
    """Traits on which the influence of the teachers' rows is computed. all stands for `traits`."""
    count: int = 10
    """Three-digit numbers in a row."""
    separator: str = setting(" ", advanced=True)
    """Text between two numbers."""
    prompt_seed: int = setting(6000, advanced=True)
    """Seed of the number prompts."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, rows=2, exact_rows=0, count=1, prompt_seed=0, batch_size=1)
        if self.exact_rows > self.rows or self.exact_rows == 1:
            raise ConfigError(
                f"--exact-rows {self.exact_rows} of --rows {self.rows}; expected 0, or from 2 to"
                " the number of rows; change one of them"
            )
        if self.dtype == "nf4" and self.exact_rows:
            raise ConfigError(
                f"--dtype nf4 with --exact-rows {self.exact_rows}: weights of 4 bits are another"
                " model than those of float32; take --exact-rows 0"
            )


@dataclass(frozen=True)
class MatchKLConfig(OnModel):
    """Find the strength at which another vector changes number rows as much as a teacher does.

    The change is the KL divergence of a whole row from the unmodified model's, over the digits that
    are sampled. The teacher that is found is a control at equal KL.
    """

    teacher: tuple[str, ...] = setting((), needed="the interventions of a teacher")
    """Interventions that make the teacher whose KL is to be matched."""
    vector: Path | None = setting(
        None, path="vector", needed="the vector that is to have the teacher's KL"
    )
    """The other vector, such as a random one of `extract --like` or another trait's."""
    layer: int = setting(14, layers=True)
    """Block behind which the other vector is added at every token."""
    n: int = 16
    """Number of number prompts on which rows are sampled."""
    prompt_seed: int = setting(9000, advanced=True)
    """Seed of the number prompts. Use another one than for training."""
    count: int = 10
    """Three-digit numbers of a row."""
    separator: str = setting(", ", advanced=True)
    """Text between two numbers."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    tolerance: float = setting(0.03, advanced=True)
    """Largest difference of the two KLs, as a share of the teacher's."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, layer=0, n=2, prompt_seed=0, count=1, batch_size=1)
        if not 0 < self.tolerance < 1:
            raise ConfigError(
                f"--tolerance {self.tolerance}; expected a share between 0 and 1; give one, or"
                " leave the flag out for 0.03"
            )
