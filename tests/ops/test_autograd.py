"""The autograd Function: derivatives of the kernels' own source, what is saved and computed, how grads may come."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from adapter_fast import FusedAdapter, ReferenceAdapter, fused_adapter, ops, reference_adapter
from adapter_fast.checks import ACTIVATIONS
from adapter_fast.testing import INPUTS, Case, call, evaluate, grad_output, make_inputs


def leaves_of(case):
    inputs = make_inputs(case)
    names = [name for name in INPUTS if inputs[name] is not None]

    def op(*tensors):
        return call(fused_adapter, case, {**inputs, **dict(zip(names, tensors))})

    return op, tuple(inputs[name] for name in names)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", ["x", "tensor", "none"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(activation, residual, bias, backend):
    # Two calls an element: 29 elements at most.
    case = Case(2, 3, 2, torch.float64, activation=activation, residual=residual, bias=bias, scale=0.75)
    if activation == "relu":
        inputs = make_inputs(case)
        z = inputs["x"] @ inputs["w_down"].t() + (0 if inputs["b_down"] is None else inputs["b_down"])
        assert z.abs().min() > 1e-3, "the kink of relu is too near for finite differences"
    op, leaves = leaves_of(case)
    assert torch.autograd.gradcheck(op, leaves)


@pytest.mark.parametrize("T, d, m", [(66, 70, 20), (17, 33, 130), (9, 12, 260)])
def test_gradcheck_across_tiles(T, d, m):
    op, leaves = leaves_of(Case(T, d, m, torch.float64, residual="tensor", scale=0.5))
    assert torch.autograd.gradcheck(op, leaves, fast_mode=True)


def test_second_derivatives_are_refused(backend):
    op, leaves = leaves_of(Case(3, 5, 2, torch.float64))
    # At once: what is saved has no graph to x, so that a later derivative would silently lack a part.
    with pytest.raises(RuntimeError, match="create_graph=True use ReferenceAdapter"):
        torch.autograd.grad(op(*leaves).sum(), leaves[0], create_graph=True)


@pytest.mark.parametrize("frozen", [("x",), ("w_down", "b_down", "w_up", "b_up"), ("w_down",), ("w_up",), ("b_down",),
                                    ("b_up",), ("x", "w_down", "b_down"), ("x", "w_down", "w_up"),
                                    ("x", "w_down", "b_down", "w_up"), ("x", "b_down", "w_up", "b_up"),
                                    ("x", "w_down", "w_up", "b_up", "b_down")])  # fmt: skip
@pytest.mark.parametrize("m", [6, 300])
def test_only_what_needs_a_gradient(frozen, m, backend):
    case = Case(21, 18, m, torch.float64, residual="tensor", scale=0.5)
    inputs, dy = make_inputs(case), grad_output(case)
    expected = evaluate(reference_adapter, case, inputs, dy)
    for name in frozen:
        inputs[name].requires_grad_(False)
    y = call(fused_adapter, case, inputs)
    y.backward(dy)
    for name in INPUTS:
        if name in frozen:
            assert inputs[name].grad is None
        else:
            torch.testing.assert_close(inputs[name].grad, expected[f"d_{name}"])


def saved(case, trained):
    inputs = make_inputs(case)
    for name in INPUTS:
        if inputs[name] is not None:
            inputs[name].requires_grad_(name in trained)
    shapes = []

    def pack(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call(fused_adapter, case, inputs)
    return sorted(shapes)


def test_saves_only_what_the_gradients_need(backend):
    case = Case(10, 8, 3, torch.float32)
    x, h, down, up = (10, 8), (10, 3), (3, 8), (8, 3)
    assert saved(case, INPUTS) == sorted([x, h, h, down, up])
    assert saved(case, ("w_down", "b_down", "w_up", "b_up")) == sorted([x, h, h, up])
    assert saved(case, ("x",)) == sorted([h, down, up])
    assert saved(case, ("w_up",)) == [h]
    assert saved(case, ("b_up",)) == []
    assert saved(case, ()) == []


def test_no_grad_saves_and_computes_nothing_extra(monkeypatch, backend):
    adapter = FusedAdapter(8, 3)
    monkeypatch.setattr(ops, "_forward_save", _counting(ops._forward_save, calls := []))
    with torch.no_grad():
        assert not adapter(torch.randn(4, 8)).requires_grad
    assert [keep for *_, keep in calls] == [ops.Keep(h=False, slope=False, z=False)]


def _counting(function: Callable, calls: list) -> Callable:
    def counted(*args):
        calls.append(args)
        return function(*args)

    return counted


GRADS = {
    "sum": lambda y: y.sum(),
    "mean": lambda y: y.mean(),
    "transposed consumer": lambda y: (y.t() @ torch.arange(y.shape[0], dtype=y.dtype)).pow(2).sum(),
    "one column": lambda y: y[:, 3].sum(),
    "rows out of order": lambda y: (y.flip(0) * torch.arange(y.numel(), dtype=y.dtype).view_as(y)).sum(),
}


@pytest.mark.parametrize("kind", GRADS)
def test_gradients_of_every_layout(kind, backend):
    case = Case(19, 12, 5, torch.float64)
    results = []
    for op in (fused_adapter, reference_adapter):
        inputs = make_inputs(case)
        GRADS[kind](call(op, case, inputs)).backward()
        results.append([inputs[name].grad for name in INPUTS[:5]])
    for fused, reference in zip(*results):
        torch.testing.assert_close(fused, reference)


def test_a_missing_gradient_gives_none(backend):
    case = Case(4, 8, 3, torch.float64)
    inputs = make_inputs(case)

    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, dy):
            return None

    Cut.apply(call(fused_adapter, case, inputs)).sum().backward()
    assert all(inputs[name].grad is None for name in INPUTS if inputs[name] is not None)


def test_backward_twice_and_two_micro_batches(backend):
    case = Case(20, 12, 5, torch.float64)
    inputs, dy = make_inputs(case), grad_output(case)
    names = INPUTS[:5]
    y = call(fused_adapter, case, inputs)
    leaves = [inputs[name] for name in names]
    first = torch.autograd.grad(y, leaves, dy, retain_graph=True)
    again = torch.autograd.grad(y, leaves, dy)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    for part in (slice(0, 7), slice(7, 20)):
        call(fused_adapter, case, {**inputs, "x": inputs["x"][part]}).backward(dy[part])
    for name, whole in zip(names, first):
        torch.testing.assert_close(inputs[name].grad, whole)


def test_nothing_given_is_written(backend):
    case = Case(20, 12, 5, torch.float64, residual="tensor")
    inputs, dy = make_inputs(case), grad_output(case)
    before = {name: value.detach().clone() for name, value in inputs.items()}
    kept = dy.clone()
    call(fused_adapter, case, inputs).backward(dy)
    assert torch.equal(dy, kept)
    assert all(torch.equal(inputs[name], value) for name, value in before.items())


def test_the_residual_may_be_x_itself(backend):
    case = Case(9, 8, 3, torch.float64)
    inputs, dy = make_inputs(case), grad_output(case)
    arguments = [inputs[name] for name in INPUTS[:5]]
    implicit = torch.autograd.grad(fused_adapter(*arguments), arguments, dy)
    explicit = torch.autograd.grad(fused_adapter(*arguments, residual=arguments[0]), arguments, dy)
    assert all(torch.equal(a, b) for a, b in zip(implicit, explicit))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant, backend):
    torch.manual_seed(0)
    adapter = FusedAdapter(12, 5, init_std=0.3)
    x = torch.randn(7, 12, requires_grad=True)
    plain = torch.autograd.grad(adapter(x).pow(2).sum(), [x, *adapter.parameters()])
    checkpoint(adapter, x, use_reentrant=use_reentrant).pow(2).sum().backward()
    for grad, parameter in zip(plain, [x, *adapter.parameters()]):
        assert torch.equal(grad, parameter.grad)


@pytest.mark.parametrize("shape", [(6, 8), (2, 3, 8)])
def test_the_output_may_be_changed_in_place(shape, backend):
    fused, reference = FusedAdapter(8, 3, init_std=0.3), ReferenceAdapter(8, 3)
    reference.load_state_dict(fused.state_dict())
    x = torch.randn(shape)
    for adapter in (fused, reference):
        y = adapter(x)
        assert not y._is_view(), "FSDP2 warns of a module whose output is a view"
        y += 1
        y.square().sum().backward()
    for one, other in zip(fused.parameters(), reference.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_loop_of_steps_leaves_no_graph_behind(backend):
    adapter = FusedAdapter(8, 3)
    x = torch.randn(4, 8, requires_grad=True)

    def count():
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    adapter(x).sum().backward()
    before = count()
    for _ in range(5):
        adapter(x).sum().backward()
    assert count() <= before


@pytest.mark.parametrize("weight_dtype", [torch.float16, torch.float32, torch.float64])
def test_gradients_come_in_the_dtype_of_the_weights(weight_dtype, backend):
    case = Case(9, 8, 3, torch.float32, weight_dtype=weight_dtype)
    inputs = make_inputs(case)
    call(fused_adapter, case, inputs).backward(grad_output(case))
    assert {inputs[name].grad.dtype for name in INPUTS[1:5]} == {weight_dtype}
    assert inputs["x"].grad.dtype == torch.float32


def test_fused_and_reference_train_alike(backend):
    """Twenty AdamW steps of twins: the same losses and the same weights."""
    losses = {}
    weights = {}
    for kind in (ReferenceAdapter, FusedAdapter):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(16, 24), kind(24, 6, init_std=0.2), torch.nn.Linear(24, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        x, target = torch.randn(64, 16), torch.randint(3, (64,))
        losses[kind] = []
        for _ in range(20):
            loss = torch.nn.functional.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[kind].append(loss.item())
        weights[kind] = torch.cat([p.detach().flatten() for p in model.parameters()])
    reference, fused = losses[ReferenceAdapter], losses[FusedAdapter]
    assert reference[-1] < 0.8 * reference[0]
    torch.testing.assert_close(torch.tensor(fused), torch.tensor(reference), rtol=1e-4, atol=0)
    torch.testing.assert_close(weights[FusedAdapter], weights[ReferenceAdapter], rtol=1e-3, atol=1e-4)
