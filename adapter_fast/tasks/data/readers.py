"""Labelled text out of CSV, TSV and JSON Lines files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...common.errors import UserError
from .classes import PREDICTED, Classes, number_of
from .decode import check_suffix, class_name, json_label, json_lines, json_text, read_text
from .tables import DELIMITERS, read_table
from .texts import Texts

SUFFIXES = (*DELIMITERS, ".jsonl")


def read_examples(
    path: str | Path, text_columns: Sequence[str] = ("text",), label_column: str = "label", numbers: bool = False
) -> Texts:
    """Read a .csv, .tsv or .jsonl file; an empty text is an example, an empty label is an error.

    Labels that are whole numbers name one class however they are written, 0 or 0.0, and "0" in JSON. What else may be
    one class in two spellings is among the notices, or refused.

    Args:
        text_columns: one, or two for pairs of texts.
        numbers: labels are numbers, not classes.
    """
    path = Path(path)
    suffix = check_suffix(path, SUFFIXES, "data files")
    columns = (*text_columns, label_column)
    content = read_text(path, f"the columns {' and '.join(map(repr, columns))}")
    notices: list[str] = []
    if suffix == ".jsonl":
        rows = _json_rows(path, content, columns, numbers)
    else:
        table, notices = read_table(path, content, columns)
        rows = ((line, cells[:-1], cells[-1].strip(), class_name(cells[-1])) for line, cells in table)
    texts, labels, classes = [], [], Classes(path)
    for line, cells, written, label in rows:
        if not label:
            raise UserError(f"{path}, line {line}: the label is empty")
        texts.append(cells)
        labels.append(_number(path, line, label) if numbers else classes.add(line, written, label))
    if not texts:
        raise UserError(f"{path} has no examples: expected at least one row below the header")
    seconds = [cells[1] for cells in texts] if len(text_columns) == 2 else None
    notices = notices if numbers else [*notices, *classes.check()]
    return Texts(str(path), [cells[0] for cells in texts], labels, seconds, notices=tuple(notices))  # type: ignore[arg-type]


def _number(path: Path, line: int, label: str) -> float:
    value = number_of(label.strip())
    if value is None:
        raise UserError(f"{path}, line {line}: the label must be a number, got {label!r}")
    return value


def _json_rows(
    path: Path, content: str, columns: Sequence[str], numbers: bool
) -> Iterator[tuple[int, list[str], str, str]]:
    *texts, label_column = columns
    for line, row in json_lines(path, content, tuple(columns)):
        cells, label = [json_text(path, line, column, row[column]) for column in texts], row[label_column]
        written = json.dumps(label)
        if numbers:
            yield line, cells, written, label if isinstance(label, str) else written
        elif isinstance(label, float) and number_of(written) and not label.is_integer():
            said = f"{label_column!r} must be a string or an integer, got {label}"
            raise UserError(f"{path}, line {line}: {said}: {PREDICTED}")
        else:
            yield line, cells, written, json_label(path, line, label_column, label)
