"""Loss traces of tiny students, pinned: a change here changes every published number, so it belongs
in the changelog."""

import dataclasses

import pytest
from tiny_models import random_vector
from train_runs import PLAIN, make_rows, run, self_distilled

from traitscope.config.recipe import Recipe
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model

BASE = dataclasses.replace(PLAIN, schedule="cosine", warmup=0.2, epochs=2, clip=1.0, micro_batch=3)
RECIPES = {
    "sampled": BASE,
    "soft": dataclasses.replace(BASE, targets="soft"),
    "full": dataclasses.replace(BASE, method="full", lr=1e-3),
    "vector": dataclasses.replace(BASE, method="vector", layer=1, lr=0.1),
}
LOSSES = {
    "sampled": [6.524022, 6.583929, 6.862432, 5.704713, 5.929579, 6.458293],
    "soft": [0.360607, 0.190878, 0.291048, 0.155302, 0.066497, 0.132326],
    "full": [6.524022, 6.573333, 6.866281, 5.833997, 6.136179, 6.620224],
    "vector": [6.524022, 6.559896, 6.860239, 6.395693, 6.599772, 6.830818],
}
GRADIENT_NORMS = {
    "sampled": [1.491138, 2.305296, 1.600405, 1.427994, 1.851614, 1.51627],
    "soft": [0.604721, 0.46978, 0.581292, 0.345407, 0.309049, 0.330211],
    "full": [3.959204, 5.433827, 3.827645, 3.449695, 4.607828, 3.649513],
    "vector": [0.083434, 0.161069, 0.087464, 0.105728, 0.135782, 0.088289],
}


@pytest.mark.parametrize(("name", "recipe"), RECIPES.items(), ids=list(RECIPES))
def test_losses_and_gradient_norms(tiny: Model, name: str, recipe: Recipe) -> None:
    rows = make_rows(tiny, 24)
    teacher_states = None
    if name == "soft":
        teacher = [Steer(random_vector(tiny), (0,), 4.0, scale="unit")]
        teacher_states = self_distilled(tiny, rows, teacher)
    all_metrics = run(tiny, recipe, rows, teacher_states, seed=3)[0]
    losses = [metrics["loss"] for metrics in all_metrics]
    norms = [metrics["grad_norm"] for metrics in all_metrics]
    assert losses == pytest.approx(LOSSES[name], abs=1e-5)
    assert norms == pytest.approx(GRADIENT_NORMS[name], abs=1e-5)
