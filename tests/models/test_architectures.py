"""``hw.explain(model, x)`` on the architectures that people use, with no argument but those two."""

from __future__ import annotations

import pytest
import torch

import headwater as hw
from headwater.explanation import leaves
from tests.models import zoo
from tests.models.checks import assert_explains
from tests.reference.audit import assert_accounted, assert_same

TEXT = {"bert", "bert_eager_padded", "gpt2", "llama", "t5", "bert_base", "gpt2_base"}
GRAPHS = {"gcn", "gin", "gat", "gat_v2", "graph_sage"}
LSTMS = {"lstm", "lstm_ids", "gru"}


def needs(name: str) -> None:
    """Skip, by name of the package, where the library that an architecture comes from is not installed."""
    if name in TEXT:
        pytest.importorskip("transformers", reason="transformers is not installed")
    elif name in GRAPHS:
        pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    elif name not in LSTMS | {"unet", "cnn_1d", "cnn_3d"}:
        pytest.importorskip("torchvision", reason="torchvision is not installed")


# A graph attention's softmax subtracts a detached maximum, which draws a warning; the ledger shows what that costs.
pytestmark = pytest.mark.filterwarnings("ignore:detach:headwater.HeadwaterWarning")

ROUNDED = {"llama": 1e-6}  # its norm computes in single precision, whatever the model's
BATCHED = ["vgg", "densenet", "efficientnet", "swin", "lstm", "bert_eager_padded", "llama", "t5", "gat"]


@pytest.mark.parametrize("name", zoo.SMALL)
def test_small_in_single_precision(name: str) -> None:
    needs(name)
    model, x = zoo.build(name)
    assert_explains(model, x, 1e-4)


@pytest.mark.parametrize("name", zoo.SMALL)
def test_small_in_double_precision(name: str) -> None:
    needs(name)
    model, x = zoo.build(name, torch.float64)
    tolerance = ROUNDED.get(name, 1e-9)
    assert_accounted(assert_explains(model, x, tolerance), tolerance)


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_equals_its_samples(name: str) -> None:
    needs(name)
    model, x = zoo.build(name, torch.float64)
    whole = hw.explain(model, x)
    single = hw.explain(model, x, batch_size=1)
    tolerance = ROUNDED.get(name, 1e-8)
    assert_same(tuple(leaves(single.relevance)), tuple(leaves(whole.relevance)), tolerance)
    assert_same(single.output, whole.output, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.LARGE)
def test_published_sizes(name: str) -> None:
    needs(name)
    model, x = zoo.build(name)
    assert_explains(model, x, 1e-4)
