"""Which places a configuration names: layers, sub-layers, targets in any model, several placements in one model."""

import copy
import re
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from tiny_models import HIDDEN, assert_same, build, enlarge, inputs, logits, outputs, snapshot
from torch import nn

from adapter_fast.checkpoint import load_adapters, save_adapters
from adapter_fast.config import PLACEMENTS, AdapterConfig
from adapter_fast.placement import adapter_summary, add_adapters, disable_adapters, remove_adapters, set_adapter
from adapter_fast.placement.container import CHILD, INLET, sites_in
from adapter_fast.placement.sites import find_sites, is_norm
from adapter_fast.recipe import optimizer_groups, train_adapters


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def config_of(**fields):
    return AdapterConfig(8, "gelu_tanh", scale=0.7, **fields)


def names(model, **fields):
    return [site.name for site in find_sites(model, config_of(**fields))]


def test_sites_by_name_in_bert_and_gpt2():
    layer = "bert.encoder.layer.1"
    assert names(build(), layers=(1,)) == [f"{layer}.attention.output.dropout", f"{layer}.output.dropout"]
    assert names(build(), layers=(1,), placement="pfeiffer") == [f"{layer}.output.LayerNorm"]
    assert names(build(), layers=(1,), placement="parallel") == [f"{layer}.output.dropout"]
    assert names(build(), layers=(1,), sublayers=("attention",)) == [f"{layer}.attention.output.dropout"]
    assert names(build("gpt2"), layers=(1,), placement="pfeiffer") == ["transformer.h.1"]
    both = names(build(), layers=(1,), placement="pfeiffer", sublayers=("feed_forward", "attention"))
    assert both == [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]


def test_layers_count_an_encoders_before_its_decoders():
    assert names(build("bart"), layers=(1, 2), placement="parallel") == [
        "model.encoder.layers.1.fc2",
        "model.decoder.layers.0.fc2",
    ]
    t5 = names(build("t5"), layers=(3,))
    assert t5 == ["decoder.block.1.layer.0.dropout", "decoder.block.1.layer.2.dropout"]


@pytest.mark.parametrize("placement", ["houlsby", "parallel"])
@pytest.mark.parametrize("family", ["bart", "t5", "whisper"])
def test_cross_attention_is_in_decoders_only(family, placement):
    model = build(family)
    with torch.no_grad():
        bare = outputs(model, family)
        config = config_of(placement=placement, sublayers=("cross_attention",))
        enlarge(add_adapters(model, config))
        sites = list(sites_in(model))
        assert len(sites) == 2
        assert all("decoder" in site for site in sites)
        assert (outputs(model, family) - bare).abs().max() > 0.01


def test_layer_norms_that_train_when_layers_are_left_out():
    def trained(family, **fields):
        model = train_adapters(add_adapters(build(family), config_of(**fields)), head=False)
        return {
            name
            for name, p in model.named_parameters()
            if p.requires_grad and name.endswith(("weight",)) and ".adapters." not in name
        }

    last = "bert.encoder.layer.1"
    every = {
        f"bert.encoder.layer.{i}.{place}.LayerNorm.weight" for i in (0, 1) for place in ("attention.output", "output")
    }
    assert trained("bert") == {"bert.embeddings.LayerNorm.weight", *every}
    assert trained("bert", layers=(0, 1)) == every
    assert trained("bert", layers=(0,)) == every
    assert trained("bert", layers=(1,)) == {
        f"{last}.attention.output.LayerNorm.weight",
        f"{last}.output.LayerNorm.weight",
    }
    assert trained("bert", layers=(1,), placement="parallel") == {f"{last}.output.LayerNorm.weight"}
    assert trained("gpt2", layers=(1,)) == {"transformer.h.1.ln_2.weight", "transformer.ln_f.weight"}
    assert trained("gpt2", layers=(1,), placement="pfeiffer") == {"transformer.ln_f.weight"}
    # Only the decoder has adapters: nothing of the encoder may need a gradient.
    assert not any("encoder." in name for name in trained("bart", layers=(3,)))


def test_a_hidden_state_that_is_collected_is_the_adapted_one():
    """transformers collects hidden states by hooks on the layers, put there by the first such forward."""
    for family in ("gpt2", "llama", "vit"):
        model = build(family)
        given = inputs() if family != "vit" else {"pixel_values": torch.randn(3, 3, 16, 16)}
        with torch.no_grad():
            model(**given, output_hidden_states=True)
            enlarge(add_adapters(model, config_of(placement="pfeiffer")))
            hidden = model(**given, output_hidden_states=True).hidden_states
            adapted = []
            first = next(iter(sites_in(model).values())).adapters["default"]
            first.register_forward_hook(lambda _, args, y, adapted=adapted: adapted.append(y))
            model(**given)
        assert torch.equal(hidden[1], adapted[0]), family


def test_layer_norms_before_the_first_adapted_stack_stay_frozen_and_those_behind_train():
    def trained(family, **fields):
        model = train_adapters(
            add_adapters(build(family, **fields.pop("settings", {})), config_of(**fields)), head=False
        )
        return [name for name, p in model.named_parameters() if p.requires_grad and ".adapters." not in name]

    for family in ("t5", "bart", "whisper"):
        assert not any("encoder." in name for name in trained(family, layers=(3,))), family
        behind = trained(family, layers=(1,))
        assert any("decoder" in name and ".0." in name for name in behind), family
        model = build(family)
        train_adapters(add_adapters(model, config_of(layers=(2, 3))), head=False)
        seen = []
        first = sites_in(model)[find_sites(model, config_of(layers=(2,)))[0].name].adapters["default"]
        first.register_forward_hook(lambda _, args, y, seen=seen: seen.append(args[0].requires_grad))
        outputs(model, family).sum().backward()
        assert seen == [False], family
    groups = trained("albert", layers=(0,), settings={"num_hidden_groups": 2})
    assert any("albert_layer_groups.1." in name for name in groups)
    assert not any("vision_model.encoder" in name for name in trained("clip", layers=(1,)))


def test_layers_compiled_one_by_one(tmp_path):
    """Their names have a part of the compiler's in them."""
    plain = train_adapters(enlarge(add_adapters(build("llama"), config_of())), head=False)
    for when in ("before", "after"):
        model = build("llama")
        for step in ("before", "after"):
            if step == when:
                for index in range(2):
                    model.model.layers[index] = torch.compile(model.model.layers[index], backend="eager")
            elif when == "before" or step == "before":
                train_adapters(enlarge(add_adapters(model, config_of())), head=False)
        if when == "before":
            assert len(sites_in(model)) == 4
        trained = {name.replace("_orig_mod.", "") for name, p in model.named_parameters() if p.requires_grad}
        assert trained == {name for name, p in plain.named_parameters() if p.requires_grad}
        save_adapters(model, tmp_path / when)
        loaded = load_adapters(build("llama"), tmp_path / when)
        assert torch.equal(logits(loaded), logits(plain))


def test_an_adapter_added_while_all_are_disabled_waits_too():
    model = add_adapters(build(), config_of())
    bare = logits(model)
    with disable_adapters(model):
        enlarge(add_adapters(model, config_of(placement="pfeiffer"), "other"), "other")
        set_adapter(model, "other")
        assert torch.equal(logits(model), logits(build()))
    assert not torch.equal(logits(model), bare)


def test_adapters_are_made_where_the_base_computes():
    model = build("llama").to(torch.float64)
    for layer in model.model.layers:
        layer.mlp.down_proj = Wrapped(layer.mlp.down_proj)
    add_adapters(model, config_of())
    assert {p.dtype for site in sites_in(model).values() for p in site.parameters()} == {torch.float64}
    offloaded = build("llama").to("meta")
    for site in find_sites(offloaded):
        site.dense._hf_hook = SimpleNamespace(execution_device="cpu")
    add_adapters(offloaded, config_of())
    assert {p.device.type for site in sites_in(offloaded).values() for p in site.parameters()} == {"cpu"}


class Wrapped(nn.Module):
    """As LoRA wraps a linear layer."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer, self.out_features = base_layer, base_layer.out_features

    def forward(self, x):
        return self.base_layer(x)


# Several placements in one model


@pytest.mark.parametrize("family", ["bert", "gpt2", "phi", "t5"])
def test_adapters_of_all_placements_live_side_by_side(family):
    configs = {
        "h": config_of(),
        "p": config_of(placement="pfeiffer"),
        "q": config_of(placement="parallel", sublayers=("attention", "feed_forward")),
        "l": config_of(placement="parallel", layers=(1,)),
    }
    with torch.no_grad():
        model = build(family)
        bare = outputs(model, family)
        before = snapshot(model)
        alone = {}
        for name, config in configs.items():
            alone[name] = outputs(enlarge(add_adapters(build(family), config, name), name), family)
            enlarge(add_adapters(model, config, name), name)
        for name in (*configs, *reversed(configs)):
            assert torch.equal(outputs(set_adapter(model, name), family), alone[name]), name
            with disable_adapters(model):
                assert torch.equal(outputs(model, family), bare)
            assert torch.equal(outputs(copy.deepcopy(model), family), alone[name]), name
        sites = {site.name for site in adapter_summary(model).sites}
        assert sites == set(sites_in(model))
        remove_adapters(model, "q")
        assert torch.equal(outputs(set_adapter(model, "l"), family), alone["l"])
        remove_adapters(model, "l")
        assert not any(INLET in module._modules for module in model.modules())
        for name in ("h", "p"):
            assert torch.equal(outputs(set_adapter(model, name), family), alone[name]), name
        remove_adapters(model, "h")
        assert len(sites_in(model)) == (4 if family == "t5" else 2)
        assert_same(remove_adapters(model), before)


def test_a_parallel_adapter_keeps_no_input_after_the_forward():
    model = enlarge(add_adapters(build(), config_of(placement="parallel")))
    inlets = [
        module._modules[INLET]
        for module in model.modules()
        if INLET in module._modules and CHILD not in module._modules
    ]
    logits(model)
    with disable_adapters(model):
        logits(model)
    assert len({id(inlet) for inlet in inlets}) == 2
    assert not any(inlet.held for inlet in inlets)


def test_a_model_whose_forward_failed_can_be_copied():
    model = enlarge(add_adapters(build(), config_of(placement="parallel")))
    expected = logits(model)
    broken = model.bert.encoder.layer[0].intermediate.dense
    hook = broken.register_forward_hook(lambda *_: 1 / 0)
    model.bert.embeddings.requires_grad_(True)
    with pytest.raises(ZeroDivisionError):
        model(**inputs())
    hook.remove()
    assert torch.equal(logits(copy.deepcopy(model)), expected)


def test_a_parallel_adapter_whose_sub_layer_was_not_entered_says_so():
    model = enlarge(add_adapters(build(), config_of(placement="parallel")))
    with pytest.raises(RuntimeError, match="ended without being entered"):
        model.bert.encoder.layer[0].output(torch.zeros(1, 2, 48), torch.zeros(1, 2, HIDDEN))


# Any other model


class Mixer(nn.Module):
    """No transformer of the table: blocks with a norm and two linear layers, an embedding, a convolution."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 16)
        self.blocks = nn.ModuleList(nn.ModuleDict({"norm": nn.RMSNorm(16), "fc": nn.Linear(16, 16)}) for _ in range(3))
        self.drop = nn.Dropout(0.0)
        self.classifier = nn.Linear(16, 4, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + self.drop(block["fc"](block["norm"](x)))
        return self.classifier(x)


IDS = torch.arange(9).view(3, 3)


def test_target_modules_in_any_model():
    torch.manual_seed(0)
    model = Mixer()
    before, bare = snapshot(model), model(IDS)
    add_adapters(model, config_of(target_modules=r"blocks\.[12]\.(fc|norm)|embed"))
    assert list(sites_in(model)) == ["embed", "blocks.1.norm", "blocks.1.fc", "blocks.2.norm", "blocks.2.fc"]
    enlarge(model)
    assert (model(IDS) - bare).abs().max() > 0.01
    summary = adapter_summary(model)
    assert {(site.kind, site.hidden_size) for site in summary.sites} == {("target", 16)}
    train_adapters(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and ".adapters." not in name}
    assert trained == {"classifier.weight", *(f"blocks.{i}.norm.weight" for i in range(3))}
    decays = {id(p) for group in optimizer_groups(model) if not group["weight_decay"] for p in group["params"]}
    assert all(id(block["norm"].weight) in decays for block in model.blocks)
    assert_same(remove_adapters(model), before)


def test_target_modules_in_a_known_model_and_beside_another_placement():
    model = build("llama")
    add_adapters(model, config_of(target_modules=r"model\.layers\.\d+\.mlp\.down_proj"))
    add_adapters(model, config_of(), "houlsby")
    assert list(sites_in(model))[:2] == ["model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"]
    assert [len(site.adapters) for site in sites_in(model).values()] == [1, 2, 1, 2]
    # A pattern that also fits our own modules takes none of them.
    add_adapters(model, config_of(target_modules=r".*\.mlp\.down_proj(\..*)?"), "again")
    assert len(sites_in(model)) == 4


CROSS = ("cross_attention",)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (
            Mixer,
            {},
            r"model_type None has no known adapter site: .* bert, .*target_modules.*it has blocks\\\.\\d\+\\\.fc \(3\)",
        ),
        (Mixer, {"target_modules": "block"}, r"'block' matches no module of Mixer: it has blocks\\\.\\d\+\\\.fc \(3\)"),
        (Mixer, {"target_modules": "drop"}, "target_modules names drop, a Dropout whose width cannot be told"),
        (
            lambda: nn.TransformerEncoderLayer(16, 2),
            {"target_modules": r"self_attn\.out_proj"},
            "self_attn.out_proj, whose weight nn.MultiheadAttention reads without calling it",
        ),
        (lambda: nn.Sequential(nn.ReLU()), {"target_modules": "1"}, "no module of Sequential: it has no linear layer"),
        (build, {"layers": (0, 2)}, "layers must be below 2, the model's number of layers, got 2"),
        (build, {"sublayers": CROSS}, "sublayers: BertForSequenceClassification .* has no cross_attention"),
        (lambda: build("bart"), {"sublayers": CROSS, "layers": (0, 1)}, "has no cross_attention in these layers"),
        (
            lambda: build("gpt2"),
            {"sublayers": ("attention",), "placement": "pfeiffer"},
            r"'pfeiffer' has no place behind the attention sub-layer of GPT2.*expected sublayers \('feed_forward',\)",
        ),
    ],
)
def test_places_that_are_not_there_are_named_and_nothing_changes(model, fields, message):
    model = model()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message) as caught:
        add_adapters(model, config_of(**fields))
    assert "\n" not in str(caught.value)
    assert_same(model, before)


def test_other_names_in_another_transformers_version_are_named():
    model = build("vit")
    if not hasattr(model.vit, "layers"):
        pytest.skip("an older transformers, whose ViT has other names")
    for layer in model.vit.layers:
        layer.attention.output = layer.attention._modules.pop("o_proj")
    with pytest.raises(
        ValueError, match=r"has no adapter site: no module vit.layers.0.attention.o_proj, .*5.5 to 5.23.*"
    ):
        add_adapters(model, config_of())


@pytest.mark.parametrize("fields", [{"layers": (0,)}, {"sublayers": ("attention",)}, {"placement": "parallel"}])
def test_target_modules_exclude_the_other_choices(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} must be .* with target_modules, got"):
        AdapterConfig(target_modules="x", **fields)


def test_choices_of_places_are_put_in_order_and_survive_json():
    config = AdapterConfig(sublayers=["feed_forward", "attention"], layers=range(3, 1, -1))
    assert (config.sublayers, config.layers) == (("attention", "feed_forward"), (2, 3))
    assert config.adapted == ("attention", "feed_forward")
    assert AdapterConfig.from_json(config.to_json()) == config
    assert AdapterConfig.pfeiffer(bottleneck=8) == AdapterConfig(8, "relu", placement="pfeiffer")
    assert AdapterConfig.parallel() == AdapterConfig(64, "relu", placement="parallel", scale=4.0)
    assert AdapterConfig.pfeiffer().adapted == AdapterConfig.parallel().adapted == ("feed_forward",)
    assert {getattr(AdapterConfig, name)().placement for name in PLACEMENTS} == set(PLACEMENTS)


def test_what_is_a_norm():
    assert is_norm(nn.LayerNorm(4))
    assert is_norm(nn.RMSNorm(4))
    assert is_norm(build("llama").model.norm)
    assert is_norm(build("t5").encoder.final_layer_norm)
    # A layer of Wav2Vec2 is called so, and is none.
    assert not any(is_norm(layer) for layer in build("wav2vec2-stable").wav2vec2.encoder.layers)


# Speed


def test_adding_adapters_to_a_model_of_1000_modules_takes_under_a_second():
    model = build(num_hidden_layers=60)
    assert sum(1 for _ in model.modules()) > 1000
    started = time.perf_counter()
    add_adapters(model, config_of())
    assert time.perf_counter() - started < 1.0
    assert len(sites_in(model)) == 120


def python_calls(run):
    """Python functions entered."""
    count = 0

    def watch(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_python_work_of_a_forward_does_not_grow_with_the_adapters_loaded(placement):
    model = add_adapters(build(), config_of(placement=placement))
    logits(model)
    one = python_calls(lambda: logits(model))
    for number in range(12):
        add_adapters(model, config_of(placement=placement), f"other{number}")
    assert python_calls(lambda: logits(model)) == one


def test_a_files_regular_expression_is_not_run(tmp_path):
    """It could run for ever: (a+)+ and the like."""
    model = enlarge(add_adapters(build(), config_of(target_modules=r".*\.output\.dense")))
    save_adapters(model, tmp_path / "saved")
    file = tmp_path / "saved/adapter_config.json"
    text = file.read_text().replace(r".*\\.output\\.dense", r"(?:\\w+\\.?)+!")
    file.write_text(re.sub(r'"record_sha256": "\w+"', '"record_sha256": null', text))
    loaded = load_adapters(build(), tmp_path / "saved")
    assert torch.equal(logits(loaded), logits(model))
    other = build("gpt2")
    other.config.model_type = "bert"
    with pytest.raises(ValueError, match=r"is for the module 'encoder.layer.0.attention.output.dense', which"):
        load_adapters(other, tmp_path / "saved")


def test_wrapped_models_are_refused():
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(build(), peft.LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match=r"add_adapters needs a model that is no PeftModel: .*BottleneckConfig"):
        add_adapters(wrapped, config_of())
    with pytest.raises(ValueError, match="load_adapters needs a model that is no PeftModel"):
        load_adapters(wrapped, "nowhere")
