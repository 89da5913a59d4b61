"""The screen of `adapter-fast doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .doctor import Diagnosis

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {True: "[green]✓[/]", False: "[bold red]✗[/]"}


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
