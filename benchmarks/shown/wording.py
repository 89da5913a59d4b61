"""How figures, machines and remarks are written, on the screen, on pages and in pictures alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import dtypes, provider_of, providers


def label(provider: str) -> str:
    """The provider's name on pages and in plots."""
    return provider_of(provider).label


def number(value: float) -> str:
    """Three significant digits, whole numbers whole: 4,921; 49.2; 4.92; 0.492."""
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def time_unit(rows: Iterable[Row]) -> tuple[str, float]:
    """The unit for all of these rows and its microseconds: ms where the longest median is 10 ms or more."""
    longest = max((row.us_p50 or 0.0 for row in rows), default=0.0)
    return ("ms", 1e3) if longest >= 1e4 else ("µs", 1.0)


def millions(count: int | None) -> str:
    """Parameters: 11.1 M, 0.5 M, 64.2 k."""
    if count is None:
        return ""
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k" if count >= 1e3 else str(count)


def measured_on(rows: Sequence[Row]) -> str:
    """Device, dtypes, the day or days."""
    days = sorted({row.date for row in rows})
    return f"{rows[0].device}, {', '.join(dtypes(rows))}, {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "")


def measured_with(rows: Sequence[Row]) -> str:
    """Of torch, Triton and transformers, and the commit."""
    row = rows[-1]
    return f"torch {row.torch}, Triton {row.triton}, transformers {row.transformers}, commit {row.commit}"


def remarks(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """(provider, note) for what is to be known of those that ran, in the order of PROVIDERS.

    Where a provider has several notes (another mode of torch.compile for another shape), each says how often.
    """
    said: dict[str, Counter[str]] = {}
    for row in rows:
        if row.ran and row.note:
            said.setdefault(row.provider, Counter())[row.note] += 1
    return [(provider, _tally(said[provider])) for provider in providers(said)]


def absences(rows: Iterable[Row]) -> list[str]:
    """A line for each provider and each reason why it did not run; with the phases where it ran in others."""
    rows = list(rows)
    ran = {row.provider for row in rows if row.ran}
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if not row.ran:
            reasons.setdefault((row.provider, row.note), {})[row.phase] = None
    lines = []
    for provider in providers(name for name, _ in reasons):
        for (name, note), phases in reasons.items():
            if name == provider:
                where = f", {' and '.join(phases)}" if name in ran else ""
                lines.append(f"{label(name)}{where}: not run, {note}")
    return lines


def _tally(notes: Counter[str]) -> str:
    total = notes.total()
    return "; ".join(note if len(notes) == 1 else f"{note} ({n} of {total})" for note, n in notes.items())
