"""GLUE's folders of TSV files, as download_glue_data.py and gluebenchmark.com lay them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...common.errors import UserError
from .classes import number_of
from .decode import read_text
from .glue_tasks import DIAGNOSTIC, GLUE, SCORES, GlueTask, plain_name
from .texts import Texts

DIAGNOSTIC_FOLDERS = ("diagnostic", "ax")
DIAGNOSTIC_FILES = ("diagnostic.tsv", "AX.tsv", "test.tsv")


def find_folder(data: Path, task: GlueTask) -> Path | None:
    """The task's folder by its published name or its configuration's, in any case; None where there is none."""
    return _folder(data, (plain_name(task.name),))


def find_diagnostic(data: Path) -> Path | None:
    """The diagnostic set's file: diagnostic/diagnostic.tsv as the script has it, or AX.tsv as the site has it."""
    folder = _folder(data, DIAGNOSTIC_FOLDERS)
    places = [folder / name for name in DIAGNOSTIC_FILES] if folder else []
    return next((path for path in [*places, data / "AX.tsv"] if path.is_file()), None)


def _folder(data: Path, names: tuple[str, ...]) -> Path | None:
    folders = (path for path in sorted(data.iterdir()) if path.is_dir())
    return next((path for path in folders if plain_name(path.name) in names), None)


def recognise(path: Path) -> GlueTask | None:
    """The task whose labelled .tsv file this is, by its first two lines; None for another file."""
    if path.suffix.lower() != ".tsv":
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            header, row = (file.readline().rstrip("\r\n").split("\t") for _ in range(2))
    except (OSError, UnicodeDecodeError):
        return None  # the reader says what is wrong
    return next((task for task in GLUE.values() if task.is_head(header, row)), None)


def read_diagnostic(path: Path) -> Texts:
    """The diagnostic set's rows."""
    return read_part(DIAGNOSTIC, path, labelled=False)


def read_part(task: GlueTask, path: Path, labelled: bool) -> Texts:
    """One file. Rows of labelled files that have no names are called by their number, from 0.

    Rows that were left out are among the notices, with their number: QQP's, as the task says.

    Raises:
        UserError: naming file and line: no such file, not UTF-8, empty, a column missing in the header, another number
            of columns than the header has, a label outside the set, a name that occurs twice.
    """
    header, rows = _table(task, path, labelled)
    wanted = [*task.texts, *([task.label] if labelled else [task.row_id])]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise UserError(f"{path}, line 1: no column {missing[0]!r}: its columns are {', '.join(header)}")
    twice = [column for column in wanted if header.count(column) > 1]
    if twice:
        raise UserError(f"{path}, line 1: the column {twice[0]!r} is there {header.count(twice[0])} times")
    row_id = header.index(task.row_id) if task.row_id in header else None
    texts = [header.index(column) for column in task.texts]
    label = header.index(task.label) if labelled else None
    ids: dict[str, int] = {}
    columns: list[list[str]] = [[] for _ in texts]
    labels: list[str] = []
    skipped = 0
    for line, row in rows:
        if len(row) < len(header) and task.skip_short:
            skipped += 1
            continue
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: {len(row)} columns, expected {len(header)}: {', '.join(header)}")
        name = str(len(ids)) if row_id is None else row[row_id]
        if name in ids:
            raise UserError(f"{path}, line {line}: {task.row_id} {name!r} occurs twice, first in line {ids[name]}")
        ids[name] = line
        for column, place in zip(columns, texts, strict=True):
            column.append(row[place])
        if label is not None:
            labels.append(row[label])
            _check_label(task, f"{path}, line {line}", row[label])
    if not ids:
        raise UserError(f"{path} has no examples: expected rows of {', '.join(header)}")
    rows_read = make_pairs(task, str(path), list(ids), columns, labels if labelled else None)
    said = (f"{path}: {skipped} rows have too few columns and are left out",) if skipped else ()
    return replace(rows_read, notices=said)


def _table(task: GlueTask, path: Path, labelled: bool) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and line number and cells of every row that is not blank; GLUE quotes and escapes nothing."""
    content = read_text(path, f"{task.name}'s tab-separated rows")
    lines = ((number, line.removesuffix("\r")) for number, line in enumerate(content.split("\n"), start=1))
    rows = ((number, line.split("\t")) for number, line in lines if line.strip())
    if labelled and task.header:
        return list(task.header), rows
    return next(rows)[1], rows


def _check_label(task: GlueTask, where: str, label: str) -> None:
    if task.labels:
        if label not in task.labels:
            raise UserError(f"{where}: {task.label} {label!r} is none of {', '.join(task.labels)}")
        return
    low, high = SCORES
    score = number_of(label)
    if score is None or not low <= score <= high:
        raise UserError(f"{where}: {task.label} must be a number from {low:g} to {high:g}, got {label!r}")


def make_pairs(task: GlueTask, source: str, ids: list[str], texts: list[list[str]], labels: list[str] | None) -> Texts:
    """The rows, with scores as numbers where the task has no classes."""
    values = [float(label) for label in labels] if labels is not None and not task.labels else labels
    return Texts(source, texts[0], values, texts[1] if len(texts) == 2 else None, ids)
