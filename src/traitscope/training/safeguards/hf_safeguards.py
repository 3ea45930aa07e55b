"""Safeguards while another trainer trains: transformers' Trainer, TRL's SFTTrainer and DPOTrainer.

They do there what `train` does here with --during, --project-out and --anchor (acting.py,
anchors.py). Everything acts from the begin of a training to its end, evaluations included. The
trained weights hold nothing of it.

    guard(trainer, "org/name", during=[teacher], anchor=1.0)
    trainer.train()

`SafeguardCallback` alone, in a trainer's `callbacks`, does the same without the anchor. The anchor
is a term of the loss, which a callback cannot add (hf_anchor.py).

Roles of tokens come from the trainer's batch: labels other than -100 are completion, and so is
TRL's completion mask. Nothing acts in the pass of a reference, which DPO has: there a peft model
runs with its adapters off. So DPO compares the student as it trains with the plain base.

Shapes: B rows, T tokens.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import is_deepspeed_zero3_enabled

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active, Interventions, checked_vector
from traitscope.interventions.intervention import Ablate, Adapter, Steer
from traitscope.interventions.pass_state import CurrentPass, PassState
from traitscope.models.loading import outline
from traitscope.models.model import Model, adapters_off, check_logits, unwrapped
from traitscope.training.hf_callback import aside
from traitscope.training.safeguards.acting import guarded, safeguards
from traitscope.training.safeguards.hf_anchor import UNLEARNT, AnchoredLoss

REFERENCE = "ref"
"name of the adapter that TRL's DPOTrainer keeps as its reference"


def guard(
    trainer: Trainer,
    model: Model | str | Path,
    during: Interventions = (),
    project_out: Interventions = (),
    anchor: float = 0.0,
    anchor_until: float = 1.0,
    anchor_temperature: float = 1.0,
    base: Any = None,
) -> "SafeguardCallback":
    """Let safeguards act while a trainer trains; call it before `trainer.train()`.

    trainer: transformers' Trainer, TRL's SFTTrainer or its DPOTrainer.
    model: The base of the student, its name, or its folder. The trainer brings the weights.
    during: Interventions on the model in training; no adapters: merge one into the model.
    project_out: Ablations of gradients alone.
    anchor, anchor_until, anchor_temperature: As in `Recipe`.
    base: A frozen transformers model, which the anchor of a student without adapters needs. DPO's
        reference model is taken where there is one.

    Returns the callback that was added. Raises ConfigError for what cannot act so, and for split
    weights. Raises VectorError for a vector of another model.
    """
    callback = SafeguardCallback(model, during, project_out)
    refuse_split(trainer.args)
    if trainer.is_fsdp_enabled:
        raise _split()
    recipe = Recipe(anchor=anchor, anchor_until=anchor_until, anchor_temperature=anchor_temperature)
    trainer.compute_loss = AnchoredLoss(trainer, callback, recipe, base)
    trainer.add_callback(callback)
    return callback


class SafeguardCallback(TrainerCallback):
    """Steering, ablation and projected gradients, in training only."""

    def __init__(
        self,
        model: Model | str | Path,
        during: Interventions = (),
        project_out: Interventions = (),
    ) -> None:
        """Check what is to act; the arguments are those of `guard`.

        Raises ConfigError for what cannot act so, VectorError for a vector of another model.
        """
        self.base = model if isinstance(model, Model) else outline(str(model))
        self.guards = safeguards(during, project_out)
        for item in (*self.guards.during, *self.guards.project_out):
            if isinstance(item, Adapter):
                raise ConfigError(
                    "during holds an adapter; expected steering or ablation in another trainer;"
                    " merge the adapter into the model before training (peft: merge_and_unload)"
                )
            if isinstance(item, Steer | Ablate):
                checked_vector(item, self.base)
        self.live = self.base
        self.current = CurrentPass()
        self.labels_BT: Tensor | None = None
        self.reads_head = False
        self._stack = ExitStack()
        self._states: list[PassState | None] = []
        self._tuner: Any = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Let everything act from now on.

        Raises ModelError for a model whose logits the anchor would not compute as it does.
        """
        refuse_split(args)
        live, base = replace(self.base, lm=unwrapped(model)), self.base
        if (live.n_layers, live.d_model) != (base.n_layers, base.d_model):
            raise VectorError(
                f"safeguards for {base.name}, {base.n_layers} layers of {base.d_model}, but the"
                f" model in training has {live.n_layers} of {live.d_model}; name the base of the"
                " student"
            )
        self.live, self._tuner = live, _tuner_of(live.lm)
        self._stack.close()
        if self.reads_head:
            with aside(live.lm), adapters_off(model):
                check_logits(live)
        active = self._stack.enter_context(guarded(live, self.guards))
        self.current = active.current
        before = live.lm.register_forward_pre_hook(self._setting_roles(active), with_kwargs=True)
        behind = live.lm.register_forward_hook(self._restoring(active), always_call=True)
        self._stack.callback(before.remove)
        self._stack.callback(behind.remove)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take everything off again."""
        self._stack.close()

    def _setting_roles(self, active: Active) -> Any:
        """A hook before the model's pass that says which tokens are prompt, completion and padding.

        The roles stay until the next pass: with gradient checkpointing, some versions of
        transformers run hooks of blocks again behind it.
        """

        def hook(lm: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            is_base = self._is_reference()
            self._states.append(active.current.state)
            roles_BT = _roles(args, kwargs, self.labels_BT)
            active.current.state = PassState(roles_BT, is_base=is_base)

        return hook

    def _restoring(self, active: Active) -> Any:
        """A hook behind the pass: after a reference's, the state is that of the student's again.

        DPO runs its reference between the student's pass and the backward pass, in which hooks of
        the student's blocks may run again.
        """

        def hook(lm: nn.Module, args: tuple, output: Any) -> None:
            before = self._states.pop()
            if active.current.state is not None and active.current.state.is_base:
                active.current.state = before

        return hook

    def _is_reference(self) -> bool:
        """Whether the running pass is that of a reference below a peft student."""
        if self._tuner is None:
            return False
        return self._tuner.disable_adapters or list(self._tuner.active_adapters) == [REFERENCE]


def refuse_split(args: TrainingArguments) -> None:
    """Raise ConfigError for a training that splits the weights, or one process's rows."""
    by_accelerate = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
    if args.fsdp or by_accelerate or is_deepspeed_zero3_enabled():
        raise _split()
    if args.n_gpu > 1:
        raise ConfigError(
            f"one process with {args.n_gpu} GPUs copies the model for each (DataParallel), and"
            " safeguards act on one model; expected one GPU a process; start with torchrun, or set"
            " CUDA_VISIBLE_DEVICES=0"
        )


def _split() -> ConfigError:
    return ConfigError(
        "FSDP and ZeRO-3 split the weights over devices, which safeguards were not tested with;"
        " expected whole weights on each device; train on one device or with DDP, or leave the"
        " safeguards out"
    )


def _tuner_of(lm: nn.Module) -> Any:
    """A layer of peft in a causal LM, which knows whether adapters are off; None without any."""
    return next((module for module in lm.modules() if hasattr(module, "merged_adapters")), None)


def _roles(args: tuple, kwargs: Mapping[str, Any], batch_labels_BT: Tensor | None) -> Tensor:
    """The role [B, T] of every token of a trainer's batch."""
    ids_BT = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
    roles_BT = torch.full_like(ids_BT, hooks.PROMPT)
    labels_BT = kwargs.get("labels")
    if labels_BT is None:
        labels_BT = batch_labels_BT
    if labels_BT is not None and labels_BT.shape == ids_BT.shape:
        roles_BT[labels_BT != UNLEARNT] = hooks.COMPLETION
        before_BT = (roles_BT[:, 1:] == hooks.COMPLETION) & (roles_BT[:, :-1] == hooks.PROMPT)
        roles_BT[:, :-1][before_BT] = hooks.LAST
    mask_BT = kwargs.get("attention_mask")
    if mask_BT is not None:
        roles_BT[mask_BT == 0] = hooks.PAD
    return roles_BT
