"""Fixtures: tiny chat models of three architectures, loaded as a user would.

tiny_folder   folder of a random Llama with grouped keys, with tokenizer and chat template
tiny          that folder as a Model
family        a Model of each architecture in turn: llama, qwen2, gpt2
families      all Models by name, gemma2 besides
serve         a judge endpoint on this machine (support/endpoint_server.py)
small_disk    mounts a disk of a few kilobytes (support/small_disk.py)
"""

import os
from pathlib import Path

import pytest

# Before torch is imported: sums on two threads come out differently.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A guard against a loss of power, which no test brings about; a sixth of a small study's time.
os.fsync = lambda handle: None

pytest_plugins = ["endpoint_server", "small_disk"]

from tiny_models import FAMILIES, load_tiny, save_tiny  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first: what is left at the end can be shared out among workers."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: save_tiny(name, tmp_path_factory.mktemp("models") / name)
        for name in (*FAMILIES, "gemma2")
    }


@pytest.fixture(scope="session")
def families(folders):
    return {name: load_tiny(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, families):
    return families[request.param]


@pytest.fixture(scope="session")
def tiny_folder(folders) -> Path:
    return folders["llama"]


@pytest.fixture(scope="session")
def tiny(families):
    return families["llama"]
