"""Infinities and NaN: where PyTorch's reference is finite the op is, and elsewhere it is not finite in the same way."""

from functools import partial

import pytest
import torch
import triton
import triton.language as tl

from adapter_fast import fused_adapter, reference_adapter
from adapter_fast.checks import ACTIVATIONS
from adapter_fast.kernels.activations import activate, activation_slope
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import forced
from adapter_fast.ops.eager import _activate, _slope
from adapter_fast.reference import ACTIVATIONS as REFERENCE
from adapter_fast.testing import Case, evaluate, grad_output, make_inputs

pytestmark = [
    pytest.mark.usefixtures("poison"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:TF32 acceleration"),
]

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float64, torch.float32, torch.float16]


@pytest.fixture(autouse=True)
def without_mkldnn():
    """Its gelu makes NaN of inf, which no other of PyTorch's does."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def assert_same_kind(actual, expected, name):
    """Finite, inf, -inf and NaN at the same places; finite values close, relative to the largest of their row."""
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}[expected.dtype]
    actual, expected = actual.double(), expected.double()
    largest = expected.where(expected.isfinite(), torch.zeros(())).abs().amax(-1, keepdim=True).clamp_min(1.0)
    torch.testing.assert_close(
        actual / largest,
        expected / largest,
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
        msg=lambda m: f"{name}: {m}",
    )


@triton.jit
def elementwise_kernel(z_ptr, h_ptr, slope_ptr, N: tl.constexpr, ACTIVATION: tl.constexpr):
    offs = tl.arange(0, N)
    z = tl.load(z_ptr + offs)
    tl.store(h_ptr + offs, activate(z, ACTIVATION))
    tl.store(slope_ptr + offs, activation_slope(z, ACTIVATION))


def by_kernel(z, activation):
    z = z if z.dtype == torch.float64 else z.float()
    h, slope = torch.empty_like(z), torch.empty_like(z)
    elementwise_kernel[(1,)](z, h, slope, len(z), activation)
    return h, slope


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("by", [by_kernel, lambda z, activation: (_activate(z, activation), _slope(z, activation))])
def test_activations_and_slopes(by, activation, dtype):
    sizes = [0, 1e-30, 0.3, 1, 9, 14, 44, 88, 89, 104, 710, 65504, 1e10, 1e13, 1e18, 1e25, 1e37, 1e100, 1e160, 1e300]
    z = torch.tensor([sign * size for size in sizes for sign in (1, -1)] + [INF, -INF, NAN]).double().to(dtype)
    z = torch.cat([z, z.new_zeros(64 - len(z))]).requires_grad_()
    expected = REFERENCE[activation](z)
    (slope,) = torch.autograd.grad(expected, z, torch.ones_like(z))
    for name, actual, wanted in zip(("h", "slope"), by(z.detach(), activation), (expected.detach(), slope)):
        assert_same_kind(actual.to(dtype)[:, None], wanted[:, None], name)  # each of them a row


def spoil(where, inputs, dy):
    """inputs and dy with infinities, NaN or huge numbers there."""
    inputs = {name: None if value is None else value.detach().clone() for name, value in inputs.items()}
    huge = 6e4 if dy.dtype == torch.float16 else 1e30
    if where == "x, NaN":
        inputs["x"][4, 1] = NAN
    elif where == "x, huge":
        inputs["x"][5] = huge
    elif where == "dy":
        dy = dy.clone()
        dy[3, 5] = INF
        dy[18, 0] = -INF
    elif where == "dy, huge":
        dy = dy.clone()
        dy[3] = huge
    elif where == "b_down, huge":
        inputs["b_down"][:2] = huge * torch.tensor([1.0, -1.0])
    else:
        dy = dy.abs()  # an infinity of one sign in each column of dh, whose sum is one too
        inputs[where].view(-1)[0] = INF
        inputs[where].view(-1)[-1] = -INF
    return {name: None if value is None else value.requires_grad_() for name, value in inputs.items()}, dy


WHERE = [
    "x", "x, NaN", "x, huge", "w_down", "b_down", "b_down, huge", "w_up", "b_up", "residual", "dy", "dy, huge"
]  # fmt: skip


LONG_TAIL = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("dtype", [torch.float32, LONG_TAIL(torch.float16)])
@pytest.mark.parametrize("memory", ["speed", LONG_TAIL("balanced"), "lean"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("where", WHERE)
def test_the_op(where, activation, memory, dtype, backend):
    case = Case(19, 36, 9, dtype, activation=activation, residual="tensor", scale=0.5)
    inputs, dy = spoil(where, make_inputs(case), grad_output(case))
    expected = evaluate(reference_adapter, case, inputs, dy)
    actual = evaluate(partial(fused_adapter, memory=memory), case, inputs, dy)
    for name, value in actual.items():
        if "huge" in where and dtype == torch.float16:  # PyTorch rounds in between and may overflow where ours does not
            assert value[expected[name].isfinite()].isfinite().all(), name
        else:
            assert_same_kind(value, expected[name], name)


FUSED = LaunchConfig("fused", 16, 16, 16, 4, 1)
FORMS = {
    "tile after tile": {"forward": FUSED, "dx": FUSED, "dx_z": FUSED, "dx_x": FUSED},
    "split": {phase: LaunchConfig("split", 16, 16, 16, 4, 1) for phase in ("forward", "dx", "dx_z", "dx_x")},
    "sliced": {"forward": LaunchConfig("sliced", 16, 16, 16, 4, 1)},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("memory", ["speed", "balanced", "lean"])
@pytest.mark.parametrize("where", [where for where in WHERE if "huge" not in where])
def test_other_forms(where, memory, form):
    for activation in ("relu", "tanh", "identity"):  # those of a finite slope at infinity
        case = Case(19, 36, 9, torch.float64, activation=activation, residual="tensor", scale=0.5)
        inputs, dy = spoil(where, make_inputs(case), grad_output(case))
        expected = evaluate(reference_adapter, case, inputs, dy)
        with forced(**FORMS[form]):
            actual = evaluate(partial(fused_adapter, memory=memory), case, inputs, dy)
        for name, value in actual.items():
            assert_same_kind(value, expected[name], f"{name} of {activation}")
