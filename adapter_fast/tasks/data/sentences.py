"""Tagged sentences out of JSON Lines and CoNLL-style files, with errors that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from .decode import check_suffix, json_label, json_lines, json_text, read_text
from .rows import Rows

COLUMN_SUFFIXES = (".conll", ".bio", ".iob2")
SUFFIXES = (".jsonl", *COLUMN_SUFFIXES, ".txt")
TOKENS, TAGS = "tokens", "tags"
DOCUMENT_START = "-DOCSTART-"


@dataclass(frozen=True)
class Sentences(Rows):
    """Words with one tag each."""

    tokens: list[list[str]]
    tags: list[list[str]]


def read_sentences(path: str | Path) -> Sentences:
    """Read {"tokens": [...], "tags": [...]} a line of a .jsonl file, or the columns of a CoNLL-style one.

    In the latter a line is a word with its tag, in the first and the last column, split at white space; a blank line
    ends a sentence, and lines that begin with -DOCSTART- count as blank.
    """
    path = Path(path)
    suffix = check_suffix(path, SUFFIXES, "files of tagged sentences")
    json_rows = suffix == ".jsonl"
    expected = f"the fields {TOKENS!r} and {TAGS!r}" if json_rows else "lines of a word and its tag"
    content = read_text(path, expected)
    pairs = list(_json_sentences(path, content) if json_rows else _column_sentences(path, content))
    if not pairs:
        raise UserError(f"{path} has no sentence: expected {expected}")
    return Sentences(str(path), [tokens for tokens, _ in pairs], [tags for _, tags in pairs])


def _json_sentences(path: Path, content: str) -> Iterator[tuple[list[str], list[str]]]:
    for line, row in json_lines(path, content, (TOKENS, TAGS)):
        tokens = [json_text(path, line, TOKENS, value) for value in _list(path, line, TOKENS, row[TOKENS])]
        tags = [json_label(path, line, TAGS, value).strip() for value in _list(path, line, TAGS, row[TAGS])]
        if len(tokens) != len(tags):
            raise UserError(f"{path}, line {line}: {len(tokens)} tokens and {len(tags)} tags: expected one tag a token")
        if not tokens:
            raise UserError(f"{path}, line {line}: the sentence has no tokens")
        for name, values in ((TOKENS, tokens), (TAGS, tags)):
            if not all(value.strip() for value in values):
                raise UserError(f"{path}, line {line}: {name!r} holds an empty string")
        yield tokens, tags


def _list(path: Path, line: int, column: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{path}, line {line}: {column!r} must be a list, got {type(value).__name__}")
    return value


def _column_sentences(path: Path, content: str) -> Iterator[tuple[list[str], list[str]]]:
    tokens: list[str] = []
    tags: list[str] = []
    for line, text in enumerate(content.split("\n"), start=1):
        columns = text.split()
        if not columns or columns[0] == DOCUMENT_START:
            if tokens:
                yield tokens, tags
            tokens, tags = [], []
            continue
        if len(columns) < 2:
            raise UserError(f"{path}, line {line}: expected a word and its tag, got the one column {columns[0]!r}")
        tokens.append(columns[0])
        tags.append(columns[-1])
    if tokens:
        yield tokens, tags
