"""torch.library registration and torch.compile, through the interpreter and through PyTorch operations."""

import pytest
import torch

from adapter_fast import FusedAdapter, fused_adapter, ops
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.testing import INPUTS, Case, call, evaluate, grad_output, make_inputs

OP = torch.ops.adapter_fast


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def forward_arguments(case, backend, **changes):
    inputs = make_inputs(case)
    inputs.update(changes)
    return (*(inputs[name] for name in INPUTS), case.residual == "x", case.activation, case.scale, backend)


@pytest.mark.parametrize("residual", ["x", "tensor"])
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck_forward(bias, residual, backend):
    case = Case(7, 12, 5, torch.float32, bias=bias, residual=residual, scale=0.5)
    arguments = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in forward_arguments(case, backend))
    torch.library.opcheck(OP.bottleneck_forward, arguments)
    for save_h, save_slope in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(OP.bottleneck_forward_save, (*arguments, save_h, save_slope, False))


def test_opcheck_strided_and_empty(backend):
    case = Case(6, 12, 5, torch.float32)
    for x in (torch.randn(6, 24)[:, ::2], torch.randn(2, 3, 12).transpose(0, 1), torch.empty(0, 12)):
        arguments = tuple(
            a.detach() if isinstance(a, torch.Tensor) else a for a in forward_arguments(case, backend, x=x)
        )
        torch.library.opcheck(OP.bottleneck_forward_save, (*arguments, False, False, True))


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("trained", [INPUTS, ("x",), ("w_down", "b_down"), ("w_up",), ("b_up", "b_down")])
def test_opcheck_backward(trained, memory, backend):
    case = Case(7, 12, 5, torch.float32, weight_dtype=torch.float64)
    inputs = {name: None if value is None else value.detach() for name, value in make_inputs(case).items()}
    save = {"speed": (True, True, False), "balanced": (False, False, True), "lean": (False, False, False)}[memory]
    weights = ops.Weights(*(inputs[name] for name in ops.Weights._fields))
    settings = ops.Settings(True, "gelu", 1.0, backend)
    _, saved = ops.forward_save(inputs["x"], weights, None, settings, ops.Keep(*save))
    needs = tuple(name in trained for name in ("x", "w_down", "b_down", "w_up", "b_up"))
    if memory != "speed" and not any(needs[:3]):
        pytest.skip("with no dz to compute h is saved in every mode")
    arguments = (
        grad_output(case),
        inputs["x"],
        saved.h,
        saved.slope,
        saved.z,
        *weights[:3],
        True,
        "gelu",
        1.0,
        backend,
        torch.float64,
    )
    torch.library.opcheck(OP.bottleneck_backward, (*arguments, *needs))


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
def test_fullgraph_equals_eager(residual, compiler, backend):
    case = Case(9, 12, 5, torch.float32, residual=residual, scale=0.5)
    inputs, dy = make_inputs(case), grad_output(case)
    compiled = torch.compile(fused_adapter, fullgraph=True, backend=compiler)
    expected = evaluate(fused_adapter, case, inputs, dy)
    for name, value in evaluate(compiled, case, inputs, dy).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("trained", [("x",), ("w_down", "b_down", "w_up", "b_up"), ("b_up",), ()])
def test_fullgraph_with_frozen_inputs(trained, backend):
    case = Case(9, 12, 5, torch.float32)
    inputs, dy = make_inputs(case), grad_output(case)
    for name in INPUTS[:5]:
        inputs[name].requires_grad_(name in trained)
    compiled = torch.compile(fused_adapter, fullgraph=True, backend="aot_eager")
    y, expected = call(compiled, case, inputs), call(fused_adapter, case, inputs)
    assert torch.equal(y, expected)
    leaves = [inputs[name] for name in trained]
    if leaves:
        for a, b in zip(torch.autograd.grad(y, leaves, dy), torch.autograd.grad(expected, leaves, dy)):
            assert torch.equal(a, b)


def test_the_number_of_tokens_does_not_recompile(backend):
    adapter = FusedAdapter(12, 5, init_std=0.3)
    compiled = torch.compile(adapter, fullgraph=True, backend="aot_eager", dynamic=True)
    compiled(torch.randn(4, 12)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for T in (127, 193, 2, 64):
            x = torch.randn(T, 12)
            torch.testing.assert_close(compiled(x), adapter(x))


def test_a_consumer_that_changes_the_layout(backend):
    adapter = FusedAdapter(12, 5, init_std=0.3)

    def model(x):
        return (adapter(x).t().contiguous() * 2).sum(0)

    x = torch.randn(9, 12)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_autocast_inside_the_compiled_region(backend):
    dtype = torch.float16 if backend == "triton-interpreter" else torch.bfloat16
    adapter = FusedAdapter(12, 5, init_std=0.3)

    def model(x):
        with torch.autocast("cpu", dtype=dtype):
            return adapter(x)

    x = torch.randn(9, 12, requires_grad=True)
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    assert y.dtype == dtype
    assert torch.equal(y, model(x))
    y.sum().backward()
    assert adapter.down.weight.grad.dtype == torch.float32


def test_bad_shapes_are_refused_while_compiling():
    adapter = FusedAdapter(12, 5)
    with pytest.raises(Exception, match=r"w_down must be \[m, d\]"):
        torch.compile(adapter, backend="eager")(torch.randn(4, 13))


def test_export_of_an_inference_model(backend):
    adapter = FusedAdapter(12, 5, init_std=0.3).eval().requires_grad_(False)
    x = torch.randn(4, 12)
    exported = torch.export.export(adapter, (x,))
    assert torch.equal(exported.module()(x), adapter(x))
