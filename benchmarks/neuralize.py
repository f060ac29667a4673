"""Cost of explaining neuralized estimators, beside the estimator's own decision function.

python -m benchmarks.neuralize [--quick]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, OneClassSVM

import headwater as hw
from headwater.neuralize import KernelKMeans, neuralize

COLUMNS = 784  # of MNIST


@dataclass
class Subject:
    """A fitted estimator and the function of its own that its explanation is measured against."""

    name: str
    estimator: Any
    function: str
    options: dict[str, Any]


def machine(support: int, random: np.random.Generator) -> SVC:
    """A support vector machine with exactly that many support vectors: random labels make every sample one."""
    x = random.random((support, COLUMNS))
    return SVC(C=10.0).fit(x, np.arange(support) % 2)


def subjects(quick: bool) -> list[Subject]:
    """Estimators of the size of the task: 1,000 support vectors or representatives (100 with ``quick``)."""
    random = np.random.default_rng(0)
    size = 100 if quick else 1000
    x = random.random((size, COLUMNS))
    svc = machine(size, random)
    kernel = KernelKMeans(10, n_init=1, max_iter=5, random_state=0).fit(x)
    projected = make_pipeline(PCA(50, random_state=0), SVC(C=10.0)).fit(x, np.arange(size) % 2)
    return [
        Subject(f"SVC, {len(svc.support_)} support vectors", svc, "decision_function", {}),
        Subject("PCA, then SVC", projected, "decision_function", {}),
        Subject("one-class SVM", OneClassSVM(nu=0.9).fit(x), "decision_function", {"output": "outlierness"}),
        Subject("k-means, 100 clusters", KMeans(100, n_init=1, random_state=0).fit(x), "transform", {}),
        Subject(
            "Gaussian mixture, 10 diagonal", GaussianMixture(10, covariance_type="diag").fit(x), "predict_proba", {}
        ),
        Subject(f"kernel k-means, {size} representatives", kernel, "predict_proba", {}),
    ]


def fastest(run: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def peak() -> float:
    """The process's largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(subject: Subject, x: Any, rounds: int, batch_size: int) -> str:
    """One line of the table."""
    network, v = neuralize(subject.estimator, **subject.options), torch.as_tensor(x)
    own = fastest(lambda: getattr(subject.estimator, subject.function)(x), rounds)

    def forward() -> None:
        with torch.no_grad():
            for part in v.split(batch_size):
                network(part)

    bare = fastest(forward, rounds)
    before = peak()
    walk = fastest(lambda: hw.explain(network, v, batch_size=batch_size, progress=False), rounds)
    cells = [subject.name, f"{own:.2f}", f"{bare:.2f}", f"{walk:.2f}", f"{walk / bare:.1f}", f"{peak() - before:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neuralize", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one round")
    parser.add_argument("--samples", type=int, help="how many are explained (default: 10000)")
    parser.add_argument("--batch", type=int, default=1000, help="samples at a time (default: %(default)s)")
    arguments = parser.parse_args()
    samples = arguments.samples or (200 if arguments.quick else 10_000)
    x = np.random.default_rng(1).random((samples, COLUMNS))
    print(f"{samples} samples of {COLUMNS} columns, double precision, {torch.get_num_threads()} thread(s)\n")
    print("| | estimator, s | network, s | explanation, s | ratio | more memory, MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for subject in subjects(arguments.quick):
        print(row(subject, x, 1 if arguments.quick else 3, arguments.batch), flush=True)


if __name__ == "__main__":
    main()
