"""Running text and documents to model language on, out of plain text and JSON Lines files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from .decode import check_suffix, json_lines, json_text, read_text
from .rows import Rows

SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True)
class Documents(Rows):
    """Lines of one running text, with their line breaks, or documents of their own."""

    texts: list[str]
    one_text: bool

    def documents(self) -> list[str]:
        """The texts that a block of tokens must not cross the end of."""
        return ["".join(self.texts)] if self.one_text else self.texts

    def in_order(self) -> bool:
        """True for the lines of one text."""
        return self.one_text


def read_documents(path: str | Path, text_column: str = "text") -> Documents:
    """Read a .txt file as one running text, a row a line, or a .jsonl file with a document a line; blank ones go."""
    path = Path(path)
    suffix = check_suffix(path, SUFFIXES, "files to model language on")
    content = read_text(path, "text" if suffix == ".txt" else f"the field {text_column!r}")
    if suffix == ".txt":
        return Documents(str(path), list(io.StringIO(content, newline="")), one_text=True)
    rows = json_lines(path, content, (text_column,))
    texts = [(line, json_text(path, line, text_column, row[text_column])) for line, row in rows]
    filled = [text for _, text in texts if text.strip()]
    blank = [line for line, text in texts if not text.strip()]
    if not filled:
        raise UserError(f"{path} has no document: the field {text_column!r} is empty in every line")
    more = f", with {len(blank) - 1:,} more" if len(blank) > 1 else ""
    notices = [f"{path}, line {blank[0]}: the document is blank and left out{more}"] if blank else []
    return Documents(str(path), filled, one_text=False, notices=tuple(notices))
