"""What `from adapter_fast import FusedAdapter` adds to `import torch`; the aim is at most 0.1 s."""

from __future__ import annotations

import statistics
import subprocess
import sys

from adapter_fast.benchmarks.rows.provenance import CHECKOUT

PROGRAM = """
import time, torch
start = time.perf_counter()
from adapter_fast import FusedAdapter  # the package itself imports nothing
print(time.perf_counter() - start)
"""


def seconds(runs: int = 7) -> list[float]:
    """Seconds of the import on top of torch's, each in a fresh interpreter; the first one warms the disk's cache."""
    command = [sys.executable, "-c", PROGRAM]
    outputs = [
        subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True) for _ in range(runs + 1)
    ]
    return [float(output.stdout) for output in outputs[1:]]


if __name__ == "__main__":
    taken = seconds()
    print(f"FusedAdapter adds {statistics.median(taken):.3f} s to torch's (of {len(taken)}, aim 0.1 s)")
