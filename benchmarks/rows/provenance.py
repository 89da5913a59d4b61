"""What every figure carries: the device, the versions, the commit and the date; and where results are kept."""

from __future__ import annotations

import datetime
import os
import subprocess
from pathlib import Path
from typing import Any

import torch

from adapter_fast.measure.machine import device_name, version

HERE = Path(__file__).resolve().parents[1]  # benchmarks/
# None where the package was installed without its checkout.
CHECKOUT = HERE.parent if (HERE.parent / "setup.py").is_file() else None
RESULTS = HERE / "results" if CHECKOUT else Path("results")


def provenance(device: str) -> dict[str, Any]:
    """The fields of a row that say where and when it was measured."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "triton": version("triton"),
        "transformers": version("transformers"),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _commit() -> str:
    """git's, or ADAPTER_FAST_COMMIT where the checkout was copied to a machine without its .git; else "unknown"."""
    if named := os.environ.get("ADAPTER_FAST_COMMIT"):
        return named
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        # A run writes its own results as it goes: they make no other program of it, or --resume would find nothing.
        written = [f":(exclude){folder}" for folder in ("benchmarks/results", "kernels/tuned")]
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
        return commit + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    if CHECKOUT is None:
        raise OSError("not a checkout")
    command = ["git", "--no-optional-locks", *arguments]  # a row's commit is read, and nothing written
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()
