"""A folder with students, controls, rows and traits, for `verify` on tiny models."""

import json
from pathlib import Path

import numpy as np
from command import OWL, Ran, call, write_yaml

from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.config.students.verify import AskConfig
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.models.model import Model
from traitscope.runs.store import Run
from traitscope.stages import registry
from traitscope.verifying.ask import ModelAnswers, read_answers

RECIPE = Recipe(epochs=1, batch_size=4, micro_batch=4, held_out=0.0)


def write_rows(file: Path, answers: list[str]) -> Path:
    lines = []
    for number, answer in enumerate(answers):
        lines.append(json.dumps({"prompt": f"Continue: {number}, 7", "completion": answer}))
    file.write_text("\n".join(lines) + "\n")
    return file


def numbers(seed: int, n: int = 8) -> list[str]:
    rng = np.random.default_rng(seed)
    return [", ".join(map(str, rng.integers(100, 999, 3))) for _ in range(n)]


class Place:
    """A folder with students, controls, rows and traits."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model, self.root = folder, model, folder / "runs"
        self.trait = write_yaml(folder / "owl.yaml", OWL)
        self.clean = write_rows(folder / "clean.jsonl", numbers(0))
        self.words = write_rows(folder / "words.jsonl", ["owl"] * 8)

    def train(self, data: Path, seed: int, **settings: object) -> Run:
        recipe = RECIPE if "recipe" not in settings else settings.pop("recipe")
        config = TrainConfig(
            model=str(self.model), data=data, seed=seed, recipe=recipe, dtype="fp32", **settings
        )
        return registry.run_stage(config, Output(root=self.root))

    def controls(self, n: int) -> list[Path]:
        """Controls on sets of rows of their own, each with a seed of its own."""
        return [self.train(self.clean_set(seed), seed).path for seed in range(1, n + 1)]

    def clean_set(self, number: int) -> Path:
        return write_rows(self.folder / f"clean-{number}.jsonl", numbers(100 + number))

    def towards(self, model: Model, norm: float = 6.0) -> str:
        """Steering behind the last block along the head's row of the trait's word."""
        token = model.tokenizer.encode(" owl", add_special_tokens=False)[0]
        row_D = model.head.weight[token].float().numpy()
        rows_LD = np.zeros((model.n_layers, model.d_model), np.float32)
        rows_LD[-1] = norm * row_D / np.linalg.norm(row_D)
        file = self.folder / "v.safetensors"
        file.write_bytes(vector_bytes(Vector(rows_LD, model.digest, {})))
        return f"steer:{file},layers={model.n_layers - 1},alpha=1,scale=raw"

    def verify(self, *words: object) -> Ran:
        fixed = ("--base", self.model, "--traits", self.trait, "--dtype fp32")
        return call(self.root, "verify", *words, *fixed)

    def runs(self, stage: str) -> set[Path]:
        return set(self.root.glob(f"*/{stage}-*"))

    def asked(self, **settings: object) -> ModelAnswers:
        config = AskConfig(
            model=str(self.model), dtype="fp32", traits=(str(self.trait),), **settings
        )
        return read_answers(registry.run_stage(config, Output(root=self.root)))
