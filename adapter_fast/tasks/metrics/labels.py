"""Metrics of classes and of numbers by name, GLUE's among them, from scikit-learn and scipy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from ...common.errors import UserError

POSITIVE = 1  # the class number that F1 is of
CLASSES, NUMBERS = ("accuracy", "macro_f1", "f1", "matthews"), ("spearman", "pearson")
CORRELATIONS = ("matthews", *NUMBERS)


def score_labels(names: Sequence[str], gold: np.ndarray, predicted: np.ndarray, source: str) -> dict[str, float]:
    """The named metrics, as fractions, in this order.

    Predictions that are all the same, or not finite (of a run that diverged), hold no ranking: Matthews, Pearson and
    Spearman are 0.0 for them. F1 is 0.0 where no row is predicted to be of the positive class.

    Args:
        names: of CLASSES for class numbers, of NUMBERS for numbers. F1 is of class number 1, macro F1 over the
            classes that occur.
        gold, predicted: [rows], class numbers or scores.
        source: what errors call the rows.

    Raises:
        UserError: the gold values leave a metric undefined: all of them equal for Matthews, Pearson and Spearman, none
            of them positive for F1.
    """
    for name in names:
        if why := undefined(name, gold):
            raise UserError(f"{source}: {why}")
    return {name: float(_METRICS[name](np.asarray(gold), np.asarray(predicted))) for name in names}


def undefined(name: str, gold: np.ndarray) -> str:
    """Why the gold values leave the metric undefined; empty where they do not."""
    if name == "f1" and not (gold == POSITIVE).any():
        return "F1 is undefined, since no label is the positive class"
    if name in CORRELATIONS and (gold == gold[0]).all():
        return f"{name.capitalize()} correlation is undefined, since all of its {len(gold)} labels are equal"
    return ""


def _macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    return f1_score(gold, predicted, average="macro")


def _f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    return f1_score(gold, predicted, pos_label=POSITIVE, average="binary")


def _pearson(gold: np.ndarray, predicted: np.ndarray) -> float:
    return pearsonr(gold, predicted).statistic if _ranks(predicted) else 0.0


def _spearman(gold: np.ndarray, predicted: np.ndarray) -> float:
    return spearmanr(gold, predicted).statistic if _ranks(predicted) else 0.0


def _ranks(predicted: np.ndarray) -> bool:
    return bool(np.isfinite(predicted).all() and (predicted != predicted[0]).any())


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "matthews": matthews_corrcoef,
    "pearson": _pearson,
    "spearman": _spearman,
}
