"""Models spread over processes and devices are explained where they lie: each process gets its samples' relevance."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.errors import UnsupportedOperator
from tests.elsewhere.checks import Convolutional, Recurrent, assert_as, given

ROOT = Path(__file__).parents[2]
PROGRAM = """
import copy
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
import headwater as hw
from tests.elsewhere.checks import Attending, Convolutional, assert_explained, given

dist.init_process_group("gloo")
torch.set_num_threads(1)
rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))


def sharded(model, again, parts=()):
    for part in parts:
        fully_shard(getattr(model, part), mesh=mesh, reshard_after_forward=again)
    return fully_shard(model, mesh=mesh, reshard_after_forward=again)


def refused(model, x, remedy):
    try:
        hw.explain(model, x)
    except hw.HeadwaterError as error:
        assert remedy in str(error), error
    else:
        raise AssertionError("explained")


for kind in (Attending, Convolutional):
    torch.manual_seed(0)
    model, x = given(kind, samples=4)
    own = x[2 * rank : 2 * rank + 2]
    spread = {
        "ddp": DistributedDataParallel(copy.deepcopy(model)).eval(),
        **({"fsdp": sharded(copy.deepcopy(model), True, ["layer", "head"])} if kind is Attending else {}),
        "fsdp, kept": sharded(copy.deepcopy(model), False, [name for name, _ in model.named_children()]),
    }
    for name, parallel in spread.items():
        for composite in ("epsilon", "epsilon_plus", None):
            # Convolutions are given back after the first walk; the ledger needs one for each sample.
            explain = hw.explain if kind is Convolutional and name != "ddp" else assert_explained
            found = explain(parallel, own, composite=composite).relevance
            expected = hw.explain(model, x, composite=composite).relevance[2 * rank : 2 * rank + 2]
            torch.testing.assert_close(found, expected, msg=lambda text: f"{name}, {composite}: {text}")
        found = hw.explain(parallel, own, method="integrated_gradients", steps=4).relevance
        torch.testing.assert_close(found, hw.explain(model, own, method="integrated_gradients", steps=4).relevance)
refused(FullyShardedDataParallel(copy.deepcopy(model), device_id=torch.device("cpu")).eval(), own, "fully_shard")
dist.barrier()
dist.destroy_process_group()
print("all explained")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_data_parallel_and_sharded_over_processes() -> None:
    common = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env={**common, "RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
            assert "all explained" in out
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("kind", [Convolutional, Recurrent])
@pytest.mark.parametrize("where", ["memory", "disk", "a part"])
def test_weights_that_are_brought_for_each_call(kind: type[nn.Module], where: str, tmp_path: Path) -> None:
    """What ``device_map`` does: hooks move each part's weights to its device, and away again."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    model, x = given(kind)
    spread, cpu = copy.deepcopy(model), torch.device("cpu")
    if where == "memory":
        accelerate.cpu_offload(spread, execution_device=cpu)
    elif where == "disk":
        accelerate.disk_offload(spread, str(tmp_path), execution_device=cpu)
    else:
        places = {name: ("disk" if i % 2 else "cpu") for i, (name, _) in enumerate(spread.named_children())}
        spread = accelerate.dispatch_model(spread, places, main_device="cpu", offload_dir=str(tmp_path))
    before = {name: (type(p), p.device) for name, p in spread.named_parameters()}
    for composite in (None, "epsilon_plus"):
        assert_as(spread, model, x, composite=composite)
    assert {name: (type(p), p.device) for name, p in spread.named_parameters()} == before


class Replicas(nn.DataParallel[nn.Module]):
    """Runs copies on threads, as several devices would have it."""

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(2) as pool:
            return torch.cat(list(pool.map(self.module, x.chunk(2))))


def test_data_parallel() -> None:
    model, x = given(Convolutional)
    assert_as(nn.DataParallel(model).eval(), model, x)


def test_several_devices_of_data_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = given(Convolutional)
    monkeypatch.setattr(nn.DataParallel, "forward", Replicas.forward)
    assert_as(nn.DataParallel(model).eval(), model, x)


def test_threads_within_a_model_are_refused() -> None:
    model, x = given(Convolutional)
    with pytest.raises(UnsupportedOperator, match="cannot be seen"):
        hw.explain(Replicas(model).eval(), x)


@pytest.mark.parametrize("method", ["lrp", "gradient_x_input", "integrated_gradients"])
def test_several_threads_at_once(method: str) -> None:
    """The same model and others, explained at the same time, as one after the other."""
    models = [given(kind)[0] for kind in (Convolutional, Recurrent, Convolutional)]
    models.append(models[0])
    inputs = [given(type(model))[1] for model in models]

    def explained(i: int) -> Tensor:
        return hw.explain(models[i % 4], inputs[i % 4], method=method).relevance

    expected = [explained(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(explained, range(24))):
            torch.testing.assert_close(found, expected[i % 4])
