"""How an adapter starts, init and init_std; and dropout on the bottleneck: what is dropped, and when."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build, enlarge, inputs
from torch import nn

from adapter_fast import AdapterConfig, FusedAdapter, ReferenceAdapter, add_adapters, reference_adapter, train_adapters
from adapter_fast.placement.container import sites_in

KINDS = pytest.mark.parametrize("kind", [FusedAdapter, ReferenceAdapter])
X = torch.randn(3, 50, 24, generator=torch.Generator().manual_seed(0))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
ZERO_UP = pytest.mark.parametrize("given", [{"init": "zero_up"}, {"init_std": 0}, {"init": "zero_up", "init_std": 0.3}])


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


# Initialisation


@KINDS
@ZERO_UP
@DTYPES
@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_zero_up_is_the_identity_bit_for_bit(kind, given, dtype, activation, backend):
    """But -0.0 becomes 0.0, its sum with a zero; and oneDNN's bfloat16 products flush subnormal numbers to zero."""
    adapter = kind(24, 5, activation=activation, scale=0.7, **given).requires_grad_(False)
    limits = torch.finfo(dtype)
    rows = [X.to(dtype).flatten(0, 1), torch.zeros(1, 24, dtype=dtype), -torch.zeros(1, 24, dtype=dtype)]
    smallest = limits.tiny if dtype == torch.bfloat16 else limits.smallest_normal / 4
    rows += [torch.full((1, 24), value, dtype=dtype) for value in (limits.tiny, smallest, 1e4, -1e4)]
    x = torch.cat(rows)
    for y in (adapter(x), adapter(x, residual=x.clone())):
        assert torch.equal(y, x)
        assert torch.equal(bits(y)[x != 0], bits(x)[x != 0]) and not y.isnan().any()


@KINDS
@ZERO_UP
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_zero_up_learns_with_every_matrix_within_two_steps(kind, given, optimizer):
    torch.manual_seed(0)
    adapter = kind(24, 5, **given)
    start = {name: value.detach().clone() for name, value in adapter.named_parameters()}
    steps = optimizer(adapter.parameters(), lr=1e-2)
    for _ in range(2):
        adapter(X).square().sum().backward()
        steps.step()
        steps.zero_grad()
    for name, value in adapter.named_parameters():
        assert (value != start[name]).float().mean() > 0.99, name


@KINDS
@pytest.mark.parametrize(("given", "std"), [({}, 1e-2), ({"init_std": 0}, 1e-2), ({"init_std": 0.3}, 0.3)])
def test_zero_up_draws_down_as_houlsby(kind, given, std):
    torch.manual_seed(0)
    adapter = kind(768, 64, init="zero_up", **given)
    assert not adapter.up.weight.any() and not adapter.down.bias.any() and not adapter.up.bias.any()
    assert adapter.down.weight.std().item() == pytest.approx(0.880 * std, rel=0.02)
    assert adapter.down.weight.abs().max() <= 2 * std
    torch.manual_seed(0)
    assert torch.equal(adapter.down.weight, kind(768, 64, init_std=std).down.weight)


@KINDS
def test_bert_is_adapterhubs(kind):
    """init_bert_weights of adapters 1.3.0, methods/modeling.py: a normal of 0.02, not cut, and zero biases."""
    torch.manual_seed(0)
    adapter = kind(768, 64, init="bert", init_std=0.5)
    for weight in (adapter.down.weight, adapter.up.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02) and weight.abs().max() > 0.06
    assert not adapter.down.bias.any() and not adapter.up.bias.any()


def test_a_configuration_hands_both_on(tmp_path):
    for given in ({"init": "zero_up"}, {"init_std": 0}):
        model = add_adapters(build(), AdapterConfig(4, dropout=0.25, **given))
        for site in sites_in(model).values():
            adapter = site.adapters["default"]
            assert adapter.down.weight.any() and not adapter.up.weight.any() and adapter.dropout == 0.25
    model = add_adapters(build(), AdapterConfig(4, init="bert"))
    assert max(site.adapters["default"].up.weight.abs().max() for site in sites_in(model).values()) > 0.04


@pytest.mark.parametrize("make", [lambda **given: FusedAdapter(24, **given), AdapterConfig], ids=["module", "config"])
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"init": "zero"}, ValueError, "init must be one of houlsby, zero_up, bert, got 'zero'"),
        ({"init": None}, ValueError, "init must be one of houlsby, zero_up, bert, got None"),
        ({"init": "bert", "init_std": 0}, ValueError, "init_std must be above 0 with init='bert', .*, got 0"),
        ({"dropout": 1}, ValueError, "dropout must be at least 0 and below 1, got 1"),
        ({"dropout": -0.1}, ValueError, "dropout must be at least 0 and below 1, got -0.1"),
        ({"dropout": float("nan")}, ValueError, "dropout must be finite, got nan"),
        ({"dropout": "0.1"}, TypeError, "dropout must be a real number, got '0.1'"),
        ({"dropout": True}, TypeError, "dropout must be a real number, got True"),
    ],
)
def test_bad_values_are_named(make, given, error, message):
    with pytest.raises(error, match=message) as caught:
        make(**given)
    assert "\n" not in str(caught.value)


# Dropout


def twins(**options) -> tuple[FusedAdapter, ReferenceAdapter]:
    torch.manual_seed(0)
    fused = FusedAdapter(24, 5, init_std=0.3, scale=0.7, **options)
    reference = ReferenceAdapter(24, 5, scale=0.7, **options)
    reference.load_state_dict(fused.state_dict())
    return fused, reference


def seeded(run, *arguments, seed: int = 1, **options):
    torch.manual_seed(seed)
    return run(*arguments, **options)


@DTYPES
@pytest.mark.parametrize("residual", [None, False, X.flip(0)], ids=["x", "none", "another"])
def test_both_implementations_drop_the_same(dtype, residual):
    fused, reference = twins(dropout=0.4)
    other = residual.to(dtype) if isinstance(residual, torch.Tensor) else residual
    results = []
    for adapter in (fused, reference):
        x = X.to(dtype).requires_grad_()
        y = seeded(adapter, x, other)
        y.float().square().sum().backward()
        results.append([y.detach(), x.grad, *(value.grad for value in adapter.parameters())])
        assert y.dtype == dtype
        assert not torch.equal(y, seeded(adapter, x, other, seed=2))
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected)


def test_what_is_dropped_is_the_activated_bottleneck():
    """Before the up-projection: elements of act(z) are zero, the others are 1 / (1 - p) as large."""
    fused, _ = twins(dropout=0.4)
    h = F.gelu(fused.down(X))
    torch.manual_seed(1)
    mask = F.dropout(torch.ones_like(h), 0.4)
    assert 0.3 < (mask == 0).float().mean() < 0.5 and mask.max().item() == pytest.approx(1 / 0.6)
    torch.testing.assert_close(seeded(fused, X), X + 0.7 * fused.up(h * mask))


@KINDS
def test_evaluation_is_without_and_fused(kind, backend):
    torch.manual_seed(0)
    adapter, plain = kind(24, 5, dropout=0.4), kind(24, 5)
    plain.load_state_dict(adapter.state_dict())
    assert torch.equal(adapter.eval()(X), plain(X))
    if kind is FusedAdapter:
        assert adapter.explain(X) == plain.explain(X) and adapter.explain(X).name == backend
        assert adapter.train().explain(X) == ("torch", "dropout 0.4 in training is computed by PyTorch operations")
        assert "dropout=0.4" in repr(adapter)


def test_kernels_asked_for_are_refused_in_training(monkeypatch):
    monkeypatch.setenv("ADAPTER_FAST_BACKEND", "triton")
    fused, _ = twins(dropout=0.4)
    with pytest.raises(RuntimeError, match=r"triton asks for kernels that cannot run here: dropout 0\.4 in training"):
        fused(X)
    fused.eval()(X)


@KINDS
def test_dropout_where_children_are_called(kind):
    fused, reference = twins(dropout=0.4)
    expected = seeded(fused, X)
    adapter = {FusedAdapter: fused, ReferenceAdapter: reference}[kind]
    adapter.up.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(seeded(adapter, X), expected)
    torch.testing.assert_close(adapter.eval()(X), twins()[1](X))


def test_the_reference_takes_it():
    fused, _ = twins(dropout=0.4)
    weights = (fused.down.weight, fused.down.bias, fused.up.weight, fused.up.bias)
    torch.testing.assert_close(seeded(reference_adapter, X, *weights, scale=0.7, dropout=0.4), seeded(fused, X))


def test_autocast():
    fused, reference = twins(dropout=0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = seeded(fused, X), seeded(reference, X)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiled_training_and_evaluation(compiler, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torch._dynamo.reset()
    fused, _ = twins(dropout=0.4)
    compiled = torch.compile(fused, fullgraph=True, backend=compiler)
    torch.testing.assert_close(seeded(compiled, X), seeded(fused, X))
    fused.eval()
    torch.testing.assert_close(compiled(X), fused(X))
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_gradient_checkpointing_drops_the_same_again(placement, use_reentrant, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    bare = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = enlarge(add_adapters(build("bert", **bare), AdapterConfig(6, placement=placement, dropout=0.4)))
    train_adapters(model).train()
    given = {**inputs(3), "labels": torch.tensor([0, 1, 2])}

    def gradients(seed: int = 1) -> list[torch.Tensor]:
        model.zero_grad()
        seeded(model, **given, seed=seed).loss.backward()
        return [value.grad.clone() for value in model.parameters() if value.grad is not None]

    expected, others = gradients(), gradients(seed=2)
    assert not all(map(torch.equal, expected, others)), "dropout must be at work"
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    for found, truth in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, truth)


def test_a_model_in_evaluation_is_deterministic():
    model = enlarge(add_adapters(build(), AdapterConfig(6, dropout=0.4))).eval()
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        assert torch.equal(model(**inputs()).logits, model(**inputs()).logits)
