"""One moving line on a terminal; in a log, one line for every tenth of the work."""

from __future__ import annotations

import sys


class Progress:
    """Counts steps to `total` on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def step(self, name: str) -> None:
        """One step is done, or about to begin: `name` says which."""
        self.done += 1
        if sys.stderr.isatty():
            end = "\n" if self.done == self.total else ""
            print(f"\r\033[K[{self.done}/{self.total}] {name[:90]}", end=end, file=sys.stderr, flush=True)
        elif self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            print(f"[{self.done}/{self.total}] {name}", file=sys.stderr, flush=True)
