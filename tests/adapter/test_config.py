"""AdapterConfig: defaults, presets, JSON, and an error that names the field for every bad value."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

from adapter_fast.checks import ACTIVATIONS
from adapter_fast.config import PLACEMENTS, AdapterConfig


def test_defaults_are_pinned():
    assert AdapterConfig().to_dict() == {
        "bottleneck": 64,
        "activation": "gelu",
        "placement": "houlsby",
        "scale": 1.0,
        "bias": True,
        "init_std": 1e-2,
        "implementation": "fused",
        "dtype": "auto",
        "memory": "speed",
        "sublayers": None,
        "layers": None,
        "target_modules": None,
        "init": "houlsby",
        "dropout": 0.0,
    }


def test_houlsby_preset_is_the_papers_code():
    config = AdapterConfig.houlsby()
    assert (config.bottleneck, config.activation, config.init_std) == (64, "gelu_tanh", 1e-2)
    assert AdapterConfig.houlsby(bottleneck=8, activation="relu") == AdapterConfig(bottleneck=8, activation="relu")


def test_houlsby_preset_names_an_unknown_override():
    with pytest.raises(ValueError, match="unknown adapter config keys bottelneck: known are bottleneck"):
        AdapterConfig.houlsby(bottelneck=8)


def test_config_is_immutable():
    with pytest.raises(FrozenInstanceError):
        AdapterConfig().bottleneck = 3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_json_round_trip(activation):
    config = AdapterConfig(
        17, activation, scale=2, bias=False, init_std=1e-3, implementation="reference", dtype="float16"
    )
    assert AdapterConfig.from_json(config.to_json()) == config
    assert AdapterConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert isinstance(config.scale, float)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("bottleneck", 0, ValueError, "bottleneck must be at least 1, got 0"),
        ("bottleneck", -4, ValueError, "bottleneck must be at least 1, got -4"),
        ("bottleneck", True, TypeError, "bottleneck must be an integer, got True"),
        ("bottleneck", 8.0, TypeError, "bottleneck must be an integer, got 8.0"),
        ("bottleneck", "8", TypeError, "bottleneck must be an integer, got '8'"),
        ("activation", "swish", ValueError, "activation must be one of gelu, .*, got 'swish'"),
        ("activation", ["gelu"], TypeError, r"activation must be a string, got \['gelu'\]"),
        ("placement", "lora", ValueError, f"placement must be one of {', '.join(PLACEMENTS)}, got 'lora'"),
        ("placement", None, ValueError, f"placement must be one of {', '.join(PLACEMENTS)}, got None"),
        ("sublayers", "attention", TypeError, "sublayers must be a tuple of attention, .*, got 'attention'"),
        ("sublayers", (), ValueError, r"sublayers must name at least one of attention, .*, got \(\)"),
        ("sublayers", ("ffn",), ValueError, "sublayers must be one of attention, .*, got 'ffn'"),
        ("layers", 3, TypeError, "layers must be a tuple of whole numbers, got 3"),
        ("layers", (0, True), TypeError, r"layers must be a tuple of whole numbers, got \(0, True\)"),
        ("layers", (), ValueError, r"layers must be one or more different numbers from 0, got \(\)"),
        ("layers", (-1,), ValueError, r"layers must be one or more different numbers from 0, got \(-1,\)"),
        ("layers", (1, 1), ValueError, r"layers must be one or more different numbers from 0, got \(1, 1\)"),
        ("target_modules", 3, TypeError, "target_modules must be a string, a regular expression, got 3"),
        ("bottleneck", 2**16 + 1, ValueError, "bottleneck must be at most 65,536, got 65,537"),
        ("target_modules", "(" * 9999 + ")" * 9999, ValueError, r"got '\(\(\(.* … .*\)\)\)': maximum recursion"),
        ("target_modules", "a{9" + "9" * 99 + "}", ValueError, "must be a regular expression, got .*: the repetition"),
        ("target_modules", "(", ValueError, r"target_modules must be a regular expression, got '\('"),
        ("scale", float("nan"), ValueError, "scale must be finite, got nan"),
        ("scale", float("inf"), ValueError, "scale must be finite, got inf"),
        ("scale", "1", TypeError, "scale must be a real number, got '1'"),
        ("scale", True, TypeError, "scale must be a real number, got True"),
        ("bias", 1, TypeError, "bias must be True or False, got 1"),
        ("init_std", -1e-2, ValueError, "init_std must be at least 0, got -0.01"),
        ("init_std", float("nan"), ValueError, "init_std must be finite, got nan"),
        ("implementation", "triton", ValueError, "implementation must be one of fused, reference, got 'triton'"),
        ("dtype", "int8", ValueError, "dtype must be one of auto, .*, got 'int8'"),
    ],
)
def test_bad_values_are_named(field, value, error, message):
    with pytest.raises(error, match=message) as caught:
        AdapterConfig(**{field: value})
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_named():
    with pytest.raises(ValueError, match="unknown adapter config keys droput, reduction: known are bottleneck"):
        AdapterConfig.from_dict({"bottleneck": 8, "reduction": 16, "droput": 0.1})


@pytest.mark.parametrize(
    ("text", "message"), [("{", "must be JSON"), ("[1]", "JSON object, got list"), ("3", "JSON object, got int")]
)
def test_text_that_is_no_config(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        AdapterConfig.from_json(text)
    assert "\n" not in str(caught.value)


def test_from_dict_wants_a_mapping():
    with pytest.raises(TypeError, match="mapping of fields, got list"):
        AdapterConfig.from_dict([("bottleneck", 8)])


def test_placement_recipe_and_checkpoint_do_not_import_transformers():
    code = (
        "import sys, adapter_fast.config, adapter_fast.placement, adapter_fast.recipe, adapter_fast.checkpoint;"
        "print('transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
