"""Trainer's checkpoints on disk: which of them are whole, and which one to go on from."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

PREFIX = "checkpoint-"
STATE = "trainer_state.json"  # what Trainer writes last
# What a run goes on from, by the patterns of the files' names; what FSDP writes is called so too.
NEEDED = {
    "weights": ("*.safetensors", "pytorch_model*"),
    "optimizer state": ("optimizer*",),
    "scheduler state": ("scheduler.pt",),
    STATE: (STATE,),
}


def newest_whole(directory: Path, processes: int = 1) -> tuple[Path | None, dict[Path, str]]:
    """The newest whole checkpoint, or None, and what is wrong with each that is newer, by its path.

    Args:
        directory: of the checkpoints. processes: that the run has: each keeps its own random state.

    Raises:
        OSError: a file is there and may not be read.
    """
    steps = {path: path.name.removeprefix(PREFIX) for path in directory.glob(f"{PREFIX}*") if path.is_dir()}
    found = sorted((path for path in steps if steps[path].isdecimal()), key=lambda path: int(steps[path]), reverse=True)
    passed: dict[Path, str] = {}
    for path in found:
        wrong = fault(path, processes)
        if wrong is None:
            return path, passed
        passed[path] = wrong
    return None, passed


def fault(checkpoint: Path, processes: int = 1) -> str | None:
    """What a checkpoint lacks, or which of its files is cut; None for a whole one.

    Of a torch file every record's checksum is compared, of a safetensors file the length with what its header says.
    """
    ranks = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    for what, patterns in {**NEEDED, **{name: (name,) for name in ranks}}.items():
        if not any(next(checkpoint.rglob(pattern), None) for pattern in patterns):
            return f"it has no {what}"
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        wrong = file_fault(path)
        if wrong is not None:
            return f"{path.relative_to(checkpoint)} {wrong}"
    return None


def file_fault(path: Path) -> str | None:
    """What is wrong with a file, as "is cut: …"; None where it reads, or is of a kind that does not tell."""
    if path.suffix == ".json":
        try:
            values = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError):
            return "is cut: it is no JSON"
        parts = set(values.get("weight_map", {}).values()) if path.name.endswith(".index.json") else set()
        absent = sorted(part for part in parts if not (path.parent / part).is_file())
        return f"names {absent[0]}, which is not there" if absent else None
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return None
        except SafetensorError as error:
            return f"is cut: {error}"
    if path.suffix in (".pt", ".pth", ".bin"):
        try:
            with zipfile.ZipFile(path) as records:
                broken = records.testzip()
        except (zipfile.BadZipFile, EOFError) as error:
            return f"is cut: {error}"
        return None if broken is None else f"is damaged in {broken}"
    return None
