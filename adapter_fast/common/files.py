"""Files written whole or not at all, and one error for all that can keep them from being written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import WriteError, first_line

# What torch.save raises, a RuntimeError, and numpy, an OSError, that do not say why.
_UNTOLD = re.compile("PytorchStreamWriter|inline_container|iostream error|Parent directory|requested and \\d+ written")
_PROBE = 1 << 20  # bytes


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`: where that fails, the error is a WriteError that names it, whoever wrote.

    Python raises OSError, often without a name; Rust (safetensors, tokenizers) its own types with the system's number
    in the text; torch.save and numpy errors without it, and a second attempt to write there tells. Other errors pass.
    """
    try:
        yield
    except (WriteError, ConnectionError, TimeoutError):
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) and error.errno else _number(error, path)
        if number is None or number < 0:  # gaierror's
            raise
        why = os.strerror(number) if number != errno.EIO else first_line(error)
        raise WriteError(number, why, str(path)) from error


def _number(error: Exception, path: Path) -> int | None:
    """The system's number of an error that is not the system's; None where it was not about writing."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found:
        return int(found[1])
    if not isinstance(error, (RuntimeError, OSError)) or not _UNTOLD.search(str(error)):
        return None
    return refusal(path) or errno.EIO


def refusal(path: Path) -> int | None:
    """The system's number of why nothing can be written at `path`, found by an attempt; None where it can."""
    try:
        with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent) as file:
            file.write(bytes(_PROBE))
            file.flush()
    except OSError as error:
        return error.errno
    return None


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) beside `path`, then rename: a reader sees the old file or the new, never a part.

    Raises:
        WriteError: the directory or the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())  # or the new name may outlive a loss of power, and its content not
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # gone with its directory
                os.unlink(temporary)
            raise
    return path


def write_json(path: Path, values: Any) -> Path:
    """Write `values` as JSON, as write_whole() does."""
    return write_whole(path, json.dumps(values, indent=2) + "\n")
