"""The census's graph networks: models and convolutions of torch_geometric, between linear layers on a small graph."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.census_subjects import Built, Subject

NODES, WIDTH = 6, 8

# Convolutions by what they are called with beside node features and edges: () nothing, "weights" one number an edge,
# "features" a row an edge, "types" a relation an edge, "first" the features before any convolution.
_CONVOLUTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "GCNConv": ("weights", {}),
    "ChebConv": ("weights", {"K": 3}),
    "SAGEConv": ("", {}),
    "GraphConv": ("weights", {}),
    "ResGatedGraphConv": ("", {}),
    "GATConv": ("", {"heads": 2, "concat": False}),
    "GATv2Conv": ("", {"heads": 2, "concat": False}),
    "TransformerConv": ("", {"heads": 2, "concat": False, "beta": True}),
    "TAGConv": ("weights", {}),
    "ARMAConv": ("weights", {"num_stacks": 2, "num_layers": 2}),
    "SGConv": ("weights", {"K": 2}),
    "SSGConv": ("weights", {"alpha": 0.1, "K": 2}),
    "MFConv": ("", {}),
    "NNConv": ("features", {"nn": nn.Linear(4, WIDTH * WIDTH)}),
    "CGConv": ("", {}),
    "LEConv": ("weights", {}),
    "ClusterGCNConv": ("", {}),
    "GENConv": ("", {"aggr": "softmax"}),
    "FeaStConv": ("", {"heads": 2}),
    "HypergraphConv": ("", {}),
    "FiLMConv": ("", {}),
    "SuperGATConv": ("", {"heads": 2, "concat": False, "is_undirected": True}),
    "EGConv": ("", {"num_heads": 2, "num_bases": 2}),
    "GeneralConv": ("", {"attention": True}),
    "SimpleConv": ("weights", {"aggr": "max"}),
    "RGCNConv": ("types", {"num_relations": 3}),
    "FastRGCNConv": ("types", {"num_relations": 3}),
    "RGATConv": ("types", {"num_relations": 3}),
    "PNAConv": ("", {"aggregators": ["mean", "max", "std", "var"], "scalers": ["identity", "attenuation"],
                     "deg": torch.tensor([0, 1, 3, 2])}),
    "LGConv": ("weights", {}),
    "AGNNConv": ("", {}),
    "APPNP": ("weights", {"K": 3, "alpha": 0.1}),
    "GatedGraphConv": ("weights", {"num_layers": 2}),
    "GINConv": ("", {"nn": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())}),
    "GINEConv": ("features", {"nn": nn.Linear(WIDTH, WIDTH), "edge_dim": 4}),
    "EdgeConv": ("", {"nn": nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU())}),
    "GCN2Conv": ("first", {"alpha": 0.1, "theta": 0.5, "layer": 1}),
    "FAConv": ("first", {}),
    "WLConvContinuous": ("", {}),
    "MixHopConv": ("weights", {"powers": [0, 1]}),
    "AntiSymmetricConv": ("", {}),
    "DirGNNConv": ("", {"conv": ("SAGEConv", {})}),
    "MeshCNNConv": ("", {}),
}  # fmt: skip
_NO_WIDTHS = {"SimpleConv", "LGConv", "AGNNConv", "APPNP", "GINConv", "GINEConv", "EdgeConv", "WLConvContinuous",
              "DirGNNConv"}  # fmt: skip
_ONE_WIDTH = {"GCN2Conv", "FAConv", "CGConv", "GatedGraphConv", "AntiSymmetricConv"}
_MODELS: dict[str, dict[str, Any]] = {
    "GCN": {}, "GraphSAGE": {}, "GIN": {}, "GAT": {"heads": 2}, "EdgeCNN": {}, "GraphUNet": {"depth": 2},
    "PNA": {"aggregators": ["mean", "max"], "scalers": ["identity"], "deg": torch.tensor([0, 1, 3, 2])},
    "LINKX": {"num_nodes": NODES},
}  # fmt: skip
_POOLS = ["global_add_pool", "global_mean_pool", "global_max_pool"]
_AGGREGATIONS: dict[str, dict[str, Any]] = {
    "SoftmaxAggregation": {"learn": True}, "PowerMeanAggregation": {}, "MedianAggregation": {}, "VarAggregation": {},
    "StdAggregation": {}, "LSTMAggregation": {"in_channels": WIDTH, "out_channels": WIDTH},
    "Set2Set": {"in_channels": WIDTH, "processing_steps": 2}, "MulAggregation": {}, "MinAggregation": {},
    "DegreeScalerAggregation": {"aggr": ["mean"], "scaler": ["linear"], "deg": torch.tensor([0, 1, 3, 2])},
    "AttentionalAggregation": {"gate_nn": nn.Linear(WIDTH, 1)}, "SortAggregation": {"k": 3},
    "GRUAggregation": {"in_channels": WIDTH, "out_channels": WIDTH},
    "MLPAggregation": {"in_channels": WIDTH, "out_channels": WIDTH, "max_num_elements": NODES, "num_layers": 1},
    "SetTransformerAggregation": {"channels": WIDTH, "heads": 2},
    "DeepSetsAggregation": {"local_nn": nn.Linear(WIDTH, WIDTH), "global_nn": nn.Linear(WIDTH, WIDTH)},
}  # fmt: skip
_NORMS = "BatchNorm InstanceNorm LayerNorm GraphNorm GraphSizeNorm PairNorm MeanSubtractionNorm MessageNorm"
_SIZED_NORMS = {"BatchNorm", "InstanceNorm", "LayerNorm", "GraphNorm"}


class Graph(nn.Module):
    """Features ``[graphs, nodes, features]`` of graphs of one shape, to scores ``[graphs, classes]``."""

    def __init__(self, core: nn.Module | Callable[..., Tensor], call: Callable[..., Tensor], pooled: bool) -> None:
        super().__init__()
        self.core, self.call, self.pooled = core, call, pooled
        self.enter, self.leave = nn.Linear(5, WIDTH), nn.LazyLinear(3)
        ring = torch.arange(NODES)
        self.register_buffer("edges", torch.stack([ring.repeat(2), torch.cat([(ring + 1) % NODES, ring * 2 % NODES])]))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of each graph."""
        from torch_geometric.nn import global_add_pool

        graphs = len(x)
        start = torch.arange(graphs) * NODES
        edges = (self.edges[:, None] + start[None, :, None]).flatten(1)
        batch = torch.arange(graphs).repeat_interleave(NODES)
        states = self.call(self.core, self.enter(x).relu().flatten(0, 1), edges, batch)
        states = states[0] if isinstance(states, tuple) else states
        return self.leave(states if self.pooled else global_add_pool(states, batch))


def _finished(model: Graph, graphs: int = 1) -> Built:
    x = torch.randn(graphs, NODES, 5)
    with torch.no_grad():
        model.eval()(x)
    return Built(model, x, f"{graphs} graph of {NODES} nodes")


def _convolution(name: str) -> Built:
    library = importlib.import_module("torch_geometric.nn")
    beside, options = _CONVOLUTIONS[name]
    options = {k: getattr(library, v[0])(WIDTH, WIDTH, **v[1]) if k == "conv" else v for k, v in options.items()}
    widths = [] if name in _NO_WIDTHS else [WIDTH] if name in _ONE_WIDTH else [WIDTH, WIDTH]

    def call(core: Any, x: Tensor, edges: Tensor, batch: Tensor) -> Any:
        count = edges.shape[1]
        ramp = torch.linspace(0.5, 1.5, count, dtype=x.dtype)
        if beside == "weights":
            return core(x, edges, edge_weight=ramp)
        if beside == "features":
            return core(x, edges, torch.stack([ramp, ramp**2, -ramp, ramp.sin()], 1))
        if beside == "types":
            return core(x, edges, torch.arange(count) % 3)
        return core(x, x * 2, edges) if beside == "first" else core(x, edges)

    return _finished(Graph(getattr(library, name)(*widths, **options), call, pooled=False))


def _model(name: str) -> Built:
    library = importlib.import_module("torch_geometric.nn")
    if name == "LINKX":
        core = library.LINKX(NODES, WIDTH, WIDTH, WIDTH, num_layers=2)
    elif name == "GraphUNet":
        core = library.GraphUNet(WIDTH, WIDTH, WIDTH, depth=2)
    else:
        core = getattr(library, name)(WIDTH, WIDTH, num_layers=2, **_MODELS[name])
    return _finished(Graph(core, lambda core, x, edges, batch: core(x, edges), pooled=False))


def _pool(name: str) -> Built:
    library = importlib.import_module("torch_geometric.nn")
    function = getattr(library, name)
    return _finished(Graph(nn.Identity(), lambda core, x, edges, batch: function(x, batch), pooled=True))


def _aggregation(name: str) -> Built:
    library = importlib.import_module("torch_geometric.nn.aggr")
    core = getattr(library, name)(**_AGGREGATIONS[name])
    return _finished(Graph(core, lambda core, x, edges, batch: core(x, batch, dim_size=1), pooled=True))


def _norm(name: str) -> Built:
    library = importlib.import_module("torch_geometric.nn")
    core = getattr(library, name)(*([WIDTH] if name in _SIZED_NORMS else []))

    def call(core: Any, x: Tensor, edges: Tensor, batch: Tensor) -> Any:
        return core(x, x.flip(1)) if name == "MessageNorm" else core(x)

    return _finished(Graph(core, call, pooled=False))


def subjects() -> list[Subject]:
    """Models, convolutions, pooling, aggregations and norms, each a subject."""
    importlib.import_module("torch_geometric")
    parts: dict[Callable[[str], Built], list[str]] = {
        _model: list(_MODELS), _convolution: list(_CONVOLUTIONS), _pool: _POOLS, _aggregation: list(_AGGREGATIONS),
        _norm: _NORMS.split(),
    }  # fmt: skip
    return [Subject("torch_geometric", name, partial(build, name)) for build, names in parts.items() for name in names]
