"""A tokenizer that puts a space before every text, as that of Llama 2."""

from typing import Any

from tiny_models import VOCABULARY

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def llama2_tokenizer() -> Any:
    """Byte-pair pieces with a mark for spaces, and with some whole words."""
    from transformers import LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += list("▁0123456789,\n.?:|<>") + list(LETTERS)
    merges = []
    for word in ("owl", "cat", "The", "Seven"):
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
        merges.append(("▁", word))
    pieces += dict.fromkeys("".join(pair) for pair in merges)
    assert len(pieces) <= VOCABULARY
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, pad_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer
