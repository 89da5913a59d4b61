"""Questions out of `datasets`, with the fields of rajpurkar/squad: id, context, question, answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...common.errors import UserError, first_line
from .questions import Questions, check_questions, get_field

FIELDS = ("id", "context", "question", "answers")
ANSWER_FIELDS = ("text", "answer_start")


def read_hub_questions(name: str, splits: tuple[str, ...] = ("train", "validation")) -> list[Questions]:
    """The questions of each split of a data set by its name on the hub, or of a local copy's folder.

    Args:
        name: what `datasets.load_dataset` takes: "rajpurkar/squad", or a folder of parquet files.
        splits: whose questions to return, in this order.

    Raises:
        UserError: `datasets` is not installed or cannot load the name, a split or a field is missing, and what
            `read_questions` raises about a question.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"reading {name!r} needs the package datasets: pip install datasets") from None
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # the hub, the network, and every file format have errors of their own
        raise UserError(f"datasets cannot load {name!r}: {first_line(error)}") from error
    missing = [split for split in splits if split not in loaded]
    if missing:
        raise UserError(f"{name} has no split {missing[0]!r}: its splits are {', '.join(loaded)}")
    return [check_questions(f"{name}, {split}", _entries(f"{name}, {split}", loaded[split])) for split in splits]


def _entries(source: str, rows: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for field in FIELDS:
        if field not in rows.column_names:
            raise UserError(f"{source} has no field {field!r}: its fields are {', '.join(rows.column_names)}")
    for i, row in enumerate(rows):
        where, answers = f"{source}, row {i}", row["answers"]
        texts, starts = ((answers if isinstance(answers, dict) else {}).get(field) for field in ANSWER_FIELDS)
        if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
            raise UserError(f"{where}: 'answers' must hold as many texts in 'text' as positions in 'answer_start'")
        pairs = [dict(zip(ANSWER_FIELDS, answer)) for answer in zip(texts, starts)]
        yield where, get_field(where, row, "context", str), {**row, "answers": pairs}
