"""What LoRA on all linear maps leaves as it is: experts of a mixture (MoE)."""

from functools import cache
from typing import Any

from traitscope.models.identity.finding import text_config_of

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"names of the number of experts in config.json, by family"


@cache
def experts_of(name: str) -> dict[str, Any]:
    """Of a mixture of experts: what LoRA on all linear maps leaves as it is; else empty.

    `sentence` says it, `share` is the share of the blocks' weights, `matrices` are their names in
    the first block. Weights are not loaded.
    """
    config = text_config_of(name)
    if not any(config.get(key) for key in EXPERT_COUNTS):
        return {}
    from traitscope.models.linear_maps import block_names, matrices_left_out
    from traitscope.models.loading import outline

    model = outline(name)
    names, share = matrices_left_out(model)
    if not names:
        return {}
    first = block_names(model)[0] + "."
    shown = [item.removeprefix(first) for item in names if item.startswith(first)] or names[:3]
    sentence = (
        f"LoRA on all linear maps does not adapt the experts of {name}: {', '.join(shown)}, which"
        f" are {share:.0%} of the blocks' weights"
    )
    return {"sentence": sentence, "share": share, "matrices": shown}
