"""Whether a turn of activations is specific to the teacher's vector: other vectors, random ones.

Vectors of one model share directions, so students who turn towards one vector turn towards others.
Random directions share nothing; they say how large a cosine is by chance alone.

Shapes: S seeds, L layers, D d_model, N random vectors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from traitscope.comparison.read_runs import ReadModel
from traitscope.comparison.results import AlongRandoms, AlongVector
from traitscope.interventions.checks.vectors import check_direction
from traitscope.interventions.short_form import vector_file
from traitscope.interventions.vector import Vector, load_vector
from traitscope.runs import store
from traitscope.stats.estimates import measure

RANDOMS = 1000
"random vectors of the null"
LEVEL = 0.95
"share of the random vectors inside the range"


def teacher_vectors(vector: Vector | str | Path, trait: str) -> dict[str, Vector]:
    """Return vectors by name, the teacher's first.

    A file in a run of `extract` comes with the other vectors of that run. A vector in memory that
    says no trait has the name of `trait`.
    """
    if isinstance(vector, Vector):
        check_direction(vector)
        return {str(vector.about.get("trait", trait)): vector}
    file = vector_file(Path(vector))
    vectors = {file.stem: load_vector(file)}
    check_direction(vectors[file.stem], str(file))
    if store.run_folder(file) == file.parent:
        for other in sorted(file.parent.glob("*.safetensors")):
            vectors.setdefault(other.stem, load_vector(other))
    return vectors


def changes_of(treated: Sequence[ReadModel], control: Sequence[ReadModel]) -> dict[int, Vector]:
    """Return v_treated − v_control by the seed of both students."""
    control_by_seed = {read.model.seed: read.v_student for read in control}
    changes = {}
    for read in treated:
        seed, other = read.model.seed, control_by_seed.get(read.model.seed)
        if seed is not None and read.v_student is not None and other is not None:
            changes[seed] = read.v_student - other
    return changes


def along_vectors(
    changes: Mapping[int, Vector], vectors: Mapping[str, Vector], layer: int
) -> tuple[AlongVector, ...]:
    """Return the changes along every vector at a layer; the first vector is the teacher's."""
    teacher = next(iter(vectors.values()))
    along = []
    for name, vector in vectors.items():
        values = [float(change.cosine(vector)[layer]) for change in changes.values()]
        number = measure(f"change along {name}", values, list(changes), unit="cosine")
        along.append(AlongVector(name, float(teacher.cosine(vector)[layer]), number))
    return tuple(along)


def along_randoms(changes: Mapping[int, Vector], layer: int) -> AlongRandoms:
    """Return the range of the mean cosine over seeds with random vectors; the same every time."""
    rows_SD = np.array([change.unit().rows_LD[layer] for change in changes.values()], np.float64)
    random_ND = np.random.default_rng(0).standard_normal((RANDOMS, rows_SD.shape[1]))
    random_ND /= np.linalg.norm(random_ND, axis=1, keepdims=True)
    cosine_N = (random_ND @ rows_SD.T).mean(1)
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(cosine_N, (outside, 1 - outside))
    return AlongRandoms(RANDOMS, float(low), float(high))
