"""The model and its tokenizer, by name or directory, and which of its parameters a method trains."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from ..config import AdapterConfig
from ..placement import add_adapters
from ..profiler import locate
from ..profiler.errors import first_line
from ..recipe import train_adapters, train_all, train_head_only
from .errors import UserError
from .settings import ADAPTER_METHODS, Settings


def locate_model(name: str) -> str:
    """The directory of a built-in model; any other name as it is; UserError where there is no such model."""
    try:
        return locate.locate_model(name)
    except ValueError as error:
        raise UserError(str(error)) from error


def load_model(name: str, label_names: list[str]) -> tuple[nn.Module, PreTrainedTokenizerBase, list[str]]:
    """A sequence classifier for these labels, its tokenizer, and the parameters it had to initialise anew."""
    where = locate_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            where,
            id2label=dict(enumerate(label_names)),
            label2id={label: i for i, label in enumerate(label_names)},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a broken directory makes transformers, safetensors or json raise
        raise UserError(f"model {name!r} does not load: {first_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers 5 makes up an empty tokenizer where the files are missing
        raise UserError(f"model {name!r} has no tokenizer: expected tokenizer.json or a vocabulary beside its weights")
    if tokenizer.pad_token is None:
        raise UserError(f"model {name!r}: its tokenizer has no padding token")
    return model, tokenizer, sorted({*report["missing_keys"], *_names(report["mismatched_keys"])})


def _names(mismatched: Any) -> list[str]:
    return [entry if isinstance(entry, str) else entry[0] for entry in mismatched]


def check_max_length(model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Raise where the model has fewer positions than max_length asks for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limit = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
    if max_length > limit:
        raise UserError(f"max_length {max_length} is over the model's {limit} positions")


def prepare(model: nn.Module, settings: Settings) -> None:
    """Insert adapters where the method has them, and freeze what it does not train."""
    try:
        if settings.method in ADAPTER_METHODS:
            config = AdapterConfig.houlsby(
                bottleneck=settings.bottleneck, activation=settings.activation, implementation=settings.method
            )
            add_adapters(model, config)
            train_adapters(model, layer_norms=settings.layer_norms)
        elif settings.method == "head":
            train_head_only(model)
        else:
            train_all(model)
    except (TypeError, ValueError) as error:
        raise UserError(first_line(error)) from error
