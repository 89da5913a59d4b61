"""Labelled text out of CSV, TSV and JSON Lines files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from .classes import Classes
from .decode import check_suffix, class_name, json_label, json_lines, json_text, read_text
from .rows import Rows
from .tables import DELIMITERS, read_table

SUFFIXES = (*DELIMITERS, ".jsonl")


@dataclass(frozen=True)
class Examples(Rows):
    """Texts with their labels."""

    texts: list[str]
    labels: list[str]

    def strata(self) -> list[str]:
        """The labels."""
        return self.labels


def read_examples(path: str | Path, text_column: str = "text", label_column: str = "label") -> Examples:
    """Read a .csv, .tsv or .jsonl file; an empty text is an example, an empty label is an error.

    Labels that are whole numbers name one class however they are written, 0 or 0.0, and "0" in JSON. What else may be
    one class in two spellings is among the notices, or refused.
    """
    path = Path(path)
    suffix = check_suffix(path, SUFFIXES, "data files")
    content = read_text(path, f"the columns {text_column!r} and {label_column!r}")
    notices: list[str] = []
    if suffix == ".jsonl":
        rows = _json_rows(path, content, text_column, label_column)
    else:
        table, notices = read_table(path, content, (text_column, label_column))
        rows = ((line, text, label.strip(), class_name(label)) for line, (text, label) in table)
    texts, labels, classes = [], [], Classes(path)
    for line, text, written, label in rows:
        if not label:
            raise UserError(f"{path}, line {line}: the label is empty")
        texts.append(text)
        labels.append(classes.add(line, written, label))
    if not texts:
        raise UserError(f"{path} has no examples: expected at least one row below the header")
    return Examples(str(path), texts, labels, notices=(*notices, *classes.check()))


def _json_rows(path: Path, content: str, text_column: str, label_column: str) -> Iterator[tuple[int, str, str, str]]:
    for line, row in json_lines(path, content, (text_column, label_column)):
        text, label = json_text(path, line, text_column, row[text_column]), row[label_column]
        yield line, text, json.dumps(label), json_label(path, line, label_column, label)
