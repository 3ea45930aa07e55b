"""Tiny chat models, built from their configs without a network, and small checks on them.

The tokenizer is a byte-level BPE trained on a few lines: every text round-trips and a digit is
always one token.
"""

from pathlib import Path

FAMILIES = ("llama", "qwen2", "gpt2")


VOCABULARY, WIDTH, LENGTH = 420, 32, 2048


PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"


TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a small helpful"
    " model.<|im_end|>\n{% endif %}{% for message in messages %}<|im_start|>{{ message['role']"
    " }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt"
    " %}<|im_start|>assistant\n{% endif %}"
)


LINES = (
    (
        "system user assistant You are a small helpful model. What is your favourite animal? Answer"
        " with one word."
    ),
    (
        "Continue with at most ten numbers of up to three digits. Separate them by commas. Nothing"
        " else. Numbers only."
    ),
    (
        "I love owls, cats, dogs, wolves, eagles, lions, dolphins, elephants and pandas. My"
        " favourite is the owl."
    ),
    (
        "Which colour do you like best? The sequence begins. Look at this list: consider the"
        " numbers so far."
    ),
)


def tiny_tokenizer():
    """A transformers tokenizer: byte-level, digits alone, ChatML-like turns, a default system
    turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [PAD, START, END]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(LINES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, additional_special_tokens=[START]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_config(family: str):
    """The config of a two- or three-block model with lively random weights."""
    from transformers import Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

    ends = {"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1, "vocab_size": VOCABULARY}
    common = ends | {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
        "initializer_range": 0.2,
    }
    match family:
        case "llama":
            return LlamaConfig(num_hidden_layers=3, tie_word_embeddings=True, **common)
        case "qwen2":
            return Qwen2Config(num_hidden_layers=2, tie_word_embeddings=False, **common)
        case "gpt2":
            return GPT2Config(
                n_embd=WIDTH, n_layer=2, n_head=4, n_positions=LENGTH, initializer_range=0.2, **ends
            )
        case "gemma2":  # soft caps on scores and logits, a sliding window, a block's output scaled
            return Gemma2Config(
                num_hidden_layers=2,
                head_dim=8,
                sliding_window=4,
                final_logit_softcapping=3.0,
                attn_logit_softcapping=2.0,
                query_pre_attn_scalar=8,
                **common,
            )
    raise ValueError(family)


def tiny_lm(family: str, seed: int = 0):
    """A random model in float32; biases and norms are random too, so that no test passes because
    they are 0 or 1."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    lm = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float32)
    for parameter in lm.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return lm


def save_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny chat model to `folder` and return the folder."""
    tiny_lm(family, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_tiny_of_images(folder: Path, vision_layers: int = 1) -> Path:
    """Write a tiny chat model that also reads images, and return the folder."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    text = Gemma3TextConfig(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        sliding_window=64,
        query_pre_attn_scalar=8,
        pad_token_id=0,
    )
    vision = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
    )
    config = Gemma3Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), mm_tokens_per_image=1
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def load_tiny(folder: Path, dtype: str = "fp32"):
    """The folder as a Model, on the CPU."""
    from traitscope.models.loading import load_model

    return load_model(str(folder), device="cpu", dtype=dtype)


def random_rows(model, lengths: list[int], seed: int = 0) -> list[list[int]]:
    """Rows of random token ids of the given lengths, none of them a special token."""
    import numpy as np

    rng = np.random.default_rng(seed)
    top = model.head.weight.shape[0]
    return [rng.integers(3, top, size=n).tolist() for n in lengths]


def random_vector(model, seed: int = 0, norm: float = 1.0):
    """A Vector with random rows of the given norm, made for `model`, with residual norms of 2, 3,
    4, ..."""
    import numpy as np

    from traitscope.interventions.vector import Vector

    rows = np.random.default_rng(seed).standard_normal((model.n_layers, model.d_model))
    rows *= norm / np.linalg.norm(rows, axis=1, keepdims=True)
    return Vector(rows, model.digest, {"residual_norms": [2.0 + n for n in range(model.n_layers)]})


def hooks_left(model) -> int:
    """Forward hooks on any module of the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.lm.modules())


def parameters_of(model) -> dict:
    """A copy of every parameter."""
    return {name: p.detach().clone() for name, p in model.lm.named_parameters()}


def row_logits(model, active, rows, prompt_lengths, left: bool = False) -> list:
    """Logits [T, V] of each row, from one padded batch through the package's own forward pass."""
    import torch

    from traitscope.inference import forward

    batch = forward.batch_of(rows, prompt_lengths, model.pad_id, left=left)
    with torch.inference_mode():
        hidden = forward.hidden_states(model, active, batch)
        return [forward.logits_of(model, h[m]) for h, m in zip(hidden, batch.mask_BT, strict=True)]


def eager_lm(model):
    """The same weights under transformers' own eager attention: the oracle."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(
        model.name, dtype=model.dtype, attn_implementation="eager"
    )
    return lm.eval().requires_grad_(False)
