"""The conclusion of a study or an experiment: its run, from the sealed runs of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitscope import atomic_files
from traitscope.errors import ConfigError
from traitscope.models.identity.experts import experts_of
from traitscope.reporting.study_page import StudyHeader, write_study
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Findings
from traitscope.runs import store
from traitscope.stages import registry
from traitscope.workflow.graph import Folders

if TYPE_CHECKING:
    from traitscope.studies.runner import Request

STUDY_FILE = "the study's file"
"name of the input of a conclusion that is the study itself"
NO_STAGES = (STUDY_FILE, "file")
"inputs of a conclusion that are no stages: the study's file, and a user's own file"


@dataclass(frozen=True)
class Concluded:
    """What a study concludes, as values."""

    header: StudyHeader
    """What its page says before any number."""
    size: Any
    """The study's `Size`."""
    findings: Findings
    """Verdicts, numbers, tables and figures."""
    before: Table | None
    """What its number rows can carry; None where that was not computed."""


def conclude(request: Request, folders: Folders) -> store.Run:
    """Return the sealed run with the findings and the page of a study whose stages are sealed."""
    # Stages end in any order; the page must not depend on it.
    names = [node.name for node in request.nodes() + request.information()]
    folders = {name: folders[name] for name in names if name in folders}
    inputs: dict[str, Path | store.Run] = {}
    for name, path in folders.items():
        inputs[name] = store.load_run(path)
    inputs[STUDY_FILE] = Path(request.study.__file__)
    config = _without_speed(request.config)
    with registry.opened(config, request.out, inputs) as run:
        if not run.sealed:
            kept = request.files()
            findings = findings_of(request, folders)
            before = request.information_table(folders)
            write_study(run.path, request.header(), findings, runs_table(folders), before)
            for name, text in kept.items():
                atomic_files.write_text(run.file(name), text)
    return run


def findings_of(request: Request, folders: Folders) -> Findings:
    """What the sealed stages say; of a mixture of experts also what its students left out."""
    findings = request.findings(folders)
    if experts := experts_of(request.config.model):
        return replace(findings, notes=(*findings.notes, experts["sentence"]))
    return findings


def concluded_again(request: Request, inputs: Mapping[str, Path]) -> Concluded:
    """What a request concludes from sealed runs; nothing is written.

    `inputs` are those that the conclusion recorded, by node. Raises ConfigError as `folders_of`.
    """
    folders = folders_of(request, inputs)
    findings = findings_of(request, folders)
    before = request.information_table(folders)
    return Concluded(request.header(), request.named_size(), findings, before)


def folders_of(request: Request, inputs: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of a request's stages in their order, from the recorded inputs by node.

    Raises ConfigError where the request has other stages in this version.
    """
    names = [node.name for node in request.nodes()]
    known = [*names, *(node.name for node in request.information())]
    other = sorted((set(names) - inputs.keys()) | (inputs.keys() - {*known, *NO_STAGES}))
    if other:
        raise ConfigError(
            f"{request.header().name} has other stages in this version, such as {other[0]!r};"
            f" expected those of the run; conclude anew: {request.typed}"
        )
    return {name: inputs[name] for name in known if name in inputs}


def _without_speed(config: Any) -> Any:
    """Return the settings without those that change no number, so that they share an address."""
    return replace(
        config, action="run", workers=0, executor="local", max_jobs=0, cluster=(), limit=0, pack=0
    )


def runs_table(folders: Folders) -> Table:
    """Return the table that says where every number comes from."""
    rows = []
    for name, path in folders.items():
        rows.append((name, path.name, store.load_run(path).digest[:16]))
    return Table(
        "runs",
        "Runs",
        "traitscope show RUN verifies a run and prints what it was made from.",
        ("node", "run", "digest"),
        tuple(rows),
    )
