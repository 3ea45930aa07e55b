"""Settings of every command: frozen dataclasses that import nothing heavy.

    from traitscope.config import Recipe, TrainConfig

    run = traitscope.run(TrainConfig(data=Path("runs/default/filter-1"), recipe=Recipe(epochs=3)))

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitscope.config.analysis import ExplainConfig as ExplainConfig
    from traitscope.config.analysis import ExtractConfig as ExtractConfig
    from traitscope.config.analysis import GradientsConfig as GradientsConfig
    from traitscope.config.analysis import InformationConfig as InformationConfig
    from traitscope.config.analysis import LikelihoodConfig as LikelihoodConfig
    from traitscope.config.analysis import MatchKLConfig as MatchKLConfig
    from traitscope.config.audit import AuditConfig as AuditConfig
    from traitscope.config.commands import CompareConfig as CompareConfig
    from traitscope.config.commands import ConvertConfig as ConvertConfig
    from traitscope.config.commands import DemoConfig as DemoConfig
    from traitscope.config.commands import ExperimentConfig as ExperimentConfig
    from traitscope.config.commands import ExportTasksConfig as ExportTasksConfig
    from traitscope.config.commands import StudyConfig as StudyConfig
    from traitscope.config.judge import Endpoint as Endpoint
    from traitscope.config.judge import JudgeConfig as JudgeConfig
    from traitscope.config.recipe import Recipe as Recipe
    from traitscope.config.rows.defend import DefendConfig as DefendConfig
    from traitscope.config.rows.filtering import EditConfig as EditConfig
    from traitscope.config.rows.filtering import FilterRules as FilterRules
    from traitscope.config.rows.reading import Reading as Reading
    from traitscope.config.rows.select import SelectConfig as SelectConfig
    from traitscope.config.screen import ScreenConfig as ScreenConfig
    from traitscope.config.screen import SteerScanConfig as SteerScanConfig
    from traitscope.config.stages import ExportConfig as ExportConfig
    from traitscope.config.stages import FilterConfig as FilterConfig
    from traitscope.config.stages import GenerateConfig as GenerateConfig
    from traitscope.config.stages import MeasureConfig as MeasureConfig
    from traitscope.config.stages import TrainConfig as TrainConfig
    from traitscope.config.students.verify import VerifyConfig as VerifyConfig

_HOMES = {
    "AuditConfig": "audit",
    "CompareConfig": "commands",
    "ConvertConfig": "commands",
    "DefendConfig": "rows.defend",
    "DemoConfig": "commands",
    "EditConfig": "rows.filtering",
    "Endpoint": "judge",
    "ExperimentConfig": "commands",
    "ExplainConfig": "analysis",
    "ExportConfig": "stages",
    "ExportTasksConfig": "commands",
    "ExtractConfig": "analysis",
    "FilterConfig": "stages",
    "FilterRules": "rows.filtering",
    "GenerateConfig": "stages",
    "GradientsConfig": "analysis",
    "InformationConfig": "analysis",
    "JudgeConfig": "judge",
    "LikelihoodConfig": "analysis",
    "MatchKLConfig": "analysis",
    "MeasureConfig": "stages",
    "Reading": "rows.reading",
    "Recipe": "recipe",
    "ScreenConfig": "screen",
    "SelectConfig": "rows.select",
    "SteerScanConfig": "screen",
    "StudyConfig": "commands",
    "TrainConfig": "stages",
    "VerifyConfig": "students.verify",
}
"the module of this package that defines each public name"

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traitscope.config' has no attribute {name!r}")
    return getattr(import_module(f"traitscope.config.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
