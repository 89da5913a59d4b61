"""Projections that are more than a plain nn.Linear are called: what acts through a call, what takes a child's place."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build, enlarge, inputs_of
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from adapter_fast import AdapterConfig, FusedAdapter, ReferenceAdapter, adapter_summary, add_adapters

KINDS = pytest.mark.parametrize("kind", [FusedAdapter, ReferenceAdapter])
X = torch.randn(4, 7, 24, generator=torch.Generator().manual_seed(0))
FAMILIES = {"bert": "houlsby", "gpt2": "pfeiffer", "llama": "parallel", "vit": "houlsby"}


class Shouting(nn.Linear):
    """A Linear with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Strange(Tensor):
    """A tensor subclass of another library, whose products are its own affair."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            plain = [value.as_subclass(Tensor) if isinstance(value, Strange) else value for value in args]
            result = function(*plain, **(kwargs or {}))
            return 3 * result if function is F.linear else result


def own_forward(child: nn.Module) -> None:
    """accelerate's way: an instance attribute."""
    before = child.forward
    child.forward = lambda x: 2 * before(x)


def replace(child: nn.Linear, other: nn.Module) -> nn.Module:
    twin = nn.Linear(child.in_features, child.out_features)
    twin.load_state_dict(child.state_dict())
    other.load_state_dict(child.state_dict(), strict=False)
    return other


def strange_weight(child: nn.Linear) -> None:
    child._parameters["weight"] = child.weight.detach().as_subclass(Strange)


# What is done to a child; what it returns, where it returns a module, takes the child's place.
ACTS = {
    "a forward pre-hook": lambda c: c.register_forward_pre_hook(lambda module, args: (2 * args[0],)) and None,
    "a forward hook": lambda c: c.register_forward_hook(lambda module, args, y: 2 * y) and None,
    "a forward hook with kwargs": lambda c: (
        c.register_forward_hook(lambda module, args, kwargs, y: 2 * y, with_kwargs=True) and None
    ),
    "a hook that is always called": lambda c: (
        c.register_forward_hook(lambda module, args, y: 2 * y, always_call=True) and None
    ),
    "a full backward hook": lambda c: (
        c.register_full_backward_hook(lambda module, dx, dy: tuple(None if g is None else 2 * g for g in dx)) and None
    ),
    "a full backward pre-hook": lambda c: (
        c.register_full_backward_pre_hook(lambda module, dy: tuple(2 * g for g in dy)) and None
    ),
    "a forward of its own": lambda c: own_forward(c),
    "pruned": lambda c: prune.l1_unstructured(c, "weight", amount=0.5) and None,
    "pruned by rows": lambda c: prune.ln_structured(c, "weight", amount=0.5, n=2, dim=0) and None,
    "a pruned bias": lambda c: prune.random_unstructured(c, "bias", amount=0.5) and None,
    "the old weight_norm": lambda c: torch.nn.utils.weight_norm(c) and None,
    "the old spectral_norm": lambda c: torch.nn.utils.spectral_norm(c).eval() and None,
    "a subclass": lambda c: replace(c, Shouting(c.in_features, c.out_features)),
    "a sequence": lambda c: nn.Sequential(c, nn.Tanh()),
    "another module": lambda c: nn.Conv1d(c.in_features, c.out_features, 1).to_empty(device="cpu") and _Lookup(c),
}


class _Lookup(nn.Module):
    """A module without a weight of that name."""

    def __init__(self, child: nn.Linear) -> None:
        super().__init__()
        self.table = nn.Parameter(child.weight.detach().t().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.table


acts = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
places = pytest.mark.parametrize("places", [("down",), ("up",), ("down", "up")], ids="+".join)


def do(adapter: nn.Module, act, places) -> None:
    for place in places:
        other = act(getattr(adapter, place))
        if isinstance(other, nn.Module):
            setattr(adapter, place, other)


def touched(kind, act, places, **options) -> nn.Module:
    torch.manual_seed(0)
    adapter = kind(24, 5, init_std=0.3, scale=0.5, **options)
    for child in (adapter.down, adapter.up):
        nn.init.normal_(child.bias)
    do(adapter, act, places)
    return adapter


def by_calls(adapter: nn.Module, x: Tensor) -> Tensor:
    return x + adapter.scale * adapter.up(F.gelu(adapter.down(x)))


def two_steps(adapter: nn.Module, run) -> list[Tensor]:
    """Outputs of two steps and one more call, the gradient of x, and the parameters behind them."""
    adapter.train()
    found = []
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.05)
    for _ in range(2):
        x = X.clone().requires_grad_()
        y = run(adapter, x)
        y.square().sum().backward()
        found += [y.detach(), x.grad]
        optimizer.step()
        optimizer.zero_grad()
    return [*found, run(adapter.eval(), X).detach(), *(value.detach() for value in adapter.parameters())]


@KINDS
@acts
@places
def test_it_trains_as_its_children_called(kind, act, places):
    adapter = touched(kind, act, places)
    found = two_steps(adapter, lambda module, x: module(x))
    expected = two_steps(touched(kind, act, places), by_calls)
    assert len(found) == len(expected)
    for value, truth in zip(found, expected):
        torch.testing.assert_close(value, truth)
    if act not in [ACTS[name] for name in ("a full backward pre-hook", "a full backward hook", "the old weight_norm")]:
        untouched = touched(kind, lambda child: None, ())
        assert not torch.allclose(expected[0], untouched(X)), "what is done must show"


@acts
@places
def test_explain_names_the_child_and_the_reason(act, places, monkeypatch):
    adapter = touched(FusedAdapter, act, places)
    backend = adapter.explain(X)
    assert backend.name == "torch" and backend.reason.startswith("computes through its children: ")
    for place in ("down", "up"):
        assert (f"{place} has " in backend.reason or f"{place} is of type" in backend.reason) == (place in places)
    repr(adapter)
    monkeypatch.setenv("ADAPTER_FAST_BACKEND", "triton")
    for call in (adapter, adapter.explain):
        with pytest.raises(RuntimeError, match="triton asks for kernels that cannot run here: computes through") as e:
            call(X)
        assert "\n" not in str(e.value)


REASONS = {
    "a forward pre-hook": "down has forward pre-hooks",
    "a forward hook": "down has forward hooks",
    "a full backward hook": "down has backward hooks",
    "a full backward pre-hook": "down has backward pre-hooks",
    "a forward of its own": "down has a forward of its own",
    "a subclass": "down is of type Shouting",
    "a sequence": "down is of type Sequential",
}


@pytest.mark.parametrize(("act", "reason"), REASONS.items())
def test_reasons(act, reason):
    assert touched(FusedAdapter, ACTS[act], ("down",)).explain(X).reason == f"computes through its children: {reason}"


@KINDS
def test_what_is_taken_away_again_is_fused_again(kind):
    adapter = kind(24, 5, init_std=0.3)
    before = adapter(X)
    handle = adapter.down.register_forward_hook(lambda module, args, y: 2 * y)
    assert not torch.allclose(adapter(X), before)
    handle.remove()
    prune.l1_unstructured(adapter.up, "weight", amount=0.5)
    assert not torch.allclose(adapter(X), before)
    prune.remove(adapter.up, "weight")
    if kind is FusedAdapter:
        assert "children" not in adapter.explain(X).reason
    torch.testing.assert_close(adapter(X), by_calls(adapter, X))


def test_parametrisations_stay_on_the_fused_path():
    torch.manual_seed(0)
    adapter = FusedAdapter(24, 5, init_std=0.3)
    parametrizations.weight_norm(adapter.down)
    parametrizations.orthogonal(adapter.up)
    assert "children" not in adapter.explain(X).reason
    torch.testing.assert_close(adapter(X), by_calls(adapter, X))
    adapter.down.register_forward_hook(lambda module, args, y: 2 * y)
    assert "down has forward hooks" in adapter.explain(X).reason
    torch.testing.assert_close(adapter(X), by_calls(adapter, X))


@KINDS
def test_hooks_on_every_module_see_the_children(kind):
    adapter, seen = kind(24, 5), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, y: seen.append(module))
    try:
        adapter(X)
        reason = adapter.explain(X).reason if kind is FusedAdapter else "on every module"
    finally:
        handle.remove()
    assert seen == [adapter.down, adapter.up, adapter] and "on every module" in reason


@KINDS
def test_a_weight_that_computes_its_own_products(kind):
    adapter = kind(24, 5, init_std=0.3)
    strange_weight(adapter.down)
    torch.testing.assert_close(adapter(X), by_calls(adapter, X))
    plain = kind(24, 5)
    plain.load_state_dict({key: value.detach().as_subclass(Tensor) for key, value in adapter.state_dict().items()})
    assert not torch.allclose(plain(X), adapter(X))
    if kind is FusedAdapter:
        assert "down has a weight of type Strange" in adapter.explain(X).reason


# Dtypes


@pytest.mark.parametrize("x_dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_called_child_computes_in_its_weights_dtype(x_dtype):
    adapter, seen = touched(FusedAdapter, lambda child: None, ()), []
    adapter.down.register_forward_hook(lambda module, args, y: seen.extend([args[0].dtype, y.dtype]))
    x = X.to(x_dtype)
    y = adapter(x)
    assert y.dtype == x_dtype and seen == [torch.float32, torch.float32]
    expected = touched(ReferenceAdapter, lambda child: None, ())(x)
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    reason = adapter.explain(x).reason
    assert f"down is called in torch.float32, its weights' dtype, and the result converted to {x_dtype}" in reason
    assert "up is called" not in reason
    y.float().square().sum().backward()
    assert {value.grad.dtype for value in adapter.parameters()} == {torch.float32}


def test_autocast_is_the_models():
    adapter, seen = touched(FusedAdapter, lambda child: None, ()), []
    for child in (adapter.down, adapter.up):
        child.register_forward_hook(lambda module, args, y: seen.append(y.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = adapter(X), touched(ReferenceAdapter, lambda child: None, ())(X)
        assert "is called in" not in adapter.explain(X).reason
    assert seen == [torch.bfloat16] * 2 and torch.equal(y, expected) and y.dtype == torch.bfloat16


@KINDS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 23),), r"x must be \[..., d\] with d = 24, got \[2, 23\]"),
        ((torch.tensor(1.0),), "x must be .* at least one dimension, got a scalar"),
        ((torch.zeros(2, 24, dtype=torch.int64),), "x must be float16, .* got torch.int64"),
        ((X, X[0]), r"residual must have the shape of x, \[4, 7, 24\], got \[7, 24\]"),
        ((X, X.double()), "residual must have the dtype of x, torch.float32, got torch.float64"),
        ((X, X.to("meta")), "residual must be on the device of x, cpu, got meta"),
    ],
)
def test_bad_arguments_are_named(kind, arguments, message):
    adapter = touched(kind, ACTS["a forward hook"], ("down",))
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        adapter(*arguments)
    assert "\n" not in str(caught.value)


def test_residuals():
    adapter = touched(FusedAdapter, ACTS["a forward hook"], ("down",))
    branch = by_calls(adapter, X) - X
    torch.testing.assert_close(adapter(X, residual=False), branch)
    torch.testing.assert_close(adapter(X, residual=X.flip(0)), X.flip(0) + branch)


# The compiler


@pytest.mark.parametrize("act", ["a forward hook", "a forward pre-hook", "a subclass", "a sequence", "pruned"])
def test_fullgraph_compilation_calls_the_children_too(act, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    torch._dynamo.reset()
    adapter = touched(FusedAdapter, ACTS[act], ("down", "up"))
    compiled = torch.compile(adapter, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), by_calls(adapter, X))
    torch._dynamo.reset()


# Whole models


@pytest.fixture
def torch_backend(monkeypatch):
    """Whole models run on PyTorch operations: the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def adapted(family: str, placement: str, **fields) -> nn.Module:
    return enlarge(add_adapters(build(family), AdapterConfig(6, placement=placement, scale=0.7, **fields))).eval()


def outputs(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**given).logits


def children(model: nn.Module) -> list[nn.Module]:
    return [child for name, child in model.named_modules() if ".adapters." in name and name.endswith(("down", "up"))]


families = pytest.mark.parametrize(("family", "placement"), FAMILIES.items())


@pytest.mark.usefixtures("torch_backend")
@families
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_every_hook_of_a_model_fires_and_the_summary_says_so(family, placement, implementation):
    model, fired = adapted(family, placement, implementation=implementation), []
    before = outputs(model, inputs_of(family))
    for child in children(model):
        child.register_forward_hook(lambda module, *_: fired.append(module))
    torch.testing.assert_close(outputs(model, inputs_of(family)), before)
    assert len(fired) == len(children(model)) == (8 if placement == "houlsby" else 4)
    for site in adapter_summary(model).sites:
        assert "computes through its children: down has forward hooks, up has forward hooks" in site.reason
        assert site.backend == ("torch" if implementation == "fused" else "reference")


OFFLOADS = {
    "cpu_offload": lambda a, model, folder: a.cpu_offload(model, execution_device="cpu"),
    "disk_offload": lambda a, model, folder: a.disk_offload(model, folder, execution_device="cpu"),
    "dispatch_model": lambda a, model, folder: a.dispatch_model(
        model,
        {name: "cpu" if number else "disk" for number, (name, _) in enumerate(model.named_children())},
        main_device="cpu",
        offload_dir=folder,
    ),
}


@pytest.mark.usefixtures("torch_backend")
@families
@pytest.mark.parametrize("offload", OFFLOADS.values(), ids=OFFLOADS.keys())
def test_accelerate_offloads_a_model_with_adapters(family, placement, offload, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model = adapted(family, placement)
    before = outputs(model, inputs_of(family))
    model = offload(accelerate, model, str(tmp_path))
    away = {value.device.type for child in children(model) for value in child.parameters()}
    assert "meta" in away
    for _ in range(2):
        torch.testing.assert_close(outputs(model, inputs_of(family)), before)
    assert any("has a forward of its own" in site.reason for site in adapter_summary(model).sites)


@pytest.mark.usefixtures("torch_backend")
@families
def test_lora_over_an_adapter_trains(family, placement):
    peft = pytest.importorskip("peft")
    model = adapted(family, placement)
    count = len(children(model))
    before = outputs(model, inputs_of(family))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=r".*\.adapters\.default\.(down|up)", r=2))
    torch.testing.assert_close(outputs(wrapped, inputs_of(family)), before)
    for _ in range(2):
        trained = {name: value for name, value in wrapped.named_parameters() if value.requires_grad}
        wrapped.zero_grad()
        wrapped(**inputs_of(family)).logits.square().sum().backward()
        assert len(trained) == 2 * count and not [name for name, value in trained.items() if value.grad is None]
        with torch.no_grad():
            for value in trained.values():
                value.sub_(0.1 * value.grad)
    assert not torch.allclose(outputs(wrapped, inputs_of(family)), before)
    assert "down is of type Linear" in adapter_summary(model).sites[0].reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.usefixtures("torch_backend")
@families
def test_quantize_dynamic(family, placement):
    model = adapted(family, placement)
    before = outputs(model, inputs_of(family))
    for adapter in [module for module in model.modules() if isinstance(module, FusedAdapter)]:
        torch.ao.quantization.quantize_dynamic(adapter, {nn.Linear}, dtype=torch.qint8, inplace=True)
    assert len(children(model)) and all(type(child) is not nn.Linear for child in children(model))
    found = outputs(model, inputs_of(family))
    assert 0 < (found - before).abs().max() < 0.2 * before.abs().max()
    assert "down is of type Linear, up is of type Linear" in adapter_summary(model).sites[0].reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantize_dynamic_of_an_adapter_alone():
    adapter = touched(FusedAdapter, lambda child: None, ())
    quantised = torch.ao.quantization.quantize_dynamic(adapter, {nn.Linear}, dtype=torch.qint8)
    torch.testing.assert_close(quantised(X), by_calls(quantised, X))
    repr(quantised)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.usefixtures("torch_backend")
@families
def test_quantize_dynamic_of_a_whole_model(family, placement):
    """It replaces a Linear with its hooks and without its children, among them the adapters."""
    model = adapted(family, placement)
    before = outputs(model, inputs_of(family))
    torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8, inplace=True)
    if children(model):
        found = outputs(model, inputs_of(family))
        assert 0 < (found - before).abs().max() < 0.2 * before.abs().max()
    else:
        with pytest.raises(RuntimeError, match="a Linear took the place of a module with adapters, and they are lost"):
            outputs(model, inputs_of(family))


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_torchao_int8():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    adapter = touched(FusedAdapter, lambda child: None, ())
    before = adapter(X)
    quantize_(adapter, Int8WeightOnlyConfig())
    torch.testing.assert_close(adapter(X), by_calls(adapter, X))
    assert 0 < (adapter(X) - before).abs().max() < 0.1


# DeepSpeed ZeRO-3: the parameters are gathered by hooks of the module that is called, and are empty outside


def gather(module: nn.Module, *_) -> None:
    for name, value in module._parameters.items():
        value.data = module.shards[name]


def release(module: nn.Module, *_) -> None:
    for value in module._parameters.values():
        value.data = torch.empty(0)


def partition(child: nn.Module) -> None:
    """Its contract, forward and backward."""
    child.shards = {name: value.detach().clone() for name, value in child.named_parameters()}
    child.register_forward_pre_hook(gather)
    child.register_forward_hook(release)
    child.register_full_backward_pre_hook(gather)
    release(child)


@KINDS
def test_the_contract_of_zero_3(kind):
    plain, shared = (touched(kind, lambda child: None, ()) for _ in range(2))
    do(shared, partition, ("down", "up"))
    assert shared.down.weight.numel() == 0
    x = X.clone().requires_grad_()
    y = shared(x)
    torch.testing.assert_close(y, plain(X))
    assert shared.down.weight.numel() == shared.up.bias.numel() == 0
    y.square().sum().backward()
    plain(X).square().sum().backward()
    for value, truth in zip(shared.parameters(), plain.parameters()):
        torch.testing.assert_close(value.grad, truth.grad)


ZERO_3 = """
import copy, deepspeed, torch
from tiny_models import build, enlarge, inputs
from adapter_fast import AdapterConfig, adapter_summary, add_adapters, train_adapters
bare = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
model = train_adapters(enlarge(add_adapters(build("bert", **bare), AdapterConfig(6)))).train()
twin = copy.deepcopy(model)
trained = lambda m: [value for value in m.parameters() if value.requires_grad]
config = {"train_micro_batch_size_per_gpu": 3, "gradient_clipping": 0.0, "zero_allow_untested_optimizer": True,
          "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
sgd = lambda m: torch.optim.SGD(trained(m), lr=0.01)
engine, *_ = deepspeed.initialize(model=model, optimizer=sgd(model), config=config)
optimizer, given = sgd(twin), {**inputs(3), "labels": torch.tensor([0, 1, 2])}
adapters = [value for name, value in model.named_parameters() if ".adapters." in name]
losses = []
for _ in range(3):
    assert all(value.numel() == 0 for value in adapters), "partitioned outside of the call"
    loss, expected = engine(**given).loss, twin(**given).loss
    torch.testing.assert_close(loss, expected)
    losses.append(loss.item())
    engine.backward(loss); engine.step()
    optimizer.zero_grad(); expected.backward(); optimizer.step()
assert losses[0] > losses[1] > losses[2], losses
assert "down has forward pre-hooks" in adapter_summary(model).sites[0].reason
print("three steps of ZeRO-3")
"""


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_deepspeed_zero_3_itself():
    here = os.path.join(os.path.dirname(__file__), os.pardir, "helpers")
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, **where, "DS_ACCELERATOR": "cpu", "TRITON_INTERPRET": "0", "PYTHONPATH": paths}
    run = subprocess.run([sys.executable, "-c", ZERO_3], env=env, capture_output=True, text=True, timeout=300)
    assert "three steps of ZeRO-3" in run.stdout, run.stderr[-3000:]
