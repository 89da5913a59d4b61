"""The sliced forward under the interpreter: in two launches, and in one whose programs wait for each other.

Programs that wait run in processes of their own here (together.py); what only a GPU can show is memory order.
"""

import subprocess
import sys
from itertools import product

import pytest
import torch
from together import together

from adapter_fast import fused_adapter
from adapter_fast.checks import ACTIVATIONS
from adapter_fast.kernels.blocks import Linear, Saved
from adapter_fast.kernels.forms import counters as arena
from adapter_fast.kernels.forms.sliced import launch as launch_sliced
from adapter_fast.kernels.forward import arguments
from adapter_fast.kernels.shapes import LaunchConfig, Problem, padded
from adapter_fast.kernels.tiles import forced
from adapter_fast.ops.eager import _activate, _slope
from adapter_fast.reference import reference_adapter
from adapter_fast.testing import Canary, Case, assert_within_budget, call, in_float64, make_inputs

pytestmark = pytest.mark.usefixtures("poison")

TILES = LaunchConfig("sliced", 16, 32, 16, 8, 1)


def setting(case, two_launches=True, sms=64, aligned=False):
    """A GPU's problem, or the interpreter's, which gets two launches."""
    sizes = (case.dtype.itemsize, (case.weight_dtype or case.dtype).itemsize)
    return Problem(case.d, case.m, *sizes, "ieee", "sm_90", sms=sms, aligned=aligned, device=-1 if two_launches else 0)


def launch(case, inputs, tiles=TILES, out=None, **settings):
    """y, h, slope and z of one call; out: tensors to write to."""
    x, w_down, b_down, w_up, b_up, residual = (
        None if inputs[name] is None else inputs[name].detach()
        for name in ("x", "w_down", "b_down", "w_up", "b_up", "residual")
    )
    added = {"x": x, "tensor": residual, "none": None}[case.residual]
    if out is None:
        out = {"y": x.new_empty(case.T, case.d)} | {name: x.new_empty(case.T, case.m) for name in ("h", "slope", "z")}
    saved = Saved(out["h"], out["slope"], out["z"])
    given = arguments(x, Linear(w_down, b_down), Linear(w_up, b_up), added, case.scale, out["y"], saved)
    launch_sliced(*given, case.activation, tiles, setting(case, **settings))
    return out


def by_pytorch(case, inputs):
    x, w_down, b_down = inputs["x"].detach(), inputs["w_down"].detach(), inputs["b_down"]
    z = torch.nn.functional.linear(x, w_down.to(x.dtype), None if b_down is None else b_down.detach().to(x.dtype))
    y = call(reference_adapter, case, inputs).detach()
    return {"y": y, "h": _activate(z, case.activation), "slope": _slope(z, case.activation), "z": z}


def assert_right(case, inputs, actual):
    expected, eager = by_pytorch(case, in_float64(inputs)), by_pytorch(case, inputs)
    for name, value in actual.items():
        if value is not None:
            terms = case.d + case.m
            assert_within_budget(value, expected[name], eager[name], terms=terms, name=f"{name} of {case}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(
    "T, d, m", [(1, 1, 1), (2, 7, 3), (1, 96, 16), (15, 48, 8), (17, 100, 10), (33, 65, 33), (18, 70, 128)]
)
def test_every_shape(T, d, m, dtype):
    case = Case(T, d, m, dtype, scale=0.75)
    inputs = make_inputs(case)
    assert_right(case, inputs, launch(case, inputs, LaunchConfig("sliced", 16, 32, padded(m), 8, 1)))


@pytest.mark.parametrize("bias, residual", [(True, "x"), (True, "tensor"), (False, "none")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_form(activation, residual, bias):
    case = Case(19, 70, 9, torch.float32, activation=activation, residual=residual, bias=bias, scale=1.5)
    inputs = make_inputs(case)
    assert_right(case, inputs, launch(case, inputs))


@pytest.mark.parametrize("x, weights", [("float16", "float32"), ("float32", "float16")])
def test_weights_of_another_dtype(x, weights):
    case = Case(5, 70, 9, getattr(torch, x), weight_dtype=getattr(torch, weights))
    inputs = make_inputs(case)
    assert_right(case, inputs, launch(case, inputs))


@pytest.mark.parametrize("BLOCK_T, BLOCK_D, num_warps", [(16, 64, 4), (16, 256, 8), (64, 64, 8), (64, 128, 8)])
def test_every_tile(BLOCK_T, BLOCK_D, num_warps):
    case = Case(67, 150, 20, torch.float32)
    inputs = make_inputs(case)
    assert_right(case, inputs, launch(case, inputs, LaunchConfig("sliced", BLOCK_T, BLOCK_D, 32, num_warps, 1)))


def test_what_is_not_asked_for_is_not_written():
    case = Case(19, 70, 9)
    inputs = make_inputs(case)
    whole = launch(case, inputs)
    alone = launch(case, inputs, out={"y": torch.empty(19, 70), "h": None, "slope": None, "z": None})
    assert torch.equal(alone["y"], whole["y"])


def test_no_tokens():
    case = Case(0, 70, 9)
    assert launch(case, make_inputs(case), two_launches=False)["y"].shape == (0, 70)


@pytest.mark.parametrize("two_launches", [True, False])
def test_halos(two_launches):
    """x and the residual inside NaN buffers with wide rows, the dense outputs between numbers."""
    case = Case(21, 50, 11, torch.float64, residual="tensor")
    inputs = make_inputs(case)
    rows = {name: Canary(inputs[name]) for name in ("x", "residual")}
    given = inputs | {name: canary.view for name, canary in rows.items()}
    sizes = {"y": (21, 50), "h": (21, 11), "slope": (21, 11), "z": (21, 11)}
    dense = {name: Canary(None, (1, T * n), halo=128, dtype=torch.float64) for name, (T, n) in sizes.items()}
    out = {name: canary.view.view(sizes[name]) for name, canary in dense.items()}
    if two_launches:
        launch(case, given, out=out)
    else:
        with together():
            launch(case, given, two_launches=False, out=out)
    for name, canary in (rows | dense).items():
        canary.assert_intact(name)
    assert_right(case, inputs, out)


@pytest.mark.parametrize("offset, step", [(0, 12), (1, 0), (3, 5)])
def test_rows_that_start_anywhere(offset, step):
    case = Case(18, 40, 6, torch.float32)
    inputs = make_inputs(case)
    flat = torch.full((offset + 18 * (40 + step),), float("nan"))
    x = flat[offset:].as_strided((18, 40), (40 + step, 1), offset).copy_(inputs["x"].detach())
    assert_right(case, inputs, launch(case, inputs | {"x": x}))


def test_a_unit_changes_nothing():
    case = Case(18, 48, 16, torch.float32)
    inputs = make_inputs(case)
    plain, hinted = launch(case, inputs), launch(case, inputs, aligned=True)
    assert all(torch.equal(plain[name], hinted[name]) for name in plain)


def test_a_row_does_not_depend_on_its_batch():
    case = Case(50, 100, 20, torch.float32)
    inputs = make_inputs(case)
    tiles = LaunchConfig("sliced", 16, 32, 32, 8, 1)
    whole = launch(case, inputs, tiles)
    for T in (1, 2, 17):
        part = launch(Case(T, 100, 20), inputs | {"x": inputs["x"][:T]}, tiles)
        assert all(torch.equal(part[name], whole[name][:T]) for name in whole), f"T = {T}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_bits_of_the_fused_kernel_that_sums_block_by_block(dtype):
    case = Case(37, 100, 10, dtype, scale=0.5)
    inputs = make_inputs(case)
    # Compiled, the fused kernel must not fold its sum into the product: the interpreter cannot tell.
    with forced(forward=LaunchConfig("fused", 16, 32, 16, 4, 1, partial_sums=True)):
        assert torch.equal(launch(case, inputs)["y"], call(fused_adapter, case, inputs))


@pytest.mark.parametrize("T, d, dtype", [(1, 100, torch.float32), (37, 100, torch.float64), (20, 20, torch.float16)])
def test_one_launch_gives_the_bits_of_two(T, d, dtype):
    case = Case(T, d, 10, dtype, activation="gelu_tanh")
    inputs = make_inputs(case)
    expected = launch(case, inputs)
    assert_right(case, inputs, expected)
    for _ in range(2):  # the second finds the counters as the first left them
        with together():
            actual = launch(case, inputs, two_launches=False)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
        assert not arena.counters(torch.device("cpu"), arena.PER_STREAM).any(), "counters are not zero after a launch"


@pytest.mark.slow
def test_one_launch_many_times():
    case = Case(33, 100, 10)
    inputs = make_inputs(case)
    expected = launch(case, inputs)["y"]
    for _ in range(30):
        with together():
            assert torch.equal(launch(case, inputs, two_launches=False)["y"], expected)


def test_without_counters_there_are_two_launches(monkeypatch):
    monkeypatch.setattr("adapter_fast.kernels.forms.sliced.counters", lambda device, n: None)
    case = Case(20, 70, 9)
    inputs = make_inputs(case)
    assert_right(case, inputs, launch(case, inputs, two_launches=False))


def test_more_programs_than_run_at_once_are_two_launches():
    """Three token tiles × three slices on eight multiprocessors: one launch of them would wait for ever here."""
    case = Case(33, 70, 9)
    inputs = make_inputs(case)
    assert_right(case, inputs, launch(case, inputs, two_launches=False, sms=8))


def test_what_cannot_run_is_refused():
    case = Case(3, 70, 17)
    with pytest.raises(ValueError, match="m ≤ BLOCK_M = 16, got m = 17"):
        launch(case, make_inputs(case))


OFFSETS = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from adapter_fast import reference_adapter
from adapter_fast.kernels.blocks import Linear, Saved
from adapter_fast.kernels.forms.sliced import launch as launch_sliced
from adapter_fast.kernels.forward import arguments
from adapter_fast.kernels.shapes import LaunchConfig, Problem
from adapter_fast.kernels.tiles import forced
torch.manual_seed(0)
T, d, m, stride = 258, 16, 4, 2**24 - 16
assert (T - 1) * stride > 2**31
x = torch.empty((T - 1) * stride + d, dtype=torch.float16).as_strided((T, d), (stride, 1))
x.copy_(torch.randn(T, d))
w_down, w_up = torch.randn(m, d).half() / 4, torch.randn(d, m).half() / 2
y = torch.empty(T, d, dtype=torch.float16)
tiles = LaunchConfig("sliced", 16, 16, 16, 4, 1)
problem = Problem(d, m, 2, 2, "ieee", "sm_90", sms=8, aligned=False, device=-1)
given = arguments(x, Linear(w_down, None), Linear(w_up, None), x, 1.0, y, Saved(None, None, None))
launch_sliced(*given, "gelu", tiles, problem)
expected = reference_adapter(x.contiguous(), w_down, None, w_up, None)
assert (y - expected).abs().max() < 2e-2, (y - expected).abs().max()
print("right")
"""


@pytest.mark.slow
def test_rows_beyond_two_to_the_31_elements():
    done = subprocess.run([sys.executable, "-c", OFFSETS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "right" in done.stdout, f"rc {done.returncode}: {done.stderr[-500:]}"


@pytest.fixture
def gpu(monkeypatch):
    """torch.cuda's side of the arena, on the CPU: which stream is current, and whether it captures."""

    class Gpu:
        stream, capturing = 7, False
        device = torch.device("cuda", 0)

        def __init__(self):
            self.log = []

        def synchronize(self):
            self.log.append(f"waited for stream {self.stream}")

        @property
        def cuda_stream(self):
            return self.stream

    gpu, zeros = Gpu(), torch.zeros
    monkeypatch.setattr(arena, "_arenas", {})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: gpu)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: gpu.capturing)

    def cleared(n, dtype, device):
        gpu.log.append(f"cleared on stream {gpu.stream}")
        return zeros(n, dtype=dtype)

    monkeypatch.setattr(torch, "zeros", cleared)
    return gpu


def spans(*slices):
    return [(s.data_ptr() // 4, s.data_ptr() // 4 + s.numel()) for s in slices]


def assert_apart(*slices):
    for (a, b), (c, d) in product(spans(*slices), repeat=2):
        assert (a, b) == (c, d) or b <= c or d <= a, f"counters {a}–{b} and {c}–{d} overlap"
    assert len({s.data_ptr() for s in slices}) == len(slices)


def test_a_stream_keeps_its_counters(gpu):
    first = arena.counters(gpu.device, 5)
    assert first.dtype == torch.int32 and first.shape == (5,) and not first.any()
    assert arena.counters(gpu.device, 3).data_ptr() == first.data_ptr()
    gpu.stream = 8
    other = arena.counters(gpu.device, 5)
    assert_apart(first, other)
    gpu.stream = 7
    assert arena.counters(gpu.device, 5).data_ptr() == first.data_ptr()
    assert_apart(arena.counters(gpu.device, 1000), other)


def test_counters_are_zero_before_any_stream_has_them(gpu):
    arena.counters(gpu.device, 5)
    gpu.stream = 8
    arena.counters(gpu.device, 5)
    assert gpu.log == ["cleared on stream 7", "waited for stream 7"]


def test_a_captured_launch_has_counters_of_its_own(gpu):
    eager = arena.counters(gpu.device, 5)
    gpu.capturing = True
    captured = [arena.counters(gpu.device, n) for n in (5, 5, 33)]
    gpu.capturing = False
    again, gpu.stream = arena.counters(gpu.device, 5), 8
    assert again.data_ptr() == eager.data_ptr()
    assert_apart(eager, *captured, arena.counters(gpu.device, 5))


def test_no_counters_where_the_first_call_is_captured(gpu):
    gpu.capturing = True
    assert arena.counters(gpu.device, 5) is None
    gpu.capturing = False
    assert arena.counters(gpu.device, 5) is not None


def test_no_counters_when_all_are_given_away(gpu):
    arena.counters(gpu.device, 5)
    gpu.capturing = True
    given = [arena.counters(gpu.device, 1) for _ in range((arena.ARENA - arena.PER_STREAM) // arena.LINE)]
    assert_apart(*(given[i] for i in (0, 1, 100, -1)))
    assert arena.counters(gpu.device, 1) is None
    gpu.capturing = False
    assert arena.counters(gpu.device, 5) is not None, "the stream has its counters still"
    gpu.stream = 8
    assert arena.counters(gpu.device, 5) is None
