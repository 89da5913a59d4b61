"""Which kind of task the data is for, where the user does not say, and the kind by its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import UserError
from ..data import questions as squad
from ..data import readers, sentences, tables
from ..data.corpora import CORPORA
from ..data.decode import json_lines, read_text
from ..data.glue_files import recognise
from ..data.glue_tasks import GlueTask
from . import KINDS
from .settings import Settings

if TYPE_CHECKING:
    from .base import Kind

BY_SUFFIX = {
    **dict.fromkeys(tables.DELIMITERS, "text-classification"),
    **dict.fromkeys(sentences.COLUMN_SUFFIXES, "token-classification"),
    **dict.fromkeys(squad.SUFFIXES, "question-answering"),
    ".txt": "language-modelling",
}


def load_kind(name: str) -> Kind:
    """The kind of this name."""
    module, kind = KINDS[name]
    return getattr(import_module(f".{module}", __package__), kind)()


def glue_layout(settings: Settings) -> GlueTask | None:
    """The GLUE task whose file the task is, by its head, where neither columns nor a kind were asked for."""
    usual = Settings(model="", task="")
    if settings.kind is not None or (settings.text_columns, settings.label_column) != (
        usual.text_columns,
        usual.label_column,
    ):
        return None
    return recognise(Path(settings.task))


def kind_name(settings: Settings) -> str:
    """The kind that was asked for, or the one that the task's data is plainly for.

    A file's ending tells, and for .jsonl the first line's fields; a folder holds images.
    """
    path = Path(settings.task)
    suffix = path.suffix.lower()
    if settings.kind is not None:
        return settings.kind
    if settings.task in CORPORA:
        return "text-classification"
    layout = glue_layout(settings)
    if layout is not None:
        return "text-classification" if layout.labels else "text-regression"
    if suffix == ".jsonl":
        return _by_fields(path, settings)
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    if path.is_dir():
        return "image-classification"
    known = ", ".join(dict.fromkeys([*readers.SUFFIXES, *BY_SUFFIX]))
    expected = f"{', '.join(CORPORA)}, a file ending in {known}, or a folder of images"
    raise UserError(f"unknown task {settings.task!r}: expected {expected}")


def _by_fields(path: Path, settings: Settings) -> str:
    try:
        fields = set(next(json_lines(path, read_text(path, "JSON Lines"), ()))[1])
    except UserError:
        fields = set()  # what is wrong with it, the reader says
    if fields >= {sentences.TOKENS, sentences.TAGS}:
        return "token-classification"
    return "language-modelling" if fields == {settings.text_columns[0]} else "text-classification"
