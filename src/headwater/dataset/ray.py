"""The same job on a Ray cluster: actors that hold the model once, each writing its chunks to the shared store."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from headwater.dataset.engines import RETRIES, dying_workers
from headwater.dataset.job import Job
from headwater.errors import MissingExtra


def compute(job: Job, pending: Sequence[int], workers: int) -> Iterator[int]:
    """Compute the chunks on ``workers`` actors of the cluster that Ray is connected to, or of this machine.

    An actor takes one GPU (or an equal share of those there are) where the model is on one. The chunk of an actor that
    was lost is done again by a new one.

    Raises:
        HeadwaterError: what a chunk raises, and actors that keep dying.
        MissingExtra: without the extra ``ray``.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "ray") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    on_gpu = _is_on_gpu(job.model)
    packed = ray.put(replace(job, model=copy.deepcopy(job.model).cpu()) if on_gpu else job)  # type: ignore[attr-defined]
    resources = {"num_cpus": min(job.manifest.threads, _share(ray, "CPU", workers)), "num_gpus": 0.0}
    if on_gpu:
        resources["num_gpus"] = min(1.0, _share(ray, "GPU", workers))
    actor: Any = ray.remote(**resources)(_Worker)
    yield from _all(ray, lambda: actor.remote(packed, on_gpu), list(pending), workers, job.url)


def _all(ray: Any, hire: Any, left: list[int], workers: int, url: str) -> Iterator[int]:
    """Keep every actor busy with one chunk; hire another for one that died."""
    busy: dict[Any, tuple[Any, int]] = {}
    idle = [hire() for _ in range(min(workers, len(left)))]
    failures = 0
    try:
        while left or busy:
            while left and idle:
                worker, chunk = idle.pop(), left.pop(0)
                busy[worker.work.remote(chunk)] = worker, chunk
            (done, *_), _ = ray.wait(list(busy))
            worker, chunk = busy.pop(done)
            try:
                ray.get(done)
            except ray.exceptions.RayActorError:
                failures += 1
                if failures == RETRIES:
                    raise dying_workers(url) from None
                left.insert(0, chunk)
                idle.append(hire())
                continue
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None  # the chunk's own
            failures = 0
            idle.append(worker)
            yield chunk
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            ray.kill(worker)


def _share(ray: Any, kind: str, workers: int) -> float:
    """An equal part of what the cluster has of this kind, rounded down where it is more than one."""
    share = float(ray.cluster_resources().get(kind, 0.0)) / workers
    return float(int(share)) if share > 1 else share


def _is_on_gpu(model: Any) -> bool:
    return isinstance(model, nn.Module) and any(p.device.type == "cuda" for p in model.parameters())


class _Worker:
    """One actor: it unpacks the job, and so the model, once."""

    def __init__(self, job: Job, on_gpu: bool) -> None:
        if on_gpu and torch.cuda.is_available():
            assert isinstance(job.model, nn.Module), "only modules are on a device"
            job = replace(job, model=job.model.cuda())
        self.job = job

    def work(self, chunk: int) -> int:
        """Compute a chunk and write it."""
        return self.job.work(chunk)
