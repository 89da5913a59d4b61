"""Which sizes the x-resident forward takes, and with which tiles: pure Python, as the kernel itself needs Gluon."""

from __future__ import annotations

from .shapes import LaunchConfig

# Gluon is experimental, and only these versions of Triton were tried.
VERSIONS = (("3", "6"), ("3", "9"))
BOTTLENECKS = (16, 32, 64, 128)
SHARED_PER_PROGRAM = 227 * 1024
SHARED_PER_SM = 228 * 1024
SHARED_RESERVED = 1024  # what the driver takes of every program


def available(version: str) -> bool:
    """Whether the kernel was compiled with this version of Triton, such as "3.6.0"."""
    return tuple(version.split(".")[:2]) in VERSIONS


def shared_bytes(config: LaunchConfig, D: int) -> int:
    """Bytes of shared memory of one program: all of x's tile and two blocks of weights, in 16-bit elements."""
    return 2 * (config.BLOCK_T * D + 2 * config.BLOCK_M * config.BLOCK_D)


def tiles(D: int, M: int) -> LaunchConfig | None:
    """The tiles for hidden size D and bottleneck M, or None where the kernel does not take them.

    64 tokens and 4 warps; the widest blocks with which two programs share a multiprocessor (one moves data while the
    other computes), else the widest that fit one. Weights run 3 blocks ahead. M = 128 takes narrow blocks and ends at
    D = 1024: beyond, Triton 3.9 spills. Compiled by 3.6.0 and 3.9.0 for D from 512, gelu, h and slope saved: 119 to 191
    registers for M up to 64, 201 to 214 for M = 128, no spill; two programs share a multiprocessor up to D = 768.
    """
    if M not in BOTTLENECKS or (M == 128 and D > 1024):
        return None
    for programs in (2, 1):
        room = min(SHARED_PER_PROGRAM, SHARED_PER_SM // programs - SHARED_RESERVED)
        for block_d in (64, 32) if M < 128 else (32,):
            blocks, rest = divmod(D, block_d)
            config = LaunchConfig("resident", 64, block_d, M, 4, min(3, blocks))
            if blocks and not rest and shared_bytes(config, D) <= room:
                return config
    return None
