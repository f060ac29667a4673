"""The table of the micro networks: name to network, float64, without biases unless the bias is the point."""

from __future__ import annotations

from tests.micro import (
    networks_affine,
    networks_attention,
    networks_indexing,
    networks_operands,
    networks_pointwise,
    networks_pooling,
    networks_recurrent,
    networks_structure,
)
from tests.micro.construct import Network

NETWORKS: dict[str, Network] = {}
for family in (
    networks_affine,
    networks_pointwise,
    networks_pooling,
    networks_recurrent,
    networks_attention,
    networks_indexing,
    networks_operands,
    networks_structure,
):
    assert not NETWORKS.keys() & family.NETWORKS.keys(), f"a name of {family.__name__} is taken"
    NETWORKS.update(family.NETWORKS)
