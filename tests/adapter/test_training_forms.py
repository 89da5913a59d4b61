"""A training step in other forms: checkpointed, in micro-batches, under autocast, by torch.func: the same gradients."""

from __future__ import annotations

import threading

import pytest
import torch
from tiny_models import build, enlarge, inputs, inputs_of
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

from adapter_fast import AdapterConfig, FusedAdapter, ReferenceAdapter, add_adapters, train_adapters
from adapter_fast.config import PLACEMENTS
from adapter_fast.placement.container import INLET

NO_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "llama": {},
    "t5": {"dropout_rate": 0.0},
    "vit": {},
}
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


@pytest.fixture
def torch_backend(monkeypatch):
    """Whole models run on PyTorch operations: the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def tuned(family: str, placement: str = "houlsby", **fields) -> nn.Module:
    """In training mode, without dropout."""
    config = AdapterConfig(6, placement=placement, scale=0.7, **fields)
    model = enlarge(add_adapters(build(family, **NO_DROPOUT[family]), config))
    return train_adapters(model, head=family in ("bert", "vit")).train()


def batch(family: str, rows: int = 4) -> dict[str, Tensor]:
    given = inputs_of(family, rows)
    if family in ("bert", "vit"):
        return {**given, "labels": torch.arange(rows) % 3}
    return {**given, "labels": given.get("decoder_input_ids", given["input_ids"])}


def gradients(model: nn.Module, *batches: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of every parameter that trains, over these batches, each with its share of the rows."""
    model.zero_grad()
    rows = sum(len(given["labels"]) for given in batches)
    for given in batches:
        (model(**given).loss * (len(given["labels"]) / rows)).backward()
    grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    assert {name for name, value in model.named_parameters() if value.requires_grad} == grads.keys()
    assert any(".adapters." in name and bool(grad.any()) for name, grad in grads.items())
    return grads


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerances: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}", **tolerances)


def checkpoint(model: nn.Module, use_reentrant: bool) -> None:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.usefixtures("torch_backend")
class TestGradientCheckpointing:
    @pytest.mark.parametrize("use_reentrant", [False, True])
    @every_placement
    @pytest.mark.parametrize("family", ["bert", "llama", "t5"])
    def test_gradients_are_those_without(self, family, placement, use_reentrant):
        model, given = tuned(family, placement), batch(family)
        calls = []
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda *_: calls.append(1))
        expected, plain = gradients(model, given), len(calls)
        checkpoint(model, use_reentrant)
        model.enable_input_require_grads()
        assert_same(gradients(model, given), expected)
        assert len(calls) > 2.5 * plain, "the layers must have run once more in the backward pass"
        inlets = [module._modules[INLET] for module in model.modules() if INLET in module._modules]
        assert bool(inlets) == (placement == "parallel")
        assert not any(inlet.held for inlet in inlets)

    def test_reentrant_over_a_frozen_base_needs_inputs_with_gradients(self):
        """A picture needs no gradient, nor does the frozen embedding: PyTorch then drops the whole backward pass."""
        model, given = tuned("vit"), batch("vit")
        train_adapters(model, layer_norms=False)
        expected = gradients(model, given)
        checkpoint(model, use_reentrant=True)
        model.zero_grad()
        with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
            model(**given).loss.backward()
        assert all(value.grad is None for name, value in model.named_parameters() if ".adapters." in name)
        model.enable_input_require_grads()
        assert_same(gradients(model, given), expected)
        checkpoint(model, use_reentrant=False)
        model.disable_input_require_grads()
        assert_same(gradients(model, given), expected)


@pytest.mark.usefixtures("torch_backend")
@every_placement
def test_micro_batches_add_up_to_the_batch(placement):
    model, whole = tuned("bert", placement), batch("bert", 6)
    parts = [{name: value[rows] for name, value in whole.items()} for rows in (slice(0, 1), slice(1, 3), slice(3, 6))]
    assert_same(gradients(model, *parts), gradients(model, whole), rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("torch_backend")
@every_placement
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_bfloat16_autocast_of_a_whole_model(family, placement):
    """Outputs in bfloat16, gradients in float32, and both as exact as PyTorch's own operations give them."""
    given = batch(family)
    results = {}
    for kind in ("fused", "reference", "truth"):
        model = tuned(family, placement, implementation="reference" if kind == "truth" else kind)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind != "truth"):
            logits = model(**given).logits
            assert kind == "truth" or logits.dtype == torch.bfloat16
            logits.float().square().mean().backward()
        adapters = {name: value for name, value in model.named_parameters() if ".adapters." in name}
        assert {value.grad.dtype for value in adapters.values()} == {torch.float32}
        results[kind] = {"logits": logits.detach().float(), **{name: value.grad for name, value in adapters.items()}}
    for name, truth in results["truth"].items():
        error, peer = ((results[kind][name] - truth).norm() / truth.norm() for kind in ("fused", "reference"))
        assert error < 1.5 * peer + torch.finfo(torch.bfloat16).eps, (name, error, peer)


X = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(0))  # three batches of four tokens


def twins() -> tuple[FusedAdapter, ReferenceAdapter, dict[str, Tensor], dict[str, Tensor]]:
    """The adapter, its reference with the same weights, its parameters, and three adapters' parameters stacked."""
    torch.manual_seed(0)
    adapters = [FusedAdapter(12, 5, scale=0.5, init_std=0.3) for _ in range(3)]
    reference = ReferenceAdapter(12, 5, scale=0.5)
    reference.load_state_dict(adapters[0].state_dict())
    stacked, _ = stack_module_state(adapters)
    detached = {name: value.detach() for name, value in stacked.items()}
    return adapters[0], reference, dict(adapters[0].named_parameters()), detached


def loss(module, params, x, residual=None):
    return functional_call(module, params, (x, residual)).square().sum()


WORKING = {
    "grad": lambda m, p, s: grad(loss, argnums=(1, 2))(m, p, X[0]),
    "grad of a residual": lambda m, p, s: grad(loss, argnums=(1, 2, 3))(m, p, X[0], X[1]),
    "grad of a residual alone": lambda m, p, s: grad(loss, argnums=3)(m, p, X[0], X[1]),
    "vjp": lambda m, p, s: vjp(lambda x: functional_call(m, p, (x,)), X[0])[1](X[1]),
    "jacrev": lambda m, p, s: jacrev(lambda x: functional_call(m, p, (x,)))(X[0]),
    "vmap over x": lambda m, p, s: vmap(lambda x: functional_call(m, p, (x,)), in_dims=1, out_dims=1)(X),
    "vmap over x and residual": lambda m, p, s: vmap(lambda x, r: functional_call(m, p, (x, r)))(X, X.flip(0)),
    "vmap over the residual": lambda m, p, s: vmap(lambda r: functional_call(m, p, (X[0], r)))(X),
    "an ensemble": lambda m, p, s: vmap(lambda q, x: functional_call(m, q, (x,)), in_dims=(0, None))(s, X[0]),
    "an ensemble, each its x": lambda m, p, s: vmap(lambda q, x: functional_call(m, q, (x,)))(s, X),
    "gradients of each sample": lambda m, p, s: vmap(grad(lambda q, x: loss(m, q, x)), in_dims=(None, 0))(p, X),
    "gradients of an ensemble": lambda m, p, s: vmap(grad(lambda q, x: loss(m, q, x)), in_dims=(0, None))(s, X[0]),
}
REFUSED = {
    "jvp": lambda m, p: jvp(lambda x: functional_call(m, p, (x,)), (X[0],), (X[1],)),
    "jacfwd": lambda m, p: jacfwd(lambda x: functional_call(m, p, (x,)))(X[0]),
    "hessian": lambda m, p: hessian(lambda x: loss(m, p, x))(X[0]),
    "jvp of the weights": lambda m, p: jvp(lambda q: functional_call(m, q, (X[0],)), (p,), (p,)),
    "grad of grad": lambda m, p: grad(lambda x: grad(lambda x: loss(m, p, x))(x).sum())(X[0]),
    "gradients of grad": lambda m, p: torch.autograd.grad(grad(lambda x: loss(m, p, x))(X[0]).sum(), m.up.weight),
    "dual numbers": lambda m, p: dual(m),
}


def dual(module: nn.Module) -> Tensor | None:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(module(forward_ad.make_dual(X[0], X[1]))).tangent


@pytest.mark.parametrize("gradients_on", [True, False])
@pytest.mark.parametrize("transform", WORKING.values(), ids=WORKING.keys())
def test_torch_func_gives_what_the_reference_gives(transform, gradients_on, backend):
    fused, reference, params, stacked = twins()
    with torch.set_grad_enabled(gradients_on):
        found, expected = transform(fused, params, stacked), transform(reference, params, stacked)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gradients_on", [True, False])
@pytest.mark.parametrize("transform", REFUSED.values(), ids=REFUSED.keys())
def test_torch_func_says_what_it_cannot_do(transform, gradients_on, backend):
    fused, _, params, _ = twins()
    if transform is REFUSED["gradients of grad"] and not gradients_on:
        pytest.skip("there is no graph to go back on")
    with (
        torch.set_grad_enabled(gradients_on),
        pytest.raises(RuntimeError, match=r"in reverse mode: .* ReferenceAdapter"),
    ):
        transform(fused, params)


@pytest.mark.parametrize("grads", ["x", "x and weights"])
def test_a_gradient_penalty_is_refused_and_not_silently_wrong(grads, backend):
    """x reaches the second loss by another path too: autograd.grad then leaves out a path that only raises."""
    fused, reference, _, _ = twins()
    for module in (fused, reference):
        module.requires_grad_(grads != "x")
    x = X[0].clone().requires_grad_()

    def penalty(module):
        (dx,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum() + x.sum(), x)[0]

    assert not torch.allclose(penalty(reference), torch.ones_like(x))
    with pytest.raises(RuntimeError, match="create_graph=True use ReferenceAdapter"):
        penalty(fused)


@pytest.mark.parametrize("name", ["vmap over x", "an ensemble"])  # torch 2.11 cannot leave a compiled grad half-way
def test_torch_func_inside_a_compiled_function_runs_in_eager_mode(name, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torch._dynamo.reset()
    fused, reference, params, stacked = twins()
    compiled = torch.compile(lambda: WORKING[name](fused, params, stacked), backend="eager")
    torch.testing.assert_close(compiled(), WORKING[name](reference, params, stacked))
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["grad", "vmap over x", "gradients of an ensemble"])
def test_torch_func_inside_a_fullgraph_function_is_refused(name, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torch._dynamo.reset()
    fused, _, params, stacked = twins()
    compiled = torch.compile(lambda: WORKING[name](fused, params, stacked), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"cannot be compiled inside torch\.func: use ReferenceAdapter"):
        compiled()
    torch._dynamo.reset()


def test_a_compiled_adapter_drops_no_tangent(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torch._dynamo.reset()
    fused, *_ = twins()
    compiled = torch.compile(fused, backend="eager")
    with torch.no_grad():
        compiled(X[0])
        with pytest.raises(RuntimeError, match=r"in reverse mode: .* ReferenceAdapter"):
            dual(compiled)
    torch._dynamo.reset()


@pytest.mark.usefixtures("torch_backend")
def test_torch_func_over_a_whole_model():
    model, given = tuned("llama").eval(), inputs_of("llama")
    params = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def score(params, ids):
        return functional_call(model, params, (), {"input_ids": ids}).logits.square().sum()

    found = grad(score)(params, given["input_ids"])
    model(input_ids=given["input_ids"]).logits.square().sum().backward()
    assert_same(found, {name: model.get_parameter(name).grad for name in params})


@pytest.mark.usefixtures("torch_backend")
def test_a_model_is_called_by_two_threads():
    """Each thread's parallel adapters read their own stream."""
    model = tuned("bert", "parallel").eval()
    given = [inputs(2, length) for length in (7, 7)]
    given[1]["input_ids"] = given[1]["input_ids"].flip(1)
    expected = [model(**each).logits.detach() for each in given]
    barrier = threading.Barrier(2, timeout=60)

    def meet(*_):
        barrier.wait()

    for module in model.modules():
        if type(module).__name__ == "BertIntermediate":  # behind the entry, ahead of the adapter
            module.dense.register_forward_hook(meet)
    found: list[Tensor | None] = [None, None]

    def call(index):
        found[index] = model(**given[index]).logits.detach()

    threads = [threading.Thread(target=call, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value, truth in zip(found, expected):
        torch.testing.assert_close(value, truth)
