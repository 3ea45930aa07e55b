"""The commit of the code that runs, for manifests."""

import os
import subprocess
from functools import cache
from pathlib import Path

MARK = "store.py"
"a file of the package: a checkout that does not track it is somebody else's"


def described(folder: Path) -> dict | None:
    """Commit and dirty flag of the checkout that tracks the package in `folder`; None for an
    installed copy or no git."""
    env = {
        key: value for key, value in os.environ.items() if not key.startswith("GIT_")
    }  # a git hook's repository

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, check=True, timeout=10, env=env
        )
        return done.stdout.decode(errors="replace").strip()

    try:
        ask("ls-files", "--error-unmatch", MARK)
        return {
            "commit": ask("rev-parse", "HEAD"),
            "dirty": bool(ask("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


known = cache(described)
"as it was when the process first asked: what runs is what was imported"
