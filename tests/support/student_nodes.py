"""A small graph of students."""

from pathlib import Path

from command import OWL, write_yaml

from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig, GenerateConfig, MeasureConfig, TrainConfig
from traitscope.workflow.graph import Node

RECIPE = Recipe(rank=2, epochs=2, batch_size=4, micro_batch=4, lr=1e-2, held_out=0.0)


def students(model: Path, place: Path, n: int = 3, broken: bool = False) -> list[Node]:
    """Rows, students of them, and what they answer; a branch that cannot work, if asked for."""
    common = {"model": str(model), "device": "cpu", "dtype": "fp32"}
    owl = str(write_yaml(place / "owl.yaml", OWL))
    found = [
        Node(
            "rows",
            GenerateConfig,
            lambda _: GenerateConfig(**common, n=8, count=3, vocabulary="template"),
            (),
            8,
        )
    ]
    for seed in range(n):
        found.append(
            Node(
                f"student {seed}",
                TrainConfig,
                lambda f, s=seed: TrainConfig(**common, seed=s, data=f["rows"], recipe=RECIPE),
                ("rows",),
                40,
            )
        )
        found.append(
            Node(
                f"answers {seed}",
                MeasureConfig,
                lambda f, s=seed: MeasureConfig(
                    **common,
                    trait=owl,
                    interventions=(f"adapter:{f[f'student {s}']}",),
                    samples=0,
                    capability=False,
                ),
                (f"student {seed}",),
                8,
            )
        )
    if broken:
        rows = place / "broken.jsonl"
        rows.write_text('{"prompt": "p"}\n')
        found.append(Node("broken", FilterConfig, lambda _: FilterConfig(rows), (), 100))
        found.append(
            Node("behind it", FilterConfig, lambda f: FilterConfig(f["broken"]), ("broken",), 1)
        )
    return found
