"""The README's tables, written from benchmarks/results/ and never by hand.

    python -m benchmarks.readme            rewrite the tables in README.md
    python -m benchmarks.readme --check    say whether they agree; exit code 1 where they do not
    python -m benchmarks.readme --keep-demo runs/demo/results.json    put a demo's results among the others first

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is "demo" or "op".
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.files import write_whole
from benchmarks.provenance import ROOT, provenance, slug

RESULTS = ROOT / "benchmarks/results"
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.S)
METHODS = {"head": "head only", "reference": "adapters (reference)", "fused": "adapters (fused)"}
METHODS |= {"full": "full fine-tuning"}


def main(arguments: list[str] | None = None) -> int:
    """Rewrite or check; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep-demo", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.keep_demo:
        print(f"wrote {keep_demo(options.keep_demo, RESULTS)}")
    path = ROOT / "README.md"
    text = path.read_text("utf-8")
    fresh = render(text, RESULTS)
    if options.check:
        print("README.md agrees with the results" if fresh == text else "README.md and the results differ")
        return int(fresh != text)
    write_whole(path, fresh)
    print(f"wrote {path}")
    return 0


def render(text: str, results: Path) -> str:
    """The text with each table made anew from the results."""
    tables = {"demo": demo_tables, "op": op_tables}
    return BLOCK.sub(lambda found: found[1] + tables[found[2]](results) + found[4], text)


def keep_demo(source: Path, results: Path) -> Path:
    """Copy what the README needs of a demo's results.json to results/<device>/demo.json, with where it was made."""
    record = json.loads(source.read_text("utf-8"))
    kept = {"trained", "share", "accuracy", "step_seconds", "peak_bytes", "peak_meaning", "settings"}
    record["methods"] = {
        name: {key: value for key, value in run.items() if key in kept} for name, run in record["methods"].items()
    }
    origin = provenance("cuda" if torch.cuda.is_available() else "cpu")
    path = results / slug(origin["device"]) / "demo.json"
    return write_whole(path, json.dumps(origin | record, indent=1) + "\n")


def demo_tables(results: Path) -> str:
    """One table for each device the demo's results were kept for."""
    return "\n".join(_demo_table(json.loads(path.read_text("utf-8"))) for path in sorted(results.glob("*/demo.json")))


def _demo_table(record: dict[str, Any]) -> str:
    lines = [
        "| | trained parameters | accuracy | seconds per step | peak memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, label in METHODS.items():
        run = record["methods"][method]
        lines.append(
            f"| {label} | {run['trained']:,} ({100 * run['share']:.2f} %) | {run['accuracy']:.3f} "
            f"| {run['step_seconds']:.2f} | {run['peak_bytes'] / 1e6:,.0f} MB |"
        )
    fused = record["methods"]["fused"]
    sizes = fused["settings"]
    lines += [
        "",
        f"{record['device']}, torch {record['torch']}, {record['date']}; {record['seconds'] / 60:.1f} minutes in all. "
        f"{sizes['train_size']:,} training, {sizes['test_size']:,} test texts, at most {sizes['max_length']} tokens, "
        f"{sizes['epochs']} epochs of batch {sizes['batch_size']}, one seed, "
        "settings from a few tries on this split. Seconds per step: median. "
        f"Peak memory: {fused['peak_meaning']}. Losses of fused and reference over the first 20 steps are within "
        f"{record['loss_difference']:.0e} of each other, relative.",
    ]
    return "\n".join(lines) + "\n"


def op_tables(results: Path) -> str:
    """The fused op beside the reference and torch.compile, a table a device."""
    return "\n".join(_op_table(json.loads(path.read_text("utf-8"))) for path in sorted(results.glob("*/op.json")))


def _op_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| tokens, d, m | phase | fused, ms | reference | torch.compile | peak memory against reference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for fused in (row for row in rows if row["provider"] == "fused"):
        same = {row["provider"]: row for row in rows if _place(row) == _place(fused)}
        reference = same["reference"]
        lines.append(
            f"| {fused['tokens']}, {fused['hidden']}, {fused['bottleneck']} | {fused['phase']} | {_spread(fused)} "
            f"| {_ratio(reference, fused)} | {_ratio(same.get('compile'), fused)} "
            f"| {fused['peak_bytes'] / reference['peak_bytes']:.2f} |"
        )
    first = rows[0]
    lines += [
        "",
        f"{first['device']}, {first['dtype']}, torch {first['torch']}, {first['date']}; median (p20 … p80). "
        "A peer's column is its time over ours. In forward+backward y is released before the backward starts, as in "
        "Houlsby's placement, where the residual addition that follows keeps no input.",
    ]
    return "\n".join(lines) + "\n"


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["case"], row["phase"], row["mode"]


def _spread(row: dict[str, Any]) -> str:
    return f"{row['us_p50'] / 1e3:.1f} ({row['us_p20'] / 1e3:.1f} … {row['us_p80'] / 1e3:.1f})"


def _ratio(peer: dict[str, Any] | None, ours: dict[str, Any]) -> str:
    return "not run" if peer is None else f"{peer['us_p50'] / ours['us_p50']:.2f}×"


if __name__ == "__main__":
    sys.exit(main())
