"""Table 1 of the paper: BERT-Large on GLUE's hidden test parts, scored by the leaderboard."""

from __future__ import annotations

from typing import NamedTuple

COLUMNS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE")


class Published(NamedTuple):
    """A row of Table 1: parameters of all nine tasks over one model's, the share that trains a task, points."""

    name: str
    total: float
    trained: float
    points: dict[str, float]
    score: float  # the column "Total", which is the leaderboard's own


def _points(*values: float) -> dict[str, float]:
    return dict(zip(COLUMNS, values, strict=True))


TABLE = {
    "full": Published("full", 9.0, 1.0, _points(60.5, 94.9, 89.3, 87.6, 72.1, 86.7, 85.9, 91.1, 70.1), 80.4),
    "sizes": Published("8-256", 1.3, 0.036, _points(59.5, 94.0, 89.5, 86.9, 71.8, 84.9, 85.1, 90.7, 71.5), 80.0),
    "fixed": Published("64", 1.2, 0.021, _points(56.9, 94.2, 89.6, 87.3, 71.8, 85.3, 84.6, 91.4, 68.8), 79.6),
}
