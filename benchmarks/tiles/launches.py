"""Device time of each launch by PyTorch's profiler, beside what benchmarks/tiles/traffic.py predicts for it.

    python -m benchmarks.tiles.launches                            the key shapes, forward and backward
    python -m benchmarks.tiles.launches --case 16384,1024,64 --sweep  tiles of the forward and dx around the rules' own
    python -m benchmarks.tiles.launches --peers                    the sum of eager PyTorch's launches too

Inputs are rotated through more sets than the L2 cache holds. With RESULT=FILE the rows go there as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

import torch

from adapter_fast import fused_adapter, reference_adapter
from adapter_fast.benchmarks.cases import DTYPES, case_name, shape_of
from adapter_fast.benchmarks.peers.op import input_sets
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.benchmarks.tiles.traffic import Machine, chain, estimated_programs, predicted_us, tiles_text
from adapter_fast.benchmarks.tiles.tuned_rows import TunedRow, tuned_row, write_tuned
from adapter_fast.common.files import write_whole
from adapter_fast.kernels.offers import requested_forms
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem, bucket
from adapter_fast.kernels.tiles import forced, select_tiles
from adapter_fast.measure.clock import Spread, event_timer
from adapter_fast.measure.roofline import Ceilings, floor_us, measure_ceilings
from adapter_fast.testing import Case, call

KEY = ("16384,768,64", "16384,1024,64", "16384,4096,64", "65536,1024,64", "16384,1024,256", "128,1024,64")
CALLS = 20
PHASES = {
    "bottleneck_forward_kernel": "forward",
    "bottleneck_dx_kernel": "dx",
    "weight_grad_kernel": "weight_grad",
    "reduce_kernel": "reduce",
    "expand_kernel": "expand",
    "bottleneck_sliced_kernel": "forward",
}


def profiled(op: Callable, case: Case, calls: int = CALLS) -> dict[str, list[float]]:
    """µs of every launch of `calls` forward and backward passes, by kernel name."""
    sets = input_sets(case)
    turn = cycle(sets)

    def step() -> None:
        one = next(turn)
        torch.autograd.grad(call(op, case, one.tensors), one.leaves, one.dy)

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(calls):
            step()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("Memcpy"):
            times.setdefault(event.name, []).append(event.device_time_total)
    return times


def rows_of(case: Case, machine: Machine, choices: Mapping[str, LaunchConfig]) -> list[dict[str, Any]]:
    """A row a launch of one case, with its prediction; a phase launched twice a call (split forms) counts both."""
    with forced(**choices) if choices else nullcontext():
        times = profiled(fused_adapter, case)
        problem = this_gpu(case)
        launches = [
            *chain("forward", problem, case.T, estimated_programs, choose=select_tiles),
            *chain("backward", problem, case.T, estimated_programs, choose=select_tiles),
        ]
    predicted: dict[str, float] = {}
    tiles: dict[str, str] = {}
    for one in launches:
        predicted[one.phase] = predicted.get(one.phase, 0.0) + predicted_us(one, machine, problem.sms)[0]
        tiles[one.phase] = tiles_text(one.config)
    rows = []
    for name, phase in PHASES.items():
        taken = times.pop(name, [])
        if taken:
            each = len(taken) // CALLS
            sums = [sum(taken[i * each : (i + 1) * each]) for i in range(CALLS)] if each else taken
            rows.append(_row(case, phase, tiles.get(phase, ""), sums, predicted.get(phase)))
    for name, taken in times.items():  # casts, copies: PyTorch's own
        rows.append(_row(case, name[:60], "", [sum(taken) / CALLS] * 2, None))
    return rows


def _row(case: Case, phase: str, tiles: str, taken: list[float], predicted: float | None) -> dict[str, Any]:
    cuts = statistics.quantiles(taken, n=10, method="inclusive")
    return {
        "case": case_name(case),
        "launch": phase,
        "tiles": tiles,
        "us_p20": round(cuts[1], 2),
        "us_p50": round(statistics.median(taken), 2),
        "us_p80": round(cuts[7], 2),
        "predicted_us": None if predicted is None else round(predicted, 2),
    }


def this_gpu(case: Case) -> Problem:
    """The problem of a case on its GPU."""
    from adapter_fast.ops.problem import problem

    weights = case.weight_dtype or case.dtype
    found = problem(torch.device(case.device), case.dtype, weights, case.T, case.d, case.m)
    return replace(found, tokens=bucket(case.T))


SHARED_BYTES = 200 * 2**10  # of a program: with more none fits beside what the compiler itself takes


def sweep(case: Case) -> Iterator[dict[str, LaunchConfig]]:
    """Tiles of the forward and dx: rows and warps, columns, stages; the rules' own first."""
    base = {phase: select_tiles(phase, this_gpu(case)) for phase in ("forward", "dx")}
    yield base
    for (rows, warps), columns, stages in product(((64, 4), (64, 8), (128, 8), (128, 4)), (64, 128, 256), (3, 4, 2, 5)):
        m = base["forward"].BLOCK_M
        accumulated = rows * (columns + m) // (32 * warps)  # registers a thread for both sums
        if stages * (rows + m) * columns * 2 > SHARED_BYTES or accumulated > 160:
            continue
        tiles = {"BLOCK_T": rows, "BLOCK_D": columns, "num_warps": warps, "num_stages": stages}
        yield {phase: replace(one, **tiles) for phase, one in base.items()}


def same_bits(case: Case, choices: Mapping[str, LaunchConfig], expected: list[torch.Tensor]) -> bool:
    """Whether these tiles sum a row as the first choice did: y and dx of the first inputs."""
    one = input_sets(case)[0]
    with forced(**choices):
        y = call(fused_adapter, case, one.tensors)
        found = [y.detach(), torch.autograd.grad(y, one.leaves[0], one.dy)[0]]
    if not expected:
        expected.extend(found)
    return all(torch.equal(value, right) for value, right in zip(found, expected))


def fastest_rows(case: Case, tried: list[tuple[dict[str, LaunchConfig], list[dict]]], origin: dict) -> list[TunedRow]:
    """Rows of kernels/tuned/<arch>.json for the fastest tiles of each phase, where they beat the rules' own by 2 %."""
    rows: list[TunedRow] = []
    problem = this_gpu(case)
    ceilings = Ceilings(origin["copy_gbps"], origin["tflops"])
    kept = {key: origin[key] for key in ("device", "torch", "triton", "commit", "date")}
    # Both launches read [T, d] once and write it once: the floor of each is that of a forward.
    least = floor_us(shape_of(case), "forward", ceilings)
    phases: tuple[Phase, ...] = ("forward", "dx")
    for phase in phases:
        times = {choices[phase]: row for choices, found in tried for row in found if row["launch"] == phase}
        own, best = next(iter(times)), min(times, key=lambda config: times[config]["us_p50"])
        chosen = best if times[best]["us_p50"] < 0.98 * times[own]["us_p50"] else own
        mine, theirs = (Spread(*(times[one][f"us_p{n}"] for n in (20, 50, 80, 80, 80))) for one in (chosen, own))
        measures = (least, ceilings.copy_gbps, len(times), kept)
        rows.append(tuned_row(phase, problem, (chosen, mine), (own, theirs), *measures))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    options = _parse(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device here", file=sys.stderr)
        return 2
    ceilings = measure_ceilings("cuda", torch.bfloat16, event_timer)
    machine = Machine(copy_gbps=ceilings.copy_gbps, tflops=ceilings.tflops)
    origin = provenance("cuda") | {"copy_gbps": round(ceilings.copy_gbps, 1), "tflops": round(ceilings.tflops, 1)}
    origin["form"] = "+".join(requested_forms()) or "default"
    print(f"{origin['device']}: copy {ceilings.copy_gbps:.0f} GB/s, {ceilings.tflops:.0f} TFLOP/s")
    rows: list[dict[str, Any]] = []
    measured: list[TunedRow] = []
    for words in options.case or KEY:
        case = case_of(words)
        tried = list(sweep(case)) if options.sweep else [{}]
        done: list[tuple[dict[str, LaunchConfig], list[dict]]] = []
        bits: list[torch.Tensor] = []
        for choices in tried:
            try:
                right = not choices or same_bits(case, choices, bits)
                found = rows_of(case, machine, choices)
            except Exception as error:  # a choice that does not compile or fit is told, the others go on
                what = f"{case_name(case)} {tiles_text(choices.get('forward'))}"
                print(f"{what}: {type(error).__name__}: {str(error)[:150]}")
                continue
            rows += [row | origin | ({"swept": True} if choices else {}) for row in found]
            if right and choices:
                done.append((choices, found))
            if options.sweep:
                text = "  ".join(f"{r['launch']} {r['us_p50']:.1f}" for r in found if r["launch"] in ("forward", "dx"))
                what = f"{case_name(case):28s} {tiles_text(choices['forward']):32s}"
                print(f"{what} {text}{'' if right else '  other bits'}", flush=True)
            else:
                for r in found:
                    guess = "" if r["predicted_us"] is None else f"predicted {r['predicted_us']:8.1f}"
                    print(f"{r['case']:28s} {r['launch']:60s} {r['us_p50']:8.1f} µs {guess} {r['tiles']}", flush=True)
        if options.tuned and done and done[0][0] == tried[0]:
            measured += fastest_rows(case, done, origin)
            write_tuned(options.tuned, measured)
        if options.peers:
            times = profiled(reference_adapter, case)
            total = sum(sum(taken) for taken in times.values()) / CALLS
            rows.append(_row(case, "eager, all launches", "", [total] * 2, None) | origin)
            print(
                f"{case_name(case):28s} eager PyTorch, "
                f"{sum(map(len, times.values())) // CALLS} launches {total:8.1f} µs"
            )
        input_sets.cache_clear()
        torch.cuda.empty_cache()
        if "RESULT" in os.environ:
            write_whole(Path(os.environ["RESULT"]), json.dumps(rows) + "\n")
    return 0


def case_of(words: str) -> Case:
    """T,d,m[,dtype[,weights' dtype]] as a case on the GPU."""
    T, d, m, *kinds = words.split(",")
    dtype, weights = [*(DTYPES[kind] for kind in kinds), None, None][:2]
    return Case(int(T), int(d), int(m), dtype or torch.bfloat16, weights, device="cuda")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.launches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--case", action="append", metavar="T,d,m[,dtype[,weights]]", help="may be repeated")
    parser.add_argument("--sweep", action="store_true", help="tiles of the forward and dx around the rules' own")
    parser.add_argument(
        "--tuned", type=Path, metavar="FILE", help="with --sweep: write the fastest tiles as a tuned table"
    )
    parser.add_argument("--peers", action="store_true", help="the sum of eager PyTorch's launches too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
