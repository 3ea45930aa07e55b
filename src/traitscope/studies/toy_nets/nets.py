"""Networks with two hidden layers, many at once, and the random numbers behind them.

The architecture is that of Cloud et al. 2025, arXiv 2507.14805: ReLU, weights from N(0, 1/sqrt(n))
with n inputs of the layer, biases 0. The last outputs are the auxiliary logits.

Shapes: M models, B images, D pixels, I inputs and O outputs of a layer.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

CLASSES = 10
"logits of the classes, which stand before the auxiliary ones"
Params = list[Tensor]
"""Weights [M, I, O] and biases [M, 1, O] of the three maps, by turns."""


def stream(seed: int, *names: object) -> torch.Generator:
    """Return a generator that only the seed and the names decide."""
    key = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))


def initial(
    seeds: Sequence[int], name: str, sizes: Sequence[int], dtype: torch.dtype = torch.float32
) -> Params:
    """Return untrained networks, one a seed; `name` tells several of one seed apart.

    sizes: Units of the input, of the hidden layers and of the output.
    """
    params: Params = []
    for place, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        weights = []
        for seed in seeds:
            drawn = torch.randn(inputs, outputs, generator=stream(seed, name, place))
            weights.append(drawn / inputs**0.5)
        params.append(torch.stack(weights).to(dtype))
        params.append(torch.zeros(len(seeds), 1, outputs, dtype=dtype))
    return params


def forward(params: Params, images_MBD: Tensor) -> Tensor:
    """Return the logits [M, B, O] of every network on images of its own."""
    weight_1, bias_1, weight_2, bias_2, weight_3, bias_3 = params
    hidden = torch.relu(torch.baddbmm(bias_1, images_MBD, weight_1))
    hidden = torch.relu(torch.baddbmm(bias_2, hidden, weight_2))
    return torch.baddbmm(bias_3, hidden, weight_3)


def permuted(params: Params, seeds: Sequence[int]) -> Params:
    """Return networks with hidden units in another order; they compute what they did."""
    weight_1, bias_1, weight_2, bias_2, weight_3, bias_3 = (p.clone() for p in params)
    for model, seed in enumerate(seeds):
        first = torch.randperm(weight_1.shape[2], generator=stream(seed, "order", 1))
        second = torch.randperm(weight_2.shape[2], generator=stream(seed, "order", 2))
        weight_1[model] = weight_1[model][:, first]
        bias_1[model] = bias_1[model][:, first]
        weight_2[model] = weight_2[model][first][:, second]
        bias_2[model] = bias_2[model][:, second]
        weight_3[model] = weight_3[model][second]
    return [weight_1, bias_1, weight_2, bias_2, weight_3, bias_3]


def noise(seeds: Sequence[int], batch: int, images: int, pixels: int) -> Tensor:
    """Return one batch [M, B, D] of noise images, uniform in [-1, 1]; each seed has its own."""
    drawn = []
    for seed in seeds:
        drawn.append(torch.rand(images, pixels, generator=stream(seed, "noise", batch)))
    return torch.stack(drawn) * 2 - 1


def accuracy(params: Params, images_ND: Tensor, labels_N: Tensor) -> Tensor:
    """Return the share [M] of images whose class has the largest of the ten logits."""
    with torch.no_grad():
        logits = forward(params, images_ND.expand(len(params[0]), -1, -1))
    right_MN = logits[..., :CLASSES].argmax(-1) == labels_N
    return right_MN.double().mean(1)


def flat(params: Params) -> Tensor:
    """Return all parameters [M, P] of every network in one row."""
    return torch.cat([p.flatten(1) for p in params], 1)


def minus(params: Params, other: Params) -> Params:
    """Return the change from other parameters to these."""
    return [p - q for p, q in zip(params, other, strict=True)]


def plus(params: Params, change: Params) -> Params:
    """Return parameters with a change added."""
    return [p + q for p, q in zip(params, change, strict=True)]


def cosine(left: Params, right: Params) -> Tensor:
    """Return the cosine [M] of two changes over all parameters; 0 where one is zero."""
    return torch.cosine_similarity(flat(left).double(), flat(right).double())
