"""The rehearsal of GPU commands: Triton's frontend and launchers are real, and faults before a launch turn it red."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ADAPTER = """
import torch
from adapter_fast import FusedAdapter
adapter = FusedAdapter(64, 16, init_std=0.1, device="cuda", dtype=torch.bfloat16)
x = torch.randn(100, 64, device="cuda", dtype=torch.bfloat16)
assert x.device.type == "cuda" and adapter.explain(x).name == "triton"
adapter(x).sum().backward()
"""


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    """A rehearsed command: what it printed, and its exit code."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.delenv("TRITON_INTERPRET")

    def run(*command, code=0):
        line = [sys.executable, "-m", "benchmarks.rehearse", "--folder", str(tmp_path), *command]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    return run


def kernels(folder):
    return [json.loads(line) for line in (folder / "kernels.jsonl").read_text().splitlines()]


def test_gpu_tests_pass_and_their_launches_are_counted(rehearse):
    words = ["-p", "no:cacheprovider", "-q", "-m", "gpu", "tests/kernels/test_gpu.py", "-k"]
    some = "error_budget_16_bit and 127-1000-64 or capture and 64 or exact_products and not highest"
    text = rehearse("-m", "pytest", *words, some)
    assert "6 passed" in text
    assert "0 launches" not in text and "rehearsed: exit code 0" in text


def test_a_process_that_a_command_starts_is_rehearsed_too(rehearse, tmp_path):
    text = rehearse("-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ADAPTER!r}], check=True)")
    assert "4 launches" in text  # one forward, three backward
    assert {row["kernel"] for row in kernels(tmp_path)} == {
        "bottleneck_forward_kernel", "bottleneck_dx_kernel", "weight_grad_kernel", "reduce_kernel"
    }  # fmt: skip


def test_compiled_to_binaries_once(rehearse):
    forward = ADAPTER.replace(".sum().backward()", "")
    assert "1 launches, 1 kernels, 1 compiled" in rehearse("--compile", "-c", forward)
    assert "1 launches, 1 kernels, 0 compiled" in rehearse("--compile", "-c", forward)
    # What was only read by the frontend is no binary: the cache keeps the two apart.
    assert "1 read by Triton's frontend" in rehearse("-c", forward)


FAULTS = """
import sys, torch, triton, triton.language as tl

@triton.jit
def right(out_ptr, n, BLOCK: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, BLOCK), n)

@triton.jit
def wrong_types(out_ptr, n, BLOCK: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, BLOCK), tl.dot(1.0, out_ptr))

@triton.jit
def wrong_names(out_ptr, n, BLOCK: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, BLOCK), nowhere)

out = torch.empty(64, device="cuda")

def launched(kernel=right, grid=1, arguments=(out, 64, 64), **options):
    try:
        compiled = kernel[(grid,)](out, 64, BLOCK=64, **options)
        compiled[(1, 1, 1)](*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "launched"

print("none:", launched())
print("arguments:", launched(arguments=(out, 64)))
print("types:", launched(wrong_types))
print("names:", launched(wrong_names))
print("grid:", launched(grid=2**31))
print("cooperative:", launched(grid=100000, launch_cooperative_grid=True))
sys.exit(7)
"""


def test_a_fault_before_the_launch_is_seen(rehearse, tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    text = rehearse(str(tmp_path / "faults.py"), code=7)
    found = dict(re.findall(r"^(\w+): ((?:(?!^\w+: ).)*)", text, re.MULTILINE | re.DOTALL))
    assert found["none"].strip() == "launched"
    assert "takes 3 arguments, got 2" in found["arguments"]
    assert "CompilationError" in found["types"]
    assert "nowhere is not defined" in found["names"]
    assert "Error" in found["grid"]
    assert "too many blocks in cooperative launch" in found["cooperative"]
    assert "3 launches" in found["rehearsed"]


def test_a_part_of_the_quarter_hour_from_its_first_step_to_its_table(rehearse, tmp_path):
    """Quick: `make rehearse` has every step of both parts, compiled."""
    command = ["-m", "benchmarks.quarter", "first", "--patience", "20", "--output", str(tmp_path / "out")]
    text = rehearse(*command, "--only", "machine", "smoke", "launches")
    assert re.findall(r"^(\w+) +ok ", text, re.MULTILINE) == ["machine", "smoke", "launches"]
    results = json.loads((tmp_path / "out/first.json").read_text())["results"]
    assert "error" not in json.dumps(results["smoke"])
    assert {row["launch"] for row in results["launches"]} >= {"forward", "dx", "weight_grad", "reduce"}


def test_what_launches_nothing_fails(rehearse):
    assert "nothing was launched" in rehearse("-c", "import torch; assert torch.cuda.is_available()", code=1)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["benchmarks.tiles.sanitize", "benchmarks.tiles.ncu"])
def test_commands_that_need_tools_of_nvidia(module, rehearse, tmp_path):
    options = {
        "benchmarks.tiles.sanitize": ["--tool", "memcheck"],
        "benchmarks.tiles.ncu": ["--quick", "--output", str(tmp_path)],
    }
    text = rehearse("-m", module, *options[module])
    assert "clean, " in text or "rehearsed-h100" in text


def test_results_are_not_mistaken_for_measured_ones(rehearse):
    rehearse("-c", ADAPTER + "assert torch.cuda.get_device_name().startswith('Rehearsed ')")


def test_outside_of_a_rehearsal_nothing_is_changed(monkeypatch):
    """The folder on the PYTHONPATH alone does nothing."""
    path = os.pathsep.join([str(ROOT / "benchmarks" / "rehearse" / "pretend"), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", path)
    line = "import torch; assert not torch.cuda.is_available(); assert torch.empty(1).device.type == 'cpu'"
    subprocess.run([sys.executable, "-c", line], check=True)
