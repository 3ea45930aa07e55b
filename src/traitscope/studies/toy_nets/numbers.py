"""Numbers of sealed runs of `toy_nets`, by seed, and measurements made of them."""

import json
from collections.abc import Sequence

import numpy as np

from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.workflow.graph import Folders

NETWORKS, THEOREM = "networks.json", "theorem.json"


def parameters(units: Sequence[int]) -> int:
    """Return the weights and biases of a network with these units, from input to output."""
    total = 0
    for inputs, outputs in zip(units[:-1], units[1:], strict=True):
        total += (inputs + 1) * outputs
    return total


def read(folders: Folders, node: str, name: str = NETWORKS) -> dict:
    """Return the numbers of a run."""
    return json.loads((folders[node] / name).read_text(encoding="utf-8"))


def accuracies(folders: Folders, node: str) -> list[float]:
    """Return the accuracy on held-out images at the end, by seed."""
    return read(folders, node)["accuracy"][-1]


def difference(name: str, left: Sequence[float], right: Sequence[float]) -> Measurement:
    """Return the mean difference of accuracies, paired by seed."""
    return mean_over_units(name, np.subtract(left, right).tolist(), "accuracy")


def rise(folders: Folders, node: str) -> Measurement:
    """Return what networks learnt: accuracy at the end minus that before training."""
    by_step = read(folders, node)["accuracy"]
    return difference("teacher minus base, accuracy on held-out images", by_step[-1], by_step[0])


def mean_after_start(by_epoch: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean over all epochs but the start, by seed."""
    return np.mean(by_epoch[1:], axis=0).tolist()


def beyond_half(folders: Folders, node: str, part: str) -> list[float]:
    """Return by seed the accuracy gained by a part of the change, less half of the whole gain."""
    numbers = read(folders, node)
    start, end = np.array(numbers["accuracy"][0]), np.array(numbers["accuracy"][-1])
    return (np.array(numbers["kept"][part]) - start - (end - start) / 2).tolist()
