"""Text classification: one of several labels for a text."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
)

from ..data.encoded import Encoded, model_inputs, numbers_of
from ..data.readers import Examples, read_examples
from ..metrics.labels import score_labels
from .base import Kind
from .settings import Settings


class TextClassification(Kind):
    """Examples are texts, cut at the length."""

    unit = "texts"
    auto_class = AutoModelForSequenceClassification
    mapping = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    def read(self, path: str, settings: Settings) -> Examples:
        """A .csv, .tsv or .jsonl file."""
        return read_examples(path, settings.text_column, settings.label_column)

    def labels(self, rows: Any) -> list[str]:
        """One a text."""
        return rows.labels

    def encode(self, rows: Examples, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
        """Token ids, and the class numbers."""
        texts = rows.texts
        if not processor("")["input_ids"]:  # without special tokens an empty text would be no token at all
            texts = [text or processor.pad_token for text in texts]
        encoding = processor(texts, truncation=True, max_length=self.length(settings))
        columns = {**model_inputs(processor, encoding), "labels": numbers_of(rows.labels, label_names)}
        return Encoded(rows, label_names, columns)

    def collator(self, processor: Any, settings: Settings) -> DataCollatorWithPadding:
        """Pads to the longest text of the batch."""
        return DataCollatorWithPadding(processor)

    def score(self, predictions: np.ndarray, encoded: Encoded) -> dict[str, float]:
        """Accuracy and macro F1."""
        return score_labels(predictions, np.asarray(encoded.columns["labels"]))
