"""fused_adapter: bad input by name, mixed precision, autocast."""

from functools import partial

import pytest
import torch

from adapter_fast import fused_adapter
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import forced
from adapter_fast.testing import (
    INPUTS,
    Case,
    assert_case,
    assert_within_budget,
    call,
    evaluate,
    grad_output,
    make_inputs,
    truth,
)

x, wd, bd, wu, bu = torch.randn(4, 8), torch.randn(3, 8), torch.randn(3), torch.randn(8, 3), torch.randn(8)
GOOD = {"x": x, "w_down": wd, "b_down": bd, "w_up": wu, "b_up": bu}

BAD = [
    ({"x": [1.0]}, TypeError, "x must be a tensor, got list"),
    ({"x": x.int()}, TypeError, "x must be float16, bfloat16, float32 or float64, got torch.int32"),
    ({"x": torch.tensor(1.0)}, ValueError, "x must be .* at least one dimension, got a scalar"),
    ({"x": torch.randn(4, 9)}, ValueError, r"w_down must be \[m, d\] with d = 9 as in x, got \[3, 8\]"),
    ({"w_down": wd[0]}, ValueError, r"w_down must be \[m, d\].*got \[8\]"),
    ({"w_down": torch.empty(0, 8)}, ValueError, "bottleneck m at least 1"),
    ({"w_down": wd.long()}, TypeError, "w_down must be float16.*got torch.int64"),
    ({"w_up": torch.randn(3, 8)}, ValueError, r"w_up must be \[d, m\] = \[8, 3\], got \[3, 8\]"),
    ({"b_down": torch.randn(8)}, ValueError, r"b_down must be \[m\] = \[3\], got \[8\]"),
    ({"b_up": torch.randn(3)}, ValueError, r"b_up must be \[d\] = \[8\], got \[3\]"),
    ({"b_up": bu.double()}, TypeError, "b_up must have the dtype of w_down, torch.float32, got torch.float64"),
    ({"residual": True}, TypeError, "residual must be a tensor, got bool"),
    ({"residual": torch.randn(5, 8)}, ValueError, r"residual must have the shape of x, \[4, 8\], got \[5, 8\]"),
    ({"residual": x.double()}, TypeError, "residual must have the dtype of x, torch.float32, got torch.float64"),
    ({"w_up": wu.to("meta")}, ValueError, "w_up must be on the device of x, cpu, got meta"),
    ({"residual": x.to("meta")}, ValueError, "residual must be on the device of x, cpu, got meta"),
    ({"activation": "swish"}, ValueError, "activation must be one of gelu, .*, got 'swish'"),
    ({"activation": None}, ValueError, "activation must be one of .* got None"),
    ({"scale": float("nan")}, ValueError, "scale must be finite, got nan"),
    ({"scale": float("inf")}, ValueError, "scale must be finite, got inf"),
    ({"scale": torch.tensor(1.0)}, TypeError, "scale must be a real number"),
    ({"scale": True}, TypeError, "scale must be a real number, got True"),
]


@pytest.mark.parametrize("changes, error, message", BAD)
def test_bad_input_is_named(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        fused_adapter(**{**GOOD, **changes})
    assert "\n" not in str(caught.value)


def test_sizes_beyond_32_bits_are_refused():
    wide = torch.empty(1).expand(2**24)
    with pytest.raises(ValueError, match=r"d below 2\*\*24"):
        fused_adapter(wide, wide[None].expand(2, -1), None, wide[:, None].expand(-1, 2), None)


def test_integers_are_numbers():
    assert torch.equal(fused_adapter(**GOOD, scale=2), fused_adapter(**GOOD, scale=2.0))


@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
def test_autocast(residual, backend):
    """float32 tensors under autocast: computed and returned in its dtype, gradients in the tensors' own."""
    dtype = torch.float16 if backend == "triton-interpreter" else torch.bfloat16
    case = Case(33, 24, 6, torch.float32, residual=residual, scale=0.5)
    inputs, dy = make_inputs(case), grad_output(case)
    with torch.autocast("cpu", dtype=dtype):
        linear = torch.nn.functional.linear(inputs["x"], inputs["w_down"])
        y = call(fused_adapter, case, inputs)
        assert y.dtype == linear.dtype == dtype
        # The backward pass runs inside autocast too: its products must not be cast again.
        y.backward(dy.to(dtype))
    assert all(inputs[name].grad.dtype == torch.float32 for name in INPUTS if inputs[name] is not None)

    low = {name: None if v is None else v.detach().to(dtype).requires_grad_() for name, v in inputs.items()}
    eager = evaluate(_reference, case, low, dy.to(dtype))
    expected = truth(case, inputs, dy.to(dtype))
    for name in INPUTS:
        if inputs[name] is not None:
            grad = eager[f"d_{name}"]
            assert_within_budget(inputs[name].grad.to(dtype), expected[f"d_{name}"], grad, terms=64, name=name)


def _reference(*args, **options):
    from adapter_fast import reference_adapter

    return reference_adapter(*args, **options)


def test_autocast_of_inputs_already_low(backend):
    dtype = torch.float16 if backend == "triton-interpreter" else torch.bfloat16
    case = Case(9, 24, 6, dtype, weight_dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        assert call(fused_adapter, case, make_inputs(case)).dtype == dtype


def test_bfloat16_on_a_cpu_runs_through_pytorch():
    assert_case(fused_adapter, Case(33, 24, 6, torch.bfloat16))
    assert_case(fused_adapter, Case(33, 24, 6, torch.bfloat16, weight_dtype=torch.float32))


@pytest.fixture
def high_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def test_float32_precision_setting_does_not_change_pytorch_on_a_cpu(high_precision, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    case = Case(9, 24, 6, torch.float32)
    inputs = make_inputs(case)
    found = call(fused_adapter, case, inputs)
    torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(found, call(fused_adapter, case, inputs))


@pytest.mark.parametrize("partial_sums", [False, True])
def test_tf32_rounds_its_operands_to_nearest(partial_sums, high_precision, monkeypatch):
    """Tensor cores cut the last 13 bits off, which errs three times as much: the kernels round before."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    case = Case(40, 96, 16, torch.float32, bias=False, residual="none", activation="identity")
    inputs = make_inputs(case)

    def rounded(t):  # to nearest, ties away from zero
        return ((t.detach().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32).double()

    h = (rounded(inputs["x"]) @ rounded(inputs["w_down"]).t()).float()
    expected = rounded(h) @ rounded(inputs["w_up"]).t()
    exact = inputs["x"].double() @ inputs["w_down"].double().t() @ inputs["w_up"].double().t()
    tiles = LaunchConfig("fused", 16, 32, 16, 4, 1, partial_sums=partial_sums)
    with torch.no_grad(), forced(forward=tiles):
        found = call(fused_adapter, case, inputs).double()
    scale = exact.abs().max()
    assert (found - expected).abs().max() < 1e-4 * scale  # an h at a tie may round the other way
    assert (found - expected).abs().mean() < 1e-6 * scale < (found - exact).abs().mean()
    with torch.no_grad():
        inputs["x"].view(torch.int32)[3, 5] = 0x7FFFFFFF  # the NaN that GPUs make
    assert torch.isnan(call(fused_adapter, case, inputs)[3]).all()


@pytest.mark.parametrize("setting, name", [("highest", "torch"), ("high", "triton"), ("medium", "triton")])
def test_exact_float32_products_are_pytorchs_on_a_gpu(setting, name, high_precision, monkeypatch):
    from adapter_fast import checks

    monkeypatch.setattr(checks, "_cuda_support", lambda index: None)
    torch.set_float32_matmul_precision(setting)
    backend = checks.select_backend(torch.device("cuda", 0), torch.float32)
    assert backend.name == name, backend
    assert name == "triton" or "set_float32_matmul_precision" in backend.reason
    assert checks.select_backend(torch.device("cuda", 0), torch.bfloat16).name == "triton"


@pytest.mark.parametrize("memory", ["speed", "balanced", "lean"])
def test_float32_weights_converted_before_a_call_give_the_same_bits(memory, monkeypatch):
    from adapter_fast.kernels import forward, tiles

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    case = Case(70, 40, 12, torch.float16, weight_dtype=torch.float32, scale=0.5)
    inputs, dy = make_inputs(case), grad_output(case)
    op = partial(fused_adapter, memory=memory)
    expected = evaluate(op, case, inputs, dy)
    seen = []
    launch = forward.launch_forward

    def spy(x, down, *others):
        seen.append((down.w.dtype, down.b.dtype, others[-1].w_bytes))
        return launch(x, down, *others)

    monkeypatch.setattr(forward, "launch_forward", spy)
    monkeypatch.setattr(tiles, "CONVERT_FROM", {"forward": 0, "backward": 0})
    tiles.converted.cache_clear()
    try:
        found = evaluate(op, case, inputs, dy)
    finally:
        tiles.converted.cache_clear()
    # Biases keep their dtype: rounded, they would give other bits than few tokens do.
    assert seen == [(torch.float16, torch.float32, 2)]
    assert all(
        torch.equal(value, expected[name]) and value.dtype == expected[name].dtype for name, value in found.items()
    )


def test_float32_weights_are_converted_from_some_tokens_on():
    from adapter_fast.kernels.shapes import TOKENS, Problem
    from adapter_fast.kernels.tiles import converted

    for m in (16, 64, 128):
        for tokens in TOKENS:
            mixed = Problem(768, m, 2, 4, "ieee", "sm_90", tokens=tokens)
            assert converted("forward", mixed).w_bytes == (2 if tokens == 65536 else 4)
            assert converted("backward", mixed).w_bytes == (2 if tokens >= 16384 else 4)
            same = Problem(768, m, 2, 2, "ieee", "sm_90", tokens=tokens)
            assert converted("backward", same) is same


def test_precision_setting_reaches_the_kernels(monkeypatch):
    from adapter_fast.ops.problem import problem as problem_of

    before = torch.get_float32_matmul_precision()
    try:
        for setting, expected in (("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")):
            torch.set_float32_matmul_precision(setting)
            problem = problem_of(torch.device("cpu"), torch.float32, torch.float32, 5, 8, 3)
            assert problem.precision == expected
            half = problem_of(torch.device("cpu"), torch.float16, torch.float32, 5, 8, 3)
            assert half.precision == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)
