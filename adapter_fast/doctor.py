"""`adapter-fast doctor`: versions, device, backends, optional tools, and a self-check of the op; and its screen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from torch import Tensor

from .checks import DTYPES, select_backend
from .common.errors import first_line
from .functional import fused_adapter
from .measure import machine
from .measure.memory import free_bytes
from .testing import Case, assert_case, evaluate, grad_output, make_inputs, truth

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100  # of what is printed into a file or a pipe
MARKS = {True: "[green]✓[/]", False: "[bold red]✗[/]"}
SIZES = {"aligned": (64, 64, 16), "ragged": (37, 50, 7)}  # T, d, m
CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class BackendOf:
    """Which backend computes a dtype here, and why."""

    dtype: str
    backend: str
    reason: str


@dataclass(frozen=True)
class Option:
    """Something that can do without: what was found of it ("" for nothing), and what it is for."""

    name: str
    found: str
    purpose: str


@dataclass(frozen=True)
class Check:
    """One case against the oracle. detail: the errors found, relative to the largest value, or what went wrong."""

    dtype: str
    sizes: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything on the screen."""

    versions: dict[str, str]
    device: str
    device_notes: list[str]
    backends: list[BackendOf]
    options: list[Option]
    checks: list[Check]

    @property
    def healthy(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def examine() -> Diagnosis:
    """Look at this machine's first GPU, or at its CPU where it has none, and run the self-check there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = {dtype: str(dtype).removeprefix("torch.") for dtype in DTYPES}
    backends = [BackendOf(names[dtype], *_backend(device, dtype)) for dtype in DTYPES]
    return Diagnosis(
        versions=machine.versions(),
        device=machine.device_name(device),
        device_notes=list(_notes(device)),
        backends=backends,
        options=list(_options()),
        checks=[_check(device, dtype, names[dtype], kind) for dtype in DTYPES for kind in SIZES],
    )


def _backend(device: str, dtype: torch.dtype) -> tuple[str, str]:
    try:
        return select_backend(torch.device(device), dtype)
    except (RuntimeError, ValueError) as error:  # ADAPTER_FAST_BACKEND asks for what cannot be
        return "none", str(error)


def _notes(device: str) -> Iterator[str]:
    yield f"{free_bytes(device) / 2**30:,.1f} GiB of memory free"
    if device == "cpu":
        yield "no CUDA GPU: Triton runs here only under its interpreter (TRITON_INTERPRET=1), else PyTorch computes"
        return
    major, minor = torch.cuda.get_device_capability()
    yield f"compute capability {major}.{minor}"
    yield f"CUDA {torch.version.cuda}, driver {_driver()}"


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown without nvidia-smi"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown: nvidia-smi does not answer"


def _options() -> Iterator[Option]:
    for package, purpose in (
        ("peft", "the LoRA peer of the benchmarks"),
        ("matplotlib", "the pictures of bench and profile"),
        ("pytest-benchmark", "pytest benchmarks/"),
    ):
        version = machine.version(package)
        yield Option(package, "" if version == "none" else version, purpose)
    for tool, purpose in (
        ("nvidia-smi", "a GPU's clock and temperature beside its results"),
        ("ncu", "bytes and occupancy of one launch: make gpu-profile"),
    ):
        yield Option(tool, shutil.which(tool) or "", purpose)
    folder = Path(os.environ.get("ADAPTER_FAST_ADAPTERHUB") or CHECKOUT / "build/adapterhub")
    yield Option("AdapterHub", str(folder) if folder.is_dir() else "", "the AdapterHub peer: make peers")


def _check(device: str, dtype: torch.dtype, name: str, kind: str) -> Check:
    T, d, m = SIZES[kind]
    sizes = f"{kind}, T {T} × d {d} × m {m}"
    case = Case(T=T, d=d, m=m, dtype=dtype, device=device)
    try:
        inputs, dy = make_inputs(case), grad_output(case)
        assert_case(fused_adapter, case, inputs, dy)
        actual, expected = evaluate(fused_adapter, case, inputs, dy), truth(case, inputs, dy)
    except Exception as error:  # whatever a compiler, a driver or a wrong result raises is what the doctor is for
        return Check(name, sizes, False, first_line(error).replace(f" of {case}", ""))
    errors = {key: _error(actual[key], expected[key]) for key in actual}
    y = errors.pop("y")
    return Check(name, sizes, True, f"y within {y:.0e}, gradients within {max(errors.values()):.0e}")


def _error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Versions, device, backends, optional tools, a line a check, and the verdict."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("versions", ", ".join(f"{name} {version}" for name, version in diagnosis.versions.items()))
    facts.add_row("device", diagnosis.device)
    for note in diagnosis.device_notes:
        facts.add_row("", note)
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in diagnosis.backends:
        reasons.setdefault((each.backend, each.reason), []).append(each.dtype)
    for index, ((backend, reason), dtypes) in enumerate(reasons.items()):
        facts.add_row("" if index else "backend", f"{', '.join(dtypes)}: [bold]{backend}[/], {escape(reason)}")
    for index, option in enumerate(diagnosis.options):
        mark = MARKS[True] if option.found else "[dim]–[/]"
        found = escape(option.found) or "not found"
        facts.add_row("" if index else "optional", f"{mark} {option.name} [dim]{found}; for {option.purpose}[/]")

    checks = Table.grid(padding=(0, 2))
    for check in diagnosis.checks:
        checks.add_row(MARKS[check.passed], check.dtype, check.sizes, escape(check.detail))
    failed = sum(not check.passed for check in diagnosis.checks)
    total = len(diagnosis.checks)
    console.print()
    console.rule("[bold]adapter-fast doctor", align="left")
    console.print(Padding(facts, (1, 0)), highlight=False)
    console.print(
        "forward and backward against the oracle in float64, errors relative to the largest value", style="dim"
    )
    console.print(checks, highlight=False)
    verdict = f"[bold red]{failed} of {total} checks failed" if failed else f"[green]all {total} checks passed"
    console.print(f"\n{verdict}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as a JSON object.")
def doctor(as_json: bool) -> None:
    """Say which versions, device and backends there are, and check forward and backward against the oracle."""
    from rich.console import Console

    diagnosis = examine()
    if as_json:
        click.echo(json.dumps({**asdict(diagnosis), "healthy": diagnosis.healthy}, indent=1, ensure_ascii=False))
    else:
        print_diagnosis(Console(width=None if sys.stdout.isatty() else WIDTH), diagnosis)
    if not diagnosis.healthy:
        raise SystemExit(1)
