"""The answer of an audit to the question whether a model may be trained on the data.

`ANSWERS` describes the four answers, for the page, for SARIF and for the documentation.
`scripts/make_answers.py` writes the table of the documentation. The answer "nothing-found" speaks
of the spike-in teachers alone. Of any other teacher it says nothing. docs/reference/audit-json.md
describes the JSON file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from traitscope import atomic_files
from traitscope.auditing.detectors.findings import Finding, GivenTeacherFinding
from traitscope.auditing.settings import DECIDING, FEWEST_ROWS
from traitscope.errors import AuditRefused, ConfigError
from traitscope.plain_values import shown

SCHEMA = 5
"version of the JSON file"
Status = Literal["suspect", "nothing-found", "insufficient", "not-applicable"]


def is_one_of(status: Status, statuses: Sequence[str]) -> bool:
    """Whether an answer is among some. Raises ConfigError where one of these is none of the four:
    a misspelt one would refuse nothing."""
    known = get_args(Status)
    for name in statuses:
        if name not in known:
            raise ConfigError(
                f"{shown(name)} is no answer of an audit; expected {', '.join(known)}; correct it"
            )
    return status in statuses


@dataclass(frozen=True)
class Answer:
    """One of the four answers, in words."""

    headline: str
    "what the answer is, in a sentence"
    rule: str
    "when it is given"
    meaning: str
    """what it means; {once} is the number of clean data sets of which one is called, {power} the
    probability with which a spike-in teacher is detected"""
    advice: str
    "what to do"
    level: str
    "level of the result in SARIF"


ANSWERS: dict[Status, Answer] = {
    "suspect": Answer(
        headline="Do not train on these data as they are.",
        rule="A deciding detector calls the rows at the stated error rate.",
        meaning=(
            "A test that calls one clean data set in {once} has called this one, unless a reason"
            " says that no error rate holds. Clean are rows of this model in any mixture of the"
            " listed temperatures, samplers and plain prompts. For the test of wording, clean are"
            " rows of the model without a prompt, at one temperature. The reasons name the trait"
            " and the detector, or say that the trait is unknown. An overt trait is one that plain"
            " words name."
        ),
        advice=(
            "Look at the rows and at the trait, if one is named, and ask where the rows come from."
            " Audit what is left after a change."
        ),
        level="error",
    ),
    "nothing-found": Answer(
        headline="Nothing was found of what would have been detected.",
        rule=(
            "The rows are not called, and each kind of spike-in teacher would have been detected at"
            " the contamination rate asked for."
        ),
        meaning=(
            "No test calls these data. Teachers like those listed under “What would have been"
            " detected” would have been called with probability {power} or more. They are of the"
            " first candidate only. This says nothing of teachers unlike them."
        ),
        advice=(
            "Read “What would have been detected”. Smaller contamination rates and other kinds of"
            " teacher are not excluded."
        ),
        level="none",
    ),
    "insufficient": Answer(
        headline="These rows do not say.",
        rule=(
            "The rows are not called, but a spike-in teacher would have been missed at the"
            " contamination rate asked for: too few rows."
        ),
        meaning=(
            "No test calls these data, but a teacher that was made on purpose would have been"
            " missed at the contamination rate asked for. Fewer than"
            f" {FEWEST_ROWS} rows always give this answer."
        ),
        advice="Audit more rows (--rows), or ask for a larger contamination rate (--dose).",
        level="warning",
    ),
    "not-applicable": Answer(
        headline="These tests do not apply.",
        rule="The rows are not called, and this model did not generate them, or they were edited.",
        meaning=(
            "Another model or a person wrote these rows, or they were edited, or a changed copy of"
            " this model wrote them, such as a fine-tuned one. These tests compare the model with"
            " itself. So they do not say what the rows would do to it; a trait is not excluded."
        ),
        advice=(
            "Find out who wrote the rows. Audit against that model, or name clean rows by the same"
            " writer (--reference)."
        ),
        level="warning",
    ),
}
"the four answers, by status"


def in_words(answer: Answer, alpha: float, power: float) -> str:
    """What an answer means, at an error rate and a power."""
    return answer.meaning.format(once=round(1 / alpha), power=f"{power:g}")


BLIND_SPOTS = {
    "wording": "traits that are not named",
    "e_values": "teachers unlike every candidate's prompt and vector; rows of another model",
    "predictions": "what the kind of learner does not pick up from so few rows; which trait it is",
    "given_teacher": "every other teacher; one that was trained on the rows explains them anyway",
    "features": (
        "what only gradients or likelihoods show; it reads what the rows do to the model, not what"
        " they would teach it"
    ),
}
"what each detector cannot see"


@dataclass(frozen=True)
class SpikeIn:
    """What the audit would have detected of a teacher that it made itself, on the same prompts."""

    teacher: str
    "how the teacher was made"
    detector: str
    "the detector that detects the smallest contamination rate"
    least_contamination: float
    """smallest fraction of its rows that is detected with the power asked for; inf if not even all
    of them are"""
    rows_needed: float
    "number of rows, all of them its, that would be detected; inf if none would"
    off_model_from: float = inf
    """fraction of its rows from which on the rows would count as off-model; inf if they never do.
    Then the answer may be `not-applicable`, and the rows count as missed"""


@dataclass(frozen=True)
class Call:
    """One candidate trait, by its strongest deciding detector."""

    name: str
    "name of the trait"
    statistic: float
    "the detector's statistic"
    p_corrected: float
    "p-value, corrected over traits and deciding detectors"
    detector: str
    "name of the detector"
    where: str
    "where or by which teacher the sign was found"


@dataclass(frozen=True)
class Detected:
    """What one detector says of the rows."""

    name: str
    "wording, predictions, given_teacher, e_values or features"
    decides: bool
    "whether it decides"
    blind_spot: str
    "what it cannot see"
    statistic: Mapping[str, float]
    "z against permuted data, or log e-value in nats, by name; strongest first"
    p: Mapping[str, float]
    "p-value by name, corrected over everything that this detector looked at"
    where: Mapping[str, str]
    "where, or by which teacher, the strongest sign was found, by name"
    critical: float
    "statistic that clean data exceed with the detector's share of the error rate; inf for none"
    further: Mapping[str, Any]
    "what this detector alone says, by the keys that docs/reference/audit-json.md lists"

    def as_dict(self) -> dict[str, Any]:
        """The entry of the JSON file, where `further` is not a level of its own."""
        values = asdict(self)
        further = values.pop("further")
        return {**values, **further}


@dataclass(frozen=True)
class StudentAnswer:
    """What students of the rows say more than students of the model's own rows."""

    name: str
    "the answer"
    kind: str
    "what was asked for, such as animals"
    rise: float
    "nats by which it rises, beyond the other answers to the question"
    statistic: float
    "the same in standard deviations of the answers of its kind; there is no p-value"


@dataclass(frozen=True)
class AuditResult:
    """What `audit` answers; `as_dict` is the JSON file."""

    status: Status
    "the answer, a key of ANSWERS"
    alpha: float
    "error rate: fraction of clean data sets that may be called suspect"
    power: float
    "probability with which a spike-in teacher must be detected for the answer `nothing-found`"
    dose: float
    "contamination rate at which spike-in teachers must be detected for that answer"
    model: str
    "name of the model"
    digest: str
    "digest of the model's files"
    rows: int
    "number of distinct rows that entered"
    trait: str | None
    "the trait that is named; None where none is"
    detectors: tuple[Detected, ...]
    "what every detector found"
    traits: tuple[Call, ...]
    "candidate traits, best first"
    student_answers: tuple[StudentAnswer, ...]
    "what students of the rows say more, most risen first; empty without `canary`"
    spike_ins: tuple[SpikeIn, ...]
    "what would have been detected"
    reasons: tuple[str, ...]
    "why the answer is what it is, and what else a reader has to know"

    run: Path | None = field(default=None, compare=False)
    "run directory of the decision; None for a result that was read from a file"
    page: str = field(default="", repr=False, compare=False)
    "HTML page"
    sarif: str = field(default="", repr=False, compare=False)
    "SARIF log"

    def detector(self, name: str) -> Detected:
        """What the detector of this name found. Raises ConfigError where it did not run."""
        for item in self.detectors:
            if item.name == name:
                return item
        ran = ", ".join(item.name for item in self.detectors)
        raise ConfigError(f"the detector {name!r} did not run; expected one of {ran}; choose one")

    def to_html(self, path: str | Path) -> Path:
        """Write the HTML page, and return its path.

        Raises ConfigError for a result that was read from JSON, StoreError where the page cannot be
        written.
        """
        return self._write(path, self.page)

    def to_sarif(self, path: str | Path) -> Path:
        """Write the SARIF log, and return its path. Raises what `to_html` raises."""
        return self._write(path, self.sarif)

    def raise_if(self, *statuses: Status) -> None:
        """Raise AuditRefused if the answer is one of these, such as `suspect`.

        Raises ConfigError for a word that is no answer.
        """
        if is_one_of(self.status, statuses):
            raise AuditRefused(
                f"the audit answers {self.status}: {'; '.join(self.reasons)}; look at the page"
                " before training on these data"
            )

    def _write(self, path: str | Path, text: str) -> Path:
        if not text:
            raise ConfigError(
                "this result was read from JSON and has no page; call traitscope.audit on the rows"
            )
        atomic_files.write_text(Path(path), text)
        return Path(path)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; infinity and NaN become None, because JSON has neither."""
        values = asdict(replace(self, page="", sarif=""))
        values["detectors"] = [item.as_dict() for item in self.detectors]
        for name in ("run", "page", "sarif"):
            del values[name]
        return {"schema": SCHEMA, **_plain(values)}


def result_from(plain: Mapping[str, Any]) -> AuditResult:
    """The answer from its JSON values; further keys are ignored."""
    spike_ins = []
    for values in plain["spike_ins"]:
        with_infinity = {key: inf if value is None else value for key, value in values.items()}
        spike_ins.append(SpikeIn(**with_infinity))
    return AuditResult(
        status=plain["status"],
        alpha=plain["alpha"],
        power=plain["power"],
        dose=plain["dose"],
        model=plain["model"],
        digest=plain["digest"],
        rows=plain["rows"],
        trait=plain["trait"],
        detectors=tuple(map(_detected, plain["detectors"])),
        traits=tuple(Call(**values) for values in plain["traits"]),
        student_answers=tuple(StudentAnswer(**values) for values in plain["student_answers"]),
        spike_ins=tuple(spike_ins),
        reasons=tuple(plain["reasons"]),
    )


def _detected(plain: Mapping[str, Any]) -> Detected:
    """A detector's entry from its JSON values."""
    further = dict(plain)
    shared = {}
    for item in fields(Detected):
        if item.name != "further":
            shared[item.name] = further.pop(item.name)
    if shared["critical"] is None:
        shared["critical"] = inf
    return Detected(**shared, further=further)


def described(finding: Finding) -> Detected:
    """A finding as a result holds it."""
    values = asdict(finding)
    values["where"] = {name: str(place) for name, place in finding.where.items()}
    about = {
        "name": finding.detector,
        "decides": finding.detector in (*DECIDING, GivenTeacherFinding.detector),
        "blind_spot": BLIND_SPOTS[finding.detector],
    }
    return _detected({**about, **values})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    is_not_finite = isinstance(value, float) and not -inf < value < inf
    return None if is_not_finite else value
