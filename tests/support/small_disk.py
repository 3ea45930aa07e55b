"""A disk of a few kilobytes, for tests of what happens where it is full or read-only."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with the given options and returns its folder; skips where that is not
    allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("this user may not mount a file system")
        return folder

    yield mounted
    subprocess.run(["umount", folder], capture_output=True, check=False)
