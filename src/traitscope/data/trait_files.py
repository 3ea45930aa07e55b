"""The trait files that a stage depends on, as inputs of its run.

A trait is named by a word or by a file. Its file is an input, so that an edited trait gets another
address.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from traitscope.data.traits import bundled_traits, load_trait, trait_path
from traitscope.errors import TraitError

ALL = "all"
"What stands for the bundled traits in the settings of `information`."


class HasTrait(Protocol):
    """Settings about one trait."""

    trait: str


class HasTraits(Protocol):
    """Settings about several traits."""

    traits: Sequence[str]


class HasCompany(HasTrait, Protocol):
    """Settings about one trait among others."""

    company: Sequence[str]


def of_trait_and_company(config: HasCompany) -> dict[str, Path]:
    """The file behind the trait as the input trait0, and those of its company after it."""
    return trait_files([config.trait, *config.company])


def of_trait(config: HasTrait) -> dict[str, Path]:
    """The file behind the trait of a config, as the input trait0."""
    return trait_files([config.trait])


def of_traits(config: HasTraits) -> dict[str, Path]:
    """The files behind the traits of a config, as the inputs trait0, trait1, ..."""
    return trait_files(config.traits)


def trait_names(names: Sequence[str]) -> list[str]:
    """The traits that a setting names, where `all` stands for the bundled ones."""
    listed: list[str] = []
    for name in names:
        listed += bundled_traits() if name == ALL else [name]
    return listed


def trait_files(names: Sequence[str]) -> dict[str, Path]:
    """The file behind every trait, as the inputs trait0, trait1, ...

    Raises TraitError for a broken trait file, and for two traits of the same name.
    """
    seen = set()
    files = {}
    for place, name in enumerate(names):
        trait = load_trait(name, words=False).name
        if trait in seen:
            raise TraitError(
                f"the trait {trait!r} is named twice; expected distinct names; drop one, or"
                " rename it"
            )
        seen.add(trait)
        files[f"trait{place}"] = trait_path(name)
    return files
