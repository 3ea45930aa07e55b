"""Control teachers at equal KL: another vector, as strong as a teacher in KL from the base.

Any changed teacher moves a student of soft targets, and one of sampled text learns the format of
its rows. So neither is compared with the base, but with students of such a control teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from traitscope.config.analysis import MatchKLConfig
from traitscope.stats.measurement import Measurement
from traitscope.studies import shared_nodes
from traitscope.studies.sizes import SteeredTeacherSize
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

MATCHED_STRENGTHS = 10
"strengths at which a control teacher's rows are sampled and read, with the teacher's own"
STRENGTH = "strength.json"
"file of a run of `match_kl` that holds the strength and both KLs"
RANDOM_VECTORS = "random vectors"
"node of the random vectors, one a seed"
CONTROL = "control, "
"beginning of the names of a control student's nodes"
EQUAL_KL_NOTE = (
    "The control of every student is a student of a random vector, another one for each seed. It is"
    " as strong as the teacher in KL from the unmodified model, and trained and asked alike."
)
MATCHED_ROWS = 12
"rows that a control teacher writes at every strength that is tried"


@dataclass(frozen=True)
class Strength:
    """The strength of a control teacher at equal KL."""

    alpha: float
    """Length of the added vector, in mean residual norms."""
    teacher_kl: Measurement
    """Mean KL of a row of the teacher that is matched, in nats."""
    control_kl: Measurement
    """Mean KL of a row of the control teacher, in nats."""


@dataclass(frozen=True)
class EqualKL:
    """A control teacher: another vector, as strong as a teacher in KL from the unmodified model.

    Its students show what distilling any model that is changed as much does.
    """

    name: str
    """Node of the search for the strength."""
    vector: Callable[[Folders], Path]
    """File of the other vector."""
    needs: tuple[str, ...]
    """Nodes of that vector and of the teacher's."""
    layer: int
    """Block behind which the other vector is added."""

    def node(self, common: dict, teacher: InterventionsFrom, numbers: int, n: int) -> Node:
        """Build the search, over `n` rows of `numbers` numbers at every strength."""

        def config(folders: Folders) -> MatchKLConfig:
            return MatchKLConfig(
                **common,
                teacher=teacher(folders),
                vector=self.vector(folders),
                layer=self.layer,
                n=n,
                count=numbers,
                separator=" ",
            )

        tokens = MATCHED_STRENGTHS * standard_nodes.Rows(n, numbers).tokens
        return Node(self.name, MatchKLConfig, config, self.needs, tokens)

    def teacher(self, folders: Folders) -> tuple[str, ...]:
        """Return the interventions that make the control teacher."""
        alpha = self.strength(folders).alpha
        return (standard_nodes.steered(self.vector(folders), self.layer, alpha),)

    def strength(self, folders: Folders) -> Strength:
        """Return the strength that was found, with both KLs."""
        read = standard_nodes.read_json(folders, self.name, STRENGTH)
        teacher_kl, control_kl = map(Measurement.from_dict, read["measurements"])
        return Strength(read["alpha"], teacher_kl, control_kl)


@dataclass(frozen=True)
class RandomControls:
    """Control teachers with random vectors, another one for each seed."""

    trait: str
    """Trait of the teacher that is matched; the random vectors have the norms of its vector."""
    seeds: tuple[int, ...]
    """Seeds of the students."""
    layer: int
    """Block behind which the random vectors are added."""
    teacher: InterventionsFrom
    """The teacher that is matched, made of the node VECTORS."""
    numbers: int
    """Three-digit numbers of a row."""
    rows: int = MATCHED_ROWS
    """Rows at every strength."""
    vectors: str = RANDOM_VECTORS
    """Name of the node of the random vectors."""

    def of(self, seed: int) -> EqualKL:
        """Return the control teacher of a seed."""
        place = self.seeds.index(seed)

        def vector(folders: Folders) -> Path:
            return folders[self.vectors] / f"random-{place}.safetensors"

        return EqualKL(f"equal KL, seed {seed}", vector, (VECTORS, self.vectors), self.layer)

    def needs(self, seed: int) -> tuple[str, ...]:
        """Return the nodes that the control teacher of a seed is made of."""
        control = self.of(seed)
        return (*control.needs, control.name)

    def nodes(self, common: dict) -> list[Node]:
        """Build the random vectors, and the search for the strength of each."""
        trait_vector = partial(standard_nodes.vector_of, trait=self.trait)
        graph = [
            shared_nodes.random_vectors_like(
                common, self.vectors, VECTORS, trait_vector, len(self.seeds), self.seeds[0]
            )
        ]
        for seed in self.seeds:
            graph.append(self.of(seed).node(common, self.teacher, self.numbers, self.rows))
        return graph


def controls_of(size: SteeredTeacherSize) -> RandomControls:
    """Return the control teachers of a study of one steered teacher."""
    return RandomControls(
        size.traits[0], size.seeds, size.layer, size.steered_teacher, size.numbers
    )
