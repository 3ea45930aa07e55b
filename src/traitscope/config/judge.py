"""Settings of the stage `judge`.

This file imports nothing heavy.
"""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from traitscope.config.common import ROWS, OnModel
from traitscope.config.fields import setting
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible chat endpoint."""

    url: str = ""
    """Base address of the endpoint, such as http://localhost:8000/v1."""
    served: str = ""
    """Name of the model at the endpoint."""
    key: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key. The key itself is written nowhere."""
    timeout: float = setting(60.0, speed_only=True, advanced=True)
    """Seconds to wait for an answer."""
    retries: int = setting(5, speed_only=True, advanced=True)
    """Further tries after a time-out, a rate limit or a server's error."""
    pause: float = setting(1.0, speed_only=True, advanced=True)
    """Seconds before the first further try. Each next one waits twice as long, at most a minute, or
    as long as the endpoint says."""
    parallel: int = setting(4, speed_only=True, advanced=True)
    """Most requests under way at one time."""
    price_in: float = setting(0.0, advanced=True)
    """Price of a million tokens read, for the printed cost."""
    price_out: float = setting(0.0, advanced=True)
    """Price of a million tokens written, for the printed cost."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"--url {self.url!r}; expected an address that begins with http:// or https://;"
                " correct it"
            )
        if bool(self.url) != bool(self.served):
            raise ConfigError(
                f"--url {self.url!r} with --served {self.served!r}: an endpoint needs both; name"
                " the address and the model"
            )
        wrong = []
        for name in ("timeout", "pause", "price_in", "price_out"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                wrong.append(name)
        if self.retries < 0:
            wrong.append("retries")
        if self.parallel < 1:
            wrong.append("parallel")
        if self.timeout == 0:
            wrong.append("timeout")
        if wrong:
            raise ConfigError(
                f"endpoint with {', '.join(wrong)} out of range; expected finite numbers of 0 or"
                " more, timeout and parallel above 0; correct them"
            )


@dataclass(frozen=True)
class JudgeConfig(OnModel):
    """Measure how often answers show a behaviour, by one or more judges.

    Rates have intervals. With several judges their agreement is measured, too.
    """

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Answers to an evaluation set: a run of `generate`, or a file of rows with ids."""
    judges: tuple[str, ...] = ("refusal",)
    """Judges: refusal, question, short:12, words:cat|cats, likelihood (asks a local model) and
    endpoint. Of tasks: code, code:no-comments, parses, checks, answer, format and format:PATTERN.
    not:NAME is the opposite of a judge."""
    question: str = ""
    """Question about each answer for the judges likelihood and endpoint, such as "Does the answer
    refuse the request?"."""
    endpoint: Endpoint = field(default_factory=Endpoint)
    """Settings of the judge endpoint."""
    run_code: bool = setting(False, since=2, advanced=True)
    """Run the code of answers, for the judge checks, in a process with limits, which is no sandbox.
    Without it, checks are not run."""
    batch_size: int = setting(32, speed_only=True, advanced=True)
    """Answers in one pass of the judge likelihood; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""
