"""The type of a loaded causal language model, and the few places where it is taken apart.

Any decoder-only causal LM with the usual list of residual blocks works. There is no class for each
family: the properties of `Model` read what transformers' classes have in common.

Shapes: N tokens, D d_model, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from traitscope.errors import ConfigError, ModelError
from traitscope.models.templates.facts import Switches, end_id

GAP = 32
"masked tokens inside a row that must not change the rest of it"
FIRST = 3
"tokens of a row that are computed alone, to try what the rest changes"
BY_LENGTH = ("longrope", "dynamic")
"rope types whose angles depend on the longest row of a batch"
ControlTokens = Literal["text", "token", "leave-out"]
ALIKE = 0.02
"largest difference of two computations of logits, as a share of the largest logit"


@dataclass(frozen=True)
class Model:
    """A loaded language model and what is needed to talk about it."""

    lm: Any
    "transformers causal LM in evaluation mode, with frozen parameters"
    tokenizer: Any
    "transformers tokenizer"
    digest: str
    """first 16 hex digits of the sha256 over what decides the model's function; the same on every
    device and in every dtype"""
    name: str
    "the name that the user gave"
    switches: Switches = field(default=(), hash=False)  # a value may be a list
    "variables of its chat template, beside the turns"
    control_tokens: ControlTokens = "text"
    """how control tokens in prompts and answers are read: text, or token; leave-out reads as text
    what is read all the same"""
    known_as: tuple[str, ...] = ()
    """further digests of the model: of earlier versions, and its own where the user says that it is
    a copy"""

    def is_called(self, digest: str | None) -> bool:
        """Whether a digest is one of this model."""
        return digest == self.digest or digest in self.known_as

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks, in order; layer l of this package is the output of `blocks[l]`."""
        return residual_blocks(self.lm)

    @property
    def n_layers(self) -> int:
        """Number of residual blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._embedding.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the embedding."""
        return self._embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the embedding, in which the residual stream is computed."""
        return self._embedding.dtype

    @property
    def _embedding(self) -> torch.Tensor:
        return self.lm.get_input_embeddings().weight

    @property
    def _text_config(self) -> Any:
        """The part of the configuration that is about text; models of several media nest it."""
        config = self.lm.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the weights of the blocks (training.fsdp)."""
        return any(type(p).__name__ == "DTensor" for p in self.blocks[0].parameters())

    @property
    def head(self) -> nn.Module:
        """Maps final hidden states [N, D] to logits [N, V]."""
        return self.lm.get_output_embeddings()

    @property
    def softcap(self) -> float | None:
        """Soft cap c of the logits, which become c tanh(logits / c); None in most families."""
        return getattr(self._text_config, "final_logit_softcapping", None)

    @property
    def window(self) -> int | None:
        """Number of tokens that sliding attention looks back at; None in most families."""
        return getattr(self._text_config, "sliding_window", None) or None

    @property
    def max_length(self) -> int:
        """Longest sequence, in tokens.

        With rope type longrope, one row beyond the length of the first training changes the angles
        of its whole batch. Such models are taken up to that length.
        """
        config = self._text_config
        positions = getattr(config, "max_position_embeddings", None)
        if not positions:  # GPT-2 has another name for it
            positions = getattr(config, "n_positions", 2048)
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") in BY_LENGTH:
            first = rope.get("original_max_position_embeddings")
            first = first or getattr(config, "original_max_position_embeddings", None)
            positions = min(positions, first or positions)
        return int(positions)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer: by generation config, tokenizer and chat template."""
        configured = getattr(self.lm.generation_config, "eos_token_id", None)
        ids = set(configured) if isinstance(configured, list) else {configured}
        ids.add(self.tokenizer.eos_token_id)
        ids.add(end_id(self.tokenizer, self.switches))
        return tuple(sorted(int(i) for i in ids if i is not None))

    @property
    def n_embedded(self) -> int:
        """Tokens that the model has an embedding for; the tokenizer may know more."""
        return len(self.lm.get_input_embeddings().weight)

    @property
    def pad_id(self) -> int:
        """A token id for masked places, which are never attended to."""
        pad = self.tokenizer.pad_token_id
        if pad is not None:
            return int(pad)
        return self.end_ids[0] if self.end_ids else 0


def check_model(model: object) -> None:
    """Raise ConfigError for what is no loaded model, such as a name."""
    if not isinstance(model, Model):
        raise ConfigError(
            f"the model is {model!r:.60}; expected a loaded one; write traitscope.load_model(NAME)"
        )


def residual_blocks(lm: Any) -> nn.ModuleList:
    """The residual blocks of a causal LM.

    They are the longest ModuleList of one class that lies in no other such list. Raises ModelError
    for a model without any.
    """
    uniform_lists: dict[str, nn.ModuleList] = {}
    for name, module in text_model(lm).named_modules():
        if isinstance(module, nn.ModuleList) and len(set(map(type, module))) == 1:
            uniform_lists[name] = module
    outermost = []
    for name, module in uniform_lists.items():
        if not any(name.startswith(f"{other}.") for other in uniform_lists):
            outermost.append(module)
    if not outermost:
        raise ModelError(
            f"{type(lm).__name__} has no list of residual blocks; a decoder-only causal LM was"
            " expected"
        )
    return max(outermost, key=len)


def backbone(lm: Any) -> nn.Module:
    """The model below the output head; returns the hidden states after the final norm."""
    return lm.base_model


def text_model(lm: Any) -> nn.Module:
    """The part of a causal LM that reads text; models of several media have others beside it."""
    decoder = lm.get_decoder() if hasattr(lm, "get_decoder") else None
    return backbone(lm) if decoder is None else decoder


def check_logits(model: Model) -> None:
    """Raise ModelError where head and soft cap do not give transformers' logits, or they are NaN.

    Tried on a few tokens. Some families scale logits, or wrap the head in other ways. The attention
    of this package is compared with transformers' own.
    """
    ids_1T = torch.arange(1, 6, device=model.device).unsqueeze(0)
    with torch.no_grad():
        with _own_attention(model.lm):
            expected_TV = model.lm(input_ids=ids_1T).logits[0].float()
        hidden_TD = backbone(model.lm)(input_ids=ids_1T).last_hidden_state[0]
        logits_TV = model.head(hidden_TD).float()
        if model.softcap is not None:
            logits_TV = model.softcap * torch.tanh(logits_TV / model.softcap)
    if not expected_TV.isfinite().all():
        kind = str(model.dtype).removeprefix("torch.")
        raise ModelError(
            f"{model.name}: logits in {kind} are NaN or infinite, though all weights are finite;"
            " expected numbers; use --dtype fp32, or another checkpoint"
        )
    difference = (logits_TV - expected_TV).abs().max()
    if not difference <= ALIKE * expected_TV.abs().max():
        raise ModelError(
            f"{model.name}: logits by head and soft cap differ from the model's own by"
            f" {difference:.3g}; expected the same, because every likelihood is computed so; use a"
            " family without another scale of logits; TRAITSCOPE_CHECK_LOGITS=off leaves the check"
            " out, at your risk"
        )
    _check_gap(model, expected_TV)
    _check_continued(model, expected_TV)


@contextmanager
def _own_attention(lm: Any) -> Iterator[None]:
    """Let a model attend as transformers writes it down, until the context ends."""
    from traitscope.models import attention

    is_ours = getattr(lm.config, "_attn_implementation", None) == attention.NAME
    if not (is_ours and hasattr(lm, "set_attn_implementation")):
        yield
        return
    lm.set_attn_implementation("eager")
    try:
        yield
    finally:
        lm.set_attn_implementation(attention.NAME)


def _check_gap(model: Model, expected_TV: torch.Tensor) -> None:
    """Raise ModelError where a masked token inside a row changes what is computed behind it.

    Batches have such tokens between what their rows share and the rest of each. Some families count
    them as distance. So does a window, which is why none is reached (forward.prefill).
    """
    gap = GAP if model.window is None else min(GAP, model.window - len(expected_TV))
    if gap < 1:
        return
    ids_1T = torch.tensor([[1, 2, *[1] * gap, 3, 4, 5]], device=model.device)
    mask_1T = torch.tensor([[1, 1, *[0] * gap, 1, 1, 1]], device=model.device)
    positions_1T = (mask_1T.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits_TV = model.lm(
            input_ids=ids_1T, attention_mask=mask_1T, position_ids=positions_1T
        ).logits[0]
    found_TV = logits_TV[mask_1T[0].bool()].float()
    difference = (found_TV - expected_TV).abs().max()
    if not difference <= ALIKE * expected_TV.abs().max():
        raise ModelError(
            f"{model.name}: logits behind masked tokens differ by {difference:.3g} from those of"
            " the same row without them, so rows of one batch would change each other; expected the"
            " same; use another family"
        )


def _check_continued(model: Model, expected_TV: torch.Tensor) -> None:
    """Raise ModelError where a row's beginning, computed alone, has other logits than in the row.

    Also where the rest, continued from the keys and values of the beginning, has others. Some
    families read ahead, so an answer's likelihood would know the answer. Others keep no keys.
    """
    from transformers import DynamicCache

    ids_1T = torch.arange(1, 1 + len(expected_TV), device=model.device).unsqueeze(0)
    places_1T = ids_1T - 1
    cache, logits = DynamicCache(config=model.lm.config), []
    with torch.no_grad(), _own_attention(model.lm):
        for part in (slice(0, FIRST), slice(FIRST, None)):
            out = model.lm(
                input_ids=ids_1T[:, part],
                position_ids=places_1T[:, part],
                past_key_values=cache,
                use_cache=True,
            )
            logits.append(out.logits[0].float())
    said = (
        f"the first {FIRST} tokens of a row have other logits without the rest, so an answer's"
        " likelihood would depend on what follows",
        "the rest of a row has other logits when it continues from kept keys and values, so it"
        " cannot be sampled",
    )
    expected = "expected a model that reads from left to right and keeps keys and values"
    for found_TV, part_TV, what in zip(logits, expected_TV.split(FIRST), said, strict=True):
        apart = (found_TV - part_TV).abs().max()
        if not apart <= ALIKE * expected_TV.abs().max():
            raise ModelError(
                f"{model.name}: {what} (difference {apart:.3g}); {expected}; use another family"
            )
    if cache.get_seq_length() != len(expected_TV):
        raise ModelError(
            f"{model.name}: it keeps no keys and values, so it cannot be sampled; {expected}; use"
            " another family"
        )


def unwrapped(lm: Any) -> Any:
    """The causal LM inside peft's wrapper, with its adapters; another model is returned as it is.

    Raises ModelError where peft learns a prompt, which is no part of the causal LM.
    """
    if not hasattr(lm, "get_base_model"):
        return lm
    if lm.active_peft_config.is_prompt_learning:
        kind = lm.active_peft_config.peft_type.value
        raise ModelError(
            f"peft's {kind} learns a prompt, which these residuals do not show; use LoRA or the"
            " like"
        )
    return lm.get_base_model()


@contextmanager
def adapters_off(lm: Any) -> Iterator[bool]:
    """Switch off the adapters of a peft model until the context ends; yields whether it is one.

    peft marks every adapter weight as trained when it switches them on again. Here each weight gets
    back the mark that it had.
    """
    if not hasattr(lm, "disable_adapter"):
        yield False
        return
    trained_before = [(parameter, parameter.requires_grad) for parameter in lm.parameters()]
    try:
        with lm.disable_adapter():
            yield True
    finally:
        for parameter, trained in trained_before:
            parameter.requires_grad_(trained)
