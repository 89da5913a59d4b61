"""Command line of the ahead-of-time gate: see `python -m benchmarks.tiles.aot --help`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from adapter_fast.benchmarks.tiles import aot
from adapter_fast.benchmarks.tiles.aot.compiler import load_cases, read_case
from adapter_fast.benchmarks.tiles.aot.gate import Reading
from adapter_fast.benchmarks.tiles.aot.progress import Progress
from adapter_fast.benchmarks.tiles.aot.readings import offenders, readings_table, write_readings
from adapter_fast.benchmarks.tiles.aot.targets import ARCHS


def main(arguments: list[str] | None = None) -> int:
    """Compile, print, and return the exit code."""
    options = _parse(arguments)
    # Interpreted functions cannot be compiled, and 3.9 warns about the coming change of this default.
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import triton

    try:
        work = _work(options)
    except ModuleNotFoundError as error:
        print(f"no cases to compile: cannot import {options.cases} ({error})", file=sys.stderr)
        return 2
    if not work:
        print(f"no case's name contains {options.filter!r}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{arch} {name}" for arch, _, name in work))
        return 0

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adapter_fast-aot-") as cache:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)  # one of the user's own: a run goes on where the last ended
        readings = _compile(options, work)
    print(readings_table(readings))
    print(f"\nTriton {triton.__version__}, {len(readings)} kernels compiled in {time.monotonic() - start:.0f} s")
    if options.output:
        for path in write_readings(readings, options.output, triton.__version__):
            print(f"wrote {path}")
    bad = offenders(readings)
    if bad:
        print(f"\nFAILED, {len(bad)} faults:\n  " + "\n  ".join(bad))
        return 1
    print("passed: no spill, shared memory within the limits, tensor cores for every 16-bit dot")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.aot",
        description=aot.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", action="append", choices=list(ARCHS), help="may be repeated; all by default")
    parser.add_argument("--filter", default="", metavar="SUBSTR", help="only cases whose name contains this")
    parser.add_argument("--list", action="store_true", help="name the cases and compile nothing")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write <arch>-triton<version>.json files there")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one a core)"
    )
    parser.add_argument(
        "--cases", default="adapter_fast.benchmarks.tiles.aot.cases", metavar="MODULE", help="where cases(arch) is"
    )
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> list[tuple[str, int, str]]:
    return [
        (arch, index, case.name)
        for arch in options.arch or ARCHS
        for index, case in enumerate(load_cases(options.cases, arch))
        if options.filter in case.name
    ]


def _compile(options: argparse.Namespace, work: list[tuple[str, int, str]]) -> list[Reading]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(options.jobs, len(work)), mp_context=context) as pool:
        tasks = [pool.submit(read_case, options.cases, arch, index) for arch, index, _ in work]
        progress = Progress(len(tasks))
        for task in as_completed(tasks):
            progress.step(f"{task.result().arch} {task.result().name}")
        return [task.result() for task in tasks]


if __name__ == "__main__":
    sys.exit(main())
