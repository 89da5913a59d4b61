"""Adapters over quantised bases: bitsandbytes and torchao themselves (make test-quantised), and stand-ins for all."""

from __future__ import annotations

import importlib.util
import json
import logging

import pytest
import torch
from tiny_models import assert_same, build, enlarge, inputs, logits, snapshot
from torch import nn

from adapter_fast import (
    AdapterConfig,
    add_adapters,
    load_adapters,
    remove_adapters,
    save_adapters,
    train_adapters,
)
from adapter_fast.recipe import train_all, train_head_only, train_layer_norms, train_top_layers

CONFIG = AdapterConfig(bottleneck=8)
LLAMA = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}  # bitsandbytes' CPU kernels need blocks of 64
DISTILBERT = {"dim": 64, "hidden_dim": 128}
REFUSED = (
    r"quantised, and cannot be trained or replaced: load the base with its module left out \(llm_int8_skip_modules"
)


# The libraries themselves


def torchao_int8(skip=None):
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=skip)


def bitsandbytes(skip=None, **form):
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(llm_int8_skip_modules=skip, **form)


FORMS = {
    "bitsandbytes-8bit": ("bitsandbytes", "Int8Params", lambda skip=None: bitsandbytes(skip, load_in_8bit=True)),
    "bitsandbytes-fp4": ("bitsandbytes", "Params4bit", lambda skip=None: bitsandbytes(skip, load_in_4bit=True)),
    "bitsandbytes-nf4": (
        "bitsandbytes",
        "Params4bit",
        lambda skip=None: bitsandbytes(
            skip, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
    ),
    "torchao-int8": ("torchao", "Int8Tensor", torchao_int8),
}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    library, kind, config = FORMS[request.param]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: run `make test-quantised`")
    monkeypatch.setattr(logging.getLogger("bitsandbytes.autograd._functions"), "disabled", True)
    return kind, config


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request):
    return request.param


def quantised(model, path, config, dtype=torch.float32):
    """The model as from_pretrained quantises it."""
    if not path.exists():
        model.save_pretrained(path)
    loaded = type(model).from_pretrained(path, quantization_config=config, dtype=dtype, device_map="cpu")
    return loaded.eval()


def codes(model, kind):
    """The quantised weights, each by the bytes that are stored."""
    found = {name: value for name, value in model.named_parameters() if type(value).__name__ == kind}
    return {name: getattr(value, "qdata", value).detach().clone() for name, value in found.items()}


def take_steps(model, steps=3):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model(**inputs(), labels=torch.tensor([0, 1, 2])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.mark.network
def test_llama_trains_saves_and_reloads_bit_for_bit(form, dtype, tmp_path):
    kind, config = form
    source = build("llama", "ForSequenceClassification", **LLAMA)
    model = quantised(source, tmp_path / "base", config(), dtype)
    bare, stored = logits(model), codes(model, kind)
    assert len(stored) == 2 * 7, "each projection of both layers"
    assert 0 < (bare.float() - logits(source)).abs().max() < 0.2

    add_adapters(model, CONFIG)
    train_adapters(model)
    enlarge(model)
    before = logits(model)
    losses = take_steps(model)
    assert losses[-1] < losses[0]
    after = logits(model)
    assert (after - before).abs().max() > 1e-3
    now = codes(model, kind)
    assert all(torch.equal(now[name], value) for name, value in stored.items())

    save_adapters(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved/adapter_config.json").read_text())["base"]["digest"] is None
    fresh = load_adapters(quantised(source, tmp_path / "base", config(), dtype), tmp_path / "saved")
    assert torch.equal(logits(fresh), after)
    assert torch.equal(logits(remove_adapters(model)), bare)


@pytest.mark.network
def test_a_quantised_classifier_is_refused_and_what_the_message_advises_trains(form, tmp_path):
    """transformers leaves a head of several modules, as DistilBERT's is, to be quantised whole."""
    kind, config = form
    source = build("distilbert", **DISTILBERT, num_labels=64)  # bitsandbytes needs whole blocks on a CPU
    model = quantised(source, tmp_path / "base", config())
    add_adapters(model, CONFIG)
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    with pytest.raises(ValueError, match=rf"^pre_classifier.weight is torch.*, {REFUSED}"):
        train_adapters(model)
    assert {name: value.requires_grad for name, value in model.named_parameters()} == before
    train_adapters(model, head=False)
    enlarge(model)
    take_steps(model)

    skipping = quantised(source, tmp_path / "base", config(["pre_classifier", "classifier"]))
    add_adapters(skipping, CONFIG)
    train_adapters(skipping)
    enlarge(skipping)
    assert codes(skipping, kind)
    head = skipping.pre_classifier.weight.detach().clone()
    take_steps(skipping)
    assert not torch.equal(head, skipping.pre_classifier.weight)

    save_adapters(skipping, tmp_path / "saved")
    target = quantised(source, tmp_path / "base", config())
    # Not its outputs: a state_dict between two forwards changes the bits of bitsandbytes' 4-bit products on a CPU.
    values = {name: (id(value), value._version) for name, value in target.named_parameters()}
    with pytest.raises(ValueError, match=rf"^pre_classifier.weight is torch.*, {REFUSED}"):
        load_adapters(target, tmp_path / "saved")
    assert {name: (id(value), value._version) for name, value in target.named_parameters()} == values
    load_adapters(target, tmp_path / "saved", head=False)


# Stand-ins


class Codes(torch.Tensor):
    """Stands for torchao's tensors: of a float dtype by its own account, and able to do next to nothing."""

    @staticmethod
    def __new__(cls, codes, scale):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32, device=codes.device)

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self):
        return ["codes"], self.scale

    @classmethod
    def __tensor_unflatten__(cls, inner, scale, size, stride):
        return cls(inner["codes"], scale)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].codes.clone(), args[0].scale)
        raise NotImplementedError(f"Codes dispatch: {func}")


def to_codes(weight):
    scale = float(weight.abs().max()) / 127
    return Codes((weight / scale).round().to(torch.int8), scale)


STAND_INS = {
    "int8": lambda weight: (weight * 100).round().to(torch.int8),
    "packed": lambda weight: torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8),
    "subclass": to_codes,
}


@pytest.fixture(params=STAND_INS)
def stand_in(request):
    def replace(model, pattern):
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and pattern in name:
                module.weight = nn.Parameter(STAND_INS[request.param](module.weight.detach()), requires_grad=False)
        return model

    return replace


def state_of(model):
    """As snapshot, less the values that cannot be compared."""
    return {
        "keys": list(model.state_dict()),
        "requires_grad": {name: value.requires_grad for name, value in model.named_parameters()},
        "values": {name: id(value) for name, value in model.named_parameters()},
        "modules": [(name, type(module)) for name, module in model.named_modules()],
    }


TRAIN = {
    "adapters": train_adapters,
    "head": train_head_only,
    "norms": train_layer_norms,
    "top": lambda model: train_top_layers(model, 1),
    "all": train_all,
}


@pytest.mark.parametrize("train", TRAIN)
def test_what_would_train_is_refused_by_name(stand_in, train):
    model = stand_in(build(), "classifier")
    if train == "adapters":
        add_adapters(model, CONFIG)
    before = state_of(model)
    with pytest.raises(ValueError, match=rf"^classifier.weight is torch\.\w+( in a Codes)?, {REFUSED}"):
        TRAIN[train](model)
    assert state_of(model) == before


def test_quantised_layers_have_no_digest_and_are_saved(stand_in, tmp_path):
    model = build()
    train_adapters(add_adapters(model, CONFIG))
    stand_in(model, "query")
    save_adapters(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved/adapter_config.json").read_text())["base"]["digest"] is None
    load_adapters(stand_in(build(), "query"), tmp_path / "saved")


def test_a_plain_base_keeps_its_digest(tmp_path):
    save_adapters(add_adapters(build(), CONFIG), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base"]["digest"]


def test_a_saved_head_is_not_put_in_a_quantised_ones_place(stand_in, tmp_path):
    save_adapters(train_adapters(add_adapters(build(), CONFIG)), tmp_path)
    model = stand_in(build(), "classifier")
    before = state_of(model)
    with pytest.raises(ValueError, match=rf"^classifier.weight is torch\.\w+( in a Codes)?, {REFUSED}"):
        load_adapters(model, tmp_path)
    assert state_of(model) == before
    load_adapters(model, tmp_path, head=False)


def test_a_saved_language_head_over_a_quantised_one_is_refused_in_a_line(stand_in, tmp_path):
    save_adapters(train_adapters(add_adapters(build("llama"), CONFIG), head=["lm_head"]), tmp_path)
    model = stand_in(build("llama"), "lm_head")
    with pytest.raises(ValueError, match=r"has head.lm_head.weight, which .*pass head=False"):
        load_adapters(model, tmp_path)
    plain = build("llama")
    before = snapshot(plain)
    assert_same(remove_adapters(load_adapters(plain, tmp_path)), before)
