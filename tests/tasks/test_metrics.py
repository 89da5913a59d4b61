"""GLUE's metrics on cases made by hand, and where they are undefined."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from adapter_fast.common.errors import UserError
from adapter_fast.tasks.data.encoded import Encoded
from adapter_fast.tasks.data.glue_tasks import GLUE
from adapter_fast.tasks.data.texts import Texts
from adapter_fast.tasks.kinds.text import TextClassification, TextRegression
from adapter_fast.tasks.metrics.labels import score_labels


def scored(name: str, predictions: Any, labels: list) -> dict[str, float]:
    """What a task's kind says of model outputs [rows, outputs] for gold labels."""
    task = GLUE[name]
    rows = Texts("made", ["x"] * len(labels), labels)
    columns = {"labels": [task.labels.index(label) if task.labels else label for label in labels]}
    kind = (TextClassification if task.labels else TextRegression)(task.metrics)
    return kind.score(np.asarray(predictions, dtype=np.float32), Encoded(rows, list(task.labels), columns))


def test_each_tasks_metrics_on_a_case_made_by_hand() -> None:
    logits = [[2, 1], [0, 1], [0, 3], [1, 2], [5, 0]]  # classes 0 1 1 1 0
    labels = ["0", "1", "0", "1", "1"]  # one of two zeros, two of three ones: TP 2, FP 1, FN 1, TN 1
    matthews = (2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5
    assert scored("CoLA", logits, labels) == pytest.approx({"matthews": matthews})
    for name in ("MRPC", "QQP"):
        assert scored(name, logits, labels) == pytest.approx({"f1": 2 / 3, "accuracy": 3 / 5})
    for name in ("SST-2", "WNLI"):
        assert scored(name, logits, labels) == pytest.approx({"accuracy": 3 / 5})
    for name in ("QNLI", "RTE"):
        words = [GLUE[name].labels[int(label)] for label in labels]
        assert scored(name, logits, words) == pytest.approx({"accuracy": 3 / 5})
    three = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    words = ["entailment", "neutral", "contradiction", "neutral"]
    assert scored("MNLI", three, words) == pytest.approx({"accuracy": 3 / 4})


def test_correlations_of_scores_made_by_hand() -> None:
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6·2 / (4·15); deviations -1.5 -.5 .5 1.5 and -1.5 .5 -.5 1.5: 4 / 5
    found = scored("STS-B", [[0.0], [2.0], [1.0], [3.0]], [1.0, 2.0, 3.0, 4.0])
    assert found == pytest.approx({"spearman": 0.8, "pearson": 4 / 5})
    curved = scored("STS-B", [[0.0], [1.0], [8.0], [27.0]], [1.0, 2.0, 3.0, 4.0])
    assert curved["spearman"] == pytest.approx(1.0)
    assert curved["pearson"] == pytest.approx(44 / (5 * 470) ** 0.5)
    ties = scored("STS-B", [[1.0], [1.0], [2.0]], [1.0, 2.0, 3.0])  # ranks 1.5 1.5 3
    assert ties["spearman"] == pytest.approx(1.5 / (2 * 1.5) ** 0.5)


def test_predictions_without_a_ranking_score_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scored("CoLA", [[1, 0]] * 3, ["0", "1", "0"]) == {"matthews": 0.0}
        assert scored("CoLA", [[np.nan, np.nan]] * 3, ["0", "1", "0"]) == {"matthews": 0.0}
        assert scored("MRPC", [[1, 0]] * 2, ["0", "1"]) == {"f1": 0.0, "accuracy": 0.5}
        nothing = {"spearman": 0.0, "pearson": 0.0}
        assert scored("STS-B", [[2.0]] * 3, [0.0, 1.0, 2.0]) == nothing
        assert scored("STS-B", [[2.0], [np.nan], [1.0]], [0.0, 1.0, 2.0]) == nothing


@pytest.mark.parametrize(
    "names, gold, message",
    [
        (["matthews"], [1, 1], "dev: Matthews correlation is undefined, since all of its 2 labels are equal"),
        (["accuracy", "matthews"], [0], "dev: Matthews correlation is undefined"),
        (["pearson"], [2.5, 2.5], "dev: Pearson correlation is undefined"),
        (["spearman"], [2.5, 2.5], "dev: Spearman correlation is undefined"),
        (["f1"], [0, 0], "dev: F1 is undefined, since no label is the positive class"),
    ],
)
def test_a_metric_that_the_gold_labels_leave_undefined_is_refused(names: list, gold: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_labels(names, np.array(gold), np.arange(len(gold)), "dev")
