"""Settings of the stages that make and measure students.

They are frozen dataclasses. Their fields become flags, keys of a config file, and part of a run's
address. A field whose value is a path names an input: in the address it is replaced by the digest
of what it points to. This file imports nothing heavy, so that `traitscope --help` answers at once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from traitscope.config.common import ROWS, ControlTokens, OnModel, check_minimums, check_positive
from traitscope.config.fields import flag_of, setting
from traitscope.config.recipe import Recipe
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError


@dataclass(frozen=True)
class GenerateConfig(OnModel):
    """Let a teacher answer prompts. The sampled token ids are kept."""

    prompts: Path | None = setting(None, path="prompts")
    """File of prompts (.jsonl, .csv or .txt). Without it, number prompts are generated."""
    n: int = 256
    """Number of number prompts."""
    prompt_seed: int = setting(42, advanced=True)
    """Seed of the number prompts. Use the same one for teacher and control."""
    start: int = setting(0, since=2, advanced=True)
    """First number prompt, counted from 0. Rows of a part are those rows of the whole."""
    count: int = 10
    """Most numbers that a prompt asks for."""
    context: str | None = None
    """Neutral system turn. None is the template's default, "" an explicitly empty turn. @user:TEXT
    puts the text into the user's turn; @none uses no template at all."""
    interventions: tuple[str, ...] = ()
    """Interventions that make the teacher, such as steer:v.safetensors,layers=14,alpha=0.3 or
    prompt:"You love cats." or adapter:DIR."""
    vocabulary: Literal["free", "numbers", "template", "seen"] = setting("free", advanced=True)
    """Tokens that may be sampled. free: any token. numbers: digits, the separator and the end only.
    template: exactly `count` numbers of 3 digits, in its own format whatever the prompt asks for.
    Papers sample freely and filter, as free does. seen: the tokens of `like`."""
    like: Path | None = setting(None, advanced=True, path="rows")
    """Rows (a run, or a file of rows) for the vocabulary `seen`: only the tokens of their
    completions are allowed."""
    separator: str = setting(", ", advanced=True)
    """Text between two numbers, for the vocabularies numbers and template."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    top_k: int = setting(0, since=2, advanced=True)
    """Number of likeliest tokens that can be drawn; 0 is all."""
    top_p: float = setting(1.0, since=2, advanced=True)
    """Probability that the tokens that can be drawn have together. They are the fewest likeliest
    ones that have it."""
    min_p: float = setting(0.0, since=2, advanced=True)
    """Least probability of a token that can be drawn, as a fraction of the likeliest token's."""
    repetition_penalty: float = setting(1.0, since=2, advanced=True)
    """Factor against tokens that stand in the prompt or the answer already; 1 is none."""
    frequency_penalty: float = setting(0.0, since=2, advanced=True)
    """What a token's logit falls by each time that it came in the answer."""
    max_new_tokens: int = setting(64, advanced=True)
    """Longest answer, in tokens. An answer of the vocabulary template has its own length."""
    batch_size: int = setting(64, advanced=True)
    """Rows decoded in one pass. Changes speed, and nothing else but rounding."""
    engine: Literal["here", "vllm"] = setting("here", advanced=True)
    """vllm decodes with vLLM, for ordinary checkpoints (see export) and many rows. Its draws differ
    from those of here."""

    def __post_init__(self) -> None:
        check_minimums(
            self,
            seed=0,
            n=1,
            prompt_seed=0,
            start=0,
            count=1,
            temperature=0,
            top_k=0,
            min_p=0,
            frequency_penalty=0,
            max_new_tokens=1,
            batch_size=1,
        )
        self._check_sampler()
        if self.start and self.prompts:
            raise ConfigError(
                f"--start {self.start} with --prompts {self.prompts}: all prompts of a file are"
                " answered; drop one of the two"
            )
        if (self.vocabulary == "seen") != bool(self.like):
            raise ConfigError(
                f"--vocabulary {self.vocabulary} with --like {self.like}; expected --like with the"
                " vocabulary seen, and with no other; give both, or neither"
            )
        if self.engine == "vllm" and self.vocabulary == "template":
            raise ConfigError(
                "--engine vllm with --vocabulary template: vLLM cannot allow other tokens at every"
                " step; take --vocabulary numbers, or leave --engine out"
            )

    @property
    def not_read(self) -> tuple[tuple[str, ...], str]:
        """Settings of number prompts where none are asked, and why none are."""
        if not self.prompts:
            return (), ""
        count = () if self.vocabulary == "template" else ("count",)
        return ("n", "prompt_seed", *count), "all prompts of the file of --prompts are answered"

    def _check_sampler(self) -> None:
        """Raise ConfigError for a sampler that could draw no token, or that is none."""
        check_positive(self, "repetition_penalty")
        if not (0 < self.top_p <= 1 and self.min_p <= 1):
            raise ConfigError(
                f"--top-p {self.top_p} --min-p {self.min_p}; expected a top-p above 0 and both at"
                " most 1; give such numbers, or leave the flags out"
            )


@dataclass(frozen=True)
class FilterRules:
    """What a completion must look like.

    Raises ConfigError on rules that no completion can pass, and on rules without effect.
    """

    min_count: int = 1
    """Fewest numbers."""
    max_count: int = 10
    """Most numbers."""
    min_value: int = 0
    """Smallest allowed number."""
    max_value: int = 999
    """Largest allowed number."""
    banned_numbers: tuple[int, ...] = ()
    """Numbers that a completion must not hold."""
    banned_words: tuple[str, ...] = setting((), advanced=True)
    """Words that a completion must not hold. Inflected forms must be listed."""
    numbers: bool = setting(True, advanced=True)
    """Whether the completion must be a list of numbers. For free text (False) only the banned words
    count."""
    strip: bool = setting(False, since=2, advanced=True)
    """Take white space at both ends of a completion off first. Stripped rows are counted, and lose
    their token ids. An audit reads past such white space."""

    def __post_init__(self) -> None:
        for kind in ("count", "value"):
            low, high = getattr(self, f"min_{kind}"), getattr(self, f"max_{kind}")
            if low > high:
                raise ConfigError(
                    f"min_{kind}={low} is above max_{kind}={high}; expected the reverse; nothing"
                    " would pass, so change one"
                )
        is_one_text = isinstance(self.banned_words, str)
        if is_one_text or not all(word.strip() for word in self.banned_words):
            raise ConfigError(
                f"banned_words={self.banned_words!r}; expected a list of words, none of them blank;"
                " name words, or leave it out"
            )
        if self.banned_numbers and not self.numbers:
            raise ConfigError(
                "banned_numbers with numbers=False would not be looked at; drop one of the two"
            )


@dataclass(frozen=True)
class FilterConfig:
    """Keep the rows that hold nothing but numbers. Dropped rows stay in the file, with reasons."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Run of `generate`, or a file of rows."""
    rules: FilterRules = field(default_factory=FilterRules)
    """What a kept row must look like."""
    start: int = setting(0, advanced=True)
    """First row to read, counted from 0. With `stop`, only a part of the data is read, such as one
    replicate."""
    stop: int | None = setting(None, advanced=True)
    """Row before which to stop reading."""
    limit: int | None = None
    """Most rows to keep. Later rows are dropped with the reason `limit`."""
    more: tuple[Path, ...] = setting((), since=2, advanced=True, path="rows")
    """Runs of `generate` with further answers to the same prompts. In the place of a dropped row
    stands the first answer with its id that is kept."""
    control_tokens: ControlTokens = setting("text", since=2, advanced=True)
    """leave-out leaves rows out in which a control token of a common model stands, such as
    <|im_end|>. text and token keep them: the stage that trains decides."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, start=0, limit=1)
        if self.stop is not None and self.stop <= self.start:
            raise ConfigError(
                f"--start {self.start} --stop {self.stop} is no row; expected stop above start;"
                " raise stop or lower start"
            )


@dataclass(frozen=True)
class TrainConfig(OnModel):
    """Train a student on kept rows, on completion tokens only, by their stored ids."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Run of `filter` or `generate`, or a file of rows."""
    recipe: Recipe = field(default_factory=Recipe)
    """How the student is trained."""
    teacher: tuple[str, ...] = ()
    """Interventions that make the teacher of soft targets. None is the unmodified model, the
    control."""
    context: str | None = setting(None, advanced=True)
    """System turn that the student trains under."""
    text: bool = setting(False, advanced=True)
    """Read the text of the rows instead of their token ids, for rows of a model with another
    tokenizer."""
    during: tuple[str, ...] = setting((), since=2, advanced=True)
    """Interventions that act while the student trains, and not after: steer:... , ablate:... or
    adapter:RUN. What is there already need not be learnt."""
    project_out: tuple[str, ...] = setting((), since=2, advanced=True)
    """Directions that gradients of the residual stream lose: ablate:FILE,layers=14 for that of a
    vector, data:layers=14 for that in which the rows move the base (with --control)."""
    control: Path | None = setting(None, since=2, advanced=True, path="rows")
    """Rows of the unmodified model on the same prompts, matched by id, for --project-out data:...
    Make them with `defend --by wash`, or with `generate --prompts`."""
    max_rows: int | None = None
    """Number of first rows to use; None uses all."""
    checkpoint_every: int = setting(0, advanced=True)
    """Optimizer steps between kept copies of the student; 0 keeps the final student only."""
    resume_every: int = setting(10, speed_only=True, advanced=True)
    """Optimizer steps between the checkpoints from which an interrupted run continues. They are
    deleted at the end."""
    vector: Path | None = setting(None, path="vector")
    """A v_teacher. The student's alignment with this vector is measured during training (EAS, by
    layer)."""
    eas_every: int = 0
    """Optimizer steps between two measurements of EAS; 0 measures it at the end only."""
    eas_prompts: int = setting(16, advanced=True)
    """Number prompts whose last tokens EAS is averaged over, or rows of `eas_data`."""
    eas_data: Path | None = setting(None, advanced=True, path="rows")
    """Rows (a run, or a file of rows) whose completion tokens EAS is averaged over instead. That is
    far steadier. Use the same rows for all students."""
    save_scales: bool = setting(False, advanced=True)
    """Write scales.safetensors: the factor 1 / sqrt(v + 1e-8) of every coordinate at the end, for
    adamw or rmsprop."""
    scales: Path | None = setting(None, advanced=True)
    """Scales for frozen_adam: a run with save_scales and the same model, rank, rotation and seed.
    The seed draws the rows of A."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(
            self, seed=0, max_rows=1, checkpoint_every=0, resume_every=1, eas_every=0, eas_prompts=1
        )
        if self.during and self.vector:
            raise ConfigError(
                "--vector with --during: EAS would be measured with what acts in training only;"
                " drop --vector, and take EAS after training with: traitscope extract --reference"
            )
        self._check_control()
        if self.eas_data and not self.vector:
            raise ConfigError(
                "--eas-data without --vector: there is nothing to compare the student with; name a"
                " vector, or drop --eas-data"
            )

    def _check_control(self) -> None:
        """Raise ConfigError for control rows that nothing reads, and for a need of them."""
        from_data = [item for item in self.project_out if _is_from_data(item)]
        if from_data and not self.control:
            raise ConfigError(
                f"--project-out {from_data[0]} without --control: the direction is that of the"
                " rows minus that of the base's own answers to their prompts; make these with:"
                " traitscope defend --data ROWS --by wash"
            )
        if self.control and not from_data:
            raise ConfigError(
                f"--control {self.control} without --project-out data:...: nothing reads these"
                " rows; add --project-out data:layers=14, or drop --control"
            )


def _is_from_data(item: str) -> bool:
    """Whether an intervention in short form is the direction of the rows of a training."""
    return item.startswith("data:") or (item.startswith("{") and "DataDirection" in item)


@dataclass(frozen=True)
class MeasureConfig(OnModel):
    """Score a model on a trait's questions, by sampled answers and teacher-forced probabilities."""

    trait: str = "cat"
    """A bundled trait, or the YAML file of a trait."""
    interventions: tuple[str, ...] = ()
    """Interventions on the measured model, such as adapter:RUN; none measures the base."""
    context: str | None = setting(None, advanced=True)
    """System turn of the questions."""
    sets: tuple[Literal["positive", "negative", "off_topic"], ...] = setting(
        ("positive", "negative", "off_topic"), advanced=True
    )
    """Question sets of the trait that are asked."""
    samples: int = 4
    """Number of sampled answers a question; 0 scores probabilities only."""
    max_new_tokens: int = setting(8, advanced=True)
    """Longest sampled answer, in tokens."""
    temperature: float = setting(1.0, advanced=True)
    """Sampling temperature of the answers."""
    capability: bool = setting(True, advanced=True)
    """Also measure the perplexity on plain English text that the package ships."""
    batch_size: int = setting(64, advanced=True)
    """Rows in one pass. Changes speed, and nothing else but rounding."""
    engine: Literal["here", "vllm"] = setting("here", advanced=True)
    """vllm asks by vLLM, for ordinary checkpoints (see export). It gives no total_variation, and
    its draws differ from those of here."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, samples=0, max_new_tokens=1, temperature=0, batch_size=1)
        if not self.sets or len(set(self.sets)) < len(self.sets):
            raise ConfigError(
                f"--sets {' '.join(self.sets) or 'empty'}; expected one or more of positive,"
                " negative and off_topic, each once; name such sets, or leave the flag out"
            )


@dataclass(frozen=True)
class ExportConfig(OnModel):
    """Write a model with interventions as an ordinary checkpoint.

    Steering at all tokens, students and weight noise can be written into the weights. A direction
    can be taken out of them, and a student can be scaled down.
    """

    interventions: tuple[str, ...] = ()
    """Interventions that are written into the weights, such as
    steer:RUN/cat.safetensors,layers=14,alpha=0.6 or adapter:RUN."""
    ablate: tuple[str, ...] = setting((), since=2)
    """Directions that blocks no longer write, each VECTOR,layers=12+13+14. The maps that leave
    attention and MLP lose them."""
    ablate_strength: float = setting(1.0, since=2, advanced=True)
    """Part of the direction that is taken out: 0 nothing, 1 all of it."""
    ablate_row: int | None = setting(None, since=2, advanced=True, layers=True)
    """Block whose row of the vector is taken at all layers. Without it each layer has its own."""
    ablate_embedding: bool = setting(False, since=2, advanced=True)
    """Also take the direction of `ablate_row` out of the embeddings. With all layers it is then
    never in the residual stream."""
    scale: float = setting(1.0, since=2)
    """Strength of the student among the interventions: 1 as it was trained, 0.5 half, 0 the base.
    A LoRA student is also written as a peft folder of that strength."""
    checkpoint: bool = setting(True, since=2, advanced=True)
    """Write the whole model. Without it only the scaled peft folder is written."""

    def __post_init__(self) -> None:
        named = []
        for text in self.ablate:
            is_whole = text.startswith("ablate:") or text.lstrip().startswith("{")
            named.append(text if is_whole else f"ablate:{text}")
        object.__setattr__(self, "ablate", tuple(named))
        check_minimums(self, seed=0, ablate_row=0)
        for name in ("ablate_strength", "scale"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{flag_of(name)} {getattr(self, name)}; expected a number from 0 to 1; give"
                    " one, or leave the flag out for 1"
                )
        shaped = self.ablate_strength != 1 or self.ablate_row is not None or self.ablate_embedding
        if shaped and not self.ablate:
            raise ConfigError(
                "--ablate-strength, --ablate-row or --ablate-embedding without --ablate: there is"
                " no direction; name one, such as --ablate FILE,layers=14, or drop them"
            )
        if self.ablate_embedding and self.ablate_row is None:
            raise ConfigError(
                "--ablate-embedding without --ablate-row: a vector has no row for the embedding;"
                " name the block whose row is taken"
            )
        if not self.checkpoint and self.scale == 1:
            raise ConfigError(
                "--no-checkpoint with --scale 1: nothing would be written; give a scale below 1,"
                " or leave --no-checkpoint out"
            )


@dataclass(frozen=True)
class EditConfig:
    """Sort or shuffle the numbers inside each row; separators and other text stay."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Rows: a run of `filter` or `generate`, or a file of rows."""
    how: Literal["sort", "shuffle"] = "sort"
    """sort is ascending. shuffle draws a random order for each row."""
    seed: int = 0
    """Seed of the shuffles."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)
