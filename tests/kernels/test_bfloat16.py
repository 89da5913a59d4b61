"""bfloat16 under the interpreter, mended: the error budget of every form, and that each tensor is rounded only once."""

from functools import partial

import pytest
import torch
import triton
import triton.language as tl
from test_forms import FORMS
from test_kernels import STRIDES, assert_layout
from triton.runtime import interpreter

from adapter_fast import functional, fused_adapter
from adapter_fast.checks import ACTIVATIONS, MEMORY_MODES, Backend
from adapter_fast.kernels.tiles import forced
from adapter_fast.ops.eager import _activate, _slope
from adapter_fast.ops.explain import launch_form
from adapter_fast.testing import (
    INPUTS,
    Case,
    _wrong_bfloat16,
    assert_case,
    bfloat16_interpreter,
    evaluate,
    grad_output,
    make_inputs,
    truth,
)

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture
def kernels(poison, monkeypatch):
    """A CPU runs the kernels in bfloat16, which it otherwise leaves to PyTorch."""
    monkeypatch.setattr(functional, "select_backend", lambda device, dtype: Backend("triton-interpreter", "a test"))
    with bfloat16_interpreter():
        yield


# Ragged and aligned, fused and, from m = 129, split.
SHAPES = [(1, 1, 1), (19, 36, 8), (33, 64, 16), (17, 40, 33), (65, 48, 64), (18, 24, 264), (20, 17, 257)]


@pytest.mark.parametrize("weight_dtype, memory", [(BF16, "speed"), (FP32, "speed"), (BF16, "balanced"), (FP32, "lean")])
@pytest.mark.parametrize("T, d, m", SHAPES)
def test_every_shape(T, d, m, weight_dtype, memory, kernels):
    form = launch_form(torch.device("cpu"), BF16, weight_dtype, T, d, m)
    assert form.startswith("two launches" if m > 128 else "one fused launch")
    assert_case(partial(fused_adapter, memory=memory), Case(T, d, m, BF16, weight_dtype=weight_dtype, scale=0.75))


@pytest.mark.parametrize(
    "memory, bias, residual",
    [
        ("speed", True, "x"),
        ("speed", True, "tensor"),
        ("speed", False, "none"),
        ("balanced", False, "x"),
        ("lean", True, "none"),
    ],
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation, memory, bias, residual, kernels):
    case = Case(19, 36, 9, BF16, activation=activation, bias=bias, residual=residual, scale=1.5)
    assert_case(partial(fused_adapter, memory=memory), case)


@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("m", [8, 264])
def test_no_tokens(m, residual, kernels):
    assert_case(fused_adapter, Case(0, 16, m, BF16, residual=residual))


@pytest.mark.parametrize("kind", STRIDES)
@pytest.mark.parametrize("which", ["x", "residual", "w_down", "w_up", "dy"])
def test_layouts(which, kind, kernels):
    assert_layout(which, kind, Case(37, 24, 8, BF16, residual="tensor"))


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form(form, memory, kernels):
    with forced(**FORMS[form]):
        assert_case(partial(fused_adapter, memory=memory), Case(37, 72, 16, BF16, scale=0.5, weight_dtype=FP32))


def rounded_once(case, inputs, dy, memory):
    """y and the gradients in float64, but for one rounding of each tensor that the kernels keep in x's dtype."""

    def kept(value):
        return value.to(case.dtype).double()

    x, w_down, b_down, w_up, b_up, residual = (inputs[name].detach().double() for name in INPUTS)
    w_down, w_up, dy = kept(w_down), kept(w_up), dy.double()
    z = x @ w_down.t() + b_down
    y = residual + case.scale * (kept(_activate(z, case.activation)) @ w_up.t() + b_up)
    z = kept(z) if memory == "balanced" else z
    h, slope = kept(_activate(z, case.activation)), _slope(z, case.activation)
    dz = case.scale * (dy @ w_up) * (kept(slope) if memory == "speed" else slope)
    grads = {"d_w_down": kept(dz).t() @ x, "d_b_down": dz.sum(0)}
    grads |= {"d_w_up": case.scale * dy.t() @ h, "d_b_up": case.scale * dy.sum(0)}
    rows = {"y": y, "d_x": kept(dz) @ w_down, "d_residual": dy}
    return {n: v.to(case.dtype) for n, v in rows.items()} | {n: v.to(case.weight_dtype) for n, v in grads.items()}


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("weight_dtype", [BF16, FP32])
@pytest.mark.parametrize("form", ["fused", "split", "sliced"])
def test_each_tensor_is_rounded_once(form, weight_dtype, memory, kernels):
    """A second rounding, or sums kept in 16 bits, pass the error budget: PyTorch's own bfloat16 is no better.

    Beside the float64 computation that rounds where the kernels may, either is 30 to 150 % of that rounding's error;
    float32 sums leave less than 1 %, where a value near a tie falls to the other side.
    """
    case = Case(80, 96, 16, BF16, weight_dtype=weight_dtype, scale=0.75, residual="tensor")
    inputs, dy = make_inputs(case), grad_output(case)
    with forced(**FORMS[form]):
        found = evaluate(partial(fused_adapter, memory=memory), case, inputs, dy)
    expected, exact = rounded_once(case, inputs, dy, memory), truth(case, inputs, dy)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name].double() - value.double()).abs().mean()
        # Float32 gradients of biases meet no 16-bit rounding at all.
        allowed = 0.05 * (value - exact[name]).abs().mean() + 1e-6 * exact[name].abs().mean()
        assert difference <= allowed, f"{name} of {case}: {difference:.1e} off what one rounding gives"


@triton.jit
def cast_kernel(values_ptr, low_ptr, back_ptr, N: tl.constexpr):
    offs = tl.arange(0, N)
    low = tl.load(values_ptr + offs).to(tl.bfloat16)
    tl.store(low_ptr + offs, low)
    tl.store(back_ptr + offs, low.to(back_ptr.dtype.element_ty))


@pytest.mark.parametrize("back", [FP16, FP32, torch.float64])
def test_casts_are_pytorchs_for_every_bfloat16_and_what_lies_between(back):
    halves = torch.tensor([0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xABCD, 0xFFFE, 0xFFFF])
    bits = (torch.arange(2**16) << 16)[:, None] + halves
    values = bits.flatten().to(torch.int32).view(FP32)
    low, wide = torch.empty_like(values, dtype=BF16), torch.empty_like(values, dtype=back)
    with bfloat16_interpreter():
        cast_kernel[(1,)](values, low, wide, values.numel())
    torch.testing.assert_close(low, values.to(BF16), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(wide, values.to(BF16).to(back), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(low.signbit()[~low.isnan()], values.signbit()[~values.isnan()])


@triton.jit
def dot_kernel(a_ptr, b_ptr, out_ptr, N: tl.constexpr):
    offs = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(out_ptr + offs, tl.dot(tl.load(a_ptr + offs), tl.load(b_ptr + offs)))


def test_dot_multiplies_values():
    a, b = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0)).to(BF16)
    out = torch.empty(32, 32)
    with bfloat16_interpreter():
        dot_kernel[(1,)](a, b, out, 32)
    torch.testing.assert_close(out, (a.double() @ b.double()).float())


@triton.jit
def product_kernel(x_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(x_ptr + tl.arange(0, N), x * x)


def test_arithmetic_in_bfloat16_is_refused_rather_than_done_on_bits():
    with bfloat16_interpreter(), pytest.raises(Exception, match="arithmetic in bfloat16"):
        product_kernel[(1,)](torch.ones(16, dtype=BF16), 16)


def builder():
    return {name: getattr(interpreter.InterpreterBuilder, name) for name in dir(interpreter.InterpreterBuilder)}


def test_the_interpreter_is_mended_and_left_as_it_was():
    before = builder()
    assert _wrong_bfloat16(interpreter), "this Triton computes bfloat16 right: bfloat16_interpreter can go"
    with pytest.raises(KeyError), bfloat16_interpreter():
        assert _wrong_bfloat16(interpreter) is None
        raise KeyError
    assert builder() == before


@pytest.mark.parametrize("name", ["create_dot", "cast_impl", "create_fp_to_fp", "unary_op", "TensorHandle", "_ir"])
def test_an_interpreter_without_what_is_mended_is_refused(name, monkeypatch):
    monkeypatch.delattr(interpreter if hasattr(interpreter, name) else interpreter.InterpreterBuilder, name)
    with (
        pytest.raises(RuntimeError, match=rf"this is {triton.__version__}: triton.*no {name} where"),
        bfloat16_interpreter(),
    ):
        pass


MOVED = {
    "create_fp_trunc": lambda self, src, dst: interpreter.TensorHandle((src.data.view("u4") >> 16).astype("u2"), dst),
    "create_fp_ext": lambda self, src, dst: interpreter.TensorHandle(src.data.astype("f4"), dst),
    "create_dot": lambda self, a, b: None,
}


@pytest.mark.parametrize("name", MOVED)
def test_an_interpreter_that_stays_wrong_is_refused(name, monkeypatch):
    monkeypatch.setattr(interpreter.InterpreterBuilder, name, MOVED[name])
    before = builder()
    with (
        pytest.raises(RuntimeError, match=rf"this is {triton.__version__}: its {name} is wrong"),
        bfloat16_interpreter(),
    ):
        pass
    assert builder() == before
