"""A candidate teacher's choices: the command against the function, and a prompt that stands before
a row's own context."""

from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from scored_rows import score_rows
from tiny_models import random_vector

from traitscope.auditing import score_files
from traitscope.auditing.steps import teacher_scores
from traitscope.data import row_files
from traitscope.inference import row_batches, token_rows, token_scores
from traitscope.inference.token_rows import Row, rows_from
from traitscope.interventions.intervention import Steer, SystemPrompt
from traitscope.models.model import Model

STAGE = "teacher_scores"


def test_command(tmp_path: Path, tiny: Model, tiny_folder: Path) -> None:
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    data = ok(root, "generate", *on, "--n 9 --count 3 --vocabulary template --context Hello.").run
    told = ok(
        root,
        "teacher_scores",
        *on,
        "--data",
        data,
        "--numbers",
        "--interventions",
        "prompt:Owls, owls, owls!",
    ).run
    ids, found = score_files.read_token_scores(told)
    records = row_files.rows_of(data)
    assert ids == [record.id for record in records] and all(
        record.context == "Hello." for record in records
    )
    rows = rows_from(tiny, records, None, interventions=[SystemPrompt("Owls, owls, owls!")])
    expected = score_rows(tiny, [], rows, token_rows.classes_of(tiny, True))
    np.testing.assert_allclose(found.log_p_RT, expected.log_p_RT, atol=1e-4)
    np.testing.assert_allclose(
        found.covariance_TPKK, expected.covariance_TPKK, rtol=1e-4, atol=1e-4
    )
    assert found.excess_surprisal == pytest.approx(expected.excess_surprisal, abs=1e-3)
    some = score_files.read_token_scores(
        ok(
            root,
            "teacher_scores",
            *on,
            "--data",
            data,
            "--numbers --rows 4",
            "--interventions",
            "prompt:Owls, owls, owls!",
        ).run
    )
    assert len(some[0]) == 4 and [key for key in ids if key in some[0]] == some[0]
    np.testing.assert_allclose(
        some[1].log_p_RT, found.log_p_RT[[ids.index(key) for key in some[0]]], atol=1e-4
    )
    plain = score_files.read_token_scores(ok(root, STAGE, *on, "--data", data, "--numbers").run)[1]
    assert abs(plain.log_p_RT - found.log_p_RT).max() > 0.01
    ok(root, "rerun", told)


def test_teachers_that_are_steered_besides_are_those_that_are_tried_alone(family: Model) -> None:
    """Computed from the block on where they act, or whole: the same choices, in every family, also
    at the first block and behind a prompt."""
    rows = [Row((1, 2, *range(5, 5 + n), 3), tuple(range(7, 12))) for n in (3, 6, 4)] + [
        Row((1, 2, 9, 3), (5, 6))
    ]
    steers = [
        Steer(random_vector(family, seed), (layer,), 2.0)
        for seed, layer in enumerate((0, 1, family.n_layers - 1))
    ]

    for told in ([], [SystemPrompt("Owls.")]):
        (found,) = token_scores.score_sets(
            family, told, steers, [rows], token_rows.classes_of(family, False), batch_size=2
        )
        for steered, each in zip(([], *([s] for s in steers)), found, strict=True):
            alone = score_rows(
                family,
                [*told, *steered],
                rows,
                token_rows.classes_of(family, False),
                batch_size=2,
            )
            np.testing.assert_allclose(each.log_p_RT, alone.log_p_RT, atol=1e-5)
            np.testing.assert_allclose(each.covariance_TPKK, alone.covariance_TPKK, atol=1e-5)
        assert min(abs(each.log_p_RT - found[0].log_p_RT).max() for each in found[1:]) > 1e-3
    assert not any("forward" in vars(block) for block in family.blocks)


def test_sets_that_are_read_together_are_those_read_alone(family: Model) -> None:
    """Rows of one prompt share a pass whatever set they are of, and every set has its own
    counts."""
    prompts = [(1, 2, *range(5, 5 + n), 3) for n in (3, 6, 4, 5)]
    sets = [
        [Row(prompt, tuple(range(7 + k, 10 + k + n))) for n, prompt in enumerate(prompts[: 4 - k])]
        for k in range(3)
    ] + [[Row((1, 9, 9), (8,))]]
    index = row_batches.batches([row for rows in sets for row in rows], 4)
    assert (
        sorted(i for batch in index for i in batch) == list(range(10))
        and [0, 4, 7] in index
        and max(map(len, index)) <= 4
    )
    steer, classes = (
        Steer(random_vector(family, 1), (1,), 2.0),
        token_rows.classes_of(family, False),
    )
    found = token_scores.score_sets(family, [], [steer], sets, classes, batch_size=4)
    for rows, own in zip(sets, found, strict=True):
        for told, each in zip(([], [steer]), own, strict=True):
            alone = score_rows(family, told, rows, classes)
            np.testing.assert_allclose(each.log_p_RT, alone.log_p_RT, rtol=1e-6, atol=1e-4)
            np.testing.assert_allclose(
                each.covariance_TPKK, alone.covariance_TPKK, rtol=1e-6, atol=1e-4
            )
            assert (
                each.tokens_R.tolist() == alone.tokens_R.tolist()
                and (each.taken_PK == alone.taken_PK).all()
            )
            assert each.excess_surprisal == pytest.approx(alone.excess_surprisal, abs=1e-3)


def test_the_command_keeps_each_set_apart(tmp_path: Path, tiny_folder: Path) -> None:
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    sets = [
        ok(
            root,
            "generate",
            *on,
            f"--n 5 --count 3 --vocabulary template --seed {seed} --prompt-seed {9 - seed}",
        ).run
        for seed in range(3)
    ]
    vector = ok(root, "extract", *on, "--traits owl cat").run / "owl.safetensors"
    both = ok(
        root,
        "teacher_scores",
        *on,
        "--data",
        sets[0],
        "--beside",
        *sets[1:],
        "--numbers --steered",
        f"steer:{vector},layers=1,alpha=0.5",
    ).run
    for place, data in zip(
        (both, teacher_scores.other_set_folder(both, 0), teacher_scores.other_set_folder(both, 1)),
        sets,
        strict=True,
    ):
        alone = ok(
            root,
            "teacher_scores",
            *on,
            "--data",
            data,
            "--numbers --steered",
            f"steer:{vector},layers=1,alpha=0.5",
        ).run
        for one, other in (
            (place, alone),
            (teacher_scores.steered_folder(place, 0), teacher_scores.steered_folder(alone, 0)),
        ):
            (ids, found), (expected, plain) = (
                score_files.read_token_scores(one),
                score_files.read_token_scores(other),
            )
            assert ids == expected
            np.testing.assert_allclose(found.log_p_RT, plain.log_p_RT, rtol=2e-6, atol=1e-4)
    ok(root, "rerun", both)


def test_the_command_keeps_each_steered_teacher_apart(tmp_path: Path, tiny_folder: Path) -> None:
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    data = ok(root, "generate", *on, "--n 9 --count 3 --vocabulary template").run
    vector = ok(root, "extract", *on, "--traits owl cat").run / "owl.safetensors"
    teachers = [f"steer:{vector},layers={layer},alpha=0.5" for layer in (1, 2)]
    both = ok(root, STAGE, *on, "--data", data, "--numbers", "--steered", *teachers).run
    for n, teacher in enumerate(teachers):
        alone = score_files.read_token_scores(
            ok(
                root, "teacher_scores", *on, "--data", data, "--numbers", "--interventions", teacher
            ).run
        )
        ids, found = score_files.read_token_scores(teacher_scores.steered_folder(both, n))
        assert ids == alone[0]
        np.testing.assert_allclose(found.log_p_RT, alone[1].log_p_RT, atol=1e-4)
    ok(root, "rerun", both)
    for words, says in (
        ("--steered prompt:Owls", "no steering at one block"),
        (f"--steered steer:{vector},layers=1+2,alpha=1", "no steering at one block"),
        (
            f"--interventions ablate:{vector},layers=1 --steered {teachers[0]}",
            "expected a system prompt, or none",
        ),
    ):
        done = call(root, STAGE, *on, "--data", data, words)
        assert done.code == 2 and says in done.summary["message"]


def test_no_data(tmp_path: Path, tiny_folder: Path) -> None:
    assert "--data is missing" in call(tmp_path, STAGE, "--model", tiny_folder).summary["message"]
