"""Tiny transformers built from a config, for every model family; no weights are downloaded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapter_fast.placement.container import sites_in

HIDDEN = 32
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "gpt2")
CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "gpt2": "GPT2",
}


def build(family: str = "bert", task: str = "ForSequenceClassification", **overrides) -> nn.Module:
    """A two-layer model in eval mode, 3 labels, always with the same weights."""
    import transformers

    prefix = CLASSES[family]
    if family == "distilbert":
        sizes = {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    elif family == "gpt2":
        sizes = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 40, "pad_token_id": 0}
    else:
        sizes = {
            "hidden_size": HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            **({"embedding_size": 16} if family == "electra" else {}),
        }
    settings = {"vocab_size": 60, "max_position_embeddings": 40, "num_labels": 3, "attn_implementation": "eager"}
    config = getattr(transformers, f"{prefix}Config")(**{**sizes, **settings, **overrides})
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}{task}")(config).eval()
    with torch.no_grad():
        norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
        for name, parameter in model.named_parameters():
            if name in norms or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(rows: int = 3, length: int = 11) -> dict[str, Tensor]:
    """Token ids with one padded row."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[-1, length - 4 :] = 0
    return {"input_ids": torch.randint(5, 60, (rows, length), generator=generator), "attention_mask": mask}


def logits(model: nn.Module) -> Tensor:
    """The first output, without gradients, in the model's present mode."""
    with torch.no_grad():
        return model(**inputs())[0]


def enlarge(model: nn.Module, name: str = "default", seed: int = 7) -> nn.Module:
    """Fan-in scaled random adapter weights: at the paper's init an adapter that does nothing would pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in sites_in(model).values():
            for parameter in site.adapters[name].parameters():
                std = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model


def snapshot(model: nn.Module) -> dict[str, object]:
    """Everything that must be as before after a removal or an error: values, flags, hooks, modules, attributes."""
    return {
        "state": {key: value.clone() for key, value in model.state_dict().items()},
        "requires_grad": {key: value.requires_grad for key, value in model.named_parameters()},
        "hooks": {name: list(module._forward_hooks.values()) for name, module in model.named_modules()},
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
    for part in ("requires_grad", "hooks", "modules", "attributes"):
        assert now[part] == before[part], part
