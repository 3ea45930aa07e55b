"""Stages on a Ray cluster that exists, or that is started here while the command runs.

    traitscope study run NAME --executor ray --cluster address=auto cpus=4 gpus=1 memory_gb=24

A worker is an actor that keeps its model loaded between stages. The model's folder travels through
Ray's object store, so a node need not have it. If a worker dies, its stage is tried again on a new
worker.

The root must lie on a disk that every node sees, or `storage` must name a place for the runs
(runs/object_storage.py). With `storage`, each node keeps the runs that it met below a folder of the
same name. A worker that has neither raises an error before anything is computed.
"""

import os
import queue
import secrets
import socket
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.config import parsing
from traitscope.config.common import OnModel, Output
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.models import weight_noise
from traitscope.models.identity import finding
from traitscope.runs.object_storage import Storage
from traitscope.workflow import executors
from traitscope.workflow.executors import Died, How, Pool, Results

MARK = ".root"
"file below the root by which a worker sees that it is the same one"
GIB = 2**30
SECONDS = 10
"to wait for a cluster that does not answer"


@dataclass(frozen=True)
class RaySettings:
    """What the cluster is, and what one worker asks for."""

    address: str = "local"
    """local: a cluster of this machine, until the command ends; auto: the one that runs here; else
    where it is, such as ray://host:10001"""
    cpus: float = 1
    "cores of a worker, and threads of torch"
    gpus: float = 0
    "GPUs of a worker"
    memory_gb: float = 0
    "GiB of a worker; 0: not asked for"
    storage: str = ""
    "where runs are exchanged if the nodes share no disk, such as s3://bucket/prefix"


@contextmanager
def pool(how: How, out: Output) -> Iterator[Pool]:
    """Workers until the block ends; what they had begun is left to the next command."""
    asked = parsing.changed(RaySettings(), how.cluster, "--cluster")
    if asked.storage:
        Storage(asked.storage, out.root).check()
    ray = _connected(asked, how)
    try:
        size = _room(ray, asked, how)
        out = replace(out, root=out.root.absolute())
        workers = _Workers(ray, asked, out, size)
        yield Pool(size, workers.submit)
    finally:
        ray.shutdown()


def _connected(asked: RaySettings, how: How) -> Any:
    """Ray, connected.  Raises ConfigError where it is missing or cannot be reached."""
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "--executor ray needs Ray: pip install -c constraints.txt 'traitscope[ray]'"
        ) from None
    usual = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if asked.address == "local":
            cpus = how.workers * asked.cpus if how.workers else None
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=None if cpus is None else int(-(-cpus // 1)),
                **usual,
            )
        else:
            _knock(asked.address)
            ray.init(address=asked.address, **usual)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"Ray at {asked.address} cannot be reached ({error}); start one with `ray start"
            " --head`, or leave address out"
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()


def _room(ray: Any, asked: RaySettings, how: How) -> int:
    """How many workers fit.  Raises ConfigError where not one does."""
    wanted = {"CPU": asked.cpus, "GPU": asked.gpus, "memory": asked.memory_gb * GIB}
    fits = 0
    largest = dict.fromkeys(wanted, 0.0)
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources = node["Resources"]
        slots = []
        for name, amount in wanted.items():
            largest[name] = max(largest[name], resources.get(name, 0))
            if amount:
                slots.append(int(resources.get(name, 0) / amount))
        fits += min(slots, default=1)
    if not fits:
        figures = (
            f"{largest['CPU']:g} cores, {largest['GPU']:g} GPUs and"
            f" {largest['memory'] / GIB:.1f} GiB"
        )
        raise ConfigError(
            f"a worker asks for {asked.cpus:g} cores, {asked.gpus:g} GPUs and {asked.memory_gb:g}"
            f" GiB; no node has that, the largest figures are {figures}; ask for less in --cluster,"
            " or add a node"
        )
    return min(fits, how.workers or fits)


class _Workers:
    """Actors, each busy with one job at most; a dead one is replaced by a new one."""

    def __init__(self, ray: Any, asked: RaySettings, out: Output, size: int) -> None:
        self.ray, self.asked, self.out = ray, asked, out
        self.storage = Storage(asked.storage, out.root) if asked.storage else None
        self.mark = secrets.token_hex(8)
        atomic_files.write_text(out.root / MARK, self.mark)
        self.models: dict[str, tuple[str, Any]] = {}
        self.idle: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(size):
            self.idle.put(self._new())

    def _new(self) -> Any:
        kind = self.ray.remote(Worker).options(
            num_cpus=self.asked.cpus,
            num_gpus=self.asked.gpus,
            memory=self.asked.memory_gb * GIB or None,
        )
        return kind.remote(self.out, self.mark, max(1, int(self.asked.cpus)), self.storage)

    def submit(self, label: str, configs: Sequence[Any]) -> Future[Results]:
        done: Future[Results] = Future()
        try:
            for config in configs if self.storage else ():
                self.storage.upload_inputs(config)
        except TraitscopeError as error:
            done.set_result([error] * len(configs))
            return done
        worker = self.idle.get()
        sent = worker.run.remote(list(configs), self._shared(configs[0]))
        sent.future().add_done_callback(lambda ended: self._took(worker, ended, done))
        return done

    def _shared(self, config: Any) -> tuple[str, Any] | None:
        """A config's model: its name, and where its folder lies in the object store, put there
        once."""
        if not isinstance(config, OnModel):
            return None
        name, _ = weight_noise.split_name(config.model)
        if name not in self.models:
            folder = finding.find_model(name)
            files = {}
            for path in sorted(folder.iterdir()):
                if path.is_file():
                    files[path.name] = np.fromfile(path, dtype=np.uint8)
            self.models[name] = (finding.folder_digest(folder), self.ray.put(files))
        return name, *self.models[name]

    def _took(self, worker: Any, sent: Future, done: Future[Results]) -> None:
        from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

        error = sent.exception()
        if isinstance(error, RayActorError | WorkerCrashedError):
            self.idle.put(self._new())
            done.set_exception(Died(str(error)))
            return
        self.idle.put(worker)
        if error is None:
            done.set_result([self._fetched(result) for result in sent.result()])
            return
        has_cause = isinstance(error, RayTaskError) and bool(error.cause)
        done.set_exception(error.cause if has_cause else error)

    def _fetched(self, result: Path | TraitscopeError) -> Path | TraitscopeError:
        """A run that a worker made, when it is here, too."""
        if self.storage and isinstance(result, Path):
            try:
                self.storage.download(result)
            except TraitscopeError as error:
                return error
        return result


class Worker:
    """What runs on a node: keeps a model between stages."""

    def __init__(
        self, out: Output, mark: str, threads: int, storage: Storage | None = None
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self.out, self.mark, self.storage = out, mark, storage

    def run(self, configs: Sequence[Any], shared: tuple[str, str, Any] | None) -> Results:
        """The results of a job; `shared` is its model's name, digest and place in the object
        store."""
        if shared and shared[0] not in finding.OFFERED:
            name, digest, files = shared
            finding.OFFERED[name] = _unpacked(digest, files)
        seen = self.out.root / MARK
        if seen.is_file() and seen.read_text(encoding="utf-8") == self.mark:
            return executors.computed(configs, self.out)
        try:
            return self._apart(configs)
        except TraitscopeError as error:
            return [error] * len(configs)

    def _apart(self, configs: Sequence[Any]) -> Results:
        """The results of a job where the root is not the one that the command writes to."""
        if self.storage is None:
            import ray

            where = f"the worker on {ray.util.get_node_ip_address()}"
            raise ConfigError(
                f"{where} does not see {self.out.root} as this machine does; put --root on a shared"
                " disk, or name a --cluster storage=..."
            )
        for config in configs:
            self.storage.download_inputs(config)
        results = executors.computed(configs, self.out)
        for run in results:
            if isinstance(run, Path):
                self.storage.upload(run)
        return results


def _unpacked(digest: str, files: Any) -> Path:
    """The node's folder of a model, written out of the object store by the first worker that needs
    it."""
    import ray

    folder = Path(tempfile.gettempdir()) / f"traitscope-model-{os.getuid()}-{digest}"
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
        for name, content in ray.get(files).items():
            content.tofile(made / name)
        try:
            made.rename(folder)
        except OSError:  # another worker was faster
            for path in made.iterdir():
                path.unlink()
            made.rmdir()
    return folder
