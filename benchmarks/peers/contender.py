"""Whoever is measured: ours or a peer, in this process or in another, behind one small set of questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from adapter_fast.measure.clock import Sampler


class Unavailable(Exception):
    """A peer that cannot run here; the message becomes the note of its row."""


class Contender(Protocol):
    """One provider of one case and phase, built and ready to be asked. Building may raise Unavailable."""

    name: str
    note: str  # what a reader must know of it: how it differs, which mode was chosen
    parameters: int | None  # parameters it adds to the bare model, or of the adapter

    def warm(self) -> None:
        """Run until caches, workspaces and compilers are ready. May raise Unavailable."""

    def check(self) -> None:
        """Raise AssertionError unless its results are right, within the tests' error budget; before any timing."""

    def peak(self) -> int:
        """Peak bytes of one call above what was there before it."""

    def sampler(self, mode: str) -> Sampler | None:
        """A function that runs in that mode and gives microseconds a call; None where it has no such mode."""

    def close(self) -> None:
        """Let go of models, graphs and processes."""


Factory = Callable[[], Contender]
