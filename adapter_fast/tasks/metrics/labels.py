"""Metrics of classes and of numbers by name, GLUE's among them, from scikit-learn and scipy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from ...common.errors import UserError

POSITIVE = 1  # the class number that F1 is of
CLASSES, NUMBERS = ("accuracy", "macro_f1", "f1", "matthews"), ("spearman", "pearson")


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
    return {name: float(_METRICS[name](np.asarray(gold), np.asarray(predicted), source)) for name in names}


def _accuracy(gold: np.ndarray, predicted: np.ndarray, source: str) -> float:
    return accuracy_score(gold, predicted)


def _macro_f1(gold: np.ndarray, predicted: np.ndarray, source: str) -> float:
    return f1_score(gold, predicted, average="macro")


def _f1(gold: np.ndarray, predicted: np.ndarray, source: str) -> float:
    if not (gold == POSITIVE).any():
        raise UserError(f"{source}: F1 is undefined, since no label is the positive class")
    return f1_score(gold, predicted, pos_label=POSITIVE, average="binary")


def _matthews(gold: np.ndarray, predicted: np.ndarray, source: str) -> float:
    _check_varies(gold, source, "Matthews correlation")
    return matthews_corrcoef(gold, predicted)


def _pearson(gold: np.ndarray, predicted: np.ndarray, source: str) -> float:
    _check_varies(gold, source, "Pearson correlation")
    return pearsonr(gold, predicted).statistic if _ranks(predicted) else 0.0


def _spearman(gold: np.ndarray, predicted: np.ndarray, source: str) -> float:
    _check_varies(gold, source, "Spearman correlation")
    return spearmanr(gold, predicted).statistic if _ranks(predicted) else 0.0


def _check_varies(gold: np.ndarray, source: str, metric: str) -> None:
    if (gold == gold[0]).all():
        raise UserError(f"{source}: {metric} is undefined, since all of its {len(gold)} labels are equal")


def _ranks(predicted: np.ndarray) -> bool:
    return bool(np.isfinite(predicted).all() and (predicted != predicted[0]).any())


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, str], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
