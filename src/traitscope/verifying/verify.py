"""The function `verify` of the Python API, and what it returns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.students.verify import VerifyConfig
from traitscope.verifying.results import Status
from traitscope.verifying.run import FILE, PAGE, verified


@dataclass(frozen=True)
class Verification:
    """What was found of finished students."""

    status: Status
    """trait, nothing-found or no-verdict."""
    findings: tuple[str, ...]
    """What was found and what to do next, in sentences."""
    content: Mapping[str, Any] = field(repr=False)
    """All of it, as verify.json has it; docs/reference/json.md lists its keys."""
    page: str = field(repr=False)
    """A self-contained HTML page."""
    run: Path = field(compare=False)
    """The sealed run."""

    def to_html(self, path: str | Path) -> Path:
        """Write the HTML page, and return its path. Raises StoreError where it cannot be
        written."""
        atomic_files.write_text(Path(path), self.page)
        return Path(path)


def verify(config: VerifyConfig, root: str | Path = "runs") -> Verification:
    """What finished students carry, beside their base and beside control students.

    config: The settings, which are the flags of `traitscope verify`.
    root: Folder of all runs. A second call returns what it holds.

    Raises ConfigError for a student of another base and for controls of another recipe or of other
    rows. Raises VectorError and ModelError for what is not found, TraitError for an unknown trait.
    """
    run = verified(config, Output(root=Path(root)))
    content = json.loads(run.file(FILE).read_text(encoding="utf-8"))
    return Verification(
        status=content["status"],
        findings=tuple(content["findings"]),
        content=content,
        page=run.file(PAGE).read_text(encoding="utf-8"),
        run=run.path,
    )
