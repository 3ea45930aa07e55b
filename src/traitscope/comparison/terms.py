"""What pages say of scores in words: terms, limits, and how the score that decides is called.

A trait with a word is scored by its probability. A behaviour is scored by judges of whole answers,
and the first of them decides.
"""

BEFORE = (
    "The comparison is about one model, one trait, one teacher and one training recipe. It does not"
    " say what happens with others.",
    "Where an interval includes zero, an effect was not shown. That is not the same as showing that"
    " there is none.",
)
DECIDES = (
    "One score decides: target log-probability on questions about favourites. The other scores help"
    " to read it; their intervals are not corrected for their number."
)
BEHIND = (
    "Intervals over seeds hold for these questions. The interval that is marked with new questions"
    " holds for other questions of the same kind, too. With one seed an interval"
    " covers questions only: another training run may end elsewhere.",
    "A similarity of activations (EAS) goes along with the trait. It is no proof that it causes the"
    " trait.",
)
LIMITS = (*BEFORE, DECIDES, *BEHIND)
"what no comparison of a trait with a word shows"
TREATED = "Treated students are trained on a teacher's outputs."
"who the treated side is, where it is students"
SET_LABELS = {"positive": "favourites", "negative": "dislikes", "off_topic": "other facts"}
"what the questions of a trait with a word are about"
BASE = ("base", "The model before training.")
WORDS = (
    (
        "target_logprob",
        "Log of the probability of the trait's word forms right after the answer's stem, in nats.",
    ),
    (
        "candidate_share",
        "Probability of the trait's word among all candidate answers of its kind.",
    ),
    (
        "total_variation",
        "Half the L1 distance between the next-token distribution and the base's: 0 is equal, 1 is"
        " disjoint.",
    ),
    ("whole_word", "Fraction of sampled answers that name the trait anywhere."),
    ("first_word", "Fraction of sampled answers that begin with the trait."),
    ("unscored", "Fraction of sampled answers that could not be scored, such as empty ones."),
    (
        "positive, negative, off_topic",
        "Question sets about favourites, dislikes and other facts. A preference shows on the first;"
        " a word that is repeated everywhere shows on all.",
    ),
)
JUDGED = (
    ("unscored", "Fraction of sampled answers that could not be judged, such as empty ones."),
    (
        "positive, negative, off_topic",
        "Question sets of the trait's file. The behaviour should show on the first; what shows on"
        " all of them is a change of every answer.",
    ),
)
OF_ALL = (
    (
        "EAS",
        "Empirical activation similarity: cosine between a student's mean change in the residual"
        " stream and a teacher's vector, in one layer. A part of it comes with any training, so it"
        " is compared with the control's and with other traits' vectors.",
    ),
    (
        "n",
        "Pairs of treated and control scores with the same seed and question; models, where the"
        " sides are not paired.",
    ),
)


def limits(judge: str = "") -> tuple[str, ...]:
    """Return what a comparison does not show; `judge` decides on a behaviour."""
    if not judge:
        return LIMITS
    decides = (
        f"One score decides: the rate of sampled answers to positive questions in which the judge"
        f" {judge} sees the behaviour. A judge may be wrong; read some answers. Other judges and"
        " sets help to read it; their intervals are not corrected for their number."
    )
    return (*BEFORE, decides, *BEHIND)


def terms(judges: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
    """Return the terms that tables and figures use, each with what it means."""
    if not judges:
        return (BASE, *WORDS, *OF_ALL)
    rates = []
    for judge in judges:
        rates.append((judge, f"Fraction of sampled answers in which the judge {judge} sees it."))
    return (BASE, *rates, *JUDGED, *OF_ALL)


def scored(trait: str, judge: str = "") -> str:
    """Return what decides on a set of questions, in words, without the set."""
    if judge:
        return f"the rate of answers in which the judge {judge} sees “{trait}”"
    return f"the log-probability of “{trait}”"


def asked(question_set: str, judge: str = "") -> str:
    """Return the questions of a set in words."""
    if judge:
        return f"{question_set} questions"
    return f"questions about {SET_LABELS.get(question_set, question_set)}"
