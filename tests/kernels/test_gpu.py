"""The compiled kernels on a GPU (`make gpu-check`): what the interpreter cannot show."""

from dataclasses import replace

import pytest
import torch

from adapter_fast import FusedAdapter, ReferenceAdapter, fused_adapter
from adapter_fast.checks import ACTIVATIONS
from adapter_fast.testing import INPUTS, Case, assert_case, call, evaluate, grad_output, make_inputs, poisoned

pytestmark = pytest.mark.gpu

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(params=["highest", "high"])
def precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def on_gpu(*sizes, **settings):
    return Case(*sizes, device="cuda", **settings)


@pytest.mark.parametrize("weight_dtype", ["same", FP32])
@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("m", [8, 16, 33, 64, 100, 256, 300, 512])
@pytest.mark.parametrize("T, d", [(1, 768), (127, 1000), (2048, 768), (1000, 4096)])
def test_error_budget_16_bit(T, d, m, dtype, weight_dtype):
    with poisoned():
        assert_case(fused_adapter, on_gpu(T, d, m, dtype=dtype, weight_dtype=None if weight_dtype == "same" else FP32))


@pytest.mark.parametrize("m", [8, 64, 100, 256, 300])
@pytest.mark.parametrize("T, d", [(1, 768), (127, 1000), (2048, 768), (300, 4096)])
def test_error_budget_32_bit(T, d, m, precision):
    if T == 1 and precision == "high":
        pytest.skip("PyTorch multiplies a single row without tensor cores, in float32: see the test below")
    with poisoned():
        assert_case(fused_adapter, on_gpu(T, d, m, dtype=FP32))


def test_one_row_in_tf32_is_that_of_its_batch():
    case = on_gpu(127, 768, 64, dtype=FP32)
    inputs = make_inputs(case)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.no_grad():
            alone = call(fused_adapter, case, inputs | {"x": inputs["x"][:1]})
            assert torch.equal(alone, call(fused_adapter, case, inputs)[:1])
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_form(activation, residual, bias):
    case = on_gpu(333, 200, 24, dtype=BF16, activation=activation, residual=residual, bias=bias, scale=1.5)
    assert_case(fused_adapter, case)


def test_exact_products_run_through_pytorch_and_say_so(precision):
    case = on_gpu(33, 40, 6, dtype=torch.float64)
    assert_case(fused_adapter, case)
    adapter = FusedAdapter(40, 6, device="cuda", dtype=torch.float64)
    assert adapter.explain(torch.empty(0, 40, device="cuda", dtype=torch.float64)).name == "torch"
    adapter = FusedAdapter(40, 6, device="cuda")
    found = adapter.explain(torch.empty(0, 40, device="cuda"))
    assert found.name == ("torch" if precision == "highest" else "triton"), found


@pytest.mark.parametrize("kind", ["sliced rows", "every other column", "transposed", "misaligned"])
@pytest.mark.parametrize("which", ["x", "w_down", "w_up", "dy"])
def test_layouts(which, kind):
    from test_kernels import strided

    case = on_gpu(130, 72, 20, dtype=BF16)
    inputs, dy = make_inputs(case), grad_output(case)

    def relaid(values):
        # The layout is made on the CPU and carried over with its strides and its offset.
        view = strided(kind, values.detach().float().cpu())
        base = view._base if view._base is not None else view
        base = base.to("cuda", BF16)
        return base.as_strided(view.shape, view.stride(), view.storage_offset())

    if which == "dy":
        dy = relaid(dy)
    else:
        inputs[which] = relaid(inputs[which]).requires_grad_()
    assert_case(fused_adapter, case, inputs, dy)


@pytest.mark.parametrize("m", [16, 64, 256, 300])
def test_twenty_runs_give_the_same_bits(m):
    case = on_gpu(5000, 768, m, dtype=BF16)
    inputs, dy = make_inputs(case), grad_output(case)
    first = evaluate(fused_adapter, case, inputs, dy)
    for _ in range(20):
        for name, value in evaluate(fused_adapter, case, inputs, dy).items():
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("m", [16, 64, 128, 256, 300])
def test_a_row_does_not_depend_on_its_batch(m):
    case = on_gpu(1000, 768, m, dtype=BF16)
    inputs, dy = make_inputs(case), grad_output(case)
    y = call(fused_adapter, case, inputs)
    (dx,) = torch.autograd.grad(y, inputs["x"], dy)
    for T in (1, 2, 17, 128):
        some = {**inputs, "x": inputs["x"].detach()[:T].requires_grad_()}
        part = call(fused_adapter, case, some)
        assert torch.equal(part, y[:T])
        assert torch.equal(torch.autograd.grad(part, some["x"], dy[:T])[0], dx[:T])


@pytest.mark.parametrize("mode", ["default", "max-autotune-no-cudagraphs", "reduce-overhead"])
def test_compile_fullgraph(mode):
    torch._dynamo.reset()
    case = on_gpu(127, 768, 64, dtype=BF16, weight_dtype=FP32)
    compiled = torch.compile(fused_adapter, fullgraph=True, mode=mode)

    def op(*args, **options):
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args, **options)

    assert_case(op, case)
    assert_case(op, replace(case, T=193))


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_autocast(dtype):
    adapter = FusedAdapter(768, 64, init_std=0.1, device="cuda")
    twin = ReferenceAdapter(768, 64, device="cuda")
    twin.load_state_dict(adapter.state_dict())
    x = torch.randn(200, 768, device="cuda")
    results = []
    for module in (adapter, twin):
        with torch.autocast("cuda", dtype=dtype):
            y = module(x)
        assert y.dtype == dtype
        y.float().pow(2).mean().backward()
        results.append((y, module.up.weight.grad, module.down.weight.grad))
    for fused, reference in zip(*results):
        assert fused.dtype == reference.dtype
        error = (fused.double() - reference.double()).norm() / reference.double().norm()
        assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("m", [16, 64, 300])
def test_cuda_graph_capture_forward_and_backward(m):
    case = on_gpu(256, 768, m, dtype=BF16)
    inputs, dy = make_inputs(case), grad_output(case)
    names = INPUTS[:5]

    def step():
        y = call(fused_adapter, case, inputs)
        return (y, *torch.autograd.grad(y, [inputs[name] for name in names], dy))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    other = make_inputs(replace(case, seed=7))
    with torch.no_grad():
        for name in names:
            inputs[name].copy_(other[name])
    graph.replay()
    torch.cuda.synchronize()
    for value, expected in zip(captured, step()):
        assert torch.equal(value, expected)


def test_no_temporary_as_wide_as_x():
    """Training allocates y, h and slope forward; dx, dz and partial sums backward: nothing else of x's size."""
    case = on_gpu(16384, 1024, 64, dtype=BF16)
    inputs, dy = make_inputs(case), grad_output(case)
    X, Z = case.T * case.d * 2, case.T * case.m * 2
    evaluate(fused_adapter, case, inputs, dy)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = call(fused_adapter, case, inputs)
    assert torch.cuda.max_memory_allocated() - before < X + 2 * Z + X // 10
    torch.autograd.grad(y, [inputs[name] for name in INPUTS[:5]], dy)
    partial = 2 * (2 * torch.cuda.get_device_properties(0).multi_processor_count + 8) * 64 * 64 * 4
    assert torch.cuda.max_memory_allocated() - before < 2 * X + 3 * Z + partial + X // 4


def test_more_than_two_to_the_31_elements():
    T, d = 2**21 + 64, 1024
    if torch.cuda.mem_get_info()[0] < 5 * T * d * 2:
        pytest.skip(f"needs {5 * T * d * 2 / 2**30:.0f} GiB of free GPU memory")
    x = torch.randn(T, d, device="cuda", dtype=BF16)
    adapter = FusedAdapter(d, 16, init_std=0.1, device="cuda", dtype=BF16)
    with torch.no_grad():
        y = adapter(x)
        assert torch.equal(y[-100:], adapter(x[-100:].clone()))
        assert torch.equal(y[:100], adapter(x[:100].clone()))


def test_a_second_device_is_entered():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    case = Case(33, 64, 8, BF16, device="cuda:1")
    assert_case(fused_adapter, case)


def test_a_model_on_the_gpu_trains_like_the_reference():
    losses = {}
    for kind in (ReferenceAdapter, FusedAdapter):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 256), kind(256, 32, init_std=0.2), torch.nn.Linear(256, 4)
        ).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        x, target = torch.randn(512, 64, device="cuda"), torch.randint(4, (512,), device="cuda")
        losses[kind] = []
        for _ in range(20):
            loss = torch.nn.functional.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[kind].append(loss.item())
    reference, fused = (torch.tensor(losses[kind]) for kind in (ReferenceAdapter, FusedAdapter))
    assert reference[-1] < 0.8 * reference[0]
    torch.testing.assert_close(fused, reference, rtol=1e-4, atol=0)
