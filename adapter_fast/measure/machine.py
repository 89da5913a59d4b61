"""Which machine this is: the device's name, the versions, the threads, the clocks."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__


def device_name(device: str) -> str:
    """The GPU's own name, or the processor's with the number of threads in use."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def slug(name: str) -> str:
    """A device's name as a folder's: 'NVIDIA H100 80GB HBM3' → 'nvidia-h100-80gb-hbm3'."""
    plain = re.sub(r"\((r|tm|c)\)", "", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def pin_threads() -> int:
    """As many threads as cores we may use, or as OMP_NUM_THREADS says: fixed for the whole run."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    return threads


def version(package: str) -> str:
    """An installed distribution's version, or "none"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def versions() -> dict[str, str]:
    """Of this package, Python, and what computes."""
    return {
        "adapter_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("triton", "transformers")},
    }


def clocks(device: str) -> tuple[int | None, int | None]:
    """The GPU's SM clock in MHz and temperature in °C at this moment; None where there is no nvidia-smi to ask."""
    tool = shutil.which("nvidia-smi") if device == "cuda" else None
    if tool is None:
        return None, None
    query = [tool, "--query-gpu=clocks.sm,temperature.gpu", "--format=csv,noheader,nounits"]
    query.append(f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}")  # CUDA's numbers may differ from nvidia-smi's
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        clock, temperature = (int(word) for word in answer.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, None
    return clock, temperature


def processor() -> str:
    """The processor's own name, or its architecture's."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
