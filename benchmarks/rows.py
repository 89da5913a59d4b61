"""Result rows: one format for every suite, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cases import OpCase
from benchmarks.files import write_whole
from benchmarks.harness import Spread
from benchmarks.provenance import slug


@dataclass(frozen=True)
class Row:
    """One figure, as ../shared/design.md has it."""

    suite: str
    case: str
    provider: str
    phase: str
    mode: str
    dtype: str
    tokens: int
    hidden: int
    bottleneck: int
    us_p20: float
    us_p50: float
    us_p80: float
    peak_bytes: int
    floor_us: float
    copy_gbps: float
    device: str
    torch: str
    triton: str
    transformers: str
    commit: str
    date: str


def op_row(
    case: OpCase,
    provider: str,
    phase: str,
    mode: str,
    times: Spread,
    peak_bytes: int,
    floor_us: float,
    copy_gbps: float,
    origin: dict[str, str],
) -> Row:
    """A row of the suite "op"; times are rounded to what the clock can tell."""
    return Row(
        suite="op",
        case=case.name,
        provider=provider,
        phase=phase,
        mode=mode,
        dtype=case.dtype,
        tokens=case.tokens,
        hidden=case.hidden,
        bottleneck=case.bottleneck,
        us_p20=round(times.p20, 2),
        us_p50=round(times.p50, 2),
        us_p80=round(times.p80, 2),
        peak_bytes=peak_bytes,
        floor_us=round(floor_us, 2),
        copy_gbps=round(copy_gbps, 1),
        **origin,
    )


def write_rows(rows: list[Row], directory: Path) -> Path:
    """<directory>/<device-slug>/<suite>.json, all rows of one device and one suite."""
    [(device, suite)] = {(row.device, row.suite) for row in rows}
    text = ",\n".join(json.dumps(asdict(row)) for row in rows)
    return write_whole(directory / slug(device) / f"{suite}.json", f"[\n{text}\n]\n")


def table(rows: list[Row]) -> str:
    """What a person reads: a block a shape, each provider beside the reference of the same phase and mode."""
    head = ("phase", "mode", "provider", "µs", "p20 … p80", "× reference", "% of floor", "peak MB", "of reference")
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        cells = [head, *(_cells(row, _reference(row, mine)) for row in mine)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        lines += ["", f"{case}"]
        for line in cells:
            padded = (c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            lines.append("  " + "  ".join(padded).rstrip())
    return "\n".join(lines)


def _reference(row: Row, rows: list[Row]) -> Row | None:
    same = (r for r in rows if (r.provider, r.phase, r.mode) == ("reference", row.phase, row.mode))
    return next(same, None)


def _cells(row: Row, reference: Row | None) -> tuple[str, ...]:
    return (
        row.phase,
        row.mode,
        row.provider,
        f"{row.us_p50:.1f}",
        f"{row.us_p20:.1f} … {row.us_p80:.1f}",
        f"{reference.us_p50 / row.us_p50:.2f}" if reference else "",
        f"{100 * row.floor_us / row.us_p50:.0f}",
        f"{row.peak_bytes / 1e6:.2f}",
        f"{row.peak_bytes / reference.peak_bytes:.2f}" if reference and reference.peak_bytes else "",
    )
