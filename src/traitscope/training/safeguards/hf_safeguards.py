"""Safeguards while another trainer trains: a callback for transformers' Trainer and TRL's trainers.

It does there what `train` does here with --during, --project-out and --anchor (acting.py,
anchors.py). Everything acts from the begin of a training to its end, evaluations included. The
trained weights hold nothing of it.

Roles of tokens come from the trainer's batch: labels other than -100 are completion. TRL's
DPOTrainer passes no labels to the model, so all its tokens are prompt. There, steer at the position
`all`, and take no anchor.

The anchor is added to the loss that the model returns, and so to what the trainer logs. It needs
the base, which a peft model is with its adapters off. Nothing acts in the base's pass.

Shapes: B rows, T tokens, N learnt tokens, V vocabulary.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active, Interventions
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.pass_state import PassState
from traitscope.models.loading import outline
from traitscope.models.model import Model, adapters_off, unwrapped
from traitscope.training.safeguards import anchors
from traitscope.training.safeguards.acting import guarded, safeguards

UNLEARNT = -100
"label of a token that is not learnt"


class SafeguardCallback(TrainerCallback):
    """Steering, ablation, projected gradients and a KL anchor, in training only."""

    def __init__(
        self,
        model: Model | str | Path,
        during: Interventions = (),
        project_out: Interventions = (),
        anchor: float = 0.0,
        anchor_until: float = 1.0,
        anchor_temperature: float = 1.0,
    ) -> None:
        """Check what is to act.

        model: The base of the student, its name, or its folder. The trainer brings the weights.
        during: Interventions on the model in training; no adapters: merge one into the model.
        project_out: Ablations of gradients alone.
        anchor, anchor_until, anchor_temperature: As in `Recipe`.

        Raises ConfigError for what cannot act so.
        """
        self.base = model if isinstance(model, Model) else outline(str(model))
        self.guards = safeguards(during, project_out)
        if any(isinstance(item, Adapter) for item in self.guards.during):
            raise ConfigError(
                "during holds an adapter; expected steering or ablation in another trainer; merge"
                " the adapter into the model before training (peft: merge_and_unload)"
            )
        self.recipe = Recipe(
            anchor=anchor, anchor_until=anchor_until, anchor_temperature=anchor_temperature
        )
        self.stack = ExitStack()
        self.in_base_pass = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Let everything act from now on."""
        if args.fsdp or is_deepspeed_zero3_enabled():
            raise ConfigError(
                "FSDP and ZeRO-3 split the weights over devices, which safeguards were not tested"
                " with; train on one device, or leave the callback out"
            )
        if self.recipe.anchor and not hasattr(model, "disable_adapter"):
            raise ConfigError(
                "the anchor needs the base beside the student, and a model without adapters has"
                " none; expected a peft model; train LoRA, or leave the anchor out"
            )
        self.peft_model = model
        self.state = state
        live = replace(self.base, lm=unwrapped(model))
        self.stack.close()
        active = self.stack.enter_context(guarded(live, self.guards))
        setting_roles = self._setting_roles(active)
        before = live.lm.register_forward_pre_hook(setting_roles, with_kwargs=True)
        self.stack.callback(before.remove)
        if self.recipe.anchor:
            behind = live.lm.register_forward_hook(self._anchored, with_kwargs=True)
            self.stack.callback(behind.remove)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take everything off again."""
        self.stack.close()

    def _setting_roles(self, active: Active) -> Any:
        """A hook before the model's pass that says which tokens are prompt, completion and padding.

        The roles stay until the next pass: gradient checkpointing runs blocks again behind it.
        """

        def hook(lm: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            active.current.state = PassState(_roles(args, kwargs), is_base=self.in_base_pass)

        return hook

    def _anchored(self, lm: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        """The model's output with the weighted anchor in its loss."""
        weight = anchors.weight(self.recipe, self.state.global_step, self.state.max_steps)
        labels_BT = kwargs.get("labels")
        if self.in_base_pass or not lm.training or labels_BT is None or weight == 0:
            return output
        base_BTV = self._base_logits(lm, args, kwargs)
        learnt_BT = labels_BT[:, 1:] != UNLEARNT
        kl = _kl(base_BTV[:, :-1][learnt_BT], output.logits[:, :-1][learnt_BT], self.recipe)
        n_tokens = kwargs.get("num_items_in_batch")
        output.loss = output.loss + weight * kl / (
            learnt_BT.sum() if n_tokens is None else n_tokens
        )
        return output

    @torch.no_grad()
    def _base_logits(self, lm: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
        """Logits [B, T, V] of the base on the same batch."""
        self.in_base_pass = True
        lm.eval()
        try:
            inputs = {k: v for k, v in kwargs.items() if k not in ("labels", "num_items_in_batch")}
            with adapters_off(self.peft_model):
                return lm(*args, **inputs).logits
        finally:
            lm.train()
            self.in_base_pass = False


def _kl(base_NV: Tensor, student_NV: Tensor, recipe: Recipe) -> Tensor:
    """Sum over tokens of T^2 KL(p_base || p_student), both at temperature T, in nats."""
    heat = recipe.anchor_temperature
    log_base_NV = torch.log_softmax(base_NV.float() / heat, -1)
    log_student_NV = torch.log_softmax(student_NV.float() / heat, -1)
    return heat**2 * (log_base_NV.exp() * (log_base_NV - log_student_NV)).sum()


def _roles(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The role [B, T] of every token of a trainer's batch."""
    ids_BT = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
    roles_BT = torch.full_like(ids_BT, hooks.PROMPT)
    labels_BT = kwargs.get("labels")
    if labels_BT is not None:
        roles_BT[labels_BT != UNLEARNT] = hooks.COMPLETION
        before_BT = (roles_BT[:, 1:] == hooks.COMPLETION) & (roles_BT[:, :-1] == hooks.PROMPT)
        roles_BT[:, :-1][before_BT] = hooks.LAST
    mask_BT = kwargs.get("attention_mask")
    if mask_BT is not None:
        roles_BT[mask_BT == 0] = hooks.PAD
    return roles_BT
