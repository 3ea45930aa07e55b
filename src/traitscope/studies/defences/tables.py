"""Table and figure of the study `defences`: what each arm leaves, and at which cost."""

from collections.abc import Sequence
from typing import Any

from traitscope.reporting import drawing
from traitscope.reporting.drawing import Drawing, Shape
from traitscope.reporting.figures import Figure
from traitscope.reporting.tables import Table, csv_text
from traitscope.studies.defences import estimates, students
from traitscope.studies.defences.arms import Arm
from traitscope.studies.defences.estimates import Cell, ThreatCells
from traitscope.studies.defences.students import Defender

HEADER = (
    "arm",
    "who wrote the rows",
    "known",
    "removed share",
    "trait left, nats",
    "below plain training, nats",
    "task cost, nats a token",
    "token passes",
    "seeds",
)


def worth(by_threat: Sequence[ThreatCells], defender: Defender) -> Table:
    """Return the table of all arms on all threats."""
    rows = []
    for cells in by_threat:
        for cell in cells.cells.values():
            rows.append(_row(cells, cell, defender))
    caption = (
        "Removed share: 1 − rise under the defence / rise without one, with Fieller's interval."
        " It is undefined where undefended rows are not shown to teach the trait. Trait left:"
        " log P(trait), students minus controls under the same defence. Below plain training: what"
        " plain training leaves at the same task loss, minus what the arm leaves. Task cost: loss"
        " on held-out rows of the task, minus that of undefended students. Token passes: of rows"
        " and training, as planned, over those of plain training."
    )
    return Table("defences", "What each defence is worth", caption, HEADER, tuple(rows))


def _row(cells: ThreatCells, cell: Cell, defender: Defender) -> tuple[Any, ...]:
    arm = cell.arm
    return (
        arm.name,
        cells.threat.name,
        arm.knowledge,
        estimates.removed_share(cells, cell),
        estimates.rise(cell),
        estimates.below_plain(cells, cell),
        estimates.cost(cells, cell),
        round(students.passes(defender, arm), 2),
        len(cell.rises),
    )


def figure(cells: ThreatCells) -> Figure:
    """Return the figure of trait against task loss: defences, matched arms, plain training."""
    points = {name: estimates.mean_point(cell) for name, cell in cells.cells.items()}
    plain = [(cells.untrained_losses[0], 0.0)]
    for name, point in points.items():
        if cells.cells[name].arm.is_plain:
            plain.append(point)
    plain.sort()

    def draw(axes: Any, panel: str) -> None:
        drawing.zero_line(axes)
        losses, rises = zip(*plain, strict=True)
        axes.plot(losses, rises, "-", color=drawing.MARK, linewidth=2, label="plain training")
        for place, (name, (loss, rise)) in enumerate(points.items()):
            if cells.cells[name].arm.is_plain:
                axes.plot([loss], [rise], "o", color=drawing.MARK, markersize=4)
                continue
            _draw_arm(axes, cells.cells[name].arm, place, (loss, rise))
        axes.set_xlabel("loss on held-out rows of the task, nats a token")
        axes.set_ylabel("log P(trait), students minus controls, nats")
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))

    rows = []
    for name, (loss, rise) in points.items():
        rows.append([name, cells.cells[name].arm.knowledge, loss, rise])
    rows.append(["no training", "nothing", cells.untrained_losses[0], 0.0])
    title = f"Trait against task: {cells.threat.name}"
    caption = (
        "Means over seeds. Full marks: defences. Open marks: what does as much blindly. Grey line:"
        " plain training, stopped early or at lower rates. A defence that counts lies below it."
    )
    drawn = Drawing("trait-against-task", title, ("",), draw, Shape(width=8.4, height=5.2))
    csv = csv_text(["arm", "known", "task_loss", "trait_left"], rows)
    return Figure("trait-against-task", title, caption, drawn, csv)


def _draw_arm(axes: Any, arm: Arm, place: int, point: tuple[float, float]) -> None:
    colour = drawing.LINES[place % len(drawing.LINES)]
    marker = drawing.MARKERS[place % len(drawing.MARKERS)]
    fill = colour if arm.is_defence else "white"
    axes.plot(
        [point[0]],
        [point[1]],
        marker,
        color=colour,
        markerfacecolor=fill,
        markersize=5,
        linestyle="none",
        label=arm.name,
    )


def notes(strength: float) -> tuple[str, ...]:
    """Return what a reader of the page must know."""
    return (
        f"The teacher is steered with strength {strength:g} by the vector of the trait's questions."
        " The defender has that of everyday requests, and does not know the block.",
        "Controls read rows of the unmodified model under the same defence. Rows of the task are in"
        " both, and carry no trait.",
        "An arm under another trait's vector or prompt is the wrong knowledge: it must remove"
        " nothing.",
    )
