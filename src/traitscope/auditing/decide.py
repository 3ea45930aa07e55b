"""Weigh: one answer from what the stages of an audit left (evidence.py, audit_result.py).

Shapes: R rows, K rows a prompt (the audited one first), D d_model.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.auditing import search
from traitscope.auditing.artifacts import (
    Groups,
    Parts,
    plain_parts,
    read_parts,
    texts_of,
)
from traitscope.auditing.detectors import e_values, panel, text_features
from traitscope.auditing.detectors.panel import DECIDING, Found
from traitscope.auditing.result import (
    BLIND,
    FEWEST,
    AuditResult,
    Planted,
    called,
    status_of,
    strange,
)
from traitscope.config.audit import WeighConfig
from traitscope.config.common import Output
from traitscope.data.traits import load_trait
from traitscope.inference import token_scores
from traitscope.inference.steering_gradients import Stored
from traitscope.inference.token_scores import Choices
from traitscope.runs import store
from traitscope.stages import registry
from traitscope.stats import permutation

DOSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"shares of poisoned rows that are simulated for odds"
MORE = (1, 2, 4, 8, 16, 32)
"times the rows that are simulated for odds"
REFERENCE = "beside the reference, z"
"key of what the odds of a stranger's rows say"
SWAPPED = (
    "the model did not write these rows, so their odds are compared with those of the reference,"
    " row by row"
)
ORDERED = (
    "the rows' numbers rise, or fall, throughout more often than the model's own: rows were picked"
    " or sorted; no candidate gains by that"
)
CONTEXT = (
    'rows fit the model better under "{}" than as it is: if a system prompt stood before them, name'
    " it with --context, or in the rows"
)
Judged = dict[str, dict[str, tuple[list[str], Choices]]]
"ids and choices, by candidate and teacher"
BAGS = (16, 64, 256)
PEERS = 20
"answers that the peer's detector lists"


def run_weigh(config: WeighConfig, out: Output) -> store.Run:
    """The sealed run with `result.json`, `rows.jsonl` and `bags.json`."""
    plain = plain_parts(config.parts)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, read_parts(plain, config.parts.parent))
    return run


def _write(run: store.Run, config: WeighConfig, parts: Parts) -> None:
    groups, units_LTJD = parts.groups(), panel.directions(parts.vectors, parts.clean())
    found = _found(config, parts, groups, units_LTJD)
    planted = (
        tuple(_planted(config, parts, groups, found, units_LTJD))
        if len(groups.records) >= FEWEST
        else ()
    )
    traits = called([found[name] for name in DECIDING if name in found])
    status, reasons = status_of(traits, planted, found["odds"], len(groups.records), config.alpha)
    more = _notes(parts, len(groups.records)) + _asides(found["odds"])
    named = (
        tuple(json.loads((config.naming / "named.json").read_text(encoding="utf-8")))
        if config.naming
        else ()
    )
    detectors = tuple(
        map(_about, (*found.values(), *_fitted(parts), *_canary(parts), *_peer(config)))
    )
    digest = next(iter(parts.vectors.values())).model
    result = AuditResult(
        status,
        config.alpha,
        config.power,
        config.model,
        digest,
        len(groups.records),
        detectors,
        traits,
        named,
        planted,
        (*reasons, *more),
    )
    atomic_files.write_json(run.file("result.json"), result.as_dict())
    along_RK = _pushed(parts, groups, found, traits[0].name)
    for row in _rows(parts, groups, found, traits[0].name, along_RK):
        atomic_files.append_jsonl(run.file("rows.jsonl"), row)
    atomic_files.write_json(run.file("bags.json"), _bags(along_RK, config.seed))


def _notes(parts: Parts, used: int) -> list[str]:
    """What a reader has to know besides the answer's reasons."""
    intake = json.loads(
        (parts.run(parts.plain["intake"]) / "about.json").read_text(encoding="utf-8")
    )["counts"]
    said = {
        "duplicates": "rows are copies of others and count once",
        "too_long": "sampled rows are longer than the model's context and were left out",
        "unreadable": (
            "sampled rows hold characters that the model's tokenizer loses and were left out"
        ),
        "off_format": "sampled rows are no list of numbers, as the others are, and were left out",
        "foreign_ids": (
            "sampled rows came with another model's token ids; all rows were read as text"
        ),
    }
    notes = [f"{intake[name]} {text}" for name, text in said.items() if intake.get(name)]
    if intake["used"] > used:
        notes.append(
            f"{intake['used'] - used} of {intake['used']} rows had no placebo in the format of the"
            " data and were left out"
        )
    matched = parts.run(parts.plain["placebos"][0]["rows"]) / "about.json"
    if (
        matched.is_file()
        and (about := json.loads(matched.read_text(encoding="utf-8")))["same_prompt"]
        < about["rows"]
    ):
        other = about["rows"] - about["same_prompt"]
        notes.append(
            f"{other} of {about['rows']} rows are compared with reference rows on other prompts: a"
            " difference of prompts counts as one of the data"
        )
    return notes


def _asides(own: Found) -> list[str]:
    """What a reader has to know of the odds besides the answer."""
    told = [CONTEXT.format(said)] if (said := own.more.get("context")) else []
    return (
        [SWAPPED] * (REFERENCE in own.more)
        + [ORDERED] * (own.more.get("picked", 0.0) > log(1 / e_values.MISFIT))
        + told
    )


def _about(found: Found) -> dict[str, Any]:
    return {
        "name": found.name,
        "decides": found.name in DECIDING,
        "statistic": found.z,
        "p": found.p,
        "where": found.where,
        "critical": found.critical,
        "blind_spot": BLIND[found.name],
        **found.more,
    }


def _canary(parts: Parts) -> list[Found]:
    """Small students, as one more detector that does not decide."""

    def score(path: str) -> dict[str, float]:
        rows = map(
            json.loads, (parts.run(path) / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        )
        return {row["id"]: row["target_logprob"] for row in rows}

    scores = {
        name: [(score(one), score(other)) for one, other in pairs]
        for name, pairs in parts.plain["canary"].items()
    }
    return [panel.canary(scores)] if scores else []


def _fitted(parts: Parts) -> list[Found]:
    """Vectors trained on the data and on placebos, as one more detector that does not decide."""
    rows = parts.fitted()
    return [panel.fitted(rows, parts.vectors)] if len(rows) > 2 else []


def _peer(config: WeighConfig) -> list[Found]:
    """The published method, as one more detector that does not decide."""
    if config.features is None:
        return []
    names = json.loads((config.features / "named.json").read_text(encoding="utf-8"))[:PEERS]
    z, p = ({n["name"]: n[key] for n in names} for key in ("statistic", "p_corrected"))
    return [Found("features", z, p, {n["name"]: n["kind"] for n in names}, inf, {})]


def _found(
    config: WeighConfig, parts: Parts, groups: Groups, units_LTJD: np.ndarray
) -> dict[str, Found]:
    """What every detector says, by its name."""
    share, prompts = config.alpha / len(DECIDING), [r.prompt for r in groups.records]
    traits = [load_trait(name) for name in parts.plain["traits"]]
    found = [
        panel.wording(traits, groups.texts_RK, share),
        _gradients(config, parts, groups, units_LTJD),
        _odds(parts, groups.stores[0], share),
        panel.baselines(prompts, groups.texts_RK, groups.stores, groups.pairs, share),
    ]
    return {f.name: f for f in found}


def _odds(parts: Parts, data: Stored, share: float) -> Found:
    """Odds of every candidate; where the rows do not fit the model e has no bound: see `_unfit`."""
    told = _read(search.told(parts, parts.plain["odds"], parts.plain["aimed"]))
    nulls = [
        token_scores.read_choices(parts.run(path))[1].log_p_RT for path in parts.plain["nulls"]
    ]
    ids = next((ids for teachers in told.values() for ids, _ in teachers.values()), [])
    place = {key: n for n, key in enumerate(data.ids)}
    alone = {
        name: {how: x.log_p_RT for how, (_, x) in teachers.items()}
        for name, teachers in told.items()
    }
    index, candidates = [place[key] for key in ids], len(parts.plain["traits"])
    picked_R = _picked(parts, ids)
    every = [data.choices.log_p_RT[index] + picked_R[:, None], *nulls] if ids else []
    found = panel.likelihoods(data.choices, index, alone, every, _weights(parts), candidates, share)
    found = replace(
        found,
        more=found.more
        | {
            "picked": float(picked_R.sum()),
            "context": _context(parts, nulls, data.choices.log_p_RT[index]),
        },
    )
    return (
        _unfit(parts, data, told, found, share)
        if told and found.more["misfit p"] < e_values.MISFIT
        else found
    )


def _context(parts: Parts, nulls: Sequence[np.ndarray], own_RT: np.ndarray) -> str | None:
    """The system prompt without a trait under which the model finds the rows likeliest, where that
    is likelier than by chance."""
    gains = {}
    for path, null_RT in zip(parts.plain["nulls"], nulls, strict=True):
        (told,) = json.loads((parts.run(path) / "config.json").read_text(encoding="utf-8"))[
            "config"
        ]["interventions"]
        if told["kind"] == "SystemPrompt":
            gains[told["text"]] = e_values.gain(null_RT, own_RT)
    best = max(gains, key=gains.__getitem__, default=None)
    return best if best and gains[best] > log(len(gains) / e_values.MISFIT) else None


def _picked(parts: Parts, ids: Sequence[str]) -> np.ndarray:
    """Nats [R] of the null whose rows are picked by their order (`odds.picked`); how the model
    orders its own is seen in the placebos."""
    order = {
        row.id: text_features.order_of(row.completion)
        for row in texts_of(parts.run(parts.plain["intake"]))
    }
    return e_values.picked(
        [order[key] for key in ids],
        [text_features.order_of(row.completion) for rows, _ in parts.placebos for row in rows],
    )


def _weights(parts: Parts) -> dict[str, float]:
    """Of every teacher in the mean that e is."""
    planted = [about["aimed"]["own"] for about in parts.plain["planted"].values()]
    cells = [
        cell for aimed in (parts.plain["aimed"], *planted) for cell in search.steered(parts, aimed)
    ]
    return search.weights(
        {name: list(teachers) for name, teachers in parts.plain["odds"].items()},
        cells,
        _layers(parts),
    )


def _layers(parts: Parts) -> tuple[int, ...]:
    """Blocks at which candidates may be steered."""
    return search.grid(len(next(iter(parts.vectors.values())).rows_LD))


def _read(told: dict[str, dict[str, Path]]) -> Judged:
    return {
        name: {how: token_scores.read_choices(path) for how, path in teachers.items()}
        for name, teachers in told.items()
    }


def _unfit(parts: Parts, data: Stored, told: Judged, found: Found, share: float) -> Found:
    """A stranger's rows against a reference: p by swaps with its rows. Without one, or where too
    few rows are judged on both sides, only a candidate counts that explains the rows: the model's
    own placebos differ from somebody else's rows in everything.
    """
    reference = parts.plain["reference_odds"] if strange(found) else {}
    hows = search.told(parts, reference["told"], reference["beside"]) if reference else {}
    own = (
        _read(
            search.told(parts, {name: parts.plain["odds"][name] for name in hows}, reference["own"])
        )
        if reference
        else {}
    )
    gains = {
        name: {
            how: _gains((data, own[name][how]), (parts.placebos[0][1], beside))
            for how, beside in teachers.items()
        }
        for name, teachers in _read(hows).items()
    }
    if min((len(x) for teachers in gains.values() for x in teachers.values()), default=0) < FEWEST:
        itself = token_scores.read_choices(parts.run(parts.plain["aimed"][0]["run"]))[1]
        shares = {
            name: e_values.explained(told[name][how][1], itself)
            for name, how in found.where.items()
        }
        left = [
            name
            for name, how in found.where.items()
            if not e_values.explains(told[name][how][1], itself)
        ]
        more = {"explained": shares, "set aside": [name for name in left if found.p[name] <= share]}
        return replace(found, p=found.p | dict.fromkeys(left, 1.0), more=found.more | more)
    z, p, where = panel.swapped_odds(gains)
    return replace(
        found,
        p={n: p.get(n, 1.0) for n in found.p},
        where=found.where | where,
        more=found.more | {REFERENCE: z},
    )


def _gains(*sides: tuple[Stored, tuple[list[str], Choices]]) -> np.ndarray:
    """Nats [R, K] that a teacher adds to the rows that are judged on every side."""
    found = []
    for own, (ids, told) in sides:
        plain = dict(zip(own.ids, own.choices.log_p_RT[:, token_scores.PLAIN], strict=True))
        found.append(
            {
                key: x - plain[key]
                for key, x in zip(ids, told.log_p_RT[:, token_scores.PLAIN], strict=True)
            }
        )
    return np.array(
        [[side[key] for side in found] for key in found[0] if all(key in side for side in found)]
    )


def _gradients(config: WeighConfig, parts: Parts, groups: Groups, units_LTJD: np.ndarray) -> Found:
    surface_RKF = text_features.feature_groups([r.prompt for r in groups.records], groups.texts_RK)
    sums_BKLD = panel.block_sums(groups.stores, groups.pairs, seed=config.seed)
    values = panel.along(sums_BKLD, units_LTJD)
    candidates = [load_trait(name).name for name in parts.plain["traits"]]
    surface_BKF = permutation.in_blocks(surface_RKF, seed=config.seed)
    found = panel.gradients(
        list(parts.vectors), candidates, values, surface_BKF, config.alpha / len(DECIDING)
    )
    return replace(
        found,
        more=found.more
        | {"random directions": permutation.random_spread(sums_BKLD).round(3).tolist()},
    )


def _planted(
    config: WeighConfig,
    parts: Parts,
    groups: Groups,
    found: dict[str, Found],
    units_LTJD: np.ndarray,
) -> list[Planted]:
    """What would have been found of every planted teacher, by the detector that finds the smallest
    dose; rows that would not have counted as the model's own are found, too."""
    made, rows = [], len(groups.records)
    for about in parts.plain["planted"].values():
        there = parts.planted(about)
        aimed = (
            _aimed_from(config, parts, groups, there, units_LTJD) if about["aimed"]["own"] else {}
        )
        options = _by_odds(config, parts, about, there, aimed, found["odds"])
        options.append(
            Planted(
                about["teacher"],
                "stranger",
                *_noticed(config, there.stores[0].choices, parts.placebos[0][1].choices, rows),
            )
        )
        made.append(min(options, key=lambda p: (p.least_dose, p.rows_needed)))
    return made


def _by_odds(
    config: WeighConfig,
    parts: Parts,
    about: dict[str, Any],
    there: Groups,
    aimed: dict[tuple[str, int], float],
    found: Found,
) -> list[Planted]:
    """What odds would have found of a planted teacher, by each teacher that imitates it: a steered
    one from the dose on at which it, or one at the block beside, is aimed at."""
    weights, sides = _weights(parts), {"own": there.stores[0], "clean": parts.placebos[0][1]}

    def simulated(how: str, paths: dict[str, Path]) -> tuple[float, float]:
        both = {
            key: [
                *_sides(stored, paths[key]),
                *(_sides(stored, parts.run(path))[1] for path in about["nulls"][key]),
            ]
            for key, stored in sides.items()
        }
        least = found.critical - log(weights[how])

        def hit(n: int, share: float) -> bool:
            return (
                e_values.found_share(both["clean"], both["own"], n, share, least, seed=config.seed)
                >= config.power
            )

        return _least(hit, found.more["rows judged"])

    prompts = [
        simulated(search.PROMPT, {key: parts.run(path) for key, path in judged.items()})
        for judged in about["odds"]
    ]
    steered = {key: search.steered(parts, value) for key, value in about["aimed"].items()}
    vectors = []
    for cell in steered["own"]:
        dose, rows = simulated(str(cell), {key: paths[cell] for key, paths in steered.items()})
        vectors.append(
            (
                max(
                    dose,
                    min(
                        aimed[cell.trait, layer]
                        for layer in search.beside(cell.layer, _layers(parts))
                    ),
                ),
                rows,
            )
        )
    return [Planted(about["teacher"], "odds", *doses) for doses in (*prompts, *vectors)]


def _aimed_from(
    config: WeighConfig, parts: Parts, groups: Groups, there: Groups, units_LTJD: np.ndarray
) -> dict[tuple[str, int], float]:
    """The smallest dose of a planted teacher's rows at which the pushes would aim at each place;
    the rest are a placebo's."""
    grown = (len(groups.records) / len(there.records)) ** 0.5
    own = {
        key: grown * z for key, z in search.pulls_of(parts, there, units_LTJD, config.seed).items()
    }
    clean = search.pulls_of(parts, groups, units_LTJD, config.seed, first=1)
    reached = {share: set(search.aims(search.mixture(own, clean, share))) for share in DOSES}
    return {key: next((share for share in DOSES if key in reached[share]), inf) for key in own}


def _sides(pushed: Stored, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods [R, T] of the same rows under the model and under a teacher."""
    return token_scores.beside((pushed.ids, pushed.choices), path)


def _noticed(
    config: WeighConfig, poisoned: Choices, clean: Choices, rows: int
) -> tuple[float, float]:
    """Least dose at these rows, and rows needed at the full dose, from which on they would not
    count as the model's own."""
    tokens = float(poisoned.tokens_R.mean())

    def hit(n: int, share: float) -> bool:
        return e_values.noticed(e_values.mixed(poisoned, clean, share), n * tokens, config.power)

    return _least(hit, rows)


def _least(hit: Callable[[int, float], bool], rows: int) -> tuple[float, float]:
    dose = next((share for share in DOSES if hit(rows, share)), inf)
    return dose, next((float(rows * times) for times in MORE if hit(rows * times, 1.0)), inf)


def _pushed(parts: Parts, groups: Groups, found: dict[str, Found], name: str) -> np.ndarray:
    """Push [R, K] of every row along the first trait's vector at its block."""
    layer = int(found["gradients"].where[name].split()[1].rstrip(","))
    unit_D = parts.vectors[name].unit().rows_LD[layer]
    return np.stack(
        [
            _along(s, [pair[k] for pair in groups.pairs], layer, unit_D)
            for k, s in enumerate(groups.stores)
        ],
        1,
    )


def _rows(
    parts: Parts, groups: Groups, found: dict[str, Found], name: str, along_RK: np.ndarray
) -> list[dict[str, Any]]:
    """Scores of single rows, for looking only: their push minus that of their placebos, in standard
    deviations of placebos; and nats that the strongest candidate's teacher adds, for the rows that
    it was tried on."""
    K = along_RK.shape[1]
    spread = along_RK[:, 1:].var() if K == 2 else along_RK[:, 1:].var(1, ddof=1).mean()
    scores = (along_RK[:, 0] - along_RK[:, 1:].mean(1)) / max(
        1e-12, float(spread * K / (K - 1)) ** 0.5
    )
    candidate, gains = next(iter(found["odds"].z), None), {}
    if candidate:
        path = search.told(parts, parts.plain["odds"], parts.plain["aimed"])[candidate][
            found["odds"].where[candidate]
        ]
        plain, told = _sides(groups.stores[0], path)
        ids, _ = token_scores.read_choices(path)
        gains = dict(zip(ids, (told - plain)[:, token_scores.PLAIN].round(4).tolist(), strict=True))
    return [
        {
            "id": r.id,
            "gradient": round(float(score), 4),
            "along": name,
            "odds": gains.get(r.id),
            "teacher of": candidate,
        }
        for r, score in zip(groups.records, scores, strict=True)
    ]


def _along(
    stored: Stored, index: Sequence[int], layer: int, unit_D: np.ndarray, step: int = 256
) -> np.ndarray:
    """Projections [R] of rows on a direction at a block."""
    return np.concatenate(
        [stored.rows(index[n : n + step])[:, layer] @ unit_D for n in range(0, len(index), step)]
    )


def _bags(along_RK: np.ndarray, seed: int) -> dict[str, list[dict[str, float]]]:
    """By size, z of the push of consecutive rows together, and its p by swaps with their placebos,
    not corrected for the bags."""
    found = {}
    for size in (size for size in BAGS if size <= len(along_RK)):
        parts = [along_RK[n : n + size, :, None] for n in range(0, len(along_RK) - size + 1, size)]
        best = [permutation.largest_of(part, seed=seed + n) for n, part in enumerate(parts)]
        found[str(size)] = [{"z": round(float(b.z_F[0]), 3), "p": float(b.p_F[0])} for b in best]
    return found
