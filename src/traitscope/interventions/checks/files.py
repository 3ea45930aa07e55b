"""Checks of the files that interventions name, before a model is loaded."""

from collections.abc import Iterable
from pathlib import Path

from traitscope.interventions.adapters import meaning, settings
from traitscope.interventions.checks.vectors import check_direction
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    Intervention,
    ReplaceBase,
    Steer,
)
from traitscope.interventions.vector import load_vector


def check_intervention_files(items: Iterable[Intervention], at_layers: bool = True) -> None:
    """Read vectors, and the settings of peft folders.

    Raises VectorError for a vector that is zero, or with `at_layers` zero at a layer of its
    intervention. Also for one that counts in residual norms and records none, and for an adapter
    whose settings are not understood.
    """
    for item in items:
        if isinstance(item, Steer | Ablate | ReplaceBase):
            vector = load_vector(Path(str(item.vector)))
            check_direction(vector, str(item.vector), item.layers if at_layers else ())
            in_norms = isinstance(item, Steer) and item.scale == "residual"
            if in_norms and vector.about.get("residual_norms") is None:
                _ = vector.residual_norms_L  # raises
        elif isinstance(item, Adapter) and (Path(item.folder) / settings.CONFIG).is_file():
            config, _ = settings.config_and_digest(Path(item.folder))
            meaning.check(item.folder, config)
