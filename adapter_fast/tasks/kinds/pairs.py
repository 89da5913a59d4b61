"""Classification and regression of texts and pairs of texts; which metrics count is the task's own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import numpy as np
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
)

from ..data.encoded import Encoded, model_inputs, numbers_of
from ..data.text_pairs import TextPairs
from ..metrics.glue import glue_scores
from .base import Kind
from .settings import Settings

TOKEN_TYPES = "token_type_ids"


class PairClassification(Kind):
    """One of several labels for a text or a pair; of a pair too long, the longer text is cut, a token at a time."""

    unit = "texts"
    auto_class = AutoModelForSequenceClassification
    mapping = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    # said, since a base that was tuned for regression or several labels would go on with that loss
    head_config: ClassVar[dict[str, Any]] = {"problem_type": "single_label_classification"}
    token_types = False

    def __init__(self, metrics: Sequence[str]) -> None:
        """Args: metrics: glue_metrics' names, the one to go by first."""
        self.metrics = tuple(metrics)

    def for_model(self, config: Any) -> PairClassification:
        """The kind, with token types for a model that has embeddings of more than one."""
        super().for_model(config)
        made = copy(self)
        made.token_types = (getattr(config, "type_vocab_size", 0) or 0) > 1
        return made

    def load_processor(self, where: str) -> Any:
        """The tokenizer; one that names no model, and so no token types, gives them where the model has them."""
        tokenizer = super().load_processor(where)
        if self.token_types and tokenizer.is_fast and TOKEN_TYPES not in tokenizer.model_input_names:
            tokenizer.model_input_names = [*tokenizer.model_input_names, TOKEN_TYPES]
        return tokenizer

    def labels(self, rows: Any) -> list[str] | None:
        """One a row; None for a part without."""
        return rows.labels

    def encode(self, rows: TextPairs, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
        """Token ids and token types; class numbers where the rows have labels."""
        firsts = rows.firsts
        if rows.seconds is None and not processor("")["input_ids"]:  # else an empty text would be no token at all
            firsts = [text or processor.pad_token for text in firsts]
        encoding = processor(firsts, rows.seconds, truncation="longest_first", max_length=self.length(settings))
        columns = model_inputs(processor, encoding)
        if rows.labels is not None:
            columns["labels"] = self._targets(rows.labels, label_names)
        return Encoded(rows, label_names, columns)

    def _targets(self, labels: Any, label_names: list[str]) -> list[Any]:
        return numbers_of(labels, label_names)

    def collator(self, processor: Any, settings: Settings) -> DataCollatorWithPadding:
        """Pads to the longest row of the batch."""
        return DataCollatorWithPadding(processor)

    def score(self, predictions: np.ndarray, encoded: Encoded) -> dict[str, float]:
        """The task's metrics."""
        gold = np.asarray(encoded.columns["labels"])
        return glue_scores(self.metrics, gold, self.decide(predictions), encoded.rows.source)

    def decide(self, predictions: np.ndarray) -> np.ndarray:
        """Class numbers [rows] of logits [rows, classes]."""
        return predictions.argmax(axis=-1)


class PairRegression(PairClassification):
    """A number for a text or a pair: a head with one output, trained by the mean squared error."""

    head_config: ClassVar[dict[str, Any]] = {"num_labels": 1, "problem_type": "regression"}

    def labels(self, rows: Any) -> None:
        """None: there are no classes."""

    def _targets(self, labels: Any, label_names: list[str]) -> list[Any]:
        return [float(label) for label in labels]

    def decide(self, predictions: np.ndarray) -> np.ndarray:
        """Scores [rows] of outputs [rows, 1]."""
        return np.asarray(predictions, dtype=np.float64).reshape(len(predictions))
