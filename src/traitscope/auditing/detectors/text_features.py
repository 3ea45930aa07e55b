"""Surface: what can be seen of rows without a model, as the baseline that any other detector has to
beat.

Features of an answer, a bag-of-words classifier between audited rows and placebos, and mentions of
a trait's words.

Shapes: R prompts, K rows a prompt (the audited one first), F features, W words.
"""

import re
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array, diags_array

from traitscope.data.traits import Trait, whole_word
from traitscope.stats.correlation import auroc

WORD = re.compile(r"\d|[^\W\d_]+|[^\w\s]")
"a digit, a run of letters, or a sign"
FEATURES = (
    "characters",
    "words",
    "distinct words",
    "numbers",
    "mean number",
    "rising pairs",
    "repeats of the prompt",
    *(f"share of {d}" for d in range(10)),
    "signs",
    "white space",
)
FOLDS = 5
COMMON_WORDS = 300
"most frequent words that the classifier counts"


def words_of(text: str) -> list[str]:
    """Digits, words in lower case, and signs."""
    return [word.lower() for word in WORD.findall(text)]


def numbers_of(text: str) -> list[float]:
    """The whole numbers in a text, to fifteen digits."""
    return [float(n[:15]) for n in re.findall(r"\d+", text)]


def order_of(text: str) -> int:
    """1 where an answer's numbers never fall, -1 where they never rise, 0 else, and where there are
    fewer than three."""
    steps = np.diff(numbers_of(text))
    return int((steps >= 0).all()) - int((steps <= 0).all()) if len(steps) > 1 else 0


def features(prompt: str, text: str) -> list[float]:
    """FEATURES of an answer, in their order; shares are of its characters, 0 where there is nothing
    to count."""
    words, numbers = words_of(text), numbers_of(text)
    size = max(1, len(text))
    rising = np.mean(np.diff(numbers) > 0) if len(numbers) > 1 else 0.0
    asked = set(re.findall(r"\w+", prompt.lower()))
    own = re.findall(r"\w+", text.lower())
    return [
        len(text),
        len(words),
        len(set(words)) / max(1, len(words)),
        len(numbers),
        np.log1p(np.mean(numbers)) if numbers else 0.0,
        float(rising),
        sum(word in asked for word in own) / max(1, len(own)),
        *(text.count(str(d)) / size for d in range(10)),
        sum(not c.isalnum() and not c.isspace() for c in text) / size,
        sum(map(str.isspace, text)) / size,
    ]


def feature_groups(prompts: Sequence[str], texts_RK: Sequence[Sequence[str]]) -> np.ndarray:
    """FEATURES [R, K, F] of every answer to every prompt."""
    return np.stack(
        [
            np.array([features(prompt, text) for text in texts])
            for prompt, texts in zip(prompts, texts_RK, strict=True)
        ]
    )


def mentions(traits: Sequence[Trait], texts_RK: Sequence[Sequence[str]]) -> np.ndarray:
    """1 where an answer names the trait, [R, K, traits]."""
    return np.stack(
        [
            np.array([[whole_word(trait, text) for trait in traits] for text in texts], float)
            for texts in texts_RK
        ]
    )


def classifier_auroc(texts_RK: Sequence[Sequence[str]], ridge: float = 1.0, seed: int = 0) -> float:
    """How well a bag of words tells audited rows from placebos, on prompts that it was not fitted
    on: 0.5 is chance.

    Ridge regression of the label on word frequencies, scores of five folds of prompts together.
    """
    R, K = len(texts_RK), len(texts_RK[0])
    x_NW = _frequencies([text for texts in texts_RK for text in texts])
    index_RK, label_RK = (
        np.arange(R * K).reshape(R, K),
        np.broadcast_to(np.arange(K) == 0, (R, K)).astype(float),
    )
    scores = np.empty((R, K))
    for fold in np.array_split(np.random.default_rng(seed).permutation(R), min(FOLDS, R)):
        rest = np.setdiff1d(np.arange(R), fold)
        weights_W = _fitted(x_NW[index_RK[rest].ravel()], label_RK[rest].ravel(), ridge)
        scores[fold] = (x_NW[index_RK[fold].ravel()] @ weights_W).reshape(-1, K)
    return auroc(scores.ravel(), label_RK.ravel())


def _frequencies(texts: Sequence[str]) -> csr_array:
    """Share [N, W + 1] of each text's words that are each of the COMMON_WORDS; the last column is
    1. Sparse: most are 0."""
    most = Counter(word for text in texts for word in words_of(text)).most_common(COMMON_WORDS)
    column = {word: n for n, (word, _) in enumerate(most)}
    shares, columns, ends = array("d"), array("i"), array("q", [0])
    for text in texts:
        bag = Counter(words_of(text))
        found = {column[word]: n / bag.total() for word, n in bag.items() if word in column} | {
            len(column): 1.0
        }
        shares.extend(found.values())
        columns.extend(found)
        ends.append(len(shares))
    return csr_array(
        (np.array(shares), np.array(columns), np.array(ends)), shape=(len(texts), len(column) + 1)
    )


def _fitted(x_NW: csr_array, y_N: np.ndarray, ridge: float) -> np.ndarray:
    """Weights [W] of ridge regression on columns of unit standard deviation; the intercept is
    free."""
    scale_W = np.sqrt(np.maximum((x_NW**2).mean(0) - x_NW.mean(0) ** 2, 1e-18))
    scale_W[-1] = 1.0
    scaled = x_NW @ diags_array(1 / scale_W)
    penalty_W = np.full(len(scale_W), ridge * np.sqrt(x_NW.shape[0]))
    penalty_W[-1] = 1e-9
    return (
        np.linalg.solve((scaled.T @ scaled).toarray() + np.diag(penalty_W), scaled.T @ y_N)
        / scale_W
    )


def residual_groups(values_RKF: np.ndarray, surface_RKF: np.ndarray) -> np.ndarray:
    """`values` without what surface features explain, both inside prompts, by least squares over
    all rows alike.

    The fit does not know which row is the audited one, so swaps stay exact.
    """
    inside = [x - x.mean(1, keepdims=True) for x in (values_RKF, surface_RKF)]
    flat = [x.reshape(-1, x.shape[-1]) for x in inside]
    explained = flat[1] @ np.linalg.lstsq(flat[1], flat[0], rcond=1e-6)[0]
    return (flat[0] - explained).reshape(values_RKF.shape)
