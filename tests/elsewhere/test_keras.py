"""Keras 3 on its backend of torch, in a process of its own: Keras reads its backend once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import keras
import torch
from keras import layers as k
from headwater.errors import InvalidInput
from headwater.loaders import load_model
from headwater.loaders.files import ChannelsLast
from tests.elsewhere.checks import assert_explained
import headwater as hw

torch.manual_seed(0)
keras.utils.set_random_seed(0)
folder = sys.argv[1]


def chain(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def attending():
    given = keras.Input((7, 16))
    mixed = k.LayerNormalization()(k.MultiHeadAttention(2, 8)(given, given) + given)
    return keras.Model(given, k.Dense(3)(k.GlobalAveragePooling1D()(k.Dense(16, activation="gelu")(mixed))))


pictures = torch.rand(2, 16, 16, 3)
series = torch.randn(2, 7, 6)
net = chain((16, 16, 3), k.Conv2D(8, 3, strides=2, padding="same", activation="relu"), k.BatchNormalization(),
            k.DepthwiseConv2D(3, padding="same"), k.LeakyReLU(), k.SeparableConv2D(8, 3, activation="swish"),
            k.MaxPooling2D(2), k.Conv2DTranspose(4, 3), k.UpSampling2D(2), k.Dropout(0.3), k.ZeroPadding2D(1),
            k.AveragePooling2D(2), k.Flatten(), k.Dense(5))
assert_explained(net, pictures)
for layer in (k.LSTM(8), k.GRU(8), k.GRU(8, reset_after=False), k.SimpleRNN(8), k.Bidirectional(k.LSTM(4))):
    assert_explained(chain((7, 6), layer, k.Dense(3)), series)
assert_explained(attending(), torch.randn(2, 7, 16))
ids = torch.randint(0, 9, (2, 5))
words = [k.Embedding(9, 4), k.Conv1D(4, 3, padding="causal"), k.GlobalMaxPooling1D(), k.Dense(3)]
assert_explained(keras.Sequential([keras.Input((5,), dtype="int32"), *words]), ids)

# A chain of Keras is the same chain of torch.
dense = chain((4,), k.Dense(6, activation="relu"), k.Dense(3))
weights = [torch.tensor(w) for w in dense.get_weights()]
same = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).eval()
same.load_state_dict({"0.weight": weights[0].T, "0.bias": weights[1], "2.weight": weights[2].T, "2.bias": weights[3]})
x = torch.randn(3, 4)
for composite in ("epsilon", "epsilon_plus"):
    found, expected = (hw.explain(m, x, composite=composite).relevance for m in (dense, same))
    torch.testing.assert_close(found, expected)

net.save(f"{folder}/net.keras")
loaded = load_model(f"{folder}/net.keras")
assert loaded.size == (16, 16) and isinstance(loaded.model, ChannelsLast)
last = assert_explained(loaded.model, pictures).relevance
first = assert_explained(loaded.model, pictures.movedim(-1, 1)).relevance
torch.testing.assert_close(first.movedim(1, -1), last)

chain((4,), k.Lambda(lambda x: x + 1)).save(f"{folder}/lambda.keras")
open(f"{folder}/broken.keras", "wb").write(b"nothing")
for name in ("lambda", "broken"):
    try:
        load_model(f"{folder}/{name}.keras")
    except InvalidInput as error:
        print(name, error)
    else:
        raise AssertionError(f"{name} was loaded")
print("all explained")
"""


def run(program: str, folder: Path, backend: str = "torch") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    surroundings = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(folder), "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=surroundings, capture_output=True, text=True, timeout=300
    )


def test_layers_files_and_refusals(tmp_path: Path) -> None:
    done = run(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "all explained"
