"""Evidence: what every detector of an audit says of one data set, all in one sign: positive pushes
towards the trait.

    wording     rows that name the trait
    gradients   where the rows push the model, along every candidate's vector: as it is, and
                whitened
    odds        how much likelier a candidate teacher, prompted or steered, makes the rows (odds.py)
    surface, loss, gradient norm, words     baselines: they tell that data differ, not how

Wording and odds decide, each at half of the error rate. Gradients, which also see formats, say
where the odds are to look (aiming.py); a baseline never decides.

Shapes: R rows, B blocks, K rows a prompt (the audited one first), T traits, J kinds of projection,
F features, L layers, D d_model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from statistics import NormalDist

import numpy as np

from traitscope.auditing.detectors import e_values, text_features
from traitscope.data.traits import Trait
from traitscope.inference import token_scores
from traitscope.inference.steering_gradients import Stored
from traitscope.inference.token_scores import Choices
from traitscope.interventions.vector import Vector
from traitscope.stats import permutation
from traitscope.stats.permutation import Maximum, sign_flip_p

KINDS = ("raw", "whitened")
DECIDING = ("wording", "odds")
FURTHER = 2
"candidates, the likeliest ones, whose prompts are tried in other words"
MARKERS = 5
"candidates from which on the median of their z tells a format from a trait"
Told = Mapping[str, Mapping[str, np.ndarray]]
"log-likelihoods [R, T] of rows, by candidate and teacher"
Pairs = Sequence[Sequence[int]]
"of every group, the row's index in each of K sets"


@dataclass(frozen=True)
class Found:
    """What one detector says."""

    name: str
    """Of the detector."""
    z: dict[str, float]
    """By trait or feature: standard deviations of swapped data; for odds, ln e."""
    p: dict[str, float]
    """Corrected over everything that this detector looked at."""
    where: dict[str, str]
    """Where the strongest sign of each was: a block and a kind of projection."""
    critical: float
    """The z that clean data exceed with the detector's share of the error rate."""
    more: dict[str, object]
    """Whatever else it found."""


def block_sums(
    stores: Sequence[Stored], pairs: Pairs, most: int = permutation.BLOCKS, seed: int = 0
) -> np.ndarray:
    """Sums [B, K, L, D] of pushes over blocks of groups; a few rows are in memory at a time."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    parts = np.array_split(order, min(most, len(order)))
    return np.stack(
        [
            np.stack([s.rows([pairs[r][k] for r in part]).sum(0) for k, s in enumerate(stores)])
            for part in parts
        ]
    )


def wording(traits: Sequence[Trait], texts_RK: Sequence[Sequence[str]], alpha: float) -> Found:
    """Rows that name a trait, against those of the placebos."""
    found_RKT = text_features.mentions(traits, texts_RK)
    best = permutation.largest_of(permutation.in_blocks(found_RKT))
    names = [trait.name for trait in traits]
    counts = {name: [int(n) for n in found_RKT[:, :, t].sum(0)] for t, name in enumerate(names)}
    return _named("wording", names, best, alpha, dict.fromkeys(names, "words"), {"rows": counts})


def baselines(
    prompts: Sequence[str],
    texts_RK: Sequence[Sequence[str]],
    stores: Sequence[Stored],
    pairs: Pairs,
    alpha: float,
) -> Found:
    """Features of the text, the loss, and the gradient's norm; with the classifier's AUROC."""
    surface_RKF = text_features.feature_groups(prompts, texts_RK)
    own_RK2 = np.array(
        [
            [[s.loss_R[i], s.norms_RL[i].mean()] for s, i in zip(stores, group, strict=True)]
            for group in pairs
        ]
    )
    names = [*text_features.FEATURES, "loss", "gradient norm"]
    best = permutation.largest_of(permutation.in_blocks(np.concatenate([surface_RKF, own_RK2], 2)))
    more = {"words, AUROC": text_features.classifier_auroc(texts_RK)}
    return _named("baselines", names, best, alpha, dict.fromkeys(names, "text"), more)


def directions(vectors: dict[str, Vector], clean_NLD: np.ndarray) -> np.ndarray:
    """Unit directions [L, T, J, D]: of every vector at every block, as it is and whitened by the
    clean rows' covariance."""
    found = []
    for layer in range(clean_NLD.shape[1]):
        raw_TD = np.stack([vector.rows_LD[layer] for vector in vectors.values()]).astype(np.float64)
        raw_TD /= np.maximum(np.linalg.norm(raw_TD, axis=1, keepdims=True), 1e-300)
        found.append(np.stack([raw_TD, permutation.whitened(raw_TD, clean_NLD[:, layer])], 1))
    return np.stack(found)


def along(sums_BKLD: np.ndarray, units_LTJD: np.ndarray) -> np.ndarray:
    """Projections [B, K, L, T, J] of pushes on directions."""
    return np.einsum("bkld,ltjd->bkltj", sums_BKLD, units_LTJD, optimize=True)


def gradients(
    names: Sequence[str],
    candidates: Sequence[str],
    values_BKLTJ: np.ndarray,
    surface_BKF: np.ndarray | None,
    alpha: float,
    swaps: int = 9999,
) -> Found:
    """Projections on the vectors of all `names`: every candidate's at every block, raw and
    whitened, deflated by what all show there."""
    wide_LTJ = permutation.z_scores(_flat(values_BKLTJ)).reshape(values_BKLTJ.shape[2:])
    inflation_LJ = np.stack(
        [permutation.genomic_control_factor(wide_LTJ[:, :, j]) for j in range(len(KINDS))], 1
    )
    picked = values_BKLTJ[:, :, :, [list(names).index(name) for name in candidates]]
    shape = picked.shape[2:]
    deflate_F = np.broadcast_to(inflation_LJ[:, None], shape).ravel()
    best = permutation.largest_of(_flat(picked), deflate_F, swaps)
    rest = (
        _flat(picked)
        if surface_BKF is None
        else text_features.residual_groups(_flat(picked), surface_BKF)
    )
    beyond_LTJ = (permutation.z_scores(rest) / deflate_F).reshape(shape)
    z_LTJ, p_LTJ, found = best.z_F.reshape(shape), best.p_F.reshape(shape), {}
    for t, name in enumerate(candidates):
        layer, kind = np.unravel_index(z_LTJ[:, t].argmax(), (shape[0], len(KINDS)))
        values = (float(x[layer, t, kind]) for x in (z_LTJ, p_LTJ, beyond_LTJ))
        found[name] = (*values, f"block {layer}, {KINDS[kind]}")
    ranked = sorted(found, key=lambda name: -found[name][0])
    z, p, beyond, where = ({name: found[name][n] for name in ranked} for n in range(4))
    inflated = {kind: inflation_LJ[:, j].round(3).tolist() for j, kind in enumerate(KINDS)}
    return Found(
        "gradients",
        z,
        p,
        where,
        best.critical(alpha),
        {"beyond surface": beyond, "inflation": inflated},
    )


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(*values.shape[:2], -1)


def likelihoods(
    plain: Choices,
    index: Sequence[int],
    told: Told,
    nulls: Sequence[np.ndarray],
    weights: Mapping[str, float],
    candidates: int,
    alpha: float,
) -> Found:
    """ln e of every candidate that was tried, the weighted mean over its teachers; p by Ville's
    bound, times all candidates.

    `told` and `nulls` hold log-likelihoods [R, T] of the rows `index` of `plain`.
    """
    own_RT = plain.log_p_RT[list(index)]
    e, p, where = bets(own_RT, told, nulls, weights, candidates)
    more = {
        "rows judged": len(own_RT),
        "candidates": candidates,
        "teachers": sum(map(len, told.values())),
        "misfit p": e_values.misfit(plain),
        "temperature": 1 / token_scores.BETAS[e_values.best_beta(plain)],
        "surprise": plain.surprise / max(1, plain.tokens_R.sum()),
        "excess": e_values.excess(plain),
        "unlike": [e_values.NAMES[way] for way in e_values.unlike(plain)],
        "strange": e_values.strange(plain),
        "nats a row": {
            name: float((told[name][where[name]] - own_RT)[:, token_scores.PLAIN].mean())
            for name in e
        },
    }
    return Found("odds", e, p, where, log(candidates / alpha) if e else inf, more)


def bets(
    own_RT: np.ndarray,
    told: Told,
    nulls: Sequence[np.ndarray],
    weights: Mapping[str, float],
    candidates: int,
) -> tuple[dict, dict, dict]:
    """ln e of every candidate that was tried, best first; its p; its best teacher.

    e is the mean over teachers by weights that were set before the rows were seen (aiming.weights):
    a teacher that was not tried, and a candidate without any, counts as 0, which only lowers it.
    """
    each = {
        name: {how: e_values.log_e(own_RT, x, nulls) for how, x in teachers.items()}
        for name, teachers in told.items()
        if teachers
    }
    e = {
        name: float(np.logaddexp.reduce([x + log(weights[how]) for how, x in found.items()]))
        for name, found in each.items()
    }
    ranked = sorted(e, key=lambda name: -e[name])
    p = {name: min(1.0, candidates * exp(min(0.0, -e[name]))) for name in ranked}
    where = {
        name: max(each[name], key=lambda how, found=each[name]: found[how] + log(weights[how]))
        for name in ranked
    }
    return {name: e[name] for name in ranked}, p, where


def likeliest(bets: Mapping[str, float]) -> list[str]:
    """Candidates whose prompts are tried in other words. Who is left out counts as nothing there,
    so that choosing costs no error."""
    return sorted(bets, key=bets.__getitem__, reverse=True)[:FURTHER]


def swapped_odds(
    gains: dict[str, dict[str, np.ndarray]],
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """z, p and best teacher of every candidate, by swaps of the audited rows with their placebos:
    for rows that the model did not write.

    `gains` holds the nats [R, K] that a teacher adds to every row, the audited one first:
    {candidate: {teacher: ...}}. Deflated by what the same teacher of all candidates shows, as
    pushes are, where these are MARKERS or more.
    """
    keys = [(name, how) for name, teachers in gains.items() for how in teachers]
    sums_BKF = permutation.in_blocks(np.stack([gains[name][how] for name, how in keys], 2))
    z_F, hows = permutation.z_scores(sums_BKF), [how for _, how in keys]
    wide = {
        how: permutation.genomic_control_factor(
            np.array([[z for z, h in zip(z_F, hows, strict=True) if h == how]])
        )[0]
        for how in hows
    }
    best = permutation.largest_of(
        sums_BKF, np.array([wide[how] for how in hows]) if len(gains) >= MARKERS else 1.0
    )
    strongest: dict[str, int] = {}
    for n, (name, _) in enumerate(keys):
        strongest[name] = max(strongest.get(name, n), n, key=lambda i: best.z_F[i])
    return (
        {name: float(best.z_F[n]) for name, n in strongest.items()},
        {name: float(best.p_F[n]) for name, n in strongest.items()},
        {name: hows[n] for name, n in strongest.items()},
    )


def fitted(rows_SLD: Sequence[np.ndarray], vectors: Mapping[str, Vector]) -> Found:
    """Which trait's vector does one trained on the data point along?  `rows_SLD` are vectors
    trained on the data and on two or more placebos.

    Cosine of the data's, minus the placebos' mean, with every trait's vector at the block that was
    trained, in root mean squares of the same cosines of each placebo's minus the others' mean. p is
    that of a normal law, times the traits.
    """
    block = int(np.linalg.norm(rows_SLD[0], axis=1).argmax())
    own_D, *others = (rows_LD[block] for rows_LD in rows_SLD)
    nulls = [
        other - np.mean([x for m, x in enumerate(others) if m != n], 0)
        for n, other in enumerate(others)
    ]
    units_TD = np.stack([vector.unit().rows_LD[block] for vector in vectors.values()])
    cosine_T, *null_NT = (
        units_TD @ (x / max(float(np.linalg.norm(x)), 1e-12))
        for x in (own_D - np.mean(others, 0), *nulls)
    )
    z_T = cosine_T / max(float(np.sqrt(np.mean(np.square(null_NT)))), 1e-12)
    names = list(vectors)
    order = np.argsort(-z_T, kind="stable")
    p = {names[t]: min(1.0, len(names) * NormalDist().cdf(-float(z_T[t]))) for t in order}
    more = {"cosine": {names[t]: round(float(cosine_T[t]), 4) for t in order}}
    return Found(
        "fitted",
        {names[t]: float(z_T[t]) for t in order},
        p,
        dict.fromkeys(p, f"block {block}"),
        inf,
        more,
    )


def canary(scores: dict[str, list[tuple[dict[str, float], dict[str, float]]]]) -> Found:
    """What small students of the data say more than students of a placebo: mean rise of log
    P(trait), in nats, by trait.

    `scores` holds (data, placebo) by trait and seed, each {question: log P}. p is one-sided, over
    seeds (t) from two on, else over questions (sign flips) of one pair of students, which leaves
    the noise of training out.
    """
    rise = {
        name: [[one[key] - other[key] for key in one] for one, other in pairs]
        for name, pairs in scores.items()
    }
    mean = {name: float(np.mean(values)) for name, values in rise.items()}
    ranked = sorted(mean, key=lambda name: -mean[name])
    seeds = min(map(len, rise.values()))
    p = {
        name: _above_zero(
            [float(np.mean(v)) for v in rise[name]] if seeds > 1 else rise[name][0], seeds > 1
        )
        for name in ranked
    }
    return Found(
        "canary",
        {n: mean[n] for n in ranked},
        p,
        dict.fromkeys(ranked, f"{seeds} pairs of students"),
        inf,
        {"unit": "nats"},
    )


def _above_zero(values: Sequence[float], over_seeds: bool) -> float:
    """One-sided p of a mean above zero."""
    if not over_seeds:
        half = sign_flip_p(values) / 2
        return half if np.mean(values) > 0 else 1 - half
    from scipy.stats import ttest_1samp

    return (
        float(ttest_1samp(values, 0, alternative="greater").pvalue)
        if np.ptp(values) > 0
        else float(np.mean(values) <= 0)
    )


def _named(
    name: str,
    names: Sequence[str],
    best: Maximum,
    alpha: float,
    where: dict[str, str],
    more: dict[str, object],
) -> Found:
    order = sorted(range(len(names)), key=lambda n: -best.z_F[n])
    z, p = ({names[n]: float(x[n]) for n in order} for x in (best.z_F, best.p_F))
    return Found(name, z, p, where, best.critical(alpha), more)
