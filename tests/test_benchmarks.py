"""The benchmarks measure what they say: turns, percentiles, peaks, floors, rows; and one small run end to end."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from benchmarks.cases import OpCase, op_cases
from benchmarks.check import assert_correct, expected
from benchmarks.files import write_whole
from benchmarks.harness import Spread, interleave, repeated, spread
from benchmarks.memory import peak_bytes
from benchmarks.provenance import provenance, slug
from benchmarks.roofline import floor_us, minimal_bytes
from benchmarks.rows import Row, op_row, table, write_rows

ROOT = Path(__file__).parents[1]
FIELDS = [
    "suite",
    "case",
    "provider",
    "phase",
    "mode",
    "dtype",
    "tokens",
    "hidden",
    "bottleneck",
    "us_p20",
    "us_p50",
    "us_p80",
    "peak_bytes",
    "floor_us",
    "copy_gbps",
    "device",
    "torch",
    "triton",
    "transformers",
    "commit",
    "date",
]


def test_providers_take_turns_there_and_back():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "AB"}
    times = interleave(calls, lambda call: call() or float(len(seen)), rounds=2)
    assert "".join(seen) == "ABBAABBA"
    assert times["A"].p50 == 4.5  # turns 1, 4, 5, 8
    assert times["B"].p50 == 4.5  # turns 2, 3, 6, 7: no provider is favoured


def test_percentiles():
    assert spread(range(1, 12)) == Spread(3, 6, 9)


def test_repeated_gives_the_time_of_one_call():
    calls = []
    assert repeated(lambda: calls.append(0), 4, lambda run: run() or 20.0) == 5.0
    assert len(calls) == 4


def test_peak_is_the_highest_sum_of_live_allocations():
    def call():
        a = torch.empty(1000, dtype=torch.uint8)
        b = torch.empty(500, dtype=torch.uint8)
        del a
        c = torch.empty(700, dtype=torch.uint8)
        return b, c

    assert peak_bytes(call, "cpu") == 1500
    assert peak_bytes(lambda: None, "cpu") == 0


@pytest.mark.parametrize(
    ("case", "phase", "microseconds"),
    [
        (OpCase(16384, 768, 64, "bfloat16"), "forward", 16.8),
        (OpCase(16384, 4096, 64, "bfloat16"), "forward", 89.8),
        (OpCase(16384, 768, 64, "bfloat16"), "forward+backward", 43.5),
        (OpCase(65536, 1024, 64, "bfloat16"), "forward+backward", 230),
    ],
)
def test_floor_is_the_roofline_tables(case, phase, microseconds):
    assert floor_us(case, phase, copy_gbps=3000) == pytest.approx(microseconds, rel=0.01)


def test_minimal_bytes_by_hand():
    assert minimal_bytes(OpCase(10, 4, 2), "forward") == 4 * (40 + 40 + 8 + 8 + 4 + 2)


def test_the_grids_are_the_issues():
    grid = {(case.hidden, case.bottleneck, case.tokens) for case in op_cases("cuda", quick=False)}
    assert grid == {(d, m, T) for d in (768, 1024, 4096) for m in (16, 64, 256) for T in (128, 2048, 16384)}
    assert all(case.dtype == "bfloat16" for case in op_cases("cuda", quick=False))
    assert op_cases("cpu", quick=False)[0] == OpCase(4096, 768, 64, "float32")


def test_inputs_are_seeded_and_of_the_size_they_say():
    case = OpCase(5, 7, 3)
    one, same, other = case.make("cpu", 1), case.make("cpu", 1), case.make("cpu", 2)
    assert torch.equal(one.x, same.x) and not torch.equal(one.x, other.x)
    assert one.nbytes == 4 * (35 + 21 + 3 + 21 + 7 + 35)


def test_a_wrong_result_is_not_timed():
    case = OpCase(32, 16, 8)
    inputs = case.make("cpu")
    right = expected(case, inputs)
    assert_correct("right", case, (right[0], right[1:]), inputs)
    for index, name in enumerate(("y", "dx", "dw_down", "db_down", "dw_up", "db_up")):
        wrong = list(right)
        wrong[index] = wrong[index] * 1.001
        with pytest.raises(AssertionError, match=f"T32-d16-m8-float32: {name}: max error"):
            assert_correct("wrong", case, (wrong[0], wrong[1:]), inputs)
    with pytest.raises(AssertionError, match="y: 512 of 512 elements not finite"):
        assert_correct("wrong", case, right[0] * float("nan"), inputs)


def row(provider="fused", p50=10.0, peak=50):
    origin = dict.fromkeys(("torch", "triton", "transformers", "commit", "date"), "x") | {"device": "NVIDIA H100"}
    case = OpCase(128, 768, 16, "bfloat16")
    return op_row(case, provider, "forward", "eager", Spread(p50 - 1, p50, p50 + 1), peak, 5.0, 3000.0, origin)


def test_rows_have_the_agreed_fields_and_are_written_whole(tmp_path):
    assert [field.name for field in fields(Row)] == FIELDS
    path = write_rows([row(), row("reference")], tmp_path)
    assert path == tmp_path / "nvidia-h100" / "op.json"
    assert [list(read) for read in json.loads(path.read_text())] == [FIELDS, FIELDS]
    assert [file.name for file in path.parent.iterdir()] == ["op.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = write_whole(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_table_compares_with_the_reference():
    lines = table([row(), row("reference", p50=20.0, peak=100)]).splitlines()
    [fused] = [line for line in lines if "fused" in line]
    assert fused.split()[-5:] == ["11.0", "2.00", "50", "0.00", "0.50"]


def test_provenance():
    assert list(provenance("cpu")) == FIELDS[-6:]
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("Intel(R) Xeon(R) Processor, 2 threads") == "intel-xeon-processor-2-threads"


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "benchmarks.op", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_quick_run_end_to_end(tmp_path):
    options = ["--device", "cpu", "--quick", "--providers", "fused", "reference", "--output", str(tmp_path)]
    done = run(*options)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*/op.json")
    rows = json.loads(path.read_text())
    assert {(r["provider"], r["phase"], r["mode"]) for r in rows} == {
        (provider, phase, "eager") for provider in ("fused", "reference") for phase in ("forward", "forward+backward")
    }
    assert all(r["peak_bytes"] > 0 and r["floor_us"] > 0 and r["us_p20"] <= r["us_p50"] <= r["us_p80"] for r in rows)
    assert "1 thread" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_told_in_a_line():
    done = run("--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.strip() == "no CUDA device here: run on a GPU machine, or with --device cpu"


@pytest.mark.gpu
def test_quick_run_on_a_gpu(tmp_path):
    done = run("--device", "cuda", "--quick", "--providers", "fused", "reference", "compile", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*/op.json")
    assert {r["mode"] for r in json.loads(path.read_text())} == {"eager", "graph-cold", "graph-hot"}
