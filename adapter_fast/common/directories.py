"""Directories that are written whole or not at all, also by several processes at once.

A save writes `.NAME.new-XXXXXXXX` beside NAME, renames NAME to `.NAME.previous`, the new one to NAME, and removes the
old one. A kill leaves at most these two. `.NAME.previous` stands for NAME only while the new one waits too, so between
the two renames: left later it never brings back what was deleted. The next save removes both.

Saves in one parent directory wait for each other: they lock (flock) that directory itself, so that no lock is left
behind. Where that cannot be locked, on Windows and some network file systems, they go without; then of two saves into
one directory at the same time one may raise an error, and neither writes a part.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .errors import WriteError
from .files import writing

LARGEST_JSON = 2**26  # bytes: a whole model's index of tensors is below it

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
Content = bytes | Callable[[], bytes]  # of a file, or what makes it of the present one
WAIT = 60.0  # seconds for another's lock


def resolve(directory: str | os.PathLike[str]) -> Path:
    """The absolute path to read from: the old adapter's where a save is, or was killed, between its two renames."""
    path = Path(os.path.realpath(directory))
    return _previous(path) if _is_between(path, _waiting(path)) else path


def read_whole(directory: str | os.PathLike[str], read: Callable[[Path], T]) -> T:
    """What `read` makes of the directory's path: of one save's files, read again where another took their place.

    Raises:
        What `read` raises of a directory that stays as it is.
    """
    before = _seen(directory)
    try:
        found = read(before[0])
    except (OSError, ValueError):
        if _seen(directory) == before:
            raise
    else:
        if _seen(directory) == before:
            return found
    with _locked(Path(os.path.realpath(directory)), shared=True):
        return read(resolve(directory))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError where it holds none, or a key twice, or is larger than any record."""
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path} must be JSON of at most {LARGEST_JSON:,} bytes, it has {size:,}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, it does not parse: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds {type(values).__name__}")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs; of a key that is there twice readers take the one or the other."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return values


def replace_directory(
    directory: str | os.PathLike[str],
    files: Mapping[str, Content],
    known: Collection[str],
) -> None:
    """Make these files the directory's content.

    They are written beside the directory and renamed into place. What was there stays as it was where anything fails.

    Args:
        directory: new, empty, or holding known files only. Missing parents are made.
        files: content by name; what is made of the present content is called for it, when no other save can change it.
        known: the names that may be replaced.

    Raises:
        ValueError: a directory with other files. WriteError: the files could not be written, or another save beside
            the directory did not end.
    """
    target = Path(os.path.realpath(directory))
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            _tidy(target, _waiting(target))
            _check_replaceable(target, known)
            new = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
            new.mkdir()
            try:
                for name, content in files.items():
                    _write(new / name, content() if callable(content) else content)
                put_in_place(new, target)
            finally:
                _tidy(target, [new])


def _previous(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.previous")


def _waiting(directory: Path) -> list[Path]:
    """What saves into the directory have not yet put in its place, or never will, killed."""
    name = re.compile(rf"\.{re.escape(directory.name)}\.new-[0-9a-f]{{8}}")
    try:
        return [directory.with_name(found) for found in os.listdir(directory.parent) if name.fullmatch(found)]
    except OSError:
        return []


def _is_between(directory: Path, waiting: list[Path]) -> bool:
    """Whether a save is between its two renames. Asked in this order: each step ends a save's part."""
    return not directory.exists() and bool(waiting) and _previous(directory).is_dir()


def _tidy(directory: Path, waiting: list[Path]) -> None:
    """Undo a save that is between its two renames, and remove what it needs, the old one first: see the module."""
    if _is_between(directory, waiting):
        os.rename(_previous(directory), directory)
    for left in (_previous(directory), *waiting):
        shutil.rmtree(left, ignore_errors=True)


def _seen(directory: str | os.PathLike[str]) -> tuple[Path, tuple[int, ...] | None]:
    """Where the directory is to be read, and what tells it from any other that is put there."""
    path = resolve(directory)
    try:
        found = path.stat()
    except OSError:
        return path, None
    return path, (found.st_dev, found.st_ino, found.st_mtime_ns)


@contextmanager
def _locked(directory: Path, shared: bool = False) -> Iterator[None]:
    """Around what moves the directory: a save has the lock of its parent alone, readers share it.

    Raises:
        WriteError: another save holds it for WAIT seconds; a reader then goes on, for what it reads is whole.
    """
    handle = _lock(directory, shared)
    try:
        yield
    finally:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process forked meanwhile has the handle too
            os.close(handle)


def _lock(directory: Path, shared: bool) -> int | None:
    """The handle that holds the lock, None where there is none to be had."""
    try:
        handle = os.open(directory.parent, os.O_RDONLY)
    except OSError:  # may be written, not listed; Windows
        return None
    limit = time.monotonic() + WAIT
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                return handle
            except BlockingIOError:
                if time.monotonic() > limit:
                    break
            time.sleep(0.005)
        if not shared:
            why = f"another save in {directory.parent} has held its lock for {WAIT:.0f} s, expected it to end"
            raise WriteError(errno.EAGAIN, why, str(directory))
    except WriteError:
        os.close(handle)
        raise
    except OSError:  # a file system without locks
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _check_replaceable(directory: Path, known: Collection[str]) -> None:
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} must be a directory or new, it is a file")
    if directory.is_dir():
        foreign = sorted(set(os.listdir(directory)) - set(known))
        if foreign:
            raise ValueError(f"{directory} must be new, empty or a saved adapter, it holds {', '.join(foreign[:5])}")


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(new: Path, directory: Path) -> None:
    """Put the directory `new` in `directory`'s place; where that fails the old one is back."""
    previous = _previous(directory)
    shutil.rmtree(previous, ignore_errors=True)
    try:
        if directory.exists():
            os.rename(directory, previous)
        os.rename(new, directory)
    except BaseException:
        if previous.is_dir() and not directory.exists():
            os.rename(previous, directory)
        raise
    shutil.rmtree(previous, ignore_errors=True)
