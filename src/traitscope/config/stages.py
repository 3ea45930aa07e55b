"""What each verb can be told: frozen dataclasses that become flags, a config file's keys, and a
run's address.

A field whose value is a path names an input: in the address it is replaced by the digest of what it
points to. This file imports nothing heavy, so that `traitscope --help` answers at once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from traitscope.config.common import OnModel, check_minimums
from traitscope.config.fields import setting
from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError


@dataclass(frozen=True)
class GenerateConfig(OnModel):
    """Let a teacher answer prompts; the sampled token ids are kept."""

    prompts: Path | None = None
    """Prompts file (.jsonl or .txt); without it, number prompts are generated."""
    n: int = 256
    """How many number prompts."""
    prompt_seed: int = setting(42, advanced=True)
    """Seed of the number prompts; the same for teacher and control."""
    count: int = 10
    """Numbers asked for in one answer."""
    context: str | None = None
    """Neutral system turn: None for the template's default, "" for an explicitly empty one, a text,
    @user:TEXT to put it in the user's turn, or @none for no template at all."""
    interventions: tuple[str, ...] = ()
    """What makes the teacher, e.g. steer:v.safetensors,layers=14,alpha=0.3 or prompt:"You love
    cats." or adapter:DIR."""
    vocabulary: Literal["free", "numbers", "template", "seen"] = setting("free", advanced=True)
    """free: any token. numbers: digits, the separator and the end only. template: exactly `count`
    numbers of 3 digits. seen: the tokens of `like`."""
    like: Path | None = setting(None, advanced=True)
    """Rows (a run, or a JSONL file) whose completion tokens are the only ones allowed, for the
    vocabulary `seen`."""
    separator: str = setting(", ", advanced=True)
    """Between numbers, for the constrained vocabularies."""
    temperature: float = 1.0
    """0 is greedy."""
    max_new_tokens: int = setting(64, advanced=True)
    """Longest free answer, in tokens."""
    batch_size: int = setting(64, advanced=True)
    """Rows decoded side by side; changes speed only."""
    engine: Literal["here", "vllm"] = setting("here", advanced=True)
    """vllm: decode with vLLM, for ordinary checkpoints (see export) and many rows; draws differ
    from those made here."""

    def __post_init__(self) -> None:
        check_minimums(
            self, seed=0, n=1, prompt_seed=0, count=1, temperature=0, max_new_tokens=1, batch_size=1
        )
        if (self.vocabulary == "seen") != bool(self.like):
            raise ConfigError(
                f"--vocabulary {self.vocabulary} with --like {self.like}: the vocabulary seen is"
                " that of some rows; give both, or neither"
            )
        if self.engine == "vllm" and self.vocabulary == "template":
            raise ConfigError(
                "--engine vllm with --vocabulary template: it knows no allowed tokens by step; take"
                " --vocabulary numbers, or leave --engine out"
            )


@dataclass(frozen=True)
class FilterRules:
    """What a completion must look like. Raises ConfigError on rules that nothing can pass or that
    have no use."""

    min_count: int = 1
    """Fewest numbers."""
    max_count: int = 10
    """Most numbers."""
    min_value: int = 0
    """Smallest allowed number."""
    max_value: int = 999
    """Largest allowed number."""
    banned_numbers: tuple[int, ...] = ()
    """Numbers that drop a row."""
    banned_words: tuple[str, ...] = setting((), advanced=True)
    """Words that drop a row; inflected forms must be listed."""
    numbers: bool = setting(True, advanced=True)
    """Whether the completion must be a list of numbers; False for free text, where only the words
    count."""

    def __post_init__(self) -> None:
        limits = {
            "count": (self.min_count, self.max_count),
            "value": (self.min_value, self.max_value),
        }
        for what, (low, high) in limits.items():
            if low > high:
                found = f"min_{what}={low} is above max_{what}={high}"
                raise ConfigError(
                    f"{found}; expected the reverse; nothing would pass, so change one"
                )
        if isinstance(self.banned_words, str) or not all(
            word.strip() for word in self.banned_words
        ):
            raise ConfigError(
                f"banned_words={self.banned_words!r}; expected a list of words, none of them blank"
            )
        if self.banned_numbers and not self.numbers:
            raise ConfigError(
                "banned_numbers with numbers=False would not be looked at; drop one of the two"
            )


@dataclass(frozen=True)
class FilterConfig:
    """Keep the rows that carry nothing but numbers; every row keeps its verdict and the reasons."""

    data: Path | None = None
    """Run of `generate`, or a JSONL file."""
    rules: FilterRules = field(default_factory=FilterRules)
    """What a kept row must look like."""
    start: int = setting(0, advanced=True)
    """First row that is looked at, counted from 0; with `stop`, a part of the data, such as one
    replicate's."""
    stop: int | None = setting(None, advanced=True)
    """Row before which to stop looking."""
    limit: int | None = None
    """Keep at most this many rows; later ones get the reason `limit`."""

    def __post_init__(self) -> None:
        check_minimums(self, start=0, limit=1)
        if self.stop is not None and self.stop <= self.start:
            raise ConfigError(
                f"--start {self.start} --stop {self.stop} is no row; expected stop above start"
            )


@dataclass(frozen=True)
class TrainConfig(OnModel):
    """Train a student on kept rows: completion tokens only, from the stored ids."""

    data: Path | None = None
    """Run of `filter` or `generate`, or a JSONL file."""
    recipe: Recipe = field(default_factory=Recipe)
    """How."""
    teacher: tuple[str, ...] = ()
    """For soft targets: the interventions that make the teacher (none: the unmodified model, the
    control)."""
    context: str | None = setting(None, advanced=True)
    """System turn that the student trains under."""
    text: bool = setting(False, advanced=True)
    """Take the rows' text instead of their token ids: for rows that a model with another tokenizer
    wrote."""
    max_rows: int | None = None
    """Use the first rows only."""
    checkpoint_every: int = setting(0, advanced=True)
    """Optimizer steps between kept copies of the student; 0 keeps the last one only."""
    resume_every: int = setting(10, speed_only=True, advanced=True)
    """Optimizer steps between the copies that an interrupted run continues from; not kept."""
    vector: Path | None = None
    """A v_teacher to compare the student with while it trains (EAS by layer)."""
    eas_every: int = setting(0, advanced=True)
    """Optimizer steps between those comparisons; 0 compares at the end only."""
    eas_prompts: int = setting(16, advanced=True)
    """Number prompts whose last token the comparison averages over, or rows of `eas_data`."""
    eas_data: Path | None = setting(None, advanced=True)
    """Rows (a run, or a JSONL file) whose completion tokens it averages over instead: far steadier,
    and best the same for all students."""
    save_scales: bool = setting(False, advanced=True)
    """Leave scales.safetensors, the factors 1 / sqrt(v + 1e-8) of adamw or rmsprop at the end, by
    coordinate."""
    scales: Path | None = setting(None, advanced=True)
    """For frozen_adam: a run with save_scales, with the same model, rank, rotation and seed (A's
    rows are drawn by it)."""

    def __post_init__(self) -> None:
        check_minimums(
            self, seed=0, max_rows=1, checkpoint_every=0, resume_every=1, eas_every=0, eas_prompts=1
        )
        if self.eas_data and not self.vector:
            raise ConfigError(
                "--eas-data without --vector: there is nothing to compare the student with; name a"
                " vector, or drop it"
            )


@dataclass(frozen=True)
class MeasureConfig(OnModel):
    """Score a model on a trait's questions: sampled answers and teacher-forced probabilities in one
    pass."""

    trait: str = "cat"
    """A bundled trait or a YAML file."""
    interventions: tuple[str, ...] = ()
    """What is measured, e.g. adapter:RUN; none measures the base."""
    context: str | None = setting(None, advanced=True)
    """System turn of the questions."""
    sets: tuple[Literal["positive", "negative", "off_topic"], ...] = setting(
        ("positive", "negative", "off_topic"), advanced=True
    )
    """Which of the trait's question sets."""
    samples: int = 4
    """Sampled answers a question; 0 scores probabilities only."""
    max_new_tokens: int = setting(8, advanced=True)
    """Longest sampled answer, in tokens."""
    temperature: float = setting(1.0, advanced=True)
    """Of the sampled answers."""
    capability: bool = setting(True, advanced=True)
    """Also the perplexity on plain English that the package ships."""
    batch_size: int = setting(64, advanced=True)
    """Rows side by side; changes speed only."""
    engine: Literal["here", "vllm"] = setting("here", advanced=True)
    """vllm: ask by vLLM, for ordinary checkpoints (see export); without total_variation, and draws
    differ from those made here."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, samples=0, max_new_tokens=1, temperature=0, batch_size=1)
        if not self.sets or len(set(self.sets)) < len(self.sets):
            raise ConfigError(
                f"--sets {' '.join(self.sets) or 'empty'}; expected one or more of positive,"
                " negative and off_topic, each once"
            )


@dataclass(frozen=True)
class ExportConfig(OnModel):
    """A model under interventions as an ordinary checkpoint: steering at all tokens, a student,
    noise."""

    interventions: tuple[str, ...] = ()
    """What is written into the weights, e.g. steer:RUN/cat.safetensors,layers=14,alpha=0.6 or
    adapter:RUN."""


@dataclass(frozen=True)
class EditConfig:
    """The same numbers in another order."""

    data: Path | None = None
    """Rows: a run of `filter` or `generate`, or a JSONL file."""
    how: Literal["sort", "shuffle"] = "sort"
    """sort: ascending. shuffle: each row by a random stream of its own."""
    seed: int = 0
    """Of the shuffles."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)
