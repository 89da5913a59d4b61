"""The columns of a block on the screen: what each says of a row, and which go first where it is narrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import Group, floor_share, memory_share, over_bare, speedup, tokens_per_second
from adapter_fast.benchmarks.shown.wording import millions, number, time_unit


@dataclass(frozen=True)
class Column:
    """A column of a block: what it says of a row among those of its case, phase and mode."""

    title: str
    cell: Callable[[Row, Group], str]
    rank: int = 0  # the highest goes first where the screen is narrow; 0 stays


def columns_of(suite: str) -> list[Column]:
    """Left to right."""
    provider = Column("provider", lambda row, group: row.provider)
    reference = Column("× reference", _versus)
    peak = Column("peak MB", lambda row, group: _or_blank(row.peak_bytes, 1e6), 2)
    share = Column("of ref", lambda row, group: _fraction(memory_share(row, group.get("reference"))), 5)
    if suite == "memory":
        return [provider, peak, share]
    floor = Column("floor", lambda row, group: _percent(floor_share(row), sign=""), 3 if suite == "op" else 5)
    above = Column("over bare", lambda row, group: _percent(over_bare(row, group)), 1)
    above_us = Column("+ µs", _above_bare, 4)
    rate = Column("tokens/s", lambda row, group: _or_blank(tokens_per_second(row), 1), 3)
    own = Column("parameters", lambda row, group: millions(row.parameters), 6)
    if suite == "latency":
        p50, p90, p99 = (Column(name, _time(f"us_{name}")) for name in ("p50", "p90", "p99"))
        return [provider, p50, p90, p99, reference, above, above_us, floor, rate, own]
    spread = Column("p20 … p80", _spread)
    if suite == "op":
        return [provider, Column("time", _time("us_p50")), spread, reference, floor, peak, share]
    return [provider, Column("time", _time("us_p50")), spread, reference, above, above_us, floor, rate, peak, own]


def _time(field: str) -> Callable[[Row, Group], str]:
    def cell(row: Row, group: Group) -> str:
        name, size = time_unit(group.values())
        value = getattr(row, field)
        return "" if value is None else number(value / size) + (f" {name}" if field == "us_p50" else "")

    return cell


def _spread(row: Row, group: Group) -> str:
    size = time_unit(group.values())[1]
    return (
        "" if row.us_p20 is None or row.us_p80 is None else f"{number(row.us_p20 / size)} … {number(row.us_p80 / size)}"
    )


def _versus(row: Row, group: Group) -> str:
    ratio = speedup(group.get("reference"), row)
    verdict = "" if row.provider == "reference" else row.versus
    return "" if ratio is None else f"{ratio:.2f} {verdict:<6}"


def _above_bare(row: Row, group: Group) -> str:
    excess = over_bare(row, group)
    return "" if excess is None or row.us_p50 is None else f"{row.us_p50 - row.us_p50 / (1 + excess):+,.0f}"


def _or_blank(value: float | None, size: float) -> str:
    return "" if value is None else number(value / size)


def _fraction(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(value: float | None, sign: str = "+") -> str:
    return "" if value is None else f"{100 * value:{sign}.{0 if abs(value) >= 1 or not sign else 1}f} %"
