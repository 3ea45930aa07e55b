"""What a training reads beside what its settings name; found without torch."""

from pathlib import Path

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.errors import VectorError
from traitscope.interventions.vector import CENTRED_OVER, load_vector
from traitscope.runs import drawn_rows, store


def inputs(config: TrainConfig) -> dict[str, Path]:
    """What a training reads beside what its config names: see drawn_rows.py, and vectors.

    A vector says over which others it was centred. They lie beside it in its run of `extract`, and
    its digest stands for them. Where others lie there, these are inputs. Where none do, as beside
    a copy, the vector is one again, as `alone`: then `eas.json` has its values only.
    """
    further_inputs = drawn_rows.inputs_of_config(config)
    if config.vector is None or not config.vector.is_file():
        return further_inputs
    try:
        about = load_vector(config.vector).about
    except VectorError:  # read again, and named, before the model is loaded
        return further_inputs
    centred_over = about.get(CENTRED_OVER)
    expected = set(map(str, centred_over)) if isinstance(centred_over, list) else set()
    expected -= {config.vector.stem}
    others = {file.stem: file for file in beside(config.vector)}
    if others.keys() != expected:
        there = {f"beside-{name}": file for name, file in others.items()}
        further_inputs |= there or {"alone": config.vector}
    return further_inputs


def split(n_rows: int, recipe: Recipe, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training rows and of held-out rows, each in ascending order."""
    order = np.random.default_rng([seed, 0]).permutation(n_rows)
    n_held_out = recipe.held_out_rows(n_rows)
    return sorted(order[n_held_out:].tolist()), sorted(order[:n_held_out].tolist())


def beside(vector_file: Path) -> list[Path]:
    """The other vectors of a run of `extract`; none where the file is in no run."""
    if store.run_folder(vector_file) != vector_file.parent:
        return []
    files = sorted(vector_file.parent.glob("*.safetensors"))
    return [file for file in files if file != vector_file]
