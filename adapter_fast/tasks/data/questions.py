"""Questions with their contexts and answers, out of SQuAD v1.1's JSON; errors name the question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from ...common.errors import UserError
from .decode import check_characters, check_suffix, parse_json, read_text
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


def read_questions(path: str | Path, skip_bad: bool = False) -> Questions:
    """Read a file of SQuAD v1.1 (Rajpurkar et al. 2016): data → paragraphs → qas → answers.

    Args:
        skip_bad: leave out answers that are empty or not where they say, and questions that have no other; their
            number is among the notices.

    Raises:
        UserError: another structure, an id that occurs twice, a question without an answer (as SQuAD v2.0 has them),
            an answer that is not in its context where it says.
    """
    path = Path(path)
    check_suffix(path, SUFFIXES, "files of questions")
    content = parse_json(path, read_text(path, "SQuAD's JSON"))
    return check_questions(str(path), _entries(path, content), skip_bad)


def read_articles(path: str | Path) -> list[Questions]:
    """The same file's questions by article, in its order; an article without any is left out."""
    rows = read_questions(path)
    content = parse_json(Path(path), read_text(Path(path), "SQuAD's JSON"))
    sizes = [sum(len(paragraph["qas"]) for paragraph in article["paragraphs"]) for article in content["data"]]
    ends = list(accumulate(sizes))
    return [rows.pick(range(end - size, end)) for size, end in zip(sizes, ends) if size]


def check_questions(source: str, entries: Iterable[tuple[str, str, Any]], skip_bad: bool = False) -> Questions:
    """The questions of (where it stands, context, entry), an entry being one of SQuAD's qas: id, question, answers.

    Raises:
        UserError: what `read_questions` raises about an entry; no entries.
    """
    seen: set[str] = set()
    rows = []
    bad: list[str] = []
    for where, context, entry in entries:
        row = _question(where, context, entry, bad if skip_bad else None)
        if row[0] in seen:
            raise UserError(f"{source}: the question id {row[0]!r} occurs twice")
        seen.add(row[0])
        if row[3]:
            rows.append(row)
    if not rows:
        raise UserError(f"{source} has no questions" + (f" with a good answer: {bad[0]}" if bad else ""))
    notices: tuple[str, ...] = ()
    if bad:
        without = len(seen) - len(rows)
        counts = f"{_count(len(bad), 'bad answer')} left out, and {_count(without, 'question')} that had no other"
        notices = (f"{source}: {counts}; the first: {bad[0]}",)
    return Questions(source, *(list(column) for column in zip(*rows)), notices=notices)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _entries(path: Path, content: Any) -> Iterator[tuple[str, str, Any]]:
    """Where it stands, its context and the entry, for each question."""
    for i, article in enumerate(get_field(f"{path}", content, "data", list)):
        for j, paragraph in enumerate(get_field(f"{path}: data[{i}]", article, "paragraphs", list)):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = get_field(where, paragraph, "context", str)
            for k, entry in enumerate(get_field(where, paragraph, "qas", list)):
                yield f"{where}.qas[{k}]", context, entry


def _question(where: str, context: str, entry: Any, bad: list[str] | None) -> tuple[str, str, str, list[Answer]]:
    """The row; what is wrong with an answer is raised, or with a list noted there."""
    name = get_field(where, entry, "id", str)
    question = get_field(where, entry, "question", str)
    answers = []
    given = get_field(where, entry, "answers", list)
    if not given:
        raise UserError(f"{where}: question {name!r} has no answer: expected SQuAD v1.1, where each has one or more")
    for answer in given:
        text, start = get_field(where, answer, "text", str), get_field(where, answer, "answer_start", int)
        wrong = _wrong_answer(name, context, text, start)
        if wrong and bad is None:
            raise UserError(f"{where}: {wrong}")
        if wrong and bad is not None:
            bad.append(f"{where}: {wrong}")
        else:
            answers.append(Answer(text, start))
    return name, question, context, answers


def _wrong_answer(name: str, context: str, text: str, start: int) -> str:
    """What is wrong with the answer of this question, "" for nothing."""
    if not text.strip():
        return f"question {name!r} has an empty answer"
    if start < 0 or context[start : start + len(text)] != text:
        elsewhere = context.find(text)
        found = f"it is at {elsewhere}" if elsewhere >= 0 else "it does not occur there"
        return f"the answer {text!r} of question {name!r} is not at {start} in its context: {found}"
    return ""


def get_field(where: str, value: Any, key: str, kind: type) -> Any:
    """The value of an object's field; UserError where it has none, or one of another type."""
    if not isinstance(value, dict) or key not in value:
        raise UserError(f"{where} has no {key!r}: expected SQuAD v1.1's JSON")
    found = value[key]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise UserError(f"{where}: {key!r} must be of type {kind.__name__}, got {type(found).__name__}")
    return check_characters(f"{where}: {key!r}", found) if isinstance(found, str) else found
