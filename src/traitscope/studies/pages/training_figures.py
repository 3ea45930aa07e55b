"""Figures of how students trained: EAS by layer, EAS by step, loss by step.

Students are given by panel (a kind of training), condition and seed, because kinds of training are
never pooled.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from traitscope.comparison.page import marked_layer
from traitscope.reporting.figures import Curves, Figure, Frame, Point, curve_figure
from traitscope.training.eas import StudentEas
from traitscope.workflow.standard_nodes import read_json_lines

Runs = Mapping[str, Mapping[str, Mapping[int, Path]]]
"panel -> condition -> seed -> the run that trained the student"


def eas_layer_figure(runs: Runs, layer: int | None, width: int) -> Figure:
    """Return EAS by layer: a thin line a student, the mean bold.

    `layer` is marked, if there is one. `width` is the size of the residual stream; unrelated
    directions have a cosine of about 1 / sqrt(width), which is drawn grey.
    """
    curves: dict[str, dict[str, dict[int, list[Point]]]] = {}
    for panel, conditions in runs.items():
        for condition, seeds in conditions.items():
            for seed, folder in seeds.items():
                content = json.loads((folder / "eas.json").read_text(encoding="utf-8"))
                points = list(enumerate(StudentEas.from_json(content).own_L))
                curves.setdefault(panel, {}).setdefault(condition, {})[seed] = points
    caption = (
        "Empirical activation similarity (EAS): cosine between what training changed in a student"
        " and the teacher's vector, layer by layer. Thin: one seed. Bold: mean over seeds. Grey:"
        f" ±1/√D (D = {width}), one standard deviation for directions drawn at random."
    )
    columns = ("panel", "condition", "seed", "layer", "eas")
    chance = width**-0.5
    frame = Frame("layer", "EAS, cosine", columns, marked_layer(layer), chance)
    title = "What training changed, compared with the teacher's vector"
    return curve_figure("eas-by-layer", title, caption, curves, frame)


def eas_step_figure(runs: Runs, layer: int) -> Figure:
    """Return EAS at a layer while students train."""
    curves = _curves(runs, "eas", layer)
    caption = (
        f"EAS at the steered layer ({layer}) during training. Thin: one seed. Bold: mean over"
        " seeds."
    )
    columns = ("panel", "condition", "seed", "step", "eas")
    ylabel = f"EAS at layer {layer}, cosine"
    frame = Frame("optimizer step", ylabel, columns, marker="o")
    return curve_figure("eas-by-step", "EAS while students train", caption, curves, frame)


def loss_figure(runs: Runs, ylabels: Mapping[str, str]) -> Figure:
    """Return the training loss by step; `ylabels` say what the loss of a panel is."""
    caption = (
        "Training loss a completion token. Thin: one seed. Bold: mean over seeds. Open marks:"
        " held-out rows. The kinds of loss have different meanings and are not to be compared with"
        " each other."
    )
    columns = ("panel", "condition", "seed", "step", "loss", "held_out_loss")
    frame = Frame("optimizer step", ylabels, columns, zero=False)
    curves, circles = _curves(runs, "loss"), _curves(runs, "held_out_loss")
    return curve_figure(
        "loss-by-step", "Training loss", caption, curves, frame, circles, sharey=False
    )


def _curves(runs: Runs, key: str, layer: int | None = None) -> Curves:
    """Return (step, value) of the rows of metrics.jsonl that have a value under `key`."""
    curves: dict[str, dict[str, dict[int, list[Point]]]] = {}
    for panel, conditions in runs.items():
        for condition, seeds in conditions.items():
            for seed, folder in seeds.items():
                points = _points(folder, key, layer)
                if points:
                    curves.setdefault(panel, {}).setdefault(condition, {})[seed] = points
    return curves


def _points(folder: Path, key: str, layer: int | None) -> list[Point]:
    points = []
    for row in read_json_lines(folder, "metrics.jsonl"):
        value = row.get(key)
        if value is not None:
            points.append((row["step"], value if layer is None else value[layer]))
    return points
