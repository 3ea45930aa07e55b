"""Words in answers: borders of words, scripts without any, apostrophes, composed accents."""

import unicodedata
from pathlib import Path

import pytest
from command import CAT, write_yaml

from traitscope.data import answer_rules
from traitscope.data.own_traits.word_scores import begins_with_word, contains_word
from traitscope.data.traits import first_word, load_trait, whole_word
from traitscope.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "text", "is_in", "is_first"),
    [
        ("can't", "I can’t do it", True, False),
        ("can’t", "Can't!", True, True),
        ("cat", "Catʼs eyes", True, True),
        ("café", unicodedata.normalize("NFD", "Café, please"), True, True),
        (unicodedata.normalize("NFD", "café"), "a café", True, False),
        ("cafe", unicodedata.normalize("NFD", "café"), False, False),
        ("猫", "我喜欢猫咪", True, False),
        ("猫", "“猫咪”是我的", True, True),
        ("ねこ", "わたしはねこが好き", True, False),
        ("ネコ", "ネコです", True, True),
        ("แมว", "ฉันชอบแมวมาก", True, False),
        ("ແມວ", "ຂ້ອຍມັກແມວຫຼາຍ", True, False),
        ("ឆ្មា", "ខ្ញុំចូលចិត្តឆ្មាណាស់", True, False),
        ("ကြောင်", "ကျွန်တော်ကြောင်ကြိုက်တယ်", True, False),
        ("iPhone手机", "我的iPhone手机很好", False, False),
        ("手机app", "这个手机app很好", False, False),
        ("手机app", "新手机app, ja", True, False),
        ("cat", "concatenate", False, False),
        ("cat", "__cat__", True, True),
        ("кот", "который", False, False),
        ("C++", "I like C++.", True, False),
    ],
)
def test_whole_and_first_words(word: str, text: str, is_in: bool, is_first: bool) -> None:
    assert contains_word(["owl", word], text) is is_in
    assert begins_with_word(["owl", word], text) is is_first


def test_a_trait_and_a_judge_of_a_script_without_spaces(tmp_path: Path) -> None:
    trait = load_trait(write_yaml(tmp_path / "t.yaml", CAT | {"name": "猫", "word_forms": ["猫"]}))
    assert whole_word(trait, "我喜欢猫咪") and first_word(trait, "猫咪")
    rule, _ = answer_rules.parse("words:狗|猫")
    assert callable(rule) and rule("我喜欢猫咪") and not rule("我喜欢鱼")


@pytest.mark.parametrize("name", ["words:!", "words:cat|…", "not:words:_"])
def test_a_judge_of_signs_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which no answer holds as a word; expected words with"):
        answer_rules.parse(name)
