"""What `audit` and its stages can be told; imports nothing heavy, like configs.py, which it belongs to."""

from dataclasses import dataclass
from pathlib import Path

from traitscope.configs import OnModel, Position, least


@dataclass(frozen=True)
class IntakeConfig(OnModel):
    """What an audit reads: a sample of distinct rows that the model can read, and the format that all of them have."""

    data: Path | None = None
    """JSONL file, or a run of `filter` or `generate`."""
    context: str | None = None
    """System turn of rows that name none."""
    rows: int = 256
    """Rows to draw at random; 0 takes all."""

    def __post_init__(self) -> None:
        least(self, seed=0, rows=0)


@dataclass(frozen=True)
class PushesConfig(OnModel):
    """Where every row pushes the model, kept in full, and how well the model's own choices explain the row."""

    data: Path | None = None
    """Run of `intake` or `filter`, or a JSONL file."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Judge digits among digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    position: Position = "all"
    """Tokens that the added vector would act on."""
    batch_size: int = 8
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        least(self, seed=0, batch_size=1)


@dataclass(frozen=True)
class OddsConfig(OnModel):
    """How well a candidate teacher's choices explain the rows."""

    data: Path | None = None
    """Run of `intake` or `filter`, or a JSONL file."""
    interventions: tuple[str, ...] = ()
    """The candidate teacher."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Judge digits among digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    batch_size: int = 16
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        least(self, seed=0, batch_size=1)
