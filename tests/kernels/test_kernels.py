"""The kernels' own source under the interpreter, y and every gradient against float64 (testing.assert_case).

Shapes, halos, poison, layouts, every tile, NaN, 64-bit offsets. Derivatives: tests/ops/test_autograd.py.
"""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch

from adapter_fast import fused_adapter, reference_adapter
from adapter_fast.checks import ACTIVATIONS, MEMORY_MODES
from adapter_fast.kernels.tiles import LaunchConfig, forced
from adapter_fast.testing import (
    Canary,
    Case,
    assert_case,
    assert_within_budget,
    bfloat16_interpreter,
    call,
    grad_output,
    make_inputs,
    truth,
)

pytestmark = pytest.mark.usefixtures("poison")

RAGGED = [
    (1, 1, 1),
    (2, 7, 3),
    (15, 48, 8),
    (16, 64, 16),
    (17, 100, 10),
    (63, 65, 33),
    (65, 130, 65),
    (129, 64, 64),
    (130, 100, 128),
    (66, 40, 200),
    (70, 33, 257),
    (64, 48, 512),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("T, d, m", RAGGED)
def test_every_shape(T, d, m, dtype, backend):
    assert_case(fused_adapter, Case(T, d, m, dtype, scale=0.75))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_form(activation, residual, bias, dtype, backend):
    assert_case(fused_adapter, Case(19, 36, 9, dtype, activation=activation, residual=residual, bias=bias, scale=1.5))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("m", [8, 16, 64, 256])
@pytest.mark.parametrize("d", [768, 1024])
@pytest.mark.parametrize("T", [1, 127, 1000])
def test_real_sizes(T, d, m, dtype):
    assert_case(fused_adapter, Case(T, d, m, dtype))


@pytest.mark.parametrize(
    "x_dtype, w_dtype",
    [("float16", "float32"), ("float32", "float16"), ("float16", "bfloat16"), ("float32", "bfloat16")],
)
def test_weights_of_another_dtype(x_dtype, w_dtype, backend):
    case = Case(33, 40, 12, getattr(torch, x_dtype), weight_dtype=getattr(torch, w_dtype))
    inputs = make_inputs(case)
    with bfloat16_interpreter():
        y = call(fused_adapter, case, inputs)
        y.backward(grad_output(case))
        assert_case(fused_adapter, case)
    assert y.dtype == case.dtype
    assert inputs["w_up"].grad.dtype == inputs["b_down"].grad.dtype == case.weight_dtype


@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (0,)])
def test_no_tokens(shape, residual, backend):
    if shape == (0,):
        with pytest.raises(ValueError, match="d at least 1"):
            fused_adapter(torch.empty(0), torch.empty(3, 0), None, torch.empty(0, 3), None)
        return
    case = Case(0, 8, 3, residual=residual)
    inputs = make_inputs(case)
    inputs["x"] = torch.empty(shape, requires_grad=True)
    if residual == "tensor":
        inputs["residual"] = torch.empty(shape, requires_grad=True)
    y = call(fused_adapter, case, inputs)
    assert y.shape == shape
    y.sum().backward()
    assert inputs["x"].grad.shape == shape
    for name in ("w_down", "b_down", "w_up", "b_up"):
        assert torch.equal(inputs[name].grad, torch.zeros_like(inputs[name]))


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 8), (2, 1, 3, 8)])
def test_any_leading_dimensions(shape, backend):
    torch.manual_seed(0)
    case = Case(1, 8, 3, torch.float64)
    inputs = make_inputs(case)
    inputs["x"] = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = call(fused_adapter, case, inputs)
    expected = call(reference_adapter, case, inputs)
    torch.testing.assert_close(y, expected)
    dy = torch.randn(shape, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(y, (inputs["x"], inputs["w_up"]), dy),
        torch.autograd.grad(expected, (inputs["x"], inputs["w_up"]), dy),
    ):
        torch.testing.assert_close(a, b)


def strided(kind, values):
    """A tensor equal to values [T, d], laid out in another way."""
    T, d = values.shape
    if kind == "sliced rows":
        out = torch.full((T, d + 5), float("nan"), dtype=values.dtype)[:, :d]
    elif kind == "every other column":
        out = torch.full((T, 2 * d), float("nan"), dtype=values.dtype)[:, ::2]
    elif kind == "transposed":
        out = torch.full((d, T), float("nan"), dtype=values.dtype).t()
    elif kind == "misaligned":
        out = torch.full((T * d + 1,), float("nan"), dtype=values.dtype)[1:].view(T, d)
    elif kind == "huge stride":
        out = torch.empty((T - 1) * 2**24 + d, dtype=values.dtype).as_strided((T, d), (2**24, 1))
    return out.copy_(values)


STRIDES = ["sliced rows", "every other column", "transposed", "misaligned"]


def assert_layout(which, kind, case):
    """The case with one of its tensors in another layout."""
    inputs, dy = make_inputs(case), grad_output(case)
    if which == "dy":
        dy = strided(kind, dy)
    else:
        inputs[which] = strided(kind, inputs[which].detach()).requires_grad_()
    assert_case(fused_adapter, case, inputs, dy)


@pytest.mark.parametrize("kind", STRIDES)
@pytest.mark.parametrize("which", ["x", "residual", "w_down", "w_up", "dy"])
def test_layouts(which, kind, backend):
    assert_layout(which, kind, Case(37, 24, 6, torch.float64, residual="tensor"))


def test_leading_dimensions_without_one_stride(backend):
    torch.manual_seed(0)
    case = Case(1, 8, 3, torch.float64)
    inputs = make_inputs(case)
    wide = torch.randn(4, 6, 8, dtype=torch.float64)
    for x in (wide[:, :3], wide.transpose(0, 1), wide[:, :1].expand(4, 6, 8), wide[0, 0].expand(5, 8)):
        torch.testing.assert_close(
            call(fused_adapter, case, {**inputs, "x": x}), call(reference_adapter, case, {**inputs, "x": x})
        )


PHASES = ("forward", "dx", "expand", "weight_grad")


def distinct_tiles():
    from adapter_fast.benchmarks.tiles.aot.cases import BOTTLENECKS, DTYPES
    from adapter_fast.benchmarks.tiles.aot.targets import ARCHS
    from adapter_fast.kernels.tiles import Problem, select_tiles

    found = {}
    size = {"bf16": 2, "fp16": 2, "fp32": 4}
    for arch, (x, w, precision), m, aligned in product(ARCHS, DTYPES, BOTTLENECKS, (True, False)):
        problem = Problem(1024, m, size[x], size[w], precision, arch, aligned=aligned)
        chosen = tuple(select_tiles(phase, problem) for phase in PHASES)
        # Warps and stages mean nothing to the interpreter.
        key = tuple((c.form, c.BLOCK_T, c.BLOCK_D, c.BLOCK_M) for c in chosen)
        found.setdefault((m, key), chosen)
    return [(m, chosen) for (m, _), chosen in found.items()]


@pytest.mark.parametrize("m, chosen", distinct_tiles(), ids=lambda v: None if isinstance(v, int) else "tiles")
def test_every_tile_choice(m, chosen):
    with forced(**dict(zip(PHASES, chosen))):
        assert_case(fused_adapter, Case(131, 72, m - 1, torch.float32, scale=0.5))


def test_several_runs_of_tokens_and_a_ragged_last_one(monkeypatch):
    from adapter_fast.kernels import backward

    monkeypatch.setattr(backward, "split_count", lambda T, tiles, block_t, sms: 3)
    assert_case(fused_adapter, Case(300, 20, 5, torch.float64))


def test_partial_sums_are_the_same_numbers_in_another_order():
    case = Case(33, 100, 10, torch.float32)
    tiles = LaunchConfig("fused", 16, 32, 16, 4, 1, partial_sums=True)
    with forced(forward=tiles):
        assert_case(fused_adapter, case)


@pytest.mark.parametrize("memory", ["balanced", "lean"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("T, d, m", [(1, 1, 1), (65, 130, 65), (48, 64, 16), (20, 33, 257)])
def test_memory_modes(T, d, m, dtype, memory, backend):
    assert_case(partial(fused_adapter, memory=memory), Case(T, d, m, dtype, scale=0.75))


@pytest.mark.parametrize("memory", ["balanced", "lean"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_memory_modes_in_every_form(activation, bias, memory, backend):
    case = Case(19, 36, 9, torch.float32, activation=activation, bias=bias, scale=1.5, residual="tensor")
    assert_case(partial(fused_adapter, memory=memory), case)


COUNTS = (1, 2, 15, 16, 17, 31, 33, 65)


@pytest.mark.parametrize("slots, rows", [*zip(COUNTS, COUNTS), (1, 65), (17, 2), (33, 16), (2, 257)])
def test_every_slot_is_added_once(slots, rows):
    """Whole numbers, whose sums are exact in any order; NaN behind the last slot."""
    from adapter_fast.kernels.reduce import Partial, launch_reduce
    from adapter_fast.kernels.shapes import Problem

    d, m, scale = 37, 11, 0.75
    generator = torch.Generator().manual_seed(slots)

    def partial_sums(count, *shape):
        held = torch.full((count + 64, *shape), float("nan"))
        return held[:count].copy_(torch.randint(1, 9, (count, *shape), generator=generator))

    # The rows of the two biases are tiles of two launches, as many of either as its own tiles give.
    given = Partial(
        dw_down=partial_sums(slots, m, d),
        db_down=partial_sums(rows, m),
        dw_up=partial_sums(slots, d, m),
        db_up=partial_sums(rows + 1, d),
    )
    found = launch_reduce(given, scale, torch.float32, Problem(d, m, 4, 4, "ieee", "sm_90", sms=8, aligned=False))
    factors = Partial(dw_down=1, db_down=1, dw_up=scale, db_up=scale)
    for name, value, sums, factor in zip(Partial._fields, found, given, factors):
        assert torch.equal(value.double(), sums.double().sum(0) * factor), name


LARGEST_FLOAT16 = 65504


@pytest.mark.parametrize("memory", MEMORY_MODES)
def test_gradients_are_scaled_before_they_are_rounded(memory, backend):
    """Without scale the gradients of the weights, and dy · W_up which dz is made of, are infinite in float16."""
    case = Case(40, 36, 9, torch.float16, activation="identity", scale=1e-3)
    inputs, dy = make_inputs(case), 2000 + 500 * grad_output(case).abs()
    inputs["w_up"] = torch.ones_like(inputs["w_up"]).requires_grad_()
    inputs["w_down"] = (inputs["w_down"].detach() / 8).requires_grad_()
    unscaled = truth(replace(case, scale=1.0), inputs, dy)
    for name in ("d_w_down", "d_b_down", "d_w_up", "d_b_up"):
        assert unscaled[name].abs().max() > LARGEST_FLOAT16, name
    assert (dy.double() @ inputs["w_up"].detach().double()).min() > LARGEST_FLOAT16
    assert_case(partial(fused_adapter, memory=memory), case, inputs, dy)
    # Without dx it takes another way.
    db_up = torch.autograd.grad(call(fused_adapter, case, {**inputs, "x": inputs["x"].detach()}), inputs["b_up"], dy)[0]
    torch.testing.assert_close(db_up, truth(case, inputs, dy)["d_b_up"].half())


@pytest.mark.parametrize("bias, residual", [(True, "x"), (True, "none"), (False, "x"), (False, "none")])
@pytest.mark.parametrize("m", [9, 200])
def test_the_branch_is_scaled_before_it_is_rounded(m, bias, residual, backend):
    case = Case(40, 36, m, torch.float16, activation="identity", scale=1e-3, bias=bias, residual=residual)
    inputs = make_inputs(case)
    inputs["w_up"] = (inputs["w_up"].detach() * 3e4).requires_grad_()
    branch = truth(replace(case, scale=1.0, residual="none"), inputs, grad_output(case))["y"]
    assert branch.abs().max() > LARGEST_FLOAT16
    expected = truth(case, inputs, grad_output(case))["y"]
    y = call(fused_adapter, case, inputs).detach()
    # PyTorch in float16 overflows here: the truth, rounded, stands for it.
    assert_within_budget(y, expected, expected.half(), terms=case.d + case.m)


def test_outputs_keep_their_halo():
    """Each kernel called on its own with outputs inside NaN buffers, and inputs whose halo is NaN."""
    import triton
    import triton.language as tl

    from adapter_fast.kernels import backward, forward
    from adapter_fast.kernels.expand import expand_kernel

    case = Case(37, 50, 11, torch.float64)
    inputs, dy = make_inputs(case), grad_output(case)
    T, D, M = case.T, case.d, case.m
    constants = {"PRECISION": "ieee", "ACC_DTYPE": tl.float64, "UNIT": 1, "UNIT_D": 1, "UNIT_M": 1}
    constants |= {"BLOCK_T": 16, "BLOCK_D": 32, "BLOCK_M": 16}
    fused = {"ACTIVATION": "gelu", "STAGES": 2, **constants}
    flat = {"dtype": torch.float64}
    # One long NaN row around each dense output: what is written outside of it shows.
    names = {"y": (T, D), "h": (T, M), "slope": (T, M), "dx": (T, D), "dz": (T, M), "out": (T, D)}
    names |= {"z": (T, M), "h_again": (T, M)}
    names |= {"db_down": (triton.cdiv(T, 16), M), "db_up": (2, D), "dw_down": (2 * M, D), "dw_up": (2 * D, M)}
    guarded = {name: Canary(None, (1, rows * columns), halo=128, **flat) for name, (rows, columns) in names.items()}
    out = {name: canary.view.view(names[name]) for name, canary in guarded.items()}
    x, g = Canary(inputs["x"]), Canary(dy)
    weights = {name: inputs[name].detach() for name in ("w_down", "b_down", "w_up", "b_up")}

    forward.bottleneck_forward_kernel[(triton.cdiv(T, 16),)](
        x_ptr=x.view, w_down_ptr=weights["w_down"], b_down_ptr=weights["b_down"], w_up_ptr=weights["w_up"],
        b_up_ptr=weights["b_up"], residual_ptr=x.view, y_ptr=out["y"], h_ptr=out["h"], slope_ptr=out["slope"],
        z_ptr=out["z"], T=T, D=D, M=M, scale=1.0, stride_xt=x.view.stride(0), stride_rt=x.view.stride(0),
        PARTIAL_SUMS=False, **fused,
    )  # fmt: skip
    backward.bottleneck_dx_kernel[(triton.cdiv(T, 16),)](
        dy_ptr=g.view, x_ptr=x.view, h_ptr=out["h_again"], slope_ptr=None, z_ptr=None, w_up_ptr=weights["w_up"],
        w_down_ptr=weights["w_down"], b_down_ptr=weights["b_down"], dx_ptr=out["dx"], dz_ptr=out["dz"],
        db_down_ptr=out["db_down"], T=T, D=D, M=M, scale=1.0, stride_dyt=g.view.stride(0),
        stride_xt=x.view.stride(0), ADD_DY=True, **fused,
    )  # fmt: skip
    backward.weight_grad_kernel[(2 * triton.cdiv(D, 32),)](
        dy_ptr=g.view, x_ptr=x.view, h_ptr=out["h"], dz_ptr=out["dz"], dw_down_ptr=out["dw_down"],
        dw_up_ptr=out["dw_up"], db_up_ptr=out["db_up"], T=T, D=D, M=M, tokens_per_split=32, stride_dyt=g.view.stride(0),
        stride_xt=x.view.stride(0), **constants,
    )  # fmt: skip
    expand_kernel[(triton.cdiv(T, 16) * triton.cdiv(D, 32),)](
        h_ptr=out["h"], w_ptr=weights["w_up"], bias_ptr=weights["b_up"], rows_ptr=x.view,
        out_ptr=out["out"], T=T, D=D, M=M, scale=1.0, stride_rt=x.view.stride(0), TRANSPOSED=False, **constants,
    )  # fmt: skip

    for name, canary in {**guarded, "x": x, "dy": g}.items():
        canary.assert_intact(name)
        assert torch.isfinite(canary.view).all(), f"{name} has unwritten elements, or read a halo"
    torch.testing.assert_close(out["y"], call(reference_adapter, case, inputs).detach())
    torch.testing.assert_close(out["out"], out["y"])
    torch.testing.assert_close(out["h_again"], out["h"])
    torch.testing.assert_close(out["db_up"].sum(0), dy.sum(0))
    torch.testing.assert_close(out["dw_up"].view(2, D, M).sum(0), dy.t() @ out["h"])
    torch.testing.assert_close(out["dw_down"].view(2, M, D).sum(0), out["dz"].t() @ inputs["x"].detach())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_and_infinity_stay_in_their_row(activation, backend):
    case = Case(40, 24, 6, torch.float32, activation=activation)
    inputs, dy = make_inputs(case), grad_output(case)
    clean = call(fused_adapter, case, inputs)
    (clean_dx,) = torch.autograd.grad(clean, inputs["x"], dy)
    with torch.no_grad():
        inputs["x"][3, 5] = float("nan")
        inputs["x"][17, 0] = float("inf")
    y = call(fused_adapter, case, inputs)
    (dx,) = torch.autograd.grad(y, inputs["x"], dy)
    others = [t for t in range(case.T) if t not in (3, 17)]
    assert torch.isnan(y[3]).all()
    assert torch.equal(y[others], clean[others])
    assert torch.equal(dx[others], clean_dx[others])


@pytest.mark.parametrize("magnitude", [30.0, 1e4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_pre_activations(activation, magnitude, backend):
    case = Case(33, 16, 7, torch.float32, activation=activation)
    inputs = make_inputs(case)
    inputs["x"] = (inputs["x"].detach() * magnitude).requires_grad_()
    assert_case(fused_adapter, case, inputs)


def test_relu_is_flat_at_zero_as_in_pytorch(backend):
    case = Case(5, 8, 3, torch.float64, activation="relu", bias=False)
    inputs = make_inputs(case)
    inputs["x"] = torch.zeros(5, 8, dtype=torch.float64, requires_grad=True)
    assert_case(fused_adapter, case, inputs)


def test_small_pre_activations_keep_their_relative_accuracy():
    for activation in ACTIVATIONS:
        case = Case(16, 16, 4, torch.float32, activation=activation, residual="none", bias=False)
        inputs = make_inputs(case)
        inputs["x"] = (inputs["x"].detach() * 1e-4).requires_grad_()
        assert_case(fused_adapter, case, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_does_not_depend_on_its_batch(dtype):
    case = Case(300, 72, 20, dtype)
    inputs, dy = make_inputs(case), grad_output(case)
    y = call(fused_adapter, case, inputs)
    (dx,) = torch.autograd.grad(y, inputs["x"], dy)
    for T in (1, 2, 17, 128):
        some = {**inputs, "x": inputs["x"].detach()[:T].requires_grad_()}
        part = call(fused_adapter, case, some)
        assert torch.equal(part, y[:T])
        assert torch.equal(torch.autograd.grad(part, some["x"], dy[:T])[0], dx[:T])
    order = torch.randperm(case.T, generator=torch.Generator().manual_seed(0))
    assert torch.equal(call(fused_adapter, case, {**inputs, "x": inputs["x"].detach()[order]}), y[order])


OFFSETS = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from adapter_fast import fused_adapter, reference_adapter
torch.manual_seed(0)
T, d, m, stride = 258, 16, 4, 2**24 - 16
assert (T - 1) * stride > 2**31
buffer = torch.empty((T - 1) * stride + d, dtype=torch.float16)
x = buffer.as_strided((T, d), (stride, 1))
x.copy_(torch.randn(T, d))
weights = [torch.randn(m, d).half() / 4, None, torch.randn(d, m).half() / 2, None]
y = fused_adapter(x, *weights)
expected = reference_adapter(x.contiguous(), *weights)
assert (y - expected).abs().max() < 2e-2, (y - expected).abs().max()
print("right")
"""


def test_rows_beyond_two_to_the_31_elements():
    # In a process of its own: a wrapped offset is a segmentation fault. Only the rows of the buffer are touched.
    done = subprocess.run([sys.executable, "-c", OFFSETS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "right" in done.stdout, f"rc {done.returncode}: {done.stderr[-500:]}"


def test_a_row_stride_over_the_limit_is_copied(backend):
    case = Case(3, 16, 4, torch.float16)
    inputs = make_inputs(case)
    inputs["x"] = strided("huge stride", inputs["x"].detach()).requires_grad_()
    assert_case(fused_adapter, case, inputs)


def test_an_identity_would_fail_the_budget():
    case = Case(64, 64, 16, torch.float16)
    inputs, dy = make_inputs(case), grad_output(case)
    from adapter_fast.testing import truth

    expected = truth(case, inputs, dy)["y"]
    with pytest.raises(AssertionError, match="max error"):
        assert_within_budget(inputs["x"].detach(), expected, call(reference_adapter, case, inputs), terms=80)


def test_a_row_off_by_one_percent_would_fail_the_budget():
    case = replace(Case(64, 64, 16), dtype=torch.float32)
    inputs = make_inputs(case)
    y = call(reference_adapter, case, inputs).detach()
    expected = call(
        reference_adapter, replace(case, dtype=torch.float64), make_inputs(replace(case, dtype=torch.float64))
    )
    wrong = y.clone()
    wrong[7] *= 1.01
    assert_within_budget(y, expected.detach(), y, terms=80)
    with pytest.raises(AssertionError, match=r"worst at \(7,"):
        assert_within_budget(wrong, expected.detach(), y, terms=80)
