"""Settings of `select`, by which a teacher chooses among pairs of answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import OnModel, check_minimums
from traitscope.config.fields import setting
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

PAIRS = "a file of pairs (chosen and rejected), or a run with them"
SHARE = 0.05
"share of the pairs that is kept where nobody says"


@dataclass(frozen=True)
class SelectConfig(OnModel):
    """Keep the pairs of answers that a teacher would choose, or let it say which is preferred.

    The score of a pair is how far the teacher moves the log-odds of the chosen answer over the
    rejected one, against the unmodified model. The teacher writes no row.
    """

    data: Path | None = setting(None, path="rows", needed=PAIRS)
    """Preference data: a file of pairs, or a run with them. With `rejected`: single answers."""
    rejected: Path | None = setting(None, path="rows")
    """Rows with other answers to the prompts of `data`, matched by id. They are the rejected
    answers, such as a second run of `generate` with another seed."""
    interventions: tuple[str, ...] = ()
    """Interventions that make the teacher, such as prompt:"You love cats." or adapter:DIR."""
    by: Literal["teacher", "random"] = "teacher"
    """Who chooses. random is the control: as many pairs at random, or labels at random."""
    keep: float | None = None
    """Share of the pairs that is kept, those with the highest scores. None is 0.05, and 1 with
    `relabel`."""
    relabel: bool = False
    """Let the sign of the score say which answer is preferred. Then the pairs with the largest
    scores of either sign are kept."""
    per_token: bool = setting(False, advanced=True)
    """Divide the log-probability of each answer by its number of tokens."""
    max_rows: int | None = setting(None, advanced=True)
    """Number of first pairs to use; None uses all."""
    context: str | None = setting(None, advanced=True)
    """System turn of rows that have none."""
    text: bool = setting(False, advanced=True)
    """Read the text of the rows instead of their token ids."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed, and nothing else but rounding."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, max_rows=1, batch_size=1)
        if self.keep is not None and not 0 < self.keep <= 1:
            raise ConfigError(
                f"--keep {self.keep}; expected a share of the pairs above 0, at most 1; give one,"
                f" or leave it out for {SHARE}"
            )
        if self.keep == 1 and not self.relabel:
            raise ConfigError(
                "--keep 1 without --relabel: every pair would stay as it is; give a share below 1,"
                " or add --relabel"
            )
        if self.by == "random" and (self.interventions or self.per_token):
            raise ConfigError(
                "--by random with --interventions or --per-token: nothing would be scored; expected"
                " neither; drop them, or drop --by random"
            )

    def check_teacher(self) -> None:
        """Raise ConfigError where a teacher is to choose and there is none."""
        if self.by == "teacher" and not self.interventions:
            raise ConfigError(
                "--interventions is missing: without a teacher every score is 0, and nothing orders"
                ' the pairs; name interventions, such as prompt:"You love cats.", or take --by'
                " random"
            )

    @property
    def share(self) -> float:
        """Share of the pairs that is kept."""
        if self.keep is not None:
            return self.keep
        return 1.0 if self.relabel else SHARE
