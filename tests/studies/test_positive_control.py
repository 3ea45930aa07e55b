"""Several teachers have their traits if each has, or if their mean has."""

from traitscope.stats.measurement import Measurement
from traitscope.studies.teachers.positive_control import have_traits


def rise(estimate: float, half: float = 0.1) -> Measurement:
    return Measurement(
        name=f"steered teacher {estimate:g} minus base",
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        n=50,
        n_clusters=1,
        n_unscored=0,
        unit="nats",
    )


def test_each_has_its_trait_though_their_mean_is_uncertain() -> None:
    """One rises by far more than the others, so the interval over teachers reaches zero."""
    found = have_traits([rise(0.3), rise(0.3), rise(0.3), rise(0.3), rise(6.0)])
    assert found.met and "Each of the 5 is shown to have its own" in found.found
    assert "[−" in found.found  # the interval of the mean


def test_the_mean_is_enough_where_one_is_not_shown_to_have_it() -> None:
    found = have_traits([rise(1.0), rise(1.1), rise(0.9), rise(1.0), rise(0.8, half=0.9)])
    assert found.met and "Not shown to have it: steered teacher 0.8" in found.found


def test_without_either_there_is_no_trait() -> None:
    found = have_traits([rise(3.0), rise(-2.0), rise(-0.8), rise(-1.0), rise(2.0)])
    assert not found.met and "and 1 more" in found.found
