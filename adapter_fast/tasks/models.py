"""The model and its processor, by name or directory, and which of its parameters a method trains."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from transformers import AutoConfig

from ..common import locate
from ..common.errors import UserError, first_line
from ..config import AdapterConfig
from ..placement import add_adapters
from ..recipe import train_adapters, train_all, train_head_only
from .kinds.base import Kind
from .kinds.settings import ADAPTER_METHODS, Settings


class Loaded(NamedTuple):
    """A model for a task, what its inputs go through, and the kind in its form for this model."""

    model: nn.Module
    processor: Any
    kind: Kind
    new_parameters: list[str]  # those that the model's files do not have


def find_model(name: str) -> str:
    """The directory of a built-in model; any other name as it is; UserError where there is no such model."""
    try:
        return locate.locate_model(name)
    except ValueError as error:
        raise UserError(str(error)) from error


def load_model(name: str, kind: Kind, label_names: list[str]) -> Loaded:
    """A model of this kind for these labels (none for a kind without classes)."""
    where = find_model(name)
    labels = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {label: i for i, label in enumerate(label_names)},
    }
    named = bool(label_names) and "num_labels" not in kind.head_config
    head = {**(labels if named else {}), **kind.head_config}
    try:
        kind = kind.for_model(AutoConfig.from_pretrained(where))
        processor = kind.load_processor(where)
        model, report = kind.auto_class.from_pretrained(
            where, output_loading_info=True, ignore_mismatched_sizes=bool(head), **head
        )
    except UserError as error:
        raise UserError(f"model {name!r} {error}") from error
    except Exception as error:  # whatever a broken directory makes transformers, safetensors or json raise
        raise UserError(f"model {name!r} does not load: {first_line(error)}") from error
    if kind.reads_text:
        _align_padding(model.config, processor)
    return Loaded(model, processor, kind, sorted({*report["missing_keys"], *_names(report["mismatched_keys"])}))


def _names(mismatched: Any) -> list[str]:
    return [entry if isinstance(entry, str) else entry[0] for entry in mismatched]


def _align_padding(config: Any, tokenizer: Any) -> None:
    """Decoders find a text's last token by the padding that the configuration names."""
    for own in {id(part): part for part in (config, config.get_text_config())}.values():
        if getattr(own, "pad_token_id", None) is None:
            own.pad_token_id = tokenizer.pad_token_id


def check_max_length(loaded: Loaded, settings: Settings) -> None:
    """Raise where the model has fewer positions than the length asks for."""
    if not loaded.kind.reads_text:
        return
    length, limit = loaded.kind.length(settings), loaded.processor.model_max_length
    positions = _positions(loaded.model)
    limit = limit if positions is None else min(limit, positions)
    if length > limit:
        raise UserError(f"max_length {length} is over the model's {limit} positions")


def _positions(model: nn.Module) -> int | None:
    """How many tokens the model can number; None where there is no limit."""
    for name, module in model.named_modules():
        # RoBERTa and its kin number tokens from behind the padding's own position
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator, union-attr]


def prepare(loaded: Loaded, settings: Settings) -> None:
    """Insert adapters where the method has them, and freeze what it does not train."""
    model, head = loaded.model, loaded.kind.trains_head
    if not head and settings.method == "head":
        raise UserError("method head trains a task's new head, and a language model has none: expected another method")
    if not head and settings.method != "full" and loaded.new_parameters:
        raise UserError(
            f"model {settings.model!r} has no weights for {loaded.new_parameters[0]}: "
            "expected a language model, whose head stays as it is, or --method full"
        )
    if settings.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(f"gradient_checkpointing is not what {type(model).__name__} supports: leave it out")
    try:
        if settings.method in ADAPTER_METHODS:
            add_adapters(model, adapter_config(settings))
            train_adapters(model, layer_norms=settings.layer_norms, head=head)
        elif settings.method == "head":
            train_head_only(model)
        else:
            train_all(model)
    except (TypeError, ValueError) as error:
        raise UserError(first_line(error)) from error


def adapter_config(settings: Settings) -> AdapterConfig:
    """The placement's preset with the settings' shape."""
    return getattr(AdapterConfig, settings.placement)(
        bottleneck=settings.bottleneck,
        activation=settings.activation,
        implementation=settings.method,
        layers=settings.layers,
        target_modules=settings.target_modules,
    )
