"""The rows of kernels/tuned/<arch>.json: merged with what is there, checked by their reader, written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapter_fast.common.files import write_whole
from adapter_fast.kernels import tuned
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem, kind, padded
from adapter_fast.measure.clock import Spread

TunedRow = Mapping[str, Any]
Timed = tuple[LaunchConfig, Spread]
# What must be the same for a row to count as measured already.
SAME = ("device", "torch", "triton", "commit")


def read_tuned(path: Path) -> list[TunedRow]:
    """The rows that are there, none where there is no file.

    Raises:
        ValueError: rows that select_tiles would refuse; the message names the file and the row.
    """
    if not path.is_file():
        return []
    rows = json.loads(path.read_text("utf-8"))
    tuned.parse(rows, str(path))
    return rows


def group(row: TunedRow) -> tuple[object, ...]:
    """Rows of one shape and phase, which are measured together: they differ in tokens alone."""
    return row["kind"], row["phase"], row["D"], padded(row["M"])


def group_of(phase: Phase, problem: Problem) -> tuple[object, ...]:
    """The group that a shape's rows of this phase belong to."""
    return kind(problem), phase, problem.D, padded(problem.M)


def tuned_row(
    phase: Phase,
    problem: Problem,
    chosen: Timed,
    ruled: Timed,
    floor_us: float,
    copy_gbps: float,
    tried: int,
    origin: TunedRow,
) -> TunedRow:
    """One row. Times and floor are of the whole forward or backward in which the launch runs, from the profiler
    (benchmarks/tiles/launches.py) of the launch itself.

    ruled: the rules' own choice and its times in the same round. tried: candidates that were timed.
    """
    config, times = chosen
    key = {"kind": kind(problem), "phase": phase, "D": problem.D, "M": problem.M, "tokens": problem.tokens}
    microseconds = {"us_p20": times.p20, "us_p50": times.p50, "us_p80": times.p80, "floor_us": floor_us}
    against = {"ruled": asdict(ruled[0]), "us_ruled": round(ruled[1].p50, 2), "tried": tried}
    rounded = {name: round(value, 2) for name, value in microseconds.items()}
    return {**key, **asdict(config), **rounded, "copy_gbps": round(copy_gbps, 1), **against, **origin}


def merge_tuned(old: Sequence[TunedRow], new: Sequence[TunedRow]) -> list[TunedRow]:
    """Old rows, less whole groups that were measured again, and the new ones, sorted.

    A group goes as a whole: a row left behind might sum in another order than its new neighbours.
    """
    again = {group(row) for row in new}
    rows = [*(row for row in old if group(row) not in again), *new]
    return sorted(rows, key=lambda row: (*map(str, group(row)[:2]), row["D"], row["M"], row["tokens"]))


def already_measured(
    rows: Sequence[TunedRow], wanted: tuple[object, ...], tokens: Sequence[int], origin: TunedRow
) -> list[TunedRow]:
    """The rows of a group, if all its tokens were measured on this device, by these versions and this commit."""
    found = [row for row in rows if group(row) == wanted and all(row[key] == origin[key] for key in SAME)]
    return found if {row["tokens"] for row in found} >= set(tokens) else []


def tiles_of(row: TunedRow) -> LaunchConfig:
    """The tiles of a row."""
    names = (*tuned.TILES, *tuned.OPTIONS)
    return LaunchConfig(**{name: row[name] for name in names if name in row})


def write_tuned(path: Path, rows: Sequence[TunedRow]) -> Path:
    """All rows, a row a line, if select_tiles can read them.

    Raises:
        ValueError: as in read_tuned.
    """
    tuned.parse(list(rows), str(path))
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return write_whole(path, f"[\n{text}\n]\n")
