"""DRAM bytes and occupancy of one launch of each kernel, read from the hardware's counters with ncu.

python -m benchmarks.tiles.ncu                          on a GPU with Nsight Compute; writes <output>/<device>/ncu.json
python -m benchmarks.tiles.ncu --device cpu --quick     the same launches under Triton's interpreter, to rehearse them
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from adapter_fast.benchmarks.cases import DTYPES, case_name, op_cases
from adapter_fast.benchmarks.rows.provenance import CHECKOUT, RESULTS, provenance
from adapter_fast.common.files import write_whole
from adapter_fast.measure.machine import slug
from adapter_fast.testing import Case

METRICS = {
    "dram__bytes_read.sum": "dram_read_bytes",
    "dram__bytes_write.sum": "dram_write_bytes",
    "gpu__time_duration.sum": "ns",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "grid",
}
KERNELS = "regex:bottleneck|weight_grad|expand"
HEADLINE = 3  # cases of the op suite: d 768, 1024 and 4096
TIMEOUT = 240  # seconds for one case: ncu replays each launch several times


def main(arguments: list[str] | None = None) -> int:
    """Run ncu over the cases; the exit code."""
    options = _parse(arguments)
    if options.launch:
        launch(_case(options.launch))
        return 0
    if options.device == "cpu":
        return _rehearse(options.quick)
    if not torch.cuda.is_available():
        print("no CUDA device here: run on a GPU machine, or rehearse with --device cpu", file=sys.stderr)
        return 2
    tool = shutil.which("ncu")
    if tool is None:
        print("ncu (Nsight Compute) is not on the PATH: nothing was measured", file=sys.stderr)
        return 2
    origin = provenance("cuda")
    path = options.output / slug(origin["device"]) / "ncu.json"
    records: list[dict] = []
    failed = 0
    for case in op_cases("cuda", quick=options.quick)[:HEADLINE]:
        order = command(tool, case)
        try:
            done = subprocess.run(order, capture_output=True, text=True, timeout=options.timeout, env=_environment())
            found = parse(done.stdout)
        except subprocess.TimeoutExpired:
            print(f"{case_name(case)}: ncu was not done after {options.timeout} s", file=sys.stderr)
            failed += 1
            continue
        except ValueError as error:
            print(f"{case_name(case)}: {error}: {(done.stderr or done.stdout).strip()[-300:]}", file=sys.stderr)
            failed += 1
            continue
        records += [{"case": case_name(case), "x_bytes": case.T * case.d * case.dtype.itemsize} | one for one in found]
        write_whole(
            path, json.dumps([record | origin for record in records], indent=1) + "\n"
        )  # kept, whatever follows
    if records:
        print(table(records))
        print(f"wrote {path}")
    return int(failed > 0)


def command(tool: str, case: Case) -> list[str]:
    """ncu over one launch of every kernel of this case; the clocks are left as they are."""
    profiler = [tool, "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw"]
    profiler += ["--print-units", "base", "--kernel-name", KERNELS, "--metrics", ",".join(METRICS)]
    dtype = str(case.dtype).removeprefix("torch.")
    return [*profiler, sys.executable, "-m", __spec__.name, "--launch", f"{case.T},{case.d},{case.m},{dtype}"]


def launch(case: Case) -> None:
    """One forward and one backward after a warm-up; on a GPU only these are between the profiler's marks."""
    from adapter_fast import fused_adapter
    from adapter_fast.testing import evaluate, grad_output, make_inputs

    inputs, dy = make_inputs(case), grad_output(case)
    evaluate(fused_adapter, case, inputs, dy)
    if case.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStart()
        evaluate(fused_adapter, case, inputs, dy)
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStop()


def parse(text: str) -> list[dict[str, float | str]]:
    """A record a launch from ncu's CSV: the kernel's name and METRICS; ValueError where no launch is in it."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    rows = [] if start is None else [row for row in csv.DictReader(lines[start:]) if row["ID"]]  # the units have no ID
    if not rows:
        raise ValueError("ncu gave no figures")
    records: list[dict[str, float | str]] = []
    for row in rows:
        missing = [metric for metric in METRICS if metric not in row]
        if missing:
            raise ValueError(f"ncu gave no {', '.join(missing)}")
        figures = {name: float(row[metric].replace(",", "")) for metric, name in METRICS.items()}
        records.append({"kernel": row["Kernel Name"], **figures})
    return records


def table(records: list[dict]) -> str:
    """What a person reads: bytes as multiples of X, the bytes of x."""
    head = ("case", "kernel", "read, X", "written, X", "µs", "warps active, %", "registers", "CTAs")
    lines = [head]
    for one in records:
        lines.append(
            (
                one["case"],
                one["kernel"],
                f"{one['dram_read_bytes'] / one['x_bytes']:.2f}",
                f"{one['dram_write_bytes'] / one['x_bytes']:.2f}",
                f"{one['ns'] / 1e3:.1f}",
                f"{one['occupancy_percent']:.0f}",
                f"{one['registers']:.0f}",
                f"{one['grid']:.0f}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _rehearse(quick: bool) -> int:
    for case in op_cases("cpu", quick=quick)[:HEADLINE]:
        order = [sys.executable, "-m", __spec__.name, "--launch", f"{case.T},{case.d},{case.m},float32"]
        subprocess.run(order, check=True, env=_environment() | {"TRITON_INTERPRET": "1"})
        print(f"{case_name(case)}: launched under Triton's interpreter; on a GPU it would run under")
        print("  " + shlex.join(command("ncu", case)))
    print("a CPU has no counters of DRAM bytes: nothing was measured")
    return 0


def _case(words: str) -> Case:
    T, d, m, dtype = words.split(",")
    device = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
    return Case(int(T), int(d), int(m), dtype=DTYPES[dtype], device=device)


def _environment() -> dict[str, str]:
    root = str(CHECKOUT or Path(__file__).parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return clean | {"PYTHONPATH": os.pathsep.join(paths)}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.ncu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="one small case")
    parser.add_argument("--output", type=Path, metavar="DIR", default=RESULTS)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds for a case")
    parser.add_argument("--launch", metavar="T,d,m,dtype", help="only launch the kernels of this case, once")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
