"""What came out of each study where it was run: the outcome of its primary claim, as recorded.

The file comes with the package and is made of the pages of the claims by `scripts/make_study.py`.
"""

import json
from dataclasses import dataclass

from traitscope.data.package_files import bundled_file

FILE = "recorded.json"


@dataclass(frozen=True)
class Recorded:
    """The recorded outcome of a study at its laptop size, on the embedded model."""

    outcome: str
    """Outcome of the primary claim; empty where the study was not run."""
    bears: str
    """Whether it bears on the published claim: yes, partly, no; empty where it was not run."""

    def __str__(self) -> str:
        if not self.outcome:
            return "not run yet"
        return f"{self.outcome} (bears on the published claim: {self.bears})"


def recorded(study: str) -> Recorded:
    """Return what was recorded of a study; of one that is not in the file, that it was not run."""
    by_study = json.loads(bundled_file(FILE).read_text(encoding="utf-8"))
    return Recorded(**by_study.get(study, {"outcome": "", "bears": ""}))
