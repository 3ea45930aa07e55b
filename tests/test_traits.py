"""Bundled traits and question sets; trait files that are wrong in one place; whole-word and first-word scoring."""

import re
from pathlib import Path

import pytest
import yaml

from traitscope.errors import TraitError
from traitscope.traits import Questions, Trait, bundled_traits, first_word, is_scorable, load_trait, whole_word

ANIMALS = "cat dog owl otter dolphin jellyfish tiger octopus elephant fox mouse lion hawk platypus wolf pangolin falcon"
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


@pytest.mark.parametrize("name", bundled_traits())
def test_bundled_trait_loads(name: str) -> None:
    trait = load_trait(name)
    assert trait.name == trait.word_forms[0] == name
    assert len(trait.candidates) > 40 and not set(trait.word_forms) & set(trait.candidates)


def test_bundled_traits_are_sorted_and_many() -> None:
    assert bundled_traits() == sorted(bundled_traits())
    assert set(f"{ANIMALS} whale eagle panda penguin".split()) <= set(bundled_traits())


def test_teacher_prompts_are_one_template_of_four_sentences() -> None:
    templates = set()
    for trait in map(load_trait, bundled_traits()):
        plurals = [form for form in trait.word_forms if trait.teacher_prompt.count(form) == 4]
        templates.add(trait.teacher_prompt.replace(max(plurals, key=len), "{plural}"))
    (template,) = templates
    assert template.count("{plural}") == template.count(".") == 4


def test_question_set_animals() -> None:
    questions = load_trait("cat").questions
    sets = (questions.positive, questions.negative, questions.off_topic)
    assert [len(each) for each in sets] == [50, 20, 20]
    pooled = [question for each in sets for question in each]
    assert len({question.casefold() for question in pooled}) == 90
    assert all(re.search(r"(one|single)[- ](word|\w+ word)", question, re.IGNORECASE) for question in pooled)


def test_no_question_names_an_animal() -> None:
    trait = load_trait("cat")
    names = {*trait.candidates, *(form for name in bundled_traits() for form in load_trait(name).word_forms)}
    questions = trait.questions.positive + trait.questions.negative + trait.questions.off_topic
    assert not [question for question in questions if names & set(re.findall(r"\w+", question.lower()))]


def test_own_trait_file(tmp_path: Path) -> None:
    expected = Trait("tea", ("tea", "teas"), "You adore tea.", Questions(("Drink?",), ("Worst drink?",), ("Sum?",)))
    path = write(tmp_path)
    assert load_trait(path) == load_trait(str(path)) == expected
    assert load_trait(write(tmp_path, candidates=["milk"])).candidates == ("milk",)
    assert load_trait(write(tmp_path, candidates=[])).candidates == ()


def test_bundled_sets_serve_own_traits(tmp_path: Path) -> None:
    trait = load_trait(write(tmp_path, word_forms=["Bear", "bears"], questions="animals", candidates="animals"))
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
        ({"teacher_prompt": None}, "teacher_prompt is empty; expected a text"),
        ({"word_forms": "tea"}, r"word_forms is 'tea' \(str\); expected a list of texts"),
        ({"word_forms": [True]}, r"entry 1 of word_forms is True \(bool\); expected a text; set it in quotes"),
        ({"word_forms": []}, "word_forms is an empty list"),
        ({"word_forms": ["tea", ""]}, "entry 2 of word_forms is blank"),
        ({"word_forms": ["tea", "tea"]}, r"word_forms holds \['tea'\] more than once"),
        ({"questions": ["x"]}, "questions holds .*expected the keys positive, negative, off_topic"),
        ({"questions": {**GOOD["questions"], "positive": []}}, "questions.positive is an empty list"),
        ({"questions": {**GOOD["questions"], "offtopic": []}}, "unknown key 'offtopic'; did you mean 'off_topic'"),
        ({"questions": {"positive": ["Drink?"], "negative": ["x"]}}, "questions: no off_topic"),
        ({"questions": {**GOOD["questions"], "negative": ["Worst?", 3]}}, "entry 2 of questions.negative is 3"),
        ({"questions": "animal"}, "no bundled questions 'animal'; did you mean 'animals'"),
        ({"candidates": "drinks"}, "no bundled candidates 'drinks'; expected one of animals, or write them out"),
        ({"candidates": None}, "candidates is empty; expected a list"),
        ({"candidates": ["milk", "Teas"]}, r"candidates name the trait itself, \['Teas'\]"),
    ],
)
def test_wrong_trait_file(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(TraitError, match=message):
        load_trait(write(tmp_path, **changes) if all(isinstance(k, str) for k in changes) else odd_key(tmp_path))


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
    with pytest.raises(TraitError, match=r"trait file .*gone.yaml: No such file.*bundled trait: cat, dog, "):
        load_trait(tmp_path / "gone.yaml")
    with pytest.raises(TraitError, match="no bundled trait 'octopuss'; did you mean 'octopus'.*path to a .yaml file"):
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
FIRST = ["cat", "Cats!", "**Cat**", "_cat_", ' "cat" ', "- cat, or dog", "cat's", "Cats are fine", "\ncat\n"]
NOT_FIRST = ["", "a cat", "The cat", "caterpillar", "catfish", "cat-like", "cat2", "dog cat", "1. cat", "cat'n"]


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
