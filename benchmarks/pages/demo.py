"""The demo's results: kept among the others, and written as the first table of docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from adapter_fast.benchmarks.rows import ResultsError
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.common.errors import first_line
from adapter_fast.common.files import write_whole
from adapter_fast.common.markdown import markdown_table
from adapter_fast.measure.machine import slug

METHODS = {"head": "head only", "reference": "adapters (reference)", "fused": "adapters (fused)"}
METHODS |= {"full": "full fine-tuning"}


def copy_demo(source: Path, results: Path) -> Path:
    """Copy what the pages need of a demo's results.json to <results>/<device>/demo.json, with where it was made."""
    record = read_demo(source)
    kept = {"trained", "share", "accuracy", "step_seconds", "peak_bytes", "peak_meaning", "settings"}
    record["methods"] = {
        name: {key: value for key, value in run.items() if key in kept} for name, run in record["methods"].items()
    }
    origin = provenance("cuda" if torch.cuda.is_available() else "cpu")
    path = results / slug(origin["device"]) / "demo.json"
    return write_whole(path, json.dumps(origin | record, indent=1) + "\n")


def read_demo(path: Path) -> dict[str, Any]:
    """A demo's results.json; ResultsError where it is something else."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{path}: not a demo's results ({first_line(error)})") from error
    methods = record.get("methods") if isinstance(record, dict) else None
    if not isinstance(methods, dict) or not set(METHODS) <= set(methods):
        raise ResultsError(f"{path}: not a demo's results: expected the methods {', '.join(METHODS)}")
    return record


def demo_table(record: dict[str, Any]) -> str:
    """The four methods of one run of `adapter-fast demo`."""
    lines = [
        [
            name,
            f"{run['trained']:,} ({100 * run['share']:.2f} %)",
            f"{run['accuracy']:.3f}",
            f"{run['step_seconds']:.2f}",
            f"{run['peak_bytes'] / 1e6:,.0f} MB",
        ]
        for name, run in ((name, record["methods"][method]) for method, name in METHODS.items())
    ]
    fused = record["methods"]["fused"]
    sizes = fused["settings"]
    return markdown_table(["", "trained parameters", "accuracy", "seconds per step", "peak memory"], lines) + (
        f"\n{record['device']}, torch {record['torch']}, {record['date']}; "
        f"{record['seconds'] / 60:.1f} minutes in all. "
        f"{sizes['train_size']:,} training, {sizes['test_size']:,} test texts, at most {sizes['max_length']} tokens, "
        f"{sizes['epochs']} epochs of batch {sizes['batch_size']}, one seed, "
        "settings from a few tries on this split. Seconds per step: median. "
        f"Peak memory: {fused['peak_meaning']}. Losses of fused and reference over the first 20 steps are within "
        f"{record['loss_difference']:.0e} of each other, relative.\n"
    )
