"""What trains over a 16-bit base is float32, while the model goes on computing in its own dtype."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from tiny_models import FAMILIES, TINY, assert_same, build, enlarge, inputs, inputs_of, is_norm, outputs, snapshot
from torch import nn

from adapter_fast import (
    AdapterConfig,
    add_adapters,
    load_adapters,
    remove_adapters,
    save_adapters,
    set_adapter,
    train_adapters,
)
from adapter_fast.placement.sites import head_parameters
from adapter_fast.placement.walk import TUNED
from adapter_fast.recipe import (
    create_optimizer,
    train_all,
    train_head_only,
    train_layer_norms,
    train_top_layers,
)

pytestmark = pytest.mark.usefixtures("torch_backend")
CONFIG = AdapterConfig(8)
HALVES = (torch.bfloat16, torch.float16)


@pytest.fixture
def torch_backend(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def half_inputs(family, dtype):
    return {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs_of(family, rows=2).items()
    }


def said(model, family, dtype):
    result = model(**half_inputs(family, dtype))
    return result.text_embeds if family == "clip" else result[0]


def half(family="bert", dtype=torch.bfloat16, **options):
    model = add_adapters(build(family).to(dtype), CONFIG)
    return train_adapters(enlarge(model), head=bool(head_parameters(model)), **options)


def trained(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", list(TINY))
def test_every_gain_moves_and_the_model_computes_in_its_own_dtype(family, dtype, tmp_path):
    """The example was 0 of 160 gains moved over 200 steps of bfloat16."""
    base = build(family).to(dtype)
    said(base, family, dtype)  # transformers adds hooks of its own in the first forward
    before = snapshot(base)
    bare = said(enlarge(add_adapters(copy.deepcopy(base), CONFIG)), family, dtype)
    model = train_adapters(enlarge(add_adapters(copy.deepcopy(base), CONFIG)), head=bool(head_parameters(base)))
    assert {value.dtype for value in trained(model).values()} == {torch.float32}
    first = said(model, family, dtype)
    assert first.dtype == bare.dtype
    assert torch.equal(first, bare)  # a master rounds to what it was made of
    norms = {name: value for name, value in trained(model).items() if "adapter_site" not in name}
    assert norms
    start = {name: value.detach().clone() for name, value in norms.items()}
    optimizer = create_optimizer(model, 3e-4)
    for _ in range(3):
        said(model, family, dtype).float().square().mean().mul(1e3).backward()
        optimizer.step()
        optimizer.zero_grad()
    still = [name for name, value in norms.items() if torch.equal(value, start[name])]
    assert all("post_layernorm" in name or "vision" in name for name in still)  # no part of what CLIP is asked for
    assert not still or family.startswith("clip")
    output = said(model.eval(), family, dtype)
    save_adapters(model, tmp_path / "adapter")
    fresh = load_adapters(copy.deepcopy(base), tmp_path / "adapter")
    assert torch.equal(said(fresh, family, dtype), output)
    save_adapters(fresh, tmp_path / "again")
    for file in ("adapter.safetensors", "adapter_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "adapter" / file).read_bytes()
    assert_same(remove_adapters(model), before)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_scaler_of_float16_takes_the_gradients(dtype):
    """The example was "Attempting to unscale FP16 gradients"."""
    model = half(dtype=dtype)
    optimizer = create_optimizer(model, 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    start = {name: value.detach().clone() for name, value in trained(model).items()}
    scaler.scale(outputs(model, "bert").float().square().mean()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert all(not torch.equal(value, start[name]) for name, value in trained(model).items())


def test_sixteen_bit_training_is_there_for_those_who_ask():
    model = half(master_weights=False)
    own = {name: value.dtype for name, value in trained(model).items() if "adapter_site" not in name}
    assert set(own.values()) == {torch.bfloat16}
    train_adapters(model)
    assert {value.dtype for value in trained(model).values()} == {torch.float32}
    train_adapters(model, master_weights=False)
    assert trained(model)["classifier.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "baseline", [train_layer_norms, train_head_only, train_all, lambda model: train_top_layers(model, 1)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_baselines_train_in_float32_too(family, baseline, dtype):
    model = build(family).to(dtype)
    bare = outputs(model, family)
    baseline(model)
    assert {value.dtype for value in trained(model).values()} == {torch.float32}
    frozen = [value.dtype for value in model.parameters() if not value.requires_grad]
    assert set(frozen) <= {dtype}
    first = outputs(model, family)
    assert first.dtype == dtype
    assert torch.equal(first, bare)
    start = {name: value.detach().clone() for name, value in trained(model).items()}
    optimizer = create_optimizer(model, 3e-4)
    for _ in range(2):
        outputs(model, family).float().square().mean().mul(1e3).backward()
        optimizer.step()
        optimizer.zero_grad()
    gains = [name for name in start if is_norm(model.get_submodule(name.rpartition(".")[0]))]
    moved = [name for name in gains if not torch.equal(trained(model)[name], start[name])]
    assert moved == gains


def test_nothing_is_left_in_a_module_that_has_run_or_failed():
    model = half()
    norm = model.bert.embeddings.LayerNorm
    outputs(model, "bert")
    assert norm.weight is norm._parameters["weight"]
    assert norm.weight.dtype == torch.float32
    with pytest.raises(RuntimeError):
        norm(torch.randn(2, 7, dtype=torch.bfloat16))
    assert "weight" not in norm.__dict__
    assert norm(torch.randn(2, 32)).dtype == torch.float32  # as its input is


def test_conversions_without_a_gradient_are_kept_until_the_parameter_changes():
    model = half().eval()
    with torch.no_grad():
        first = outputs(model, "bert")
        assert torch.equal(outputs(model, "bert"), first)
        model.classifier.weight.mul_(2.0)
        assert not torch.equal(outputs(model, "bert"), first)
        model.classifier.weight.data = model.classifier.weight.data / 2
        assert torch.equal(outputs(model, "bert"), first)
    with torch.inference_mode():
        assert torch.equal(outputs(model, "bert"), first)
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    outputs(model, "bert").float().sum().backward()  # nothing of inference mode is saved for it


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_masters_of_their_own(copier):
    model = half().eval()
    with torch.no_grad():
        outputs(model, "bert")
        duplicate = copier(model)
        said_first = outputs(model, "bert")
        assert torch.equal(outputs(duplicate, "bert"), said_first)
        duplicate.classifier.weight.mul_(2.0)
        assert not torch.equal(outputs(duplicate, "bert"), said_first)
        assert torch.equal(outputs(model, "bert"), said_first)
    assert_same(remove_adapters(duplicate), snapshot(build().bfloat16()))


def test_a_model_moved_to_another_dtype_computes_in_it():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model = half().eval().to(dtype)
        plain = train_adapters(enlarge(add_adapters(build().bfloat16().to(dtype), CONFIG)), master_weights=False).eval()
        assert outputs(model, "bert").dtype == dtype
        assert torch.equal(outputs(model, "bert"), outputs(plain, "bert"))


def test_threads_that_call_one_model_get_what_one_would():
    model = half().eval()
    with torch.no_grad():
        expected = model(**inputs())[0]
    wrong = []

    def call(grad):
        for _ in range(30):
            with torch.set_grad_enabled(grad):
                if not torch.equal(model(**inputs())[0], expected):
                    wrong.append(grad)

    threads = [threading.Thread(target=call, args=(index % 2 == 0,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_thread_that_leaves_a_module_leaves_it_to_the_others_inside():
    norm = half().eval().get_submodule("bert.encoder.layer.0.output.LayerNorm")
    forward, inside, left, found = norm.forward, threading.Event(), threading.Event(), []

    def wait_if_first(x):
        if threading.current_thread() is first:
            inside.set()
            left.wait(60)
        found.append(norm.weight.dtype)
        return forward(x)

    norm.forward = wait_if_first
    x = torch.randn(2, norm.normalized_shape[0], dtype=torch.bfloat16)
    first = threading.Thread(target=norm, args=(x,))
    first.start()
    assert inside.wait(60)
    norm(x)
    left.set()
    first.join()
    assert found == [torch.bfloat16] * 2 and norm.weight.dtype == torch.float32


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    plain, saving = half(), half()
    saving.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    saving.enable_input_require_grads()
    for model in (plain, saving):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        outputs(model, "bert").float().square().mean().backward()
    for name, value in trained(plain).items():
        assert torch.equal(value.grad, trained(saving)[name].grad), name


def test_the_whole_model_compiles_without_a_break():
    torch._dynamo.reset()
    model = half().eval()
    expected = outputs(model, "bert")
    expected.float().square().mean().backward()
    grads = {name: value.grad.clone() for name, value in trained(model).items()}
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(**inputs_of("bert"))[0].flatten()
    torch.testing.assert_close(out, expected)
    out.float().square().mean().backward()
    for name, value in trained(model).items():
        torch.testing.assert_close(value.grad, grads[name], rtol=2e-2, atol=2e-2 * float(grads[name].abs().max()))
    torch._dynamo.reset()


def test_a_replica_of_data_parallel_computes_in_sixteen_bit():
    """nn.DataParallel gives a copy of a module plain tensors in its parameters' place."""
    norm = half().bert.embeddings.LayerNorm
    replica = norm._replicate_for_data_parallel()
    for name, value in norm._parameters.items():
        setattr(replica, name, value.detach().clone())
    replica._modules = dict(norm._modules)
    x = torch.randn(2, 32, dtype=torch.bfloat16)
    assert torch.equal(replica(x), norm(x))
    assert replica(x).dtype == torch.bfloat16


def test_pfeiffers_place_around_a_trained_norm():
    """The adapter's hook calls the norm once more, in whatever order adapters were added and trained."""

    def with_one(model, place):
        train_adapters(enlarge(add_adapters(model, AdapterConfig(8, placement=place), place), place), place)
        with torch.no_grad():  # so that it matters whether the norm's own are rounded
            for name, value in trained(model).items():
                if "LayerNorm" in name and "adapter_site" not in name:
                    value.add_(torch.linspace(0.0, 3e-3, 32))
        return model

    alone = with_one(build().bfloat16(), "pfeiffer")
    for order in (("houlsby", "pfeiffer"), ("pfeiffer", "houlsby")):
        model = build().bfloat16()
        for place in order:
            with_one(model, place)
        set_adapter(model, "pfeiffer")
        assert torch.equal(outputs(model, "bert"), outputs(alone, "bert"))


def test_a_state_dict_brings_masters_back(tmp_path):
    model = half()
    with torch.no_grad():
        for value in trained(model).values():
            value.add_(1e-3)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = add_adapters(build().bfloat16(), CONFIG)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(outputs(fresh, "bert"), outputs(model, "bert"))
    assert fresh.classifier.weight.dtype == torch.float32
    assert any(TUNED in name for name, _ in fresh.named_parameters())
    assert_same(remove_adapters(fresh), snapshot(build().bfloat16()))


def test_quantised_heads_are_named_and_nothing_changes():
    model = build()
    model.classifier.weight = nn.Parameter(torch.zeros(3, 32, dtype=torch.int8), requires_grad=False)
    add_adapters(model, CONFIG)
    before = snapshot(model)
    for train in (train_adapters, lambda model: train_head_only(remove_adapters(copy.deepcopy(model)))):
        with pytest.raises(ValueError, match=r"classifier.weight is torch.int8, quantised.*llm_int8_skip_modules"):
            train(model)
        assert_same(model, before)
