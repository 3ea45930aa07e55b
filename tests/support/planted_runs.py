"""Run folders with planted numbers, as the stages write them, for tests of what studies conclude.

Every value is a base, plus the planted effect, plus noise that is drawn from the node's name. So a
test knows the truth, and runs with one name are the same in every test.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from traitscope.information.teachers import BASE, GIVEN
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.stats.measurement import Measurement
from traitscope.studies.teachers import distances

MODEL = "planted"
"model that the planted vectors name"
NOISE = 0.01
"standard deviation of what is added to every planted number"


class PlantedRuns:
    """Run folders by node below one root; a folder appears as soon as a file is written into it."""

    def __init__(self, root: Path, layers: int = 4, questions: int = 8) -> None:
        self.folders: dict[str, Path] = {}
        self.layers = layers
        self.questions = questions
        self._root = root

    def folder(self, node: str) -> Path:
        """Return the folder of a node, made on first use."""
        if node not in self.folders:
            self.folders[node] = self._root / f"{len(self.folders)}"
            self.folders[node].mkdir(parents=True)
        return self.folders[node]

    def json(self, node: str, name: str, content: object) -> None:
        """Write a JSON file of a node."""
        (self.folder(node) / name).write_text(json.dumps(content), encoding="utf-8")

    def json_lines(self, node: str, name: str, rows: Iterable[Mapping]) -> None:
        """Write a JSONL file of a node."""
        lines = [json.dumps(row) + "\n" for row in rows]
        (self.folder(node) / name).write_text("".join(lines), encoding="utf-8")

    def distances(self, nats: Iterable[float]) -> None:
        """Write what `information` does: KL of each given teacher from the base, nats a row."""
        given = []
        for value in nats:
            about = vars(Measurement("KL", value, value, value, 8, 8, 0, "nats"))
            given.append({"kind": GIVEN, "against": {BASE: about}})
        self.json(distances.NAME, "summary.json", {"teachers": given})

    def answers(
        self, node: str, rise: float = 0.0, share_rise: float = 0.0, perplexity: float = 10.0
    ) -> None:
        """Write what `measure` does: log P(trait) of every positive question, `rise` above a base.

        The share of the trait among its candidates is 0.2 plus `share_rise`.
        """
        noise = self._noise(node, (self.questions, 2))
        rows = []
        for number in range(self.questions):
            rows.append(
                {
                    "id": f"positive/{number}",
                    "set": "positive",
                    "target_logprob": -3.0 - 0.1 * number + rise + noise[number, 0],
                    "candidate_share": 0.2 + share_rise + 0.1 * noise[number, 1],
                }
            )
        rows.append({"id": "neutral/0", "set": "neutral", "target_logprob": 99.0})
        self.json_lines(node, "scores.jsonl", rows)
        self.json(node, "measurements.json", {"perplexity": perplexity, "measurements": []})

    def eas(self, node: str, by_vector: Mapping[str, Sequence[float]]) -> None:
        """Write what `train` does of EAS: a value a layer, by vector, plus noise."""
        noisy = {}
        for name, values in by_vector.items():
            noise = self._noise(f"{node} {name}", (len(values),))
            noisy[name] = [float(value) for value in np.asarray(values) + noise]
        self.json(node, "eas.json", noisy)

    def vector(self, node: str, name: str, rows_LD: np.ndarray) -> None:
        """Write a vector file NAME.safetensors of a node."""
        vector = Vector(np.asarray(rows_LD, dtype=np.float32), MODEL)
        (self.folder(node) / f"{name}.safetensors").write_bytes(vector_bytes(vector))

    def planted(self, node: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return standard normal numbers that only the name of the node decides."""
        return self._noise(node, shape) / NOISE

    def _noise(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        stream = np.random.default_rng(zlib.crc32(name.encode()))
        return NOISE * stream.standard_normal(shape)
