"""The tables of docs/benchmarks.md, each from the rows of one suite, device and dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapter_fast.benchmarks.rows import Row
from adapter_fast.benchmarks.rows.compare import (
    BARE_MEANS,
    MODES,
    OUR_PROVIDERS,
    adapter_parameters,
    best_mode,
    floor_share,
    groups,
    memory_share,
    model_size,
    over_bare,
    providers,
    speedup,
    tokens_per_second,
    variant,
)
from adapter_fast.benchmarks.shown.wording import (
    absences,
    label,
    measured_on,
    measured_with,
    millions,
    number,
    remarks,
    time_unit,
)
from adapter_fast.common.markdown import markdown_table


def op_table(rows: Sequence[Row]) -> str:
    """A line for each case and phase: fused in time, and against everybody else."""
    mode = best_mode(rows)
    chosen = [row for row in _in_order(rows) if row.mode == mode or not row.ran]
    found = {place: group for place, group in groups(chosen).items() if place[2] == mode and "fused" in group}
    unit, size = time_unit(group["fused"] for group in found.values())
    peers = [name for name in providers(row.provider for row in rows) if name not in (*OUR_PROVIDERS, "reference")]
    launched = groups(row for row in rows if row.mode == "eager") if mode != "eager" else {}
    titles = ["tokens, d, m", "phase", f"fused, {unit}", "reference", *map(label, peers), "of the floor"]
    titles += ["peak memory against reference", *(["reference, launched from Python"] if launched else [])]
    lines = []
    for (case, phase, _), group in found.items():
        fused, share = group["fused"], floor_share(group["fused"])
        verdict = f" ({fused.versus})" if fused.versus in ("same", "slower") else ""
        cells = [_sizes(fused), phase, _spread(fused, size), _times(group.get("reference"), fused) + verdict]
        cells += [_times(group.get(name), fused) for name in peers]
        cells += ["" if share is None else f"{100 * share:.0f} %"]
        cells += [_two_digits(memory_share(fused, group.get("reference")))]
        if launched:
            eager = launched.get((case, phase, "eager"), {})
            cells.append(_times(eager.get("reference"), eager.get("fused")))
        lines.append(cells)
    said = [
        "Median (p20 … p80). A peer's column is its time over ours: above 1, ours is faster",
        "The floor is the longer of moving the fewest bytes and doing the products, at rates measured in the same run",
        "In forward+backward y is released before the backward starts, as in Houlsby's placement, where the residual "
        "addition that follows keeps no input",
    ]
    return markdown_table(titles, lines) + _caption(chosen, said, MODES[mode])


def modes_table(rows: Sequence[Row]) -> str:
    """A line for each case where the memory modes were measured: the time of a training pass in each."""
    mode = best_mode(rows)
    names = ("fused", "fused-balanced", "fused-lean")
    chosen = [row for row in _in_order(rows) if row.provider in names and row.mode == mode and row.ran]
    found = [group for group in groups(chosen).values() if set(names) <= set(group)]
    unit, size = time_unit(group["fused"] for group in found)
    titles = ["tokens, d, m", "phase", f"speed, {unit}", "balanced", "lean"]
    lines = [
        [_sizes(group["fused"]), group["fused"].phase, *(_spread(group[name], size) for name in names)]
        for group in found
    ]
    kept = "speed keeps act(z) and its slope for the backward, balanced z, lean nothing"
    return markdown_table(titles, lines) + _caption(
        [row for group in found for row in group.values()], [kept], MODES[mode]
    )


def model_table(rows: Sequence[Row]) -> str:
    """A line for each provider under each case, phase and mode."""
    titles = ["", "provider", "ms", "tokens/s", "over bare", "peak memory", "parameters added"]
    lines = []
    for (case, phase, mode), group in groups(rows).items():
        name = f"{_model(case)}, {phase}, {MODES[mode]}"
        for row in group.values():
            rate, above = tokens_per_second(row), over_bare(row, group)
            if row.us_p50:
                cells = [_spread(row, 1e3), f"{rate:,.0f}", "" if above is None else f"{100 * above:+.1f} %"]
                cells += ["" if row.peak_bytes is None else f"{number(row.peak_bytes / 1e6)} MB"]
                cells += ["" if row.parameters is None else f"{row.parameters:,}"]
            else:
                cells = [f"not run: {row.note}", *[""] * 4]
            lines.append([name, label(row.provider), *cells])
            name = ""
    said = ["Median (p20 … p80); peak memory above weights and inputs", f"over bare: above {BARE_MEANS}"]
    return markdown_table(titles, lines) + _caption(rows, said, reasons=False)


def latency_table(rows: Sequence[Row]) -> str:
    """Table 1 of the LoRA paper (arXiv 2106.09685): a line for each provider and mode, a column for each case."""
    cases = list(dict.fromkeys(row.case for row in sorted(rows, key=lambda row: -row.tokens)))
    modes = [mode for mode in MODES if any(row.mode == mode and row.us_p50 for row in rows)]
    found = groups(rows)
    models = dict.fromkeys(size.model for size in map(model_size, cases) if size)
    titles = [", ".join(models) or "provider", "", *(_heading(case, rows) for case in cases)]
    lines = []
    for name in providers(row.provider for row in rows):
        for mode in modes:
            beside = [group for case in cases for group in [found.get((case, "forward", mode), {})]]
            if not any(name in group for group in beside):
                continue
            if mode != modes[0] and not any(name in group and group[name].ran for group in beside):
                continue
            lines.append([label(name), MODES[mode], *(_percentiles(name, group) for group in beside)])
    said = [f"Columns: batch / tokens / parameters of our adapters. In ms: p50 (p90, p99), and p50 above {BARE_MEANS}"]
    return markdown_table(titles, lines) + _caption(rows, said)


def memory_table(rows: Sequence[Row]) -> str:
    """A line for each case and phase, a column for each provider that ran: megabytes, and over the reference's."""
    names = providers(row.provider for row in rows if row.ran)
    lines = []
    for (_, phase, _), group in groups(_in_order(rows)).items():
        cells = []
        for name in names:
            row = group.get(name)
            share = memory_share(row, group.get("reference")) if name != "reference" else None
            ours = "" if share is None else f" ({share:.2f})"
            cells.append(f"{number(row.peak_bytes / 1e6)}{ours}" if row and row.peak_bytes else "not run")
        lines.append([_sizes(next(iter(group.values()))), phase, *cells])
    said = ["Peak MB of one call above its inputs, what the backward keeps included (in parentheses: over reference's)"]
    return markdown_table(["tokens, d, m", "phase", *map(label, names)], lines) + _caption(rows, said)


def _caption(rows: Sequence[Row], said: Sequence[str], mode: str = "", reasons: bool = True) -> str:
    """Under a table: the machine and how to read it; then what is to be known of a provider, and who did not run."""
    origin = f"{measured_on(rows)}{f', {mode}' if mode else ''}; {measured_with(rows)}"
    notes = [f"{label(provider)}: {note}" for provider, note in remarks(rows)]
    notes += absences(rows) if reasons else []
    return f"\n{'. '.join([origin, *said])}.\n" + (f"\n{'. '.join(notes)}.\n" if notes else "")


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """By hidden size, bottleneck and tokens; a stable sort, so phases and providers stay as they are."""
    return sorted(rows, key=lambda row: (row.hidden, row.bottleneck, variant(row.case), row.tokens))


def _sizes(row: Row) -> str:
    kind = variant(row.case)
    return f"{row.tokens}, {row.hidden}, {row.bottleneck}" + (f" ({kind})" if kind else "")


def _model(case: str) -> str:
    size = model_size(case)
    return f"{size.model}, {size.batch} × {size.seq_len} tokens" if size else case


def _heading(case: str, rows: Sequence[Row]) -> str:
    size, own = model_size(case), adapter_parameters(row for row in rows if row.case == case)
    return " / ".join([*([str(size.batch), str(size.seq_len)] if size else [case]), *([millions(own)] if own else [])])


def _percentiles(name: str, group: dict[str, Row]) -> str:
    row = group.get(name)
    if row is None:
        return ""
    if not row.us_p50 or not row.us_p90 or not row.us_p99:
        return "not run"
    above = over_bare(row, group)
    tail = "" if above is None else f" {100 * above:+.1f} %"
    return f"{number(row.us_p50 / 1e3)} ({number(row.us_p90 / 1e3)}, {number(row.us_p99 / 1e3)}){tail}"


def _spread(row: Row, size: float) -> str:
    if not row.us_p50 or not row.us_p20 or not row.us_p80:
        return "not run"
    return f"{number(row.us_p50 / size)} ({number(row.us_p20 / size)} … {number(row.us_p80 / size)})"


def _times(peer: Row | None, ours: Row | None) -> str:
    ratio = speedup(peer, ours)
    return f"{ratio:.2f}×" if ratio else "not run"


def _two_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
