"""Classification and regression of texts and of pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
)

from ...common.errors import UserError
from ..data.encoded import Encoded, model_inputs, numbers_of
from ..data.glue_files import read_part
from ..data.readers import read_examples
from ..data.texts import Texts
from ..metrics.labels import CLASSES, NUMBERS, score_labels, undefined
from .base import Kind
from .find import glue_layout
from .settings import Settings

TOKEN_TYPES = "token_type_ids"


class TextClassification(Kind):
    """One of several labels for a text or a pair; of a pair too long, the longer text is cut, a token at a time."""

    unit = "texts"
    auto_class = AutoModelForSequenceClassification
    mapping = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    takes_pairs = True
    numbers = False  # whether labels are numbers
    known_metrics: ClassVar[tuple[str, ...]] = CLASSES
    # said, since a base that was tuned for regression or several labels would go on with that loss
    head_config: ClassVar[dict[str, Any]] = {"problem_type": "single_label_classification"}
    token_types = False

    def __init__(self, metrics: Sequence[str] = ("accuracy", "macro_f1")) -> None:
        """Args: metrics: of `known_metrics`, the one to go by first."""
        self.metrics = tuple(metrics)

    def metrics_for(self, label_names: list[str]) -> tuple[str, ...]:
        """All of them, F1 where there are two classes."""
        return tuple(name for name in self.known_metrics if name != "f1" or len(label_names) == 2)

    def for_metric(self, metric: str | None, label_names: list[str]) -> TextClassification:
        """The kind that goes by this metric, and gives all others too."""
        super().for_metric(metric, label_names)
        first = (metric or self.metrics[0], *self.metrics)
        return type(self)(tuple(dict.fromkeys((*first, *self.metrics_for(label_names)))))

    def for_model(self, config: Any) -> TextClassification:
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

    def read(self, path: str, settings: Settings) -> Texts:
        """A .csv, .tsv or .jsonl file, of GLUE's layout where the task's own is."""
        layout = glue_layout(settings)
        if layout is None:
            return read_examples(path, settings.text_columns, settings.label_column, self.numbers)
        try:
            rows = read_part(layout, Path(path), labelled=True)
        except UserError as error:  # the notice is not shown then
            raise UserError(f"{error}; read as {layout.name} of GLUE, unless --text-column names its columns") from None
        return replace(rows, notices=(f"{path} is read {layout.rules(settings.metric)}", *rows.notices))

    def labels(self, rows: Any) -> list[str] | None:
        """One a row; None for a part without."""
        return rows.labels

    def encode(self, rows: Texts, processor: Any, label_names: list[str], settings: Settings) -> Encoded:
        """Token ids and token types; class numbers, or numbers, where the rows have labels."""
        texts = rows.texts
        if not processor("")["input_ids"]:  # else a row whose texts are empty would be no token at all
            others = rows.seconds or [""] * len(texts)
            texts = [text if text or other else processor.pad_token for text, other in zip(texts, others)]
        encoding = processor(texts, rows.seconds, truncation="longest_first", max_length=self.length(settings))
        columns = model_inputs(processor, encoding)
        if rows.labels is not None:
            columns["labels"] = self._targets(rows.labels, label_names)
        return Encoded(rows, label_names, columns)

    def _targets(self, labels: Any, label_names: list[str]) -> list[Any]:
        return numbers_of(labels, label_names)

    def check_scored(self, rows: Any, label_names: list[str]) -> None:
        """UserError where the rows' labels leave the metric to go by undefined."""
        if len(rows):
            gold = np.asarray(self._targets(rows.labels, label_names))
            score_labels(self._defined(gold), gold, gold, rows.source)

    def collator(self, processor: Any, settings: Settings) -> DataCollatorWithPadding:
        """Pads to the longest row of the batch."""
        return DataCollatorWithPadding(processor)

    def score(self, predictions: np.ndarray, encoded: Encoded) -> dict[str, float]:
        """The metric to go by, and those others that the labels leave defined."""
        gold = np.asarray(encoded.columns["labels"])
        return score_labels(self._defined(gold), gold, self.decide(predictions), encoded.rows.source)

    def _defined(self, gold: np.ndarray) -> list[str]:
        return [name for name in self.metrics if name == self.metrics[0] or not undefined(name, gold)]

    def decide(self, predictions: np.ndarray) -> np.ndarray:
        """Class numbers [rows] of logits [rows, classes]."""
        return predictions.argmax(axis=-1)


class TextRegression(TextClassification):
    """A number for a text or a pair: a head with one output, trained by the mean squared error."""

    numbers = True
    known_metrics: ClassVar[tuple[str, ...]] = NUMBERS
    head_config: ClassVar[dict[str, Any]] = {"num_labels": 1, "problem_type": "regression"}

    def __init__(self, metrics: Sequence[str] = NUMBERS) -> None:
        """Args: metrics: of `known_metrics`, the one to go by first."""
        super().__init__(metrics)

    def labels(self, rows: Any) -> None:
        """None: there are no classes."""

    def _targets(self, labels: Any, label_names: list[str]) -> list[Any]:
        return [float(label) for label in labels]

    def decide(self, predictions: np.ndarray) -> np.ndarray:
        """Scores [rows] of outputs [rows, 1]."""
        return np.asarray(predictions, dtype=np.float64).reshape(len(predictions))
