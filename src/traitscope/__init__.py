"""The public Python API of Traitscope.

    import traitscope as ts

    model = ts.load_model("smollm2-135m")
    vectors = ts.extract_vectors(model, ["cat", "owl", "dog"])
    teacher = ts.Steer(vectors["cat"], layer=14, alpha=0.6)
    rows = ts.generate(model, ts.number_prompts(64), [teacher], numbers=10)
    student = ts.train(model, rows, ts.Recipe(epochs=3), seed=1)
    scores = ts.measure(model, "cat", [student])

Names are loaded when they are first used, so that `import traitscope` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from traitscope import studies as studies
    from traitscope.auditing import audit as audit
    from traitscope.auditing.result import AuditResult as AuditResult
    from traitscope.comparison.compare import compare as compare
    from traitscope.config.recipe import Recipe as Recipe
    from traitscope.data.prompts import number_prompts as number_prompts
    from traitscope.data.records import Prompt as Prompt
    from traitscope.data.records import Record as Record
    from traitscope.data.traits import load_trait as load_trait
    from traitscope.defending import defend as defend
    from traitscope.errors import TraitscopeError as TraitscopeError
    from traitscope.interventions.applied import applied as applied
    from traitscope.interventions.intervention import Ablate as Ablate
    from traitscope.interventions.intervention import Adapter as Adapter
    from traitscope.interventions.intervention import ReplaceBase as ReplaceBase
    from traitscope.interventions.intervention import Steer as Steer
    from traitscope.interventions.intervention import SystemPrompt as SystemPrompt
    from traitscope.interventions.intervention import WeightNoise as WeightNoise
    from traitscope.interventions.vector import Vector as Vector
    from traitscope.models.loading import load_model as load_model
    from traitscope.screening.screen import screen as screen
    from traitscope.stages.filter import keep_numbers as keep_numbers
    from traitscope.stages.generate import generate as generate
    from traitscope.stages.measure import measure as measure
    from traitscope.stages.registry import run as run
    from traitscope.stats.measurement import Measurement as Measurement
    from traitscope.training.eas import eas as eas
    from traitscope.training.hf_callback import EasCallback as EasCallback
    from traitscope.training.loop import train as train
    from traitscope.vectors.means import extract_vectors as extract_vectors

_HOMES = {
    "Ablate": "traitscope.interventions.intervention",
    "Adapter": "traitscope.interventions.intervention",
    "AuditResult": "traitscope.auditing.result",
    "EasCallback": "traitscope.training.hf_callback",
    "Measurement": "traitscope.stats.measurement",
    "Prompt": "traitscope.data.records",
    "Recipe": "traitscope.config.recipe",
    "Record": "traitscope.data.records",
    "ReplaceBase": "traitscope.interventions.intervention",
    "Steer": "traitscope.interventions.intervention",
    "SystemPrompt": "traitscope.interventions.intervention",
    "TraitscopeError": "traitscope.errors",
    "Vector": "traitscope.interventions.vector",
    "WeightNoise": "traitscope.interventions.intervention",
    "applied": "traitscope.interventions.applied",
    "audit": "traitscope.auditing",
    "compare": "traitscope.comparison.compare",
    "defend": "traitscope.defending",
    "eas": "traitscope.training.eas",
    "extract_vectors": "traitscope.vectors.means",
    "generate": "traitscope.stages.generate",
    "keep_numbers": "traitscope.stages.filter",
    "load_model": "traitscope.models.loading",
    "load_trait": "traitscope.data.traits",
    "measure": "traitscope.stages.measure",
    "number_prompts": "traitscope.data.prompts",
    "screen": "traitscope.screening.screen",
    "run": "traitscope.stages.registry",
    "studies": "traitscope.studies",
    "train": "traitscope.training.loop",
}
"where each public name is defined"

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traitscope' has no attribute {name!r}")
    module = import_module(_HOMES[name])
    if name == "studies":
        return module
    value = getattr(module, name)
    if isinstance(value, type):
        import_module("traitscope.config.fields").show_in_help(value)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
