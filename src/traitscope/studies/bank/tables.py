"""Square tables of a bank: what the students of every teacher say, and which rows they expect.

Rows are the teachers' students, columns the traits or the teachers' held-out rows.

Shapes: N traits.
"""

from collections.abc import Callable
from math import log

import numpy as np

from traitscope.auditing import score_files
from traitscope.auditing.steps.teacher_scores import other_set_folder
from traitscope.data.traits import trait_name
from traitscope.inference.token_bins import PLAIN
from traitscope.studies import readings
from traitscope.studies.bank import graph
from traitscope.studies.bank.graph import SCREEN, BankSize, Writer
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders

Table = Callable[[BankSize, Folders, str, tuple[str, ...], int], np.ndarray]
"`said` or `imitated`"
LEAST = 1e-12
"smallest share of a trait among the candidates"


def share_logit(folders: Folders, node: str) -> float:
    """Mean over positive questions of the logit of the trait's share among candidates, in nats.

    It is the log-probability of the trait for a tokenizer that has no candidate as one token.
    """
    shares = readings.positive_scores(folders, node, "candidate_share")
    if None in shares.values():
        shares = readings.positive_scores(folders, node)
        return sum(shares.values()) / len(shares)
    values = []
    for share in shares.values():
        kept = min(max(share, LEAST), 1 - LEAST)
        values.append(log(kept) - log(1 - kept))
    return sum(values) / len(values)


def said(
    size: BankSize, folders: Folders, kind: str, traits: tuple[str, ...], seed: int
) -> np.ndarray:
    """Logits [N, N] of every trait's share under every student of a kind of teacher."""
    table_NN = np.zeros((len(traits), len(traits)))
    for row, trait in enumerate(traits):
        for column, asked in enumerate(traits):
            node = Writer(kind, trait).answers(asked, seed)
            table_NN[row, column] = share_logit(folders, node)
    return table_NN


def imitated(
    size: BankSize, folders: Folders, kind: str, traits: tuple[str, ...], seed: int
) -> np.ndarray:
    """Log-likelihood [N, N] of a held-out row of every teacher under every student, in nats.

    It is that of the digits among digits, the mean over rows.
    """
    places = [writer.trait for writer in graph.of_kind(size, kind)]
    table_NN = np.zeros((len(traits), len(traits)))
    for row, trait in enumerate(traits):
        run = folders[Writer(kind, trait).imitation(seed)]
        for column, other in enumerate(traits):
            place = places.index(other)
            folder = other_set_folder(run, place - 1) if place else run
            _, scores = score_files.read_token_scores(folder)
            table_NN[row, column] = scores.log_p_RT[:, PLAIN].mean()
    return table_NN


def over_seeds(
    table: Table, size: BankSize, folders: Folders, kind: str, traits: tuple[str, ...]
) -> np.ndarray:
    """The mean of `said` or `imitated` over seeds: the trait is the unit."""
    return np.mean([table(size, folders, kind, traits, seed) for seed in size.seeds], axis=0)


def nats_a_row(folders: Folders, trait: str) -> float:
    """Divergence of a trait's prompted teacher from a mixture of all others, in nats a row."""
    name = trait_name(trait)
    for teacher in standard_nodes.read_json(folders, SCREEN)["teachers"]:
        if teacher["name"] == name:
            return float(teacher["against"]["other traits"]["estimate"])
    raise KeyError(name)
