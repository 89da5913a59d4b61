"""Which examples train, validate and test, and the labels in class order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..common.errors import UserError
from .data.classes import PREDICTED
from .data.corpora import CORPORA, read_corpus
from .data.rows import Rows
from .kinds.base import Kind
from .kinds.find import glue_layout, kind_name, load_kind
from .kinds.settings import Settings

DEFAULT_TEST_SIZE = 0.2
MOST = 8  # classes that are named where there are many
Some = TypeVar("Some", bound=Rows)


@dataclass(frozen=True)
class TaskData:
    """A task's kind, its parts, and its labels in class order; no labels for a kind without classes.

    `read` is what was read before it was split: each file with its number of examples. `notices` are what the readers
    assumed, a line each.
    """

    kind_name: str
    kind: Kind
    train: Rows
    validation: Rows | None
    test: Rows
    label_names: list[str]
    read: list[tuple[str, int]]
    notices: list[str]

    def sizes(self) -> dict[str, int]:
        """How many examples each part has."""
        return {
            "train": len(self.train),
            "validation": len(self.validation) if self.validation else 0,
            "test": len(self.test),
        }

    def summary(self) -> dict[str, Any]:
        """What is shown before training: examples by file and part, the training part's most frequent classes."""
        labels = Counter(self.kind.labels(self.train) or [])
        counts = sorted(((labels[name], name) for name in self.label_names), key=lambda pair: -pair[0])
        return {
            "unit": self.kind.unit,
            "read": self.read,
            "sizes": self.sizes(),
            "labels": len(self.label_names),
            "most": [(name, count) for count, name in counts[:MOST]],
            "least": counts[-1][0] if counts else 0,
            "notices": self.notices,
        }


def load_task(settings: Settings) -> TaskData:
    """Read the task and split it; every label of a separate held-out file must occur in the task's own data."""
    name = kind_name(settings)
    kind = load_kind(name)
    if settings.skip_bad and not kind.skips_bad:
        raise UserError(f"skip_bad leaves out bad answers to questions: {settings.task} is for {name}, which has none")
    if len(settings.text_columns) > 1 and not kind.takes_pairs:
        raise UserError(f"text_column was given twice: {settings.task} is for {name}, which has no pairs of texts")
    train, test = _read(kind, settings)
    validation = kind.read(settings.validation_file, settings) if settings.validation_file else None
    files = list(filter(None, (train, validation, test)))
    read = [(part.source, len(part)) for part in files]
    notices = [notice for part in files for notice in part.notices]
    layout = glue_layout(settings)
    names = _checked_labels(kind, train, validation, test)
    if layout is not None:
        names = list(layout.labels)
        kind = type(kind)(layout.metrics)  # type: ignore[call-arg]
    kind = kind.for_metric(settings.metric, names)
    if test is None:
        test, train = split(train, _count(train, settings.test_size or DEFAULT_TEST_SIZE), settings.seed)
    elif settings.test_size:
        test = split(test, _count(test, settings.test_size), settings.seed)[0]
    if validation is None and settings.validation_size:
        validation, train = split(train, _count(train, settings.validation_size), settings.seed)
    if settings.train_size:
        train = split(train, len(train) - _count(train, settings.train_size), settings.seed)[1]
    if not len(train):
        raise UserError(f"{train.source}: no example is left to train on")
    for part in filter(None, (validation, test)):
        kind.check_scored(part, names)
    return TaskData(name, kind, train, validation, test, names, read, notices)


def _read(kind: Kind, settings: Settings) -> tuple[Rows, Rows | None]:
    """The task's data, and its separate test part where it has one."""
    if settings.task not in CORPORA:
        return kind.read(settings.task, settings), kind.read(
            settings.test_file, settings
        ) if settings.test_file else None
    if settings.test_file or settings.validation_file:
        raise UserError(f"{settings.task} has its own test part: separate files go with a data file as the task")
    return read_corpus(settings.task)


def _checked_labels(kind: Kind, train: Rows, validation: Rows | None, test: Rows | None) -> list[str]:
    labels = kind.labels(train)
    if labels is None:
        return []
    names = label_names(labels)
    if len(names) < 2:
        raise UserError(f"{train.source}: the training data has the one label {names[0]!r}, expected two or more")
    for part in filter(None, (validation, test)):
        unseen = sorted(set(kind.labels(part) or []) - set(names))
        if unseen:
            raise UserError(
                f"{part.source}: label {unseen[0]!r} does not occur in the training data ({_some(names)})"
                + (f", nor do {len(unseen) - 1} others" if len(unseen) > 1 else "")
                + _hint(train)
            )
    return names


def split(rows: Some, count: int, seed: int) -> tuple[Some, Some]:
    """Set `count` rows apart: the part, and the rest, both in the rows' order.

    Labelled rows keep each label's share, and a label's only row stays in the rest. Rows that follow upon each other
    are cut once, the part being the end. Of rows that belong together, all or none are in the part: it may then be
    smaller than `count`.
    """
    if count in (0, len(rows)):
        everything, nothing = rows, rows.pick([])
        return (everything, nothing) if count else (nothing, everything)
    strata = rows.strata()
    if rows.in_order():
        part = list(range(len(rows) - count, len(rows)))
    elif strata is not None:
        part = _stratified(rows, strata, count, seed)
    else:
        part = _whole_groups(rows, list(rows.groups()), count, seed)
    apart = set(part)
    return rows.pick(sorted(part)), rows.pick([i for i in range(len(rows)) if i not in apart])


def _stratified(rows: Rows, strata: list[str], count: int, seed: int) -> list[int]:
    from sklearn.model_selection import train_test_split

    counts = Counter(strata)
    common = [i for i, label in enumerate(strata) if counts[label] > 1]
    classes = sum(1 for number in counts.values() if number > 1)
    if not classes <= count <= len(common) - classes:
        raise UserError(
            f"{rows.source}: {count} of its {len(rows)} examples cannot be set apart: "
            f"with {len(counts)} labels each part needs at least one example of each{_hint(rows)}"
        )
    labels = [strata[i] for i in common]
    return train_test_split(common, test_size=count, random_state=seed, stratify=labels)[1]


def _whole_groups(rows: Rows, groups: list[Hashable], count: int, seed: int) -> list[int]:
    from sklearn.utils import shuffle

    sizes = Counter(groups)
    taken: set[Hashable] = set()
    left = count
    for group in shuffle(list(sizes), random_state=seed):
        if sizes[group] <= left:
            taken.add(group)
            left -= sizes[group]
    if not taken:
        raise UserError(
            f"{rows.source}: {count} of its {len(rows)} examples cannot be set apart: "
            f"they belong to {len(sizes)} contexts, the smallest with {min(sizes.values())}, and a context stays whole"
        )
    return [i for i, group in enumerate(groups) if group in taken]


def _count(rows: Rows, size: float) -> int:
    count = round(len(rows) * size) if size < 1 else int(size)
    if not 1 <= count <= len(rows):
        raise UserError(f"{rows.source}: a part of size {size:g} was asked for, it has {len(rows)} examples")
    return count


def label_names(labels: list[str]) -> list[str]:
    """The labels in class order: by number where all are whole numbers, else by name."""
    names = set(labels)
    if all(name.isdecimal() for name in names):  # int takes no more than 4,300 digits
        return sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    return sorted(names)


def _hint(rows: Rows) -> str:
    """How labels that may be meant as numbers are predicted, where the reader said that they may be."""
    return f": {PREDICTED}" if any(notice.endswith(PREDICTED) for notice in rows.notices) else ""


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
