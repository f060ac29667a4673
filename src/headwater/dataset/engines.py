"""Who computes the chunks: this process, several of this machine, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from headwater.dataset.job import Job
from headwater.errors import HeadwaterError, MissingExtra

ENGINES = ("local", "ray")
RETRIES = 3  # times that workers may die with no chunk finished between


def start(engine: str, job: Job, pending: Sequence[int], workers: int) -> Iterator[int]:
    """Compute the pending chunks; yields the number of each when it is committed.

    Every process begins at a random place: of several that write one store each does its own part, and passes over
    what the others have committed.

    Raises:
        HeadwaterError: what a chunk raises, and workers that keep dying.
    """
    first = random.SystemRandom().randrange(len(pending)) if pending else 0
    order = [*pending[first:], *pending[:first]]
    if engine == "ray":
        from headwater.dataset.ray import compute

        return compute(job, order, workers)
    return map(job.work, order) if workers == 1 else _processes(job, order, workers)


def dying_workers(url: str) -> HeadwaterError:
    """What to say when workers die again and again."""
    return HeadwaterError(
        f"Workers died {RETRIES} times without finishing a chunk of {url}, killed perhaps for want of memory: run the "
        "same call again with fewer workers or a smaller batch_size; every finished chunk is kept"
    )


def _processes(job: Job, pending: Sequence[int], workers: int) -> Iterator[int]:
    """A pool of processes that unpack the job once; what a process that died was doing is done again."""
    try:
        import cloudpickle
    except ModuleNotFoundError as error:
        raise MissingExtra("dataset", "cloudpickle") from error
    packed: bytes = cloudpickle.dumps(job)  # models and data sets that were defined in a script or a notebook too
    left, failures = list(pending), 0
    while left:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_unpack, initargs=(packed,)) as pool:
            futures = {pool.submit(_work, chunk): chunk for chunk in left}
            try:
                for future in as_completed(futures):
                    left.remove(future.result())
                    failures = 0
                    yield futures[future]
            except BrokenProcessPool:
                failures += 1
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if failures == RETRIES:
            raise dying_workers(job.url)


_job: Job  # of a worker process


def _unpack(packed: bytes) -> None:
    import cloudpickle

    global _job
    _job = cloudpickle.loads(packed)


def _work(chunk: int) -> int:
    return _job.work(chunk)
