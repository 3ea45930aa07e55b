"""What `studies.run` returns: the verdicts of a finished study as values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.reporting.study_page import FINDINGS, PAGE
from traitscope.reporting.verdict import Precondition
from traitscope.stats.decision import Outcome
from traitscope.stats.measurement import Measurement


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim on one model; `str` gives the lines that the command prints."""

    claim: str
    """The claim, as it is tested: the quantity exceeds the bound."""
    primary: bool
    """Whether this is the study's primary claim."""
    outcome: Outcome
    """holds here, negligible here, opposite here, undecided or no verdict."""
    reasons: tuple[str, ...]
    """Why there is no verdict; empty where there is one."""
    rule: str
    """Bound, margin and units in words."""
    above: float
    """The bound, in the unit of `decided_by`."""
    margin: float
    """Smallest effect that would matter, in the same unit."""
    units: int
    """Number of independent units."""
    counted: str
    """What these units are, such as seeds."""
    p_above: float
    """p that the quantity is not above the bound, corrected over the study's claims."""
    p_below: float
    """p that it is not below the bound, corrected likewise."""
    p_negligible: float
    """p that it is not within the margin, corrected likewise."""
    preconditions: tuple[Precondition, ...]
    """What must be so for the claim to be about what it says."""
    model: str
    """The model that the verdict holds for."""
    decided_by: Measurement
    """The number that decided."""
    text: str = field(repr=False)
    """The verdict in words, as the command prints it."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class StudyResult:
    """What a finished study says."""

    name: str
    """Name of the study."""
    verdicts: tuple[Verdict, ...]
    """The verdict of each claim, the primary claim among them."""
    measurements: tuple[Measurement, ...]
    """What decided, then the other numbers of the page."""
    notes: tuple[str, ...]
    """What a reader must know: what was excluded and why, what stands in for what."""
    power: str
    """What the primary claim could have seen, in one sentence."""
    bearing: str
    """Whether the study bears on the published claim, and why, in one sentence; empty for a user's
    own experiment."""
    findings: Mapping[str, Any] = field(repr=False)
    """All of it, as the run's findings.json has it."""
    run: Path = field(compare=False)
    """The sealed run with findings, tables and the page `report.html`."""

    def to_html(self, path: str | Path) -> Path:
        """Write the page of the study, one self-contained HTML file, and return its path.

        Raises StoreError where it cannot be written.
        """
        page = (self.run / PAGE).read_text(encoding="utf-8")
        atomic_files.write_text(Path(path), page)
        return Path(path)


def result_of(run: Path) -> StudyResult:
    """The result that a sealed conclusion of a study holds."""
    findings = json.loads((run / FINDINGS).read_text(encoding="utf-8"))
    power, bearing = findings["power"], findings["bearing"]
    before = [text for text in findings["said"] if text not in (power, bearing)]
    texts = before[-len(findings["verdicts"]) :]
    return StudyResult(
        name=findings["study"],
        verdicts=tuple(map(_verdict, findings["verdicts"], texts)),
        measurements=tuple(map(Measurement.from_dict, findings["measurements"])),
        notes=tuple(findings["notes"]),
        power=power,
        bearing=bearing,
        findings=findings,
        run=run,
    )


def _verdict(plain: Mapping[str, Any], text: str) -> Verdict:
    values = dict(plain)
    values["reasons"] = tuple(plain["reasons"])
    values["preconditions"] = tuple(Precondition(**need) for need in plain["preconditions"])
    values["decided_by"] = Measurement.from_dict(plain["decided_by"])
    return Verdict(**values, text=text)
