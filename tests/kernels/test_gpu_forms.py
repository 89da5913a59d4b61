"""Every tile choice and every form on a GPU (`make gpu-check`): forced one by one, alone, in a batch and in a graph."""

from functools import partial

import pytest
import torch

from adapter_fast import fused_adapter
from adapter_fast.benchmarks.smoke import host_us
from adapter_fast.benchmarks.tiles.precompile import gpu_here, tile_choices
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.kernels.offers import VARIABLE
from adapter_fast.kernels.tiles import forced
from adapter_fast.testing import INPUTS, Case, assert_case, call, evaluate, grad_output, make_inputs, poisoned

pytestmark = pytest.mark.gpu

BF16, FP32 = torch.bfloat16, torch.float32


def choices():
    """Each distinct set of tiles that this GPU's problems can get, with a shape that it fits."""
    gpu = gpu_here()
    return [
        pytest.param(*one, id=f"{one[1]}-{one[2]}-{index}")
        for index, one in enumerate(tile_choices(gpu) if gpu else [])
    ]


@pytest.mark.parametrize("d, m, weight_bytes, chosen", choices())
def test_every_choice_is_right_the_same_each_time_and_row_by_row(d, m, weight_bytes, chosen):
    case = Case(700, d, m, BF16, weight_dtype=FP32 if weight_bytes == 4 else None, scale=0.5, device="cuda")
    inputs, dy = make_inputs(case), grad_output(case)
    with forced(**chosen), poisoned():
        for memory in MEMORY_MODES:
            op = partial(fused_adapter, memory=memory)
            assert_case(op, case, inputs, dy)
            whole, again = (evaluate(op, case, inputs, dy) for _ in range(2))
            assert all(torch.equal(value, again[name]) for name, value in whole.items()), memory
            some = slice(130, 333)
            part = inputs | {"x": inputs["x"][some].detach().clone().requires_grad_()}
            alone = evaluate(op, case, part, dy[some])
            assert torch.equal(alone["y"], whole["y"][some]) and torch.equal(alone["d_x"], whole["d_x"][some]), memory


@pytest.mark.parametrize("optional", ["", "sliced"])
@pytest.mark.parametrize("m", [8, 16, 64, 128, 256])
@pytest.mark.parametrize("d", [768, 2048])
def test_a_row_has_the_same_bits_for_every_number_of_tokens(d, m, optional, monkeypatch):
    """The rules give other tiles to each bucket of tokens, and the same sums."""
    monkeypatch.setenv(VARIABLE, optional)
    case = Case(66000, d, m, BF16, device="cuda")
    inputs = make_inputs(case)
    with torch.no_grad():
        whole = call(fused_adapter, case, inputs)
        for T in (1, 100, 128, 2048, 16384):
            part = call(fused_adapter, case, inputs | {"x": inputs["x"][:T]})
            assert torch.equal(part, whole[:T]), T


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("T", [1, 77, 20001])
def test_the_sliced_form_in_every_memory_mode(T, memory, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sliced")
    for weight_dtype in (None, FP32):
        case = Case(T, 1024, 64, BF16, weight_dtype=weight_dtype, residual="tensor", device="cuda")
        with poisoned():
            assert_case(partial(fused_adapter, memory=memory), case)


def test_the_sliced_form_in_graphs_replayed_on_two_streams(monkeypatch):
    """Counters are shared between programs of one launch, and between no two launches that may run at once."""
    monkeypatch.setenv(VARIABLE, "sliced")
    case = Case(64, 1024, 64, BF16, device="cuda")
    inputs, dy = make_inputs(case), grad_output(case)
    names = INPUTS[:5]

    def step():
        y = call(fused_adapter, case, inputs)
        grads = torch.autograd.grad(y, [inputs[name] for name in names], dy)
        return y.detach(), *grads  # the graph of y would keep its leaves on the stream of their first use

    expected = step()
    torch.cuda.synchronize()
    graphs = []
    for _ in range(2):
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            captured = step()
        graphs.append((stream, graph, captured))
    torch.cuda.synchronize()
    for _ in range(50):
        for stream, graph, _ in graphs:
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for _, _, captured in graphs:
        assert all(torch.equal(value, right) for value, right in zip(captured, expected))


def test_what_the_host_takes_for_a_call():
    """Our launches cost the host no more than PyTorch's own operations, beside an autograd.Function in Python."""
    us = host_us()
    for phase in ("forward", "forward and backward"):
        ours, eager, nothing = (us[f"{phase}, {name}"] for name in ("fused", "eager", "nothing"))
        assert ours < eager + nothing, f"{phase}: {us}"
