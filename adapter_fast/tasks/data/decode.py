"""Text and JSON out of files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...common.errors import UserError


def check_suffix(path: Path, suffixes: tuple[str, ...], what: str) -> str:
    """The file's ending in lower case; UserError where it is none of these."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: {what} end in {', '.join(suffixes)}")
    return path.suffix.lower()


def read_text(path: Path, expected: str) -> str:
    """The file as UTF-8 text without a byte order mark; UserError where it is none, or holds nothing but space."""
    try:
        raw = path.read_bytes()
        content = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text: byte {error.start} cannot be decoded") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not content.strip():
        raise UserError(f"{path} is empty: expected {expected}")
    return content


def json_lines(path: Path, content: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not blank; UserError where one lacks a column."""
    for line, record in enumerate(content.split("\n"), start=1):
        if not record.strip():
            continue
        try:
            row = json.loads(record)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {line}: not valid JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {line}: expected a JSON object, got {type(row).__name__}")
        for column in columns:
            if column not in row:
                raise UserError(f"{path}, line {line}: no field {column!r}: its fields are {', '.join(row)}")
        yield line, row


def json_text(path: Path, line: int, column: str, value: Any) -> str:
    """The value of a JSON field that must be a string."""
    if not isinstance(value, str):
        raise UserError(f"{path}, line {line}: {column!r} must be a string, got {type(value).__name__}")
    return value


def json_label(path: Path, line: int, column: str, value: Any) -> str:
    """The value of a JSON field that must be a string or a whole number, as a string."""
    if not isinstance(value, (str, int)):
        raise UserError(f"{path}, line {line}: {column!r} must be a string or an integer, got {type(value).__name__}")
    return str(value)
