"""Image classification: one of several labels for an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoImageProcessor,
    AutoModelForImageClassification,
    DefaultDataCollator,
)

from ..data.encoded import Encoded, numbers_of
from ..data.pictures import Pictures, open_picture, read_pictures
from ..metrics.labels import score_labels
from .base import Kind
from .settings import Settings


class EncodedPictures(Encoded):
    """Images are read and processed when they are asked for: a data set of them may not fit in memory."""

    rows: Pictures

    def __init__(self, rows: Pictures, label_names: list[str], processor: Any) -> None:
        super().__init__(rows, label_names, {"labels": numbers_of(rows.labels, label_names)})
        self.processor = processor

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = open_picture(self.rows.paths[index])
        pixels: torch.Tensor = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, **super().__getitem__(index)}


class ImageClassification(Kind):
    """Examples are images, sized and normalised as the model's processor says; none is changed for training."""

    unit = "images"
    auto_class = AutoModelForImageClassification
    mapping = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    known_metrics = ("accuracy", "macro_f1")
    reads_text = False

    def read(self, path: str, settings: Settings) -> Pictures:
        """A folder with a subfolder for each class."""
        return read_pictures(path)

    def labels(self, rows: Any) -> list[str]:
        """One an image."""
        return rows.labels

    def load_processor(self, where: str) -> Any:
        """The image processor."""
        return AutoImageProcessor.from_pretrained(where)

    def encode(self, rows: Pictures, processor: Any, label_names: list[str], settings: Settings) -> EncodedPictures:
        """Pixels, and the class numbers."""
        return EncodedPictures(rows, label_names, processor)

    def collator(self, processor: Any, settings: Settings) -> DefaultDataCollator:
        """Stacks the batch."""
        return DefaultDataCollator()

    def score(self, predictions: np.ndarray, encoded: Encoded) -> dict[str, float]:
        """Accuracy and macro F1."""
        gold = np.asarray(encoded.columns["labels"])
        return score_labels(self.known_metrics, gold, predictions.argmax(axis=-1), encoded.rows.source)
