"""The first contact with a GPU, rehearsed: every part runs whatever became of the one before, and all is told."""

import json
from dataclasses import replace

import pytest
import torch

from adapter_fast.benchmarks import smoke
from adapter_fast.benchmarks.quarter import main as quarter
from adapter_fast.testing import INPUTS, call, make_inputs


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_told_in_a_line(capsys):
    assert smoke.main() == 2
    assert capsys.readouterr().out.startswith("no CUDA device here: run on a GPU machine")


def test_a_part_that_fails_stops_no_other_and_is_told(monkeypatch, tmp_path, capsys):
    def right(T, d, m):
        if m == 256:
            raise RuntimeError("an illegal address")
        return "right"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, part in {"machine": lambda: {"name": "GPU"}, "right": right, "host_us": lambda: {"forward": 1.0}}.items():
        monkeypatch.setattr(smoke, name, part)
    monkeypatch.setenv("RESULT", str(tmp_path / "found.json"))
    assert smoke.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "FAILED: right at T 2048, d 1024, m 256"
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["host µs a call"] == {"forward": 1.0} and found["right at T 16384, d 1024, m 5"] == "right"
    assert found["right at T 2048, d 1024, m 256"]["error"] == "RuntimeError: an illegal address"
    monkeypatch.setattr(smoke, "SHAPES", smoke.SHAPES[:1])
    assert smoke.main() == 0


def test_the_host_is_timed_on_ours_on_pytorch_and_on_nothing(monkeypatch):
    monkeypatch.setattr(smoke, "HOST", replace(smoke.HOST, device="cpu", dtype=torch.float32))
    monkeypatch.setattr(smoke, "CALLS", 2)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    us = smoke.host_us()
    phases, names = ("forward", "forward and backward"), ("fused", "eager", "nothing")
    assert us.keys() == {f"{phase}, {name}" for phase in phases for name in names}
    assert all(value > 0 for value in us.values())


def test_nothing_has_the_gradients_of_an_adapter():
    case = replace(smoke.HOST, device="cpu")
    inputs = make_inputs(case)
    leaves = [inputs[name] for name in INPUTS[:5]]
    grads = torch.autograd.grad(call(smoke.nothing, case, inputs).sum(), leaves)
    assert [grad.shape for grad in grads] == [leaf.shape for leaf in leaves]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_campaign_without_a_gpu_says_what_each_step_lacked(tmp_path, capsys):
    assert quarter(["first", "--only", "machine", "smoke", "--output", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("smoke") and "no CUDA device here" in lines[-1] and "exit code 2" in lines[-1]
