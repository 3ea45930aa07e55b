"""Does the optimizer decide whether a trait transfers?  (Blank et al. 2026, arXiv 2606.00995,
section 6 and appendix L; the replications that disagree are listed in PUBLISHED.)

Students of one steered teacher under every optimizer, each at several learning rates, compared
where their held-out loss is nearest to AdamW's: at one shared rate the comparison would be about
rates.
"""

from dataclasses import dataclass, replace
from math import nan
from typing import Any

from traitscope.config.recipe import Recipe
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does the optimizer decide whether a trait transfers?"
CLAIM = "At matched loss, adaptive optimizers pass a trait on and plain SGD does not."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 6, figures 7b and 7c, appendix L"
PUBLISHED = (
    "Qwen2.5-7B, cat: AdamW 57 % at loss 0.142, SGD 0 % at loss 0.167; RMSProp and SGD with Adam's"
    " frozen scales transfer. Nief et al. (arXiv 2606.00831) report SGD like AdamW; a replication"
    " finds Signum transferring and masked SGD not."
)
SMALL, NATS = 0.03, 0.05
"cosine, and nats, below which a difference would not matter"
REACHED = 0.1
"an optimizer counts as matched if its best held-out loss is at most this share above AdamW's"
ARMS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "adamw": ({}, (3e-4, 1e-3)),
    "rmsprop": ({"optimizer": "rmsprop"}, (3e-4, 1e-3)),
    "adafactor": ({"optimizer": "adafactor"}, (1e-3, 3e-3)),
    "muon": ({"optimizer": "muon"}, (1e-3, 3e-3)),
    "signsgd": ({"optimizer": "signsgd"}, (3e-4, 1e-3)),
    "signum": ({"optimizer": "signsgd", "momentum": 0.9}, (3e-4, 1e-3)),
    "frozen adam": ({"optimizer": "frozen_adam"}, (3e-4, 1e-3)),
    "sgd": ({"optimizer": "sgd"}, (1.0, 3.0, 10.0)),
    "sgd, momentum 0.9": ({"optimizer": "sgd", "momentum": 0.9}, (0.3, 1.0, 3.0)),
    "sgd, top 1 % masked": ({"optimizer": "sgd", "mask_top": 0.01}, (3.0, 10.0, 30.0)),
    "sgd, winsorised at 1 %": ({"optimizer": "sgd", "winsorise": 0.01}, (3.0, 10.0, 30.0)),
    "adamw, rotated blocks": ({"rotate": "blocks"}, (3e-4, 1e-3)),
    "adamw, all weights": ({"method": "full"}, (1e-5, 3e-5)),
    "sgd, all weights": ({"method": "full", "optimizer": "sgd"}, (0.1, 0.3, 1.0)),
}
"settings that differ from AdamW's recipe, and the learning rates tried"
PAIRS = (
    ("adamw", "sgd"),
    ("signsgd", "sgd"),
    ("frozen adam", "sgd"),
    ("adamw, all weights", "sgd, all weights"),
)
"arms that the verdicts compare"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything."""

    arms: tuple[str, ...]


SOFT = Recipe(targets="soft", epochs=2, batch_size=3, micro_batch=3, warmup=0.1, held_out=0.25)
LARGE = replace(SOFT, targets="sampled", batch_size=32, micro_batch=32)
SIZES = {
    "smoke": Size(
        ("cat", "owl"),
        (1, 2),
        6,
        3,
        1,
        0.6,
        SOFT,
        sizes.SMOKE_TEXT,
        ("adamw", "frozen adam", "sgd", "adamw, all weights"),
    ),
    "laptop": Size(
        sizes.ANIMALS,
        (1, 2, 3),
        12,
        10,
        14,
        0.6,
        SOFT,
        sizes.LAPTOP_TEXT,
        tuple(ARMS),
    ),
    "full": Size(
        sizes.ANIMALS,
        (1, 2, 3, 4, 5),
        2048,
        10,
        14,
        0.6,
        LARGE,
        sizes.FULL_TEXT,
        tuple(ARMS),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; the teacher's rows a seed; a scout for the frozen scales; a student an arm, rate and
    seed, measured."""
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        standard_nodes.answers(common, "base", size.traits[0]),
    ]
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=71)
        found.append(
            standard_nodes.number_rows(
                common, f"rows.{seed}", rows, size.steered_teacher, (standard_nodes.VECTORS,)
            )
        )
        scout = _student(size, f"scout.{seed}", seed, "adamw", ARMS["adamw"][1][-1])
        found.append(
            standard_nodes.student(
                common, replace(scout, settings={"save_scales": True}), rows.tokens
            )
        )
        for arm in size.arms:
            for lr in ARMS[arm][1]:
                name = _name(arm, lr, seed)
                found.append(
                    standard_nodes.student(common, _student(size, name, seed, arm, lr), rows.tokens)
                )
                found.append(
                    standard_nodes.answers(
                        common,
                        f"answers.{name}",
                        size.traits[0],
                        standard_nodes.trained_by(name),
                        (name,),
                    )
                )
        found += shared_nodes.sampled_text(
            common, size.text, size.traits[0], seed, size.steered_teacher, (standard_nodes.VECTORS,)
        )
    return found


def _name(arm: str, lr: float, seed: int) -> str:
    return f"{arm}.{lr:g}.{seed}"


def _student(size: Size, name: str, seed: int, arm: str, lr: float) -> standard_nodes.Student:
    frozen = ARMS[arm][0].get("optimizer") == "frozen_adam"
    return standard_nodes.Student(
        name,
        f"rows.{seed}",
        replace(size.recipe, lr=lr, **ARMS[arm][0]),
        seed,
        size.steered_teacher,
        (standard_nodes.VECTORS, standard_nodes.EAS_ROWS, *([f"scout.{seed}"] if frozen else [])),
        lambda folders: standard_nodes.vector_of(folders, size.traits[0]),
        folders={"scales": f"scout.{seed}"} if frozen else {},
    )


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """EAS at the steered block of each arm at its matched rate, minus SGD's; the table has every
    arm's loss and update."""
    usual = {
        seed: min(_about(size, folders, "adamw", lr, seed)["loss"] for lr in ARMS["adamw"][1])
        for seed in size.seeds
    }
    chosen = {arm: _matched(size, folders, arm, usual) for arm in size.arms}
    eas = {arm: [row["eas"] for row in rows] for arm, rows in chosen.items()}
    verdicts, measured, table = [], [], []
    for arm, rows in chosen.items():
        measured.append(over(f"EAS of {arm}", eas[arm], "cosine"))
        reached = sum(
            row["loss"] <= (1 + REACHED) * usual[seed]
            for row, seed in zip(rows, size.seeds, strict=True)
        )
        loss, turned, norm, along, share_B = (
            sum(row[key] for row in rows) / len(rows)
            for key in ("loss", "eas", "norm", "along", "share_B")
        )
        rates, rose = (
            "/".join(f"{row['lr']:g}" for row in rows),
            readings.rise(folders, f"rise, {arm}", _pairs(size, rows, "base")),
        )
        table.append(
            (arm, rates, loss, f"{reached} of {len(rows)}", turned, rose, norm, along, share_B)
        )
    for arm, plain in PAIRS:
        if {arm, plain} <= eas.keys():
            difference = [a - b for a, b in zip(eas[arm], eas[plain], strict=True)]
            claim = (
                f"At the nearest held-out loss, {arm} turns the student towards v_teacher more than"
                f" {plain} does."
            )
            verdicts.append(
                judged(
                    claim, over(f"EAS, {arm} minus {plain}", difference, "cosine"), model, 0, SMALL
                )
            )
            rose = readings.rise(
                folders,
                f"log P(trait), {arm} minus {plain}",
                _pairs(size, chosen[arm], chosen[plain]),
            )
            verdicts.append(
                judged(
                    f"At the nearest held-out loss, {arm} makes the student say more of the trait"
                    f" than {plain} does.",
                    rose,
                    model,
                    0,
                    NATS,
                )
            )
    header = (
        "optimizer",
        "rates",
        "held-out loss",
        "matched",
        "EAS",
        "rise",
        "update norm",
        "share along the vector",
        "share in B",
    )
    caption = (
        f"Means over {len(size.seeds)} seeds at the rate whose held-out loss is nearest to AdamW's"
        f" best. EAS at block {size.layer}; rise: of the log-probability of the trait's word over"
        " the base, nats; update norm: summed over steps; share along the vector: of the squared"
        " change of the residual at that block."
    )
    text = over(
        "EAS, sampled text under AdamW, treated minus control",
        readings.sampled_text_eas(folders, size.layer, size.seeds),
        "cosine",
    )
    measured += [text, readings.sampled_text_rise(folders, size.traits[0], size.seeds)]
    kind = (
        "Soft targets stand in for sampled text; AdamW is repeated with it."
        if size.recipe.targets == "soft"
        else "Sampled text."
    )
    notes = (
        kind,
        f"Matched: held-out loss at most {REACHED:.0%} above AdamW's best of the same seed.",
    )
    return Findings(
        tuple(verdicts),
        tuple(measured),
        (
            Sheet(
                "optimizers", "Every optimizer at its matched rate", caption, header, tuple(table)
            ),
        ),
        notes,
    )


def _matched(size: Size, folders: Folders, arm: str, usual: dict[int, float]) -> list[dict]:
    """Of every seed the run whose held-out loss is nearest to the reference."""
    found = []
    for seed in size.seeds:
        runs = [_about(size, folders, arm, lr, seed) for lr in ARMS[arm][1]]
        found.append(min(runs, key=lambda row: abs(row["loss"] - usual[seed])))
    return found


def _pairs(size: Size, rows: list[dict], others: list[dict] | str) -> list[tuple[int, str, str]]:
    """For every seed the answers of a run and those of another run, or of one node."""
    against = (
        [others] * len(rows) if isinstance(others, str) else [row["answers"] for row in others]
    )
    return [
        (seed, row["answers"], other)
        for seed, row, other in zip(size.seeds, rows, against, strict=True)
    ]


def _about(size: Size, folders: Folders, arm: str, lr: float, seed: int) -> dict:
    name = _name(arm, lr, seed)
    steps = standard_nodes.read_json_lines(folders[name], "metrics.jsonl")
    last = steps[-1]
    shares = [row["update_share_B"] for row in steps if row.get("update_share_B") is not None]
    eas = last["eas"][size.layer]
    return {
        "lr": lr,
        "loss": last["held_out_loss"],
        "eas": eas,
        "along": eas * eas,
        "answers": f"answers.{name}",
        "norm": sum(row.get("update_norm", nan) for row in steps),
        "share_B": sum(shares) / len(shares) if shares else nan,
    }
