"""Tagged sentences out of JSON Lines and CoNLL-style files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ..metrics.entities import OUTSIDE, has_entities, is_typed
from .classes import Classes
from .columns import read_columns
from .decode import check_suffix, json_label, json_lines, json_text, read_text
from .rows import Rows

COLUMN_SUFFIXES = (".conll", ".conllu", ".bio", ".bioes", ".iob", ".iob2", ".iobes")
SUFFIXES = (".jsonl", *COLUMN_SUFFIXES, ".tsv", ".txt")
TOKENS, TAGS = "tokens", "tags"


@dataclass(frozen=True)
class Sentences(Rows):
    """Words with one tag each."""

    tokens: list[list[str]]
    tags: list[list[str]]


def read_sentences(path: str | Path, word_column: int | None = None, tag_column: int | None = None) -> Sentences:
    """Read {"tokens": [...], "tags": [...]} a line of a .jsonl file, or the columns of a CoNLL-style one.

    In the latter a line is a word with its tag; a blank line ends a sentence, and lines that begin with -DOCSTART-
    count as blank. `read_columns` says which columns these are, and word_column and tag_column, from 1, say otherwise.

    Raises:
        UserError: naming file and line: what `read_columns` and the readers of JSON raise; tags of which some but not
            all mark entities.
    """
    path = Path(path)
    suffix = check_suffix(path, SUFFIXES, "files of tagged sentences")
    json_rows = suffix == ".jsonl"
    expected = f"the fields {TOKENS!r} and {TAGS!r}" if json_rows else "lines of a word and its tag"
    content = read_text(path, expected)
    classes = Classes(path)
    notices: list[str] = []
    if json_rows:
        pairs = list(_json_sentences(path, content, classes))
    else:
        found, notices = read_columns(path, content, word_column, tag_column)
        for line, _, tag in (word for sentence in found for word in sentence):
            classes.add(line, tag, tag)
        pairs = [([word for _, word, _ in sentence], [tag for _, _, tag in sentence]) for sentence in found]
    if not pairs:
        raise UserError(f"{path} has no sentence: expected {expected}")
    notices = [*notices, *classes.check(), *_check_scheme(path, classes)]
    return Sentences(str(path), [tokens for tokens, _ in pairs], [tags for _, tags in pairs], notices=tuple(notices))


def _check_scheme(path: Path, classes: Classes) -> list[str]:
    """A note where tags look as if they should mark entities, and do not; UserError where some do and some do not."""
    names = list(classes.written)
    if has_entities(names) or names == [OUTSIDE]:
        return []
    typed = next((name for name in names if is_typed(name)), None)
    if OUTSIDE in names and typed is not None:
        odd = next(name for name in names if name != OUTSIDE and not is_typed(name))
        raise UserError(
            f"{path}, line {classes.line(odd)}: the tag {odd!r} marks no entity as line {classes.line(typed)}'s "
            f"{typed!r} does: expected O, or B-, I- … and a type (BIO, BIOES or BILOU)"
        )
    if OUTSIDE in names or all(name.isdecimal() for name in names):
        other = next(name for name in names if name != OUTSIDE)
        said = f"the tag {other!r} is not BIO, BIOES or BILOU: words are scored, not entities"
        return [f"{path}, line {classes.line(other)}: {said}"]
    return []


def _json_sentences(path: Path, content: str, classes: Classes) -> Iterator[tuple[list[str], list[str]]]:
    for line, row in json_lines(path, content, (TOKENS, TAGS)):
        tokens = [json_text(path, line, TOKENS, value) for value in _list(path, line, TOKENS, row[TOKENS])]
        given = _list(path, line, TAGS, row[TAGS])
        tags = [json_label(path, line, TAGS, value) for value in given]
        if len(tokens) != len(tags):
            raise UserError(f"{path}, line {line}: {len(tokens)} tokens and {len(tags)} tags: expected one tag a token")
        if not tokens:
            raise UserError(f"{path}, line {line}: the sentence has no tokens")
        for name, values in ((TOKENS, tokens), (TAGS, tags)):
            if not all(value.strip() for value in values):
                raise UserError(f"{path}, line {line}: {name!r} holds an empty string")
        for value, tag in zip(given, tags):
            classes.add(line, json.dumps(value), tag)
        yield tokens, tags


def _list(path: Path, line: int, column: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{path}, line {line}: {column!r} must be a list, got {type(value).__name__}")
    return value
