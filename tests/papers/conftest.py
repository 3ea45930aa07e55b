"""Runs of tiny models that all tests of reports share."""

from pathlib import Path

import pytest
from paper_runs import named_runs


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """The root of runs by name; see named_runs."""
    return named_runs(tmp_path_factory.mktemp("papers"), folders)
