"""The sources that a methods paragraph may cite, and BibTeX made of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from traitscope.reporting.latex import escaped

ARXIV = re.compile(r"\b(\d{4}\.\d{5})\b")
"number of a paper on arXiv"


@dataclass(frozen=True)
class Source:
    """A source, as BibTeX has it."""

    kind: str
    """Kind of entry, such as article."""
    author: str
    """Authors, with `and` between them."""
    title: str
    """Title; capitals in braces stay capitals."""
    year: str
    """Year."""
    further: tuple[tuple[str, str], ...] = ()
    """Other fields by name."""

    def entry(self, key: str) -> str:
        """The entry with this key."""
        fields = [("author", self.author), ("title", f"{{{self.title}}}"), ("year", self.year)]
        lines = [f"  {name} = {{{_text(value)}}}," for name, value in (*fields, *self.further)]
        return "\n".join([f"@{self.kind}{{{key},", *lines, "}"]) + "\n"


def _arxiv(number: str) -> tuple[tuple[str, str], ...]:
    return (("journal", f"arXiv preprint arXiv:{number}"), ("eprint", number))


def _text(value: str) -> str:
    """A value as LaTeX prints it; braces stay, because BibTeX reads them."""
    return "".join(part if part in "{}" else escaped(part) for part in re.split(r"([{}])", value))


SOURCES: dict[str, Source] = {
    "cloud2025subliminal": Source(
        "article",
        "Cloud, Alex and others",
        "Subliminal Learning: Language models transmit behavioral traits via hidden signals in"
        " data",
        "2025",
        _arxiv("2507.14805"),
    ),
    "blank2026steering": Source(
        "article",
        "Blank and Bhatia and Rajamanoharan and Conmy and Nanda",
        "Subliminal Learning Is Steering Vector Distillation",
        "2026",
        _arxiv("2606.00995"),
    ),
    "hadley2026nonsemantic": Source(
        "article",
        "Hadley, Ethan and Gultepe, Eren",
        "Subliminal Learning is Non-Semantic Distillation",
        "2026",
        _arxiv("2608.05734"),
    ),
    "nief2026lora": Source(
        "article",
        "Nief and Fu and Muchane and Holtzman",
        "Subliminal Learning is a LoRA Artifact",
        "2026",
        _arxiv("2606.00831"),
    ),
    "koenig2026ratios": Source(
        "article",
        "König, Uwe and Kazmi, Hamza and Li, Ruizhe and Chaudhary, Maheep",
        "Quantifying Subliminal Behavioral Transfer Ratios in Language Model Distillation",
        "2026",
        _arxiv("2606.11270"),
    ),
    "morgulis2026steering": Source(
        "article",
        "Morgulis, George and Hewitt, John",
        "Subliminal Steering: Stronger Encoding of Hidden Signals",
        "2026",
        _arxiv("2604.25783"),
    ),
    "wang2026data": Source(
        "article",
        "Wang, Mengru and others",
        "From Data to Behavior: Predicting Unintended Model Behaviors Before Training",
        "2026",
        _arxiv("2602.04735"),
    ),
    "arditi2024refusal": Source(
        "article",
        "Arditi, Andy and others",
        "Refusal in Language Models Is Mediated by a Single Direction",
        "2024",
        _arxiv("2406.11717"),
    ),
    "hu2021lora": Source(
        "article",
        "Hu, Edward J. and others",
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "2021",
        _arxiv("2106.09685"),
    ),
    "rafailov2023dpo": Source(
        "article",
        "Rafailov, Rafael and others",
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "2023",
        _arxiv("2305.18290"),
    ),
    "loshchilov2019adamw": Source(
        "inproceedings",
        "Loshchilov, Ilya and Hutter, Frank",
        "Decoupled Weight Decay Regularization",
        "2019",
        (("booktitle", "International Conference on Learning Representations"),),
    ),
    "miller2024errorbars": Source(
        "article",
        "Miller, Evan",
        "Adding Error Bars to Evals: A Statistical Approach to Language Model Evaluations",
        "2024",
        _arxiv("2411.00640"),
    ),
    "welch1947": Source(
        "article",
        "Welch, B. L.",
        "The Generalization of Student's Problem when Several Different Population Variances are"
        " Involved",
        "1947",
        (("journal", "Biometrika"), ("volume", "34"), ("pages", "28--35")),
    ),
    "wilson1927": Source(
        "article",
        "Wilson, Edwin B.",
        "Probable Inference, the Law of Succession, and Statistical Inference",
        "1927",
        (
            ("journal", "Journal of the American Statistical Association"),
            ("volume", "22"),
            ("pages", "209--212"),
        ),
    ),
    "efron1993": Source(
        "book",
        "Efron, Bradley and Tibshirani, Robert J.",
        "An Introduction to the Bootstrap",
        "1993",
        (("publisher", "Chapman and Hall"),),
    ),
    "holm1979": Source(
        "article",
        "Holm, Sture",
        "A Simple Sequentially Rejective Multiple Test Procedure",
        "1979",
        (("journal", "Scandinavian Journal of Statistics"), ("volume", "6"), ("pages", "65--70")),
    ),
    "schuirmann1987": Source(
        "article",
        "Schuirmann, Donald J.",
        "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing"
        " the Equivalence of Average Bioavailability",
        "1987",
        (
            ("journal", "Journal of Pharmacokinetics and Biopharmaceutics"),
            ("volume", "15"),
            ("pages", "657--680"),
        ),
    ),
    "wasserman2020universal": Source(
        "article",
        "Wasserman, Larry and Ramdas, Aaditya and Balakrishnan, Sivaraman",
        "Universal Inference",
        "2020",
        (
            ("journal", "Proceedings of the National Academy of Sciences"),
            ("volume", "117"),
            ("pages", "16880--16890"),
        ),
    ),
    "allal2025smollm2": Source(
        "article",
        "Allal, Loubna Ben and others",
        "SmolLM2: When Smol Goes Big",
        "2025",
        _arxiv("2502.02737"),
    ),
    "paszke2019pytorch": Source(
        "inproceedings",
        "Paszke, Adam and others",
        "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
        "2019",
        (("booktitle", "Advances in Neural Information Processing Systems"),),
    ),
    "wolf2020transformers": Source(
        "inproceedings",
        "Wolf, Thomas and others",
        "Transformers: State-of-the-Art Natural Language Processing",
        "2020",
        (
            (
                "booktitle",
                "Conference on Empirical Methods in Natural Language Processing: System"
                " Demonstrations",
            ),
        ),
    ),
    "traitscope": Source(
        "misc",
        "{The Traitscope authors}",
        "Traitscope",
        "2026",
        (("note", "Software"),),
    ),
}
"sources by key"


def keys_in(text: str) -> tuple[str, ...]:
    """The keys of the sources whose arXiv numbers a text names, in its order."""
    by_number = {}
    for key, source in SOURCES.items():
        number = dict(source.further).get("eprint")
        if number is not None:
            by_number[number] = key
    return tuple(by_number[number] for number in ARXIV.findall(text) if number in by_number)


def bibtex(keys: Iterable[str]) -> str:
    """BibTeX of some sources, each once, sorted by key."""
    return "\n".join(SOURCES[key].entry(key) for key in sorted(set(keys)))
