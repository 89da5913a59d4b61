"""A model of what each launch moves, DRAM bytes and L2→SM bytes, and what that predicts against the floor. No GPU.

    python -m benchmarks.tiles.traffic                              every shipped choice for a grid of shapes, sm_90
    python -m benchmarks.tiles.traffic --hidden 4096 --bottleneck 64 --copy-gbps 4300

With X = T·d, Z = T·m and W = d·m elements in bytes. Inputs are read once and outputs written once, from and to DRAM,
with cold caches; what is read a second time comes from the L2 cache as far as it can still be there. All times are
predictions: bytes over given bandwidths, products over a given rate, the steps that a program makes one after another,
whichever takes longest, and no launch below a given time. Not modelled: how programs on one multiprocessor slow each
other down, a pipeline that drains between two loops, and how the cache chooses what to evict.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from adapter_fast.benchmarks.tiles.aot.targets import ARCHS
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem, bucket, family
from adapter_fast.kernels.tiles import select_tiles, split_count
from adapter_fast.measure.roofline import Ceilings, Shape, floor_us

Mode = Literal["inference", "speed", "balanced", "lean"]
Direction = Literal["forward", "backward"]
Choose = Callable[[Phase, Problem], LaunchConfig]
Programs = Callable[[Phase, LaunchConfig, Problem], int]

# Tensors [T, m] that the forward writes for the backward: h and slope; z; none.
SAVED: dict[Mode, int] = {"inference": 0, "speed": 2, "balanced": 1, "lean": 0}
DX_PHASE: dict[Mode, Phase] = {"speed": "dx", "balanced": "dx_z", "lean": "dx_x"}
# Of the cache, what rows waiting for their second reading can hold: the rest is weights, outputs and bad luck. An H200
# held 34 MB in its 60: a forward of 16384×1024×64 moved 1.8 X of DRAM (ncu). On an H100 it is not measured yet.
USABLE = 0.7
MIB = 2**20
L2_BYTES = {"sm_80": 40 * MIB, "sm_90": 50 * MIB, "sm_100": 126 * MIB, "sm_120": 96 * MIB, "gfx942": 256 * MIB}
SUM_BYTES = 4  # of an element of a partial sum


@dataclass(frozen=True)
class Machine:
    """Given, not measured here: GB/s of a copy, GB/s from L2 to all SMs, TFLOP/s of products, least µs of a launch.

    step_us: of one turn of a loop over tiles, in a program that has a multiprocessor to itself. H200, 64-row tiles of
        d 768 to 4096: 28.1 µs for 32 turns at T = 128; predicted -15 to +12 % of 10 launches with one program a
        multiprocessor, -25 to -47 % with several.
    sum_us: of one turn of the loop over partial sums. H200: 4 turns in 8.5 and 9.7 µs; one alone takes 2.7 to 5.5.
    """

    copy_gbps: float = 3000.0
    l2_gbps: float = 5600.0
    tflops: float = 798.0
    launch_us: float = 2.0
    step_us: float = 0.88
    sum_us: float = 2.4


@dataclass(frozen=True)
class Traffic:
    """What one launch moves, in bytes, and computes.

    programs: tiles, each a program's own. steps: turns of its loops that one place on a
    multiprocessor makes one after another, in all programs that come to it. slots: of dram_write, partial sums that are
    summed afterwards; rows: how many of them for one result. reused: of dram_read, what an earlier launch of the same
    call has touched. hit: share of the second reading that the L2 cache serves; None where nothing is read twice.
    """

    phase: str
    config: LaunchConfig | None
    programs: int
    dram_read: int
    dram_write: int
    l2_read: int
    flops: int
    steps: int
    slots: int = 0
    rows: int = 0
    reused: int = 0
    hit: float | None = None

    @property
    def dram(self) -> int:
        """Bytes from and to DRAM."""
        return self.dram_read + self.dram_write


@dataclass(frozen=True)
class Sizes:
    """Bytes of the tensors of a call: X [T, d], Z [T, m], W one weight; biases of both."""

    X: int
    Z: int
    W: int
    biases: int


def sizes(problem: Problem, T: int) -> Sizes:
    """The bytes of a call over T tokens."""
    return Sizes(
        X=T * problem.D * problem.x_bytes,
        Z=T * problem.M * problem.x_bytes,
        W=problem.D * problem.M * problem.w_bytes,
        biases=(problem.D + problem.M) * problem.w_bytes,
    )


def in_flight(config: LaunchConfig, problem: Problem, T: int, programs_per_sm: int) -> int:
    """Bytes of rows that are read once and wait for their second reading, in all programs that run at a time."""
    running = min(-(-T // config.BLOCK_T), max(1, programs_per_sm) * problem.sms)
    return running * config.BLOCK_T * problem.D * problem.x_bytes


def usable_cache(problem: Problem) -> float:
    """Bytes of the L2 cache of this family's largest GPU that can hold rows for their second reading."""
    return USABLE * L2_BYTES[family(problem.arch)]


def second_reading(waiting: float, capacity: float) -> float:
    """The share of rows that are still in the cache when a loop walks backwards over what it read forwards.

    A column p from the turning point comes again after p / d of all rows in flight: the near ones still hit.
    """
    return min(1.0, capacity / waiting) if waiting else 1.0


def launch_traffic(
    phase: Phase,
    config: LaunchConfig,
    problem: Problem,
    T: int,
    programs_per_sm: int,
    mode: Mode = "speed",
    residual: Literal["x", "tensor", "none"] = "x",
    backward: bool = False,
) -> Traffic:
    """What one launch over T ≥ 1 tokens moves.

    Args:
        phase: "dx_z" and "dx_x" make the slope from z or from x. config: its tiles; problem: arch and sms count.
        programs_per_sm: how many the compiler's registers and shared memory let run at a time (AOT, or an estimate).
        mode: what the forward saves. residual: what is added to y. backward: of an "expand", that it makes dx.

    Raises:
        ValueError: T below 1, or a form that this phase does not have.
    """
    if T < 1:
        raise ValueError(f"T must be at least 1, got {T}")
    if phase == "weight_grad":
        one = _weight_grad(config, problem, T)
    elif phase == "expand":
        one = _expand(config, problem, T, backward, residual)
    elif config.form == "split":
        one = _down(phase, config, problem, T, mode)
    elif config.form == "fused" or (config.form == "sliced" and phase == "forward"):
        one = _whole(phase, config, problem, T, programs_per_sm, mode, residual)
    else:
        raise ValueError(f"phase {phase} has no form {config.form!r}")
    waves = -(-one.programs // (max(1, programs_per_sm) * problem.sms))
    return replace(one, steps=waves * one.steps)


def _whole(
    phase: Phase, config: LaunchConfig, problem: Problem, T: int, programs_per_sm: int, mode: Mode, residual: str
) -> Traffic:
    """Forward or dx in one launch: rows in, rows out. The steps are of one program, here and in the others below."""
    s = sizes(problem, T)
    tiles = -(-T // config.BLOCK_T)
    backward = phase != "forward"
    from_x = phase == "dx_x"
    twice = residual == "x"
    read, written = s.X + 2 * s.W + s.biases, s.X
    l2 = s.X + (3 if from_x else 2) * s.W * tiles
    if residual == "tensor" and not backward:
        read, l2 = read + s.X, l2 + s.X
    if from_x:
        read, l2 = read + s.X, l2 + s.X
    elif backward:
        read, l2 = read + s.Z, l2 + s.Z
    slots = tiles * problem.M * SUM_BYTES if backward else 0
    written += slots + (SAVED[mode] if not backward else 1 if phase == "dx" else 2) * s.Z
    products = 3 if from_x else 2
    programs, hit, steps = tiles, None, products * -(-problem.D // config.BLOCK_D)
    if twice and config.form == "fused":
        # What a program writes takes as much of the cache as the rows that it reads.
        waiting = 2 * in_flight(config, problem, T, programs_per_sm)
        hit = second_reading(waiting, usable_cache(problem))
        read, l2 = read + round((1 - hit) * s.X), l2 + s.X
    elif config.form == "sliced":
        slices = -(-problem.D // config.BLOCK_D)
        exchanged = slices * T * problem.M * SUM_BYTES
        programs, steps = tiles * slices, 3  # a product, the sum over slots, a product
        written, l2 = written + exchanged, l2 + slices * exchanged + (s.X if twice else 0)
    flops = products * 2 * T * problem.D * problem.M
    return Traffic(phase, config, programs, read, written, l2, flops, steps, slots, tiles if backward else 0, hit=hit)


def _down(phase: Phase, config: LaunchConfig, problem: Problem, T: int, mode: Mode) -> Traffic:
    """The first of two launches: rows in, [T, m] out."""
    s = sizes(problem, T)
    tiles, tiles_m = -(-T // config.BLOCK_T), -(-problem.M // config.BLOCK_M)
    read, l2 = s.X + s.W + problem.M * problem.w_bytes, s.X * tiles_m + s.W * tiles
    flops, slots, steps = 2 * T * problem.D * problem.M, 0, -(-problem.D // config.BLOCK_D)
    if phase == "forward":
        # h goes to the second launch whatever is saved; with it slope or z.
        written = (2 if mode in ("speed", "balanced") else 1) * s.Z
    else:
        slots = tiles * problem.M * SUM_BYTES
        written = (1 if phase == "dx" else 2) * s.Z + slots
        if phase == "dx_x":
            read, l2, flops, steps = read + s.X + s.W, l2 + s.X * tiles_m + s.W * tiles, 2 * flops, 2 * steps
        else:
            read, l2 = read + s.Z, l2 + s.Z
    rows = 0 if phase == "forward" else tiles
    return Traffic(phase, config, tiles * tiles_m, read, written, l2, flops, steps, slots, rows)


def _expand(config: LaunchConfig, problem: Problem, T: int, backward: bool, residual: str) -> Traffic:
    """The second of two launches: [T, m] and rows in, rows out."""
    s = sizes(problem, T)
    tiles, tiles_d = -(-T // config.BLOCK_T), -(-problem.D // config.BLOCK_D)
    rows = s.X if residual == "x" or (residual == "tensor" and not backward) else 0
    return Traffic(
        "expand",
        config,
        tiles * tiles_d,
        dram_read=s.Z + rows + s.W + problem.D * problem.w_bytes,
        dram_write=s.X,
        l2_read=s.Z * tiles_d + rows + s.W * tiles,
        flops=2 * T * problem.D * problem.M,
        steps=-(-problem.M // config.BLOCK_M),
        reused=s.Z + (s.X if residual == "x" else 0),
    )


def _weight_grad(config: LaunchConfig, problem: Problem, T: int) -> Traffic:
    """Both weights' gradients and db_up: a program owns one tile of them for a run of tokens."""
    s = sizes(problem, T)
    tiles_d, tiles_m = -(-problem.D // config.BLOCK_D), -(-problem.M // config.BLOCK_M)
    splits = split_count(T, tiles_d * tiles_m, config.BLOCK_T, problem.sms)
    slots = splits * problem.D * (2 * problem.M + 1) * SUM_BYTES
    return Traffic(
        "weight_grad",
        config,
        splits * tiles_d * tiles_m,
        dram_read=2 * s.X + 2 * s.Z,
        dram_write=slots,
        l2_read=2 * s.X * tiles_m + 2 * s.Z * tiles_d,
        flops=4 * T * problem.D * problem.M,
        steps=-(-T // (splits * config.BLOCK_T)),
        slots=slots,
        rows=splits,
        reused=s.X + s.Z,
    )


def _reduce(launches: Sequence[Traffic], problem: Problem, T: int) -> Traffic:
    """The last launch of a backward: every gradient of the weights from the slots of those before."""
    from adapter_fast.kernels.reduce import tile_of

    s = sizes(problem, T)
    slots = sum(one.slots for one in launches)
    read = 0 if slots <= usable_cache(problem) else slots
    steps = max(-(-one.rows // tile_of(one.rows).rows) for one in launches)
    return Traffic("reduce", None, problem.sms, read, 2 * s.W + s.biases, slots, slots // SUM_BYTES, steps)


def chain(
    direction: Direction,
    problem: Problem,
    T: int,
    programs: Programs,
    mode: Mode = "speed",
    choose: Choose = select_tiles,
) -> list[Traffic]:
    """Every launch of a forward or a backward with all gradients, with the tiles that `choose` gives.

    Args:
        problem: its number of tokens is set to T's bucket. programs: programs a multiprocessor of a launch.
        mode: "inference" (a forward that saves nothing), or what is saved for the backward.

    Raises:
        ValueError: a backward in mode "inference".
    """
    if direction == "backward" and mode == "inference":
        raise ValueError('mode must be "speed", "balanced" or "lean" for a backward, got "inference"')
    problem = replace(problem, tokens=bucket(T))
    phases: list[Phase] = ["forward"] if direction == "forward" else [DX_PHASE[mode], "weight_grad"]
    launches: list[Traffic] = []
    for phase in phases:
        config = choose(phase, problem)
        launches.append(launch_traffic(phase, config, problem, T, programs(phase, config, problem), mode))
        if config.form == "split" and phase != "weight_grad":
            config = choose("expand", problem)
            fit = programs("expand", config, problem)
            launches.append(launch_traffic("expand", config, problem, T, fit, mode, backward=direction == "backward"))
    if direction == "backward":
        launches.append(_reduce(launches, problem, T))
    if sum(launch.dram - launch.reused for launch in launches) <= usable_cache(problem):
        launches = [replace(one, dram_read=one.dram_read - one.reused, reused=0) for one in launches]
    return launches


def predicted_us(launch: Traffic, machine: Machine, sms: int) -> tuple[float, str]:
    """Predicted µs of a launch, and what bounds it: "DRAM", "L2", "products", "latency" or "launch".

    Bytes from L2 and products count as on the busiest multiprocessor; DRAM serves all of them.
    """
    busiest = -(-launch.programs // sms) * sms / launch.programs
    times = {
        "DRAM": launch.dram / machine.copy_gbps / 1e3,
        "L2": launch.l2_read * busiest / machine.l2_gbps / 1e3,
        "products": launch.flops * busiest / machine.tflops / 1e6,
        "latency": launch.steps * (machine.sum_us if launch.phase == "reduce" else machine.step_us),
        "launch": machine.launch_us,
    }
    bound = max(times, key=lambda name: times[name])
    return times[bound], bound


def floor(direction: Direction, problem: Problem, T: int, machine: Machine) -> float:
    """µs of the roofline at the machine's rates: the same floor that measurements are held against."""
    shape = Shape(T, problem.D, problem.M, problem.x_bytes, problem.w_bytes)
    return floor_us(shape, direction, Ceilings(machine.copy_gbps, machine.tflops))


def estimated_programs(phase: Phase, config: LaunchConfig, problem: Problem) -> int:
    """Programs a multiprocessor before any compiler was asked: 0 where the tiles cannot fit.

    Registers: both accumulators' shares of a thread, h's as an operand, and 64 for all else; shared memory: what the
    stages hold. docs/kernels.md has what the compiler gave; the estimate is within a program of it.
    """
    threads = 32 * config.num_warps
    wide = max(config.BLOCK_T * config.BLOCK_M, config.BLOCK_T * config.BLOCK_D)
    rows, weights = config.BLOCK_T * config.BLOCK_D * problem.x_bytes, config.BLOCK_D * config.BLOCK_M * problem.w_bytes
    shared = config.num_stages * (rows + weights)
    registers = 64 + (wide + config.BLOCK_T * config.BLOCK_M // 2) // threads
    if phase == "weight_grad":
        shared = config.num_stages * 2 * (rows + config.BLOCK_T * config.BLOCK_M * problem.x_bytes)
        registers = 64 + 2 * config.BLOCK_D * config.BLOCK_M // threads
    elif config.form == "sliced":
        shared = rows + weights
    limits = ARCHS[family(problem.arch)]
    if shared > limits.shared_per_block or registers > 255:
        return 0
    return limits.blocks(registers, shared, config.num_warps)


def compiled_programs(readings: list[Mapping]) -> Programs:
    """Programs a multiprocessor from readings of `python -m benchmarks.tiles.aot --output`.

    A launch is found by its kernel and tiles, for 16-bit x and the problem's weights; what is not there is estimated.
    """
    keys = ("BLOCK_T", "BLOCK_D", "BLOCK_M")
    found: dict[tuple, int] = {}
    for one in readings:
        labels = one["labels"]
        if not one["error"] and labels["x_dtype"] in ("bf16", "fp16") and "ragged" not in one["name"]:
            tiles = tuple(labels[key] for key in keys)
            kernel = str(labels["kernel"]).split()[0]  # "expand y" and "expand dx" are one phase
            key = (kernel, labels["form"], labels["w_dtype"] == "fp32", tiles, one["num_warps"], one["num_stages"])
            found[key] = min(one["blocks_per_sm"], found.get(key, one["blocks_per_sm"]))

    def programs(phase: Phase, config: LaunchConfig, problem: Problem) -> int:
        tiles = tuple(getattr(config, key) for key in keys)
        wide = problem.w_bytes > 2 and phase != "weight_grad"
        found_for = found.get((phase, config.form, wide, tiles, config.num_warps, config.num_stages))
        return estimated_programs(phase, config, problem) if found_for is None else found_for

    return programs


def tiles_text(config: LaunchConfig | None) -> str:
    """Tiles in a few letters: "fused 64×64×64 w4 s3"."""
    if config is None:
        return ""
    tiles = f"{config.BLOCK_T}×{config.BLOCK_D}×{config.BLOCK_M}"
    return f"{config.form} {tiles} w{config.num_warps} s{config.num_stages}"


HEAD = (
    "T",
    "d",
    "m",
    "launch",
    "tiles",
    "CTAs/SM",
    "L2 hit",
    "DRAM MB",
    "L2→SM MB",
    "predicted µs",
    "bound",
    "floor µs",
)


def table(problems: Iterator[tuple[Problem, int]], machine: Machine, programs: Programs, mode: Mode) -> str:
    """A line a launch, and after each direction the whole: predicted µs, the floor and its predicted share."""
    rows: list[tuple[str, ...]] = [(*HEAD, "predicted share")]
    directions: tuple[Direction, ...] = ("forward",) if mode == "inference" else ("forward", "backward")
    for problem, T in problems:
        for direction in directions:
            total = 0.0
            launches = chain(direction, problem, T, programs, mode)
            size = (str(T), str(problem.D), str(problem.M))
            for one in launches:
                us, bound = predicted_us(one, machine, problem.sms)
                total += us
                fit = str(programs(one.phase, one.config, problem)) if one.config else ""
                hit = "" if one.hit is None else f"{one.hit:.0%}"
                moved = (f"{one.dram / 1e6:.1f}", f"{one.l2_read / 1e6:.1f}")
                rows.append((*size, one.phase, tiles_text(one.config), fit, hit, *moved, f"{us:.1f}", bound, "", ""))
            least = floor(direction, problem, T, machine)
            dram, l2 = sum(one.dram for one in launches), sum(one.l2_read for one in launches)
            moved = (f"{dram / 1e6:.1f}", f"{l2 / 1e6:.1f}")
            whole = (f"= {direction}", "", "", "", *moved, f"{total:.1f}", "", f"{least:.1f}", f"{least / total:.0%}")
            rows.append((*size, *whole))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = (3, 4, 10)
    return "\n".join(
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit code."""
    options = _parse(arguments)
    machine = Machine(options.copy_gbps, options.l2_gbps, options.tflops, options.launch_us)
    programs: Programs = estimated_programs
    if options.aot:
        programs = compiled_programs(json.loads(options.aot.read_text("utf-8")))
    shapes = product(options.tokens, options.hidden, options.bottleneck)
    problems = ((Problem(d, m, 2, options.weight_bytes, "ieee", options.arch, options.sms), T) for T, d, m in shapes)
    source = f"read from {options.aot}" if options.aot else "estimated: name a reading with --aot"
    print(f"Predicted, not measured: {machine.copy_gbps:.0f} GB/s of DRAM, {machine.l2_gbps:.0f} GB/s from L2,")
    print(f"{machine.tflops:.0f} TFLOP/s, at least {machine.launch_us} µs a launch and {machine.step_us} µs a step.")
    print(f"CTAs/SM {source}.\n")
    print(table(problems, machine, programs, options.mode))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.traffic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    given = Machine()
    parser.add_argument("--arch", default="sm_90", choices=[name for name in ARCHS if name.startswith("sm_")])
    parser.add_argument("--sms", type=_positive_int, default=132)
    parser.add_argument("--copy-gbps", type=_positive, default=given.copy_gbps)
    parser.add_argument("--l2-gbps", type=_positive, default=given.l2_gbps)
    parser.add_argument("--tflops", type=_positive, default=given.tflops)
    parser.add_argument("--launch-us", type=_positive, default=given.launch_us)
    parser.add_argument("--mode", default="speed", choices=list(SAVED))
    parser.add_argument("--weight-bytes", type=int, default=2, choices=(2, 4))
    parser.add_argument("--tokens", type=_positive_int, nargs="+", default=[128, 2048, 16384, 65536])
    parser.add_argument("--hidden", type=_positive_int, nargs="+", default=[768, 1024, 4096, 8192])
    parser.add_argument("--bottleneck", type=_positive_int, nargs="+", default=[16, 64, 128, 256])
    parser.add_argument("--aot", type=Path, metavar="FILE", help="a reading, build/aot/sm_90-triton….json")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
