"""BottleneckConfig in PEFT: every claim of the integration, on tiny models."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import HIDDEN, TINY, assert_same, build, inputs, logits, outputs, snapshot
from torch import Tensor, nn
from torch.nn.utils import prune

import adapter_fast
from adapter_fast import AdapterConfig, add_adapters
from adapter_fast.placement.container import sites_in

pytest.importorskip("peft")
import peft
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils.peft_types import PeftType
from safetensors.torch import load_file

from adapter_fast.integrations.peft import BottleneckConfig, BottleneckLayer, BottleneckModel, registration

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
ROOT = Path(__file__).parents[2]
M = 8
LABELS = torch.tensor([0, 1, 2])


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    """PyTorch operations compute: what is tested here lies around the op, and the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def config(**overrides) -> BottleneckConfig:
    return BottleneckConfig(**{"bottleneck": M, **overrides})


def layers_of(model: nn.Module) -> dict[str, BottleneckLayer]:
    """Every wrapper by the base's name of the module that it wraps."""
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, BottleneckLayer)
    }


def weights_of(layer: BottleneckLayer, name: str = "default") -> dict[str, Tensor]:
    return {
        f"{part}.{key}": parameter
        for part in ("down", "up")
        for key, parameter in getattr(layer, f"bottleneck_{part}")[name].named_parameters()
    }


def enlarge(model: nn.Module, name: str = "default", seed: int = 7) -> nn.Module:
    """Fan-in scaled random weights for an adapter, and its own values for what modules_to_save trains."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers_of(model).values():
            for parameter in weights_of(layer, name).values() if name in layer.bottleneck_apply else ():
                std = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
        for key, parameter in model.named_parameters():
            if f".modules_to_save.{name}." in key:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def wrapped(family: str = "bert", name: str = "default", seed: int = 7, base: nn.Module | None = None, **overrides):
    """A PEFT model in eval mode with fan-in scaled adapters."""
    model = get_peft_model(build(family) if base is None else base, config(**overrides), adapter_name=name)
    return enlarge(model, name, seed).eval()


def twin_of(model: PeftModel, base: nn.Module, **overrides) -> nn.Module:
    """The same adapters on a fresh base by add_adapters, trainable as in PEFT."""
    base.requires_grad_(False)
    add_adapters(base, AdapterConfig(bottleneck=M, **overrides))
    sites, layers = sites_in(base), layers_of(model)
    assert sites.keys() == layers.keys()
    for name, site in sites.items():
        site.adapters["default"].load_state_dict(weights_of(layers[name]))
    return base


def apart(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    model(**inputs(), labels=LABELS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# Registration


def test_importing_registers_one_method():
    assert PeftType.BOTTLENECK is PeftType("BOTTLENECK") is registration.peft_type()
    assert list(PeftType).count("BOTTLENECK") == 1 and PeftType.LORA in list(PeftType)
    for _ in range(2):
        registration.register(BottleneckConfig, BottleneckModel)
    assert peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BOTTLENECK] is BottleneckConfig
    assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[PeftType.BOTTLENECK] is BottleneckModel
    assert list(PeftType).count("BOTTLENECK") == 1
    for copied in (copy.deepcopy(PeftType.BOTTLENECK), pickle.loads(pickle.dumps(PeftType.BOTTLENECK))):
        assert copied is PeftType.BOTTLENECK


def test_a_method_of_that_name_in_peft_is_left_alone(monkeypatch):
    theirs = type("BottleneckConfig", (PeftConfig,), {"__module__": "peft.tuners.bottleneck"})
    monkeypatch.setitem(peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.BOTTLENECK, theirs)
    with pytest.raises(ImportError, match=r"register with PEFT .* method BOTTLENECK already, peft.tuners.bottleneck"):
        registration.register(BottleneckConfig, BottleneckModel)
    assert peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BOTTLENECK] is theirs


def test_another_registry_is_an_import_error(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registration, "register_peft_method", lambda name, config_cls: None)
        with pytest.raises(ImportError, match=r"cannot register with PEFT \d.*unexpected keyword"):
            registration.register(BottleneckConfig, BottleneckModel)
    registration.register(BottleneckConfig, BottleneckModel)


def python(program: str) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_peft_the_error_names_the_extra():
    program = """
import sys
sys.modules["peft"] = None
import adapter_fast, adapter_fast.integrations
try:
    import adapter_fast.integrations.peft
except ImportError as error:
    print(error)
"""
    assert python(program) == 'adapter_fast.integrations.peft needs PEFT: pip install "adapter_fast[peft]"'


@pytest.mark.parametrize("page", ["limits.md", "migration.md"])
def test_the_pages_have_what_peft_says_without_our_import(page, tmp_path):
    get_peft_model(build(), config()).save_pretrained(tmp_path)
    program = f"""
import peft
try:
    peft.PeftConfig.from_pretrained({str(tmp_path)!r})
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
import adapter_fast.integrations.peft
print(type(peft.PeftConfig.from_pretrained({str(tmp_path)!r})).__name__)
"""
    said, loaded = python(program).splitlines()
    assert loaded == "BottleneckConfig"
    text = (ROOT / "docs" / page).read_text("utf-8")
    assert f"`{said}`" in text and "import adapter_fast.integrations.peft" in text


@pytest.mark.slow
def test_a_pickled_model_brings_the_registration_along(tmp_path):
    model = wrapped()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    program = f"import pickle; print(pickle.load(open({str(tmp_path / 'model.pickle')!r}, 'rb')).peft_type.value)"
    assert python(program) == "BOTTLENECK"


# Configuration


def test_config_goes_through_json(tmp_path):
    given = config(
        activation="gelu_tanh", scale=2, use_bias=False, memory="lean", layers=(1, 0), modules_to_save=("score",)
    )
    assert json.loads(json.dumps(given.to_dict())) == given.to_dict()
    assert json.loads(json.dumps(config(target_modules={"query", "dense"}).to_dict()))["target_modules"] == [
        "dense",
        "query",
    ]
    given.save_pretrained(tmp_path)
    for loaded in (PeftConfig.from_pretrained(tmp_path), BottleneckConfig.from_pretrained(tmp_path)):
        assert type(loaded) is BottleneckConfig
        assert loaded == given
    assert given.layers == [0, 1] and given.scale == 2.0
    same = {"activation": "gelu_tanh", "scale": 2, "bias": False, "memory": "lean", "layers": (0, 1)}
    assert given.adapter_config() == AdapterConfig(bottleneck=M, **same)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"bottleneck": 0}, ValueError, "bottleneck must be at least 1, got 0"),
        ({"bottleneck": "8"}, TypeError, "bottleneck must be an integer, got '8'"),
        ({"activation": "swish"}, ValueError, "activation must be one of .*, got 'swish'"),
        ({"scale": float("nan")}, ValueError, "scale must be finite, got nan"),
        ({"init_std": -1}, ValueError, "init_std must be at least 0, got -1"),
        ({"use_bias": "none"}, TypeError, "use_bias must be True or False, got 'none'"),
        ({"bias": "none"}, TypeError, "unexpected keyword argument 'bias'"),
        ({"memory": "huge"}, ValueError, "memory must be one of .*, got 'huge'"),
        ({"implementation": "triton"}, ValueError, "implementation must be one of fused, reference, got 'triton'"),
        ({"placement": "pfeiffer"}, ValueError, "placement must be 'houlsby' with PEFT .*, got 'pfeiffer'"),
        ({"layers": "01"}, TypeError, "layers must be .*, got '01'"),
        ({"sublayers": ["mlp"]}, ValueError, "sublayers must be one of .*, got 'mlp'"),
        ({"target_modules": "all-linear"}, ValueError, "target_modules must name the outputs of sub-layers, got"),
        (
            {"target_modules": "("},
            ValueError,
            r"target_modules must be a list of names or a regular expression, got '\('",
        ),
        ({"target_modules": []}, ValueError, r"target_modules must name at least one module.*, got \[\]"),
        ({"target_modules": [1]}, TypeError, r"target_modules must be a list of strings, got \[1\]"),
        (
            {"target_modules": ["dense"], "layers": [0]},
            ValueError,
            "sublayers and layers must be None with target_modules",
        ),
        ({"exclude_modules": "["}, ValueError, r"exclude_modules must be .*, got '\['"),
        ({"modules_to_save": "score"}, TypeError, "modules_to_save must be a list of strings, got 'score'"),
        ({"task_type": "TALK"}, ValueError, "Invalid task type: 'TALK'"),
    ],
)
def test_bad_config_is_one_line(overrides, error, message):
    with pytest.raises(error, match=message) as caught:
        config(**overrides)
    assert "\n" not in str(caught.value)


# Places


def test_default_places_are_the_tables():
    model = get_peft_model(build(), config())
    assert model.peft_config["default"].target_modules == list(sites_in(add_adapters(build(), AdapterConfig())))
    assert len(layers_of(model)) == 4
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 16 and all(".bottleneck_" in name for name in trained)
    one = adapter_fast.FusedAdapter(HIDDEN, M)
    assert model.get_nb_trainable_parameters()[0] == 4 * sum(p.numel() for p in one.parameters())


@pytest.mark.parametrize("family", TINY)
def test_every_family_equals_add_adapters(family):
    model, base = wrapped(family), build(family)
    with torch.no_grad():
        before = outputs(base, family)
        after = outputs(model, family)
        assert apart(after, before) > 1e-3
        assert torch.equal(after, outputs(twin_of(model, base), family))
        with model.disable_adapter():
            assert torch.equal(outputs(model, family), before)
    assert torch.equal(outputs(model.unload(), family), before)


def test_layers_and_sublayers():
    model = get_peft_model(build(), config(layers=[1], sublayers=["feed_forward"]))
    assert list(layers_of(model)) == ["bert.encoder.layer.1.output.dropout"]
    assert model.peft_config["default"].layers is model.peft_config["default"].sublayers is None
    with pytest.raises(ValueError, match="layers must be below 2, the model's number of layers, got 2"):
        get_peft_model(build(), config(layers=[2]))
    bart = get_peft_model(build("bart"), config(sublayers=["cross_attention"]))
    assert list(layers_of(bart)) == [f"model.decoder.layers.{i}.encoder_attn.out_proj" for i in range(2)]


def test_deep_models_and_exclude_modules():
    deep = get_peft_model(build("bert", num_hidden_layers=14), config(exclude_modules=r".*\.layer\.[0-9]\.output\..*"))
    attention = [f"bert.encoder.layer.{i}.attention.output.dropout" for i in range(14)]
    assert set(layers_of(deep)) == {*attention, *(f"bert.encoder.layer.{i}.output.dropout" for i in range(10, 14))}


@pytest.mark.parametrize(
    "targets", [["dense", "LayerNorm"], r"bert\.encoder\.layer\.1\.(output|intermediate)\.(dense|dropout)"]
)
def test_explicit_targets_follow_peft(targets):
    model = wrapped(target_modules=targets)
    if isinstance(targets, list):
        expected = [name for name, _ in build().named_modules() if name.rpartition(".")[2] in targets]
        assert len(expected) == 12  # with the pooler and the embedding's norm
    else:
        expected = [f"bert.encoder.layer.1.{name}" for name in ("intermediate.dense", "output.dense", "output.dropout")]
    assert list(layers_of(model)) == expected
    assert {layer.out_features for layer in layers_of(model).values()} == {HIDDEN, 48}
    assert apart(logits(model), logits(build())) > 1e-3
    assert torch.equal(logits(model.unload()), logits(build()))


OVER_FAMILIES = ["bert", "distilbert", "deberta-v2", "gpt2", "llama", "t5", "vit"]


@pytest.mark.parametrize("family", OVER_FAMILIES)
def test_a_second_expression_that_matches_the_first_adapters_modules(family):
    targets = "|".join(f"{re.escape(name)}.*" for name in layers_of(wrapped(family)))
    model = wrapped(family, seed=1, target_modules=targets)
    first, places = outputs(model, family), list(layers_of(model))
    model.add_adapter("two", config(target_modules=targets))
    enlarge(model, "two", 2).eval()
    assert any(re.fullmatch(targets, f"{place}.{own}") for place in places for own in ("base_layer", "bottleneck_down"))
    assert list(layers_of(model)) == places
    assert all(set(layer.bottleneck_apply) == {"default", "two"} for layer in layers_of(model).values())
    assert torch.equal(outputs(model, family), first)
    model.set_adapter("two")
    assert torch.equal(outputs(model, family), outputs(wrapped(family, seed=2, target_modules=targets), family))


def test_a_wrong_target_beside_a_first_adapter_still_changes_nothing():
    model = wrapped()
    before = snapshot(model)
    with pytest.raises(
        ValueError, match=r"target_modules names bert\.embeddings\.dropout, a Dropout whose width cannot be told"
    ):
        model.add_adapter("two", config(target_modules=r".*\.dropout.*"))
    assert list(model.peft_config) == ["default"]
    assert_same(model, before)


@pytest.mark.parametrize("family", TINY)
def test_a_wrapper_tells_the_widths_of_what_it_wraps(family):
    model, seen = wrapped(family), set()
    for layer in layers_of(model).values():

        def compare(_, args, output, layer=layer):
            assert (layer.in_features, layer.out_features) == (args[0].shape[-1], output.shape[-1])
            seen.add(layer)

        layer.base_layer.register_forward_hook(compare)
    outputs(model, family)
    assert seen == set(layers_of(model).values())


@pytest.mark.parametrize(
    ("family", "target", "widths"),
    [
        ("bert", "word_embeddings", (60, HIDDEN)),
        ("bert", "intermediate.dense", (HIDDEN, 48)),
        ("bert", "LayerNorm", (HIDDEN, HIDDEN)),
        ("gpt2", "mlp.c_fc", (HIDDEN, 48)),
        ("llama", "mlp.down_proj", (48, HIDDEN)),
        ("llama", "input_layernorm", (HIDDEN, HIDDEN)),
    ],
)
def test_widths_of_explicit_targets(family, target, widths):
    found = layers_of(get_peft_model(build(family), config(target_modules=[target]))).values()
    assert {(layer.in_features, layer.out_features) for layer in found} == {widths}


def test_the_bases_own_modules_may_have_our_prefix():
    base = nn.Sequential()
    base.bottleneck_in = nn.Linear(4, 4)
    base.last = nn.Linear(4, 4)
    model = get_peft_model(base, config(target_modules=["last"]))
    assert not any(parameter.requires_grad for parameter in model.base_model.model.bottleneck_in.parameters())
    stored = peft.get_peft_model_state_dict(model)
    assert len(stored) == 4 and not any("bottleneck_in" in key for key in stored)


@pytest.mark.parametrize(
    ("base", "overrides", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4)), {}, "no known adapter site.*give target_modules"),
        (
            build,
            {"target_modules": ["self.dropout"]},
            "target_modules names bert.encoder.layer.0.attention.self.dropout",
        ),
        (build, {"target_modules": ["nothing"]}, "not found in the base model"),
        (build, {"target_modules": ["query", "self.dropout"]}, "a Dropout whose width cannot be told"),
    ],
)
def test_a_model_that_cannot_be_wrapped_is_left_as_it_was(base, overrides, message):
    model = base()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, config(**overrides))
    assert_same(model, before)


def test_a_bad_name_or_config_of_a_second_adapter_changes_nothing():
    model = wrapped()
    before = snapshot(model)
    for name, second, error in (
        ("two", config(layers=[7]), ValueError),
        ("one.two", config(), ValueError),
        ("keys", config(), ValueError),
        ("__base__", config(), ValueError),
        ("default", config(), ValueError),
        ("lora", peft.LoraConfig(target_modules=["dense"]), ValueError),
    ):
        with pytest.raises(error):
            model.add_adapter(name, second)
        assert list(model.peft_config) == ["default"]
        assert_same(model, before)


# Numbers


@pytest.mark.parametrize("implementation", ["fused", "reference"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_gradients_equal_those_of_add_adapters(family, implementation):
    settings = {"activation": "silu", "scale": 0.7, "implementation": implementation}
    model = wrapped(family, **settings)
    twin = twin_of(model, build(family), **settings)
    actual, expected = gradients(model), gradients(twin)
    assert len(actual) == len(expected) == 16
    for (name, one), (_, other) in zip(sorted(actual.items()), sorted(expected.items())):
        assert one.abs().sum() > 0, name
        assert torch.equal(one, other), name
    assert apart(logits(model), logits(wrapped(family))) > 1e-4


def test_the_kernels_compute_it(backend):
    model = wrapped(use_bias=False)
    assert all(weights_of(layer).keys() == {"down.weight", "up.weight"} for layer in layers_of(model).values())
    reference = wrapped(use_bias=False, implementation="reference")
    torch.testing.assert_close(logits(model), logits(reference))
    assert apart(logits(model), logits(build())) > 1e-3


def test_near_the_identity_at_the_start():
    model = get_peft_model(build(), config(init_std=0)).eval()
    assert torch.equal(logits(model), logits(build()))
    model = get_peft_model(build(), config()).eval()
    assert 0 < apart(logits(model), logits(build())) < 1e-4


# dtypes


@pytest.fixture
def op_dtypes(monkeypatch):
    """(x, weight) as the op itself is given them, in inference."""
    from adapter_fast import functional

    seen, forward = [], functional.ops.forward

    def recording(x, weights, *rest):
        seen.append((x.dtype, weights.w_down.dtype))
        return forward(x, weights, *rest)

    monkeypatch.setattr(functional.ops, "forward", recording)
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_base_keeps_its_activations_beside_float32_adapters(dtype, op_dtypes):
    model = wrapped(base=build().to(dtype))
    assert {p.dtype for layer in layers_of(model).values() for p in weights_of(layer).values()} == {torch.float32}
    outputs_seen = []
    for layer in layers_of(model).values():
        layer.register_forward_hook(lambda module, args, output: outputs_seen.append(output.dtype))
    assert logits(model).dtype == dtype
    assert op_dtypes == [(dtype, torch.float32)] * 4
    assert outputs_seen == [dtype] * 4
    assert all(gradient.dtype == torch.float32 for gradient in gradients(model).values())


def test_autocast_adapter_dtype_off_gives_the_bases_dtype():
    model = get_peft_model(build().to(torch.bfloat16), config(), autocast_adapter_dtype=False)
    assert {p.dtype for layer in layers_of(model).values() for p in weights_of(layer).values()} == {torch.bfloat16}
    model = get_peft_model(build().double(), config(), autocast_adapter_dtype=False)
    assert {p.dtype for layer in layers_of(model).values() for p in weights_of(layer).values()} == {torch.float64}


def test_native_add_adapter_on_a_16_bit_base_has_float32_weights():
    model = build().to(torch.bfloat16)
    model.add_adapter(config())
    assert {p.dtype for layer in layers_of(model).values() for p in weights_of(layer).values()} == {torch.float32}


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_float32_adapters_come_back_exactly_on_a_16_bit_base(family, low_cpu_mem_usage, tmp_path):
    model = wrapped(base=build(family).to(torch.bfloat16))
    model.save_pretrained(tmp_path)
    base = build(family).to(torch.bfloat16)
    loaded = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    for name, layer in layers_of(loaded).items():
        for key, parameter in weights_of(layer).items():
            assert torch.equal(parameter, weights_of(layers_of(model)[name])[key]), (name, key)
    assert torch.equal(logits(loaded), logits(model))


def test_a_later_adapter_is_made_where_the_base_is_by_then():
    model = get_peft_model(build(), config()).double()
    model.add_adapter("two", config())
    assert {p.dtype for layer in layers_of(model).values() for p in weights_of(layer, "two").values()} == {
        torch.float64
    }
    model.to("meta").add_adapter("three", config())
    assert {p.device.type for layer in layers_of(model).values() for p in weights_of(layer, "three").values()} == {
        "meta"
    }


def on_disk(family: str, folder: Path) -> nn.Module:
    """A base whose weights lie in files and come to the CPU module by module; all its parameters are on meta."""
    import accelerate

    base = accelerate.disk_offload(build(family), str(folder), execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in base.parameters()} == {"meta"}
    return base


@pytest.mark.parametrize("family", [family for family in OVER_FAMILIES if family != "deberta-v2"])  # fails on disk bare
def test_a_base_on_disk_gets_adapters_where_it_computes(family, tmp_path):
    base = build(family)
    with torch.no_grad():
        before, expected = outputs(base, family), outputs(wrapped(family), family)
    model = wrapped(family, base=on_disk(family, tmp_path / "base"))
    model.add_adapter("two", config())
    for name in ("default", "two"):
        weights = [weight for layer in layers_of(model).values() for weight in weights_of(layer, name).values()]
        assert {weight.device.type for weight in weights} == {"cpu"}
    with torch.no_grad():
        assert torch.equal(outputs(model.eval(), family), expected) and apart(expected, before) > 1e-3
        with model.disable_adapter():
            assert torch.equal(outputs(model, family), before)
    model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"])
    for low_cpu_mem_usage in (False, True):
        fresh = on_disk(family, tmp_path / f"fresh{low_cpu_mem_usage}")
        loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter", low_cpu_mem_usage=low_cpu_mem_usage)
        with torch.no_grad():
            assert torch.equal(outputs(loaded.eval(), family), expected)


class Int8Linear(nn.Module):
    """Stands for a bitsandbytes layer: no floating weight, converted on the way."""

    def __init__(self, linear: nn.Linear, packed: bool) -> None:
        super().__init__()
        self.out_features = linear.out_features
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        weight = (linear.weight / scale).round().to(torch.int8)
        if packed:
            self.register_buffer("codes", weight)
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale.detach())
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        weight = self.codes if self.packed else self.weight
        return nn.functional.linear(x, (weight.to(x.dtype) * self.scale.to(x.dtype)))


def quantised(packed: bool) -> nn.Module:
    model = build("llama").to(torch.bfloat16)
    for name, module in list(model.model.layers.named_modules()):
        if isinstance(module, nn.Linear):
            model.model.layers.set_submodule(name, Int8Linear(module, packed))
    return model


@pytest.mark.parametrize("packed", [True, False])
def test_quantised_bases(packed, op_dtypes):
    model = wrapped(base=quantised(packed))
    assert all(isinstance(layer.base_layer, Int8Linear) for layer in layers_of(model).values())
    assert {p.dtype for layer in layers_of(model).values() for p in weights_of(layer).values()} == {torch.float32}
    expected = logits(twin_of(model, quantised(packed)))
    op_dtypes.clear()
    assert torch.equal(logits(model), expected)
    assert op_dtypes == [(torch.bfloat16, torch.float32)] * 4
    assert apart(expected.float(), logits(quantised(packed)).float()) > 1e-2
    model(**inputs(), labels=inputs()["input_ids"]).loss.backward()
    found = [p.grad for layer in layers_of(model).values() for p in weights_of(layer).values()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in found)


def test_prepare_model_for_kbit_training():
    base = quantised(packed=False)
    base.is_loaded_in_8bit = True
    base = peft.prepare_model_for_kbit_training(base)
    model = wrapped(base=base).train()
    loss = model(**inputs(), labels=inputs()["input_ids"]).loss
    loss.backward()
    assert sum(p.grad.abs().sum() > 0 for layer in layers_of(model).values() for p in weights_of(layer).values()) == 16


# Saving and loading


def test_files_hold_the_adapter_alone_and_come_back(tmp_path):
    model = wrapped(task_type="SEQ_CLS")
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    places = list(sites_in(add_adapters(build(), AdapterConfig())))
    parts = [f"bottleneck_{part}.{kind}" for part in ("down", "up") for kind in ("weight", "bias")]
    keys = {f"base_model.model.{place}.{part}" for place in places for part in parts}
    assert tensors.keys() == keys | {"base_model.model.classifier.weight", "base_model.model.classifier.bias"}
    own = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < own + 4096
    for name in ("default", "other"):
        loaded = PeftModel.from_pretrained(build(), tmp_path, adapter_name=name)
        assert type(loaded) is peft.PeftModelForSequenceClassification
        assert torch.equal(logits(loaded), expected)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    trainable = PeftModel.from_pretrained(build(), tmp_path, is_trainable=True)
    assert trainable.get_nb_trainable_parameters()[0] == model.get_nb_trainable_parameters()[0]


def test_loading_on_the_meta_device(tmp_path):
    model = wrapped(task_type="SEQ_CLS")
    model.save_pretrained(tmp_path)
    empty = get_peft_model(build(), config(), low_cpu_mem_usage=True)
    assert {p.device.type for layer in layers_of(empty).values() for p in weights_of(layer).values()} == {"meta"}
    loaded = PeftModel.from_pretrained(build(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(loaded), logits(model))


def test_deep_models_come_back(tmp_path):
    def deep():
        return build("bert", num_hidden_layers=14)

    model = wrapped(base=deep())
    model.save_pretrained(tmp_path)
    assert model.peft_config["default"].target_modules == {"output.dropout"}  # PEFT's shorter form of 28 names
    assert torch.equal(logits(PeftModel.from_pretrained(deep(), tmp_path)), logits(model))


def test_auto_classes_find_the_base(tmp_path):
    build("gpt2", "LMHeadModel").save_pretrained(tmp_path / "base")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = wrapped(base=base, task_type="CAUSAL_LM")
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded), logits(model))
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(logits(native), logits(model))


def test_wrong_files_raise(tmp_path):
    wrapped().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"bottleneck": 2 * M}, "size mismatch"),
        ({"bottleneck": -1}, "bottleneck must be at least 1"),
        ({"placement": "parallel"}, "placement must be 'houlsby'"),
        ({"target_modules": ["nothing"]}, "not found in the base model"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises((ValueError, RuntimeError), match=message):
            PeftModel.from_pretrained(build(), tmp_path)


@pytest.mark.parametrize(
    ("written", "writer"),
    [
        ({"format_version": 1, "config": {"bottleneck": M}}, "save_adapters"),
        ({"version": "adapters.1.3.0", "config": {"reduction_factor": 16}}, "AdapterHub"),
    ],
)
def test_a_directory_that_peft_did_not_write_names_its_loader(written, writer, tmp_path):
    if writer == "save_adapters":
        adapter_fast.save_adapters(add_adapters(build(), AdapterConfig(bottleneck=M)), tmp_path)
    else:
        (tmp_path / "adapter_config.json").write_text(json.dumps(written))
    message = rf"adapter_config\.json is of {writer}, not of PEFT: adapter_fast\.load_adapters loads it"
    for read in (
        BottleneckConfig.from_pretrained,
        lambda path: BottleneckConfig.from_json_file(path / "adapter_config.json"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"bottleneck": M}))
    assert BottleneckConfig.from_pretrained(tmp_path).bottleneck == M


METHODS = {
    "LORA": lambda: peft.LoraConfig(target_modules=["query"]),
    "IA3": lambda: peft.IA3Config(target_modules=["query"], feedforward_modules=[]),
    "BOTTLENECK": config,
}


@pytest.mark.parametrize("method", METHODS)
def test_our_loaders_name_pefts_for_its_directories(method, tmp_path, monkeypatch, capsys):
    from adapter_fast.checkpoint import convert_adapter
    from adapter_fast.cli import BAD_INPUT, main

    saved, model = tmp_path / "saved", build()
    get_peft_model(build(), METHODS[method]()).save_pretrained(saved)
    own = ", after import adapter_fast.integrations.peft" if method == "BOTTLENECK" else ""
    message = (
        f"{saved / 'adapter_config.json'} is a PEFT adapter's, of peft_type {method!r}: "
        f"peft.PeftModel.from_pretrained loads it{own}"
    )
    before = snapshot(model)
    for read in (
        lambda: adapter_fast.load_adapters(model, saved),
        lambda: convert_adapter(saved, tmp_path / "out", "adapterhub"),
        lambda: convert_adapter(saved, tmp_path / "out", "adapter_fast"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read()
    assert_same(model, before)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(saved))
    for command in (["push", str(saved), "me/adapter"], ["pull", "me/adapter", str(tmp_path / "out")]):
        assert main(command) == BAD_INPUT
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_state_dict_keys_are_stable():
    base, model = build(), wrapped()
    wrapped_names = "|".join(layers_of(model)).replace(".", r"\.")
    own = {key for key in model.state_dict() if ".bottleneck_" in key}
    kept = [key.removeprefix("base_model.model.") for key in model.state_dict() if key not in own]
    assert wrapped_names and kept == list(base.state_dict())  # dropouts have no keys
    assert len(own) == 16 and all(".default." in key for key in own)
    fresh = get_peft_model(build(), config()).eval()
    assert fresh.load_state_dict(model.state_dict()).missing_keys == []
    assert torch.equal(logits(fresh), logits(model))


# Several adapters


def test_several_adapters_switch_and_go():
    model = wrapped(seed=1)
    first = logits(model)
    model.add_adapter("two", config(bottleneck=4, activation="relu", memory="lean"))
    enlarge(model, "two", 2).eval()
    assert torch.equal(logits(model), first)
    model.set_adapter("two")
    second = logits(model)
    assert torch.equal(second, logits(wrapped(seed=2, bottleneck=4, activation="relu")))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 16 and all(".two." in name for name in trained)
    memory = {
        name: run.keywords["memory"] for name, run in next(iter(layers_of(model).values())).bottleneck_apply.items()
    }
    assert memory == {"default": "speed", "two": "lean"}
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("default")
    assert torch.equal(logits(model), second)
    assert model.active_adapters == ["two"]
    assert all(
        list(layer.bottleneck_apply) == list(layer.bottleneck_up) == ["two"] for layer in layers_of(model).values()
    )
    model.delete_adapter("two")
    assert torch.equal(logits(model.base_model.model), logits(build()))
    with pytest.raises(ValueError, match="gone"):
        model.set_adapter("gone")


def test_a_second_adapter_in_other_places():
    model = wrapped("distilbert", layers=[0])
    first = logits(model)
    model.add_adapter("two", config(layers=[1], sublayers=["attention"]))
    enlarge(model, "two", 2).eval()
    assert len(layers_of(model)) == 3
    assert torch.equal(logits(model), first)
    model.set_adapter("two")
    assert torch.equal(logits(model), logits(wrapped("distilbert", seed=2, layers=[1], sublayers=["attention"])))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_disabling_is_bit_equal_and_nests(family):
    model, base = wrapped(family, task_type="SEQ_CLS", modules_to_save=["LayerNorm"]), logits(build(family))
    with_adapter = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
        with model.disable_adapter():
            assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), with_adapter)


def test_modules_to_save_train_and_are_kept_apart(tmp_path):
    model = wrapped(task_type="SEQ_CLS", modules_to_save=["LayerNorm"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum("LayerNorm.modules_to_save" in name for name in trained) == 10
    assert sum("classifier.modules_to_save" in name for name in trained) == 2
    assert all(gradient.abs().sum() > 0 for gradient in gradients(model).values())
    assert gradients(model).keys() == trained
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build(), tmp_path)), expected)


def test_several_adapters_at_once_are_refused_with_nothing_changed():
    model = wrapped(modules_to_save=["LayerNorm"])
    model.add_adapter("two", config())
    enlarge(model, "two", 2).set_adapter("two")
    assert torch.equal(logits(model.eval()), logits(wrapped(seed=2)))
    with pytest.raises(ValueError, match=r"one bottleneck adapter can be active at a time, got \['default', 'two'\]"):
        model.base_model.set_adapter(["default", "two"])
    assert model.active_adapters == ["two"]
    assert torch.equal(logits(model), logits(wrapped(seed=2)))  # the LayerNorms have not switched either


def test_unload_restores_the_base_bit_for_bit(tmp_path):
    base = build()
    base.requires_grad_(False)
    before = snapshot(base)
    model = wrapped(base=base, task_type="SEQ_CLS", modules_to_save=["LayerNorm"])
    model.add_adapter("two", config())
    model.train()(**inputs(), labels=LABELS).loss.backward()
    bare = model.eval().unload()
    assert bare is base
    assert_same(bare, before)
    again = wrapped(base=bare)
    assert apart(logits(again), logits(build())) > 1e-3


def test_merging_is_refused_with_nothing_changed():
    model = wrapped(task_type="SEQ_CLS", modules_to_save=["LayerNorm"])
    before, layer = snapshot(model), next(iter(layers_of(model).values()))
    for merge in (model.merge_and_unload, model.merge_adapter, model.unmerge_adapter, layer.merge):
        with pytest.raises(ValueError, match="bottleneck adapters cannot be merged"):
            merge()
        assert_same(model, before)


def test_what_does_not_exist_is_an_error(tmp_path):
    model = wrapped()
    model.save_pretrained(tmp_path)
    with pytest.raises(AttributeError, match="add_weighted_adapter"):
        model.add_weighted_adapter(["default"], [1.0], "sum")
    with pytest.raises(ValueError, match="BOTTLENECK"):
        get_peft_model(build(), config(), mixed=True)
    from peft.utils.hotswap import hotswap_adapter

    with pytest.raises(ValueError, match="Hotswapping only supports LORA"):
        hotswap_adapter(model, tmp_path, "default")
    native = build()
    native.load_adapter(str(tmp_path), adapter_name="default")
    with pytest.raises(ValueError, match="Hotswapping is currently only supported for LoRA"):
        native.load_adapter(str(tmp_path), adapter_name="default", hotswap=True)
    with pytest.raises(ValueError, match="alora_offsets must be None"):
        model(**inputs(), alora_offsets=[1, 1, 1])


# Mixed batches


def mixed_model(family: str = "bert", **overrides) -> tuple[PeftModel, dict[str, PeftModel | nn.Module]]:
    """A model with adapters one and two, and by name what each row is to be computed by."""
    model = wrapped(family, "one", 1, **overrides)
    model.add_adapter("two", config(bottleneck=4, **overrides))
    enlarge(model, "two", 2).eval()
    alone = {
        "one": wrapped(family, "one", 1, **overrides),
        "two": wrapped(family, "two", 2, **{**overrides, "bottleneck": 4}),
        "__base__": build(family),
    }
    return model, alone


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
@pytest.mark.parametrize(
    "names", [["two", "__base__", "one"], ["one", "two", "one"], ["two", "two", "two"], ["__base__"] * 3]
)
def test_rows_of_a_mixed_batch_have_their_own_adapters(names, family):
    model, alone = mixed_model(family)
    with torch.no_grad():
        rows = model(**inputs(), adapter_names=names).logits
    for row, name in enumerate(names):
        torch.testing.assert_close(rows[row], logits(alone[name])[row])
        for other in alone.keys() - {name}:
            assert apart(rows[row], logits(alone[other])[row]) > 1e-4
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert len(hooks) == 1  # the one that refuses adapter_names without a PeftModel
    assert torch.equal(logits(model), logits(alone["one"]))


def test_a_mixed_batch_reaches_the_heads():
    model, alone = mixed_model(task_type="SEQ_CLS")
    names = ["two", "__base__", "one"]
    with torch.no_grad():
        rows = model(**inputs(), adapter_names=names).logits
    for row, name in enumerate(names):
        torch.testing.assert_close(rows[row], logits(alone[name])[row])


def test_mixed_batches_leave_their_input_alone():
    layer = BottleneckLayer(nn.Dropout(0.5), 4).eval()
    layer.update_layer("one", config(), torch.device("cpu"), torch.float32)
    x = torch.randn(2, 3, 4)
    before = x.clone()
    y = layer(x, adapter_names=["one", "__base__"])
    assert torch.equal(x, before) and torch.equal(y[1], x[1]) and not torch.equal(y[0], x[0])


def test_mixed_batches_of_a_place_that_one_adapter_has():
    model = wrapped("bert", "one", 1, layers=[0])
    model.add_adapter("two", config(layers=[1]))
    enlarge(model, "two", 2).eval()
    with torch.no_grad():
        rows = model(**inputs(), adapter_names=["two", "__base__", "one"]).logits
    torch.testing.assert_close(rows[0], logits(wrapped(seed=2, layers=[1]))[0])
    torch.testing.assert_close(rows[1], logits(build())[1])
    torch.testing.assert_close(rows[2], logits(wrapped(seed=1, layers=[0]))[2])


@pytest.mark.parametrize(
    ("names", "training", "error", "message"),
    [
        (["one", "two", "one"], True, ValueError, "adapter_names must be None in training mode"),
        (["one", "two"], False, ValueError, "adapter_names must name an adapter for each of the 3 rows, got 2"),
        (
            ["one", "three", "one"],
            False,
            ValueError,
            r"adapter_names must be of \['one', 'two'\] or '__base__', got three",
        ),
        ("one", False, TypeError, "adapter_names must be a list of one name a row, got 'one'"),
    ],
)
def test_bad_adapter_names(names, training, error, message):
    model, alone = mixed_model()
    with pytest.raises(error, match=message):
        model.train(training)(**inputs(), adapter_names=names)
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == 1
    assert torch.equal(logits(model.eval()), logits(alone["one"]))


def test_adapter_names_without_a_peft_model_are_refused():
    model = build()
    model.add_adapter(config(), adapter_name="one")
    with pytest.raises(ValueError, match="adapter_names needs a PeftModel"):
        model(**inputs(), adapter_names=["one", "one", "one"])
    with pytest.raises(ValueError, match="adapter_names needs a PeftModel"):
        copy.deepcopy(model)(**inputs(), adapter_names=["one", "one", "one"])


GENERATION = {"max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": 0}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_generate_in_a_mixed_batch(family, beams):
    task = {"gpt2": "LMHeadModel"}.get(family)
    kind = {"gpt2": "CAUSAL_LM", "bart": "SEQ_2_SEQ_LM"}[family]

    def one(name, seed):
        return wrapped(name=name, seed=seed, base=build(family, task), task_type=kind)

    model = one("one", 1)
    model.add_adapter("two", config(task_type=kind))
    enlarge(model, "two", 2).eval()
    alone = {"one": one("one", 1), "two": one("two", 2), "__base__": build(family, task)}
    names = ["two", "__base__", "one"]
    rows = model.generate(**inputs(), **GENERATION, num_beams=beams, adapter_names=names)
    for row, name in enumerate(names):
        expected = alone[name].generate(**inputs(), **GENERATION, num_beams=beams)
        assert torch.equal(rows[row], expected[row])
    assert not torch.equal(
        alone["one"].generate(**inputs(), **GENERATION), alone["two"].generate(**inputs(), **GENERATION)
    )


# Generation, Trainer, status


def test_generate_with_and_without_cache_equals_add_adapters():
    model = wrapped(base=build("gpt2", "LMHeadModel"), task_type="CAUSAL_LM")
    assert type(model) is peft.PeftModelForCausalLM
    cached = model.generate(**inputs(), **GENERATION)
    assert torch.equal(model.generate(**inputs(), **GENERATION, use_cache=False), cached)
    assert torch.equal(twin_of(model, build("gpt2", "LMHeadModel")).generate(**inputs(), **GENERATION), cached)
    assert not torch.equal(build("gpt2", "LMHeadModel").generate(**inputs(), **GENERATION), cached)


def test_trainer_trains_and_saves_the_adapter(tmp_path):
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    model = get_peft_model(build(), config(task_type="SEQ_CLS"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = [{**{key: value[i] for key, value in inputs().items()}, "labels": LABELS[i]} for i in range(3)] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        learning_rate=1e-2,
        save_steps=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    for name, parameter in model.named_parameters():
        changes = ".bottleneck_" in name or ".modules_to_save." in name
        assert torch.equal(parameter, before[name]) != changes, name
    checkpoint = tmp_path / "checkpoint-4"
    assert not (checkpoint / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(build(), checkpoint)
    assert torch.equal(logits(loaded), logits(model.eval()))


def test_status_and_counts(capsys):
    model = wrapped()
    model.add_adapter("two", config())
    model.print_trainable_parameters()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert f"|| all params: {total:,} ||" in capsys.readouterr().out
    status = model.get_model_status()
    assert (status.peft_types, status.num_adapter_layers) == ({"default": "BOTTLENECK", "two": "BOTTLENECK"}, 4)
    assert (status.enabled, status.active_adapters, status.merged_adapters) == (True, ["default"], [])
    assert status.requires_grad == {"default": True, "two": False}
    assert [layer.name.removeprefix("model.") for layer in model.get_layer_status()] == list(layers_of(model))
    assert "bottleneck_down" in repr(model)


# transformers' own adapters


def test_native_add_adapter_saves_loads_and_switches(tmp_path):
    model = build()
    before = logits(model)
    model.add_adapter(config(), adapter_name="one")
    enlarge(model, "one").eval()
    expected = logits(model)
    assert torch.equal(expected, logits(wrapped()))
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".safetensors") == ["adapter_model.safetensors"]
    model.disable_adapters()
    assert torch.equal(logits(model), before)
    model.enable_adapters()
    model.add_adapter(config(), adapter_name="two")
    enlarge(model, "two", 2).eval()
    assert torch.equal(logits(model), logits(wrapped(seed=2)))
    model.set_adapter("one")
    assert torch.equal(logits(model), expected)
    with pytest.raises(ValueError, match="one bottleneck adapter can be active at a time"):
        model.set_adapter(["one", "two"])
    model.delete_adapter("two")
    assert torch.equal(logits(model), expected)
    fresh = build()
    fresh.load_adapter(str(tmp_path))
    assert torch.equal(logits(fresh), expected)
    assert torch.equal(logits(PeftModel.from_pretrained(build(), tmp_path)), expected)


# Copies, checkpointing, compile


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


def replicated(model):
    """A copy as torch.nn.parallel.replicate makes them on GPUs: shallow modules, parameters of their own."""
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in copies.items():
        replica._modules = {name: copies.get(child) for name, child in module._modules.items()}
        replica._parameters = {name: p if p is None else p.detach().clone() for name, p in module._parameters.items()}
        replica._buffers = {name: b if b is None else b.clone() for name, b in module._buffers.items()}
    return copies[model]


@pytest.mark.parametrize("copier", [copy.deepcopy, through_pickle, through_torch_save, replicated])
def test_copies_run_their_own_adapters(copier):
    model = wrapped(task_type="SEQ_CLS")
    output = logits(model)
    twin = copier(model)
    assert torch.equal(logits(twin), output)
    with torch.no_grad():
        for layer in layers_of(twin).values():
            for part in (layer.bottleneck_down, layer.bottleneck_up):
                for parameter in part["default"]._parameters.values():
                    parameter.mul_(0.5)
    assert apart(logits(twin), output) > 1e-4
    assert torch.equal(logits(model), output)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_gradient_checkpointing_gives_the_same_gradients(family, use_reentrant):
    plain = gradients(wrapped(family))
    base = build(family)
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": use_reentrant})
    base.enable_input_require_grads()
    model = wrapped(family, base=base)
    calls = []
    for layer in layers_of(model).values():
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    checkpointed = gradients(model)
    assert len(calls) == 8
    assert plain.keys() == checkpointed.keys() and len(plain) == 16
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_compiles_without_a_graph_break(family):
    model = wrapped(family, task_type="SEQ_CLS")
    expected = gradients(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    output = compiled(**inputs(), labels=LABELS)
    torch.testing.assert_close(output.logits, logits(model))
    model.zero_grad()
    output.loss.backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)


def test_wrapping_a_deep_model_takes_under_a_second():
    import time

    model = build("bert", num_hidden_layers=60)
    assert len(list(model.modules())) > 1000
    start = time.process_time()
    get_peft_model(model, config())
    assert time.process_time() - start < 1


# Children that are more than plain linear layers, initialisation and dropout


def children_of(model: nn.Module) -> list[nn.Module]:
    return [
        part["default"] for layer in layers_of(model).values() for part in (layer.bottleneck_down, layer.bottleneck_up)
    ]


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_hooks_on_the_projections_fire_and_act(implementation):
    model, fired = wrapped(implementation=implementation), []
    before = logits(model)
    for child in children_of(model):
        child.register_forward_hook(lambda module, *_: fired.append(module))
    torch.testing.assert_close(logits(model), before)
    assert len(fired) == len(children_of(model)) == 8
    children_of(model)[0].register_forward_hook(lambda module, args, y: 2 * y)
    assert apart(logits(model), before) > 1e-4


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_pruned_projections_train_a_second_step(implementation):
    model = wrapped(implementation=implementation)
    before = logits(model)
    for child in children_of(model):
        prune.l1_unstructured(child, "weight", amount=0.5)
    pruned = logits(model)
    assert apart(pruned, before) > 1e-4
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=10.0)
    for _ in range(2):
        assert len(gradients(model)) == len(trained)
        optimizer.step()
    assert apart(logits(model), pruned) > 1e-5


@pytest.mark.parametrize("offload", ["cpu_offload", "disk_offload"])
def test_accelerate_offloads_the_projections(offload, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model = wrapped()
    before = logits(model)
    where = (str(tmp_path),) if offload == "disk_offload" else ()
    getattr(accelerate, offload)(model, *where, execution_device="cpu")
    assert {value.device.type for child in children_of(model) for value in child.parameters()} == {"meta"}
    torch.testing.assert_close(logits(model), before)


@pytest.mark.parametrize("given", [{"init": "zero_up"}, {"init_std": 0}])
def test_zero_up_is_the_bare_base_and_learns(given):
    bare, model = build(), get_peft_model(build(), config(**given)).eval()
    assert torch.equal(logits(model), logits(bare))
    start = [value.detach().clone() for child in children_of(model) for value in child.parameters()]
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=1.0)
    for _ in range(2):
        gradients(model)
        optimizer.step()
    moved = [value for child in children_of(model) for value in child.parameters()]
    assert not any(torch.equal(value, before) for value, before in zip(moved, start, strict=True))


def test_bert_initialisation():
    weights = [child.weight for child in children_of(get_peft_model(build(), config(init="bert")))]
    assert torch.cat([weight.flatten() for weight in weights]).std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_dropout_is_at_work_in_training_alone_and_kept(implementation, tmp_path):
    bare = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = wrapped(base=build(**bare), dropout=0.4, implementation=implementation)
    plain = wrapped(base=build(**bare), implementation=implementation)
    assert torch.equal(logits(model), logits(plain))
    twin = twin_of(model, build(**bare), dropout=0.4, implementation="reference")
    found = []
    for each in (model.train(), twin.train()):
        torch.manual_seed(1)
        found.append(each(**inputs()).logits)
    torch.testing.assert_close(*found)
    assert apart(found[0], plain(**inputs()).logits) > 1e-4
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(**bare), tmp_path, is_trainable=True)
    assert loaded.peft_config["default"].dropout == 0.4 and loaded.peft_config["default"].init == "houlsby"
    torch.manual_seed(1)
    torch.testing.assert_close(loaded.train()(**inputs()).logits, found[0])


def test_a_directory_from_before_these_fields_loads(tmp_path):
    model = wrapped()
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    values = json.loads(path.read_text())
    del values["init"], values["dropout"]
    path.write_text(json.dumps(values))
    assert torch.equal(logits(PeftModel.from_pretrained(build(), tmp_path).eval()), logits(model))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "zero"}, "init must be one of houlsby, zero_up, bert, got 'zero'"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
    ],
)
def test_bad_init_and_dropout_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        config(**given)


@pytest.mark.parametrize("name", ["default", "other"])
def test_the_card_says_what_to_import(name, tmp_path):
    model = get_peft_model(build(), config(), adapter_name=name)
    for _ in range(2):
        model.save_pretrained(tmp_path)
        card = (tmp_path / "README.md").read_text("utf-8")
        assert card.count("import adapter_fast.integrations.peft") == 1
        assert card.count("library_name: peft") == 1
    model.peft_config[name].save_pretrained(tmp_path / "alone" / "config")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# Mine")
    model.peft_config[name].save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "# Mine"
