"""The backward as one queue under the interpreter: the programs one after another, and all at once (together.py)."""

import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import triton
import triton.language as tl
from together import together

from adapter_fast.checks import ACTIVATIONS
from adapter_fast.kernels import arena, chunked
from adapter_fast.kernels.backward import launch_dx, launch_weight_grad
from adapter_fast.kernels.chunked import MAX_CHUNKS, chunk_tokens, chunks_ahead, launch_queue
from adapter_fast.kernels.shapes import LaunchConfig, Problem
from adapter_fast.ops.eager import _activate, _slope
from adapter_fast.reference import reference_adapter
from adapter_fast.testing import Canary, Case, assert_within_budget, evaluate, grad_output, make_inputs, truth

pytestmark = pytest.mark.usefixtures("poison")

NAMES = ("dx", "db_down", "dw_down", "dw_up", "sums")


def padded(m):
    return max(16, 1 << (m - 1).bit_length())


def problem(case, programs, **options):
    """Chunks of 128 tokens: the cache holds no more."""
    size = case.dtype.itemsize
    options = {"l2_bytes": 4096, "sms": programs, "aligned": False} | options
    return Problem(case.d, case.m, size, size, "ieee", "sm_90", **options)


def arguments(case, inputs, dy, mode="slope"):
    """What launch_queue takes before its needs: the slope or z saved, or x to make it from."""
    x, w_down, b_down, w_up = (
        None if inputs[name] is None else inputs[name].detach() for name in ("x", "w_down", "b_down", "w_up")
    )
    z = torch.nn.functional.linear(x, w_down, b_down)
    h, slope = _activate(z, case.activation), _slope(z, case.activation)
    saved = {"slope": (h, slope, None), "z": (None, None, z), "x": (None, None, None)}[mode]
    return (dy, x, *saved, w_down, b_down, w_up, case.residual == "x", case.activation, case.scale)


def launch(
    case, inputs, dy, mode="slope", programs=3, tiles=None, at_once=False, needs=(True, True, True, True), **options
):
    """dx and the partial sums; needs: dx, db_down, Σ dy, dw_down."""
    tiles = tiles or LaunchConfig("queue", 64, 32, padded(case.m), 4, 2)
    need_dx, need_b_down, need_b_up, need_w_down = needs
    with together() if at_once else nullcontext():
        found = launch_queue(
            *arguments(case, inputs, dy, mode), need_dx, mode != "slope", need_b_down, need_b_up, need_w_down, tiles,
            problem(case, programs, **options),
        )  # fmt: skip
    return dict(zip(NAMES, found))


def assert_right(case, inputs, dy, found):
    """The slots added up, against the float64 truth."""
    total = {"d_x": found["dx"]}
    for name, of in (("d_b_down", "db_down"), ("d_b_up", "sums"), ("d_w_down", "dw_down"), ("d_w_up", "dw_up")):
        if found[of] is not None:
            total[name] = (found[of].sum(0) * (case.scale if name.endswith("up") else 1.0)).to(case.dtype)
    expected, eager = truth(case, inputs, dy), evaluate(reference_adapter, case, inputs, dy)
    for name, value in total.items():
        if value is not None:
            terms = case.d + case.m if name == "d_x" else case.T
            assert_within_budget(value, expected[name], eager[name], terms=terms, name=f"{name} of {case}")


def assert_same(found, expected):
    for name, value in expected.items():
        same = found[name] is None if value is None else torch.equal(found[name], value)
        assert same, f"{name} has other bits"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("T, d, m", [(1, 1, 1), (63, 40, 8), (128, 32, 16), (300, 100, 10), (515, 33, 40)])
def test_every_shape(T, d, m, dtype):
    case = Case(T, d, m, dtype, scale=0.75)
    inputs, dy = make_inputs(case), grad_output(case)
    found = launch(case, inputs, dy)
    assert found["dw_up"].shape == (-(-T // 128), d, m), "one slot a chunk"
    assert_right(case, inputs, dy, found)


@pytest.mark.parametrize("mode", ["z", "x"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_made_here(activation, mode):
    case = Case(200, 40, 8, torch.float32, activation=activation, scale=1.5)
    inputs, dy = make_inputs(case), grad_output(case)
    assert_right(case, inputs, dy, launch(case, inputs, dy, mode))


def test_without_residual_and_bias():
    case = Case(200, 40, 8, torch.float32, residual="none", bias=False)
    inputs, dy = make_inputs(case), grad_output(case)
    found = launch(case, inputs, dy, "x", needs=(True, False, False, True))
    assert found["db_down"] is None and found["sums"] is None
    assert_right(case, inputs, dy, found)


@pytest.mark.parametrize("needs", [(False, True, False, True), (True, False, True, False), (True, True, False, False)])
def test_only_what_is_needed(needs):
    case = Case(200, 40, 8, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    whole, some = launch(case, inputs, dy), launch(case, inputs, dy, needs=needs)
    for name, needed in zip(("dx", "db_down", "sums", "dw_down", "dw_up"), (*needs, True)):
        assert (some[name] is not None) == needed, name
        if needed:
            assert torch.equal(some[name], whole[name]), name


@pytest.mark.parametrize("mode, phase", [("slope", "dx"), ("z", "dx_z"), ("x", "dx_x")])
def test_the_bits_of_two_launches(mode, phase):
    case = Case(333, 72, 12, torch.float32, scale=0.5)
    inputs, dy = make_inputs(case), grad_output(case)
    tiles = LaunchConfig("fused", 32, 32, 16, 4, 2)
    two = problem(case, 2, forced=((phase, tiles), ("weight_grad", tiles)))
    given = arguments(case, inputs, dy, mode)
    _, x, h, slope, z, w_down, b_down, w_up, add_dy, activation, scale = given
    dx, made_h, dz, db_down = launch_dx(
        dy, x, slope, z, w_down, b_down, w_up, add_dy, activation, scale, True, mode != "slope", True, True, two
    )
    sums = launch_weight_grad(dy, x, made_h if h is None else h, dz, case.m, True, two)
    found = launch(case, inputs, dy, mode, tiles=tiles)
    assert_same(found, {"dx": dx, "db_down": db_down})
    # The two launches cut the tokens into other runs.
    for name, expected in zip(("dw_down", "dw_up", "sums"), sums):
        torch.testing.assert_close(found[name].sum(0), expected.sum(0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_same_bits_for_any_number_of_programs(at_once):
    case = Case(400, 72, 10, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    expected = launch(case, inputs, dy, programs=1)
    assert_right(case, inputs, dy, expected)
    for programs in (1, 3, 8):
        assert_same(launch(case, inputs, dy, programs=programs, at_once=at_once), expected)
        left = arena.counters(torch.device("cpu"), arena.PER_STREAM)
        assert not left.any(), f"{programs} programs leave counters at {left[left != 0].tolist()}"


@pytest.mark.slow
def test_many_programs_many_times():
    case = Case(1000, 72, 10, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    expected = launch(case, inputs, dy, programs=1)
    for programs in (2, 5, 8, 16, 40):
        assert_same(launch(case, inputs, dy, programs=programs, at_once=True), expected)


@pytest.mark.parametrize("BLOCK_T, BLOCK_D", [(16, 16), (64, 64), (128, 64)])
def test_every_tile(BLOCK_T, BLOCK_D):
    case = Case(300, 72, 12, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    assert_right(case, inputs, dy, launch(case, inputs, dy, tiles=LaunchConfig("queue", BLOCK_T, BLOCK_D, 16, 4, 2)))


@pytest.mark.parametrize("at_once", [False, True])
def test_rows_that_start_anywhere(at_once):
    """dy and x in the middle of NaN buffers: strided, misaligned, and nothing around them is read."""
    case = Case(150, 41, 6, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    rows = {"x": Canary(inputs["x"]), "dy": Canary(dy)}
    found = launch(case, inputs | {"x": rows["x"].view}, rows["dy"].view, "x", at_once=at_once)
    assert_right(case, inputs, dy, found)


def test_a_unit_changes_nothing():
    case = Case(150, 48, 16, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    assert_same(launch(case, inputs, dy, aligned=True), launch(case, inputs, dy))


@triton.jit
def items_kernel(out_ptr, chunks, ahead, dx_items, grad_items):
    """One row of out a ticket: 1 for dx, the tile, the chunk, the columns."""
    for ticket in range(0, chunks * (dx_items + grad_items)):
        is_dx, tile, chunk, tile_d = chunked.item_of(ticket, chunks, ahead, dx_items, grad_items)
        tl.store(out_ptr + 4 * ticket, is_dx.to(tl.int32))
        tl.store(out_ptr + 4 * ticket + 1, tile)
        tl.store(out_ptr + 4 * ticket + 2, chunk)
        tl.store(out_ptr + 4 * ticket + 3, tile_d)


@pytest.mark.parametrize("dx_items, grad_items", [(1, 1), (2, 5), (8, 3), (4, 4)])
@pytest.mark.parametrize("chunks, ahead", [(1, 1), (4, 1), (4, 3), (4, 4)])
def test_an_item_depends_on_smaller_tickets_only(chunks, ahead, dx_items, grad_items):
    out = torch.zeros(chunks * (dx_items + grad_items), 4, dtype=torch.int32)
    items_kernel[(1,)](out, chunks, ahead, dx_items, grad_items)
    tickets = {}
    for ticket, (is_dx, tile, chunk, tile_d) in enumerate(out.tolist()):
        tickets[("dx", tile // dx_items, tile % dx_items) if is_dx else ("grad", chunk, tile_d)] = ticket
    wanted = {("dx", c, i) for c in range(chunks) for i in range(dx_items)}
    wanted |= {("grad", c, i) for c in range(chunks) for i in range(grad_items)}
    assert set(tickets) == wanted, "each item once"
    for chunk in range(chunks):
        last = min(chunk + ahead, chunks) - 1  # dx of all these chunks comes before
        before = max(tickets["dx", c, i] for c in range(last + 1) for i in range(dx_items))
        assert before < min(tickets["grad", chunk, i] for i in range(grad_items)), f"chunk {chunk}"


@pytest.mark.parametrize("l2_bytes", [40 * 2**20, 50 * 2**20, 126 * 2**20])
@pytest.mark.parametrize("D", [768, 1024, 4096, 8192])
@pytest.mark.parametrize("T", [1, 128, 1000, 16384, 65536, 1_000_000])
def test_chunks_fit_the_cache_and_stay_few(T, D, l2_bytes):
    tokens = chunk_tokens(T, D, 2, l2_bytes)
    chunks = -(-T // tokens)
    assert tokens % 128 == 0 and 1 <= chunks <= MAX_CHUNKS
    fewest = -(-T // MAX_CHUNKS)
    assert 2 * D * 2 * tokens <= 0.4 * l2_bytes or tokens < fewest + 128, f"{tokens} tokens overflow the cache"
    assert tokens >= min(1024, int(0.4 * l2_bytes) // (4 * D) - 127), "needlessly small"


def test_as_many_items_ahead_as_there_are_programs():
    assert chunks_ahead(28, 64, 132) == 5
    assert chunks_ahead(28, 3, 132) == 3
    assert chunks_ahead(500, 64, 132) == 1


def test_no_counters_no_launch(monkeypatch):
    monkeypatch.setattr(chunked, "counters", lambda device, n: None)
    case = Case(20, 16, 4)
    inputs, dy = make_inputs(case), grad_output(case)
    tiles = LaunchConfig("queue", 64, 32, 16, 4, 2)
    assert launch_queue(*arguments(case, inputs, dy), True, False, True, True, True, tiles, problem(case, 1)) is None


def test_what_cannot_run_is_refused():
    case = Case(20, 16, 17)
    with pytest.raises(ValueError, match="m ≤ BLOCK_M = 16, got m = 17"):
        launch(case, make_inputs(case), grad_output(case), tiles=LaunchConfig("queue", 64, 32, 16, 4, 2))
    given = list(arguments(case, make_inputs(case), grad_output(case)))
    given[2] = None
    tiles = LaunchConfig("queue", 64, 32, 32, 4, 2)
    with pytest.raises(ValueError, match="expected need_w_down, save_h or h, got none"):
        launch_queue(*given, True, False, True, True, False, tiles, problem(case, 1))


OFFSETS = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from adapter_fast.kernels.chunked import launch_queue
from adapter_fast.kernels.shapes import LaunchConfig, Problem
torch.manual_seed(0)
T, d, m, stride = 258, 16, 4, 2**24 - 16
assert (T - 1) * stride > 2**31
def far(rows):
    out = torch.empty((T - 1) * stride + d, dtype=torch.float16).as_strided((T, d), (stride, 1))
    return out.copy_(rows)
dy, x, h, slope = (torch.randn(T, n).half() for n in (d, d, m, m))
w_down, w_up = torch.randn(m, d).half() / 4, torch.randn(d, m).half() / 2
tiles = LaunchConfig("queue", 64, 16, 16, 4, 2)
problem = Problem(d, m, 2, 2, "ieee", "sm_90", sms=2, aligned=False, l2_bytes=4096)
args = (h, slope, None, w_down, None, w_up, True, "gelu", 1.0, True, False, True, True, True, tiles, problem)
for near, found in zip(launch_queue(dy, x, *args), launch_queue(far(dy), far(x), *args)):
    assert torch.equal(near, found)
print("right")
"""


@pytest.mark.slow
def test_rows_beyond_two_to_the_31_elements():
    done = subprocess.run([sys.executable, "-c", OFFSETS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "right" in done.stdout, f"rc {done.returncode}: {done.stderr[-500:]}"
