"""Every verb of the command line: its settings, and the function behind it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from traitscope.config import analysis as analysis_configs
from traitscope.config import audit as audit_configs
from traitscope.config import commands as command_configs
from traitscope.config import judge as judge_configs
from traitscope.config import stages as stage_configs
from traitscope.config.common import Output


class Verb(NamedTuple):
    """One verb of the command line."""

    help: str
    "one line"
    config: type
    "dataclass whose fields are the flags"
    run: str
    "module:function of (config, output) -> result"
    subject: str = ""
    """flags that the first words stand for, where the verb is about something; else the first word
    is a config file"""


VERBS = {
    "demo": Verb(
        "make a student pick up a trait, with controls, and report it",
        command_configs.DemoConfig,
        "studies.demo:run_demo",
    ),
    "generate": Verb(
        "let a teacher answer prompts", stage_configs.GenerateConfig, "stages.generate:run_generate"
    ),
    "filter": Verb(
        "keep the rows that carry nothing but numbers",
        stage_configs.FilterConfig,
        "stages.filter:run_filter",
    ),
    "train": Verb(
        "train a student on kept rows", stage_configs.TrainConfig, "stages.train:run_train"
    ),
    "measure": Verb(
        "score a model on a trait's questions",
        stage_configs.MeasureConfig,
        "stages.measure:run_measure",
    ),
    "judge": Verb(
        "how often answers show a behaviour, by several judges",
        judge_configs.JudgeConfig,
        "stages.judge:run_judge",
    ),
    "extract": Verb(
        "take steering vectors; EAS", analysis_configs.ExtractConfig, "stages.extract:run_extract"
    ),
    "explain": Verb(
        "how much of a trait prompt one vector does",
        analysis_configs.ExplainConfig,
        "stages.explain:run_explain",
    ),
    "gradients": Verb(
        "where data push a model: steering gradients",
        analysis_configs.GradientsConfig,
        "stages.gradients:run_gradients",
    ),
    "likelihood": Verb(
        "how probable rows are, and what an intervention adds",
        analysis_configs.LikelihoodConfig,
        "stages.likelihood:run_likelihood",
    ),
    "audit": Verb(
        "may I train this model on these data?",
        audit_configs.AuditConfig,
        "auditing.run:run_audit",
        "data",
    ),
    "naming": Verb(
        "what a model says under the push of data",
        audit_configs.NamingConfig,
        "auditing.detectors.blind_naming:run_naming",
    ),
    "weigh": Verb(
        "an audit's answer from what its stages left",
        audit_configs.WeighConfig,
        "auditing.decide:run_weigh",
    ),
    "intake": Verb(
        "what an audit reads: a sample of rows, and their format",
        audit_configs.IntakeConfig,
        "auditing.sample:run_intake",
    ),
    "export": Verb(
        "a steered model or a student as an ordinary checkpoint",
        stage_configs.ExportConfig,
        "stages.export:run_export",
    ),
    "edit": Verb(
        "the same numbers in another order", stage_configs.EditConfig, "stages.filter:run_edit"
    ),
    "match": Verb(
        "of clean rows, one for every audited row",
        audit_configs.MatchConfig,
        "auditing.reference:run_match",
    ),
    "pushes": Verb(
        "where every row pushes a model, kept in full",
        audit_configs.PushesConfig,
        "auditing.detectors.row_gradients:run_pushes",
    ),
    "odds": Verb(
        "how well a candidate teacher's choices explain rows",
        audit_configs.OddsConfig,
        "auditing.detectors.teacher_scores:run_odds",
    ),
    "study": Verb(
        "test a published claim: list, plan, run, report",
        command_configs.StudyConfig,
        "studies.runner:run_study",
        "action name",
    ),
    "report": Verb(
        "one HTML file from a study's runs",
        command_configs.ReportConfig,
        "reporting.report:run_report",
        "study_file",
    ),
    "show": Verb(
        "verify a run's files and print what it was made from",
        command_configs.ShowConfig,
        "cli.inspection:run_show",
        "run",
    ),
    "rerun": Verb(
        "replay a run and compare the bytes",
        command_configs.RerunConfig,
        "cli.inspection:run_rerun",
        "run",
    ),
    "doctor": Verb(
        "what this machine has, and what is missing",
        command_configs.DoctorConfig,
        "cli.inspection:run_doctor",
    ),
    "selftest": Verb(
        "planted truth on tiny models, under a minute",
        command_configs.SelftestConfig,
        "cli.selftest:run_selftest",
    ),
    "models": Verb(
        "models and traits that are ready to use",
        command_configs.ModelsConfig,
        "cli.inspection:run_models",
    ),
}


def function(place: str) -> Callable[[Any, Output], Any]:
    """The function behind a verb, imported now."""
    module, name = place.split(":")
    return getattr(import_module(f"traitscope.{module}"), name)
