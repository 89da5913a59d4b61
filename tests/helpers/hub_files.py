"""Writes and reads adapters with AdapterHub's library; called by test_adapterhub_files.py through hub_worker.py.

A family's folder holds the base model, io.safetensors with its inputs and every kind's outputs, and a folder a kind.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import adapters
import torch
import transformers
from adapters import AdapterConfig, BnConfig
from adapters.composition import Fuse
from adapters.methods import bottleneck
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import Adapter
from safetensors.torch import load_file, save_file
from torch import nn

D, M, LAYERS = 32, 5, 3
SIZES = {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48}
TEXT = {"vocab_size": 60, "pad_token_id": 0, "num_labels": 3}
CLASSIFIER = "ForSequenceClassification"
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("Bert", CLASSIFIER, {**SIZES, **TEXT}),
    "roberta": ("Roberta", CLASSIFIER, {**SIZES, **TEXT}),
    "xlm-roberta": ("XLMRoberta", CLASSIFIER, {**SIZES, **TEXT}),
    "distilbert": ("DistilBert", CLASSIFIER, {"dim": D, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 48, **TEXT}),
    "gpt2": ("GPT2", CLASSIFIER, {"n_embd": D, "n_layer": LAYERS, "n_head": 2, "n_positions": 40, **TEXT}),
    "llama": ("Llama", "ForCausalLM", {**SIZES, **TEXT, "num_key_value_heads": 1}),
    "vit": ("ViT", "ForImageClassification", {**SIZES, "num_labels": 3, "image_size": 16, "patch_size": 8}),
}
FACTOR = D / (M + 0.5)
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in ("double_seq_bn", "seq_bn", "par_bn")}
# More of the configuration, on BERT alone.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("double_seq_bn", {"output_adapter": False, "scaling": 0.5}),
    "feed_forward": ("double_seq_bn", {"mh_adapter": False, "residual_before_ln": False}),
    "pfeiffer_both": ("seq_bn", {"mh_adapter": True, "non_linearity": "tanh"}),
    "parallel_both": ("par_bn", {"mh_adapter": True, "non_linearity": "gelu", "original_ln_before": True}),
    "leave_out": ("double_seq_bn", {"leave_out": [1, 7], "non_linearity": "gelu_new"}),
    "leave_out_last": ("seq_bn", {"leave_out": [2], "non_linearity": "SiLU"}),
    "one_unit": ("double_seq_bn", {"reduction_factor": 99.0, "non_linearity": "linear"}),
    "wider": ("double_seq_bn", {"reduction_factor": 0.7, "non_linearity": "gelu_fast"}),
}
# What our op cannot compute.
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "phm_layer": ("compacter", {"phm_dim": 2, "reduction_factor": 8}),
    "use_gating": ("seq_bn", {"use_gating": True}),
    "ln_before": ("seq_bn", {"ln_before": True}),
    "ln_after": ("seq_bn", {"ln_after": True}),
    "inv_adapter": ("seq_bn_inv", {}),
    "scaling 'learned'": ("scaled_par_bn", {}),
    "scaling 'channel'": ("par_bn", {"scaling": "channel"}),
    "reduction_factor": ("seq_bn", {"reduction_factor": {"0": 2, "default": 4}}),
    "residual_before_ln 'post_add'": ("seq_bn", {"residual_before_ln": "post_add"}),
    "residual_before_ln False": ("seq_bn", {"residual_before_ln": False}),
    "original_ln_after": ("seq_bn", {"original_ln_after": False}),
    "non_linearity": ("seq_bn", {"non_linearity": "leakyrelu"}),
    "architecture 'lora'": ("lora", {}),
    "architecture 'prefix_tuning'": ("prefix_tuning", {}),
    "architecture 'union'": ("mam", {}),
}


def build(family: str, with_head: bool = True) -> nn.Module:
    """A tiny model, with a head that is not all but zero."""
    name, task, settings = MODELS[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}{task}")(config).eval()
    for key, parameter in model.named_parameters():
        if not key.startswith(f"{model.base_model_prefix}."):
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model if with_head else model.base_model


def add(model: nn.Module, preset: str, overrides: dict[str, Any]) -> nn.Module:
    """An active adapter named task, with weights of fan-in scale."""
    adapters.init(model)
    changes = {"reduction_factor": FACTOR, **overrides} if "bn" in preset or preset == "compacter" else overrides
    model.add_adapter("task", config=AdapterConfig.load(preset, **changes))
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, Adapter):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.set_active_adapters("task")
    return model


def outputs(model: nn.Module, family: str) -> torch.Tensor:
    """Logits, or last hidden states, for this family's inputs."""
    with torch.no_grad():
        return model(**inputs(family))[0]


def inputs(family: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16)}
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": torch.randint(1, 60, (2, 7)) * mask, "attention_mask": mask}


def write(out: str, families: list[str]) -> None:
    """What the tests load: every preset of every family, the first with another head, and variants of BERT."""
    for family in families:
        folder = Path(out, family)
        build(family).save_pretrained(folder)
        found = {"base": outputs(build(family), family)}
        kinds = PRESETS | VARIANTS if family == "bert" else PRESETS
        for kind, (preset, overrides) in kinds.items():
            model = add(build(family), preset, overrides)
            if kind == "double_seq_bn" and family != "llama":
                for key, parameter in model.named_parameters():
                    if not key.startswith(f"{model.base_model_prefix}."):
                        parameter.data += 0.3 * torch.randn_like(parameter)
            found[kind] = outputs(model, family)
            model.save_adapter(str(folder / kind), "task", use_safetensors=kind == "seq_bn")
        save_file({**{f"in.{key}": value for key, value in inputs(family).items()}, **found}, folder / "io.safetensors")
    write_others(Path(out))


def write_others(out: Path) -> None:
    """BERT's without a head's model, and all that is refused."""
    add(build("bert", with_head=False), "double_seq_bn", {}).save_adapter(str(out / "bare"), "task")
    for number, (preset, overrides) in enumerate(REFUSED.values()):
        add(build("bert"), preset, overrides).save_adapter(str(out / f"refused{number}"), "task")
    flexible = adapters.AutoAdapterModel.from_config(build("bert").config)
    flexible.add_adapter("task", config="seq_bn")
    flexible.add_classification_head("task", num_labels=3)
    flexible.save_adapter(str(out / "flexible"), "task")
    fused = build("bert")
    adapters.init(fused)
    for name in "ab":
        fused.add_adapter(name, config="seq_bn")
    fused.add_adapter_fusion(Fuse("a", "b"))
    fused.save_adapter_fusion(str(out / "fusion"), "a,b")
    fused.save_adapter_setup(str(out / "setup"), Fuse("a", "b"))


def read(models: str, exported: str) -> dict[str, dict[str, Any]]:
    """Largest difference, by exported/family/kind, between the model with that adapter and io.safetensors there."""
    found = {}
    for folder in sorted(Path(exported).glob("*/*/")):
        family, kind = folder.parts[-2:]
        if not (folder / "adapter_config.json").is_file():
            continue
        model = type(build(family)).from_pretrained(Path(models, family)).eval()
        adapters.init(model)
        info: dict[str, Any] = {}
        name = model.load_adapter(str(folder), set_active=True, loading_info=info)
        expected = load_file(Path(exported, family, "io.safetensors"))[kind]
        found[f"{family}/{kind}"] = {
            "difference": (outputs(model, family) - expected).abs().max().item(),
            "name": name,
            "missing": info["missing_keys"],
            "unexpected": info.get("unexpected_keys", []),
        }
    return found


def bn_config() -> dict[str, Any]:
    """Every key of BnConfig with its default, those required left out by a value that none has."""
    return {
        key: value
        for key, value in asdict(
            BnConfig(mh_adapter=..., output_adapter=..., reduction_factor=..., non_linearity=...)
        ).items()
        if value is not ...
    }


def bottlenecks(hidden_size: int, factors: list[float]) -> list[int]:
    """m as the library makes it of each reduction factor; nothing is built."""

    class Recorder:
        original_ln_after = True

        def __init__(self, down_sample: int, **_: Any) -> None:
            found.append(max(1, down_sample))

        def train(self, _: bool) -> None: ...

    found: list[int] = []
    layer = BottleneckLayer("mh_adapter")
    layer.model_config, layer.is_layer_hooked, layer.adapters = SimpleNamespace(hidden_size=hidden_size), False, {}
    real, bottleneck.Adapter = bottleneck.Adapter, Recorder
    for factor in factors:
        config = adapters.DoubleSeqBnConfig(reduction_factor=factor)
        layer.adapters_config = SimpleNamespace(match=lambda *_, config=config, **__: config)
        layer.add_adapter("a", 0)
    bottleneck.Adapter = real
    return found
