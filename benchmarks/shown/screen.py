"""What `adapter-fast bench` prints: a block of figures for every case, and a few lines to end with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import (
    BARE_MEANS,
    OUR_PROVIDERS,
    Group,
    best_mode,
    fastest,
    geometric_mean,
    groups,
    memory_share,
    over_bare,
    provider_of,
    speedup,
)
from adapter_fast.benchmarks.shown.columns import Column, columns_of
from adapter_fast.benchmarks.shown.wording import measured_on, measured_with, remarks

INDENT, GAP = 2, 2
SHORT_NOTE = 40  # characters; a longer one is printed once a suite
STYLES = {"faster": "green", "slower": "red", "same": "dim"}
EXPLAINED = {
    "× reference": "reference's median over this one's; the verdict is of paired samples",
    "over bare": f"time above {BARE_MEANS}",
    "floor": "the physical floor over the median",
    "of ref": "peak memory over the reference's",
}


def screen(rows: list[Row], console: Any) -> None:
    """Print every suite and case of `rows` on a rich Console, in as many columns as its width holds."""
    for suite in dict.fromkeys(row.suite for row in rows):
        mine = [row for row in rows if row.suite == suite]
        console.print()
        _line(console, f"{suite}: {measured_on(mine)}", "bold")
        _line(console, measured_with(mine), "dim")
        said: set[str] = set()
        titles: dict[str, None] = {}
        for case in dict.fromkeys(row.case for row in mine):
            titles |= dict.fromkeys(_block(case, [row for row in mine if row.case == case], console, said))
        console.print()
        for title in titles:
            if title in EXPLAINED:
                _line(console, f"{title}: {EXPLAINED[title]}", "dim")


def _block(case: str, rows: list[Row], console: Any, said: set[str]) -> list[str]:
    """Print one case; the titles of its columns."""
    from rich.table import Table
    from rich.text import Text

    sections = {(phase, mode): group for (_, phase, mode), group in groups(rows).items()}
    columns = columns_of(rows[0].suite)
    room = console.width - INDENT
    while True:
        widths = {column.title: _width(column, sections.values()) for column in columns}
        if sum(widths.values()) + GAP * (len(widths) - 1) <= room or not any(column.rank for column in columns):
            break
        columns.remove(max(columns, key=lambda column: column.rank))
    console.print()
    _line(console, case, "bold")
    told: set[tuple[str, ...]] = set()
    for place, ((phase, mode), group) in enumerate(sections.items()):
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
        for column in columns:
            side: Any = "left" if column.title == "provider" else "right"
            table.add_column(column.title, justify=side, width=widths[column.title], no_wrap=True)
        for row in (row for row in group.values() if row.ran):
            cells = [Text(column.cell(row, group)) for column in columns]
            for column, cell in zip(columns, cells):
                if column.title == "× reference":
                    cell.stylize(STYLES.get(row.versus, ""))
            table.add_row(*cells, style="bold" if row.provider == "fused" else None)
        table.show_header = place == 0
        _indented(console, Text(f"{phase}, {mode}", style="cyan"), 0)
        _indented(console, table)
        reasons = [(row.provider, row.note) for row in group.values() if not row.ran]
        fresh = [reason for reason in reasons if (phase, *reason) not in told]
        told |= {(phase, *reason) for reason in reasons}
        if fresh:
            _indented(console, _reasons(fresh, widths["provider"]))
    for provider, note in remarks(rows):
        text = f"{provider}: {note}"
        if text not in said:
            _line(console, text, "dim", INDENT)
            said |= {text} if len(text) > SHORT_NOTE else set()
    return list(widths)


def _width(column: Column, sections: Iterable[Group]) -> int:
    cells = [
        column.cell(row, group) for group in sections for row in group.values() if row.ran or column.title == "provider"
    ]
    return max(map(len, [column.title, *cells]))


def _reasons(absent: list[tuple[str, str]], width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True, width=width)
    table.add_column()
    for provider, note in absent:
        table.add_row(provider, Text(f"did not run: {note}", style="yellow"))
    return table


def _line(console: Any, text: str, style: str, indent: int = 0) -> None:
    from rich.text import Text

    _indented(console, Text(text, style=style), indent)


def _indented(console: Any, what: Any, indent: int = INDENT) -> None:
    from rich.padding import Padding

    console.print(Padding(what, (0, 0, 0, indent), expand=False), highlight=False)


def headline(rows: list[Row]) -> list[str]:
    """Plain lines to end a run with: one for each suite and phase, and one on memory. Geometric means over the cases.

    Fused is set against the reference, and against the fastest peer of each case; torch.compile is among the peers,
    so where fused was compiled as well, the faster of ours meets it.
    """
    lines, peaks = [], []
    for suite in dict.fromkeys(row.suite for row in rows):
        mine = [row for row in rows if row.suite == suite]
        mode = best_mode(mine)
        for phase in dict.fromkeys(row.phase for row in mine):
            chosen = [group for (_, p, m), group in groups(mine).items() if (p, m) == (phase, mode)]
            said = [part for part in (_against_reference(chosen), _against_peers(chosen), _overhead(chosen)) if part]
            name = f"{suite} {phase}" + ("" if mode == "eager" else f", {mode}")
            lines += [f"{name}: fused {'; '.join(said)}"] if said else []
        of_reference = [memory_share(g.get("fused"), g.get("reference")) for g in groups(mine).values()]
        known = [share for share in of_reference if share]
        peaks += [f"{geometric_mean(known):.2f} in {suite}"] if known else []
    return lines + ([f"peak memory of fused over the reference's: {', '.join(peaks)}"] if peaks else [])


def _against_reference(chosen: list[Group]) -> str:
    both = [(speedup(group.get("reference"), group.get("fused")), group) for group in chosen]
    ratios = [ratio for ratio, _ in both if ratio]
    if not ratios:
        return ""
    verdicts = Counter(group["fused"].versus for ratio, group in both if ratio)
    counts = ", ".join(f"{name} in {verdicts[name]}" for name in STYLES if verdicts[name])
    return f"{_factor(ratios)} the reference" + (f" ({counts} of {len(ratios)})" if counts else "")


def _against_peers(chosen: list[Group]) -> str:
    ratios, ahead, compiled = [], Counter[str](), ""
    for group in chosen:
        peers = [name for name in group if provider_of(name).role == "peer"]
        peer, ours = fastest(group, peers), fastest(group, OUR_PROVIDERS)
        ratio = speedup(peer, ours)
        if ratio and peer and ours:
            ratios.append(ratio)
            ahead[peer.provider] += ratio < 1
            compiled = "compiled, " if ours.provider != "fused" else compiled
    if not ratios:
        return ""
    losses = ", ".join(f"{name} in {count}" for name, count in ahead.most_common() if count)
    return f"{compiled}{_factor(ratios)} the fastest peer" + (f" (behind {losses} of {len(ratios)})" if losses else "")


def _overhead(chosen: list[Group]) -> str:
    excess = [over_bare(group.get("fused"), group) for group in chosen]
    times = [1 + share for share in excess if share is not None]
    return f"{100 * (geometric_mean(times) - 1):+.1f} % over the bare model" if times else ""


def _factor(ratios: list[float]) -> str:
    """Speed of one over another: '1.16× as fast as', '1.08× SLOWER than' for what is below 1."""
    mean = geometric_mean(ratios)
    return f"{mean:.2f}× as fast as" if mean >= 0.995 else f"{1 / mean:.2f}× SLOWER than"
