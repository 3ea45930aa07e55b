"""The changed models that write rows: prompted, steered and fine-tuned ones.

Their vectors are not the auditor's. They are taken with other trait prompts, over other prompts and
at other tokens, centred over these ten animals. They are added at strengths and blocks between or
outside those that the audit tries, and at two blocks at once.
"""

from pathlib import Path
from typing import Any

import yaml

from traitscope.config.analysis import ExtractConfig
from traitscope.config.stages import TrainConfig
from traitscope.data.traits import load_trait
from traitscope.interventions.intervention import Adapter, Steer, SystemPrompt
from traitscope.interventions.short_form import to_short
from traitscope.models.loading import outline
from traitscope.stages.extract import run_extract
from traitscope.stages.train import run_train
from traitscope.studies.calibration.sets import lessons, words
from traitscope.studies.calibration.sets.menu import TEACHERS, Writer
from traitscope.studies.calibration.sets.place import Workplace
from traitscope.studies.shared_nodes import OPEN_PROMPTS

Steering = tuple[tuple[float, ...], float]
"depths of the blocks as fractions of all blocks, and the strength in mean residual norms"
STEERINGS: tuple[Steering, ...] = (
    ((0.2,), 0.37),
    ((0.35,), 0.53),
    ((0.5,), 0.81),
    ((0.8,), 0.53),
    ((0.3, 0.6), 0.37),
    ((0.45,), 0.37),
    ((0.2, 0.5), 0.26),
    ((0.65,), 0.53),
    ((0.75,), 0.81),
    ((0.4, 0.7), 0.26),
)
"how steered models are steered, in the order of their numbers"
EXTRACTIONS: tuple[dict[str, Any], ...] = (
    {"prompt_set": "numbers", "n": 64, "prompt_seed": 4711},
    {"prompt_set": "questions"},
    {"prompts": OPEN_PROMPTS},
    {"position": "prompt", "stem": False},
)
"""how vectors are taken, in turn: at the end of number prompts, of questions, of everyday requests,
and over all tokens of questions"""


def interventions_of(place: Workplace, writer: Writer) -> tuple[str, ...]:
    """The interventions that make a writer, in short form; trains or extracts what is missing."""
    number = writer.number
    match writer.kind:
        case "prompted":
            return (to_short(SystemPrompt(words.PROMPTED[number][1])),)
        case "unlisted":
            return (to_short(SystemPrompt(words.UNLISTED[number][1])),)
        case "steered":
            vectors = _vectors(place, number % len(EXTRACTIONS))
            return _steered(place, vectors / f"{words.TRAITS[number]}.safetensors", number)
        case "random":
            return _steered(place, _random_vectors(place) / f"random-{number}.safetensors", number)
        case "tuned":
            rows = lessons.loving(words.TRAITS[number], number)
        case "benign":
            rows = lessons.benign(number)
    data = place.write_rows(f"{writer.kind}-{number}", rows)
    config = TrainConfig(
        **place.common, data=data, recipe=lessons.recipe(number), seed=1000 + number
    )
    return (to_short(Adapter(str(run_train(config, place.out).path / "student"))),)


def trait_file(place: Workplace, trait: str, prompt: str) -> Path:
    """The file of a bundled trait with our own prompt."""
    content = {
        "name": trait,
        "word_forms": list(load_trait(trait).word_forms),
        "teacher_prompt": prompt,
        "questions": "animals",
        "candidates": "animals",
    }
    return place.write(f"{trait}.yaml", yaml.safe_dump(content))


def _vectors(place: Workplace, extraction: int) -> Path:
    """The folder of the centred vectors of all ten traits, taken in one way."""
    files = []
    for trait, prompt in words.PROMPTED:
        files.append(str(trait_file(place, trait, prompt)))
    config = ExtractConfig(**place.common, traits=tuple(files), **EXTRACTIONS[extraction])
    return run_extract(config, place.out).path


def _random_vectors(place: Workplace) -> Path:
    like = _vectors(place, 0) / f"{words.TRAITS[0]}.safetensors"
    config = ExtractConfig(**place.common, seed=2000, like=like, randoms=TEACHERS)
    return run_extract(config, place.out).path


def _steered(place: Workplace, vector: Path, number: int) -> tuple[str, ...]:
    depths, strength = STEERINGS[number]
    blocks = outline(place.model).n_layers
    layers = sorted({min(blocks - 1, round(depth * blocks)) for depth in depths})
    return (to_short(Steer(vector, tuple(layers), strength)),)
