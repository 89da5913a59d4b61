"""Cells, what tables compare: runs that differ in learning rate, epochs and seed; the best on validation counts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from .spec import Spec
from .task import TEST, VALIDATION

Row = dict[str, Any]
Choice = tuple[float, int]  # learning rate, epochs
_VARIED = ("lr", "epochs", "seed")


@dataclass(frozen=True)
class Cell:
    """A spec without its last three fields, and the values that are tried for two of them.

    Attributes:
        seeds: runs of the best choice. sweep_seeds: how many of them go through the whole sweep.
    """

    spec: Spec
    rates: tuple[float, ...]
    epochs: tuple[int, ...]
    seeds: int
    sweep_seeds: int

    def choices(self) -> list[Choice]:
        """Every learning rate with every number of epochs."""
        return list(product(self.rates, self.epochs))


def plan_cells(cells: Iterable[Cell], rows: Mapping[str, Row]) -> list[Spec]:
    """The runs that are needed as far as the finished ones, by key, tell: the sweep for its seeds, its best for all."""
    wanted: dict[str, Spec] = {}
    for cell in cells:
        tried = {
            choice: [cell.spec.at(*choice, seed) for seed in range(min(cell.seeds, cell.sweep_seeds))]
            for choice in cell.choices()
        }
        first = [spec for specs in tried.values() for spec in specs]
        wanted |= {spec.key: spec for spec in first}
        if cell.sweep_seeds < cell.seeds and all(spec.key in rows for spec in first):
            best = max(tried, key=lambda choice: _mean_choice([rows[spec.key] for spec in tried[choice]]))
            wanted |= {spec.key: spec for seed in range(cell.seeds) for spec in [cell.spec.at(*best, seed)]}
    return list(wanted.values())


def _mean_choice(rows: Sequence[Row]) -> float:
    return statistics.fmean(row["choose_by"] for row in rows)


@dataclass(frozen=True)
class Summary:
    """A cell's best choice over all seeds.

    Attributes:
        rows: one a seed, by seed. tried: how many choices there were.
    """

    rows: list[Row]
    tried: int

    def values(self, part: str = TEST, metric: str | None = None) -> list[float]:
        """A metric of a part, by default the task's own, a value a seed; a task without the part has validation."""
        return [score_of(row, part, metric) for row in self.rows]

    def mean(self, part: str = TEST, metric: str | None = None) -> float:
        """Over seeds."""
        return statistics.fmean(self.values(part, metric))

    def spread(self, part: str = TEST, metric: str | None = None) -> float:
        """Standard error of the mean over seeds, as in the paper's Table 2; nan for one seed."""
        values = self.values(part, metric)
        return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan

    @property
    def validation(self) -> float:
        """Mean over seeds of what choices are made by."""
        return _mean_choice(self.rows)

    @property
    def best_seed(self) -> Row:
        """The row that is best on validation, over seeds too, as in the paper (section 3.2)."""
        return max(self.rows, key=lambda row: row["choose_by"])

    def __getitem__(self, name: str) -> Any:
        """A value that all of the rows share."""
        return self.rows[0][name]


def score_of(row: Row, part: str = TEST, metric: str | None = None) -> float:
    """One score of a row; a task without the part, as GLUE's, whose test labels are hidden, is scored on validation."""
    return row["scores"].get(part, row["scores"][VALIDATION])[metric or row["metric"]]


def summarize(rows: Iterable[Row]) -> list[Summary]:
    """A summary for each cell that occurs in the rows, in their order.

    The choice that was made is the one with the most seeds; where all have as many, the best on validation.
    """
    cells: dict[str, dict[Choice, list[Row]]] = {}
    for row in rows:
        cells.setdefault(cell_key(row), {}).setdefault((row["lr"], row["epochs"]), []).append(row)
    found = []
    for choices in cells.values():
        best = max(choices.values(), key=lambda own: (len(own), _mean_choice(own)))
        found.append(Summary(sorted(best, key=lambda row: row["seed"]), len(choices)))
    return found


def is_best(row: Row, rows: Iterable[Row]) -> bool:
    """Whether the row is the best seed of its cell's best choice on validation, among the finished runs."""
    key = cell_key(row)
    own = [other for other in rows if "choose_by" in other and cell_key(other) == key]
    (summary,) = summarize([*own, row])
    return summary.best_seed["key"] == row["key"]


def cell_key(row: Row) -> str:
    """What rows of one cell have in common, as one string."""
    names = [name for name in Spec.__dataclass_fields__ if name not in _VARIED]
    return repr([(name, row[name]) for name in names])


def as_row(spec: Spec) -> Row:
    """The spec's fields as they stand in a row."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items()}
