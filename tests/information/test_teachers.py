"""Who writes which row, and of which kind a teacher is."""

from collections import Counter

import numpy as np
import pytest

from traitscope.config.analysis import InformationConfig
from traitscope.data.traits import bundled_traits
from traitscope.information import teachers
from traitscope.information.teachers import GIVEN, Teacher


def test_kinds_of_all_bundled_traits() -> None:
    group = teachers.teachers_of(InformationConfig())
    assert [teacher.name for teacher in group[:2]] == ["unmodified", "plain prompt"]
    assert not group[0].interventions
    kinds = Counter(teacher.kind for teacher in group if teacher.has_trait)
    assert sum(kinds.values()) == len(bundled_traits())
    assert set(kinds) == {"animals", "emotions", "personas", "trees"}


def test_given_teachers_have_short_names_of_their_own() -> None:
    steer = "steer:x/cat.safetensors,layers=14,alpha=0.6"
    given = (steer, steer, "prompt:You like hats.", "noise:0.1,seed=3", "adapter:runs/train-7")
    group = teachers.teachers_of(InformationConfig(traits=(), plain="", steered=given))
    assert [teacher.name for teacher in group] == [
        "unmodified",
        "cat, steered 0.6 at 14",
        "cat, steered 0.6 at 14 (2)",
        "prompt “You like hats.”",
        "noise 0.1, seed 3",
        "student train-7",
    ]
    assert not any(teacher.has_trait for teacher in group)


def test_every_kind_writes_an_equal_part() -> None:
    group = [Teacher("a", "x"), Teacher("b", "x"), Teacher("c", "y"), Teacher("d", GIVEN)]
    group.append(Teacher("e", GIVEN))
    assert teachers.shares(group) == pytest.approx([1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 4])


def test_writers_are_as_many_as_expected_in_random_order() -> None:
    share_K = np.array([0.125, 0.125, 0.25, 0.5])
    first_row = np.zeros(4)
    for seed in range(400):
        writer_R = teachers.writers(share_K, 50, seed)
        counts_K = np.bincount(writer_R, minlength=4)
        assert counts_K.sum() == 50 and (abs(counts_K - 50 * share_K) < 1).all()
        first_row[writer_R[0]] += 1
    assert first_row / 400 == pytest.approx(share_K, abs=0.08)
    assert (teachers.writers(share_K, 50, 1) == teachers.writers(share_K, 50, 1)).all()
