"""Labelled text out of CSV, TSV and JSON Lines files, with errors that name file and line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from .decode import check_suffix, json_label, json_lines, json_text, read_text
from .rows import Rows

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")
FIELD_LIMIT = 1 << 26


@dataclass(frozen=True)
class Examples(Rows):
    """Texts with their labels."""

    texts: list[str]
    labels: list[str]

    def strata(self) -> list[str]:
        """The labels."""
        return self.labels


def read_examples(path: str | Path, text_column: str = "text", label_column: str = "label") -> Examples:
    """Read a .csv, .tsv or .jsonl file; an empty text is an example, an empty label is an error."""
    path = Path(path)
    suffix = check_suffix(path, SUFFIXES, "data files")
    content = read_text(path, f"the columns {text_column!r} and {label_column!r}")
    if suffix == ".jsonl":
        rows = _json_rows(path, content, text_column, label_column)
    else:
        rows = _table_rows(path, content, DELIMITERS[suffix], text_column, label_column)
    texts, labels = [], []
    for line, text, label in rows:
        if not label.strip():
            raise UserError(f"{path}, line {line}: the label is empty")
        texts.append(text)
        labels.append(label.strip())
    if not texts:
        raise UserError(f"{path} has no examples: expected at least one row below the header")
    return Examples(str(path), texts, labels)


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
    for line, row in json_lines(path, content, (text_column, label_column)):
        text = json_text(path, line, text_column, row[text_column])
        yield line, text, json_label(path, line, label_column, row[label_column])
