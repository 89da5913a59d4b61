"""What `adapter-fast profile` prints: a header, the latencies, the overhead, a row a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .breakdown import LayerTime
from .measured import AdapterFloor, Profile
from .picture import short_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ALL_ROWS, FIRST_AND_LAST = 24, 6
SIDE_NAMES = {"bare": "bare model", "adapters": "with adapters"}


def print_profile(console: Console, profile: Profile, paths: list[Path]) -> None:
    """The whole screen, for 100 columns and more."""
    _print_header(console, profile)
    _print_latency(console, profile)
    _print_overhead(console, profile)
    _print_layers(console, profile)
    names = ", ".join(path.name for path in paths)
    console.print(f"\nwritten to {paths[0].parent}: {names}", highlight=False, markup=False, soft_wrap=True)


def _print_header(console: Console, profile: Profile) -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    request, about = profile.request, profile.about
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    origin = "fresh" if request.adapter is None else escape(f"from {request.adapter}")
    grid.add_row(
        "model",
        f"{escape(short_name(request.model))}: {about['model']}, {about['layers']} layers, d = {about['hidden']}, "
        f"{about['parameters'] / 1e6:,.1f} M parameters",
    )
    grid.add_row(
        "adapters",
        f"{about['adapters']} ({origin}), m = {about['bottleneck']}, "
        f"{about['adapter_parameters'] / 1e6:,.2f} M parameters",
    )
    grid.add_row(
        "input", f"batch {request.batch} × {request.seq_len} = {about['tokens']:,} tokens, no padding, {request.dtype}"
    )
    grid.add_row("device", about["device"] + _device_note(profile))
    for each in about["backends"]:
        grid.add_row("backend", f"{each['backend']}: {escape(each['reason'])}")
    grid.add_row("forward", f"inference ({profile.mode}), {len(profile.sides['bare'].samples)} of each model in turns")
    grid.add_row("with", ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    console.print()
    console.rule("[bold]adapter-fast profile", align="left")
    console.print(Padding(grid, (1, 0)), highlight=False)


def _device_note(profile: Profile) -> str:
    if profile.request.device == "cpu":
        return "; a CPU has no device time apart from the host's"
    mhz, celsius = profile.about["clock_mhz"], profile.about["celsius"]
    return "" if mhz is None else f", {mhz} MHz, {celsius} °C"


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    return table


def _print_latency(console: Console, profile: Profile) -> None:
    on_gpu = profile.request.device == "cuda"
    clocks = ("host", "device", "kernels") if on_gpu else ()
    table = _table(
        "forward, µs", "p50", "p90", "p99", "jitter", *clocks, "launches" if on_gpu else "operations", "peak, MiB"
    )
    for name, side in profile.sides.items():
        spread = side.latency
        times = (side.host_us, side.device_us, side.kernel_us) if on_gpu else ()
        table.add_row(
            SIDE_NAMES[name],
            *(f"{value:,.0f}" for value in (spread.p50, spread.p90, spread.p99)),
            f"{100 * spread.jitter:.0f} %",
            *(f"{value:,.0f}" for value in times if value is not None),
            "not counted" if side.launches is None else f"{side.launches:,}",
            f"{side.peak_bytes / 2**20:,.1f}",
        )
    console.print(table)


def _print_overhead(console: Console, profile: Profile) -> None:
    over, about = profile.overhead, profile.about
    console.print(
        f"[bold]overhead[/]  {over.us_p50:+,.0f} µs ({over.us_p20:+,.0f} … {over.us_p80:+,.0f})   "
        f"{over.percent_p50:+.1f} % ({over.percent_p20:+.1f} … {over.percent_p80:+.1f})\n"
        f"          {over.us_p50 / about['adapters']:+,.1f} µs an adapter, "
        f"{over.us_p50 / about['layers']:+,.1f} µs a layer",
        highlight=False,
    )
    notes = ["Overhead: median (p20 … p80) of paired differences. Jitter: p99 over p50, less one."]
    compiled = [(SIDE_NAMES[name], side.compile_seconds) for name, side in profile.sides.items()]
    seconds = [f"{name} {value:.1f} s" for name, value in compiled if value is not None]
    if profile.request.device == "cuda":
        notes.append("Host: until the call returns; device: between two events; kernels: the sum of what ran there.")
    if seconds:
        notes.append(f"Compiling took {', '.join(seconds)}, in no figure above and less where a cache had it.")
    if profile.request.cuda_graph:
        notes.append("Peak memory is of the forward that was captured.")
    console.print(" ".join(notes), style="dim", highlight=False)


def _print_layers(console: Console, profile: Profile) -> None:
    breakdown = profile.breakdown
    table = _table(
        "layer, µs", "total", "attention", "adapter", "of floor", "feed-forward", "adapter", "of floor", "other"
    )
    against = {(adapter.layer, adapter.kind): adapter for adapter in profile.adapters}
    layers = list(enumerate(breakdown.layers))
    hidden = len(layers) - 2 * FIRST_AND_LAST if len(layers) > ALL_ROWS else 0
    for index, layer in layers:
        if hidden and index == FIRST_AND_LAST:
            table.add_row(f"… {hidden} more")
        if not hidden or not FIRST_AND_LAST <= index < FIRST_AND_LAST + hidden:
            table.add_row(f"{index}", *_layer_row(layer, against))
    console.print(table)
    first = profile.adapters[0]
    console.print(
        f"Layers: {profile.clock} of the eager model while traced, which costs time on the host; median of "
        f"{breakdown.forwards} forwards of {breakdown.forward:,.0f} µs, {breakdown.outside:,.0f} of them outside of "
        f"the layers. "
        f"Of floor: an adapter must move {first.bytes / 1e6:,.2f} MB and multiply its matrices, which takes "
        f"{first.floor_us:,.2f} µs at this run's {profile.ceilings.copy_gbps:,.0f} GB/s and "
        f"{profile.ceilings.tflops:,.2f} TFLOP/s.",
        style="dim",
        highlight=False,
    )


def _layer_row(layer: LayerTime, against: dict[tuple[str, str], AdapterFloor]) -> list[str]:
    row = [f"{layer.total:,.0f}"]
    for kind in ("attention", "feed_forward"):
        adapter = against.get((layer.name, kind))
        row.append(f"{layer.parts[kind]:,.0f}")
        row += ["–", "–"] if adapter is None else [f"{adapter.us:,.0f}", f"{100 * adapter.share:.0f} %"]
    return [*row, f"{layer.parts['other']:,.0f}"]
