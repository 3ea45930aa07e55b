"""What a comparison found: quantities, their differences, and all of them together.

The text of a quantity is its name in tables and files, such as `positive.target_logprob`,
`perplexity`, `eas.cat` or `eas.cat minus others`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from traitscope import atomic_files
from traitscope.comparison.matching import Design, MeasuredModel, judges_of
from traitscope.comparison.roles import TEACHER, role_of
from traitscope.errors import DataError
from traitscope.reporting.figures import Interval
from traitscope.reporting.verdict import Precondition
from traitscope.stats.measurement import Measurement

SAMPLED_UNIT = "rate"
"the unit of scores of sampled answers"
UNSCORED = "unscored"
"the score that counts answers; a side has it, a difference has not"
PERPLEXITY = "perplexity"
"name and unit of the perplexity"
Variant = Literal["", "minus others", "of (treated − control)"]
"""EAS itself; minus the mean EAS along the other vectors; the cosine of the vector with the
difference of what training changed on both sides"""


@dataclass(frozen=True)
class QuestionScore:
    """The mean of a score over the questions of a set."""

    question_set: str
    """positive, negative or off_topic."""
    score: str
    """Name of the score."""

    def __str__(self) -> str:
        return f"{self.question_set}.{self.score}"


PRIMARY = QuestionScore("positive", "target_logprob")
"the score that decides whether there is an effect, of a trait with a word"


@dataclass(frozen=True)
class Perplexity:
    """Perplexity per token on plain text."""

    def __str__(self) -> str:
        return PERPLEXITY


@dataclass(frozen=True)
class Eas:
    """EAS at one layer."""

    vector: str
    """Trait of the vector."""
    variant: Variant = ""
    """Which number is made of it."""

    def __str__(self) -> str:
        return f"eas.{self.vector} {self.variant}".rstrip()


Quantity = QuestionScore | Perplexity | Eas
"""What models are compared by."""


@dataclass(frozen=True)
class Difference:
    """One number on both sides and their difference."""

    quantity: Quantity
    """What is compared."""
    treated: Measurement | None
    """Mean of the treated models."""
    control: Measurement | None
    """Mean of the control models; None where there is none to measure."""
    difference: Measurement
    """Treated minus control."""

    @property
    def score(self) -> str:
        """The name of the quantity, such as positive.target_logprob, perplexity or eas.cat."""
        return str(self.quantity)


@dataclass(frozen=True)
class AlongVector:
    """What only the teacher's data changed, along one vector at one layer."""

    vector: str
    """Name of the vector."""
    cosine_with_own: float
    """Cosine of this vector with the teacher's."""
    change: Measurement
    """Cosine of (v_treated − v_control) with this vector, over seeds."""


@dataclass(frozen=True)
class AlongRandoms:
    """The same along random vectors: the range that 95 % of them lie in."""

    n: int
    """Number of random vectors."""
    low: float
    """Lower end, of means over seeds."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Source:
    """Where the numbers of a model come from."""

    side: str
    """treated or control."""
    stage: str
    """Stage of the run; `memory` for scores that no run holds."""
    run: str
    """Name of the run's folder, or of the model."""
    digest: str
    """First 16 hex digits of the digest of the run's outputs; empty for scores in memory."""


@dataclass(frozen=True)
class Comparison:
    """Treated models against control models.

    `comparison["positive.target_logprob"]` is the difference in a score, `str(comparison)` all of
    them, `to_html` the page.
    """

    design: Design
    """How the sides were matched: paired, one control or unpaired."""
    treated: tuple[MeasuredModel, ...]
    """The treated models."""
    control: tuple[MeasuredModel, ...]
    """The control models."""
    differences: tuple[Difference, ...]
    """Scores by question set, then perplexity, then EAS at one layer."""
    eas_by_layer: Mapping[str, tuple[Interval, ...]]
    """Treated minus control EAS by trait, layer by layer, with t intervals over seeds."""
    layer: int | None = None
    """Layer at which EAS is compared."""
    change_by_layer: tuple[Interval, ...] = ()
    """Cosine of (v_treated - v_control) with the teacher's vector, layer by layer."""
    along_vectors: tuple[AlongVector, ...] = ()
    """What only the teacher's data changed, along every vector of its run, its own first."""
    along_randoms: AlongRandoms | None = None
    """The same along random vectors."""
    label: str = ""
    """What the control models are, in a word, where they are others than plain ones."""
    trait: str = ""
    """Name of the trait that the comparison is about."""
    base: MeasuredModel | None = None
    """The unmodified model, where it was given."""
    teacher: MeasuredModel | None = None
    """The teacher, where it was given."""
    teacher_has_trait: Precondition | None = None
    """Whether the teacher names the trait more than the base; None where nobody measured it."""
    sources: tuple[Source, ...] = field(default=(), compare=False)
    """The runs, or scores in memory, that the numbers come from."""

    def get(self, score: str | Quantity) -> Measurement | None:
        """Return the difference in a score, or None where it was not measured."""
        for item in self.differences:
            if score in (item.quantity, item.score):
                return item.difference
        return None

    def __getitem__(self, score: str | Quantity) -> Measurement:
        """Return the difference in a score.  Raises DataError where it was not measured."""
        measurement = self.get(score)
        if measurement is None:
            known = ", ".join(item.score for item in self.differences)
            raise DataError(f"no {score} was compared; expected one of {known}; choose one")
        return measurement

    def __str__(self) -> str:
        """Return one line for each difference: its name, estimate, interval and n."""
        lines = []
        for item in self.differences:
            lines.append(f"{item.score}: {item.difference}")
        return "\n".join(lines)

    def to_html(self, path: str | Path) -> Path:
        """Write the page, one self-contained HTML file, and return its path.

        It is the page of `traitscope compare --report`. Raises StoreError where it cannot be
        written.
        """
        from traitscope.comparison.page import comparison_page

        atomic_files.write_text(Path(path), comparison_page(self))
        return Path(path)

    def to_latex(self, path: str | Path) -> Path:
        """Write the differences as a booktabs table for LaTeX, and return its path.

        A second table has the scores of both sides, and of base and teacher where they were given.
        Raises StoreError where it cannot be written.
        """
        from traitscope.comparison.page import comparison_latex

        atomic_files.write_text(Path(path), comparison_latex(self))
        return Path(path)

    @property
    def judge(self) -> str:
        """The judge whose rate decides, of a behaviour; empty of a trait with a word."""
        judges = judges_of([*self.treated, *self.control])
        return judges[0] if judges else ""

    @property
    def primary(self) -> QuestionScore:
        """The score that decides whether there is an effect."""
        return QuestionScore(PRIMARY.question_set, self.judge) if self.judge else PRIMARY

    @property
    def other_vectors(self) -> int:
        """Number of other traits' vectors that EAS was compared with, too."""
        return max(0, len(self.eas_by_layer) - 1)

    @property
    def subject(self) -> str:
        """What the differences are of, in a word: treated models, or a teacher."""
        is_alone = self.teacher is None or self.teacher in self.treated
        return TEACHER if is_alone and role_of(self.treated) == TEACHER else "treated"

    @property
    def heading(self) -> str:
        """What is subtracted from what, as a title."""
        if self.subject == TEACHER:
            return f"Teacher minus {self.reference}"
        return "Treated minus control"

    @property
    def reference(self) -> str:
        """What the treated models are compared with, in a word."""
        return self.label or ("base" if self.design == "one control" else "control")
