"""The register of methods: a name, what it is composed of, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.errors import InvalidInput

REVIEW = (
    "Samek, Montavon, Lapuschkin, Anders, Müller: Explaining Deep Neural Networks and Beyond, Proc. IEEE 109(3), 2021"
)
OVERVIEW = "Samek, Wiegand, Müller: Explainable Artificial Intelligence, ITU Journal 1(1), 2018"
THESIS = "Chormai: Designing Recurrent Neural Networks for Explainability, TU Berlin, 2018"
LRP = "Bach et al.: On Pixel-Wise Explanations for Non-Linear Classifier Decisions by LRP, PLoS ONE 10(7), 2015"


@dataclass(frozen=True)
class Method:
    """One method of explanation.

    Attributes:
        name, abbreviation: as the papers' glossary has them; ``family``: the engine that runs it.
        source: where it comes from; ``needs``: what it needs of a model.
        composite: the preset it runs with.
        result: what of the walk it returns: "relevance", "factor" or "absolute".
        complete: its relevance sums to the explained score, up to what the ledger names.
    """

    name: str
    abbreviation: str
    family: str
    source: str
    needs: str
    composite: str = "default"
    result: str = "relevance"
    complete: bool = True


class Register(tuple[Method, ...]):
    """The rows of the register; prints as a table."""

    def __str__(self) -> str:
        lines = [f"{'name':32} {'abbr.':10} {'family':10} {'needs':34} source"]
        lines += [f"{m.name:32} {m.abbreviation:10} {m.family:10} {m.needs:34} {m.source}" for m in self]
        return "\n".join(lines)

    __repr__ = __str__


_GRADIENT = "a differentiable model"
_OPERATORS = "operators with a treatment"
_RELU = "ReLU-like activations"


def _relevance(name: str, abbreviation: str, source: str, composite: str, complete: bool = True) -> Method:
    return Method(name, abbreviation, "propagate", source, _OPERATORS, composite, complete=complete)


def _gradient(
    name: str, abbreviation: str, source: str, composite: str = "gradient", result: str = "factor",
    needs: str = _GRADIENT,
) -> Method:  # fmt: skip
    return Method(name, abbreviation, "propagate", source, needs, composite, result, complete=False)


_METHODS = Register(
    (
        _relevance("lrp", "LRP", f"{LRP}; {REVIEW}", "default"),
        _relevance("deep_taylor", "DTD", f"Montavon et al. 2017; {REVIEW}; {THESIS}", "deep_taylor"),
        _relevance("attnlrp", "AttnLRP", "Achtibat et al.: AttnLRP, ICML 2024", "attnlrp"),
        _relevance("cplrp", "CP-LRP", "Ali et al.: XAI for Transformers, ICML 2022", "cplrp"),
        _relevance("excitation_backprop", "EB", f"Zhang et al. 2018; {REVIEW}", "excitation_backprop"),
        _relevance(
            "contrastive_excitation_backprop", "c-EB", f"Zhang et al. 2018; {REVIEW}",
            "contrastive_excitation_backprop", complete=False,
        ),
        _gradient("gradient", "Grad", f"Simonyan et al. 2014; {REVIEW}"),
        _gradient("sensitivity", "SA", f"{OVERVIEW}; {THESIS}", result="absolute"),
        _gradient("gradient_x_input", "GI", f"Shrikumar et al. 2017; {REVIEW}", result="relevance"),
        _gradient("guided_backprop", "GB", f"Springenberg et al. 2015; {THESIS}", "guided_backprop", needs=_RELU),
        _gradient("deconvnet", "Deconv", f"Zeiler and Fergus 2014; {REVIEW}", "deconvnet", needs=_RELU),
    )
)  # fmt: skip


def methods() -> Register:
    """All methods, as rows with ``name``, ``abbreviation``, ``family``, ``source`` and ``needs``; prints as a table."""
    return _METHODS


def find(name: str) -> Method:
    """A method by name or abbreviation.

    Raises:
        InvalidInput: for an unknown name; the text lists the known ones.
    """
    for method in _METHODS:
        if name in (method.name, method.abbreviation):
            return method
    raise InvalidInput(f"Unknown method {name!r}: choose from {', '.join(m.name for m in _METHODS)}")
