"""A task of an experiment: its parts, its labels, and the metric that settings are chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...tasks.data.rows import Rows
from ...tasks.kinds.base import Kind

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as tables call it: "CoLA", "reuters-r8".
        kind: how it is read, encoded, and scored; not yet in its form for a model.
        label_names: the classes in order; empty for a kind without classes.
        parts: "train", and the parts that are scored; settings are chosen on "validation".
        metric: the key of kind.score's metrics to choose and to compare by.
        unlabelled: parts to predict labels for: a leaderboard's.
    """

    name: str
    kind: Kind
    label_names: list[str]
    parts: Mapping[str, Rows]
    metric: str
    unlabelled: Mapping[str, Rows] = field(default_factory=dict)
