"""Weights that lie in pickles alone: what is said of them, and how they are converted.

A pickle is a program, which runs where it is opened. None is opened here. The commands below read
tensors by `torch.load(weights_only=True)`, which runs no program of the file.
"""

import shlex
from pathlib import Path

SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
"suffixes of files that are pickles, or archives of pickles"
ADAPTER, ADAPTER_CONFIG = "adapter_model", "adapter_config.json"
"name of the weights of a peft folder, without a suffix, and of its settings"
OF_TRANSFORMERS = "pytorch_model"
"begins the names of the pickles that transformers reads"
OF_TRAINERS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"begin the names of what trainers leave beside weights"
CONVERT_MODEL = (
    "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T;"
    " M.from_pretrained({old!r}, dtype='auto', use_safetensors=False).save_pretrained({new!r});"
    " T.from_pretrained({old!r}).save_pretrained({new!r})"
)
CONVERT_ADAPTER = (
    "import torch; from safetensors.torch import save_file; t = torch.load({old!r},"
    " map_location='cpu', weights_only=True); save_file({{k: v.contiguous() for k, v in"
    " t.items()}}, {new!r}, metadata={{'format': 'pt'}})"
)


def in_adapter(folder: Path) -> str:
    """What to say of a peft folder whose weights are a pickle alone; empty for any other folder."""
    if (folder / f"{ADAPTER}.safetensors").is_file():
        return ""
    for suffix in SUFFIXES:
        file = folder / f"{ADAPTER}{suffix}"
        if file.is_file():
            target = str(file.with_suffix(".safetensors"))
            command = _command(CONVERT_ADAPTER.format(old=str(file), new=target))
            return (
                f"{folder} holds its adapter in {file.name} alone, which is a pickle and could run"
                f" code, so it is not opened; expected {ADAPTER}.safetensors; convert it with:"
                f" {command}"
            )
    return ""


def in_model(folder: Path) -> str:
    """What to say of a model's folder whose weights are pickles alone; empty for any other."""
    pickles = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(OF_TRAINERS):
            pickles.append(path.name)
    if not pickles or list(folder.glob("*.safetensors")):
        return ""
    if any(name.startswith(OF_TRANSFORMERS) for name in pickles):
        what_to_do = f"convert it with: {of_model(str(folder))}"
    else:
        what_to_do = (
            "save it as safetensors where it was made, by model.save_pretrained(FOLDER), or fetch"
            " such a copy"
        )
    return (
        f"{folder} holds its weights in {', '.join(pickles[:2])} alone, which could run code, as"
        f" any pickle, so they are not opened; expected config.json and *.safetensors; {what_to_do}"
    )


def of_model(name: str) -> str:
    """The command that writes the weights of a folder, or of a model of the hub, anew."""
    target = f"{name.rstrip('/').rpartition('/')[2]}-safetensors"
    if Path(name).is_dir():
        target = f"{name.rstrip('/')}-safetensors"
    return _command(CONVERT_MODEL.format(old=name, new=target))


def _command(program: str) -> str:
    return f"python -c {shlex.quote(program)}"
