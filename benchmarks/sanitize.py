"""Every kernel form under compute-sanitizer: memcheck, racecheck, initcheck and synccheck, a line a tool.

python -m benchmarks.sanitize                    on a GPU with compute-sanitizer; exit code 1 where a tool finds a fault
python -m benchmarks.sanitize --tool racecheck   one tool
python -m benchmarks.sanitize --device cpu       the same launches under Triton's interpreter, to rehearse them
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from adapter_fast import fused_adapter
from adapter_fast.benchmarks.provenance import CHECKOUT
from adapter_fast.benchmarks.tune.examine import another_form, compiled_kernels, forget_kernels
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import OPTIONAL_FORMS, forced
from adapter_fast.profiler.errors import first_line
from adapter_fast.testing import Case, evaluate, grad_output, make_inputs

TOOLS = {
    "memcheck": ["--leak-check", "no"],
    "racecheck": ["--racecheck-report", "all"],
    "initcheck": [],
    "synccheck": [],
}
FOUND = 99  # exit code of the tool where it found something; the program's own otherwise
TIMEOUT = 900  # seconds for a tool: it runs every kernel ten to a hundred times slower
SUMMARY = re.compile(r"^=+ ((?:ERROR|RACECHECK) SUMMARY: .*)$", re.M)


@dataclass(frozen=True)
class Variant:
    """One forward and backward: the problem, the memory mode, tiles by phase; odd: x is a view at odd addresses."""

    name: str
    case: Case
    memory: str = "speed"
    choices: tuple[tuple[str, LaunchConfig], ...] = ()
    odd: bool = False

    @property
    def form(self) -> str:
        """The optional form it forces, "" for those that the rules choose."""
        return next((config.form for _, config in self.choices if config.form in OPTIONAL_FORMS), "")


def variants(device: str) -> Iterator[Variant]:
    """Every form, memory mode and layout, on ragged sizes; smaller ones, and no bfloat16, under the interpreter."""
    gpu = device == "cuda"
    kind = torch.bfloat16 if gpu else torch.float16
    case = Case(203 if gpu else 70, 192 if gpu else 48, 64 if gpu else 16, dtype=kind, device=device)
    for memory in ("speed", "balanced", "lean"):
        yield Variant(f"fused, {memory}", case, memory)
        yield Variant(f"split, {memory}", replace(case, m=520 if gpu else 264), memory)
    yield Variant("fused, odd sizes", replace(case, d=77, m=19))
    yield Variant("fused, odd addresses", case, odd=True)
    yield Variant("fused, one token", replace(case, T=1))
    yield Variant("fused, another residual", replace(case, residual="tensor", bias=False))
    yield Variant("fused, no residual", replace(case, residual="none"))
    yield Variant("fused, float32 weights", replace(case, weight_dtype=torch.float32))
    yield Variant("fused, float32", replace(case, dtype=torch.float32))
    m = 64 if gpu else 16
    partial_sums = LaunchConfig("fused", 64, 64, m, 4, 3, partial_sums=True)
    yield Variant("fused, partial sums", case, choices=(("forward", partial_sums),))
    resident = LaunchConfig("resident", 64, 64, m, 4, 2)
    yield Variant("resident", replace(case, d=256 if gpu else 64), choices=(("forward", resident),))
    sliced = LaunchConfig("sliced", 64, 64, m, 4, 1, partial_sums=True)
    yield Variant("sliced", case, choices=(("forward", sliced),))
    queue = LaunchConfig("queue", 64, 64, m, 4, 2, programs_per_sm=1)
    many = replace(case, T=2500 if gpu else 70)
    for memory in ("speed", "balanced", "lean"):
        yield Variant(f"queue, {memory}", many, memory, choices=(("queue", queue),))
    long = replace(case, T=64 * 150 + 5 if gpu else 64 * 9 + 5, d=64 if gpu else 32)
    yield Variant("queue, piece after piece", long, choices=(("queue", queue),))


def launch(device: str) -> int:
    """Run every variant once; the exit code.

    A form that this machine does not have is told; any other failure ends the run.
    """
    torch.set_float32_matmul_precision("high")  # at the highest, float32 on a GPU is PyTorch's
    for variant in variants(device):
        forget_kernels()
        why = ""
        try:
            run(variant)
            if device == "cuda":
                why = another_form(compiled_kernels(), variant.form)
        except (ValueError, NotImplementedError) as error:
            if not variant.form:
                raise
            why = first_line(error)
        print(f"{variant.name}: {f'not here ({why})' if why else 'ran'}", flush=True)
    return 0


def run(variant: Variant) -> None:
    """One forward and backward; ValueError where a result is not finite."""
    inputs, dy = make_inputs(variant.case), grad_output(variant.case)
    if variant.odd:
        x = inputs["x"].detach()  # type: ignore[union-attr]
        wide = torch.zeros(x.shape[0], x.shape[1] + 3, dtype=x.dtype, device=x.device)
        wide[:, 1:-2] = x
        inputs["x"] = wide[:, 1:-2].requires_grad_()
    with forced(**dict(variant.choices)):
        results = evaluate(partial(fused_adapter, memory=variant.memory), variant.case, inputs, dy)
    wrong = [name for name, value in results.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise RuntimeError(f"{variant.name}: {', '.join(wrong)} not finite")


def command(tool: str, name: str) -> list[str]:
    """One of TOOLS over every variant; every allocation is its own, so that a step outside of one is seen."""
    options = ["--tool", name, *TOOLS[name], "--error-exitcode", str(FOUND), "--print-limit", "20"]
    return [tool, *options, sys.executable, "-m", __spec__.name, "--launch", "cuda"]


def summary(text: str) -> str:
    """The tool's own last line; ValueError where it never got there."""
    found = SUMMARY.findall(text)
    if not found:
        last = [line for line in text.splitlines() if line.strip()][-1:]
        raise ValueError(f"no summary in what it printed, which ends with {''.join(last)[:200]!r}")
    return found[-1]


def main(arguments: list[str] | None = None) -> int:
    """Run the tools; 0 where all are clean, 1 where one found something or failed, 2 where there is nothing to run."""
    options = _parse(arguments)
    if options.launch:
        return launch(options.launch)
    tools = options.tool or list(TOOLS)
    if options.device == "cpu":
        return _rehearse(tools)
    if not torch.cuda.is_available():
        print("no CUDA device here: run on a GPU machine, or rehearse with --device cpu", file=sys.stderr)
        return 2
    tool = _find()
    if tool is None:
        print("compute-sanitizer is neither on the PATH nor in the CUDA toolkit: nothing was checked", file=sys.stderr)
        return 2
    failed = sum(not _run(tool, name) for name in tools)
    return int(failed > 0)


def _run(tool: str, name: str) -> bool:
    try:
        done = subprocess.run(command(tool, name), capture_output=True, text=True, timeout=TIMEOUT, env=_environment())
        line = summary(done.stdout + done.stderr)
    except subprocess.TimeoutExpired:
        print(f"{name}: FAILED, not done after {TIMEOUT} s")
        return False
    except ValueError as error:
        print(f"{name}: FAILED, {error}")
        return False
    ran = sum(text.endswith(": ran") for text in done.stdout.splitlines())
    absent = [text for text in done.stdout.splitlines() if ": not here (" in text]
    clean = done.returncode == 0 and ran > 0
    print(f"{name}: {'clean' if clean else 'FAILED'}, {ran} variants, {line} (exit code {done.returncode})")
    print("\n".join(f"    {text}" for text in absent), end="\n" if absent else "")
    if not clean:
        print("\n".join(f"    {text}" for text in done.stdout.splitlines() if text.startswith("=====")))
    return clean


def _rehearse(tools: Sequence[str]) -> int:
    order = [sys.executable, "-m", __spec__.name, "--launch", "cpu"]
    done = subprocess.run(order, env=_environment() | {"TRITON_INTERPRET": "1"})
    for name in tools:
        print(f"on a GPU {name} would run: {shlex.join(command('compute-sanitizer', name))}")
    print("a CPU has nothing to sanitize: the launches were rehearsed, nothing was checked")
    return int(done.returncode != 0)


def _find() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    places = ("compute-sanitizer", f"{home}/bin/compute-sanitizer", f"{home}/compute-sanitizer/compute-sanitizer")
    return next(filter(None, map(shutil.which, places)), None)


def _environment() -> dict[str, str]:
    root = str(CHECKOUT or Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return clean | {"PYTHONPATH": os.pathsep.join(paths), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sanitize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tool", action="append", choices=list(TOOLS), help="may be repeated; all by default")
    parser.add_argument("--launch", choices=("cpu", "cuda"), help="only launch every variant, once")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
