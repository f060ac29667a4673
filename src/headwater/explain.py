"""``hw.explain``: one call from a model and an input to an explanation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from headwater.answer import Answer
from headwater.arguments import Inputs, rule_bounds
from headwater.errors import InvalidInput
from headwater.explanation import Explanation
from headwater.method import Method
from headwater.methods import answer as answer_of
from headwater.methods import find
from headwater.neuralize import Neuralized, explain_estimator, is_estimator
from headwater.neuralize.trees import expected_score
from headwater.pipelines import is_pipeline, opened
from headwater.propagate import ledger as ledgers
from headwater.propagate import soundness
from headwater.propagate.composites import Composite
from headwater.propagate.conditions import conditions
from headwater.propagate.engine import Propagation
from headwater.propagate.places import modules_matching
from headwater.propagate.plan import Plan, plan_calls
from headwater.question import Question, resolve
from headwater.remove.text import is_text, reader


def explain(
    model: Callable[..., Any],
    x: Any,
    target: Any = None,
    method: str = "lrp",
    composite: Composite | str | None = None,
    bounds: Any = None,
    ledger: bool = False,
    layers: Sequence[str] = (),
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
    differentiable: bool = False,
    checkpoint: bool = False,
    compile: bool = False,
    allow_training: bool = False,
    through: Any = None,
    keep: Any = None,
    **options: Any,
) -> Explanation:
    """Explain which parts of an input carried a decision.

    Without more arguments this is LRP for the predicted class with one recipe that serves convolutional, recurrent and
    transformer models: γ = 10 for convolutions, ε = 1e-6 for every other affine operator, AttnLRP for attention,
    constant gates and divisors, secants for activations.

    Args:
        model: a module or any function of tensors; it is left as it was. Also a fitted scikit-learn estimator or
            pipeline: explained as the network that :func:`headwater.neuralize` makes of it, or by removal. Also a
            ``transformers`` pipeline, with what it takes as ``x``; see :func:`headwater.pipelines.opened`.
        x: a tensor ``[N, ...]``, or a tuple / dict of tensors passed on as ``model(*x)`` / ``model(**x)``. Floats are
            explained themselves (masks are not); token ids at their embedding. Also raw text, a string or a list of
            them, for a model of texts and methods that remove: one relevance a word, ``[N, W]``, padded with zeros.
        target: what is explained; see :mod:`headwater.target`. Default: by the output's shape.
        method: a name from :func:`headwater.methods`.
        composite: a preset's name or a :class:`headwater.Composite`; None takes the method's own.
        bounds: ``(low, high)`` of the input's values for rules with a box, each a scalar or broadcastable to ``x``.
        ledger: book what every operator received, passed on and absorbed; costs one walk back for each sample.
        layers: names of modules whose outputs' relevance is returned too, in ``layers`` of the explanation; ``*`` in a
            name stands for anything, and ``NAME:input`` for what a module is given.
        batch_size: rows (samples, or a method's variants of them) that go through the model at a time; where memory
            does not suffice, batches are halved.
        seed: for what is random (sampling methods, dropout under ``allow_training``).
        progress: show a progress bar; None shows one on a terminal where several batches take over a second.
        differentiable: keep the graph, so that the relevance can be differentiated by input and parameters.
        checkpoint: keep only the inputs of the model's blocks and run each block again in the walk back: less memory
            (long sequences, deep models) for one more forward.
        compile: record the explanation of inputs of this shape as a graph of operators, let inductor fuse it, and
            replay it for later inputs; the first call takes seconds. See :class:`headwater.Explainer`.
        allow_training: let dropout be active.
        through: the name of a module (or a dictionary from names to what is kept there): of its output, only the
            channels in ``keep`` pass relevance on, so that the explanation is what they contribute (concept relevance
            propagation: Achtibat et al., Nature Machine Intelligence 5, 2023).
        keep: channels as ints, or a mask of booleans; see :func:`headwater.propagate.conditions.conditions`.
        **options: the method's own, as ``hw.methods()`` lists them (``squared=True`` for ``method="sensitivity"``).

    Returns:
        An :class:`Explanation`; ``relevance`` is shaped like ``x``, with its dtype and device.

    Raises:
        HeadwaterError: every refusal: see :mod:`headwater.errors`.

    Source: Samek et al. 2021 (review), Section V and Algorithms 6-8.
    """
    given = {
        "method": method, "composite": composite, "bounds": bounds, "ledger": ledger, "layers": layers,
        "batch_size": batch_size, "seed": seed, "progress": progress, "differentiable": differentiable,
        "checkpoint": checkpoint, "allow_training": allow_training, "through": through, "keep": keep,
    }  # fmt: skip
    if is_pipeline(model):
        pipe = opened(model, x, target)
        explanation = explain(pipe.model, pipe.x, pipe.target, compile=compile, **given, **options)
        if pipe.words is not None:
            explanation.details["words"] = pipe.words
        return explanation
    if compile:
        from headwater.compiled import explain_recorded  # it records this function

        return explain_recorded(model, x, target, given | options)
    if is_estimator(model):
        return explain_estimator(explain, model, x, target, **given, **options)
    row = find(method)
    soundness.check_model(model, allow_training)
    if is_text(x):
        model, x = reader(model, x, row)
    if bounds is None and composite is not None:
        bounds = rule_bounds(resolve(composite))
    inputs = Inputs.of(x)
    question = Question(
        model, inputs, target, composite, bounds, ledger, modules_matching(model, layers), batch_size, seed,
        progress, differentiable, allow_training, through=conditions(model, through, keep), checkpoint=checkpoint,
    )  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad(), soundness.eager(), inputs.taken_by(model):
        answer = answer_of(row, question, options)
    return _explanation(row, question, answer)


def plan(
    model: Callable[..., Any], x: Any, composite: Composite | str | None = None, method: str = "lrp", bounds: Any = None
) -> Plan:
    """Every operator call of a model and its rule or gap; nothing is explained.

    Args:
        model, x, composite, method, bounds: as for :func:`explain`.

    Returns:
        rows with ``layer``, ``operator``, ``kind``, ``rule``, ``shape``, ``depth`` and ``status``; prints as a table.

    Raises:
        HeadwaterError: as :func:`explain`, except that operators without a treatment are rows, not errors.
        InvalidInput: for a method that walks no rules back.
    """
    row = find(method)
    if is_pipeline(model):
        pipe = opened(model, x, 0)  # no target is needed to run it
        model, x = pipe.model, pipe.x
    if not row.composite:
        raise InvalidInput(f"Method {method!r} has no rules to plan: it is {row.composition}")
    soundness.check_model(model)
    inputs = Inputs.of(x)
    walk = Question(model, inputs, composite=composite, bounds=bounds).walker(row.composite)
    engine = Propagation(walk.composite, model, planning=True, seed=0)
    with torch.inference_mode(False), torch.enable_grad(), soundness.eager(), inputs.taken_by(model):
        try:
            entered = walk.enter(engine, inputs)
            with engine:
                return plan_calls(engine, lambda: inputs.call(model, entered))
        finally:
            engine.close()


def _explanation(row: Method, question: Question, answer: Answer) -> Explanation:
    inputs = question.inputs
    shown = [v.detach() if r is not None else None for v, r in zip(inputs.values, answer.relevance, strict=True)]
    table = resolve(question.composite or row.composite) if row.composite else None
    reference = answer.reference
    if reference is None:
        core = question.model.core if isinstance(question.model, Neuralized) else question.model
        reference = expected_score(core, answer.target, answer.output)
    return Explanation(
        relevance=inputs.pack(answer.relevance), output=answer.output, reference=reference, target=answer.target,
        method=row.name, composite="" if table is None else table.name if table.name != "custom" else repr(table),
        complete=row.complete and not question.through and not (table is not None and table.plain),
        inputs=inputs.pack(shown),
        layers=answer.layers, ledger=None if answer.rows is None else ledgers.Ledger(answer.rows),
        details=answer.details, sources=tuple(row.source.split("; ")),
    )  # fmt: skip
