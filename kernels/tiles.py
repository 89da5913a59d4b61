"""Which tiles a launch uses: pure Python, no triton import, no timing, the same answer for the same arguments.

The number of tokens never enters: the order in which a row of y or dx is summed, and so its bits, do not depend on
what else is in the batch. The tables come from ahead-of-time compilation (`make aot`) with Triton 3.6.0 and 3.9.0: wide
tiles that do not spill, fit the architecture's shared memory and use its tensor cores for 16-bit products. None of
them was chosen by a measurement on a GPU yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

Phase = Literal["forward", "dx", "expand", "weight_grad"]


@dataclass(frozen=True)
class LaunchConfig:
    """One launch: form "fused" (one kernel per direction) or "split" (a launch for each projection), and its tiles."""

    form: Literal["fused", "split"]
    BLOCK_T: int
    BLOCK_D: int
    BLOCK_M: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Problem:
    """What the choice of tiles depends on.

    D, M: hidden and bottleneck size; x_bytes, w_bytes: bytes of one element of x and of the weights;
    precision: "ieee" or "tf32", of float32 products; arch: "sm_90", "gfx942", …; sms: its multiprocessors;
    aligned: every row of every tensor starts at a multiple of 16 bytes, and D and M are multiples of 16.
    """

    D: int
    M: int
    x_bytes: int
    w_bytes: int
    precision: str
    arch: str
    sms: int = 132
    aligned: bool = True


# Kinds of product: "16" 16-bit x and weights, "16/32" 16-bit x under 32-bit weights, "tf32" and "ieee" 32-bit x.
# A row of a table: phase → bottleneck padded to a power of two → (BLOCK_T, BLOCK_D, num_warps, num_stages), where a
# missing bottleneck means the split form, whose launches are ("down", "expand") → (BLOCK_T, BLOCK_D, BLOCK_M, …).
_Row = dict[object, tuple[int, ...]]

_HALF: _Row = {
    ("forward", 16): (64, 64, 4, 3),
    ("forward", 32): (64, 64, 4, 3),
    ("forward", 64): (128, 64, 8, 3),
    ("forward", 128): (128, 64, 8, 3),
    ("forward", 256): (64, 64, 8, 3),
    ("dx", 16): (64, 64, 4, 3),
    ("dx", 32): (64, 64, 4, 3),
    ("dx", 64): (128, 64, 8, 3),
    ("dx", 128): (128, 64, 8, 3),
    ("dx", 256): (64, 64, 8, 3),
    "down": (64, 64, 128, 4, 3),
    "expand": (64, 128, 64, 4, 3),
    ("weight_grad", 16): (64, 64, 4, 3),
    ("weight_grad", 32): (64, 64, 4, 3),
    ("weight_grad", 64): (64, 64, 4, 3),
    ("weight_grad", 128): (64, 64, 4, 3),
}
_TF32: _Row = {
    ("forward", 16): (64, 64, 4, 3),
    ("forward", 32): (64, 64, 4, 3),
    ("forward", 64): (128, 64, 8, 3),
    ("forward", 128): (128, 32, 8, 3),
    ("forward", 256): (64, 32, 8, 3),
    ("dx", 16): (64, 64, 4, 3),
    ("dx", 32): (64, 64, 4, 3),
    ("dx", 64): (128, 64, 8, 3),
    ("dx", 128): (128, 32, 8, 3),
    ("dx", 256): (64, 32, 8, 3),
    "down": (64, 32, 128, 4, 3),
    "expand": (64, 128, 32, 4, 3),
    ("weight_grad", 16): (64, 64, 4, 2),
    ("weight_grad", 32): (64, 64, 4, 2),
    ("weight_grad", 64): (64, 64, 4, 2),
}
_IEEE: _Row = {
    ("forward", 16): (64, 32, 8, 2),
    ("forward", 32): (64, 32, 8, 2),
    ("forward", 64): (64, 32, 8, 2),
    ("forward", 128): (64, 16, 8, 2),
    ("dx", 16): (64, 32, 8, 2),
    ("dx", 32): (64, 32, 8, 2),
    ("dx", 64): (64, 32, 8, 2),
    ("dx", 128): (64, 16, 8, 2),
    "down": (64, 32, 64, 8, 2),
    "expand": (64, 64, 32, 8, 2),
    ("weight_grad", 16): (32, 64, 8, 2),
    ("weight_grad", 32): (16, 64, 8, 2),
    ("weight_grad", 64): (32, 64, 8, 2),
}
# Rows that start anywhere are loaded element by element, through registers: narrower tiles, and nothing is pipelined.
_RAGGED: _Row = {
    ("forward", 16): (64, 64, 8, 1),
    ("forward", 32): (64, 64, 8, 1),
    ("forward", 64): (64, 64, 8, 1),
    ("forward", 128): (64, 32, 8, 1),
    ("dx", 16): (64, 64, 8, 1),
    ("dx", 32): (64, 64, 8, 1),
    ("dx", 64): (64, 64, 8, 1),
    ("dx", 128): (64, 32, 8, 1),
    "down": (64, 64, 64, 8, 1),
    "expand": (64, 64, 64, 8, 1),
    ("weight_grad", 16): (32, 64, 8, 1),
    ("weight_grad", 32): (32, 64, 8, 1),
    ("weight_grad", 64): (32, 64, 8, 1),
}
_RAGGED_IEEE: _Row = {
    ("forward", 16): (32, 32, 8, 1),
    ("forward", 32): (32, 32, 8, 1),
    ("forward", 64): (16, 16, 4, 1),
    ("forward", 128): (16, 16, 8, 1),
    ("dx", 16): (32, 32, 8, 1),
    ("dx", 32): (32, 32, 8, 1),
    ("dx", 64): (16, 16, 4, 1),
    ("dx", 128): (16, 16, 8, 1),
    "down": (32, 32, 32, 8, 1),
    "expand": (32, 64, 32, 8, 1),
    ("weight_grad", 16): (32, 64, 8, 1),
    ("weight_grad", 32): (32, 64, 8, 1),
}
_TABLES: dict[str, _Row] = {
    "16": _HALF,
    "16/32": _HALF,
    "tf32": _TF32,
    "ieee": _IEEE,
    "16 ragged": _RAGGED,
    "16/32 ragged": _RAGGED,
    "tf32 ragged": _RAGGED,
    "ieee ragged": _RAGGED_IEEE,
}

_RAGGED_AMD: _Row = {(phase, m): (64, 32, 8, 1) for phase in ("forward", "dx") for m in (32, 64)}

# Where a family departs from the table; () takes the fused form away.
_DEPARTURES: dict[tuple[str, str], _Row] = {
    ("sm_80", "16"): {
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 256): (64, 32, 8, 2),
        ("weight_grad", 32): (64, 64, 4, 2),
    },
    ("sm_80", "16/32"): {
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 256): (64, 32, 8, 2),
        ("weight_grad", 32): (64, 64, 4, 2),
    },
    ("sm_80", "tf32"): {("dx", 128): (64, 32, 8, 2)},
    ("sm_100", "16"): {("forward", 64): (64, 64, 4, 3)},
    ("sm_100", "16/32"): {("forward", 16): (64, 32, 4, 3), ("forward", 32): (64, 64, 4, 2)},
    ("sm_120", "16"): {
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 256): (64, 32, 8, 2),
        ("weight_grad", 16): (32, 64, 4, 2),
        ("weight_grad", 64): (64, 64, 4, 2),
        ("weight_grad", 128): (32, 64, 4, 2),
    },
    ("sm_120", "16/32"): {
        ("forward", 32): (64, 64, 4, 2),
        ("forward", 128): (128, 32, 8, 2),
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 128): (128, 32, 8, 2),
        ("dx", 256): (64, 32, 8, 2),
        "down": (64, 64, 128, 8, 2),
        ("weight_grad", 16): (32, 64, 4, 2),
        ("weight_grad", 64): (64, 64, 4, 2),
        ("weight_grad", 128): (32, 64, 4, 2),
    },
    ("sm_120", "tf32"): {
        ("forward", 128): (64, 32, 4, 3),
        ("dx", 128): (64, 32, 4, 3),
        ("forward", 256): (32, 32, 8, 2),
        ("dx", 256): (32, 32, 8, 2),
    },
    ("sm_120", "ieee"): {
        ("forward", 64): (64, 16, 8, 2),
        ("dx", 128): (32, 16, 8, 2),
        "expand": (64, 64, 16, 8, 2),
    },
    ("sm_120", "16/32 ragged"): {"expand": (64, 64, 32, 8, 1)},
    ("gfx942", "16 ragged"): _RAGGED_AMD,
    ("gfx942", "16/32 ragged"): _RAGGED_AMD | {"down": (64, 32, 64, 8, 1), "expand": (64, 64, 32, 8, 1)},
    ("gfx942", "tf32 ragged"): _RAGGED_AMD,
    ("gfx942", "16"): {
        ("forward", 256): (64, 64, 8, 2),
        ("dx", 256): (64, 64, 8, 2),
        ("weight_grad", 128): (64, 64, 4, 2),
    },
    ("gfx942", "16/32"): {
        ("forward", 128): (128, 64, 8, 2),
        ("dx", 128): (128, 64, 8, 2),
        ("forward", 256): (),
        ("dx", 256): (),
        "down": (64, 64, 128, 4, 2),
        "expand": (64, 128, 64, 4, 2),
        ("weight_grad", 128): (64, 64, 4, 2),
    },
    ("gfx942", "tf32"): {
        ("forward", 64): (128, 32, 8, 3),
        ("dx", 64): (128, 32, 8, 3),
        ("forward", 128): (64, 32, 4, 3),
        ("dx", 128): (64, 32, 4, 3),
        ("forward", 256): (),
        ("dx", 256): (),
    },
}


def padded(size: int) -> int:
    """size rounded up to a power of two, at least 16: what a matrix product of tiles needs."""
    return max(16, 1 << (size - 1).bit_length())


def family(arch: str) -> str:
    """The architecture whose tables serve this one: the nearest older one with no more shared memory."""
    if arch.startswith("gfx"):
        return "gfx942"
    number = int(arch.removeprefix("sm_"))
    if number in (86, 87, 89) or number >= 120:
        return "sm_120"
    return "sm_80" if number < 90 else "sm_90" if number < 100 else "sm_100"


def kind(problem: Problem) -> str:
    """Which table: by the bytes of x and of the weights, the precision of float32 products, and the alignment."""
    name = problem.precision if problem.x_bytes > 2 else "16" if problem.w_bytes <= 2 else "16/32"
    return name if problem.aligned else f"{name} ragged"


@cache
def select_tiles(phase: Phase, problem: Problem) -> LaunchConfig:
    """The tiles of one launch: "forward" or "dx" (fused, or the first of two), "expand" (the second), "weight_grad"."""
    departures = _DEPARTURES.get((family(problem.arch), kind(problem)), {})
    row = _TABLES[kind(problem)] | departures
    M = padded(problem.M)
    if phase == "expand":
        return LaunchConfig("split", *row["expand"])
    if phase == "weight_grad":
        M = min(M, max(m for name, m in (key for key in row if isinstance(key, tuple)) if name == phase))
    tiles = row.get((phase, M), ())
    if not tiles:
        return LaunchConfig("split", *row["down"])
    block_t, block_d, num_warps, num_stages = tiles
    return LaunchConfig("fused", block_t, block_d, M, num_warps, num_stages)


def split_count(T: int, tiles: int, block_t: int, sms: int) -> int:
    """Into how many runs of tokens the weight gradients are split: two programs a multiprocessor, ≥ 1024 tokens a run.

    tiles: programs that one run needs to cover both weights.
    """
    wanted = max(1, 2 * sms // max(1, tiles))
    return max(1, min(wanted, T // max(1024, block_t)))
