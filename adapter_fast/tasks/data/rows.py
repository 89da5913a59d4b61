"""What every task's data is made of: columns of equal length that a split can take rows from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from ...common.digest import digest

Own = TypeVar("Own", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """Base of a task's examples: the fields that are lists are columns; `source` is what errors call them.

    `notices` are what the reader assumed, a line each with file and line.
    """

    source: str
    notices: tuple[str, ...] = field(default=(), kw_only=True, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self._columns().values())))

    def pick(self: Own, indices: Sequence[int]) -> Own:
        """The rows at these positions."""
        columns: dict[str, Any] = {name: [column[i] for i in indices] for name, column in self._columns().items()}
        return replace(self, **columns)

    def strata(self) -> list[str] | None:
        """Each row's label, where a split keeps every label's share."""
        return None

    def groups(self) -> Sequence[Hashable]:
        """What a split keeps together: rows of equal value."""
        return range(len(self))

    def in_order(self) -> bool:
        """Whether each row goes on where the last one ends, so that a split cuts once."""
        return False

    def digest(self) -> str:
        """16 hex digits over the rows: where they come from, which notices name too, does not count."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "source"}
        return digest({name: value for name, value in values.items() if value is not None} | {"notices": ()})

    def _columns(self) -> dict[str, list[Any]]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, list)}
