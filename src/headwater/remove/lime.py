"""LIME: a model simple enough to read, fitted to the model around one input."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.question import Question
from headwater.remove.imputers import optional
from headwater.remove.regression import explained, ridge
from headwater.remove.removal import Removal
from headwater.remove.sampling import check_count, subsets
from headwater.remove.text import Reader

Surrogate = Literal["linear", "tree"]


def lime(
    question: Question, *, features: Any = None, samples: int = 1000, surrogate: Surrogate = "linear",
    most: int | None = None, alpha: float = 1.0, depth: int = 4, kernel_width: float = 0.25,
    probability: bool = False, imputer: Any = None, references: Any = None, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """A linear model or a decision tree of which features are there, fitted to the scores of random subsets.

    Subsets that keep more weigh more: ``exp(-d² / (2 kernel_width²))``, d the cosine distance to all features.

    Args:
        features: as for ``feature_ablation``; by default superpixels of pictures, else windows, columns, words.
        samples: subsets that are asked; the first keeps everything.
        surrogate: "linear", whose coefficients are the scores, or "tree", whose scores are the changes of its
            prediction at the splits on the way to the leaf where all features are there.
        most: use so few features: the first that the lasso's path takes up (K-LASSO); needs ``headwater[remove]``.
        alpha: of the ridge penalty; ``depth`` of the tree, which needs ``headwater[remove]``.
        kernel_width: how local; the original package has 0.25 for pictures and texts.
        probability: fit the probability of the target's class, as the paper does, instead of its score.
        imputer: by default each sample's mean for pictures and series, zero for columns, padding for words.
        references, argument, layer: as for ``occlusion``.

    Returns:
        ``details``: ``features`` the scores ``[N, F]``, ``fit`` the weighted R² ``[N]``, ``intercept`` ``[N]``,
        ``masks``; of a linear surrogate the ``standard_error`` of its coefficients, of a tree its ``rules`` as text.

    Raises:
        InvalidInput: settings out of range; MissingExtra: for superpixels, ``most`` and trees without their packages.

    Source: Ribeiro, Singh, Guestrin: Why Should I Trust You?, KDD 2016, Algorithm 1; Samek et al. 2021 (review),
    Section III-A.
    """
    check_count("samples", samples, 4)
    check_count("depth", depth, 1)
    if most is not None:
        check_count("most", most, 1)
    if surrogate not in ("linear", "tree") or not kernel_width > 0 or not alpha >= 0:
        raise InvalidInput(
            "lime needs a surrogate 'linear' or 'tree', a positive kernel_width and alpha not negative, "
            f"not {surrogate!r}, {kernel_width} and {alpha}"
        )
    removal = _removal(question, features, imputer, references, argument, layer)
    removal = removal.asking_probability() if probability else removal
    scores = torch.zeros(removal.present.shape, dtype=torch.float64)
    error, fit = torch.zeros_like(scores), torch.zeros(removal.samples, dtype=torch.float64)
    intercept, rules = torch.zeros_like(fit), [""] * removal.samples
    for count, own in removal.alike():
        kept = subsets(count, samples, removal.question.generator())
        kept[0] = True
        weights = proximity(kept, kernel_width)
        values = removal.with_only(kept, own).T
        if surrogate == "tree":
            for i, value in zip(own.tolist(), values.T, strict=True):
                scores[i, :count], intercept[i], fit[i], rules[i] = _tree(
                    kept, value, weights, depth, _names(removal, i)
                )
        elif most is not None and most < count:
            for i, value in zip(own.tolist(), values.T, strict=True):
                chosen = _first(kept.double(), value, weights, most)
                fitted = ridge(kept[:, chosen].double(), value[:, None], weights, alpha)
                scores[i, chosen], intercept[i], error[i, chosen], fit[i] = (t[0] for t in fitted)
        else:
            fitted = ridge(kept.double(), values, weights, alpha)
            scores[own, :count], intercept[own], error[own, :count], fit[own] = fitted
    extra: dict[str, Any] = {"rules": rules} if surrogate == "tree" else {"standard_error": error}
    return removal.answer(scores, removal.output(), fit=fit, intercept=intercept, **extra)


def proximity(kept: Tensor, width: float) -> Tensor:
    """How much each set ``[M, c]`` weighs, ``[M]``: by its cosine distance to the set of all."""
    distance = 1 - (kept.double().mean(1)).sqrt()
    return (-distance.square() / (2 * width**2)).exp()


def _removal(
    question: Question, features: Any, imputer: Any, references: Any, argument: Any, layer: str | None
) -> Removal:
    pictures = all(v.dim() in (4, 5) for i, v in enumerate(question.inputs.values) if i in question.explained)
    signals = all(v.dim() > 2 for i, v in enumerate(question.inputs.values) if i in question.explained)
    cells = "superpixel" if pictures else "grid"
    return Removal.of(
        question, features, imputer, references, argument, layer, cells=cells, default="mean" if signals else 0
    )


def _first(kept: Tensor, values: Tensor, weights: Tensor, most: int) -> Tensor:
    """The features ``[most]`` that the lasso takes up first."""
    linear = optional("sklearn.linear_model", "scikit-learn")
    share = (weights / weights.sum())[:, None]
    root = weights.sqrt()[:, None]
    design = root * (kept - (share * kept).sum(0))
    right = root[:, 0] * (values - (share[:, 0] * values).sum())
    _, _, path = linear.lars_path(design.numpy(), right.numpy(), method="lasso")
    chosen = torch.zeros(0, dtype=torch.long)
    for step in torch.from_numpy(path.copy()).T:
        active = step.nonzero().flatten()
        if len(active) > most:
            break
        chosen = active
    return chosen


def _tree(
    kept: Tensor, values: Tensor, weights: Tensor, depth: int, names: list[str]
) -> tuple[Tensor, float, float, str]:
    """Scores of the features on the way to the leaf with all of them, the root's value, weighted R² and rules."""
    trees = optional("sklearn.tree", "scikit-learn")
    design = kept.double().numpy()
    fitted = trees.DecisionTreeRegressor(max_depth=depth, random_state=0)
    fitted.fit(design, values.numpy(), sample_weight=weights.numpy())
    tree, scores, node = fitted.tree_, torch.zeros(kept.shape[1], dtype=torch.float64), 0
    while tree.children_left[node] >= 0:
        child = int(tree.children_right[node])  # the feature is there
        scores[tree.feature[node]] += float(tree.value[child].item() - tree.value[node].item())
        node = child
    residual = values - torch.from_numpy(fitted.predict(design))
    fit = float(explained(values[:, None], residual[:, None], weights)[0])
    return scores, float(tree.value[0].item()), fit, trees.export_text(fitted, feature_names=names)


def _names(removal: Removal, i: int) -> list[str]:
    """What the features of a sample are called in rules."""
    model, count = removal.question.model, int(removal.counts[i])
    if isinstance(model, Reader) and len(model.words[i]) == count:
        return [f"{word} ({place})" for place, word in enumerate(model.words[i])]
    return [f"{removal.sites[0].features.name} {k}" for k in range(count)]
