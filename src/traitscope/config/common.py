"""Settings that several commands share: the model, where results go, and checks of numbers."""

import dataclasses
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from traitscope.config.fields import flag_of, setting
from traitscope.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16", "nf4"]
ControlTokens = Literal["text", "token", "leave-out"]
Position = Literal["prompt", "last", "completion", "all"]
TAUGHT = ("interventions", "teacher", "steered", "during", "project_out", "ablate")
"settings that are interventions in short form"
ROWS = "a run of `generate` or `filter`, or a file of rows"
"what to name where rows are missing"
TRAIT_UNKNOWN = (
    "the trait is not known from these files, so {usual} stands in what comes next; put yours in"
    " its place, a YAML file or a name that `traitscope models` lists"
)
"what is said where a next command asks about the usual trait, for want of another"
LARGEST_FACTOR = 1e6
"largest size of learning rates, weights of a loss, penalties, temperatures and other factors"
LARGEST = {
    "seed": 2**63 - 1,  # what random generators take
    "prompt_seed": 2**63 - 1,
    "workers": 1024,
    "canary": 1024,
    "draws": 1024,
    "randoms": 10**5,
    "components": 10**5,
    "others": 10**5,
    "count": 10**5,
    "samples": 10**6,
    "temperature": LARGEST_FACTOR,
    "frequency_penalty": LARGEST_FACTOR,
    "max_new_tokens": 10**6,
    "eas_prompts": 10**6,
    "n": 10**7,
}
"largest values of settings that would fill the memory before anything else refused them"
LARGEST_NUMBER = 10**12
"largest value of other whole numbers"
LARGEST_STRENGTH = 1000.0
"largest size of a strength of steering, in mean residual norms or in multiples of a vector"


def is_taught(name: str, value: Any) -> bool:
    """Whether a setting holds interventions in short form; a teacher may also be one text."""
    return name in TAUGHT and isinstance(value, tuple | list)


def check_position(position: str) -> None:
    """Raise ConfigError for a position that is none of prompt, last, completion, all."""
    if position not in get_args(Position):
        raise ConfigError(
            f"position {position!r} is unknown; expected one of {', '.join(get_args(Position))};"
            " name one"
        )


def check_minimums(config: Any, block: str = "", /, **minimums: int) -> None:
    """Raise ConfigError, naming the flag, for a number that is set and below its minimum.

    Also raises it for infinity, and for a number that is too large to be meant.

    block: The block of a file that holds the settings, which then have no flags.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, least in minimums.items():
        value = getattr(config, name)
        expected = None if value is None else _expected(name, value, least)
        if expected is not None:
            usual = "" if defaults[name] is None else f" for {defaults[name]}"
            if block:
                raise ConfigError(
                    f"{block}: {name} is {value}; expected {expected}; correct it, or leave it"
                    f" out{usual}"
                )
            raise ConfigError(
                f"{flag_of(name)} {value}; expected {expected}; give such a number, or leave the"
                f" flag out{usual}"
            )


def _expected(name: str, value: float, least: int) -> str | None:
    """What a number should be; None where it is so."""
    if not value >= least:  # true of NaN, too
        return f"{least} or more"
    is_whole = not isinstance(value, float)
    if not is_whole and not isfinite(value):
        return "a finite number"
    largest = LARGEST.get(name, LARGEST_NUMBER if is_whole else value)
    return None if value <= largest else f"{largest:.0f} or less"


def check_positive(config: Any, name: str, largest: float = LARGEST_FACTOR) -> None:
    """Raise ConfigError, naming the flag, for a number that is not above 0 or above `largest`."""
    value = getattr(config, name)
    if not 0 < value <= largest:  # false of NaN, too
        raise ConfigError(
            f"{flag_of(name)} {value}; expected a finite number above 0, at most {largest:g}; give"
            " such a number, or leave the flag out"
        )


def check_strengths(what: str, *values: float, largest: float = LARGEST_STRENGTH) -> None:
    """Raise ConfigError for a strength that is not finite, or too large to be meant.

    what: The flag or the setting that holds them, for the message.
    """
    wrong = []
    for value in values:
        if not abs(value) <= largest:  # true of NaN, too
            wrong.append(str(value))
    if wrong:
        raise ConfigError(
            f"{what} {' '.join(wrong)}; expected a finite strength of size {largest:g} at most,"
            " because more leaves nothing of what it is added to; give one, such as 0.6"
        )


def check_needed(config: Any) -> None:
    """Raise ConfigError, naming the flag, for a setting that must be given and is not."""
    for field in dataclasses.fields(config):
        needed = field.metadata.get("needed")
        if needed and getattr(config, field.name) in (None, ()):
            raise ConfigError(f"{flag_of(field.name)} is missing: name {needed}")


@dataclass(frozen=True)
class OnModel:
    """Settings of every stage that loads a model."""

    model: str = "smollm2-135m"
    """Hub id or folder of a model, or smollm2-135m for the embedded model."""
    device: Device = setting("auto", advanced=True)
    """Device to compute on. auto takes CUDA where it is available."""
    dtype: Dtype = setting("auto", advanced=True)
    """Number type to compute in. auto takes bf16 where the hardware is faster in it, else fp32.
    LoRA and master weights are always fp32. nf4 keeps the blocks' maps in 4 bits (QLoRA, needs
    bitsandbytes)."""
    template: tuple[str, ...] = setting((), since=2, advanced=True)
    """Variables of the model's chat template, such as enable_thinking=false; skip_thinking=true and
    today_is=2024-07-26 for any template. chat_template=NAME chooses one of several."""
    control_tokens: ControlTokens = setting("text", since=2, advanced=True)
    """Control tokens that stand in prompts and answers, such as <|im_end|>. text: they are read as
    these characters. token: as tokens of the model. leave-out: rows with them are left out."""
    same_as: str | None = setting(None, since=2, speed_only=True, advanced=True)
    """Digest of a model, or a model, that this one is a copy of: you vouch for it. Its runs,
    vectors and adapters count as those of this one."""
    seed: int = 0
    """Seed of all random numbers of this stage."""


@dataclass(frozen=True)
class Output:
    """Where results are written. These settings change no result."""

    root: Path = Path("runs")
    """Folder of all runs."""
    study: str = setting("default", advanced=True)
    """Study folder: the folder of this run below the root."""
    track: str = setting("", advanced=True)
    """Send losses, EAS, progress and results to wandb or trackio, with :PROJECT behind it or not.
    Nothing is sent without this flag."""
    json: Path | None = setting(None, path="written")
    """File for a machine-readable summary with a `status`. Its folders are made, as those of
    --root are."""

    def check_folder(self) -> None:
        """Raise ConfigError for a study folder outside the root."""
        place = Path(self.study)
        if place.is_absolute() or ".." in place.parts or "\0" in self.study:
            raise ConfigError(
                f"--study {self.study} leads out of the root; expected the name of a folder below"
                " it; name the place of all runs with --root"
            )


@dataclass(frozen=True)
class NamedOutput(Output):
    """Where the run of a stage is written, and what it is called."""

    name: str = ""
    """Name of the run. It may then be given by this name wherever a run's path is taken."""
    note: str = ""
    """Text on the run, which `show` lists. Names and notes change no result and no address."""
