"""Stand-ins for NVIDIA's tools: each runs the command behind its options and prints what ours read of it.

python tools.py ncu|compute-sanitizer|nvidia-smi ARGUMENTS
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys


def run(arguments: list[str]) -> int:
    """The command behind the tool's own options, which begins with a Python; its exit code."""
    start = next((i for i, word in enumerate(arguments) if os.path.basename(word).startswith("python")), None)
    if start is None:
        print("no command to run in " + " ".join(arguments), file=sys.stderr)
        return 2
    return subprocess.run(arguments[start:]).returncode


def ncu(arguments: list[str]) -> int:
    """Raw CSV with the metrics asked for, two launches of it."""
    code = run(arguments)
    metrics = arguments[arguments.index("--metrics") + 1].split(",")
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL)
    writer.writerow(["ID", "Kernel Name", *metrics])
    writer.writerow(["", "", *["unit"] * len(metrics)])
    for number, kernel in enumerate(("bottleneck_forward_kernel", "bottleneck_dx_kernel")):
        writer.writerow([number, kernel, *["1,000"] * len(metrics)])
    return code


def compute_sanitizer(arguments: list[str]) -> int:
    """The tool's summary, of no fault."""
    code = run(arguments)
    racecheck = arguments[arguments.index("--tool") + 1] == "racecheck"
    hazards = "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    print(f"========= {hazards if racecheck else 'ERROR SUMMARY: 0 errors'}")
    return code


def nvidia_smi(arguments: list[str]) -> int:
    """Two numbers where a query asks for two, else a name."""
    query = next((word.partition("=")[2] for word in arguments if word.startswith("--query-gpu=")), "")
    print(", ".join("1500" for _ in query.split(",")) if query else "a GPU that is not there")
    return 0


TOOLS = {"ncu": ncu, "compute-sanitizer": compute_sanitizer, "nvidia-smi": nvidia_smi}

if __name__ == "__main__":
    sys.exit(TOOLS[sys.argv[1]](sys.argv[2:]))
