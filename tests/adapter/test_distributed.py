"""Two gloo processes on the CPU, launched by torchrun: what data, sharded and tensor parallelism leave the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_trainer import train

from adapter_fast.ops import launch
from adapter_fast.testing import Case, assert_case

ROOT = Path(__file__).parents[2]


def torchrun(folder: Path, speed: str) -> None:
    """Run launch_checks.py's checks of this speed; AssertionError with what the one that failed said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests/helpers/launch_checks.py"), str(folder), speed]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    outcomes = {path.stem: json.loads(path.read_text()) for path in folder.glob("?.json")}
    for rank, outcome in outcomes.items():
        assert isinstance(outcome, list), f"process {rank}, {outcome}"
    assert done.returncode == 0, done.stderr[-4000:]
    assert outcomes["0"] == outcomes["1"] and len(outcomes["0"]) > 10


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torchrun(tmp_path, "quick")
    model, world = train(tmp_path / "single", rows=4)
    assert world == 1
    expected = dict(model.named_parameters())
    start = dict(train(tmp_path / "start", rows=1)[0].named_parameters())
    for rank in (0, 1):
        trained = torch.load(tmp_path / f"trained-{rank}.pt", weights_only=True)
        assert trained.keys() == expected.keys()
        for name, value in trained.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(start[name], value, rtol=1e-2) for name, value in trained.items())


@pytest.mark.slow
def test_two_processes_by_the_libraries_that_set_them_up(tmp_path):
    torchrun(tmp_path, "slow")


def test_launches_go_to_the_device_of_their_tensors(monkeypatch):
    """Everything that launches runs inside the guard, and the guard enters a device that is not the current one."""
    entered = []

    @contextmanager
    def guard(device):
        entered.append(device)
        yield
        entered.pop()

    def kernels(name):
        module = real(name)
        return type("Watched", (), {"__getattr__": lambda _, attribute: watched(getattr(module, attribute))})()

    def watched(thing):
        if not getattr(thing, "__name__", "").startswith("launch_"):
            return thing

        def launched(*args):
            assert entered == [torch.device("cpu")], thing.__name__
            seen.add(thing.__name__)
            return thing(*args)

        return launched

    real, seen = launch.kernels, set()
    monkeypatch.setattr(launch, "_on", guard)
    monkeypatch.setattr(launch, "kernels", kernels)
    from adapter_fast import fused_adapter

    assert_case(fused_adapter, Case(9, 12, 5))
    assert {"launch_forward", "launch_dx", "launch_weight_grad", "launch_reduce"} <= seen
    monkeypatch.undo()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: device)
    assert launch._on(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert launch._on(torch.device("cuda", 0)) is launch._HERE
    assert launch._on(torch.device("cpu")) is launch._HERE
