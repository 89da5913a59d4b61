"""Readings of compiled kernels: the table a person reads, and the JSON files a script reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from adapter_fast.benchmarks.tiles.aot.gate import Reading, faults
from adapter_fast.benchmarks.tiles.aot.targets import ARCHS
from adapter_fast.common.files import write_whole

COLUMNS = ("case", "warps", "stages", "registers", "spill", "shared KB", "of KB", "CTAs/SM", "tensor-core instruction")


def readings_table(readings: Iterable[Reading]) -> str:
    """One line a reading, one block an architecture."""
    readings = list(readings)
    lines = []
    for name in dict.fromkeys(reading.arch for reading in readings):
        arch = ARCHS[name]
        rows = [_row(reading) for reading in readings if reading.arch == name]
        widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
        lines += ["", name, _line(COLUMNS, widths), _line(["-" * width for width in widths], widths)]
        lines += [_line(row, widths) for row in rows]
        bad = sum(bool(faults(reading, arch)) for reading in readings if reading.arch == name)
        lines.append(f"{name}: {len(rows)} cases, {bad} failed")
    return "\n".join(lines)


def offenders(readings: Iterable[Reading]) -> list[str]:
    """One line a fault."""
    return [
        f"{reading.arch} {reading.name}: {fault}"
        for reading in readings
        for fault in faults(reading, ARCHS[reading.arch])
    ]


def write_readings(readings: Iterable[Reading], directory: Path, triton_version: str) -> list[Path]:
    """One file an architecture, the same bytes for the same readings."""
    readings = list(readings)
    paths = []
    for name in sorted({reading.arch for reading in readings}):
        rows = sorted((asdict(r) for r in readings if r.arch == name), key=lambda row: row["name"])
        path = directory / f"{name}-triton{triton_version}.json"
        write_whole(path, json.dumps(rows, indent=1, sort_keys=True, default=str) + "\n")
        paths.append(path)
    return paths


def _row(reading: Reading) -> tuple[str, ...]:
    arch = ARCHS[reading.arch]
    if reading.error:
        return (reading.name, str(reading.num_warps), str(reading.num_stages), "", "", "", "", "", reading.error[:60])
    spill = f"{reading.spill_bytes} B" if reading.spill_bytes or reading.local_ops else "0"
    tensor = ", ".join(f"{_short(name)} ×{count}" for name, count in reading.tensor_ops.items()) or "none"
    return (
        reading.name,
        str(reading.num_warps),
        str(reading.num_stages),
        str(reading.registers),
        spill,
        f"{reading.shared / 1024:.1f}",
        f"{arch.shared_per_block / 1024:.0f}",
        str(reading.blocks_per_sm),
        tensor,
    )


def _short(instruction: str) -> str:
    return instruction.replace(".sync.aligned", "").replace(".row.col", "")


def _line(cells: Iterable[str], widths: list[int]) -> str:
    left = {0, len(COLUMNS) - 1}
    padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return "  ".join(padded).rstrip()
