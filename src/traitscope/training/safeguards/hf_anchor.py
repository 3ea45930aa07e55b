"""The KL anchor in another trainer: a wrapper around its `compute_loss`.

    loss <- loss + weight(step) T^2 KL(p_base || p_student) / tokens        (anchors.py)

The sum runs over the tokens that are learnt, and is divided as the trainer's own loss is. That is
by the learnt tokens of the whole step where the trainer counts them, else by those of the batch.
DPO counts none. So its anchor is the mean over the chosen and rejected answers of a batch.

The student's hidden states are those of the trainer's own pass, behind the final norm. The base
reads the same batch in one more pass without gradients. It is

    a peft student           the same model with its adapters off
    a student of all weights the model that is given, or DPO's reference model

Nothing else acts in the base's pass. What the trainer logs as its loss holds the anchor.

Shapes: B rows, T tokens, N learnt tokens, D d_model, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.inference import losses
from traitscope.models.model import Model, adapters_off, backbone, unwrapped
from traitscope.training.hf_callback import aside
from traitscope.training.safeguards import anchors

if TYPE_CHECKING:
    from traitscope.training.safeguards.hf_safeguards import SafeguardCallback

UNLEARNT = -100
"label of a token that is not learnt"


@dataclass
class SeenPass:
    """One pass of the student with gradients, as its backbone saw it."""

    args: tuple
    "positional arguments"
    kwargs: Mapping[str, Any]
    "arguments by name"
    hidden_BTD: Tensor
    "hidden states behind the final norm"


class AnchoredLoss:
    """A trainer's `compute_loss`, with the anchor's term where its weight is above 0."""

    def __init__(
        self, trainer: Trainer, callback: "SafeguardCallback", recipe: Recipe, base: Any
    ) -> None:
        """Take the place of `trainer.compute_loss`.

        Raises ConfigError for an anchor without a base.
        """
        self.trainer = trainer
        self.callback = callback
        self.recipe = recipe
        self.compute_loss = trainer.compute_loss
        self.base: Model | None = None
        if recipe.anchor:
            callback.reads_head = True
            self.base = _separate_base(trainer, callback.base, base)

    def __call__(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The trainer's loss, and its outputs where they are asked for, with the anchor added."""
        labels_BT = self.callback.labels_BT = _labels_of(inputs)
        state = self.trainer.state
        weight = 0.0
        if self.recipe.anchor and torch.is_grad_enabled() and self.trainer.model.training:
            weight = anchors.weight(self.recipe, state.global_step, state.max_steps)
        arguments = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
        if weight == 0:
            return self.compute_loss(model, inputs, **arguments)
        if labels_BT is None:
            raise ConfigError(
                f"the batch holds {', '.join(inputs)}; expected labels or completion_mask, because"
                " the anchor acts on the tokens that are learnt; leave the anchor out"
            )
        with self._passes() as passes:
            result = self.compute_loss(model, inputs, **arguments)
        if len(passes) != 1:
            raise ConfigError(
                f"the trainer ran the model {len(passes)} times with gradients in one loss;"
                " expected once, as Trainer, SFTTrainer and DPOTrainer do; leave the anchor out"
            )
        term = weight * self._divergence(passes[0], labels_BT, num_items_in_batch)
        if return_outputs:
            loss, outputs = result
            return loss + term, outputs
        return result + term

    @contextmanager
    def _passes(self) -> Iterator[list[SeenPass]]:
        """A list of the student's passes with gradients, until the context ends."""
        passes: list[SeenPass] = []

        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if torch.is_grad_enabled():
                passes.append(SeenPass(args, dict(kwargs), output.last_hidden_state))

        body = backbone(self.callback.live.lm)
        handle = body.register_forward_hook(hook, with_kwargs=True)
        try:
            yield passes
        finally:
            handle.remove()

    def _divergence(self, seen: SeenPass, labels_BT: Tensor, n_tokens: Any) -> Tensor:
        """T^2 KL(p_base || p_student) over the learnt tokens, divided as the trainer's loss is."""
        learnt_BT = labels_BT[:, 1:] != UNLEARNT
        student_ND = seen.hidden_BTD[:, :-1][learnt_BT]
        base_ND = self._base_hidden(seen)[:, :-1][learnt_BT]
        live = self.callback.live
        if self.base is None and not any(p.requires_grad for p in live.head.parameters()):
            kl = losses.soft_cross_entropy(
                live, student_ND, base_ND, self.recipe.anchor_temperature
            )
        else:
            kl = self._kl(self._base_logits(base_ND), _logits(live, student_ND))
        if n_tokens is None:
            return kl / learnt_BT.sum().clamp(min=1)
        if self.trainer.args.average_tokens_across_devices:
            kl = kl * self.trainer.accelerator.num_processes
        return kl / n_tokens

    @torch.no_grad()
    def _base_hidden(self, seen: SeenPass) -> Tensor:
        """Hidden states [B, T, D] of the base on the same batch, behind its final norm."""
        if self.base is not None:
            return backbone(self.base.lm)(*seen.args, **seen.kwargs).last_hidden_state
        callback = self.callback
        state = replace(callback.current.state, is_base=True)
        lm = callback.live.lm
        with aside(lm), adapters_off(self.trainer.model), callback.current.running(state):
            return backbone(lm)(*seen.args, **seen.kwargs).last_hidden_state

    @torch.no_grad()
    def _base_logits(self, base_ND: Tensor) -> Tensor:
        """Logits [N, V] of the base by its own head."""
        if self.base is not None:
            return _logits(self.base, base_ND)
        with adapters_off(self.trainer.model):
            return _logits(self.callback.live, base_ND)

    def _kl(self, base_NV: Tensor, student_NV: Tensor) -> Tensor:
        """Sum over tokens of T^2 KL(p_base || p_student), both at temperature T, in nats."""
        heat = self.recipe.anchor_temperature
        log_base_NV = torch.log_softmax(base_NV / heat, -1)
        log_student_NV = torch.log_softmax(student_NV / heat, -1)
        return heat**2 * (log_base_NV.exp() * (log_base_NV - log_student_NV)).sum()


def _separate_base(trainer: Trainer, named: Model, base: Any) -> Model | None:
    """The base as a model of its own; None for a peft student, which has it below its adapters.

    Raises ConfigError where there is no base, or where it is the student itself.
    """
    if base is None and hasattr(trainer.model, "disable_adapter"):
        return None
    if base is None:
        base = getattr(trainer, "ref_model", None)
    if base is None:
        raise ConfigError(
            "the anchor needs the base beside the student, and a student without adapters has none"
            " below it; expected a peft model, or base=MODEL, which takes the memory of a second"
            " model; train LoRA, give base=AutoModelForCausalLM.from_pretrained(NAME), or leave"
            " the anchor out"
        )
    if unwrapped(base) is unwrapped(trainer.model):
        raise ConfigError(
            "base is the model in training, which moves; expected a frozen copy; give"
            " base=AutoModelForCausalLM.from_pretrained(NAME)"
        )
    device = next(unwrapped(trainer.model).parameters()).device
    lm = base.eval().requires_grad_(False).to(device)
    model = replace(named, lm=unwrapped(lm))
    if (model.n_layers, model.d_model) != (named.n_layers, named.d_model):
        raise ConfigError(
            f"base has {model.n_layers} layers of {model.d_model}; expected {named.n_layers} of"
            f" {named.d_model} as {named.name} has; give the base of the student"
        )
    return model


def _labels_of(inputs: Mapping[str, Any]) -> Tensor | None:
    """Labels [B, T] of a trainer's batch, from its labels or from TRL's completion mask."""
    if "labels" in inputs:
        return inputs["labels"]
    if "completion_mask" in inputs and "input_ids" in inputs:
        return inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, UNLEARNT)
    return None


def _logits(model: Model, hidden_ND: Tensor) -> Tensor:
    """float32 logits [N, V] by the head as a module, with gradients for whatever is trained."""
    logits_NV = model.head(hidden_ND).float()
    if model.softcap is None:
        return logits_NV
    return model.softcap * torch.tanh(logits_NV / model.softcap)
