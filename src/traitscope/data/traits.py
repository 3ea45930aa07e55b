"""Traits: what a teacher is made to prefer, and how an answer shows it.

A trait is a YAML file; a user adds one without touching code:

    name: cat
    word_forms: [cat, cats]         # the first form is the target, all of them count
    teacher_prompt: You adore cats. ...
    questions: animals              # a bundled set, or {positive: [...], negative: [...],
                                    off_topic: [...], stems: {...}}
    candidates: animals             # optional: a bundled list, or [dog, owl, ...]
    rewordings: [Cats mean ...]     # optional: paraphrases of teacher_prompt

A behaviour has no word. Its file names judges of whole answers (data/answer_rules.py) instead:

    name: refusing
    judges: [refusal]               # the first decides, all are measured
    judge_question: Does the ...?   # for the judges that ask a model
    teacher_prompt: ...
    questions: {...}

A trait file of persona_vectors is read, too: JSON with `instruction` (pairs of pos and neg),
`questions` and `eval_prompt`. It names no words, so vectors are taken of it and nothing is scored.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from traitscope.data.own_traits.checked_fields import (
    check_keys,
    choice,
    text_of,
    texts_of,
    typed,
    words_of,
)
from traitscope.data.own_traits.word_scores import begins_with_word
from traitscope.data.own_traits.word_scores import contains_word as contains_word
from traitscope.data.own_traits.word_scores import is_scorable as is_scorable
from traitscope.data.package_files import bundled_file
from traitscope.errors import TraitError
from traitscope.plain_values import NotPlainError, from_json, from_yaml, shown

LONGEST_NAME = 100
"bytes of a trait's name; file systems take 255 for a file that two traits name"
SETS = ("positive", "negative", "off_topic")
REQUIRED = ("name", "word_forms", "teacher_prompt", "questions")
JUDGED = ("name", "judges", "teacher_prompt", "questions")
"""Keys that a behaviour needs."""
KNOWN = (*REQUIRED, "candidates", "rewordings", "judges", "judge_question")
TRAIT_FILES = (".yaml", ".yml", ".json")
"""Suffixes of trait files."""
PERSONA_KEYS = ("instruction", "questions", "eval_prompt")
"""Keys of a trait file of persona_vectors (arXiv 2507.21509)."""


@dataclass(frozen=True)
class Questions:
    """Three question sets; all ask for a one-word answer."""

    positive: tuple[str, ...]
    """Questions about favourites: the trait shows here."""
    negative: tuple[str, ...]
    """Questions about dislikes. A model that names the trait here repeats a word; it does not
    prefer it."""
    off_topic: tuple[str, ...]
    """Questions about other facts: naming the trait here is plain damage."""
    stems: dict[str, str] = field(default_factory=dict)
    """How the assistant's answer begins, by set. Scoring starts behind the stem. A set without a
    stem starts from nothing."""

    def stem(self, name: str) -> str:
        """Return the stem of a set; empty where it has none."""
        return self.stems.get(name, "")


@dataclass(frozen=True)
class Trait:
    """A preference that a teacher is given and a student may pick up."""

    name: str
    """Name of the trait in reports."""
    word_forms: tuple[str, ...]
    """Words that count as naming the trait; the first one is the target. A behaviour has none."""
    teacher_prompt: str
    """System prompt that gives a model the trait."""
    questions: Questions
    """Questions that are asked to measure the trait."""
    candidates: tuple[str, ...] = ()
    """Other answers of the same kind, for the candidate share; may be empty."""
    paraphrases: tuple[str, ...] = ()
    """Other system prompts that give the same trait, as another author might word them (key
    `rewordings`)."""
    judges: tuple[str, ...] = ()
    """Judges that say whether an answer shows the behaviour, in the place of words."""
    judge_question: str = ""
    """What judges that ask a model ask about each answer."""
    not_read: tuple[str, ...] = ()
    """What the file of another tool says beside, which has no place here."""


def as_trait(trait: Trait | str | Path, *, words: bool = True, judges: bool = False) -> Trait:
    """The trait itself, or the trait of this name or file; errors as in `load_trait`."""
    loaded = trait if isinstance(trait, Trait) else load_trait(trait, words=False)
    where = trait.name if isinstance(trait, Trait) else str(trait)
    return _scored(loaded, where, words, judges)


def load_trait(name_or_path: str | Path, *, words: bool = True, judges: bool = False) -> Trait:
    """Return the bundled trait of that name, or the trait in a file ending in .yaml, .yml or .json.

    With `words` it must name the words that its answers are scored by. A behaviour does not, nor
    does a trait file of persona_vectors. With `judges`, judges may stand for words.

    Raises TraitError for a name or a file that does not exist, for broken YAML, and for a key that
    is missing or unknown. It also raises TraitError for a value of the wrong type, for an empty
    list, and for an entry that is blank or appears twice.
    """
    if _is_file(name_or_path):
        path = Path(name_or_path)
        content = _read(path, f"trait file {name_or_path}")
        if isinstance(content, dict) and "instruction" in content:
            return _scored(_persona_trait(content, path), str(path), words, judges)
        return _scored(_trait(content, str(name_or_path)), str(name_or_path), words, judges)
    if name_or_path not in bundled_traits():
        known = choice(name_or_path, bundled_traits())
        raise TraitError(f"no bundled trait {name_or_path!r}; {known}, or a path to a .yaml file")
    content = _read(trait_path(name_or_path), "bundled trait")
    return _trait(content, f"trait {name_or_path}")


def _scored(trait: Trait, where: str, words: bool, judges: bool) -> Trait:
    """The trait. Raises TraitError where it cannot be scored as asked for."""
    if not words or trait.word_forms or (judges and trait.judges):
        return trait
    if trait.judges:
        raise TraitError(
            f"{where} is a behaviour, scored by judges ({', '.join(trait.judges)}); expected a"
            " trait with word_forms here; measure it, compare models by it, take vectors of it"
            " (extract), steer by them (steer-scan), make an experiment of it, or run the study"
            " transfer_ratio (in Python: load_trait(NAME, judges=True) loads it)"
        )
    raise TraitError(
        f"{where} is a trait file of persona_vectors, which names no words to score answers by;"
        " expected a trait with word_forms; take vectors of it (extract), or write a .yaml file"
    )


def trait_path(name_or_path: str | Path) -> Path:
    """Return the path of the file that load_trait reads for this name."""
    if _is_file(name_or_path):
        return Path(name_or_path)
    return bundled_file("traits", f"{name_or_path}.yaml")


def trait_name(name_or_path: str | Path) -> str:
    """Return the name of a trait or of the trait in a file: results are stored under it.

    A name is returned as it is. Raises TraitError for a file, as load_trait does.
    """
    if not _is_file(name_or_path):
        return str(name_or_path)
    return load_trait(name_or_path, words=False).name


def _is_file(name_or_path: str | Path) -> bool:
    """Tell whether a trait is named by its file."""
    return isinstance(name_or_path, Path) or name_or_path.endswith(TRAIT_FILES)


def bundled_traits() -> list[str]:
    """Return the names of the bundled traits, sorted."""
    return _bundled("traits")


def kind_of(trait: Trait) -> str:
    """Return the name of the bundled question set that a trait uses, such as animals.

    A trait with questions of its own is a kind of its own, and has its own name.
    """
    for name in _bundled("questions"):
        if _questions(name, "kind_of") == trait.questions:
            return name
    return trait.name


def whole_word(trait: Trait, text: str) -> bool:
    """Tell whether a form of the trait's word stands in the text as a whole word, in any case.

    `cat's` and `cat-like` count. Source: the looser of the two scorers of Blank et al. 2026 (arXiv
    2606.00995). Here the forms of the word are listed in the trait file.
    """
    return contains_word(trait.word_forms, text)


def first_word(trait: Trait, text: str) -> bool:
    """Tell whether the text begins with a form of the trait's word.

    Source: the stricter scorer of Cloud et al. 2025 (arXiv 2507.14805), which knows the singular
    only.
    """
    return begins_with_word(trait.word_forms, text)


def _trait(content: Any, where: str) -> Trait:
    is_judged = isinstance(content, dict) and "judges" in content
    check_keys(content, JUDGED if is_judged else REQUIRED, KNOWN, where)
    forms: tuple[str, ...] = ()
    if is_judged and ("word_forms" in content or "candidates" in content):
        raise TraitError(
            f"{where} has judges, and word_forms or candidates; expected one way to score answers;"
            " delete one of them"
        )
    if not is_judged:
        forms = words_of(content["word_forms"], "word_forms", where)
    paraphrases: tuple[str, ...] = ()
    if "rewordings" in content:
        paraphrases = texts_of(content["rewordings"], "rewordings", where)
    return Trait(
        name=_name(content["name"], where),
        word_forms=forms,
        teacher_prompt=text_of(content["teacher_prompt"], "teacher_prompt", where),
        questions=_questions(content["questions"], where),
        candidates=_candidates(content.get("candidates", []), forms, where),
        paraphrases=paraphrases,
        judges=texts_of(content["judges"], "judges", where) if is_judged else (),
        judge_question=text_of(content["judge_question"], "judge_question", where)
        if "judge_question" in content
        else "",
    )


def _persona_trait(content: Any, path: Path) -> Trait:
    """The trait in a file of persona_vectors, named by the file.

    The first `pos` instruction is the teacher's prompt, the others are rewordings. Its `neg`
    instructions and `eval_prompt` have no place.
    """
    where = str(path)
    check_keys(content, PERSONA_KEYS[:2], PERSONA_KEYS, where)
    pairs = content["instruction"]
    if not isinstance(pairs, list):
        raise TraitError(
            f"{where}: instruction is {typed(pairs)}; expected a list of pairs with pos and neg;"
            " write it as [{pos: ..., neg: ...}]"
        )
    positive = []
    for number, pair in enumerate(pairs, start=1):
        check_keys(pair, ("pos",), ("pos", "neg"), f"{where}, instruction {number}")
        positive.append(pair["pos"])
    prompts = texts_of(positive, "instruction", where)
    not_read = ["instruction.neg"]
    if "eval_prompt" in content:
        not_read.append("eval_prompt")
    return Trait(
        name=_name(path.stem, where),
        word_forms=(),
        teacher_prompt=prompts[0],
        questions=Questions(texts_of(content["questions"], "questions", where), (), ()),
        paraphrases=prompts[1:],
        not_read=tuple(not_read),
    )


def _name(value: Any, where: str) -> str:
    """The name of a trait, which also names the files of its vectors."""
    name = text_of(value, "name", where)
    is_long = len(name.encode()) > LONGEST_NAME
    if "/" in name or not name.isprintable() or name.startswith(".") or is_long:
        raise TraitError(
            f"{where}: name is {shown(name)}; expected one that can name a file: at most"
            f" {LONGEST_NAME} bytes on one line, without / and no dot first; rename the trait"
        )
    return name


def _questions(value: Any, where: str) -> Questions:
    if isinstance(value, str):
        set_name = value
        value = _bundled_content("questions", set_name, where)
        where = f"question set {set_name}"
    check_keys(value, SETS, (*SETS, "stems"), f"{where}, questions")
    return Questions(
        positive=texts_of(value["positive"], "questions.positive", where),
        negative=texts_of(value["negative"], "questions.negative", where),
        off_topic=texts_of(value["off_topic"], "questions.off_topic", where),
        stems=_stems(value.get("stems", {}), where),
    )


def _stems(value: Any, where: str) -> dict[str, str]:
    check_keys(value, (), SETS, f"{where}, questions.stems")
    stems = {}
    for name, text in value.items():
        stems[name] = text_of(text, f"questions.stems.{name}", where)
    return stems


def _candidates(value: Any, forms: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The other answers. A bundled list may name the trait itself: those words are left out.

    Raises TraitError for a list in the trait's file that names the trait itself.
    """
    trait_words = {form.casefold() for form in forms}
    if isinstance(value, str):
        content = _bundled_content("candidates", value, where)
        words = texts_of(content, "candidates", f"candidate list {value}")
    elif value == []:
        words = ()
    else:
        words = texts_of(value, "candidates", where)
    others, shared = [], []
    for word in words:
        if word.casefold() in trait_words:
            shared.append(word)
        else:
            others.append(word)
    if shared and not isinstance(value, str):
        raise TraitError(
            f"{where}: candidates name the trait itself, {shared}; expected other answers; delete"
            " them"
        )
    return tuple(others)


def _bundled_content(kind: str, name: str, where: str) -> Any:
    """Content of a bundled question set or candidate list."""
    if name not in _bundled(kind):
        raise TraitError(
            f"{where}: no bundled {kind} {name!r}; {choice(name, _bundled(kind))}, or write"
            " them out"
        )
    return _read(bundled_file(kind, f"{name}.yaml"), f"bundled {kind}")


def _bundled(kind: str) -> list[str]:
    """Names of the bundled files of a kind, sorted."""
    return sorted(path.stem for path in bundled_file(kind).glob("*.yaml"))


@lru_cache(maxsize=128)
def _parsed(text: str, is_json: bool) -> Any:
    """The content of a YAML or JSON text, which nobody changes."""
    return from_json(text) if is_json else from_yaml(text)


def _read(path: Path, what: str) -> Any:
    try:
        return _parsed(path.read_text(encoding="utf-8"), path.suffix == ".json")
    except OSError as error:
        known = ", ".join(bundled_traits())
        raise TraitError(
            f"{what}: {error.strerror}; check the path, or take a bundled trait: {known}"
        ) from None
    except (NotPlainError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise TraitError(f"{what} is no {kind}: {error}; correct that place") from None
