"""Which examples train, validate and test; labels become class numbers here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .corpora import CORPORA, read_corpus
from .errors import UserError
from .readers import SUFFIXES, Examples, read_examples
from .settings import Settings

DEFAULT_TEST_SIZE = 0.2


@dataclass(frozen=True)
class TaskData:
    """The parts of a task and its label names in class order."""

    train: Examples
    validation: Examples | None
    test: Examples
    label_names: list[str]

    def sizes(self) -> dict[str, int]:
        """How many examples each part has."""
        return {
            "train": len(self.train),
            "validation": len(self.validation) if self.validation else 0,
            "test": len(self.test),
        }


def load_task(settings: Settings) -> TaskData:
    """Read the task and split it; every label of a held-out part must occur in training."""
    train, test = _train_and_test(settings)
    validation = None
    if settings.validation_file:
        validation = read_examples(settings.validation_file, settings.text_column, settings.label_column)
    elif settings.validation_size:
        validation, train = split(train, _count(train, settings.validation_size), settings.seed)
    if settings.train_size:
        train = split(train, len(train) - _count(train, settings.train_size), settings.seed)[1]
    if not len(train):
        raise UserError(f"{train.source}: no example is left to train on")
    names = label_names(train)
    if len(names) < 2:
        raise UserError(f"{train.source}: the training data has the one label {names[0]!r}, expected two or more")
    for part in filter(None, (validation, test)):
        unseen = sorted(set(part.labels) - set(names))
        if unseen:
            raise UserError(
                f"{part.source}: label {unseen[0]!r} does not occur in the training data ({_some(names)})"
                + (f", nor do {len(unseen) - 1} others" if len(unseen) > 1 else "")
            )
    return TaskData(train, validation, test, names)


def _train_and_test(settings: Settings) -> tuple[Examples, Examples]:
    if settings.task in CORPORA:
        if settings.test_file or settings.validation_file:
            raise UserError(f"{settings.task} has its own test part: separate files go with a data file as the task")
        train, test = read_corpus(settings.task)
    else:
        if Path(settings.task).suffix.lower() not in SUFFIXES:
            known = f"{', '.join(CORPORA)}, or a file ending in {', '.join(SUFFIXES)}"
            raise UserError(f"unknown task {settings.task!r}: expected {known}")
        train = read_examples(settings.task, settings.text_column, settings.label_column)
        if settings.test_file is None:
            return split(train, _count(train, settings.test_size or DEFAULT_TEST_SIZE), settings.seed)[::-1]
        test = read_examples(settings.test_file, settings.text_column, settings.label_column)
    if settings.test_size:
        test = split(test, _count(test, settings.test_size), settings.seed)[0]
    return train, test


def split(examples: Examples, count: int, seed: int) -> tuple[Examples, Examples]:
    """Set `count` examples apart with each label's share kept; a label's only example stays in the rest."""
    from sklearn.model_selection import train_test_split

    if count in (0, len(examples)):
        everything, nothing = examples, examples.pick([])
        return (everything, nothing) if count else (nothing, everything)
    counts = Counter(examples.labels)
    common = [i for i, label in enumerate(examples.labels) if counts[label] > 1]
    single = [i for i, label in enumerate(examples.labels) if counts[label] == 1]
    classes = len(counts) - len(single)
    if not classes <= count <= len(common) - classes:
        raise UserError(
            f"{examples.source}: {count} of its {len(examples)} examples cannot be set apart: "
            f"with {len(counts)} labels each part needs at least one example of each"
        )
    labels = [examples.labels[i] for i in common]
    rest, part = train_test_split(common, test_size=count, random_state=seed, stratify=labels)
    return examples.pick(sorted(part)), examples.pick(sorted([*rest, *single]))


def _count(examples: Examples, size: float) -> int:
    count = round(len(examples) * size) if size < 1 else int(size)
    if not 1 <= count <= len(examples):
        raise UserError(f"{examples.source}: a part of size {size:g} was asked for, it has {len(examples)} examples")
    return count


def label_names(examples: Examples) -> list[str]:
    """The labels in class order: by number where all are whole numbers, else by name."""
    names = set(examples.labels)
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
