"""`traitscope audit` and the studies of its error rate decide alike, on the same runs of the same
rows."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, write_yaml

from traitscope.auditing import plan, search, settings
from traitscope.auditing.artifacts import read_artifacts
from traitscope.auditing.decide import Decision, decide
from traitscope.auditing.detectors.text_features import order_of
from traitscope.auditing.evidence import AuditRuns, text_rows
from traitscope.auditing.settings import NullModel, Settings
from traitscope.inference.token_scores import read_token_scores
from traitscope.studies.audit_sets import audit_bank
from traitscope.studies.audit_sets.audit_bank import AuditedRows, Picked, ScoredSet

LOUD = "Owls! " * 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agreement")


@pytest.fixture(scope="module", autouse=True)
def _few_others() -> None:
    """Fewer other traits, and fewer styles: the same path in less time."""
    patch = pytest.MonkeyPatch()
    names = plan.bundled_traits()
    patch.setattr(plan, "bundled_traits", lambda: names[:4])
    patch.setattr(settings, "STYLED", settings.STYLED[:1])
    yield
    patch.undo()


def numbers(folder: Path, *words: object) -> tuple[object, ...]:
    return "--model", folder, "--n 64 --count 6 --vocabulary template", *words


def clean(folders: dict[str, Path]) -> tuple[object, ...]:
    return numbers(folders["llama"], "--seed 77")


def poisoned(folders: dict[str, Path]) -> tuple[object, ...]:
    return numbers(folders["llama"], "--interventions", f"prompt:{LOUD}")


def off_model(folders: dict[str, Path]) -> tuple[object, ...]:
    return numbers(folders["gpt2"])


def free_text(folders: dict[str, Path]) -> tuple[object, ...]:
    prompt = f"prompt:{settings.STYLES[0]}"
    words = "--n 48 --vocabulary free --max-new-tokens 12"
    return "--model", folders["llama"], words, "--interventions", prompt


@pytest.mark.parametrize("data", [clean, poisoned, off_model, free_text])
def test_the_study_decides_as_the_product_does(
    place: Path,
    folders: dict[str, Path],
    data: Callable[[dict[str, Path]], tuple[object, ...]],
) -> None:
    loud = OWL | {"teacher_prompt": LOUD, "rewordings": ["Round eyes at night."]}
    traits = [write_yaml(place / f"{trait['name']}.yaml", trait) for trait in (loud, CAT)]
    rows = ok(place / "runs", "generate", *data(folders)).run
    audit = (
        *("audit", rows, "--model", folders["llama"], "--traits", *traits),
        "--draws 1 --judged 0 --workers 1 --no-name",
    )
    result = call(place / "runs", *audit).summary
    runs = _runs_of(place / "runs" / "audit", Path(result["run"]))
    decision = _study_decision(runs)
    (finding,) = (d for d in result["detectors"] if d["name"] == "e_values")
    assert decision.e_values.statistic == pytest.approx(finding["statistic"], abs=1e-9)
    assert decision.e_values.p == pytest.approx(finding["p"], abs=1e-12)
    assert {n: str(t) for n, t in decision.e_values.where.items()} == finding["where"]
    assert decision.e_values.fit.p == pytest.approx(finding["fit"]["p"])
    assert decision.e_values.critical == finding["critical"]
    assert decision.e_values.fit.off_model == finding["fit"]["off_model"]
    if result["status"] in ("suspect", "not-applicable"):
        assert decision.status == result["status"]
        assert list(decision.reasons) == result["reasons"][: len(decision.reasons)]
    else:
        assert decision.status == "insufficient", "the study makes no spike-in teachers"
    expected = {poisoned: {"suspect"}, off_model: {"not-applicable"}}
    assert result["status"] in expected.get(data, {"nothing-found", "insufficient"})


def _runs_of(folder: Path, answer: Path) -> AuditRuns:
    """The runs that an answer was made from: its manifest names the file of artifacts."""
    inputs = json.loads((answer / "manifest.json").read_text())["inputs"]
    name = Path(inputs["parts"]["path"]).name
    return AuditRuns(read_artifacts(folder / name), folder)


def _study_decision(runs: AuditRuns) -> Decision:
    """The decision on all audited rows, by the studies' path: a bank, and rows picked of it."""
    scores = runs.artifacts.scores
    teachers: dict = {}
    for name, by_teacher in runs.teacher_folders(scores).items():
        teachers[name] = {t: read_token_scores(at)[1] for t, at in by_teacher.items()}
    nulls = {}
    for number, null in enumerate(scores.nulls):
        is_random = null.system_prompt is None
        key = NullModel(number if is_random else None, null.system_prompt)
        nulls[key] = read_token_scores(runs.at(null.run))[1]
    sample = text_rows(runs.at(runs.artifacts.sample))
    orders = np.array([order_of(row.completion) for row in sample])
    bank = ScoredSet(runs.data.scores, teachers, nulls, orders)
    placebo_orders = [order_of(row.completion) for row in runs.placebos[0][0]]
    log_p = {name: {t: s.log_p_RT for t, s in x.items()} for name, x in teachers.items()}
    rows = AuditedRows(
        model_RT=bank.model.log_p_RT,
        model_RS=bank.model.log_p_RS,
        teachers=log_p,
        nulls={null: s.log_p_RT for null, s in nulls.items()},
        orders_R=orders,
        placebo_orders_N=np.array(placebo_orders),
    )
    prompts = {
        name: [t for t in by_teacher if isinstance(t, search.PromptTeacher)]
        for name, by_teacher in teachers.items()
    }
    points = list(runs.steered_folders(scores))
    prior = search.prior(prompts, points, settings.search_blocks(runs.artifacts.blocks))
    picked = Picked([(bank, np.arange(len(orders)))])
    evidence = audit_bank.evidence_of(rows, picked, prior, len(runs.artifacts.traits))
    paired = len(runs.paired.records)
    return decide(replace(evidence, rows=paired), Settings())


def test_the_studies_import_the_products_settings() -> None:
    assert audit_bank.SETTINGS == Settings()
    assert audit_bank.CANDIDATES == settings.AuditConfig.traits
    assert audit_bank.NULLS is settings.NULLS
