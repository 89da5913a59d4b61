"""Labelled text out of CSV, TSV and JSON Lines files, with errors that name file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")
FIELD_LIMIT = 1 << 26


@dataclass(frozen=True)
class Examples:
    """Texts with their labels; `source` is what errors call them."""

    texts: list[str]
    labels: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, indices: list[int]) -> Examples:
        """The examples at these positions."""
        return Examples([self.texts[i] for i in indices], [self.labels[i] for i in indices], self.source)


def read_examples(path: str | Path, text_column: str = "text", label_column: str = "label") -> Examples:
    """Read a .csv, .tsv or .jsonl file; an empty text is an example, an empty label is an error."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: data files end in {', '.join(SUFFIXES)}")
    content = _decode(path)
    if not content.strip():
        raise UserError(f"{path} is empty: expected the columns {text_column!r} and {label_column!r}")
    if path.suffix.lower() == ".jsonl":
        rows = _json_rows(path, content, text_column, label_column)
    else:
        rows = _table_rows(path, content, DELIMITERS[path.suffix.lower()], text_column, label_column)
    texts, labels = [], []
    for line, text, label in rows:
        if not label.strip():
            raise UserError(f"{path}, line {line}: the label is empty")
        texts.append(text)
        labels.append(label.strip())
    if not texts:
        raise UserError(f"{path} has no examples: expected at least one row below the header")
    return Examples(texts, labels, str(path))


def _decode(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _table_rows(
    path: Path, content: str, delimiter: str, text_column: str, label_column: str
) -> Iterator[tuple[int, str, str]]:
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(row for row in reader if row)
        for column in (text_column, label_column):
            if column not in header:
                raise UserError(f"{path} has no column {column!r}: its columns are {', '.join(header)}")
        text_at, label_at = header.index(text_column), header.index(label_column)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{path}, line {reader.line_num}: {len(row)} columns, the header has {len(header)}")
            yield reader.line_num, row[text_at], row[label_at]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None


def _json_rows(path: Path, content: str, text_column: str, label_column: str) -> Iterator[tuple[int, str, str]]:
    for line, record in enumerate(content.split("\n"), start=1):
        if not record.strip():
            continue
        try:
            row = json.loads(record)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {line}: not valid JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {line}: expected a JSON object, got {type(row).__name__}")
        for column in (text_column, label_column):
            if column not in row:
                raise UserError(f"{path}, line {line}: no field {column!r}: its fields are {', '.join(row)}")
        text = _text(path, line, text_column, row[text_column])
        yield line, text, _label(path, line, label_column, row[label_column])


def _text(path: Path, line: int, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{path}, line {line}: {column!r} must be a string, got {type(value).__name__}")
    return value


def _label(path: Path, line: int, column: str, value: Any) -> str:
    if not isinstance(value, (str, int)):
        raise UserError(f"{path}, line {line}: {column!r} must be a string or an integer, got {type(value).__name__}")
    return str(value)
