"""Result rows: one format for every suite, written whole or not at all, and read only in that format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from adapter_fast.common.errors import first_line
from adapter_fast.common.files import write_whole
from adapter_fast.measure.machine import slug

SUITES = ("op", "model", "memory", "latency")


class ResultsError(ValueError):
    """A results file that cannot be used: names the file and what is wrong with it."""


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, by whom, where and when; fields with a default need not be known.

    A provider that could not run has None for its figures and the reason in `note`.
    """

    suite: str  # one of SUITES
    case: str
    provider: str
    phase: str  # forward, backward, forward+backward or step
    mode: str  # eager, graph-cold or graph-hot
    dtype: str
    tokens: int
    hidden: int
    bottleneck: int
    us_p20: float | None
    us_p50: float | None
    us_p80: float | None
    peak_bytes: int | None  # above what was there before the call, after warm-up
    floor_us: float | None  # of a model: the bare model's median plus the floor of its adapters
    copy_gbps: float  # of this run: bytes read and written
    device: str
    torch: str
    triton: str
    transformers: str
    commit: str
    date: str
    us_p90: float | None = None
    us_p99: float | None = None
    versus: str = ""  # "faster", "slower" or "same" as the reference of this case, phase and mode, by paired samples
    parameters: int | None = None  # added to the bare model, or of the adapter
    tflops: float | None = None  # matrix rate of this run
    clock_mhz: int | None = None  # SM clock and temperature after the case; None on a CPU
    celsius: int | None = None
    samples: int = 0
    note: str = ""  # which torch.compile mode was fastest, how a peer differs, or why it could not run

    @property
    def ran(self) -> bool:
        """Whether there is a figure, of time or of memory."""
        return self.us_p50 is not None or self.peak_bytes is not None


NAMES = tuple(field.name for field in fields(Row))


def path_of(directory: Path, device: str, suite: str) -> Path:
    """<directory>/<device-slug>/<suite>.json."""
    return directory / slug(device) / f"{suite}.json"


def read_rows(path: Path) -> list[Row]:
    """All rows of a file; ResultsError where it is not JSON, or of another schema."""
    try:
        records = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{path}: not a results file ({first_line(error)})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ResultsError(f"{path}: expected a list of rows, got {type(records).__name__}")
    for number, record in enumerate(records):
        missing, unknown = [n for n in NAMES if n not in record], [n for n in record if n not in NAMES]
        if missing or unknown:
            parts = [f"{what} {', '.join(names)}" for what, names in (("lacks", missing), ("has", unknown)) if names]
            raise ResultsError(
                f"{path}: row {number} is of another schema ({'; '.join(parts)}): measure again without --resume"
            )
    return [Row(**record) for record in records]


def write_rows(rows: Iterable[Row], path: Path) -> Path:
    """The file of one device and one suite, a row a line."""
    text = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    return write_whole(path, f"[\n{text}\n]\n")


def key_of(row: Row) -> tuple[str, str, str, str]:
    """What a figure is of, within its suite: measured again, it takes the place of the old one."""
    return row.case, row.phase, row.mode, row.provider


def merge(old: Iterable[Row], new: Iterable[Row], order: list[str]) -> list[Row]:
    """`old` with the figures of `new` in place of its own; cases in `order`, those that it lacks at the end."""
    new = list(new)
    measured = {key_of(row) for row in new}
    # Who cannot run any more has one row that says so, and no figures in any mode.
    gone = {(row.case, row.phase, row.provider) for row in new if not row.ran}
    kept = [row for row in old if key_of(row) not in measured and (row.case, row.phase, row.provider) not in gone]
    rows = [*kept, *new]
    rank = {case: place for place, case in enumerate(order)}
    return sorted(rows, key=lambda row: rank.get(row.case, len(order)))
