"""What a study concludes of planted runs."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from traitscope.reporting.verdict import Findings

COMMON = {"model": "planted", "device": "cpu", "dtype": "fp32"}
HOLDS, NEGLIGIBLE, OPPOSITE = "holds here", "negligible here", "opposite here"
UNDECIDED, SILENT = "undecided", "no verdict"


def concluded(study: ModuleType, size: Any, folders: Mapping[str, Path]) -> Findings:
    """Return the findings; every planted run must be one that the study's graph makes."""
    names = {node.name for node in study.nodes(size, COMMON)}
    assert set(folders) <= names
    return study.conclude(size, folders, "planted")


def outcomes(findings: Findings) -> list[str]:
    """Return the outcome of every verdict."""
    return [verdict.outcome for verdict in findings.verdicts]


def unmet(findings: Findings) -> set[str]:
    """Return what the claims need and do not have."""
    names = set()
    for verdict in findings.verdicts:
        names |= {need.name for need in verdict.stated.needs if not need.met}
    return names


def estimates(findings: Findings) -> list[float]:
    """Return the estimate that decided every verdict."""
    return [verdict.decided_by.estimate for verdict in findings.verdicts]
