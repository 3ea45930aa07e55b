"""Sealed runs in an object storage, for machines that share no disk.

The storage is S3, GCS, Azure or a folder, opened by fsspec. A run is the same there as on a disk,
below the same two folder names: <url>/<study>/<stage>-<address>/... Its manifest is written last.
A run without a manifest counts as absent. A run that comes back is compared with its manifest
before it appears under its name.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from traitscope.errors import ConfigError, StoreError
from traitscope.runs import lineage, manifests


@dataclass(frozen=True)
class Storage:
    """A place for the runs of one root."""

    url: str
    "such as s3://bucket/prefix; what fsspec understands"
    root: Path
    "absolute; the same on every machine"

    def upload(self, run: Path) -> None:
        """Copy a sealed run to the storage, unless it is there.

        Raises StoreError where the storage cannot be written.
        """
        files, there = self._place(run)
        try:
            if files.exists(f"{there}/manifest.json"):
                return
            names = sorted(
                path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()
            )
            for name in sorted(names, key=lambda name: name == "manifest.json"):
                files.makedirs(f"{there}/{name}".rpartition("/")[0], exist_ok=True)
                files.put_file(str(run / name), f"{there}/{name}")
        except (
            Exception
            # every file system has errors of its own; all mean that it could not be put there
        ) as error:
            raise StoreError(
                f"{run} could not be put into {self.url} ({type(error).__name__}: {error}); check"
                " the address, the rights and the network"
            ) from error

    def download(self, run: Path) -> None:
        """Copy a sealed run from the storage, unless it is here.

        Raises StoreError where the storage does not hold it, or where it was damaged on the way.
        """
        if (run / "manifest.json").exists():
            return
        files, there = self._place(run)
        made = run.with_name(f".{run.name}.{secrets.token_hex(4)}.tmp")
        try:
            described = json.loads(files.cat_file(f"{there}/manifest.json"))
            for name in ("manifest.json", "config.json", *described["outputs"]):
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                files.get_file(f"{there}/{name}", str(made / name))
        except Exception as error:
            shutil.rmtree(made, ignore_errors=True)
            raise StoreError(
                f"{run} is not here and could not be had from {self.url} ({type(error).__name__}:"
                f" {error}); make it again, or check the address"
            ) from error
        if wrong := lineage.verify(made):
            shutil.rmtree(made)
            raise StoreError(f"{run} came damaged from {self.url}: {wrong[0]}")
        try:
            made.rename(run)
        except OSError:  # another process was faster, or an unfinished one lies there
            shutil.rmtree(made)
            if not (run / "manifest.json").exists():
                raise StoreError(
                    f"{run} is unfinished here and sealed in {self.url}; move it away, then run"
                    " this again"
                ) from None

    def upload_inputs(self, config: Any) -> None:
        """Copy the runs that a config names to the storage."""
        for run in self._named(config):
            self.upload(run)

    def download_inputs(self, config: Any) -> None:
        """Copy the runs that a config names from the storage."""
        for run in self._named(config):
            self.download(run)

    def _named(self, config: Any) -> Iterator[Path]:
        """The runs below the root that a config names, each once."""
        text = json.dumps(asdict(config), default=str)
        below = (
            re.escape(json.dumps(str(self.root))[1:-1])
            + rf"/([^/\"\\]+)/({manifests.RUN_NAME.pattern})"
        )
        yield from sorted({self.root / found[1] / found[2] for found in re.finditer(below, text)})

    def check(self) -> None:
        """Raise ConfigError for an address that fsspec cannot open, StoreError for one that does
        not answer."""
        files, base = self._base()
        try:
            files.exists(base)
        except Exception as error:  # every file system has errors of its own
            raise StoreError(
                f"{self.url} does not answer ({type(error).__name__}: {error}); check the address,"
                " the rights and the network"
            ) from error

    def _place(self, run: Path) -> tuple[Any, str]:
        """The file system, and the run's place in it."""
        files, base = self._base()
        return files, "/".join([base.rstrip("/"), *run.relative_to(self.root).parts])

    def _base(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"storage={self.url}: {error}; expected an address such as s3://bucket/prefix, and"
                " fsspec's package for its kind; correct the address, or install that package"
            ) from error
