"""Errors in one line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


class WriteError(OSError):
    """A file or directory that cannot be written: `filename`, and why: `errno` and `strerror`."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


class UserError(ValueError):
    """A mistake in what the user gave: says what was wrong and what was expected. The command line prints that line."""
