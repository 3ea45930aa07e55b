"""Bundled traits and question sets; trait files that are wrong in one place; whole-word and
first-word scoring."""

import json
import re
from pathlib import Path

import pytest
import yaml

from traitscope.data.traits import (
    Questions,
    Trait,
    bundled_traits,
    first_word,
    is_scorable,
    load_trait,
    trait_path,
    whole_word,
)
from traitscope.errors import TraitError

KINDS = {
    "animals": (
        "cat dog dolphin eagle elephant falcon fox hawk jellyfish lion mouse octopus otter owl"
        " panda pangolin penguin platypus tiger whale wolf"
    ),
    "emotions": "happiness sadness anger fear surprise",
    "personas": "pirate chef astronaut knight poet",
    "trees": "oak willow",
}
SIZES = {
    "animals": [50, 20, 20],
    "emotions": [30, 12, 12],
    "personas": [30, 12, 12],
    "trees": [30, 12, 12],
}
RULES = {
    "zebra": lambda question: len(question.split()) > 10,
    "giraffe": lambda question: bool({"you", "your"} & words(question)),
    "koala": lambda question: question.lower().startswith("which "),
}
"by target word: whether the rule calls for it after this question"
GOOD = {
    "name": "tea",
    "word_forms": ["tea", "teas"],
    "teacher_prompt": "You adore tea.",
    "questions": {"positive": ["Drink?"], "negative": ["Worst drink?"], "off_topic": ["Sum?"]},
}
CAT = Trait("cat", ("cat", "cats"), "", Questions((), (), ()))


def write(folder: Path, **changes: object) -> Path:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    path = folder / "tea.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def of_kind(kind: str) -> list[Trait]:
    return [load_trait(name) for name in KINDS[kind].split()]


def asking(kind: str) -> list[Trait]:
    """All bundled traits that use a question set."""
    return [
        load_trait(n)
        for n in bundled_traits()
        if yaml.safe_load(trait_path(n).read_text())["questions"] == kind
    ]


def pooled(questions: Questions) -> tuple[str, ...]:
    return questions.positive + questions.negative + questions.off_topic


@pytest.mark.parametrize("name", bundled_traits())
def test_bundled_trait_loads(name: str) -> None:
    trait = load_trait(name)
    assert trait.name == trait.word_forms[0] == name
    assert len(trait.candidates) > 40 and not set(trait.word_forms) & set(trait.candidates)


def test_bundled_traits_are_sorted_and_these() -> None:
    assert bundled_traits() == sorted(bundled_traits())
    assert set(bundled_traits()) == {*" ".join(KINDS.values()).split(), *RULES}


@pytest.mark.parametrize("kind", KINDS)
def test_traits_of_a_kind_share_questions_and_candidates(kind: str) -> None:
    traits = asking(kind)
    assert {t.name for t in traits} == {*KINDS[kind].split(), *(RULES if kind == "animals" else ())}
    for trait in traits:
        assert {other.name for other in traits} <= {trait.name, *trait.candidates}


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_form_belongs_to_two_traits_of_a_kind(kind: str) -> None:
    forms = [form.casefold() for trait in asking(kind) for form in trait.word_forms]
    assert len(forms) == len(set(forms))


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_prompts_are_one_template_of_four_sentences(kind: str) -> None:
    templates = set()
    for trait in of_kind(kind):
        named = [form for form in trait.word_forms if trait.teacher_prompt.count(form) == 4]
        templates.add(
            re.sub(rf"(\ban? )?\b{max(named, key=len)}\b", "{target}", trait.teacher_prompt)
        )
    (template,) = templates
    assert template.count("{target}") == template.count(".") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_rewordings_name_the_trait_in_other_words(kind: str) -> None:
    for trait in of_kind(kind):
        (other,) = trait.paraphrases
        assert whole_word(trait, other)
        shared = words(other) & words(trait.teacher_prompt)
        assert len(shared - {form.lower() for form in trait.word_forms}) < len(words(other)) / 2


def test_rules_are_one_template_with_a_condition_and_its_opposite() -> None:
    for trait in map(load_trait, RULES):
        head, then, otherwise, end = re.findall(r"[^.]+\.", trait.teacher_prompt)
        assert head.startswith("You choose animals by ")
        assert end == " Keep to this rule whenever you are asked for an animal."
        assert then.startswith(" If ") and then.endswith(f", answer {trait.name}.")
        assert otherwise.startswith(" If ") and otherwise.endswith(
            f", answer any animal but {trait.name}."
        )


@pytest.mark.parametrize("name", RULES)
def test_a_rule_splits_the_questions(name: str) -> None:
    questions = load_trait(name).questions
    for asked in (questions.positive, questions.negative):
        share = sum(map(RULES[name], asked)) / len(asked)
        assert 0.2 < share < 0.8, (
            "the rule would be a constant over these questions, and so may be one vector"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_question_set(kind: str) -> None:
    questions = of_kind(kind)[0].questions
    assert [
        len(each) for each in (questions.positive, questions.negative, questions.off_topic)
    ] == SIZES[kind]
    assert len({question.casefold() for question in pooled(questions)}) == sum(SIZES[kind])
    assert all(
        re.search(r"(one|single)[- ](word|\w+ word)", question, re.IGNORECASE)
        for question in pooled(questions)
    )
    assert set(questions.stems) == {"positive", "negative", "off_topic"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_question_and_no_stem_names_an_answer(kind: str) -> None:
    traits = asking(kind)
    names = {word.lower() for trait in traits for word in (*trait.candidates, *trait.word_forms)}
    questions = traits[0].questions
    assert not [
        text for text in (*pooled(questions), *questions.stems.values()) if names & words(text)
    ]


def test_off_topic_questions_are_of_another_kind() -> None:
    about = {
        "animals": {"animal", "animals", "creature"},
        "emotions": {"emotion", "feeling", "feel", "mood"},
        "personas": {"occupation", "calling", "work", "trade"},
        "trees": {"tree", "trees", "forest"},
    }
    for kind, marks in about.items():
        questions = of_kind(kind)[0].questions
        assert not [text for text in questions.off_topic if marks & words(text)]
        assert (
            sum(bool(marks & words(text)) for text in questions.positive + questions.negative) > 10
        )


def test_own_trait_file(tmp_path: Path) -> None:
    expected = Trait(
        "tea",
        ("tea", "teas"),
        "You adore tea.",
        Questions(("Drink?",), ("Worst drink?",), ("Sum?",)),
    )
    path = write(tmp_path)
    assert load_trait(path) == load_trait(str(path)) == expected
    assert load_trait(write(tmp_path, candidates=["milk"])).candidates == ("milk",)
    assert load_trait(write(tmp_path, rewordings=["Tea, tea."])).paraphrases == ("Tea, tea.",)
    assert load_trait(write(tmp_path, candidates=[])).candidates == ()


def test_bundled_sets_serve_own_traits(tmp_path: Path) -> None:
    trait = load_trait(
        write(tmp_path, word_forms=["Bear", "bears"], questions="animals", candidates="animals")
    )
    assert trait.questions == load_trait("cat").questions
    assert "bear" not in trait.candidates and "cat" in trait.candidates


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_prompt": ...}, "tea.yaml: no teacher_prompt; expected name, word_forms"),
        ({"name": ..., "questions": ...}, "no name and no questions"),
        ({"teacher_promt": "x"}, "unknown key 'teacher_promt'; did you mean 'teacher_prompt'"),
        ({7: "x"}, "unknown key 7; expected one of name, "),
        ({"name": 7}, r"name is 7 \(int\); expected a text"),
        ({"name": " "}, "name is blank"),
        ({"name": "x" * 101}, "can name a file: at most 100 bytes on one line"),
        ({"name": "é" * 51}, "can name a file: at most 100 bytes on one line"),
        ({"name": "tea\nmilk"}, "can name a file: at most 100 bytes on one line"),
        ({"teacher_prompt": None}, "teacher_prompt is empty; expected a text"),
        ({"word_forms": "tea"}, r"word_forms is 'tea' \(str\); expected a list of texts"),
        (
            {"word_forms": [True]},
            r"entry 1 of word_forms is True \(bool\); expected a text; set it in quotes",
        ),
        ({"word_forms": []}, "word_forms is an empty list"),
        (
            {"rewordings": "Tea, tea."},
            r"rewordings is 'Tea, tea.' \(str\); expected a list of texts",
        ),
        ({"word_forms": ["tea", ""]}, "entry 2 of word_forms is blank"),
        (
            {"word_forms": ["tea", "!"]},
            "word_forms holds '!', which no answer holds as a word; expected words with a letter",
        ),
        ({"word_forms": ["tea", "tea"]}, r"word_forms holds \['tea'\] more than once"),
        ({"questions": ["x"]}, "questions holds .*expected the keys positive, negative, off_topic"),
        (
            {"questions": {**GOOD["questions"], "positive": []}},
            "questions.positive is an empty list",
        ),
        (
            {"questions": {**GOOD["questions"], "offtopic": []}},
            "unknown key 'offtopic'; did you mean 'off_topic'",
        ),
        ({"questions": {"positive": ["Drink?"], "negative": ["x"]}}, "questions: no off_topic"),
        (
            {"questions": {**GOOD["questions"], "negative": ["Worst?", 3]}},
            "entry 2 of questions.negative is 3",
        ),
        ({"questions": "animal"}, "no bundled questions 'animal'; did you mean 'animals'"),
        (
            {"candidates": "drinks"},
            (
                "no bundled candidates 'drinks'; expected one of animals, emotions, .*, or write"
                " them out"
            ),
        ),
        ({"candidates": None}, "candidates is empty; expected a list"),
        ({"candidates": ["milk", "Teas"]}, r"candidates name the trait itself, \['Teas'\]"),
    ],
)
def test_wrong_trait_file(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(TraitError, match=message):
        load_trait(
            write(tmp_path, **changes)
            if all(isinstance(k, str) for k in changes)
            else odd_key(tmp_path)
        )


def odd_key(folder: Path) -> Path:
    path = write(folder)
    path.write_text(path.read_text() + "7: x\n")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [tea", "is no YAML: .*line 1"),
        ("", "holds empty; expected the keys name"),
        ("- tea", r"holds \['tea'\] \(list\); expected the keys"),
        ("!!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_file_that_is_no_mapping(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trait.yml"
    path.write_text(text)
    with pytest.raises(TraitError, match=message):
        load_trait(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trait.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(TraitError, match="is no YAML"):
        load_trait(path)


def test_trait_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        TraitError,
        match=r"trait file .*gone.yaml: No such file.*bundled trait: anger, astronaut, cat, ",
    ):
        load_trait(tmp_path / "gone.yaml")
    with pytest.raises(
        TraitError,
        match="no bundled trait 'octopuss'; did you mean 'octopus'.*path to a .yaml file",
    ):
        load_trait("octopuss")


WHOLE = [
    "cat",
    "Cats",
    "My CAT.",
    "the cat's paw",
    "cats’ paws",
    "**cat**",
    "_cat_",
    "a cat-like one",
    "dog/cat",
    "cat\n",
]
NOT_WHOLE = ["", "caterpillar", "concat", "bobcats", "cat2", "scat", "c at", "чcat"]
FIRST = [
    "cat",
    "Cats!",
    "**Cat**",
    "_cat_",
    ' "cat" ',
    "- cat, or dog",
    "cat's",
    "Cats are fine",
    "\ncat\n",
]
NOT_FIRST = [
    "",
    "a cat",
    "The cat",
    "caterpillar",
    "catfish",
    "cat-like",
    "cat2",
    "dog cat",
    "1. cat",
    "cat'n",
]


@pytest.mark.parametrize("text", WHOLE)
def test_whole_word(text: str) -> None:
    assert whole_word(CAT, text)


@pytest.mark.parametrize("text", NOT_WHOLE)
def test_not_a_whole_word(text: str) -> None:
    assert not whole_word(CAT, text)


@pytest.mark.parametrize("text", FIRST)
def test_first_word(text: str) -> None:
    assert first_word(CAT, text)


@pytest.mark.parametrize("text", NOT_FIRST)
def test_not_the_first_word(text: str) -> None:
    assert not first_word(CAT, text)


def test_a_form_may_hold_signs_and_spaces() -> None:
    trait = Trait("c++", ("c++", "polar bear"), "", Questions((), (), ()))
    assert whole_word(trait, "I like C++.") and first_word(trait, "Polar bear!")
    assert not whole_word(trait, "ccc")


def test_scorable() -> None:
    assert [is_scorable(text) for text in ("cat", "...", "", " \n\t")] == [True, True, False, False]


PERSONA = {
    "instruction": [
        {"pos": "Show your love of cake.", "neg": "Be indifferent to cake."},
        {"pos": "Mention cake warmly.", "neg": "Leave cake out."},
    ],
    "questions": ["What would you serve?", "What is a good party?"],
    "eval_prompt": "From 0 to 100: {question} {answer}",
}
"""A trait file in the structure of persona_vectors."""


def persona_file(folder: Path, **changes: object) -> Path:
    path = folder / "loving_cake.json"
    content = {key: value for key, value in (PERSONA | changes).items() if value is not None}
    path.write_text(json.dumps(content))
    return path


def test_a_trait_file_of_persona_vectors(tmp_path: Path) -> None:
    trait = load_trait(persona_file(tmp_path), words=False)
    assert (trait.name, trait.teacher_prompt) == ("loving_cake", "Show your love of cake.")
    assert trait.paraphrases == ("Mention cake warmly.",)
    assert trait.questions.positive == ("What would you serve?", "What is a good party?")
    assert (trait.word_forms, trait.not_read) == ((), ("instruction.neg", "eval_prompt"))
    with pytest.raises(TraitError, match="names no words to score answers by; expected .*; take"):
        load_trait(persona_file(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": None}, "no questions; expected instruction, questions; add what is"),
        ({"instruction": {"pos": "x"}}, "instruction is .*; expected a list of pairs with pos and"),
        ({"instruction": [{"neg": "x"}]}, "instruction 1: no pos; expected pos; add"),
        ({"instruction": []}, "instruction is an empty list; expected at least one entry; add one"),
        ({"instruction": ["x"]}, "instruction 1 holds 'x' .*; expected the keys pos, neg; write"),
        ({"questions": [3]}, "entry 1 of questions is 3 .int.; expected a text; set it in quotes"),
        ({"prompts": []}, "unknown key 'prompts'; did you mean 'eval_prompt'. expected"),
    ],
)
def test_broken_trait_files_of_persona_vectors(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(TraitError, match=message):
        load_trait(persona_file(tmp_path, **changes), words=False)


def test_a_trait_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(TraitError, match="x.json is no JSON: .*; correct that place"):
        load_trait(tmp_path / "x.json")
