"""Finished runs on disk: one JSON file each, written whole, and claimed by one process at a time."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import write_whole, writing

ROWS, CLAIMS, KEPT = "runs", "claims", "kept"


class Store:
    """A directory of runs: runs/<key>.json, and what later runs need of them in kept/<key>/.

    A run that is killed leaves no row, and its claim goes with its process: the next process does it again.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if directory.exists() and not directory.is_dir():
            raise UserError(f"output {directory} is a file: expected a directory")
        with writing(directory):
            for name in (ROWS, CLAIMS):
                (directory / name).mkdir(parents=True, exist_ok=True)
        self._known: dict[str, dict[str, Any]] = {}

    def take(self, rows: Iterable[dict[str, Any]]) -> int:
        """Keep rows of runs that were finished elsewhere, where there is none of the run yet; how many."""
        new = [row for row in rows if self.find(row["key"]) is None]
        for row in new:
            self.write(row["key"], row)
        return len(new)

    def find(self, key: str) -> dict[str, Any] | None:
        """A finished run's row; None where there is none, or one that is cut: that run is done again."""
        if key not in self._known:
            try:
                row = json.loads((self.directory / ROWS / f"{key}.json").read_text("utf-8"))
            except (FileNotFoundError, ValueError):
                return None
            if not isinstance(row, dict):
                return None
            self._known[key] = row
        return self._known[key]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every finished run by key."""
        keys = sorted(path.stem for path in (self.directory / ROWS).glob("*.json") if not path.name.startswith("."))
        found = {key: self.find(key) for key in keys}
        return {key: row for key, row in found.items() if row is not None}

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Keep a finished run's row, whole or not at all."""
        write_whole(self.directory / ROWS / f"{key}.json", json.dumps(row, indent=1, allow_nan=False) + "\n")

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether this process may do the run; the system takes the claim back when the process ends, however it does.

        A file system that cannot lock (some network ones) raises UserError.
        """
        path = self.directory / CLAIMS / key
        with writing(path):
            file = path.open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                raise UserError(f"output {self.directory} cannot lock files: {error.strerror}") from None
            yield True

    def kept(self, key: str) -> Path:
        """Where a run keeps what later ones need."""
        return self.directory / KEPT / key
