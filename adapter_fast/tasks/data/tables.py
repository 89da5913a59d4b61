"""Rows of CSV and TSV files; whether quotes are the format's or the text's, the file itself tells."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...common.errors import UserError
from .decode import split_lines

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FIELD_LIMIT = 1 << 26
QUOTE = '"'


class Row(NamedTuple):
    """A row's cells, and the lines that it begins and ends in."""

    first: int
    last: int
    cells: list[str]


def read_table(path: Path, content: str, columns: tuple[str, ...]) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The line and these columns' cells of every row below the header, and what was assumed.

    CSV quotes as RFC 4180 says. TSV comes in two ways: quoted like CSV, as pandas writes it, or as GLUE's, where a
    quote is a letter like any other. Read the wrong way, a text that begins with a quote swallows the rows behind it.

    Raises:
        UserError: a column that is missing or there twice, a row with another number of cells than the header, an
            open quote, or a quoted cell of a CSV file that has swallowed rows.
    """
    delimiter = DELIMITERS[path.suffix.lower()]
    plain = [Row(n, n, line.split(delimiter)) for n, line in enumerate(split_lines(content), start=1) if line]
    rows, notices = plain, []
    opening = next((row.last for row in plain if any(cell.startswith(QUOTE) for cell in row.cells)), None)
    if opening is not None:
        quoted, broken = _quoted(path, content, delimiter)
        if delimiter == "," or not (_fits(plain) and _is_text(plain, quoted, broken)):
            if broken is not None:
                raise UserError(f"{path}, {broken}{_ragged(plain) if delimiter != ',' else ''}")
            _check_swallowed(path, plain, quoted, columns)
            rows = quoted
        else:
            said = "a cell begins with a quote: quotes are taken for text, as GLUE's files have them"
            notices.append(f"{path}, line {opening}: {said}")
    header = rows[0].cells
    for column in columns:
        if column not in header:
            raise UserError(f"{path} has no column {column!r}: its columns are {', '.join(header)}")
        if header.count(column) > 1:
            raise UserError(
                f"{path}, line {rows[0].first}: the column {column!r} is there {header.count(column)} times"
            )
    places = [header.index(column) for column in columns]
    found = []
    for row in rows[1:]:
        if len(row.cells) != len(header):
            raise UserError(f"{path}, line {row.last}: {len(row.cells)} columns, the header has {len(header)}")
        found.append((row.last, [row.cells[place] for place in places]))
    return found, notices


def _quoted(path: Path, content: str, delimiter: str) -> tuple[list[Row], str | None]:
    """The rows by the rules of CSV, up to the first that breaks them, and how it does."""
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    first = 1
    try:
        for cells in reader:
            if cells:
                rows.append(Row(first, reader.line_num, cells))
            first = reader.line_num + 1
    except csv.Error as error:
        return rows, f"line {first}: {error}, reading from there to line {reader.line_num}"
    return rows, None


def _fits(rows: list[Row]) -> bool:
    return all(len(row.cells) == len(rows[0].cells) for row in rows)


def _ragged(plain: list[Row]) -> str:
    odd = next((row for row in plain if len(row.cells) != len(plain[0].cells)), plain[0])
    return f"; with quotes as text, line {odd.last} has {len(odd.cells)} columns, the header {len(plain[0].cells)}"


def _is_text(plain: list[Row], quoted: list[Row], broken: str | None) -> bool:
    """Whether quotes are text in a TSV file whose every line has the header's number of cells."""
    if broken is not None or not _fits(quoted) or any(row.first < row.last for row in quoted):
        return True
    if any(QUOTE in cell for row in plain for cell in row.cells if not cell.startswith(QUOTE)):
        return True  # who quotes at all quotes such a cell
    doubled = any(QUOTE in ours and ours != theirs for a, b in zip(quoted, plain) for ours, theirs in zip(a[2], b[2]))
    below = [row.cells for row in plain[1:]]
    whole = any(all(cell.startswith(QUOTE) for cell in column) for column in zip(*below))
    return not (doubled or whole or plain[0].cells[0].startswith(QUOTE))


def _check_swallowed(path: Path, plain: list[Row], quoted: list[Row], columns: tuple[str, ...]) -> None:
    """UserError where lines in a quoted cell are rows by themselves: as many cells, and a label that others have."""
    header = plain[0].cells
    if columns[-1] not in header:
        return
    place = header.index(columns[-1])
    labels = {row.first: row.cells[place] for row in plain if len(row.cells) == len(header)}
    known = {labels.get(row.first) for row in quoted[1:] if row.first == row.last}
    if 2 * len(labels) > len(plain):
        known |= {label for label, count in Counter(labels.values()).items() if count > 1}
    for row in quoted[1:]:
        for line in range(row.first, row.last):
            label = labels.get(line, QUOTE)
            prose = label != label.strip() or label.startswith(QUOTE)  # a comma in prose has a space behind it
            if label in known and label and not prose:
                raise UserError(
                    f"{path}, line {line}: a quoted cell runs on to line {row.last} over lines that look like rows: "
                    "expected a quote that is text to be doubled, in quotes, or JSON Lines"
                )
