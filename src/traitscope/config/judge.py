"""What `judge` can be told; imports nothing heavy, like configs.py, which it belongs to."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from traitscope.config.common import OnModel
from traitscope.config.fields import setting
from traitscope.errors import ConfigError


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible chat endpoint."""

    url: str = ""
    """Base address of the endpoint, such as http://localhost:8000/v1."""
    served: str = ""
    """Name of the model there."""
    key: str = "OPENAI_API_KEY"
    """Environment variable with the endpoint's key; the key itself is written nowhere."""
    timeout: float = setting(60.0, speed_only=True, advanced=True)
    """Seconds to wait for an answer."""
    retries: int = setting(5, speed_only=True, advanced=True)
    """Further tries after a time-out, a rate limit or a server's error."""
    pause: float = setting(1.0, speed_only=True, advanced=True)
    """Seconds before the first of them; each waits twice as long, at most a minute, or as long as
    the endpoint says."""
    parallel: int = setting(4, speed_only=True, advanced=True)
    """Requests under way at one time."""
    price_in: float = setting(0.0, advanced=True)
    """Price of a million tokens read, for the cost that is printed."""
    price_out: float = setting(0.0, advanced=True)
    """Price of a million tokens written."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"--url {self.url!r}; expected an address that begins with http:// or https://"
            )
        if bool(self.url) != bool(self.served):
            raise ConfigError(
                f"--url {self.url!r} with --served {self.served!r}: an endpoint needs both; name"
                " the address and the model"
            )
        wrong = [
            n
            for n in ("timeout", "pause", "price_in", "price_out")
            if not (isfinite(vars(self)[n]) and vars(self)[n] >= 0)
        ]
        wrong += [n for n, least in (("retries", 0), ("parallel", 1)) if vars(self)[n] < least]
        if wrong or self.timeout == 0:
            raise ConfigError(
                f"endpoint with {', '.join(wrong) or 'timeout'} out of range; expected finite"
                " numbers of 0 or more, timeout and parallel above 0"
            )


@dataclass(frozen=True)
class JudgeConfig(OnModel):
    """How often answers show a behaviour, by one or more judges, with intervals and the judges'
    agreement."""

    data: Path | None = None
    """Answers to an evaluation set: a run of `generate`, or a JSONL file with ids."""
    judges: tuple[str, ...] = ("refusal",)
    """refusal, question, short:12, words:cat|cats, likelihood (a local model is asked), endpoint;
    not:NAME for the opposite."""
    question: str = ""
    """For likelihood and endpoint: asked about each answer, such as "Does the answer refuse the
    request?"."""
    endpoint: Endpoint = field(default_factory=Endpoint)
    """Of the judge endpoint."""
    batch_size: int = setting(32, speed_only=True, advanced=True)
    """Answers side by side, for likelihood; changes speed only."""
