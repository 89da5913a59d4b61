"""Accuracy and macro F1 of logits against labels."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, f1_score


def score_labels(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Both metrics, as fractions; macro F1 is over the classes that occur."""
    predicted = logits.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }
