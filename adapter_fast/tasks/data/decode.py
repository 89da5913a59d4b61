"""Text and JSON out of files, with errors that name file and line."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...common.errors import UserError

# A byte order mark tells the encoding; that of UTF-32 comes first, since UTF-16's begins it.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")
_WHOLE = re.compile(r"([+-]?\d{1,18})\.0+")


def check_suffix(path: Path, suffixes: tuple[str, ...], what: str) -> str:
    """The file's ending in lower case; UserError where it is none of these."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: {what} end in {', '.join(suffixes)}")
    return path.suffix.lower()


def read_text(path: Path, expected: str) -> str:
    """The file's text without its byte order mark: UTF-8, or UTF-16 or UTF-32 where the mark says so.

    Raises:
        UserError: no such file, another encoding, a NUL character, nothing but space.
    """
    encoding = "utf-8-sig"
    try:
        raw = path.read_bytes()
        encoding = next((name for mark, name in MARKS if raw.startswith(mark)), encoding)
        content = raw.decode(encoding)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        name = encoding.upper().removesuffix("-SIG")
        raise UserError(f"{path}, line {line}: is not {name} text: byte {error.start} cannot be decoded") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if "\0" in content:  # UTF-16 without its mark decodes as UTF-8, a NUL between any two letters
        line = len(split_lines(content[: content.index("\0")]))
        raise UserError(f"{path}, line {line}: holds a NUL character: expected UTF-8, or UTF-16 with a byte order mark")
    if not content.strip():
        raise UserError(f"{path} is empty: expected {expected}")
    return content


def split_lines(content: str) -> list[str]:
    r"""The lines without their ends: \n, \r\n or \r. str.splitlines would cut at seven other characters too."""
    return _LINE_END.split(content)


def parse_json(path: Path, text: str, line: int | None = None) -> Any:
    """The value of a JSON text, which is this line of the file, or with None all of it.

    Raises:
        UserError: not valid JSON, a field twice in one object, a number or a nesting that Python does not take.
    """
    first = line or 1
    where = f"{path}, line {line}" if line else f"{path}"
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {first + error.lineno - 1}: not valid JSON: {error.msg}") from None
    except _Twice as error:
        raise UserError(f"{where}: an object has the field {str(error)!r} twice") from None
    except RecursionError:
        raise UserError(f"{where}: its lists and objects are nested too deep to be read") from None
    except ValueError:  # the one that json leaves to int
        number = re.search(r"\d{4301,}", text)
        lines = len(split_lines(text[: number.start()])) if number else 1
        raise UserError(f"{path}, line {first + lines - 1}: a number has more than 4,300 digits") from None


class _Twice(ValueError):
    """A field stands twice in an object; json would take the last and say nothing."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return made


def json_lines(path: Path, content: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not blank; UserError where one lacks a column."""
    for line, record in enumerate(split_lines(content), start=1):
        if not record.strip():
            continue
        row = parse_json(path, record, line)
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {line}: expected a JSON object, got {type(row).__name__}")
        for column in columns:
            if column not in row:
                raise UserError(f"{path}, line {line}: no field {column!r}: its fields are {', '.join(row)}")
        yield line, row


def check_characters(where: str, text: str) -> str:
    """The text; UserError where it holds half of a surrogate pair, as JSON's escapes may, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise UserError(f"{where} holds half of a character, \\u{half:04x}, at {error.start}: cut off there?") from None
    return text


def json_text(path: Path, line: int, column: str, value: Any) -> str:
    """The value of a JSON field that must be a string."""
    if not isinstance(value, str):
        raise UserError(f"{path}, line {line}: {column!r} must be a string, got {type(value).__name__}")
    return check_characters(f"{path}, line {line}: {column!r}", value)


def json_label(path: Path, line: int, column: str, value: Any) -> str:
    """The class that a JSON field names: a string, a whole number (1.0 is 1), or false or true as JSON writes them."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, (str, int)):
        got = value if isinstance(value, float) else type(value).__name__
        raise UserError(f"{path}, line {line}: {column!r} must be a string or an integer, got {got}")
    return class_name(check_characters(f"{path}, line {line}: {column!r}", str(value)))


def class_name(label: str) -> str:
    """A label without white space around it; 1.0 is 1: so pandas writes whole numbers of a column with gaps."""
    label = label.strip()
    whole = _WHOLE.fullmatch(label)
    return str(int(whole[1])) if whole else label
