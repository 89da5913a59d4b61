"""Questions with their contexts and answers, out of SQuAD v1.1's JSON; errors name the question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .decode import check_suffix, read_text
from .errors import UserError
from .rows import Rows

SUFFIXES = (".json",)


class Answer(NamedTuple):
    """A span of a context: its text and its first character's position."""

    text: str
    start: int


@dataclass(frozen=True)
class Questions(Rows):
    """Questions about contexts, each with one or more answers that are spans of its context."""

    ids: list[str]
    questions: list[str]
    contexts: list[str]
    answers: list[list[Answer]]

    def groups(self) -> list[str]:
        """The contexts, so that none is in two parts of a split."""
        return self.contexts


def read_questions(path: str | Path) -> Questions:
    """Read a file of SQuAD v1.1 (Rajpurkar et al. 2016): data → paragraphs → qas → answers.

    Raises:
        UserError: another structure, an id that occurs twice, a question without an answer (as SQuAD v2.0 has them),
            an answer that is not in its context where it says.
    """
    path = Path(path)
    check_suffix(path, SUFFIXES, "files of questions")
    try:
        content = json.loads(read_text(path, "SQuAD's JSON"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    seen: set[str] = set()
    rows = []
    for where, context, entry in _entries(path, content):
        row = _question(where, context, entry)
        if row[0] in seen:
            raise UserError(f"{path}: the question id {row[0]!r} occurs twice")
        seen.add(row[0])
        rows.append(row)
    if not rows:
        raise UserError(f"{path} has no questions")
    return Questions(str(path), *(list(column) for column in zip(*rows)))


def _entries(path: Path, content: Any) -> Iterator[tuple[str, str, Any]]:
    """Where it stands, its context and the entry, for each question."""
    for i, article in enumerate(_get(f"{path}", content, "data", list)):
        for j, paragraph in enumerate(_get(f"{path}: data[{i}]", article, "paragraphs", list)):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = _get(where, paragraph, "context", str)
            for k, entry in enumerate(_get(where, paragraph, "qas", list)):
                yield f"{where}.qas[{k}]", context, entry


def _question(where: str, context: str, entry: Any) -> tuple[str, str, str, list[Answer]]:
    name = _get(where, entry, "id", str)
    question = _get(where, entry, "question", str)
    answers = []
    for answer in _get(where, entry, "answers", list):
        text, start = _get(where, answer, "text", str), _get(where, answer, "answer_start", int)
        if not text.strip():
            raise UserError(f"{where}: question {name!r} has an empty answer")
        if start < 0 or context[start : start + len(text)] != text:
            elsewhere = context.find(text)
            found = f"it is at {elsewhere}" if elsewhere >= 0 else "it does not occur there"
            raise UserError(
                f"{where}: the answer {text!r} of question {name!r} is not at {start} in its context: {found}"
            )
        answers.append(Answer(text, start))
    if not answers:
        raise UserError(f"{where}: question {name!r} has no answer: expected SQuAD v1.1, where each has one or more")
    return name, question, context, answers


def _get(where: str, value: Any, key: str, kind: type) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise UserError(f"{where} has no {key!r}: expected SQuAD v1.1's JSON")
    found = value[key]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise UserError(f"{where}: {key!r} must be of type {kind.__name__}, got {type(found).__name__}")
    return found
