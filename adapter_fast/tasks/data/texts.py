"""Texts and pairs of texts, with labels, with scores, or with neither."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import Rows


@dataclass(frozen=True)
class Texts(Rows):
    """Single texts, or pairs of them; a leaderboard's test part has no labels.

    Attributes:
        labels: class names, or for regression numbers; None for a part without.
        seconds: the texts' partners; None for a task of single texts.
        ids: the rows' names, where they have any.
    """

    texts: list[str]
    labels: list[str] | list[float] | None = None
    seconds: list[str] | None = None
    ids: list[str] | None = None

    def strata(self) -> list[str] | None:
        """The labels, where they are classes."""
        if self.labels is None or any(isinstance(label, float) for label in self.labels):
            return None
        return [str(label) for label in self.labels]
