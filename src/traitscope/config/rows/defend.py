"""Settings of `defend`, which changes rows before a student reads them."""

from dataclasses import dataclass, field
from pathlib import Path

from traitscope.config.common import ROWS, OnModel, check_minimums
from traitscope.config.fields import setting
from traitscope.config.judge import Endpoint
from traitscope.config.recipe import Recipe
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

METHODS = (
    "one or more methods, such as canonicalise:order=sort, drop:by=student,share=0.1 or wash; the"
    " page about defences lists them"
)
SCOUT = Recipe(epochs=1, batch_size=4, micro_batch=4, lr=7e-4, warmup=0.1, held_out=0.0)
"""Recipe of the students whose likelihoods tell suspicious rows, for a few hundred rows."""


@dataclass(frozen=True)
class DefendConfig(OnModel):
    """Change rows so that a student takes on less of what their teacher carries.

    Methods act one after another. Rows that leave stay in the file, with the reason. The original
    answer of each changed row is kept.
    """

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Run of `generate` or `filter`, or a file of rows."""
    by: tuple[str, ...] = setting((), needed=METHODS)
    """Methods in their order, each NAME or NAME:OPTION=VALUE,OPTION=VALUE."""
    known: tuple[str, ...] = ("base",)
    """What the defender may use: nothing, base, clean:FILE, trait:NAME,
    vector:FILE,layers=14,alpha=0.6, teacher:NAME. base is the model before training."""
    recipe: Recipe = field(default=SCOUT)
    """How the students of by=student are trained. Each reads one half of the rows."""
    context: str | None = setting(None, advanced=True)
    """System turn of rows that have none."""
    text: bool = setting(False, advanced=True)
    """Read the text of the rows instead of their token ids."""
    max_new_tokens: int = setting(128, advanced=True)
    """Longest answer that wash and paraphrase write for a row, in tokens."""
    endpoint: Endpoint = setting(Endpoint(), since=2)
    """The endpoint of paraphrase:with=endpoint."""
    report: Path | None = setting(None, path="written")
    """Write one self-contained HTML page to this file."""
    pass_rows: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, max_new_tokens=1, pass_rows=1)
        if self.recipe.targets != "sampled":
            raise ConfigError(
                f"--targets {self.recipe.targets}: the students of defend learn the tokens of rows;"
                " expected sampled; leave the flag out"
            )

    @property
    def clean(self) -> Path | None:
        """File or run of clean rows that the defender may use; None without one."""
        for word in self.known:
            kind, _, value = word.partition(":")
            if kind == "clean" and value:
                return Path(value)
        return None
