"""Every kernel form under compute-sanitizer: memcheck, racecheck, initcheck and synccheck, a line a tool.

python -m benchmarks.tiles.sanitize                    with compute-sanitizer; exit code 1 where a tool finds a fault
python -m benchmarks.tiles.sanitize --tool racecheck   one tool
python -m benchmarks.tiles.sanitize --variant sliced    only the variants whose names have this word
python -m benchmarks.tiles.sanitize --device cpu       the same launches under Triton's interpreter, to rehearse them
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
from adapter_fast.benchmarks.rows.provenance import CHECKOUT
from adapter_fast.benchmarks.tiles.compiled import another_form, compiled_kernels, forget_kernels
from adapter_fast.common.errors import first_line
from adapter_fast.kernels.offers import OPTIONAL_FORMS
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import forced
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
    sliced = LaunchConfig("sliced", 64, 64, m, 4, 1, partial_sums=True)
    yield Variant("sliced", case, choices=(("forward", sliced),))


def chosen(device: str, words: Sequence[str]) -> list[Variant]:
    """The variants with one of these words in their names; all where there is no word.

    Raises:
        ValueError: a word that is in no name.
    """
    every = list(variants(device))
    for word in words:
        if not any(word in one.name for one in every):
            names = "; ".join(one.name for one in every)
            raise ValueError(f"--variant must be part of a name out of {names}, got {word!r}")
    return [one for one in every if not words or any(word in one.name for word in words)]


def launch(device: str, words: Sequence[str] = ()) -> int:
    """Run every variant once, or those with one of these words in their names; the exit code.

    A form that this machine does not have is told; any other failure ends the run.
    """
    for variant in chosen(device, words):
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


def command(tool: str, name: str, words: Sequence[str] = ()) -> list[str]:
    """One of TOOLS over these variants; every allocation is its own, so that a step outside of one is seen."""
    options = ["--tool", name, *TOOLS[name], "--error-exitcode", str(FOUND), "--print-limit", "20"]
    only = [word for one in words for word in ("--variant", one)]
    return [tool, *options, sys.executable, "-m", __spec__.name, "--launch", "cuda", *only]


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
    words = options.variant or []
    try:
        chosen(options.device, words)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.launch:
        if options.launch == "cuda":  # a process of its own; at the highest precision float32 on a GPU is PyTorch's
            torch.set_float32_matmul_precision("high")
        return launch(options.launch, words)
    tools = options.tool or list(TOOLS)
    if options.device == "cpu":
        return _rehearse(tools, words)
    if not torch.cuda.is_available():
        print("no CUDA device here: run on a GPU machine, or rehearse with --device cpu", file=sys.stderr)
        return 2
    tool = _find()
    if tool is None:
        print("compute-sanitizer is neither on the PATH nor in the CUDA toolkit: nothing was checked", file=sys.stderr)
        return 2
    failed = sum(not _run(tool, name, words, options.timeout) for name in tools)
    return int(failed > 0)


def _run(tool: str, name: str, words: Sequence[str], timeout: float) -> bool:
    """One tool; what it said until it was cut is told too."""
    try:
        order = command(tool, name, words)
        done = subprocess.run(order, capture_output=True, text=True, timeout=timeout, env=_environment())
        text, end, clean = done.stdout, f"exit code {done.returncode}", done.returncode == 0
        line = summary(done.stdout + done.stderr)
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")  # bytes, whatever was asked for
        line, end, clean = "no summary", f"not done after {timeout:g} s", False
    except ValueError as error:
        line, clean = str(error), False
    lines = text.splitlines()
    ran = sum(one.endswith(": ran") for one in lines)
    clean = clean and ran > 0
    told = [one for one in lines if ": not here (" in one]
    told += [] if clean else [one for one in lines if one.startswith("=====")]
    print(f"{name}: {'clean' if clean else 'FAILED'}, {ran} variants, {line} ({end})")
    print("".join(f"    {one}\n" for one in told), end="", flush=True)
    return clean


def _rehearse(tools: Sequence[str], words: Sequence[str]) -> int:
    order = [sys.executable, "-m", __spec__.name, "--launch", "cpu"]
    order += [word for one in words for word in ("--variant", one)]
    done = subprocess.run(order, env=_environment() | {"TRITON_INTERPRET": "1"})
    for name in tools:
        print(f"on a GPU {name} would run: {shlex.join(command('compute-sanitizer', name, words))}")
    print("a CPU has nothing to sanitize: the launches were rehearsed, nothing was checked")
    return int(done.returncode != 0)


def _find() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    places = ("compute-sanitizer", f"{home}/bin/compute-sanitizer", f"{home}/compute-sanitizer/compute-sanitizer")
    return next(filter(None, map(shutil.which, places)), None)


def _environment() -> dict[str, str]:
    root = str(CHECKOUT or Path(__file__).parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return clean | {"PYTHONPATH": os.pathsep.join(paths), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.sanitize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tool", action="append", choices=list(TOOLS), help="may be repeated; all by default")
    parser.add_argument("--variant", action="append", metavar="WORD", help="may be repeated; all by default")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds for a tool")
    parser.add_argument("--launch", choices=("cpu", "cuda"), help="only launch every variant, once")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
