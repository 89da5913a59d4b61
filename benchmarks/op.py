"""The op by itself: time and peak memory of the fused adapter, the reference, and the reference under torch.compile.

    python -m benchmarks.op                          the GPU where there is one, else the CPU
    python -m benchmarks.op --device cpu --quick     one small case, to see that everything runs; nothing is written

Every provider is checked against float64 before it is timed; where ours is wrong, nothing is written. Results go to
<output>/<device>/op.json.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch

from benchmarks.cases import OpCase, OpInputs, op_cases
from benchmarks.check import assert_correct
from benchmarks.graphs import capture, rotation
from benchmarks.harness import Spread, event_timer, host_timer, interleave, repeated
from benchmarks.memory import peak_bytes
from benchmarks.progress import Progress
from benchmarks.provenance import ROOT, device_name, pin_threads, provenance
from benchmarks.providers import PHASES, PROVIDERS, Function, phase_function
from benchmarks.roofline import copy_gbps, floor_us
from benchmarks.rows import Row, op_row, table, write_rows

GPU_SECONDS = 430  # with the start and the last case, inside 8 minutes
AUTOTUNE_SECONDS = 25  # what max-autotune of one shape and phase is taken to cost until one was seen
CPU_ROUNDS, GPU_ROUNDS, GPU_CALLS = 10, 5, 10


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; the exit code is 1 where a provider's results are wrong."""
    options = _parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: run on a GPU machine, or with --device cpu", file=sys.stderr)
        return 2
    threads = pin_threads()
    timer = event_timer if options.device == "cuda" else host_timer
    bandwidth = copy_gbps(options.device, timer)
    print(
        f"{device_name(options.device)}, host threads {threads}, torch {torch.__version__}; copy {bandwidth:.1f} GB/s"
    )
    try:
        rows = Suite(options.device, options.providers, options.quick, bandwidth).run()
    except AssertionError as error:
        print(f"wrong result, nothing was written: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    output = options.output or (None if options.quick else ROOT / "benchmarks/results")
    if output:
        print(f"\nwrote {write_rows(rows, output)}")
    return 0


class Suite:
    """One run over the grid of a device."""

    def __init__(self, device: str, providers: list[str], quick: bool, bandwidth: float) -> None:
        self.device, self.providers, self.bandwidth = device, providers, bandwidth
        self.cases = op_cases(device, quick)
        self.origin = provenance(device)
        self.start = time.monotonic()
        self.plain_seconds = 0.0  # spent on all but max-autotune
        self.autotune_seconds = AUTOTUNE_SECONDS
        self.notes: dict[str, str] = {}

    def run(self) -> list[Row]:
        """All rows; says on stderr what is to be known of a provider."""
        rows, steps = [], [(case, phase) for case in self.cases for phase in PHASES]
        progress = Progress(len(steps))
        for done, (case, phase) in enumerate(steps):
            progress.step(f"{case.name} {phase}")
            rows += self.measure(case, phase, done, len(steps))
            torch._dynamo.reset()
            gc.collect()
        for provider, note in self.notes.items():
            print(f"{provider}: {note}", file=sys.stderr)
        return rows

    def measure(self, case: OpCase, phase: str, done: int, total: int) -> list[Row]:
        """Check, weigh and time every provider on one shape and phase."""
        sets = rotation(case) if self.device == "cuda" else [case.make("cpu")]
        functions = self.ready(case, phase, sets[0], done, total)
        began = time.monotonic()
        floor = floor_us(case, phase, self.bandwidth)
        rows = []
        peaks = {name: peak_bytes(lambda f=function: f(sets[0]), self.device) for name, function in functions.items()}
        for mode, times in self.modes(functions, sets).items():
            for name, taken in times.items():
                rows.append(op_row(case, name, phase, mode, taken, peaks[name], floor, self.bandwidth, self.origin))
        self.plain_seconds += time.monotonic() - began
        return rows

    def ready(self, case: OpCase, phase: str, inputs: OpInputs, done: int, total: int) -> dict[str, Function]:
        """Each provider's function, called until it is warm, its results found right."""
        functions = {}
        for provider in self.providers:
            if provider == "compile-max" and not self.may_autotune(done, total):
                why = "for some shapes, to end in time" if self.device == "cuda" else "on a CPU, where it takes minutes"
                self.notes[provider] = f"left out {why}"
                continue
            began = time.monotonic()
            function = phase_function(provider, case, phase)
            try:
                for _ in range(2):
                    function(inputs)
                output = function(inputs) if phase == "forward" else function(inputs, keep_y=True)
            except Exception as error:
                if not provider.startswith("compile"):
                    raise
                self.notes[provider] = f"does not run here ({type(error).__name__}: {str(error).splitlines()[0][:100]})"
                continue
            try:
                assert_correct(provider, case, output, inputs)
            except AssertionError as error:
                if provider == "fused":
                    raise
                self.notes[provider] = f"timed, but less exact than PyTorch's own operations: {error}"
            functions[provider] = function
            spent = time.monotonic() - began
            if provider == "compile-max":
                self.autotune_seconds = spent
            else:
                self.plain_seconds += spent
        return functions

    def may_autotune(self, done: int, total: int) -> bool:
        """Whether max-autotune of this shape still leaves time for the others' plain part."""
        if self.device != "cuda":
            return False
        ahead = self.plain_seconds / max(done, 1) * (total - done)
        return time.monotonic() - self.start + ahead + self.autotune_seconds < GPU_SECONDS

    def modes(self, functions: dict[str, Function], sets: list[OpInputs]) -> dict[str, dict[str, Spread]]:
        """Times by mode and provider: eager everywhere, CUDA graphs cold and hot on a GPU."""
        if self.device != "cuda":
            calls = {name: lambda f=function: f(sets[0]) for name, function in functions.items()}
            return {"eager": interleave(calls, host_timer, CPU_ROUNDS)}
        in_turn = cycle(sets)
        eager = {name: lambda f=function: f(next(in_turn)) for name, function in functions.items()}
        times = {"eager": interleave(eager, lambda call: repeated(call, GPU_CALLS, event_timer), GPU_ROUNDS)}
        for mode, used in (("graph-cold", sets), ("graph-hot", sets[:1])):
            times[mode] = self.graphs(functions, used)
            torch.cuda.empty_cache()
        return times

    def graphs(self, functions: dict[str, Function], sets: list[OpInputs]) -> dict[str, Spread]:
        """Times of one call inside a graph."""
        captured = {name: capture(function, sets) for name, function in functions.items()}
        [calls] = {calls for _, calls in captured.values()}
        replays: dict[str, Callable] = {name: graph.replay for name, (graph, _) in captured.items()}
        for replay in replays.values():
            replay()
        return interleave(replays, lambda call: event_timer(call) / calls, GPU_ROUNDS)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.op", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--quick", action="store_true", help="one small case; writes only where --output says")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--providers", nargs="+", choices=PROVIDERS, default=list(PROVIDERS), metavar="NAME")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
