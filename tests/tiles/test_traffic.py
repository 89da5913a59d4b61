"""The traffic model gives the bytes that a hand counts, never beats the floor, and moves the way the cache does."""

import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from adapter_fast.benchmarks.rows import read_rows
from adapter_fast.benchmarks.rows.provenance import RESULTS
from adapter_fast.benchmarks.tiles import kernels_page as pictures
from adapter_fast.benchmarks.tiles import traffic
from adapter_fast.benchmarks.tiles.traffic import (
    Machine,
    chain,
    estimated_programs,
    floor,
    launch_traffic,
    predicted_us,
)
from adapter_fast.kernels.tiles import LaunchConfig, Problem
from adapter_fast.measure.roofline import Shape, minimal_bytes

MB = 1e6
H100 = Problem(D=768, M=64, x_bytes=2, w_bytes=2, precision="ieee", arch="sm_90", sms=132)
FUSED = LaunchConfig("fused", 64, 64, 64, 4, 3)
T = 65536


def forward(config=FUSED, problem=H100, tokens=T, programs=4, **options):
    return launch_traffic("forward", config, problem, tokens, programs, **options)


# ---- against counts by hand


@pytest.mark.parametrize(("m", "block_t"), [(16, 64), (64, 64), (64, 128), (128, 128), (256, 128)])
def test_reads_out_of_the_cache_in_units_of_a_tile_of_x(m, block_t):
    """Two units and 2m/BLOCK_T for weights."""
    problem = replace(H100, M=m)
    X = T * 768 * 2
    fused = forward(LaunchConfig("fused", block_t, 64, m, 8, 3), problem, programs=1)
    assert fused.l2_read / X == pytest.approx(2 + 2 * m / block_t)


@pytest.mark.parametrize(
    ("d", "block_t", "per_sm", "megabytes"),
    [(768, 64, 1, 13), (768, 64, 2, 26), (768, 64, 4, 52), (1024, 128, 1, 35), (4096, 64, 1, 69), (8192, 128, 2, 554)],
)
def test_rows_in_flight(d, block_t, per_sm, megabytes):
    config = replace(FUSED, BLOCK_T=block_t)
    assert traffic.in_flight(config, replace(H100, D=d), T, per_sm) / MB == pytest.approx(megabytes, abs=0.6)
    assert traffic.in_flight(config, replace(H100, D=d), 100, per_sm) == -(-100 // block_t) * block_t * d * 2


def test_a_forward_by_hand():
    X, Z, W, biases = 65536 * 768 * 2, 65536 * 64 * 2, 768 * 64 * 2, (768 + 64) * 2
    one = forward(programs=1)
    assert one.hit == 1.0
    assert one.dram_read == X + 2 * W + biases
    assert one.dram_write == X + 2 * Z  # h and slope
    assert one.flops == 2 * 2 * 65536 * 768 * 64
    assert forward(mode="balanced").dram_write == X + Z
    assert forward(mode="lean").dram_write == forward(mode="inference").dram_write == X
    assert forward(residual="tensor").dram_read == 2 * X + 2 * W + biases
    assert forward(residual="none").l2_read == one.l2_read - X


def test_the_second_reading_goes_to_memory_as_rows_outgrow_the_cache():
    X = T * 4096 * 2
    wide = replace(H100, D=4096)
    held = 4 * 132 * 64 * 4096 * 2 * 2  # what all programs that fit read, and what they write
    one = forward(FUSED, wide)
    assert one.hit == pytest.approx(0.7 * 50 * 2**20 / held)
    assert forward(FUSED, wide, programs=2).hit == pytest.approx(2 * one.hit)
    assert one.dram_read - forward(FUSED, wide, residual="none").dram_read == pytest.approx((1 - one.hit) * X, abs=1)


def test_a_backward_by_hand():
    """Two launches and the sums: dx moves 2X + 2Z, the weight gradients 2X + 2Z."""
    X, Z, W, biases = 65536 * 768 * 2, 65536 * 64 * 2, 768 * 64 * 2, (768 + 64) * 2
    tiles = {"dx": FUSED, "weight_grad": LaunchConfig("fused", 64, 128, 64, 8, 3)}
    dx, grads, reduced = chain("backward", H100, T, lambda *_: 1, choose=lambda phase, _: tiles[phase])
    rows, splits = 65536 // 64, 44  # 2 · 132 programs over 6 tiles of d
    slots, sums = rows * 64 * 4, splits * 768 * (2 * 64 + 1) * 4  # of db_down; of both weights and db_up
    assert (dx.dram_read, dx.dram_write, dx.slots) == (X + Z + 2 * W + biases, X + Z + slots, slots)
    assert (grads.dram_read, grads.dram_write) == (2 * X + 2 * Z, sums)
    assert grads.l2_read == 2 * X + 6 * 2 * Z
    assert (reduced.dram_read, reduced.dram_write) == (0, 2 * W + biases)
    assert reduced.l2_read == slots + sums


def test_lean_reads_x_again_and_computes_z_again():
    X, Z = 65536 * 768 * 2, 65536 * 64 * 2
    speed, balanced, lean = (launch_traffic(phase, FUSED, H100, T, 1) for phase in ("dx", "dx_z", "dx_x"))
    assert balanced.dram_read == speed.dram_read
    assert balanced.dram_write == lean.dram_write == speed.dram_write + Z  # h, which nobody has saved
    assert lean.dram_read == speed.dram_read + X - Z
    assert lean.flops == 1.5 * speed.flops


def test_split_moves_a_third_x_and_re_reads_rows_for_every_tile_of_the_bottleneck():
    wide = replace(H100, M=512)
    X, Z, W = 65536 * 768 * 2, 65536 * 512 * 2, 768 * 512 * 2
    tiles = {"forward": LaunchConfig("split", 64, 64, 128, 4, 3), "expand": LaunchConfig("split", 64, 128, 64, 4, 3)}
    down, up = chain("forward", wide, T, lambda *_: 4, "inference", choose=lambda phase, _: tiles[phase])
    assert down.dram + up.dram == 3 * X + 2 * Z + 2 * W + (768 + 512) * 2
    assert down.l2_read == 4 * X + 1024 * W
    assert up.l2_read == X + 6 * Z + 1024 * W


def test_sliced_passes_partial_sums_around():
    """In units of x, slots are written 2·G·m/d times and read 2·G²·m/d times."""
    d, m, tokens = 4096, 64, 128
    problem = replace(H100, D=d)
    one = forward(LaunchConfig("sliced", 64, 1024, 64, 4, 1), problem, tokens, residual="none")
    X, W, G = tokens * d * 2, d * m * 2, 4
    assert one.programs == 2 * G
    assert (one.l2_read - 2 * 2 * W - X) / X == pytest.approx(2 * G * G * m / d)
    plain = forward(FUSED, problem, tokens, residual="none")
    assert (one.dram_write - plain.dram_write) / X == pytest.approx(2 * G * m / d)


def test_few_tokens_leave_everything_in_the_cache():
    """The weight gradients then read dy and dz where dx has just left them."""
    few = chain("backward", H100, 128, lambda *_: 4)[1]
    many = chain("backward", H100, T, lambda *_: 4)[1]
    assert few.dram_read == 128 * 768 * 2 + 128 * 64 * 2  # x and h
    assert many.dram_read == 2 * 65536 * 768 * 2 + 2 * 65536 * 64 * 2


# ---- predictions


def test_what_bounds_a_launch():
    assert predicted_us(forward(), Machine(l2_gbps=1e4), 132) == (pytest.approx(forward().dram / 3e6), "DRAM")
    slow_cache = Machine(l2_gbps=2000.0)
    # 1024 tiles over 132 multiprocessors: the busiest has 8 of them.
    assert predicted_us(forward(), slow_cache, 132) == (pytest.approx(forward().l2_read * 8 * 132 / 1024 / 2e6), "L2")
    assert predicted_us(forward(), Machine(tflops=10.0), 132)[1] == "products"
    assert predicted_us(forward(tokens=1), Machine(l2_gbps=1e9, step_us=0.0), 132) == (2.0, "launch")


def test_a_launch_that_cannot_fill_the_chip_takes_the_time_of_its_programs_steps():
    """H200, 28.1 µs: two programs of 16 steps and 16 more, whatever the rates."""
    few = replace(H100, D=1024)
    fast = Machine(1e6, 1e6, 1e6)
    assert predicted_us(forward(FUSED, few, 128), fast, 132) == (pytest.approx(28.1, rel=0.02), "latency")
    assert forward(replace(FUSED, BLOCK_D=128), few, 128).steps == 16
    # As many programs as fit run side by side, all others after them: 56.7 and 200 µs with one a multiprocessor.
    steps = [forward(FUSED, few, tokens, fit).steps for tokens in (16384, T) for fit in (4, 2, 1)]
    assert steps == [32, 32, 2 * 32, 2 * 32, 4 * 32, 8 * 32]
    for tokens, measured in ((16384, 56.7), (T, 200.0)):
        assert predicted_us(forward(FUSED, few, tokens, 1), Machine(), 132)[0] == pytest.approx(measured, rel=0.15)


def test_the_steps_of_each_launch():
    wide = replace(H100, M=512)
    split = {name: LaunchConfig("split", 64, 64, 128, 4, 3) for name in ("dx", "dx_x", "expand")}
    one = lambda phase, config, problem=H100, tokens=T: launch_traffic(phase, config, problem, tokens, 4).steps  # noqa: E731
    assert [one(phase, FUSED, tokens=64) for phase in ("forward", "dx", "dx_z", "dx_x")] == [24, 24, 24, 36]
    assert [one(phase, config, wide, 64) for phase, config in split.items()] == [12, 24, 4]
    # Runs of 65536 / 44 tokens in tiles of 64; more than 528 programs come in turns.
    assert one("weight_grad", LaunchConfig("fused", 64, 128, 64, 8, 3)) == 24
    assert one("forward", LaunchConfig("sliced", 64, 64, 64, 8, 1), tokens=128) == 3


def test_many_partial_sums_are_walked_in_steps():
    """H200, new kernel: 9.7 µs for the 1024 rows of db_down at T = 65536, 5.5 for 256."""
    problem = replace(H100, D=1024)
    for tokens, steps in ((16384, 1), (65536, 4)):
        *_, last = chain("backward", problem, tokens, lambda *_: 4, choose=lambda *_: FUSED)
        assert last.steps == steps
    assert predicted_us(last, Machine(), 132) == (pytest.approx(9.7, rel=0.02), "latency")


SHAPES = list(product((1, 128, 5000, 65536), (768, 8192), (16, 64, 256, 512), (2, 4)))


@pytest.mark.parametrize("mode", ["inference", "speed", "balanced", "lean"])
def test_no_choice_beats_the_floor(mode):
    for tokens, d, m, w_bytes in SHAPES:
        problem = Problem(d, m, 2, w_bytes, "ieee", "sm_90")
        for direction in ("forward", "backward")[: 1 if mode == "inference" else 2]:
            launches = chain(direction, problem, tokens, estimated_programs, mode)
            where = f"{direction} {mode} T {tokens} d {d} m {m} weights of {w_bytes} bytes"
            assert sum(one.dram for one in launches) >= minimal_bytes(Shape(tokens, d, m, 2, w_bytes), direction), where
            for machine in (Machine(launch_us=0, step_us=0, sum_us=0), Machine(1e6, launch_us=0, step_us=0, sum_us=0)):
                us = sum(predicted_us(one, machine, 132)[0] for one in launches)
                assert us >= floor(direction, problem, tokens, machine), where


def test_more_of_anything_never_helps_the_wrong_way(monkeypatch):
    hits = [forward(replace(FUSED, BLOCK_T=b), replace(H100, D=d), programs=n).hit
            for n, b, d in ((1, 64, 768), (4, 64, 1024), (4, 64, 2048), (4, 128, 4096), (4, 128, 8192))]  # fmt: skip
    assert hits == sorted(hits, reverse=True) and hits[0] == 1.0 and 0 < hits[-1] < 0.1
    times = [sum(predicted_us(one, Machine(), 132)[0] for one in chain("backward", H100, n, estimated_programs))
             for n in (1, 64, 512, 4096, 65536, 262144)]  # fmt: skip
    assert times == sorted(times)
    caches = []
    for n in (10, 50, 60, 200):
        monkeypatch.setitem(traffic.L2_BYTES, "sm_90", n * 2**20)
        caches.append(forward(FUSED, replace(H100, D=4096)).dram)
    assert caches == sorted(caches, reverse=True) and caches[0] > caches[-1]


def test_the_estimate_of_programs_against_what_the_compiler_gave():
    """sm_90: programs a multiprocessor, within one."""
    for (d, m, block_t, warps), compiled in {
        (768, 64, 64, 4): 4,
        (768, 64, 128, 8): 2,
        (768, 16, 64, 4): 5,
        (1024, 128, 128, 8): 1,
        (1024, 256, 64, 8): 1,
    }.items():
        config = LaunchConfig("fused", block_t, 64, m, warps, 3)
        assert abs(estimated_programs("forward", config, replace(H100, D=d, M=m)) - compiled) <= 1
    too_wide = LaunchConfig("fused", 128, 128, 512, 8, 4)
    assert estimated_programs("forward", too_wide, replace(H100, M=512)) == 0


def test_a_reading_of_the_compiler_replaces_the_estimate():
    labels = {"kernel": "forward", "form": "fused", "x_dtype": "bf16", "w_dtype": "bf16"}
    labels |= {"BLOCK_T": 64, "BLOCK_D": 64, "BLOCK_M": 64}
    reading = {"name": "forward aligned", "error": "", "labels": labels, "num_warps": 4, "num_stages": 3}
    programs = traffic.compiled_programs([reading | {"blocks_per_sm": 7}])
    assert programs("forward", FUSED, H100) == 7
    assert programs("forward", replace(FUSED, num_stages=2), H100) != 7
    assert programs("dx", FUSED, H100) != 7
    assert programs("forward", FUSED, replace(H100, w_bytes=4)) != 7


# ---- bad input, and the command


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forward(tokens=0), "T must be at least 1, got 0"),
        (lambda: launch_traffic("dx", replace(FUSED, form="sliced"), H100, 8, 1), "phase dx has no form 'sliced'"),
        (lambda: chain("backward", H100, 8, lambda *_: 1, "inference"), "mode must be"),
    ],
)
def test_bad_input_is_told_in_a_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_command_says_that_it_predicts(capsys):
    small = ["--tokens", "16384", "--hidden", "768", "--bottleneck", "64", "512"]
    assert traffic.main(small) == 0
    text = capsys.readouterr().out
    assert text.startswith("Predicted, not measured: 3000 GB/s")
    assert text.count("= forward") == text.count("= backward") == 2
    assert traffic.main([*small, "--mode", "inference"]) == 0
    assert "backward" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        traffic.main(["--copy-gbps", "0"])
    assert "expected a positive number, got 0" in capsys.readouterr().err


# ---- docs/kernels.md


ROOT = Path(__file__).parents[2]


def test_the_documents_pictures_and_tables_are_of_this_model():
    stale = [path.name for path in pictures.update(ROOT / "docs", write=False)]
    assert stale == [], "run python -m benchmarks.tiles.kernels_page"


def test_a_changed_number_makes_pictures_and_tables_stale(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.setattr(traffic, "USABLE", 0.35)
    stale = {path.name for path in pictures.update(tmp_path / "docs", write=True)}
    assert stale == {"traffic.svg", "dram.svg", "cache.svg", "share.svg", "kernels.md"}
    assert pictures.update(tmp_path / "docs", write=False) == []


def test_the_document_claims_no_measurement_without_a_result():
    text = (ROOT / "docs/kernels.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \| \d+ \| \d+ \| (forward|backward)", line)]
    assert len(rows) == 2 * len(pictures.HEADLINE)
    measured = [row for path in RESULTS.glob("nvidia-*/op.json") for row in read_rows(path)]
    assert measured or all("not measured yet" in line for line in rows)
    assert all((ROOT / "docs" / link).is_file() for link in re.findall(r"\]\(([\w.]+)\)", text))
    for target in re.findall(r"make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M), target


def test_a_measured_row_stands_beside_its_prediction():
    row = SimpleNamespace(tokens=65536, hidden=1024, bottleneck=64, phase="forward", provider="fused", case="one")
    row.mode, row.copy_gbps, row.tflops, row.us_p50, row.floor_us = "graph-cold", 1500.0, 798.0, 200.0, 180.0
    line = next(one for one in pictures.predictions(estimated_programs, [row]).splitlines() if "| 200.0 | 90% |" in one)
    assert line.startswith("| 65536 | 1024 | 64 | forward |")
    slower = float(line.split("|")[6])
    plain = next(one for one in pictures.predictions(estimated_programs, []).splitlines() if one[:28] == line[:28])
    assert slower > float(plain.split("|")[6])  # at the run's own copy bandwidth
