"""Transformers built from a configuration with random weights: latency and memory do not depend on the values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PREFIX = "random:"
_BERT = {"vocab_size": 30522, "max_position_embeddings": 512}
# name → (transformers' prefix of class names, arguments of its configuration)
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "minilm": (
        "Bert",
        {**_BERT, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "minilm-l3": (
        "Bert",
        {**_BERT, "hidden_size": 384, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "bert-base": ("Bert", _BERT),
    "bert-large": (
        "Bert",
        {**_BERT, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "distilgpt2": ("GPT2", {"n_layer": 6}),
    "gpt2": ("GPT2", {}),
    "gpt2-medium": ("GPT2", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "tiny-bert": (
        "Bert",
        {
            "vocab_size": 128,
            "max_position_embeddings": 64,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        },
    ),
    "tiny-gpt2": (
        "GPT2",
        {
            "vocab_size": 128,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "n_positions": 64,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
        },
    ),
}
HEADS = {"Bert": "ForSequenceClassification", "GPT2": "LMHeadModel"}


def build(
    preset: str, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any
) -> nn.Module:
    """A preset in eval mode with its usual head: BERT classifies sequences into two, GPT-2 predicts tokens.

    Args:
        preset: a key of PRESETS. device, dtype: of the parameters. seed: of the random weights.
        overrides: further arguments of the configuration, attn_implementation among them.

    Raises:
        ValueError: an unknown preset; the message names the known ones.
    """
    import transformers

    if preset not in PRESETS:
        raise ValueError(f"model must be one of {', '.join(PRESETS)}, got {preset!r}")
    prefix, arguments = PRESETS[preset]
    config = getattr(transformers, f"{prefix}Config")(**{**arguments, **overrides})
    torch.manual_seed(seed)
    with torch.device(device):
        model = getattr(transformers, f"{prefix}{HEADS[prefix]}")(config)
    return model.to(dtype).eval()
