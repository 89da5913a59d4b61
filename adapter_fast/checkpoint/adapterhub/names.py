"""The files of AdapterHub's `adapters` 1.x: names, keys and what they mean here. Data only.

From its source (Apache-2.0): configuration/adapter_config.py, methods/bottleneck.py, utils.py of version 1.3.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

VERSION = re.compile(r"adapters\.1\.\d+(\..*)?")  # readable
WRITTEN_VERSION = "adapters.1.3.0"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "pytorch_adapter.bin"
SAFE_WEIGHTS_FILE = "adapter.safetensors"
HEAD_CONFIG_FILE = "head_config.json"
HEAD_WEIGHTS_FILE = "pytorch_model_head.bin"
SAFE_HEAD_WEIGHTS_FILE = "model_head.safetensors"
FILES = (
    CONFIG_FILE, WEIGHTS_FILE, SAFE_WEIGHTS_FILE, HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE, SAFE_HEAD_WEIGHTS_FILE,
)  # fmt: skip
OTHER_KINDS = ("adapter_fusion_config.json", "adapter_setup.json", "adapter_interface.json")


@dataclass(frozen=True)
class HubFamily:
    """One model_type: "{}" is the number of a layer."""

    prefix: str  # of the base model's parameters in a model with a head
    layer: str  # here
    attention: str  # there, the module that holds the adapters behind the attention
    feed_forward: str


_BERT = HubFamily("bert", "encoder.layer.{}", "encoder.layer.{}.attention.output", "encoder.layer.{}.output")
_ROBERTA = HubFamily("roberta", _BERT.layer, _BERT.attention, _BERT.feed_forward)
HUB_FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": HubFamily(
        "distilbert",
        "transformer.layer.{}",
        "transformer.layer.{}.attention_adapters",
        "transformer.layer.{}.output_adapters",
    ),
    "gpt2": HubFamily("transformer", "h.{}", "h.{}.attention_adapters", "h.{}.output_adapters"),
    "llama": HubFamily("model", "layers.{}", "layers.{}.attention_adapters", "layers.{}.output_adapters"),
    "vit": HubFamily(
        "vit", "layers.{}", "encoder.layer.{}.attention_adapters", "encoder.layer.{}.output.output_adapters"
    ),
}

# Their keys of a config by our sub-layers, and of an adapter's tensors by ours.
LOCATIONS = {"attention": "mh_adapter", "feed_forward": "output_adapter"}
PARTS = {
    "down.weight": "adapter_down.0.weight",
    "down.bias": "adapter_down.0.bias",
    "up.weight": "adapter_up.weight",
    "up.bias": "adapter_up.bias",
}

# Every key of BnConfig with its default; the first four have none there.
REQUIRED = ("mh_adapter", "output_adapter", "reduction_factor", "non_linearity")
DEFAULTS: dict[str, Any] = {
    "original_ln_before": False,
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "init_weights": "bert",
    "init_weights_seed": None,
    "is_parallel": False,
    "scaling": 1.0,
    "use_gating": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "cross_adapter": False,
    "leave_out": [],
    "dropout": 0.0,
    "phm_layer": False,
    "phm_dim": 4,
    "factorized_phm_W": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "phm_c_init": "normal",
    "phm_init_range": 0.0001,
    "learn_phm": True,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "phm_rank": 1,
    "phm_bias": True,
    "stochastic_depth": 0.0,
}
# What our op computes: any other value changes the output. The keys that are in no table here change nothing then.
FIXED: dict[str, Any] = {
    "architecture": None,
    "phm_layer": False,
    "use_gating": False,
    "ln_before": False,
    "ln_after": False,
    "inv_adapter": None,
    "cross_adapter": False,
    "original_ln_after": True,
}
# Where an adapter sits, by (is_parallel, original_ln_before), with the residuals that make it our placement.
PLACEMENTS: dict[tuple[bool, bool], tuple[str, tuple[Any, ...]]] = {
    (False, False): ("houlsby", (True, False)),
    (False, True): ("pfeiffer", (True,)),
    (True, False): ("parallel", (True, False, "post_add")),
    (True, True): ("parallel", (True, False, "post_add")),
}
ONLY_IN_TRAINING = ("stochastic_depth",)
DROPOUT_ELSEWHERE = (
    "here it drops elements of the bottleneck, act(z), in AdapterHub of the branch behind the up-projection: further "
    "training drops others"
)

# non_linearity, in lower case, and ours; the first of several is the one that is written. Theirs are transformers'
# names; those of one kind differ in rounding only.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
    "linear": "identity",
}
