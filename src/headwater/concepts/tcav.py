"""TCAV: does a concept, given by examples, speak for a class?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra
from headwater.propagate.captures import Watcher
from headwater.question import Question, posed
from headwater.samples import batches_of
from headwater.target import Sum


@dataclass(frozen=True)
class ConceptScore:
    """The answer for one concept.

    Attributes:
        concept: its name.
        score: mean over runs of the share of samples whose class score rises along the concept, 0 to 1.
        spread: standard deviation over runs.
        p_value: of the hypothesis that random concepts score alike (Welch's test, two-sided, Bonferroni corrected).
        accuracy: mean held-out accuracy with which the layer tells the concept from random samples; near 0.5 the
            layer does not know the concept, and the score means nothing.
        scores: of each run; ``vectors``: the concept activation vectors, ``[runs, F]``, of unit length.
    """

    concept: str
    score: float
    spread: float
    p_value: float
    accuracy: float
    scores: Tensor
    vectors: Tensor

    @property
    def significant(self) -> bool:
        """Whether random concepts would hardly score so (p < 0.05)."""
        return self.p_value < 0.05


@dataclass(frozen=True)
class Tcav:
    """Scores of concepts for a class at a layer; prints as a table.

    Attributes:
        concepts: one :class:`ConceptScore` each; ``layer``: the module.
        random: scores of random concepts, one for each run.
    """

    concepts: tuple[ConceptScore, ...]
    layer: str
    random: Tensor

    def __getitem__(self, name: str) -> ConceptScore:
        return {c.concept: c for c in self.concepts}[name]

    def __str__(self) -> str:
        spread = float(self.random.std()) if len(self.random) > 1 else 0.0
        lines = [f"{'concept':24} {'score':>7} {'spread':>7} {'p':>9} {'accuracy':>9}"]
        lines += [
            f"{c.concept:24} {c.score:7.3f} {c.spread:7.3f} {c.p_value:9.2g} {c.accuracy:9.3f}" for c in self.concepts
        ]
        return "\n".join([*lines, f"{'random':24} {float(self.random.mean()):7.3f} {spread:7.3f}"])


def tcav(
    model: Any,
    x: Any,
    concepts: Mapping[str, Any],
    random: Any,
    layer: str,
    *,
    target: Any = None,
    runs: int = 10,
    penalty: float = 0.01,
    seed: int = 0,
    batch_size: int = 64,
) -> Tcav:
    """Test whether a class's score rises along the direction of a concept in a layer's activations.

    In each run a linear classifier tells the concept's samples from a random set of as many; its normal is the concept
    activation vector. The score is the share of samples whose score has a positive derivative along it. Vectors between
    two random sets give the scores to compare with.

    Args:
        model: a module.
        x: samples of the class, as ``hw.explain`` takes them.
        concepts: examples of each concept, by name: inputs of the model (tensors or iterables of batches).
        random: a pool of other inputs, at least twice as many as the smallest concept has.
        layer: the module whose output is looked at, flattened.
        target: the class, or any target of ``hw.explain``.
        runs: random sets, and so vectors, for each concept.
        penalty: of the classifier (the α of its ridge penalty).
        seed: for the random sets, the split of held-out samples and the classifier.
        batch_size: samples in a forward pass.

    Raises:
        InvalidInput: without concepts, with fewer than two runs, too few samples, or an unknown layer.
        MissingExtra: scikit-learn is not installed.

    Source: Kim et al.: Interpretability Beyond Feature Attribution: TCAV, ICML 2018, Section 3.
    """
    _require()
    if not isinstance(concepts, Mapping) or not concepts:
        raise InvalidInput("concepts must be a dictionary from names to examples, with one entry at least")
    if runs < 2:
        raise InvalidInput(f"runs must be at least 2, so that scores can be compared, not {runs}")
    with posed(model):
        gradients = torch.cat([_at(model, inputs, layer, target)[1] for inputs in batches_of(x, batch_size)])
        examples = {name: _activations(model, given, layer, batch_size) for name, given in concepts.items()}
        pool = _activations(model, random, layer, batch_size)
    for name, found in [*examples.items(), ("random", pool)]:
        if len(found) < 4:
            raise InvalidInput(f"{name!r} has {len(found)} samples: a direction needs at least 4")
    if len(pool) < 2 * min(len(found) for found in examples.values()):
        raise InvalidInput(f"random holds {len(pool)} samples: pass at least twice as many as the smallest concept has")
    generator = torch.Generator().manual_seed(seed)
    null = [_vector(*_two(pool, min(map(len, examples.values())), generator), penalty, seed) for _ in range(runs)]
    compared = _scores(gradients, null)
    results = []
    for name, found in examples.items():
        vectors = [_vector(found, _draw(pool, len(found), generator), penalty, seed + r) for r in range(runs)]
        results.append(_result(name, gradients, vectors, compared, len(examples)))
    return Tcav(tuple(results), layer, compared)


def _at(model: Any, inputs: Any, layer: str, target: Any) -> tuple[Tensor, Tensor]:
    """Activations of a layer and the gradient of the score there, both flattened, ``[N, F]``."""
    question = Question(model, inputs, target, layers=(layer,))
    found = question.run(question.walker("gradient", "layers", parts=True, watch=Watcher())).layers[layer]
    value, factor = found[-1] if isinstance(found, list) else found
    return value.flatten(1).cpu(), factor.flatten(1).cpu()


def _activations(model: Any, data: Any, layer: str, batch_size: int) -> Tensor:
    return torch.cat([_at(model, inputs, layer, Sum())[0] for inputs in batches_of(data, batch_size)])


def _draw(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return pool[torch.randperm(len(pool), generator=generator)[:count]]


def _two(pool: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two random sets that share no sample."""
    both = _draw(pool, 2 * count, generator)
    return both[: len(both) // 2], both[len(both) // 2 :]


def _vector(positive: Tensor, negative: Tensor, penalty: float, seed: int) -> tuple[Tensor, float]:
    """The unit normal of a linear classifier, towards ``positive``, and its accuracy on an unseen third."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import train_test_split

    features = torch.cat([positive, negative]).double().numpy()
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).numpy()
    known, held, known_labels, held_labels = train_test_split(
        features, labels, test_size=0.33, stratify=labels, random_state=seed
    )
    classifier = SGDClassifier(alpha=penalty, max_iter=1000, tol=1e-3, random_state=seed).fit(known, known_labels)
    normal = torch.from_numpy(classifier.coef_[0])
    length = float(normal.norm())
    return normal / length if length else normal, float(classifier.score(held, held_labels))


def _scores(gradients: Tensor, vectors: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The share of samples with a positive derivative along each vector, ``[runs]``."""
    along = gradients.double() @ torch.stack([v for v, _ in vectors]).t()
    return (along > 0).double().mean(0)


def _result(
    name: str, gradients: Tensor, vectors: Sequence[tuple[Tensor, float]], compared: Tensor, tests: int
) -> ConceptScore:
    from scipy.stats import ttest_ind

    scores = _scores(gradients, vectors)
    same = float(scores.std()) == float(compared.std()) == 0.0
    alike = float(scores.mean()) == float(compared.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scores that are all alike have no spread
        tested = float(ttest_ind(scores.numpy(), compared.numpy(), equal_var=False).pvalue)
    p = (1.0 if alike else 0.0) if same else tested
    return ConceptScore(
        name, float(scores.mean()), float(scores.std()), 1.0 if math.isnan(p) else min(1.0, p * tests),
        sum(a for _, a in vectors) / len(vectors), scores, torch.stack([v for v, _ in vectors]),
    )  # fmt: skip


def _require() -> None:
    try:
        import sklearn  # noqa: F401 (asked for before any work starts)
    except ModuleNotFoundError as error:
        raise MissingExtra("concepts", "scikit-learn") from error
