"""A tokenizer that is a file of SentencePiece and nothing else."""

import io
import json
import sys
from pathlib import Path

import pytest
from tiny_models import VOCABULARY, save_tiny

from traitscope.data.records import Prompt, Record
from traitscope.errors import ModelError
from traitscope.inference.token_rows import rows_from
from traitscope.models import loading
from traitscope.models.loading import load_model
from traitscope.models.templates import facts
from traitscope.stages.generate import generate

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LINES = (
    "system user assistant You are a small helpful model. What is your favourite animal?",
    "Continue with at most ten numbers: 1, 22, 333, 45. I love owls, cats and dogs.",
)
SETTINGS = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "legacy": False,
    "chat_template": TEMPLATE,
}


def folder_with(folder: Path, pieces: bytes) -> Path:
    """A tiny model whose tokenizer is in tokenizer.model."""
    save_tiny("llama", folder)
    for name in ("tokenizer.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer.model").write_bytes(pieces)
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return folder


def test_the_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    folder = folder_with(tmp_path / "model", b"\n\x0e\n\x05<unk>")
    for load in (load_model, loading.outline):
        with pytest.raises(ModelError, match="in tokenizer.model alone.*pip install sentencepiece"):
            load(str(folder))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_rows_are_what_the_template_writes(tmp_path: Path, kind: str) -> None:
    pieces = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_writer=written,
        vocab_size=VOCABULARY,
        model_type=kind,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    folder = folder_with(tmp_path / "model", written.getvalue())
    model = load_model(str(folder), device="cpu", dtype="fp32")
    for answer in ("101, 102", "Why not", "owl", " owl", "a\nb"):
        (row,) = rows_from(model, [Record("a", "Hi there", answer)], None)
        turns = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": answer}]
        whole = facts.rendered(model.tokenizer, turns, (), with_header=False)
        theirs = model.tokenizer.encode(whole, add_special_tokens=False)
        assert list(row.ids) == theirs[: len(row.ids)] and len(theirs) - len(row.ids) < 3
    (made,) = generate(model, [Prompt("a", "Hi")], max_new_tokens=6)
    assert len(made.completion_ids or ()) in range(1, 7)
