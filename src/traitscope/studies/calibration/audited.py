"""The line of results of one set: its rows, audited by the audit that ships at its own settings."""

import dataclasses
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traitscope.auditing.run import answered
from traitscope.config.audit import AuditConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.runs import opening
from traitscope.studies.calibration import runner
from traitscope.studies.calibration.results import Line, Version, code_digest, digest_of
from traitscope.studies.calibration.sets import rows
from traitscope.studies.calibration.sets.menu import KINDS, SetName, plan_of, seed_of
from traitscope.studies.calibration.sets.place import Workplace

DECIDES = (
    "auditing",
    "config/audit.py",
    "inference/samplers.py",
    "inference/token_bins.py",
    "inference/token_scores.py",
    "stats/mixtures.py",
    "training/prequential.py",
)
"code that an answer follows from, apart from what computes log-probabilities"
SETS_OWN = ("data", "seed", "workers", "report", "sarif", "fail_on")
"settings that differ between sets, or change no answer"
LATER = ("control_tokens", "reading", "same_as", "template")
"settings of later versions, which change nothing at their defaults"
AT_ROWS = (32, 64, 128, 256)
"rows after which the log e-value is kept"


@dataclass(frozen=True)
class Audits:
    """How sets are audited: with the defaults of `traitscope audit`, but for tests.

    No spike-in teachers are made: they call nothing, and cost more than the rest.
    """

    place: Workplace
    "where rows are made, and on which model"
    folder: str = "audits"
    "folder of the audits' runs below the root; processes side by side have their own"
    changes: Mapping[str, Any] = field(default_factory=dict)
    "settings that are not the defaults"

    def config(self, data: Path | None, seed: int) -> AuditConfig:
        """The settings of an audit."""
        fixed = {"data": data, "seed": seed, "workers": 1, "spike_ins": False}
        config = AuditConfig(**self.place.common, **fixed, **self.changes)
        settled: AuditConfig = opening.settled(config)
        return settled

    @property
    def version(self) -> Version:
        """The digests of settings and code.

        What `auto` stands for on a machine is no setting: each line names its number type.
        """
        asked = {"dtype": self.place.dtype, "device": self.place.device}
        settings = dataclasses.asdict(self.config(None, 0)) | {"set rows": self.place.rows} | asked
        for name in SETS_OWN:
            settings.pop(name, None)
        defaults = dataclasses.asdict(AuditConfig())
        for name in LATER:
            if settings[name] == defaults[name]:
                del settings[name]
        return Version(digest_of(settings), code_digest(DECIDES))

    def line(self, name: SetName) -> Line:
        """Make the rows of a set, audit them, and return the line of results."""
        started = cpu_seconds()
        data = rows.make_rows(self.place, name)
        made = cpu_seconds()
        seed = seed_of(name, "audit")
        out = Output(root=self.place.root, study=self.folder)
        config = self.config(data, seed)
        result = answered(config, out).result
        plan = plan_of(name)
        about = {
            "set": str(name),
            "kind": name.kind,
            "number": name.number,
            "family": KINDS[name.kind].family,
            "trait": plan.trait,
            "rate": plan.rate,
            "text": plan.is_text,
            "rows": len(row_files.rows_of(data)),
            "seed": seed,
            "dtype": config.dtype,
        }
        seconds = {
            "seconds_rows": round(made - started, 1),
            "seconds_audit": round(cpu_seconds() - made, 1),
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return {**about, **said(result, plan.trait), **seconds}

    def clean(self, name: SetName) -> None:
        """Delete the runs of a set's audit; those of the model alone stay."""
        data = self.place.root / "texts" / f"{name.file_name}.jsonl"
        runner.forget(self.place.root / self.folder, data)


def said(result: Mapping[str, Any], trait: str | None) -> Line:
    """What the answer of an audit says, from its JSON values, as fields of a line.

    trait: The trait that the rows' writer has.
    """
    predictions = _detector(result, "predictions")
    candidates = _detector(result, "e_values")
    log_e = candidates.get("statistic") or {}
    ranked = sorted(log_e, key=lambda each: -(log_e[each] if log_e[each] is not None else -1e9))
    best = ranked[0] if ranked else None
    fit = candidates.get("fit") or {}
    return {
        "status": result["status"],
        "audited_rows": result["rows"],
        "predictions": max(_numbers((predictions.get("statistic") or {}).values()), default=None),
        "critical": predictions.get("critical"),
        "curve": _at_rows(predictions.get("curve") or []),
        "learnt": predictions.get("learnt") or {},
        "explained": predictions.get("explained"),
        "joint": candidates.get("joint_log_e"),
        "best": best,
        "best_log_e": log_e.get(best),
        "true_log_e": log_e.get(trait),
        "true_rank": 1 + ranked.index(trait) if trait in ranked else None,
        "fit": {name: fit.get(name) for name in ("p", "temperature", "off_model")},
        "named": result["trait"],
        "log_e": {name: log_e[name] for name in ranked},
        "not_excluded": candidates.get("not_excluded") or [],
        "reason": result["reasons"][0] if result["reasons"] else "",
    }


def _detector(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a detector found; empty where the audit has no such one."""
    of_name: list[Mapping[str, Any]] = []
    for detector in result["detectors"]:
        if detector["name"] == name:
            of_name.append(detector)
    return of_name[0] if of_name else {}


def _at_rows(curve: list[list[float]]) -> dict[str, float]:
    """The log e-value at AT_ROWS and at the last row, by number of rows."""
    by_rows = {int(count): value for count, value in curve}
    wanted = {*AT_ROWS, max(by_rows, default=0)}
    return {str(count): by_rows[count] for count in sorted(wanted & by_rows.keys())}


def _numbers(values: Any) -> list[float]:
    return [value for value in values if value is not None]


def cpu_seconds() -> float:
    """Seconds of CPU of this process and of its ended children."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total
