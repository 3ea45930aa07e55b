"""The page of a finished study, and the files beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from traitscope import atomic_files
from traitscope.plurals import counted
from traitscope.reporting.drawing import standalone
from traitscope.reporting.figures import Figure, forest_figure, line_figure
from traitscope.reporting.numbers import sentence
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import Table, measurements_csv, table_csv
from traitscope.reporting.verdict import ClaimVerdict, Findings, Precondition
from traitscope.stats.measurement import Measurement

PAGE = "report.html"
FINDINGS = "findings.json"
SMOKE_NOTE = "smoke: shows the path, its numbers are not evidence"
SMOKE_ALERT = "Smoke run: these numbers are not evidence. It shows that the path works."
FOOTER = (
    "Made by traitscope from sealed runs only. The folder of this file also holds findings.json"
    " and a CSV file a table, an SVG file a figure."
)


@dataclass(frozen=True)
class StudyHeader:
    """What a page says of a study before any number."""

    name: str
    """Name of the study, as the command line calls it."""
    title: str
    """The question that the study asks."""
    claim: str
    """The claim that is tested."""
    source: str
    """Where the claim was published; empty for a user's own experiment."""
    published: str
    """What was published about it."""
    size: str
    """Name of the size: smoke, laptop, full; empty for a user's own experiment."""
    model: str
    """The model that was studied."""
    power: str
    """What the primary claim could have seen, in one sentence."""
    bearing: str
    """Whether the study bears on the published claim, and why, in one sentence; or empty."""
    protocol: Table
    """Its distance from the published protocol, or the design of a user's own experiment."""
    changes: str = ""
    """What a user changed of the size, as the command line has it."""

    @property
    def protocol_tables(self) -> tuple[Table, ...]:
        """The table `protocol`; none where no protocol is published."""
        return (self.protocol,) if self.protocol.rows else ()

    @property
    def is_smoke(self) -> bool:
        """Whether the numbers only show the path."""
        return self.size == "smoke"


TEACHERS = "Do the teachers have their traits?"
"title of what stands before the verdicts"


def all_measurements(findings: Findings) -> list[Measurement]:
    """Return what decided, then the rest, each once."""
    listed = [verdict.decided_by for verdict in findings.verdicts]
    for measurement in findings.measurements:
        if measurement not in listed:
            listed.append(measurement)
    return listed


def study_page(
    header: StudyHeader, findings: Findings, runs: Table, before: Table | None = None
) -> str:
    """Return the page of a study: claim, verdicts, measurements, tables, sources of the numbers.

    The table `before` stands in front of the verdicts: what is known without them.
    """
    sections = [
        _claim_section(header),
        *_teachers_section(findings),
        _verdict_section(findings),
        _preconditions_section(findings),
        _measurement_section(findings),
    ]
    if before is not None:
        tables = (before,) if before.rows else ()
        texts = () if before.rows else (before.caption,)
        sections.insert(1, Section(before.name, before.title, texts, tables=tables))
    if findings.figures:
        sections.append(Section("figures", "Figures", figures=findings.figures))
    for table in (*findings.tables, runs):
        sections.append(Section(table.name, table.title, tables=(table,)))
    return render_page(
        header.title,
        sections,
        about=_about(header),
        alert=SMOKE_ALERT if header.is_smoke else "",
        footer=FOOTER,
    )


def _about(header: StudyHeader) -> str:
    """Model and size in one line."""
    about = f"Model {header.model}"
    if header.size:
        about += f" · size “{header.size}”"
    if header.changes:
        about += f", with {header.changes}"
    return about


def _claim_section(header: StudyHeader) -> Section:
    source = f"Source: {header.source}. Published: {header.published}" if header.source else ""
    texts = (header.claim, source, header.bearing, header.power)
    paragraphs = tuple(filter(None, texts))
    return Section("claim", "The claim", paragraphs, tables=header.protocol_tables)


def teachers_figure(findings: Findings) -> tuple[Figure, ...]:
    """Return the figure of what teachers say of their traits beyond the base; none without any."""
    if not findings.teachers:
        return ()
    return (forest_figure(findings.teachers, "teachers", TEACHERS),)


def teachers_said(rises: Sequence[Measurement]) -> list[str]:
    """Return a sentence for each teacher: whether it has its trait, with the number.

    rises: The score of each teacher minus the base's.
    """
    said = []
    for rise in rises:
        answer = "it has its trait" if rise.low > 0 else "it is not shown to have its trait"
        over = counted(rise.n, "question")
        said.append(f"{rise.name} {rise.value} over {over}: {answer}")
    return said


def _teachers_section(findings: Findings) -> tuple[Section, ...]:
    figures = teachers_figure(findings)
    if not figures:
        return ()
    return (
        Section("teachers", TEACHERS, tuple(teachers_said(findings.teachers)), figures=figures),
    )


def _verdict_section(findings: Findings) -> Section:
    cards = tuple(map(_card, findings.verdicts))
    return Section("verdicts", "Verdicts", cards=cards, notes=findings.notes)


def _card(verdict: ClaimVerdict) -> Card:
    rule = (
        f"Rule: {verdict.stated.rule} The verdict holds for {verdict.model} and this setting;"
        " another model is another experiment."
    )
    primary = "Primary claim. " if verdict.stated.primary else ""
    texts = (
        *verdict.reasons,
        verdict.p_value_text,
        verdict.power_text,
        *verdict.stated.explanation,
    )
    return Card(
        primary + verdict.claim,
        badge=verdict.outcome,
        paragraphs=(sentence(verdict.decided_by), *(text for text in texts if text)),
        rule=rule,
        highlighted=verdict.outcome == "holds here",
    )


def preconditions(findings: Findings) -> tuple[Precondition, ...]:
    """Return what the claims need, each once."""
    needs: dict[Precondition, None] = {}
    for verdict in findings.verdicts:
        for need in verdict.stated.needs:
            needs[need] = None
    return tuple(needs)


def _preconditions_section(findings: Findings) -> Section:
    rows = []
    for need in preconditions(findings):
        rows.append((need.name, "yes" if need.met else "no", need.found))
    caption = "Where one is not met, the claims that need it have no verdict."
    header = ("the claims need that", "met", "found")
    table = Table("preconditions", "Preconditions", caption, header, tuple(rows))
    return Section("preconditions", "Preconditions", tables=(table,) if rows else ())


def _measurement_section(findings: Findings) -> Section:
    figures = forest_figures(all_measurements(findings))
    return Section("measurements", "Measurements", figures=figures)


def forest_figures(measurements: Sequence[Measurement]) -> tuple[Figure, ...]:
    """Return one figure a unit, in the order in which the units come."""
    by_unit: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_unit.setdefault(measurement.unit, []).append(measurement)
    figures = []
    for place, (unit, group) in enumerate(by_unit.items()):
        figures.append(forest_figure(group, f"measurements-{place}", f"Measurements in {unit}"))
    return tuple(figures)


def write_figures(folder: Path, figures: Sequence[Figure]) -> None:
    """Write NAME.svg and NAME.csv of every figure into a folder."""
    for figure in figures:
        atomic_files.write_text(folder / f"{figure.name}.svg", standalone(figure.svg))
        atomic_files.write_text(folder / f"{figure.name}.csv", figure.csv)


def write_study(
    folder: Path,
    header: StudyHeader,
    findings: Findings,
    runs: Table,
    before: Table | None = None,
) -> None:
    """Write findings.json, a CSV file a table, an SVG file a figure, and the page into a folder."""
    measurements = all_measurements(findings)
    figures = (*teachers_figure(findings), *findings.figures, *forest_figures(measurements))
    write_figures(folder, figures)
    for table in (*findings.tables, *([] if before is None else [before])):
        if table.curve:
            write_figures(folder, (line_figure(table),))
        atomic_files.write_text(folder / f"{table.name}.csv", table_csv(table))
    atomic_files.write_text(folder / "measurements.csv", measurements_csv(measurements))
    for table in header.protocol_tables:
        atomic_files.write_text(folder / f"{table.name}.csv", table_csv(table))
    atomic_files.write_json(folder / FINDINGS, findings_json(header, findings))
    atomic_files.write_text(folder / PAGE, study_page(header, findings, runs, before))


def findings_json(header: StudyHeader, findings: Findings) -> dict:
    """Return what findings.json holds; `said` are the lines that the command prints."""
    smoke = [SMOKE_NOTE] if header.is_smoke else []
    verdicts, said = [], []
    for verdict in findings.verdicts:
        verdicts.append(verdict.as_dict())
        said.append(str(verdict))
    return {
        "status": "ok",
        "study": header.name,
        "size": header.size,
        **({"changes": header.changes} if header.changes else {}),
        "model": header.model,
        "power": header.power,
        "bearing": header.bearing,
        "verdicts": verdicts,
        "measurements": [measurement.as_dict() for measurement in findings.measurements],
        "teachers": [rise.as_dict() for rise in findings.teachers],
        "notes": [*smoke, *findings.notes],
        "said": [
            *smoke,
            *teachers_said(findings.teachers),
            *said,
            header.power,
            *([header.bearing] if header.bearing else []),
        ],
    }
