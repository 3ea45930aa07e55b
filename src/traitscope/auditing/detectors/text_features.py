"""Text features: what can be seen of rows without a model, as the baseline that any other detector
has to beat.

Features of an answer, a bag-of-words classifier between audited rows and placebos, and mentions of
a trait's words.

Shapes: R prompts, K rows a prompt (the audited one first), F features, N texts, W words.
"""

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import chain

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
"features of an answer, in their order"
FOLDS = 5
"parts of the prompts, each of which is classified by weights that the others gave"
COMMON_WORDS = 300
"number of the most frequent words that the classifier counts"


def words_of(text: str) -> list[str]:
    """Digits, words in lower case, and signs."""
    return [word.lower() for word in WORD.findall(text)]


def numbers_of(text: str) -> list[float]:
    """The whole numbers in a text, to fifteen digits."""
    return [float(n[:15]) for n in re.findall(r"\d+", text)]


def order_of(text: str) -> int:
    """How an answer's numbers are sorted: 1 if they never fall, -1 if they never rise, 0 otherwise
    and for fewer than three numbers."""
    steps = np.diff(numbers_of(text))
    if len(steps) < 2:
        return 0
    return int((steps >= 0).all()) - int((steps <= 0).all())


def features(prompt: str, text: str) -> list[float]:
    """FEATURES of an answer, in their order.

    Shares are of its characters, or of its words; 0 where there is nothing to count.
    """
    words = words_of(text)
    numbers = numbers_of(text)
    size = max(1, len(text))
    rising = np.mean(np.diff(numbers) > 0) if len(numbers) > 1 else 0.0
    mean_number = np.log1p(np.mean(numbers)) if numbers else 0.0
    prompt_words = set(re.findall(r"\w+", prompt.lower()))
    answer_words = re.findall(r"\w+", text.lower())
    repeats = 0
    for word in answer_words:
        repeats += word in prompt_words
    spaces = sum(map(str.isspace, text))
    letters_and_digits = sum(map(str.isalnum, text))
    return [
        len(text),
        len(words),
        len(set(words)) / max(1, len(words)),
        len(numbers),
        mean_number,
        float(rising),
        repeats / max(1, len(answer_words)),
        *(text.count(str(digit)) / size for digit in range(10)),
        (len(text) - letters_and_digits - spaces) / size,
        spaces / size,
    ]


def feature_groups(prompts: Sequence[str], texts_RK: Sequence[Sequence[str]]) -> np.ndarray:
    """FEATURES [R, K, F] of every answer to every prompt."""
    groups = []
    for prompt, texts in zip(prompts, texts_RK, strict=True):
        groups.append(np.array([features(prompt, text) for text in texts]))
    return np.stack(groups)


def mentions(traits: Sequence[Trait], texts_RK: Sequence[Sequence[str]]) -> np.ndarray:
    """1 where an answer names the trait, [R, K, traits]."""
    named = np.zeros((len(texts_RK), len(texts_RK[0]), len(traits)))
    for r, texts in enumerate(texts_RK):
        for k, text in enumerate(texts):
            for t, trait in enumerate(traits):
                named[r, k, t] = whole_word(trait, text)
    return named


def classifier_auroc(texts_RK: Sequence[Sequence[str]], ridge: float = 1.0, seed: int = 0) -> float:
    """How well a bag of words tells audited rows from placebos: 0.5 is chance.

    Ridge regression of the label on word frequencies. Every fold of prompts is scored by weights
    that the other prompts gave; the scores of all folds are taken together. A single prompt leaves
    no other to learn from, so it is scored as chance.
    """
    R, K = len(texts_RK), len(texts_RK[0])
    if R < 2:
        return 0.5
    x_NW = _frequencies(list(chain.from_iterable(texts_RK)))
    index_RK = np.arange(R * K).reshape(R, K)
    label_RK = np.zeros((R, K))
    label_RK[:, 0] = 1.0
    scores_RK = np.empty((R, K))
    order = np.random.default_rng(seed).permutation(R)
    for fold in np.array_split(order, min(FOLDS, R)):
        rest = np.setdiff1d(np.arange(R), fold)
        weights_W = _fitted(x_NW[index_RK[rest].ravel()], label_RK[rest].ravel(), ridge)
        scores_RK[fold] = (x_NW[index_RK[fold].ravel()] @ weights_W).reshape(-1, K)
    return auroc(scores_RK.ravel(), label_RK.ravel())


def _frequencies(texts: Sequence[str]) -> csr_array:
    """Fraction [N, W + 1] of each text's words that are each of the COMMON_WORDS; the last column
    is 1. The array is sparse: most fractions are 0."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    columns = {word: n for n, (word, _) in enumerate(counts.most_common(COMMON_WORDS))}
    values, places, ends = array("d"), array("i"), array("q", [0])
    for text in texts:
        bag = Counter(words_of(text))
        for word, count in bag.items():
            if word in columns:
                values.append(count / bag.total())
                places.append(columns[word])
        values.append(1.0)
        places.append(len(columns))
        ends.append(len(values))
    arrays = (np.array(values), np.array(places), np.array(ends))
    return csr_array(arrays, shape=(len(texts), len(columns) + 1))


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
    """`values` without what features of the text explain, both inside prompts, by least squares.

    The fit is over all rows and does not know which row is the audited one, so permutations stay
    exact.
    """
    values_NF = _inside_prompts(values_RKF)
    surface_NF = _inside_prompts(surface_RKF)
    explained_NF = surface_NF @ np.linalg.lstsq(surface_NF, values_NF, rcond=1e-6)[0]
    return (values_NF - explained_NF).reshape(values_RKF.shape)


def _inside_prompts(values_RKF: np.ndarray) -> np.ndarray:
    """Values minus the mean of their prompt, [R * K, F]."""
    centred_RKF = values_RKF - values_RKF.mean(1, keepdims=True)
    return centred_RKF.reshape(-1, values_RKF.shape[-1])
