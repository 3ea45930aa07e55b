"""A causal language model by name: how it is found, checked, loaded and taken apart.

Knowledge about transformers' models and their families belongs here. `model` knows the block list,
the backbone, the output head and the tokens that end a turn. `linear_maps` knows the maps of the
blocks and which of them read or write the residual stream. `attention` knows the attention
interface, `chat` and `token_regions` know chat templates. `checkpoints` knows which families can
hold a vector in their weights. Other packages ask these modules and look at no family themselves.
"""
