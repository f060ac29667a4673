"""``hw.compare``: several methods on the same samples of one model, side by side."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headwater.batches import in_batches
from headwater.errors import HeadwaterError, InvalidInput, NonFinite
from headwater.evaluate.agreement import rank_correlation
from headwater.evaluate.asking import Asking, Output, asking, relevance_at, removal_of
from headwater.evaluate.axioms import completeness_gap
from headwater.evaluate.comparison import Comparison, Entry
from headwater.evaluate.complexity import effective_features, file_size
from headwater.evaluate.cost import cost
from headwater.evaluate.drawing import CHANCE
from headwater.evaluate.explainer import Explainer, Method, random_relevance
from headwater.evaluate.flipping import flip, flip_settings, schedule
from headwater.evaluate.randomization import redraw
from headwater.explanation import Explanation, leaves
from headwater.question import Question
from headwater.remove.features import Pool
from headwater.remove.removal import Removal

METHODS = ("lrp", "integrated_gradients", "occlusion", "gradient_x_input", "sensitivity")
TIMED_BATCH, RANDOMIZED = 16, 8  # samples that are timed together, and that the randomized model explains


def compare(
    model: Callable[..., Any], x: Any, methods: Sequence[Method] | Mapping[str, Method] = METHODS, target: Any = None,
    *, features: Any = None, imputer: Any = None, references: Any = None, pool: Pool = "sum",
    output: Output = "score",
    steps: int | None = None, until: float = 1.0, argument: Any = None, bounds: Any = None, names: Sequence[str] = (),
    randomize: bool = True, repetitions: int = 3, store: str | Path | None = None, batch_size: int | None = None,
    seed: int = 0, progress: bool | None = None,
) -> Comparison:  # fmt: skip
    """Compare methods on a model of one's own: faithfulness, complexity, completeness, dependence on the model, cost.

    Every method explains the same samples for the same targets; then the same number of their most relevant features
    is removed and the same question asked. A random order is the baseline.

    Args:
        model: a module or any function of tensors; it is left as it was.
        x: as for ``hw.explain``.
        methods: names, dicts of options of ``hw.explain``, or functions ``(model, x, target) -> relevance``; or a
            mapping of such by the names they are to have in the table. One that cannot serve this model is told in its
            row.
        target: as for ``hw.explain``; by default what the model predicts at ``x``.
        features, imputer, references, pool, output, steps, until, argument: of the flipping; see
            :func:`~headwater.evaluate.pixel_flipping`.
        bounds: of the values of ``x``, for the methods that need them.
        names: of the samples, for pictures.
        randomize: compare the maps with those of the model with random parameters (the end of Adebayo's cascade; the
            first 8 samples). Only for modules with parameters.
        repetitions: of the timing, on the first 16 samples; 0 leaves it out.
        store: a folder in which each method's results are kept as they come: a run that was broken off, or one more
            method, goes on from there. Results of another model, input, target or setting are not taken.
        batch_size: samples that are explained, and rows that are asked, at a time.
        seed: of everything random.
        progress: as for ``hw.explain``.

    Returns:
        A :class:`~headwater.evaluate.Comparison`: ``.table``, ``.plot()``, ``.to_html()``, ``.recommendation``.

    Raises:
        InvalidInput: no methods, two of one name, or arguments that do not fit.

    Source: Samek et al. 2021 (review), Section IV.
    """
    explainers = _explainers(methods, bounds, batch_size, seed)
    question = asking(model, x, target, output, batch_size=batch_size, seed=seed, progress=False)
    removal = removal_of(question, features, imputer, references, argument)
    explainers.append(Explainer(CHANCE, function=lambda *_: _chance(removal, seed)))
    changed = question.inputs.values[removal.sites[0].place].detach().cpu()
    if names and len(names) != len(changed):
        raise InvalidInput(f"{len(names)} names for {len(changed)} samples: give each sample one")
    fractions = schedule(removal.counts, steps, None, until)[1]
    settings = {
        **flip_settings(question, removal, "most", pool, False, imputer), "steps": len(fractions) - 1, "until": until,
        "timed_batch": min(TIMED_BATCH, len(changed)), "repetitions": repetitions, "randomize": randomize,
    }  # fmt: skip
    several = [question.inputs.key(site.place) for site in removal.sites if not site.follows]
    if len(several) > 1:
        settings["arguments"] = ", ".join(several)
    folder = None if store is None else _folder(Path(store))
    key = "" if folder is None else _key(question, removal, settings, references)
    random_model = None
    if randomize and isinstance(model, nn.Module) and any(True for _ in model.parameters()):
        module: nn.Module = copy.deepcopy(model)
        random_model = redraw(module, None, "permute", seed)
    job = _Job(
        question, removal, {"pool": pool, "steps": steps, "until": until, "imputer": imputer}, repetitions, random_model
    )

    def work(at: slice) -> Entry:
        explainer = explainers[at.start]
        if folder is None:
            return job.entry(explainer)
        path, own = folder / f"{_file_name(explainer.name)}.safetensors", f"{key} {explainer.told}"
        kept = Entry.load(path, own)
        if kept is None:
            kept = job.entry(explainer)
            if not kept.error:
                path.parent.mkdir(parents=True, exist_ok=True)
                kept.save(path, own)
        return kept

    entries = in_batches(work, len(explainers), 1, progress, "comparing")
    return Comparison(tuple(entries), fractions, settings, changed, question.clean.double().cpu(), tuple(names))


@dataclass
class _Job:
    """What is measured of each method."""

    question: Asking
    removal: Removal
    flipped: dict[str, Any]
    repetitions: int
    random_model: nn.Module | None

    def entry(self, explainer: Explainer) -> Entry:
        """Everything about one method; one that cannot serve says why."""
        question = self.question
        x = question.inputs.pack(question.inputs.values)
        try:
            found = explainer.run(question.model, x, question.target)
            relevance = self._maps(found, question)
            curves = flip(question, self.removal, found, **self.flipped).curves
        except HeadwaterError as error:
            return Entry(explainer.name, explainer.told, error=str(error))
        if explainer.name == CHANCE:
            return Entry(CHANCE, explainer.told, relevance.cpu(), curves)
        measures = {"effective_features": effective_features(relevance)}
        if relevance.dim() in (3, 4, 5):
            measures["file_size"] = file_size(relevance)
        if isinstance(found, Explanation) and found.complete:
            measures["gap"] = completeness_gap(found).abs()
        if self.random_model is not None:
            measures["randomized"] = self._randomized(self.random_model, explainer, relevance)
        entry = Entry(explainer.name, explainer.told, relevance.cpu(), curves, measures)
        if not self.repetitions:
            return entry
        spent = cost(
            question.model, x, explainer, question.target,
            batch_size=TIMED_BATCH, repetitions=self.repetitions, memory=True,
        )  # fmt: skip
        return replace(entry, per_second=spent.per_second, forwards=spent.forwards, memory=spent.memory)

    def _maps(self, found: Any, question: Question) -> Tensor:
        """The relevance of the argument that is changed (the first of several)."""
        return relevance_at(found, question.inputs, self.removal.sites[0].place)

    def _randomized(self, model: nn.Module, explainer: Explainer, relevance: Tensor) -> Tensor:
        """Rank correlation with the map of the randomized model, NaN for the samples that were left out."""
        count = min(RANDOMIZED, self.question.inputs.samples)
        first = self.question.select(torch.arange(count))
        similarity = torch.full((len(relevance),), torch.nan, dtype=torch.float64)
        try:
            found = explainer.run(model, first.inputs.pack(first.inputs.values), first.target)
            similarity[:count] = rank_correlation(relevance[:count], self._maps(found, first))
        except NonFinite:
            pass  # random parameters may overflow where trained ones do not
        return similarity


def _folder(path: Path) -> Path:
    existing = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise InvalidInput(f"store={str(path)!r}: {existing} is a file: name a folder")
    return path


def _explainers(
    methods: Sequence[Method] | Mapping[str, Method], bounds: Any, batch_size: int | None, seed: int
) -> list[Explainer]:
    named: list[tuple[str | None, Method]]
    if isinstance(methods, Mapping):
        named = [(str(name), method) for name, method in methods.items()]
    elif isinstance(methods, str) or not isinstance(methods, Sequence):
        raise InvalidInput("methods must be a list of methods or a mapping of them by name")
    else:
        named = [(None, method) for method in methods]
    common = {"bounds": bounds, "batch_size": batch_size, "seed": seed, "progress": False}
    explainers = [Explainer.of(method, name, **common) for name, method in named]
    names = [e.name for e in explainers]
    twice = sorted({name for name in names if names.count(name) > 1 or name == CHANCE})
    if not explainers or twice:
        raise InvalidInput(
            f"methods need names of their own, not {twice}: pass a mapping" if twice else "no methods to compare"
        )
    return explainers


def _chance(removal: Removal, seed: int) -> Any:
    """Random relevance of each argument that is changed."""
    inputs = removal.question.inputs
    sites = {site.place for site in removal.sites if inputs.explained(site.place)}
    maps = [random_relevance(v, seed + i) if i in sites else None for i, v in enumerate(inputs.values)]
    return inputs.pack(maps)


def _key(question: Asking, removal: Removal, settings: Mapping[str, Any], references: Any) -> str:
    """What decides the results, as one number: parameters, inputs, answers, features, examples and every setting."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    model = question.model
    named = dict(model.state_dict()) if isinstance(model, nn.Module) else {}
    labels = [site.features.labels for site in removal.sites]
    values: list[tuple[Any, Any]] = [*named.items(), *enumerate(question.inputs.values), *enumerate(labels)]
    for name, value in [*values, ("clean", question.clean), *enumerate(leaves(references))]:
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    target = question.target
    digest.update(repr(target.tolist() if isinstance(target, Tensor) else target).encode())
    return digest.hexdigest()


def _file_name(name: str) -> str:
    """A method's name as that of a file, which no other method has."""
    plain = re.sub(r"[^\w.-]+", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
