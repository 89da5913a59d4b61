"""The module: parameters, initialisation, copies, devices and dtypes, explain()."""

import copy
import pickle

import pytest
import torch

from adapter_fast import FusedAdapter, ReferenceAdapter
from adapter_fast.ops.layout import MAX_ROW_STRIDE

KINDS = pytest.mark.parametrize("kind", [FusedAdapter, ReferenceAdapter])


@KINDS
def test_state_dict_keys_and_size(kind):
    adapter = kind(24, 5)
    shapes = {name: tuple(value.shape) for name, value in adapter.state_dict().items()}
    assert shapes == {"down.weight": (5, 24), "down.bias": (5,), "up.weight": (24, 5), "up.bias": (24,)}
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 5 * 24 + 24 + 5
    assert set(kind(24, 5, bias=False).state_dict()) == {"down.weight", "up.weight"}


def test_twins_start_alike_and_exchange_weights():
    torch.manual_seed(0)
    fused = FusedAdapter(24, 5, init_std=0.3)
    torch.manual_seed(0)
    reference = ReferenceAdapter(24, 5, init_std=0.3)
    x = torch.randn(3, 4, 24)
    torch.testing.assert_close(fused(x), reference(x))
    other = ReferenceAdapter(24, 5, init_std=0.3)
    other.load_state_dict(fused.state_dict(), strict=True)
    torch.testing.assert_close(other(x), fused(x))


@KINDS
def test_initialisation_is_a_truncated_normal_near_the_identity(kind):
    torch.manual_seed(0)
    adapter = kind(768, 64)
    for weight in (adapter.down.weight, adapter.up.weight):
        assert weight.abs().max() <= 2e-2
        # A normal cut at two standard deviations keeps 0.880 of its standard deviation.
        assert weight.std().item() == pytest.approx(0.880e-2, rel=0.02)
    assert not adapter.down.bias.any() and not adapter.up.bias.any()
    x = torch.randn(16, 768)
    assert 0 < (adapter(x) - x).abs().max() < 0.1
    assert torch.equal(kind(768, 64, init_std=0)(x), x)


@KINDS
def test_residual_forms_and_scale(kind):
    torch.manual_seed(0)
    adapter = kind(24, 5, init_std=0.3, scale=0.5)
    x, residual = torch.randn(4, 24), torch.randn(4, 24)
    branch = adapter(x, residual=False)
    torch.testing.assert_close(adapter(x), x + branch)
    torch.testing.assert_close(adapter(x, residual=residual), residual + branch)
    adapter.scale = 1.0
    torch.testing.assert_close(adapter(x, residual=False), 2 * branch)


@KINDS
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_whole_and_independent(kind, duplicate):
    torch.manual_seed(0)
    adapter = kind(24, 5, activation="silu", scale=0.5, init_std=0.3)
    twin = duplicate(adapter)
    x = torch.randn(4, 24)
    before = adapter(x)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        twin.up.weight.add_(1)
    assert torch.equal(adapter(x), before)
    assert not torch.equal(twin(x), before)


@KINDS
def test_meta_device_then_real(kind):
    adapter = kind(24, 5, device="meta")
    assert adapter(torch.empty(4, 24, device="meta")).shape == (4, 24)
    adapter = adapter.to_empty(device="cpu")
    adapter.reset_parameters()
    assert 0 < adapter.down.weight.abs().max() <= 2e-2
    assert adapter(torch.randn(4, 24)).shape == (4, 24)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_moves_of_dtype(kind, dtype):
    assert kind(24, 5, dtype=dtype).up.bias.dtype == dtype
    adapter = kind(24, 5).to(dtype)
    assert adapter(torch.randn(4, 24, dtype=dtype)).dtype == dtype


@KINDS
def test_says_what_it_is(kind):
    text = repr(kind(24, 5, activation="relu", scale=2))
    assert text.startswith(f"{kind.__name__}(")
    assert "hidden_size=24, bottleneck=5, activation='relu', scale=2.0, bias=True" in text


@KINDS
@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"bottleneck": 0}, ValueError, r"bottleneck must be at least 1, got 0"),
        ({"bottleneck": 2.5}, TypeError, r"bottleneck must be an integer, got 2.5"),
        ({"bottleneck": True}, TypeError, r"bottleneck must be an integer, got True"),
        ({"hidden_size": -4}, ValueError, r"hidden_size must be at least 1, got -4"),
        ({"activation": "swish"}, ValueError, r"activation must be one of gelu, .*, got 'swish'"),
        ({"scale": float("nan")}, ValueError, r"scale must be finite, got nan"),
        ({"scale": "1"}, TypeError, r"scale must be a real number, got '1'"),
        ({"init_std": -1.0}, ValueError, r"init_std must be at least 0, got -1.0"),
        ({"bias": 1}, TypeError, r"bias must be True or False, got 1"),
    ],
)
def test_bad_arguments(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**{"hidden_size": 24, **arguments})


def test_explain_names_backend_and_reason(monkeypatch):
    adapter = FusedAdapter(24, 5)
    x = torch.randn(4, 24)
    backend = adapter.explain(x)
    assert backend.name == "triton-interpreter" and "one fused launch each way at m = 5" in backend.reason
    assert "two launches for forward and dx at m = 512" in FusedAdapter(24, 512).explain(x).reason
    assert adapter.explain(x.bfloat16()).name == "torch"
    assert "interpreter computes bfloat16 wrongly" in adapter.explain(x.bfloat16()).reason
    assert "x is copied first" in adapter.explain(torch.randn(24, 4).t()).reason
    assert "copied" in adapter.explain(torch.empty(2 * MAX_ROW_STRIDE).as_strided((2, 24), (MAX_ROW_STRIDE, 1))).reason
    assert "copied" not in adapter.explain(torch.randn(4, 30)[:, :24]).reason
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert adapter.explain(x).name == "torch" and "cpu" in adapter.explain(x).reason
    assert adapter.to("meta").explain(x.to("meta")).name == "torch"


def test_explain_tells_what_runs(monkeypatch):
    """The name explain() gives is the implementation that is called."""
    from adapter_fast.ops import eager, launch

    called = []
    for module in (eager, launch):
        monkeypatch.setattr(module, "forward", _recording(module.forward, module.__name__, called))
    adapter, x = FusedAdapter(24, 5), torch.randn(4, 24)
    for interpret, module in (("1", "launch"), ("0", "eager")):
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
        adapter(x)
        assert called[-1].endswith(module)
        assert (adapter.explain(x).name == "torch") == (module == "eager")


def _recording(function, name, called):
    def recorded(*args):
        called.append(name)
        return function(*args)

    return recorded
