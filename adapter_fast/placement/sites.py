"""Where adapters sit, which modules are LayerNorms and which are the head: one table row per model family."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class SubLayer:
    """A sub-layer's modules, named relative to its layer."""

    hook: str  # its output is the sub-layer's output after dropout, before residual and LayerNorm
    dense: str  # the linear layer that produces that output: gives width, device and dtype


@dataclass(frozen=True)
class Family:
    """Module names of one model_type in transformers 5; every pattern must match a whole name."""

    layer: str
    attention: SubLayer
    feed_forward: SubLayer
    layer_norms: tuple[str, ...]
    head: tuple[str, ...]

    def patterns(self, kinds: tuple[str, ...]) -> dict[str, str]:
        """The regular expression of the hooked modules of each kind of sub-layer."""
        return {kind: rf"(?P<layer>{self.layer})\.{re.escape(getattr(self, kind).hook)}" for kind in kinds}


@dataclass(frozen=True)
class Site:
    """One place of a model that takes an adapter."""

    name: str
    kind: str
    module: nn.Module
    dense: nn.Linear  # GPT-2's is transformers' Conv1D: a linear layer with the weight transposed, and nf outputs

    @property
    def width(self) -> int:
        """d, the width of the hooked output."""
        return self.dense.nf if hasattr(self.dense, "nf") else self.dense.out_features  # type: ignore[return-value]


# The pooler (bert.pooler.dense) is in no row: adapter-bert freezes it. What the libraries newly initialise for a task
# is head, so RoBERTa's and ELECTRA's classifier.dense and DistilBERT's pre_classifier train.
_HEAD = (r"classifier", r"qa_outputs")

_BERT = Family(
    layer=r"(?:.+\.)?encoder\.layer\.\d+",
    attention=SubLayer(hook="attention.output.dropout", dense="attention.output.dense"),
    feed_forward=SubLayer(hook="output.dropout", dense="output.dense"),
    layer_norms=(
        r"(?:.+\.)?embeddings\.LayerNorm",
        r"(?:.+\.)?encoder\.layer\.\d+\.(?:cross)?attention\.output\.LayerNorm",
        r"(?:.+\.)?encoder\.layer\.\d+\.output\.LayerNorm",
    ),
    head=_HEAD,
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": Family(
        layer=_BERT.layer,
        attention=_BERT.attention,
        feed_forward=_BERT.feed_forward,
        layer_norms=_BERT.layer_norms,
        head=(*_HEAD, r"sequence_summary"),
    ),
    # DistilBERT's attention has no output dropout, so its last linear is the place. Its ffn's dropout runs inside the
    # chunked feed-forward, once a chunk, as in the other families: an adapter works on single tokens, so both agree.
    "distilbert": Family(
        layer=r"(?:.+\.)?transformer\.layer\.\d+",
        attention=SubLayer(hook="attention.out_lin", dense="attention.out_lin"),
        feed_forward=SubLayer(hook="ffn.dropout", dense="ffn.lin2"),
        layer_norms=(
            r"(?:.+\.)?embeddings\.LayerNorm",
            r"(?:.+\.)?transformer\.layer\.\d+\.sa_layer_norm",
            r"(?:.+\.)?transformer\.layer\.\d+\.output_layer_norm",
        ),
        head=(*_HEAD, r"pre_classifier"),
    ),
    # The language model's lm_head is tied to the embedding: pretrained, so no head of a task.
    "gpt2": Family(
        layer=r"(?:.+\.)?h\.\d+",
        attention=SubLayer(hook="attn.resid_dropout", dense="attn.c_proj"),
        feed_forward=SubLayer(hook="mlp.dropout", dense="mlp.c_proj"),
        layer_norms=(r"(?:.+\.)?h\.\d+\.ln_(?:1|2|cross_attn)", r"(?:.+\.)?ln_f"),
        head=(*_HEAD, r"score", r"multiple_choice_head"),
    ),
}


def model_type_of(model: nn.Module) -> str | None:
    """model.config.model_type, or None where a model has none."""
    return getattr(getattr(model, "config", None), "model_type", None)


def family_of(model: nn.Module) -> Family:
    """The table's row for this model; ValueError names its model_type and the known ones."""
    model_type = model_type_of(model)
    if model_type not in FAMILIES:
        looked_for = f"{_BERT.attention.hook}, {_BERT.feed_forward.hook} and their like"
        raise ValueError(
            f"{type(model).__name__} with model_type {model_type!r} has no known adapter site ({looked_for}): "
            f"known model types are {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def find_sites(model: nn.Module, kinds: tuple[str, ...]) -> list[Site]:
    """Every site of these kinds, in the model's order; ValueError names the patterns where none matches."""
    family = family_of(model)
    patterns = family.patterns(kinds)
    sites = []
    for name, module in model.named_modules():
        for kind, pattern in patterns.items():
            match = re.fullmatch(pattern, name)
            if match:
                dense = model.get_submodule(f"{match['layer']}.{getattr(family, kind).dense}")
                sites.append(Site(name, kind, module, dense))  # type: ignore[arg-type]
    if not sites:
        raise ValueError(
            f"{type(model).__name__} with model_type {model_type_of(model)!r} has no adapter site: "
            f"no module matches {' or '.join(patterns.values())}"
        )
    return sites


def _parameters_under(model: nn.Module, patterns: tuple[str, ...]) -> Iterator[str]:
    for name, module in model.named_modules():
        if any(re.fullmatch(pattern, name) for pattern in patterns):
            yield from (f"{name}.{parameter}" for parameter, _ in module.named_parameters())


def layer_norm_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters of every LayerNorm of the encoder, the embeddings' included."""
    return list(_parameters_under(model, family_of(model).layer_norms))


def head_parameters(model: nn.Module) -> list[str]:
    """Names of the task head's parameters; empty for a model without one."""
    return list(_parameters_under(model, family_of(model).head))
