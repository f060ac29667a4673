"""The command ``view``, as a user types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

import headwater.cli.view  # noqa: F401 (registers the command)
from headwater.cli import app
from tests.viewer.common import Client, samples, stored

MODEL = "tests.viewer.common:model"


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["view", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def test_view(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    (tmp_path / "classes.txt").write_text("shirt\ncoat\nbag\n")
    command = [Path(sys.executable).with_name("headwater"), "view", tmp_path / "store", "--model", MODEL, "--port", "0"]
    command += ["--classes", tmp_path / "classes.txt", "--token"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line
        client = Client(found[0])
        token = client.query.removeprefix("token=")
        end = time.monotonic() + 30
        while client.get("/api/health", Authorization=f"Bearer {token}").status != 200:
            assert time.monotonic() < end
        facts = client.get("/api/store", Authorization=f"Bearer {token}").json()
        assert facts["classes"] == ["shirt", "coat", "bag"]
        assert facts["model"]["same"] is True
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_wrong_arguments(tmp_path: Path) -> None:
    stored(tmp_path / "store", keep_inputs=False)
    assert "no store" in refused(tmp_path / "none")
    assert "no analysis" in refused(tmp_path / "store", "--analysis", tmp_path)
    assert "EXPLANATION=FOLDER" in refused(tmp_path / "store", "--analysis", "a", "--analysis", "b")
    assert "no explanation 'x'" in refused(tmp_path / "store", "--analysis", "x=folder")
    assert "--classes" in refused(tmp_path / "store", "--classes", tmp_path / "none.txt")
    assert "kind must be" in refused(tmp_path / "store", "--kind", "thing")
    np.save(tmp_path / "x.npy", samples(n=5)[0].numpy())
    assert "5 samples" in refused(tmp_path / "store", "--input", tmp_path / "x.npy")
