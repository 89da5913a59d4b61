"""Directories that are written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .files import writing

LARGEST_JSON = 2**26  # bytes: a whole model's index of tensors is below it


def resolve(directory: str | os.PathLike[str]) -> Path:
    """The absolute path to read from: the old adapter's where a save is, or was killed, between its two renames."""
    path = Path(os.path.realpath(directory))
    return _previous(path) if not path.exists() and _previous(path).is_dir() else path


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


def replace_directory(directory: str | os.PathLike[str], files: Mapping[str, bytes], known: Collection[str]) -> None:
    """Make these files the directory's content.

    They are written beside the directory and renamed into place. What was there stays as it was where anything fails.

    Args:
        directory: new, empty, or holding known files only. Missing parents are made.
        files: content by name.
        known: the names that may be replaced.

    Raises:
        ValueError: a directory with other files. WriteError: the files could not be written.
    """
    target = Path(os.path.realpath(directory))
    with writing(target):
        if not target.exists() and _previous(target).is_dir():  # a save was killed between its two renames
            os.rename(_previous(target), target)
        _check_replaceable(target, known)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
        new.mkdir()
        try:
            for name, content in files.items():
                _write(new / name, content)
            put_in_place(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _previous(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.previous")


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
    if directory.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(directory, previous)
        try:
            os.rename(new, directory)
        except BaseException:
            os.rename(previous, directory)
            raise
    else:
        os.rename(new, directory)
    shutil.rmtree(previous, ignore_errors=True)  # also one that a kill between the two renames has left
