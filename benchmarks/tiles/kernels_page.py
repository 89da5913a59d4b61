"""The pictures and tables of docs/kernels.md, from the traffic model, the compiler's readings and measured rows.

    python -m benchmarks.tiles.kernels_page             draws docs/*.svg and fills the tables of docs/kernels.md
    python -m benchmarks.tiles.kernels_page --check     writes nothing; exit code 1 where they are not up to date

The compiler's readings are docs/aot/*.json: `python -m benchmarks.tiles.aot --arch sm_90
--filter "bf16/bf16 ieee aligned" --output docs/aot` writes them. Figures of the model are predictions and say so.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapter_fast.benchmarks.rows import Row, read_rows
from adapter_fast.benchmarks.rows.provenance import CHECKOUT, RESULTS
from adapter_fast.benchmarks.tiles.traffic import (
    Direction,
    Machine,
    Programs,
    Traffic,
    chain,
    compiled_programs,
    floor,
    launch_traffic,
    predicted_us,
    tiles_text,
)
from adapter_fast.common.files import write_whole
from adapter_fast.common.sheet import STYLE
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem

T, D, M = 65536, 1024, 64  # the shape of the pictures
GPU: dict[str, Any] = {"x_bytes": 2, "w_bytes": 2, "precision": "ieee", "arch": "sm_90", "sms": 132}
HEADLINE = [(t, d, m) for t in (16384, 65536) for d, m in ((768, 16), (768, 64), (1024, 64), (1024, 128), (4096, 64))]
HEADLINE += [(65536, 1024, 256), (65536, 1024, 512), (128, 1024, 64)]
MARK = "numbers sha256:"
CASE = re.compile(r"T(\d+)-d(\d+)-m(\d+)-bfloat16")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.S)
READ, WRITTEN, AGAIN = "#0072B2", "#D55E00", "#56B4E9"


def problem(d: int = D, m: int = M) -> Problem:
    """A bfloat16 shape on an H100."""
    return Problem(d, m, **GPU)


# ---- numbers


def elsewhere() -> dict[str, dict[str, tuple[float, float]]]:
    """DRAM reads and writes in units of X, counted by kernel: what eager PyTorch and torch.compile at its best do.

    eager forward: addmm, gelu, addmm, add; backward: eight kernels. compile forward: two products with what follows
    each; backward: six kernels. Weights are left out, z = m / d is one [T, m] tensor.
    """
    z = M / D
    return {
        "forward": {
            "eager": (1 + z + z + 2, z + z + 1 + 1),
            "torch.compile, at best": (1 + (z + 1), z + 1),
        },
        "backward": {
            "eager": (1 + (1 + z) + 1 + 2 * z + z + (z + 1) + z + 2, z + z + 1 + 1),
            "torch.compile, at best": ((1 + z) + (1 + z) + 1 + (z + 1) + z + (z + 1), z + 1),
        },
    }


def forms() -> dict[str, dict[str, list[Traffic]]]:
    """Ours at the shape of the pictures, by direction and form."""
    narrow = LaunchConfig("fused", 64, 64, M, 4, 3)
    grads = LaunchConfig("fused", 64, 128, M, 8, 3)
    tiles: dict[str, LaunchConfig] = {"forward": LaunchConfig("split", 64, 64, M, 4, 3)}
    tiles["expand"] = LaunchConfig("split", 64, 128, 64, 4, 3)
    two = {"dx": narrow, "weight_grad": grads}

    def one(phase: Phase, config: LaunchConfig, mode: Any = "inference", d: int = D) -> list[Traffic]:
        return [launch_traffic(phase, config, problem(d), T * D // d, 4, mode)]

    def run(direction: Direction, choice: Mapping[str, LaunchConfig]) -> list[Traffic]:
        mode: Any = "inference" if direction == "forward" else "speed"
        return chain(direction, problem(), T, lambda *_: 4, mode, choose=lambda phase, _: choice[phase])

    return {
        "forward": {
            "split, two launches": run("forward", tiles),
            "fused, d 8192: x outgrows the cache": one("forward", narrow, d=8192),
            "fused": one("forward", narrow),
        },
        "backward": {"dx, then weight gradients": run("backward", two)},
    }


def flows() -> dict[str, tuple[float, float, float]]:
    """DRAM read, DRAM written, L2 read by the multiprocessors, in units of X, of each kernel for its own picture."""
    ours = forms()
    few = problem(4096)
    sliced = launch_traffic("forward", LaunchConfig("sliced", 64, 256, M, 4, 1), few, 128, 1, "inference")
    shown = {name: (launches, T * D * 2) for name, launches in [*ours["forward"].items(), *ours["backward"].items()]}
    del shown["fused, d 8192: x outgrows the cache"]
    shown["sliced, T 128, d 4096"] = ([sliced], 128 * 4096 * 2)
    return {
        name: (
            sum(one.dram_read for one in launches) / X,
            sum(one.dram_write for one in launches) / X,
            sum(one.l2_read for one in launches) / X,
        )
        for name, (launches, X) in shown.items()
    }


def hits() -> dict[str, list[tuple[int, float]]]:
    """The modelled share of the second reading that hits, by what a multiprocessor holds at a time, over d."""
    labels = {1: "64 tokens", 2: "2 × 64 tokens, or 128", 4: "4 × 64 tokens, or 2 × 128"}
    found: dict[str, list[tuple[int, float]]] = {label: [] for label in labels.values()}
    for per_sm, label in labels.items():
        config = LaunchConfig("fused", 64, 64, M, 4, 3)
        for d in range(512, 8193, 128):
            hit = launch_traffic("forward", config, problem(d), T, per_sm, "inference").hit
            found[label].append((d, hit or 0.0))
    return found


def shares(programs: Programs) -> dict[str, dict[int, list[tuple[int, float]]]]:
    """Predicted share of the floor with the tiles that are shipped, by direction and m, over d, at T = 65536."""
    directions: tuple[Direction, ...] = ("forward", "backward")
    return {
        direction: {
            m: [(d, _share(direction, problem(d, m), T, programs, Machine())[1]) for d in (768, 1024, 2048, 4096, 8192)]
            for m in (16, 64, 128, 256, 512)
        }
        for direction in directions
    }


def _share(
    direction: Direction, setting: Problem, tokens: int, programs: Programs, machine: Machine
) -> tuple[float, float]:
    """Predicted µs and share of the floor."""
    mode: Any = "inference" if direction == "forward" else "speed"
    launches = chain(direction, setting, tokens, programs, mode)
    us = sum(predicted_us(one, machine, setting.sms)[0] for one in launches)
    return us, floor(direction, setting, tokens, machine) / us


# ---- pictures


def draw_dram() -> tuple[Any, Any]:
    """Bars of DRAM traffic, read and written, in units of X, and the floor."""
    from matplotlib.figure import Figure

    ours, X = forms(), T * D * 2
    numbers = {
        direction: elsewhere()[direction]
        | {
            name: (sum(one.dram_read for one in launches) / X, sum(one.dram_write for one in launches) / X)
            for name, launches in ours[direction].items()
        }
        for direction in ("forward", "backward")
    }
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    heights = [len(bars) for bars in numbers.values()]
    for panel, (direction, bars), least in zip(
        figure.subplots(2, 1, sharex=True, height_ratios=heights), numbers.items(), (2, 3)
    ):
        names = list(bars)[::-1]
        read, written = [bars[name][0] for name in names], [bars[name][1] for name in names]
        panel.barh(names, read, color=READ, label="read")
        panel.barh(names, written, left=read, color=WRITTEN, label="written")
        panel.axvline(least, color="black", lw=1, ls="--", label="floor, without weights and [T, m]")
        for place, (r, w) in enumerate(zip(read, written)):
            panel.text(r + w + 0.06, place, f"{r + w:.2f} X", va="center", fontsize=7.5)
        panel.set_title(direction, loc="left")
        panel.grid(axis="y", visible=False)
    about = f"DRAM traffic in units of X, the bytes of x; T {T}, d {D}, m {M}, bfloat16; modelled, not measured"
    figure.supxlabel(about, fontsize=9)
    panel.set_xlim(0, 9.5)
    figure.axes[0].legend(loc="lower right", frameon=False)
    return figure, numbers


def draw_traffic() -> tuple[Any, Any]:
    """Each kernel as three boxes, with arrows as wide as what flows between them."""
    from matplotlib.figure import Figure

    numbers = flows()
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    for panel, (name, (read, written, l2)) in zip(figure.subplots(1, len(numbers)), numbers.items()):
        panel.set_title(name)
        panel.set_xlim(0, 10)
        panel.set_ylim(0, 10)
        panel.axis("off")
        for y, label in ((8.3, "multiprocessors"), (4.3, "L2 cache"), (0.3, "DRAM")):
            panel.add_patch(_box(y))
            panel.text(5, y + 0.65, label, ha="center", va="center", fontsize=8)
        for x, y, length, units, colour in (
            (2.6, 1.7, 2.5, read, READ),
            (2.6, 5.7, 2.5, l2, AGAIN),
            (7.4, 4.2, -2.5, written, WRITTEN),
            (7.4, 8.2, -2.5, written, WRITTEN),
        ):
            panel.arrow(
                x,
                y,
                0,
                length,
                width=0.16 * units,
                head_width=0.16 * units + 0.7,
                head_length=0.6,
                length_includes_head=True,
                color=colour,
                lw=0,
            )
            side = 0.35 + 0.08 * units + 0.15
            panel.text(x + side, y + length / 2, f"{units:.2f} X", va="center", fontsize=7.5)
    figure.suptitle(
        f"What moves between DRAM, cache and multiprocessors, in units of X; T {T}, d {D}, m {M} where nothing else is "
        "said.\nModelled, not measured; arrows are as wide as what they carry.",
        fontsize=8.5,
        x=0.01,
        ha="left",
    )
    return figure, numbers


def _box(y: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0.4, y), 9.2, 1.3, facecolor="#F2F2F2", edgecolor="#888888", lw=0.7)


def draw_cache() -> tuple[Any, Any]:
    """The share of the second reading that hits, over d."""
    from matplotlib.figure import Figure

    numbers = hits()
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panel = figure.subplots()
    for (label, points), colour in zip(numbers.items(), ("#009E73", READ, WRITTEN)):
        xs, ys = zip(*points)
        panel.plot(xs, [100 * y for y in ys], color=colour, lw=2, label=label)
    panel.set_xscale("log", base=2)
    panel.set_xticks([512, 768, 1024, 2048, 4096, 8192], ["512", "768", "1024", "2048", "4096", "8192"])
    panel.set_ylim(0, 105)
    panel.set_xlabel("hidden size d; 132 multiprocessors, 50 MB of L2 of which 70 % count; modelled, not measured")
    panel.set_ylabel("% of the second reading\nthat hits the L2 cache")
    panel.legend(title="a multiprocessor holds at a time", frameon=False)
    return figure, numbers


def draw_share(programs: Programs) -> tuple[Any, Any]:
    """Predicted share of the floor over d, for the tiles that are shipped."""
    from matplotlib.figure import Figure

    numbers = shares(programs)
    given = Machine()
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    colours = ["#009E73", "#D55E00", "#0072B2", "#CC79A7", "#6E6E6E"]
    for panel, (direction, lines) in zip(figure.subplots(1, 2, sharey=True), numbers.items()):
        for (m, points), colour, marker in zip(lines.items(), colours, "osD^v"):
            xs, ys = zip(*points)
            panel.plot(xs, [100 * y for y in ys], color=colour, marker=marker, ms=4, label=f"m {m}")
        panel.set_xscale("log", base=2)
        panel.set_xticks([768, 1024, 2048, 4096, 8192], ["768", "1024", "2048", "4096", "8192"])
        panel.set_ylim(0, 105)
        panel.set_title(direction, loc="left")
        panel.set_xlabel("hidden size d")
    figure.axes[0].set_ylabel("predicted % of the floor")
    figure.axes[1].legend(frameon=False, ncols=2)
    figure.suptitle(
        f"Predicted, not measured: tiles as shipped, T {T}, bfloat16, {given.copy_gbps:.0f} GB/s of DRAM, "
        f"{given.l2_gbps:.0f} GB/s from L2, {given.tflops:.0f} TFLOP/s",
        fontsize=8.5,
        x=0.01,
        ha="left",
    )
    return figure, numbers


# ---- tables


def predictions(programs: Programs, measured: Sequence[Row]) -> str:
    """Prediction against measurement, case by case: at the rates of the measured run, where there is one."""
    lines = ["| T | d | m | | tiles | predicted µs | predicted share | measured µs | measured share |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    directions: tuple[Direction, ...] = ("forward", "backward")
    for tokens, d, m in HEADLINE:
        for direction in directions:
            row = next((one for one in measured if _matches(one, tokens, d, m, direction)), None)
            machine = Machine() if row is None else Machine(copy_gbps=row.copy_gbps, tflops=row.tflops or 798.0)
            us, share = _share(direction, problem(d, m), tokens, programs, machine)
            mode: Any = "inference" if direction == "forward" else "speed"
            launches = [one for one in chain(direction, problem(d, m), tokens, programs, mode) if one.config]
            tiles = "; ".join(tiles_text(one.config) for one in launches)
            seen = "not measured yet |"
            if row is not None and row.us_p50 and row.floor_us:
                seen = f"{row.us_p50:.1f} | {row.floor_us / row.us_p50:.0%}"
            lines.append(f"| {tokens} | {d} | {m} | {direction} | {tiles} | {us:.1f} | {share:.0%} | {seen} |")
    return "\n".join(lines) + "\n"


def launches(first: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], programs: Programs) -> str:
    """Each launch by the profiler: predicted at the rates of its run, measured when it first met a GPU, and now."""
    now = {(row["case"], row["launch"]): row for row in rows if row["form"] == "default"}
    before = {(row["case"], row["launch"]): row["us_p50"] for row in first}
    lines = [
        "| T, d, m | launch | tiles | predicted µs | µs at first | µs now |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (case, launch), row in now.items():
        found = CASE.fullmatch(case)
        if found is None:
            continue
        tokens, d, m = map(int, found.groups())
        machine = Machine(copy_gbps=row["copy_gbps"], tflops=row["tflops"])
        chained = [
            *chain("forward", problem(d, m), tokens, programs, "speed"),
            *chain("backward", problem(d, m), tokens, programs, "speed"),
        ]
        us = sum(predicted_us(one, machine, GPU["sms"])[0] for one in chained if one.phase == launch)
        met = before.get((case, launch))
        figures = (f"{us:.1f}" if us else "", "" if met is None else f"{met:.1f}", f"{row['us_p50']:.1f}")
        lines.append(f"| {tokens}, {d}, {m} | {launch} | {row['tiles']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def registers(readings: Sequence[Mapping[str, Any]], versions: str) -> str:
    """What the compiler gave, launch by launch, where tiles are whole: others are masked, and need more registers."""
    readings = [one for one in readings if not one["name"].endswith((" masked", " ragged"))]
    if not readings:
        return "Not read yet: see benchmarks/tiles/kernels_page.py.\n"
    lines = [f"sm_90, bfloat16 x and weights, whole tiles, {versions}.\n"]
    lines += ["| kernel | tiles | registers | spill | shared KB | CTAs/SM | tensor core |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for one in readings:
        labels = one["labels"]
        tiles = f"{labels['form']} {labels['BLOCK_T']}×{labels['BLOCK_D']}×{labels['BLOCK_M']}"
        tiles += f" w{one['num_warps']} s{one['num_stages']}"
        unit = ", ".join(dict.fromkeys(name.split(".")[0] for name in one["tensor_ops"]))
        figures = (one["registers"], one["spill_bytes"], f"{one['shared'] / 1024:.0f}", one["blocks_per_sm"], unit)
        lines.append(f"| {labels['kernel']} | {tiles} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines) + "\n"


def _matches(row: Row, tokens: int, d: int, m: int, phase: str) -> bool:
    same = (row.tokens, row.hidden, row.bottleneck, row.phase) == (tokens, d, m, phase)
    return same and row.provider == "fused" and row.mode == "graph-cold" and "-w32" not in row.case


# ---- files


def main(arguments: list[str] | None = None) -> int:
    """Draw and fill, or say what is not up to date; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.kernels_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--docs", type=Path, default=(CHECKOUT or Path()) / "docs")
    options = parser.parse_args(arguments)
    stale = update(options.docs, write=not options.check)
    for path in stale:
        print(
            f"{path} {'is not up to date: run python -m benchmarks.tiles.kernels_page' if options.check else 'written'}"
        )
    return int(options.check and bool(stale))


def update(docs: Path, write: bool) -> list[Path]:
    """The files that differ from what the model, the readings and the results give; written, if asked to."""
    import matplotlib

    files = sorted((docs / "aot").glob("sm_90-triton*.json"))
    readings = json.loads(files[-1].read_text("utf-8")) if files else []
    versions = files[-1].stem.replace("sm_90-triton", "Triton ") if files else ""
    programs = compiled_programs(readings)
    stale = []
    painters = {"traffic": draw_traffic, "dram": draw_dram, "cache": draw_cache, "share": lambda: draw_share(programs)}
    with matplotlib.rc_context(STYLE):
        for name, paint in painters.items():
            figure, numbers = paint()
            mark = digest_numbers(numbers)
            path = docs / f"{name}.svg"
            if path.is_file() and mark in path.read_text("utf-8"):
                continue
            stale.append(path)
            if write:
                picture = io.BytesIO()
                metadata = {"Description": mark, "Date": None, "Creator": None}
                figure.savefig(picture, format="svg", metadata=metadata)
                write_whole(path, picture.getvalue())
    page = docs / "kernels.md"
    text = page.read_text("utf-8")
    measured = [row for path in sorted(RESULTS.glob("nvidia-*/op.json")) for row in read_rows(path)]
    first, now = (
        [row for path in sorted(RESULTS.glob(f"nvidia-*/{name}.json")) for row in json.loads(path.read_text("utf-8"))]
        for name in ("launches-first", "launches")
    )
    tables = {"predictions": predictions(programs, measured), "registers": registers(readings, versions)}
    tables["launches"] = launches(first, now, programs)
    fresh = BLOCK.sub(lambda found: found[1] + tables[found[2]] + found[4], text)
    if fresh != text:
        stale.append(page)
        if write:
            write_whole(page, fresh)
    return stale


def digest_numbers(numbers: Any) -> str:
    """sha256 over the numbers in a picture, rounded as it shows them."""
    text = json.dumps(_rounded(numbers), sort_keys=True)
    return MARK + hashlib.sha256(text.encode()).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
