"""Tiny transformers built from a config, for every model family; no weights are downloaded."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapter_fast.placement.container import sites_in

HIDDEN = 32
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "gpt2")  # what most tests run through


class Tiny(NamedTuple):
    """How to build a family's two-layer model: transformers' names, and the settings that its sizes need."""

    prefix: str
    task: str
    sizes: dict[str, Any]
    kind: str = "text"


_BERT = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
_BART = {
    "d_model": HIDDEN,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_VISION = {**_BERT, "image_size": 16, "patch_size": 8}
_CLASSIFIER, _CAUSAL, _SEQ2SEQ = "ForSequenceClassification", "ForCausalLM", "ForConditionalGeneration"
TINY = {
    "bert": Tiny("Bert", _CLASSIFIER, _BERT),
    "roberta": Tiny("Roberta", _CLASSIFIER, _BERT),
    "xlm-roberta": Tiny("XLMRoberta", _CLASSIFIER, _BERT),
    "electra": Tiny("Electra", _CLASSIFIER, {**_BERT, "embedding_size": 16}),
    "albert": Tiny("Albert", _CLASSIFIER, {**_BERT, "embedding_size": 16}),
    "distilbert": Tiny("DistilBert", _CLASSIFIER, {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "deberta-v2": Tiny(
        "DebertaV2",
        _CLASSIFIER,
        {
            **_BERT,
            "relative_attention": True,
            "norm_rel_ebd": "layer_norm",
            "conv_kernel_size": 3,
            "pos_att_type": ["c2p", "p2c"],
        },
    ),
    "mpnet": Tiny("MPNet", _CLASSIFIER, _BERT),
    "modernbert": Tiny("ModernBert", _CLASSIFIER, {**_BERT, **_IDS, "cls_token_id": 1, "sep_token_id": 2}),
    "gpt2": Tiny(
        "GPT2",
        _CLASSIFIER,
        {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 40, "pad_token_id": 0},
    ),
    "gpt_neox": Tiny("GPTNeoX", _CAUSAL, {**_BERT, **_IDS}),
    "opt": Tiny(
        "OPT",
        _CAUSAL,
        {
            "hidden_size": HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": HIDDEN,
            "pad_token_id": 0,
        },
    ),
    "llama": Tiny("Llama", _CAUSAL, _LLAMA),
    "mistral": Tiny("Mistral", _CAUSAL, _LLAMA),
    "qwen2": Tiny("Qwen2", _CAUSAL, _LLAMA),
    "qwen3": Tiny("Qwen3", _CAUSAL, _LLAMA),
    "gemma2": Tiny("Gemma2", _CAUSAL, _LLAMA),
    "gemma3_text": Tiny("Gemma3Text", _CAUSAL, _LLAMA),
    "gemma3": Tiny("Gemma3", _SEQ2SEQ, {"text_config": {**_LLAMA, "vocab_size": 60}, "vision_config": _VISION}),
    "phi": Tiny("Phi", _CAUSAL, {**_BERT, **_IDS}),
    "t5": Tiny(
        "T5",
        _SEQ2SEQ,
        {"d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
        kind="seq2seq",
    ),
    "bart": Tiny("Bart", _SEQ2SEQ, {**_BART, **_IDS, "decoder_start_token_id": 2}, kind="seq2seq"),
    "whisper": Tiny(
        "Whisper",
        _SEQ2SEQ,
        {
            **_BART,
            **_IDS,
            "decoder_start_token_id": 1,
            "num_mel_bins": 8,
            "max_source_positions": 20,
            "max_target_positions": 40,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        kind="speech",
    ),
    "vit": Tiny("ViT", "ForImageClassification", _VISION, kind="image"),
    "clip": Tiny(
        "CLIP",
        "Model",
        {
            "text_config": {**_BERT, "vocab_size": 60},
            "vision_config": {**_VISION, "hidden_size": 48},
            "projection_dim": 16,
        },
        kind="both",
    ),
    "clip_text_model": Tiny("CLIPText", "Model", _BERT),
    "clip_vision_model": Tiny("CLIPVision", "Model", _VISION, kind="image"),
    "wav2vec2": Tiny(
        "Wav2Vec2",
        _CLASSIFIER,
        {
            **_BERT,
            "conv_dim": (16, 16),
            "conv_kernel": (3, 3),
            "conv_stride": (2, 2),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "mask_time_prob": 0.0,
        },
        kind="sound",
    ),
    # The families' second row.
    "opt-350m": Tiny("OPT", _CAUSAL, {}),
    "wav2vec2-stable": Tiny("Wav2Vec2", _CLASSIFIER, {}, kind="sound"),
}
TINY["opt-350m"] = TINY["opt"]._replace(sizes={**TINY["opt"].sizes, "do_layer_norm_before": False})
TINY["wav2vec2-stable"] = TINY["wav2vec2"]._replace(
    sizes={**TINY["wav2vec2"].sizes, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
)
GENERATING = [family for family, tiny in TINY.items() if tiny.task in (_CAUSAL, _SEQ2SEQ)] + ["gpt2"]
COMPILED = ("bert", "gpt2", "llama", "vit")  # by torch.compile as whole models
NESTED = ("gemma3", "clip")  # a configuration of configurations


def build(family: str = "bert", task: str | None = None, **overrides) -> nn.Module:
    """A two-layer model in eval mode, 3 labels, always with the same weights; task: the class name's ending."""
    import transformers

    tiny = TINY[family]
    task = tiny.task if task is None else task
    settings = {} if tiny.kind in ("image", "sound", "both") else {"vocab_size": 60, "max_position_embeddings": 40}
    settings |= {"num_labels": 3, "attn_implementation": "eager"}
    if family in NESTED or family == "whisper":
        settings.pop("max_position_embeddings", None)
    if family in NESTED:
        settings.pop("vocab_size", None)
    config = getattr(transformers, f"{tiny.prefix}Config")(**{**tiny.sizes, **settings, **overrides})
    torch.manual_seed(0)
    prefix = tiny.prefix.removesuffix("Text") if family == "gemma3_text" else tiny.prefix
    model = getattr(transformers, f"{prefix}{task}")(config).eval()
    with torch.no_grad():
        norms = {f"{name}.weight" for name, module in model.named_modules() if is_norm(module)}
        for name, parameter in model.named_parameters():
            if name in norms or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def is_norm(module: nn.Module) -> bool:
    """By the type's name, where the library's table goes by the module's."""
    return type(module).__name__.endswith(("LayerNorm", "RMSNorm")) and "weight" in module._parameters


def inputs(rows: int = 3, length: int = 11) -> dict[str, Tensor]:
    """Token ids with one padded row."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[-1, length - 4 :] = 0
    return {"input_ids": torch.randint(5, 60, (rows, length), generator=generator), "attention_mask": mask}


def inputs_of(family: str, rows: int = 3) -> dict[str, Tensor]:
    """What a family's tiny model takes."""
    kind = TINY[family].kind
    generator = torch.Generator().manual_seed(2)
    pixels = {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    if kind == "seq2seq":
        return {**inputs(rows), "decoder_input_ids": inputs(rows, 5)["input_ids"]}
    if kind == "speech":
        features = torch.randn(rows, 8, 40, generator=generator)
        return {"input_features": features, "decoder_input_ids": inputs(rows, 5)["input_ids"]}
    if kind == "sound":
        return {"input_values": torch.randn(rows, 120, generator=generator)}
    if kind == "image":
        return pixels
    return {**inputs(rows), **pixels} if kind == "both" else inputs(rows)


def outputs(model: nn.Module, family: str) -> Tensor:
    """All that a family's tiny model says, as one row of numbers, with gradients, in the model's present mode."""
    result = model(**inputs_of(family))
    if family == "clip":
        return torch.cat([result.text_embeds.flatten(), result.image_embeds.flatten()])
    return result[0].flatten()


def logits(model: nn.Module) -> Tensor:
    """The first output, without gradients, in the model's present mode."""
    with torch.no_grad():
        return model(**inputs())[0]


def enlarge(model: nn.Module, name: str = "default", seed: int = 7) -> nn.Module:
    """Fan-in scaled random adapter weights: at the paper's init an adapter that does nothing would pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in sites_in(model).values():
            for parameter in site.adapters[name].parameters() if name in site.adapters else ():
                std = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model


def snapshot(model: nn.Module) -> dict[str, object]:
    """Everything that must be as before after a removal or an error: values, flags, hooks, modules, attributes."""
    return {
        "state": {key: value.clone() for key, value in model.state_dict().items()},
        "requires_grad": {key: value.requires_grad for key, value in model.named_parameters()},
        "loading": {name: len(module._load_state_dict_pre_hooks) for name, module in model.named_modules()},
        "hooks": {
            name: (list(module._forward_hooks.values()), list(module._forward_pre_hooks.values()))
            for name, module in model.named_modules()
        },
        "modules": [(name, type(module), module.training) for name, module in model.named_modules()],
        "attributes": {name: sorted(module.__dict__) for name, module in model.named_modules()},
    }


def assert_same(model: nn.Module, before: dict[str, object]) -> None:
    """The model is what it was at the snapshot, bit for bit."""
    now = snapshot(model)
    assert now["state"].keys() == before["state"].keys()
    assert list(now["state"]) == list(before["state"])
    for key, value in before["state"].items():
        assert now["state"][key].dtype == value.dtype, key
        assert torch.equal(now["state"][key], value), key
    for part in ("requires_grad", "loading", "hooks", "modules", "attributes"):
        assert now[part] == before[part], part
