"""Token classification: a tag for each word of a sentence; entities where the tags mark them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
)

from ..data.encoded import IGNORED, Encoded, model_inputs, numbers_of
from ..data.sentences import Sentences, read_sentences
from ..metrics.entities import OUTSIDE, has_entities, score_entities
from .base import Kind
from .settings import Settings

CUT = -1
NO_TAG = ""


class EncodedSentences(Encoded):
    """`places` has each word's first token, or CUT for a word beyond the length or without a token."""

    rows: Sentences

    def __init__(
        self, rows: Sentences, label_names: list[str], columns: dict[str, list[Any]], places: list[list[int]]
    ) -> None:
        super().__init__(rows, label_names, columns)
        self.places = places


class TokenClassification(Kind):
    """Examples are sentences, cut at the length; a word's first token carries its tag, as in BERT (section 5.3)."""

    unit = "sentences"
    auto_class = AutoModelForTokenClassification
    mapping = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    known_metrics = ("accuracy", "macro_f1")
    needs_fast = True

    def read(self, path: str, settings: Settings) -> Sentences:
        """A .jsonl file or a CoNLL-style one, whose columns --text-column and --label-column may say by number."""
        columns = (settings.text_columns[0], settings.label_column)
        return read_sentences(path, *(int(column) if column.isdecimal() else None for column in columns))

    def labels(self, rows: Any) -> list[str]:
        """One a word."""
        return [tag for tags in rows.tags for tag in tags]

    def metrics_for(self, label_names: list[str]) -> tuple[str, ...]:
        """Those of entities where tags mark them."""
        return ("f1", "precision", "recall", "accuracy") if has_entities(label_names) else self.known_metrics

    def encode(self, rows: Sentences, processor: Any, label_names: list[str], settings: Settings) -> EncodedSentences:
        """Token ids of the words joined by spaces, as the tokenizer met them in pretraining, and their tags."""
        encoding = processor(
            [" ".join(words) for words in rows.tokens],
            truncation=True,
            max_length=self.length(settings),
            return_offsets_mapping=True,
        )
        columns = {**model_inputs(processor, encoding), "labels": []}
        places = [first_tokens(words, encoding["offset_mapping"][i]) for i, words in enumerate(rows.tokens)]
        for ids, where, tags in zip(encoding["input_ids"], places, rows.tags):
            labels = [IGNORED] * len(ids)
            for place, number in zip(where, numbers_of(tags, label_names)):
                if place != CUT:
                    labels[place] = number
            columns["labels"].append(labels)
        return EncodedSentences(rows, label_names, columns, places)

    def collator(self, processor: Any, settings: Settings) -> DataCollatorForTokenClassification:
        """Pads inputs and tags to the longest sentence of the batch."""
        return DataCollatorForTokenClassification(processor)

    def score(self, predictions: np.ndarray, encoded: EncodedSentences) -> dict[str, float]:
        """Entities' F1, precision, recall and the words' accuracy where tags mark entities, else accuracy and macro F1.

        A word that was cut off counts: as outside for entities, and as wrong for the accuracy.
        """
        gold = encoded.rows.tags
        numbers = predictions.argmax(-1)
        predicted = [
            [NO_TAG if place == CUT else encoded.label_names[row[place]] for place in places]
            for row, places in zip(numbers, encoded.places)
        ]
        flat_gold, flat = [tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags]
        accuracy = float(accuracy_score(flat_gold, flat))
        if not has_entities(encoded.label_names):
            occurring = sorted({*flat_gold, *flat} - {NO_TAG})
            macro = f1_score(flat_gold, flat, labels=occurring, average="macro", zero_division=0)
            return {"accuracy": accuracy, "macro_f1": float(macro)}
        entities = score_entities(gold, [[tag or OUTSIDE for tag in tags] for tags in predicted])
        return {"f1": entities["f1"], **entities, "accuracy": accuracy}


def first_tokens(words: list[str], offsets: list[tuple[int, int]]) -> list[int]:
    """Each word's first token, CUT where it has none, in the words joined by spaces.

    A token belongs to the word of its last character, since some tokenizers count the space before a word to it.
    """
    places = [CUT] * len(words)
    word, end = 0, len(words[0])
    for place, (first, last) in enumerate(offsets):
        while last > end and word + 1 < len(words):
            word += 1
            end += 1 + len(words[word])
        if last > max(first, end - len(words[word])) and places[word] == CUT:
            places[word] = place
    return places
