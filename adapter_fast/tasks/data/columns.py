"""Tagged sentences in columns: CoNLL-2000 to 2003, CoNLL-U, WNUT, MultiCoNER, GermEval, Universal NER, WikiANN.

What these files have beside words and tags is told apart by the file itself: comments, numbers of words, annotators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ...common.errors import UserError
from ..metrics.entities import OUTSIDE, has_entities, is_typed
from .decode import split_lines

DOCUMENT_START = "-DOCSTART-"
CONLLU_COLUMNS, CONLLU_TAG = 10, 3  # ID FORM LEMMA UPOS …, as CoNLL-X has its coarse tag
GERMEVAL_COLUMNS = 4  # number, word, outer entities, nested ones
# Formats in which columns are no tags of words, by the comment they begin with.
OTHERS = {"#begin document": "CoNLL-2012, whose columns hold brackets", "#FORMAT=WebAnno": "WebAnno TSV"}
_BLANKS = re.compile(r"[ \t]+")  # str.split would cut a word at a no-break space
_NUMBER = re.compile(r"(\d+)([-.]\d+)?")
_FIELD = re.compile(r"#\s*\S+\s+=\s")  # CoNLL-U's # text = …
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:[-_][a-z]+)*):.")  # WikiANN's en:word


class Line(NamedTuple):
    """A line that is not blank: its number, its cells, and whether it is the first behind a blank one."""

    number: int
    cells: list[str]
    opens: bool


class Layout(NamedTuple):
    """How many columns the first line of a word has, and which are words and tags, counted from 0."""

    width: int
    numbered: bool  # the first column numbers the words
    word: int
    tag: int


def read_columns(
    path: Path, content: str, word: int | None = None, tag: int | None = None
) -> tuple[list[list[tuple[int, str, str]]], list[str]]:
    """The sentences' words as (line, word, tag), and what was assumed.

    The word is the first column behind the words' numbers. The tag is the last column that holds entities, the outer
    one where they are nested; UPOS in CoNLL-U; else the last column. Lines that begin with # before a sentence are
    comments, unless they have a tag as words have it. Spans of words (1-2) and empty nodes (1.1) are no words.

    Args:
        word, tag: columns, from 1, in place of these.

    Raises:
        UserError: another format, a line with too few or other columns than its sentence, a comment inside a sentence,
            an empty word.
    """
    lines = list(_lines(path, content))
    rows = [line for line in lines if not line.cells[0].startswith("#")]
    if not rows:
        return [], []
    for line in rows:
        if len(line.cells) < 2:
            raise _one_column(path, line)
    layout, notices = _layout(path, rows, word, tag)
    lines, comments = _without_comments(path, lines, rows, layout)
    if comments:
        more = f", with {len(comments) - 1:,} more" if len(comments) > 1 else ""
        notices.append(f"{path}, line {comments[0].number}: begins with # and is taken for a comment{more}")
    sentences, odd = _sentences(path, lines, layout)
    if odd:
        notices.append(odd)
    return _without_language(path, sentences, notices), notices


def _one_column(path: Path, line: Line) -> UserError:
    return UserError(
        f"{path}, line {line.number}: expected a word and its tag, got the one column {' '.join(line.cells)!r}"
    )


def _lines(path: Path, content: str) -> Iterator[Line]:
    """The lines with something in them; cells are parted by tabs where all lines of words have one, else by blanks."""
    texts = split_lines(content)
    words = [text for text in texts if _is_filled(text) and not text.startswith("#")]
    tabs = all("\t" in text.rstrip() for text in words)
    opens = True
    for number, text in enumerate(texts, start=1):
        for begin, name in OTHERS.items():
            if text.startswith(begin):
                raise UserError(f"{path}, line {number}: is {name}: expected lines of a word and its tag")
        if not _is_filled(text):
            opens = True
            continue
        cells = text.rstrip().split("\t") if tabs else _BLANKS.split(text.strip(" \t"))
        yield Line(number, [cell.strip() for cell in cells], opens)
        opens = False


def _is_filled(text: str) -> bool:
    columns = text.split(maxsplit=1)
    return bool(columns) and columns[0] != DOCUMENT_START


def _layout(path: Path, rows: list[Line], word: int | None, tag: int | None) -> tuple[Layout, list[str]]:
    """Where words and tags are, told from the lines that have as many columns as the first."""
    first = rows[0]
    count = len(first.cells)
    columns: list[Sequence[str]] = list(zip(*(row.cells for row in rows if len(row.cells) == count)))
    numbered = _counts(columns[0])
    for name, given in (("text", word), ("label", tag)):
        if given is not None and not 1 <= given <= count:
            raise UserError(f"{path}, line {first.number}: has no column {given} for the {name}: it has {count}")
    if numbered and count < 3 and word is None:
        raise UserError(
            f"{path}, line {first.number}: its first column numbers the words and one column is left: "
            "expected a word and its tag"
        )
    word_at = word - 1 if word else int(numbered)
    tag_at = tag - 1 if tag else _tag_column(columns, word_at, numbered)
    notices = []
    if (word_at != 0 and word is None) or (tag_at != count - 1 and tag is None):
        said = f"words are taken from column {word_at + 1} of {count}, tags from column {tag_at + 1}"
        notices.append(f"{path}, line {first.number}: {said}")
    return Layout(count, numbered, word_at, tag_at), notices


def _counts(column: Sequence[str]) -> bool:
    """Whether the cells number the words, of a sentence or of the file, from 0 or 1."""
    numbers = []
    for cell in column:
        number = _NUMBER.fullmatch(cell)
        if number is None or len(cell) > 18:
            return False
        if not number[2]:
            numbers.append(int(number[1]))
    steps = list(pairwise(numbers))
    counted = any(after == before + 1 for before, after in steps)
    return counted and numbers[0] <= 1 and all(after <= 1 or after == before + 1 for before, after in steps)


def _tag_column(columns: list[Sequence[str]], word_at: int, numbered: bool) -> int:
    tagged = [place for place in range(word_at + 1, len(columns)) if has_entities(columns[place])]
    if numbered and len(columns) == GERMEVAL_COLUMNS and len(tagged) > 1:
        return tagged[0]
    if tagged:
        types = [{tag.partition("-")[2] for tag in set(columns[place]) - {OUTSIDE}} for place in tagged]
        return next(place for place, own in zip(tagged, types) if own & types[-1])
    if numbered and len(columns) == CONLLU_COLUMNS:
        return CONLLU_TAG
    return len(columns) - 1


def _without_comments(path: Path, lines: list[Line], rows: list[Line], layout: Layout) -> tuple[list[Line], list[Line]]:
    """Lines of words, and comments."""
    counts = {len(row.cells) for row in rows}
    tags = {_cell(row, layout) for row in rows} | {"#"}  # the Penn Treebank's tag of the word #
    words: list[Line] = []
    comments: list[Line] = []
    opens = True
    for line in lines:
        opens = opens or line.opens
        if line.cells[0].startswith("#"):
            tag = _cell(line, layout)
            tagged = len(line.cells) in counts and (tag in tags or is_typed(tag))
            if not tagged or (opens and _FIELD.match(" ".join(line.cells))):
                if not opens:
                    raise UserError(
                        f"{path}, line {line.number}: begins with # inside a sentence and has no tag: "
                        "expected a blank line before a comment"
                    )
                comments.append(line)
                continue
        words.append(line._replace(opens=opens))
        opens = False
    return words, comments


def _cell(line: Line, layout: Layout) -> str:
    return line.cells[layout.tag] if layout.tag < len(line.cells) else line.cells[-1]


def _sentences(path: Path, lines: list[Line], layout: Layout) -> tuple[list[list[tuple[int, str, str]]], str]:
    """The sentences, and a note of the first that has other columns than the first of all."""
    sentences: list[list[tuple[int, str, str]]] = []
    own, odd = layout.width, ""
    plain = not layout.numbered and layout.word == 0 and layout.tag == own - 1
    for line in lines:
        cells = line.cells
        if len(cells) < 2:
            raise _one_column(path, line)
        if len(cells) != own and line.opens and plain:
            own = len(cells)
            if own != layout.width and not odd:
                said = f"{own} columns, elsewhere {layout.width}: words are taken from the first, tags from the last"
                odd = f"{path}, line {line.number}: {said}"
        elif len(cells) != own:
            raise UserError(f"{path}, line {line.number}: {len(cells)} columns, expected {own}")
        if line.opens:
            sentences.append([])
        if layout.numbered and not cells[0].isdecimal():
            continue
        word, tag = cells[layout.word], cells[-1] if plain else cells[layout.tag]
        if not word or not tag:
            raise UserError(f"{path}, line {line.number}: the {'tag' if word else 'word'} is empty")
        sentences[-1].append((line.number, word, tag))
    return [sentence for sentence in sentences if sentence], odd


def _without_language(
    path: Path, sentences: list[list[tuple[int, str, str]]], notices: list[str]
) -> list[list[tuple[int, str, str]]]:
    """The words without the language that WikiANN puts before each, as en:word."""
    found = [_LANGUAGE.match(word) for sentence in sentences for _, word, _ in sentence]
    languages = {match[1] if match else "" for match in found}
    if len(found) < 2 or len(languages) > 1 or "" in languages:
        return sentences
    [language] = languages
    notices.append(f"{path}, line {sentences[0][0][0]}: every word begins with {language}: which is left out")
    return [[(line, word[len(language) + 1 :], tag) for line, word, tag in sentence] for sentence in sentences]
