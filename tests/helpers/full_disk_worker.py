"""python full_disk_worker.py FOLDER: `tune` on small disks of many sizes that fill up for real, in a mount namespace.

Start it by `unshare -m` (root) or `unshare -Urm`. It prints one JSON object: for each size the exit code, what stderr
said, the files that were left, and the same after the disk was made larger and the run resumed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"

from tiny_task import write_model, write_task

from adapter_fast.cli import main
from adapter_fast.tasks.checkpoints import fault

SIZES = (4, 8, 48, 100, 140, 180, 260, 320, 352, 376, 400, 424, 600)  # KiB


def run(words: list[str]) -> tuple[int | None, list[str]]:
    """The command's exit code and its lines on stderr; an exception's text in place of them."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            code: int | None = main(words)
        except BaseException as raised:
            return None, [repr(raised)]
    return code, [line for line in error.getvalue().splitlines() if line.startswith("adapter-fast: ")]


def looked_at(output: Path) -> dict[str, object]:
    """What is in a run's directory."""
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    parsed = {}
    for name in ("run.json", "results.json"):
        if name in names:
            json.loads((output / name).read_text())
            parsed[name] = True
    folders = sorted((output / "checkpoints").glob("*"), key=lambda path: int(path.name.rpartition("-")[2]))
    adapter = output / "adapter/adapter.safetensors"
    return {
        "names": names,
        "whole": sorted(parsed),
        "faults": {path.name: fault(path) for path in folders},
        "adapter": adapter.read_bytes().hex() if adapter.is_file() else None,
    }


def sweep(folder: Path) -> dict[str, object]:
    """Every size in turn; "whole" is the run with room enough."""
    write_model(folder / "model")
    write_task(folder / "task.csv", rows=60)
    (folder / "disk").mkdir()
    words = ["tune", "--model", str(folder / "model"), "--task", str(folder / "task.csv"), "--bottleneck", "4"]
    words += ["--batch-size", "8", "--max-length", "16", "--epochs", "1", "--save-steps", "2", "--lr", "1e-2"]
    found: dict[str, object] = {
        "whole": [*run([*words, "--output", str(folder / "whole")]), looked_at(folder / "whole")]
    }
    for size in SIZES:
        disk = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder / "disk")]
        subprocess.run(disk, check=True)
        output = folder / "disk/run"
        before = [*run([*words, "--output", str(output)]), looked_at(output)]
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder / "disk")], check=True)
        after = None
        if before[0] != 0:
            after = [*run([*words, "--output", str(output), "--resume"]), looked_at(output)]
        found[str(size)] = {"before": before, "after": after}
        subprocess.run(["umount", str(folder / "disk")], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder / "disk")], check=True)
    found["read-only"] = run([*words, "--output", str(folder / "disk/run")])
    subprocess.run(["umount", str(folder / "disk")], check=True)
    return found


if __name__ == "__main__":
    print(json.dumps(sweep(Path(sys.argv[1]))))
