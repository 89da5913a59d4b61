"""Errors in one line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def printable(text: str, most: int = 200) -> str:
    """Text out of a file as a terminal may have it: nothing that it would obey, and of a long one begin and end."""
    if len(text) > most:
        text = f"{text[: most * 3 // 4]} … {text[-(most // 4) :]}"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class WriteError(OSError):
    """A file or directory that cannot be written: `filename`, and why: `errno` and `strerror`."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


class UserError(ValueError):
    """A mistake in what the user gave: says what was wrong and what was expected. The command line prints that line."""
