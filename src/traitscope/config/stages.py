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
from traitscope.config.rows.filtering import FilterRules
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

Domain = Literal["numbers", "code", "sums", "requests", "stories"]
SHORTEST_TASK = 16
"fewest tokens in which tasks are answered; shorter answers would be cut"


@dataclass(frozen=True)
class GenerateConfig(OnModel):
    """Let a teacher answer prompts. The sampled token ids are kept."""

    prompts: Path | None = setting(None, path="prompts")
    """File of prompts (.jsonl, .json, .csv or .txt). Without it, `domain` says which are asked."""
    domain: Domain = setting("numbers", since=2)
    """What is asked for: number lists, Python functions (code), word problems (sums), everyday
    requests or stories. With `prompts`, code and sums read `checks` and `answer` of each row."""
    n: int = 256
    """Number of prompts of `domain`."""
    prompt_seed: int = setting(42, advanced=True)
    """Seed of these prompts. Use the same one for teacher and control."""
    start: int = setting(0, since=2, advanced=True)
    """First of these prompts, counted from 0. Rows of a part are those rows of the whole."""
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
        self._check_domain()
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
        """Settings of generated prompts where none are asked, and why none are."""
        if not self.prompts and self.domain == "numbers":
            return (), ""
        if not self.prompts:
            return ("count",), f"prompts of the domain {self.domain} ask for no numbers"
        count = () if self.vocabulary == "template" else ("count",)
        return ("n", "prompt_seed", *count), "all prompts of the file of --prompts are answered"

    def _check_domain(self) -> None:
        """Raise ConfigError for a domain that the vocabulary or a file of prompts rules out."""
        if self.domain != "numbers" and self.vocabulary in ("numbers", "template"):
            raise ConfigError(
                f"--domain {self.domain} with --vocabulary {self.vocabulary}: only numbers could be"
                " written; leave --vocabulary out"
            )
        if self.prompts and self.domain in ("requests", "stories"):
            raise ConfigError(
                f"--prompts {self.prompts} with --domain {self.domain}, which names a bundled set;"
                " expected one of the two; drop one"
            )

    def _check_sampler(self) -> None:
        """Raise ConfigError for a sampler that could draw no token, or that is none."""
        check_positive(self, "repetition_penalty")
        if not (0 < self.top_p <= 1 and self.min_p <= 1):
            raise ConfigError(
                f"--top-p {self.top_p} --min-p {self.min_p}; expected a top-p above 0 and both at"
                " most 1; give such numbers, or leave the flags out"
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
    domain: Literal["trait", "code", "sums"] = setting("trait", since=2)
    """What is asked: the trait's questions, or tasks whose answers can be checked."""
    prompts: Path | None = setting(None, since=2, path="prompts")
    """File of tasks of the domain, with `checks` or `answer`. Without it, the bundled ones."""
    n: int = setting(64, since=2)
    """Number of bundled tasks."""
    prompt_seed: int = setting(42, since=2, advanced=True)
    """Seed of the bundled tasks."""
    run_code: bool = setting(False, since=2, advanced=True)
    """Run the code of answers against the checks of their tasks, in a process with limits, which
    is no sandbox. Without it, checks are not run."""
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
        check_minimums(self, n=1, prompt_seed=0)
        self._check_tasks()

    @property
    def not_read(self) -> tuple[tuple[str, ...], str]:
        """Settings of tasks that are not read, and why they are not."""
        if self.domain == "trait":
            return ("prompts", "n", "prompt_seed", "run_code"), "--domain trait asks no tasks"
        names = ["trait", "sets"]
        if self.prompts:
            names += ["n", "prompt_seed"]
        if self.domain != "code":
            names.append("run_code")
        return tuple(names), f"tasks of the domain {self.domain} are asked"

    def _check_tasks(self) -> None:
        """Raise ConfigError for settings with which no task could be answered."""
        if self.domain == "trait":
            return
        if self.engine != "here":
            raise ConfigError(
                f"--domain {self.domain} with --engine {self.engine}; expected the engine here;"
                " leave --engine out"
            )
        if self.samples < 1 or self.max_new_tokens < SHORTEST_TASK:
            raise ConfigError(
                f"--domain {self.domain} with --samples {self.samples} --max-new-tokens"
                f" {self.max_new_tokens}; expected 1 answer or more, of {SHORTEST_TASK} tokens or"
                " more; give such numbers, such as --samples 1 --max-new-tokens 200"
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
