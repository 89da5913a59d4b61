"""What a kind of task says about itself; the tuning run does the rest."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoTokenizer

from ...common.errors import UserError
from ..data.encoded import Encoded
from ..data.rows import Rows
from .settings import Settings


class Kind:
    """Base of the kinds. A `processor` is the tokenizer, or what images go through."""

    unit: ClassVar[str]  # what the examples are, for screens
    auto_class: ClassVar[Any]
    mapping: ClassVar[Any]  # the auto class's models by configuration
    known_metrics: ClassVar[tuple[str, ...]]  # those that `score` gives, the one to go by first
    default_length: ClassVar[int] = 128  # tokens, where --max-length is not given
    needs_fast: ClassVar[bool] = False  # whether the tokenizer must tell where its tokens were in the text
    trains_head: ClassVar[bool] = True  # whether the model's head is the task's own
    reads_text: ClassVar[bool] = True
    takes_pairs: ClassVar[bool] = False  # whether --text-column may be given twice
    skips_bad: ClassVar[bool] = False  # whether bad examples can be left out and counted
    head_config: ClassVar[dict[str, Any]] = {}  # of the model's configuration, where labels do not say it all

    def read(self, path: str, settings: Settings) -> Rows:
        """The examples of a file or folder."""
        raise NotImplementedError

    def labels(self, rows: Rows) -> list[str] | None:
        """Every label, as often as it occurs; None for a kind without classes."""
        return None

    def metrics_for(self, label_names: list[str]) -> tuple[str, ...]:
        """Those of `known_metrics` that there are for these classes."""
        return self.known_metrics

    def for_metric(self, metric: str | None, label_names: list[str]) -> Kind:
        """The kind that goes by this metric; UserError where it is none of those that there are."""
        known = self.metrics_for(label_names)
        if metric is not None and metric not in known:
            raise UserError(f"metric must be one of {', '.join(known)} for this task, got {metric!r}")
        return self

    def check_scored(self, rows: Any, label_names: list[str]) -> None:
        """UserError where the rows' labels leave a metric undefined."""

    def for_model(self, config: Any) -> Kind:
        """The kind itself, or its form for a model of this configuration; UserError where there is none."""
        if type(config) not in self.mapping:
            raise UserError(
                f"has model_type {config.model_type!r}, for which transformers has no {self.auto_class.__name__}"
            )
        return self

    def load_processor(self, where: str) -> Any:
        """The tokenizer, which pads at the end, with eos where it has no padding token; UserError on an unfit one."""
        tokenizer = AutoTokenizer.from_pretrained(where)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            # transformers 5 makes up an empty tokenizer where the files are missing
            raise UserError("has no tokenizer: expected tokenizer.json or a vocabulary beside its weights")
        if self.needs_fast and not tokenizer.is_fast:
            raise UserError("has no fast tokenizer: expected one, which tells where its tokens are in the text")
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise UserError("has a tokenizer without a padding token, and without an end token to pad with")
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        return tokenizer

    def encode(self, rows: Any, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
        """The model's inputs."""
        raise NotImplementedError

    def collator(self, processor: Any, settings: Settings) -> Any:
        """What makes a batch of encoded rows."""
        raise NotImplementedError

    def reduce(self, outputs: Any, labels: Any) -> torch.Tensor:
        """What is kept of a batch: the logits, without what some models give beside them."""
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def score(self, predictions: np.ndarray, encoded: Any) -> dict[str, float]:
        """The metrics of all rows' kept outputs; the first is the one to go by."""
        raise NotImplementedError

    def length(self, settings: Settings) -> int:
        """How many tokens an example may have."""
        return self.default_length if settings.max_length is None else settings.max_length
