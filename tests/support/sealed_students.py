"""Sealed runs of planted students: vectors, training and answers, as the stages leave them.

Questions differ by about 1 nat, runs by `noise`. A shift is planted on the positive questions
alone, and EAS has its height at STEERED.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np

from traitscope import atomic_files
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.runs import store
from traitscope.runs.store import Run
from traitscope.stats.measurement import Measurement

LAYERS, STEERED, WIDTH, STEPS = 12, 6, 16, 20
QUESTIONS = {"positive": 8, "negative": 4, "off_topic": 4}
MODEL = "planted"


def seal(
    folder: Path,
    stage: str,
    config: dict,
    files: dict[str, object],
    inputs: dict[str, Run | Path] | None = None,
    model: str | None = MODEL,
) -> Run:
    """Return a sealed run with these files: a list is JSONL, bytes are as they are, else JSON."""
    with store.stage_run(folder, stage, config, inputs, model) as run:
        if not run.sealed:
            for name, content in files.items():
                _write(run.file(name), content)
    return store.load_run(run.path)


def _write(path: Path, content: object) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, list):
        lines = [json.dumps(row) + "\n" for row in content]
        atomic_files.write_text(path, "".join(lines))
    else:
        atomic_files.write_json(path, content)


def stream(*words: object) -> np.random.Generator:
    """Return a random stream that these words decide."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))


def score_rows(
    tag: str, shift: float = 0.0, noise: float = 0.05, questions: dict[str, int] = QUESTIONS
) -> list[dict]:
    """Return rows of scores.jsonl with `shift` on the positive set; one answer in four is empty."""
    rng = stream("scores", tag)
    rows = []
    for question_set, count in questions.items():
        for place in range(count):
            level = -4 + math.sin(place) + rng.normal(0, noise)
            if question_set == "positive":
                level += shift
            hits = int(rng.integers(0, 4))
            rows.append(
                {
                    "id": f"{question_set}-{place:02d}",
                    "set": question_set,
                    "question": f"{question_set} {place}?",
                    "target_logprob": level,
                    "candidate_share": math.exp(level),
                    "total_variation": float(rng.uniform(0, 0.1)),
                    "whole_word": hits / 4,
                    "first_word": hits / 8,
                    "answers": ["cat", "a dog", "owl", ""],
                    "unscored": 1,
                }
            )
    return rows


def vector_rows() -> np.ndarray:
    """Return the teacher's vector [L, D]: the first axis in every layer."""
    rows = np.zeros((LAYERS, WIDTH), dtype=np.float32)
    rows[:, 0] = 1.0
    return rows


def sealed_vectors(folder: Path) -> Run:
    """Return a run of `extract` with the vector of cat."""
    vector = Vector(vector_rows(), MODEL)
    return seal(folder, "extract", {"traits": ["cat"]}, {"cat.safetensors": vector_bytes(vector)})


def sealed_student(
    folder: Path,
    tag: str,
    seed: int,
    height: float,
    targets: str = "sampled",
    vectors: Run | None = None,
    model: str = MODEL,
) -> Run:
    """Return a run of `train` whose EAS with cat is about `height` at STEERED and 0.02 with owl."""
    rng = stream("student", tag, seed)
    moved = rng.normal(0, 0.1, (LAYERS, WIDTH)).astype(np.float32)
    moved[:, 0] += 10 * height
    noise_L = rng.normal(0, 0.02, LAYERS)
    fall_L = np.exp(-np.abs(np.arange(LAYERS) - STEERED) / 3)
    eas_L = (height * fall_L + noise_L).tolist()
    files = {
        "eas.json": {"v_student": eas_L, "other/owl": (0.02 + noise_L[::-1]).tolist()},
        "metrics.jsonl": _metrics(rng, eas_L),
        "v_student.safetensors": vector_bytes(Vector(moved, model)),
    }
    vectors = vectors or sealed_vectors(folder)
    inputs = {"vector": vectors.file("cat.safetensors")}
    config = {"seed": seed, "tag": tag, "recipe": {"targets": targets}}
    return seal(folder, "train", config, files, inputs, model)


def _metrics(rng: np.random.Generator, eas_L: list[float]) -> list[dict]:
    rows = []
    for step in range(1, STEPS + 1):
        row = {"step": step, "loss": 2 / step + rng.uniform(0, 0.2)}
        if step % 5 == 0:
            row["eas"] = [value * step / STEPS for value in eas_L]
        if step % 10 == 0:
            row["held_out_loss"] = 2 / step
        rows.append(row)
    return rows


def sealed_answers(
    folder: Path,
    tag: str,
    shift: float = 0.0,
    student: Run | None = None,
    rows: list[dict] | None = None,
    trait: str = "cat",
    context: str = "neutral",
    model: str = MODEL,
) -> Run:
    """Return a run of `measure`; its perplexity is 25 plus the shift."""
    rows = score_rows(tag, shift) if rows is None else rows
    about = {"trait": trait, "context_digest": context, "perplexity": 25 + shift}
    inputs = {} if student is None else {"interventions0": student}
    config = {"tag": tag, "trait": trait, "context": context}
    if student is not None:
        adapter = {"kind": "Adapter", "folder": "input:interventions0/student"}
        config["interventions"] = [adapter]
    files = {"scores.jsonl": rows, "measurements.json": about | {"measurements": []}}
    return seal(folder, "measure", config, files, inputs, model)


def measured_student(
    folder: Path, role: str, seed: int, shift: float, targets: str = "sampled"
) -> tuple[Run, Run]:
    """Return the runs of `train` and `measure` of a student: `shift` in nats, half of it in EAS."""
    student = sealed_student(folder, f"{targets} {role}", seed, 0.02 + shift / 2, targets)
    return student, sealed_answers(folder, f"{targets} {role} {seed}", shift, student)


def sealed_strength(folder: Path, tag: str, alpha: float, kl: float = 12.0) -> Run:
    """Return a run of `match_kl` that found a strength; both KLs are about `kl` nats a row."""
    numbers = []
    for name in ("KL of the teacher", "KL of the vector"):
        number = Measurement(name, kl, kl - 1, kl + 1, 12, 12, 0, "nats a row")
        numbers.append(number.as_dict())
    found = {"alpha": alpha, "layer": STEERED, "tries": 4, "measurements": numbers}
    return seal(folder, "match_kl", {"tag": tag}, {"strength.json": found})
