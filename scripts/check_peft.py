"""Adapter folders of this package and of an older peft, exchanged on tiny models.

    pip install --no-deps --target old peft==0.10.0
    PYTHONPATH=old python scripts/check_peft.py

Prints the largest difference of logits in both directions, and ends with 1 where one is above 2e-5.
"""

import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import peft
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import lora_students  # noqa: E402 (a folder of the tests)
import tiny_models  # noqa: E402

from traitscope.interventions import lora, partial_lora, peft_folder  # noqa: E402
from traitscope.models import linear_maps  # noqa: E402

CLOSE = 2e-5
"largest difference of two logits"
SHAPES = (lora.LoraShape(3, 7.0), lora.LoraShape(24, 12.0))


def differences(family: str, folder: Path) -> Iterator[tuple[str, float]]:
    """The largest difference of logits for each adapter, by what was done."""
    model = tiny_models.load_tiny(tiny_models.save_tiny(family, folder / "base"))
    names = linear_maps.linear_names(model)
    for shape in SHAPES:
        with lora.adapted(model, shape) as layers:
            lora_students.randomise(layers)
            files = peft_folder.adapter_files(model, layers)
            ours = lora_students.logits_of(model.lm)
        place = lora_students.write(folder / f"ours-{shape.rank}", files)
        theirs = peft.PeftModel.from_pretrained(tiny_models.eager_lm(model), str(place)).eval()
        yield f"rank {shape.rank}, written here", _largest(lora_students.logits_of(theirs), ours)
        settings = peft.LoraConfig(
            r=shape.rank,
            lora_alpha=int(shape.alpha),
            target_modules=sorted(names),
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        theirs = peft.get_peft_model(tiny_models.eager_lm(model), settings).eval()
        theirs.save_pretrained(str(folder / f"theirs-{shape.rank}"))
        with partial_lora.mounted(model, folder / f"theirs-{shape.rank}"):
            ours = lora_students.logits_of(model.lm)
        yield f"rank {shape.rank}, written there", _largest(lora_students.logits_of(theirs), ours)


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def main() -> int:
    """Exit code."""
    warnings.simplefilter("ignore")  # peft warns of names that transformers has given up
    print(f"peft {peft.__version__}")
    worst = 0.0
    for family in tiny_models.FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            for name, difference in differences(family, Path(folder)):
                print(f"{family}, {name}: {difference:.1e}")
                worst = max(worst, difference)
    return int(not worst <= CLOSE)


if __name__ == "__main__":
    sys.exit(main())
