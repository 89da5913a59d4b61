"""Whole models with adapters under torch.compile, torch.export and CUDA graphs: what eager mode computes."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from tiny_models import COMPILED, TINY, build, enlarge, inputs, inputs_of
from torch import nn
from torch._dynamo.utils import counters

from adapter_fast import (
    AdapterConfig,
    add_adapters,
    disable_adapters,
    remove_adapters,
    set_adapter,
    train_adapters,
)
from adapter_fast.config import PLACEMENTS

QUICK = {"bert": "houlsby", "gpt2": "pfeiffer", "llama": "parallel", "vit": "houlsby"}
# No row or length is another size of the tiny models: equal sizes share one symbol in a graph.
SIZES = ((5, 9), (6, 12), (7, 17))

families = pytest.mark.parametrize("family", COMPILED)


def quick(cases: set[tuple], *names: str, choices: list) -> pytest.MarkDecorator:
    """Every combination of these choices with each family and placement; those not named are slow."""
    every = itertools.product(COMPILED, PLACEMENTS, choices)
    marked = [pytest.param(*case, marks=() if case in cases else pytest.mark.slow) for case in every]
    return pytest.mark.parametrize(("family", "placement", *names), marked)


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """The kernels under the compiler are test_compile.py's; here the backend is PyTorch, which is quick."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def config_of(placement: str, bottleneck: int = 6) -> AdapterConfig:
    return AdapterConfig(bottleneck, placement=placement, scale=0.7)


def adapted(family: str, placement: str, **overrides) -> nn.Module:
    return enlarge(add_adapters(build(family, **overrides), config_of(placement)))


def feed(family: str, rows: int, length: int) -> dict[str, torch.Tensor]:
    return inputs_of(family, rows) if TINY[family].kind == "image" else inputs(rows, length)


def results(model: nn.Module, base: nn.Module, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The logits, and the gradient of every parameter of the base that trains."""
    base.zero_grad()
    logits = model(**given).logits
    logits.square().sum().backward()
    grads = {name: value.grad.clone() for name, value in base.named_parameters() if value.grad is not None}
    return {"logits": logits.detach(), **grads}


def assert_equal_to_eager(compiled: nn.Module, model: nn.Module, given: dict[str, torch.Tensor]) -> None:
    expected = results(model, model, given)
    assert sum(".adapters." in name for name in expected) == sum(".adapters." in n for n, _ in model.named_parameters())
    found = results(compiled, model, given)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@quick(
    {(family, placement, "aot_eager" if family == "vit" else "eager") for family, placement in QUICK.items()},
    "compiler",
    choices=["eager", "aot_eager"],
)
def test_fullgraph_training_equals_eager_and_compiles_once_for_all_sizes(family, placement, compiler):
    model = adapted(family, placement)
    train_adapters(model, head=family != "llama")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=compiler)
    assert_equal_to_eager(compiled, model, feed(family, *SIZES[0]))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for sizes in SIZES[1:]:
            assert_equal_to_eager(compiled, model, feed(family, *sizes))


@pytest.mark.slow
@families
def test_inductor(family):
    model = adapted(family, QUICK[family])
    train_adapters(model, head=family != "llama")
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    assert_equal_to_eager(compiled, model, feed(family, *SIZES[0]))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_equal_to_eager(compiled, model, feed(family, *SIZES[1]))


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("placement", ["houlsby", pytest.param("parallel", marks=pytest.mark.slow)])
def test_whatever_changes_after_the_compilation_is_seen(placement):
    """PyTorch's guards leave hooks out by default: then each of these would run a graph from before, silently."""
    model = build(num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    given = inputs(5, 9)
    seen = []

    def check(changed: bool = True) -> None:
        with torch.no_grad():
            expected = model(**given).logits
            assert torch.equal(compiled(**given).logits, expected)
        if seen and changed:
            assert not torch.allclose(expected, seen[-1]), "the change must show in the outputs"
        seen.append(expected)

    check()
    enlarge(add_adapters(model, config_of(placement)))
    check()
    enlarge(add_adapters(model, config_of("houlsby", bottleneck=5), "other"), "other", seed=8)
    check(changed=False)
    set_adapter(model, "other")
    check()
    set_adapter(model, "default")
    check()
    with disable_adapters(model):
        check()
    check()
    remove_adapters(model, "other")
    check(changed=False)
    remove_adapters(model)
    check()
    assert torch.equal(seen[-1], seen[0])
    enlarge(add_adapters(model, config_of(placement)))
    check()


def test_switching_back_and_forth_compiles_nothing_new():
    model = adapted("bert", "houlsby", num_hidden_layers=1)
    enlarge(add_adapters(model, config_of("houlsby", 5), "other"), "other")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    given = inputs(5, 9)
    for name in ("default", "other"):
        compiled(**given) if name == "default" else set_adapter(model, name)
        compiled(**given)
    before = graphs()
    assert before > 0
    for name in ("default", "other", "default"):
        set_adapter(model, name)
        compiled(**given)
    assert graphs() == before


def test_a_model_without_adapters_shares_no_graph_with_one_that_has_them():
    with_adapters, without = adapted("bert", "houlsby", num_hidden_layers=1), build(num_hidden_layers=1)
    given = inputs(5, 9)
    for model in (without, with_adapters):
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
        assert torch.equal(compiled(**given).logits, model(**given).logits)


def exported(model: nn.Module, family: str, strict: bool) -> torch.export.ExportedProgram:
    given = feed(family, *SIZES[0])
    rows, length = torch.export.Dim("rows", max=64), torch.export.Dim("length", max=40)
    shape = {0: rows} if TINY[family].kind == "image" else {0: rows, 1: length}
    return torch.export.export(model, (), given, dynamic_shapes=dict.fromkeys(given, shape), strict=strict)


@quick({("bert", "houlsby", False), ("vit", "parallel", False)}, "strict", choices=[False, True])
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
def test_export_with_dynamic_sizes_saved_and_loaded(family, placement, strict):
    """As a user exports: in eval mode, gradients neither off nor frozen. The file needs adapter_fast.functional."""
    model = adapted(family, placement)
    model.config.use_cache = False
    program = exported(model, family, strict)
    ops = [str(node.target) for node in program.graph.nodes if "adapter_fast" in str(node.target)]
    assert ops == ["adapter_fast.bottleneck_forward.default"] * (4 if placement == "houlsby" else 2)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for sizes in SIZES:
        given = feed(family, *sizes)
        expected = model(**given).logits
        torch.testing.assert_close(program.module()(**given).logits, expected)
        with torch.no_grad():
            torch.testing.assert_close(loaded(**given).logits, expected)


@pytest.mark.gpu
@families
def test_a_training_step_in_a_cuda_graph(family):
    model = adapted(family, QUICK[family]).cuda()
    train_adapters(model, head=family != "llama")
    given = {name: value.cuda() for name, value in feed(family, *SIZES[0]).items()}
    given.pop("attention_mask", None)  # some models look into it, which a capture forbids
    trained = [value for value in model.parameters() if value.requires_grad]

    def step() -> tuple[torch.Tensor, ...]:
        logits = model(**given).logits
        return (logits.detach(), *torch.autograd.grad(logits.square().sum(), trained))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for value in trained:
            value.mul_(0.9)
    graph.replay()
    torch.cuda.synchronize()
    for value, expected in zip(captured, step()):
        torch.testing.assert_close(value, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@families
def test_fullgraph_on_the_gpu(family, mode):
    model = adapted(family, QUICK[family]).cuda()
    train_adapters(model, head=family != "llama")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, mode=mode)
    for sizes in SIZES[:2]:
        torch.compiler.cudagraph_mark_step_begin()
        given = {name: value.cuda() for name, value in feed(family, *sizes).items()}
        expected = results(model, model, given)
        for name, value in results(compiled, model, given).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
