"""Audits drawn from a bank of sets: clean ones are not called, a steered teacher's are by the
search, and the bank's sources keep their seeds."""

import numpy as np
import pytest
from scored_rows import scored, written
from tiny_models import random_vector

from traitscope.auditing.detectors.text_features import order_of
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.studies.audit_sets import audit_sources
from traitscope.studies.audit_sets.audit_bank import ScoredSet, is_kept
from traitscope.studies.audit_sets.audit_draws import Bank, Draw, SearchSpace, audit_of
from traitscope.studies.audit_sets.audit_sources import Kind
from traitscope.studies.claims import audit_calibration

ROWS = 40
SPACE = SearchSpace(("cat", "owl", "dog"), ("cat", "owl"), (1,), 3.0)
CLEAN = [f"clean {number}" for number in range(4)]


@pytest.fixture(scope="module")
def bank(tiny: Model) -> Bank:
    """Clean sets, and one steered by cat's vector at block 1, with strength 3; gradients of the
    latter point there."""
    vectors = {"cat": random_vector(tiny, 1, norm=1.0), "owl": random_vector(tiny, 2, norm=1.0)}
    steer = {p: Steer(vectors[p.trait], (p.layer,), p.strength, scale="raw") for p in SPACE.points}
    rng = np.random.default_rng(0)
    sets, along, orders = {}, {}, {}
    for seed, name in enumerate((*CLEAN, "cat")):
        teacher = [steer[GridPoint("cat", 1, 3.0)]] if name == "cat" else []
        rows = written(tiny, teacher, ROWS, seed)
        model = scored(tiny, [], rows, True)
        teachers: dict = {trait: {PromptTeacher(): model} for trait in SPACE.tried}
        for point, item in steer.items():
            teachers[point.trait][point] = scored(tiny, [item], rows, True)
        texts = [tiny.tokenizer.decode(row.completion_ids) for row in rows]
        orders[name] = np.array([order_of(text) for text in texts])
        sets[name] = ScoredSet(model, teachers, {}, orders[name])
        along[name] = rng.standard_normal((ROWS, tiny.n_layers, 3, 2)).astype(np.float32)
    along["cat"][:, 1, 0] += 1.0
    return Bank(SPACE, ROWS, along, sets, orders)


def test_the_steered_set_is_of_the_point_that_it_says() -> None:
    points = [point for point in SPACE.points if point.trait == "cat" and point.layer == 1]
    assert [point.strength for point in points] == [1.5, 2.25, 3.0]
    assert len(SPACE.points) == 6


@pytest.mark.parametrize(("source", "rate"), [("clean 0", 0.0), ("cat", 1.0)])
def test_a_teacher_is_called_by_its_name_and_clean_rows_are_not(
    bank: Bank, source: str, rate: float
) -> None:
    rng = np.random.default_rng(1)
    audit = audit_of(bank, rng, Draw(source, CLEAN, rate, ROWS))
    assert audit.called == (source == "cat")
    if source == "cat":
        assert audit.first == "cat" and is_kept(audit.decision, "cat")
        assert str(audit.decision.e_values.where["cat"]).startswith("its vector at block")


def test_sources_are_told_apart_by_kind_not_by_name() -> None:
    size = audit_calibration.SIZES["laptop"]
    generated = audit_sources.generated_sets(size)
    names = [source.name for source in audit_sources.all_sets(size)]
    assert len(set(names)) == len(names)
    assert [source.kind for source in generated[: size.draws]] == [Kind.CLEAN] * size.draws
    steered = [source for source in generated if source.kind == Kind.STEERED]
    assert [(s.trait, s.block, s.strength) for s in steered] == [
        ("cat", 13, 0.6),
        ("cat", 16, 0.6),
        ("owl", 13, 0.6),
        ("cat", 16, 0.3),
    ]
    nodes = {node.name for node in audit_sources.row_nodes(size, {})}
    assert nodes >= set(names)


def test_formats_have_placebos_of_their_own() -> None:
    size = audit_calibration.SIZES["smoke"]
    (comma,) = [s for s in audit_sources.altered_sets(size) if s.kind == Kind.COMMA]
    placebos = audit_sources.placebo_sets(size, comma)
    assert len(placebos) == audit_sources.PLACEBOS + 1
    assert {placebo.kind for placebo in placebos} == {Kind.COMMA}
    clean = audit_sources.clean_sets(size)
    assert audit_sources.placebo_sets(size, clean[0]) == clean
