"""The bound on characters: no row that fits is refused, and one far too long is at once."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, normalizers

from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.inference.token_rows import row_check, rows_from
from traitscope.models.model import Model
from traitscope.models.templates import lengths

TOKENIZER = tiny_tokenizer()
COMPOSING = tiny_tokenizer()
COMPOSING.backend_tokenizer.normalizer = normalizers.NFC()
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("α\u0313\u0300\u0345 <|im_start|>\u1100\u1161\u11a8"), max_size=200),
    st.lists(st.sampled_from(sorted(TOKENIZER.get_vocab(), key=len)[-20:])).map("".join),
)


@given(TEXTS)
def test_no_text_has_more_characters_than_the_bound(text: str) -> None:
    for tokenizer in (TOKENIZER, COMPOSING):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        most = lengths.most_characters(tokenizer, len(ids))
        assert most is not None and len(text) <= most


def test_a_tokenizer_that_takes_characters_away_has_no_bound() -> None:
    for change in ("strip", "normalizer", "unigram"):
        tokenizer = tiny_tokenizer()
        fast: Tokenizer = tokenizer.backend_tokenizer
        if change == "strip":
            fast.add_special_tokens([AddedToken("<mask>", lstrip=True)])
        elif change == "normalizer":
            fast.normalizer = normalizers.Strip()
        else:
            fast.pre_tokenizer = None
        assert lengths.most_characters(tokenizer, 10) is None, change


@pytest.mark.parametrize("at", ["prompt", "completion"])
def test_a_row_far_too_long_is_not_tokenized(tiny: Model, at: str) -> None:
    texts = {"prompt": "1?", "completion": "1, 2"} | {at: "1 " * 5_000_000}
    record = Record("a", **texts)
    start = time.perf_counter()
    with pytest.raises(DataError, match="characters, but .* takes at most"):
        rows_from(tiny, [record], None)
    with pytest.raises(DataError, match="row|characters"):
        row_check(tiny, None)(record)
    assert time.perf_counter() - start < 2


def test_a_row_that_fits_stays(tiny: Model, tmp_path: Path) -> None:
    spaces = Record("a", f"1?{' ' * 100_000}", "1, 2")
    try:
        rows_from(tiny, [spaces], None)
    except DataError as error:
        assert "tokens, but" in str(error)
