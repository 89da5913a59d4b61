"""Labelled text sets as tasks: corpora by name, single files, and folders with a file a part."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError
from ..tasks.data.corpora import CORPORA
from ..tasks.data.readers import SUFFIXES
from ..tasks.data.splits import load_task
from ..tasks.settings import Settings
from .grid.task import TEST, TRAIN, VALIDATION, Task
from .options import Options

VALIDATION_SHARE = 0.1  # of the training data, where --validation-size is not given
SPLIT_SEED = 0  # splits stay the same over the runs' seeds
PARTS = {TRAIN: ("train",), VALIDATION: ("validation", "dev", "valid"), TEST: ("test",)}


def read_tasks(options: Options) -> list[Task]:
    """A task for each of the data: its training part cut in two for the choice of settings, and its test part."""
    if not options.data:
        raise UserError(f"--data is needed: {', '.join(CORPORA)}, a file, or a folder with a file a part")
    tasks = [_read(name, options) for name in options.data]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data gives two tasks of the name {name!r}: expected different names")
    return tasks


def _read(name: str, options: Options) -> Task:
    path = Path(name)
    if name not in CORPORA and path.is_dir():
        files = {part: _find(path, words) for part, words in PARTS.items()}
        settings = _settings(options, str(files[TRAIN]), test_file=str(files[TEST]), validation=str(files[VALIDATION]))
    elif name not in CORPORA and not path.exists():
        raise UserError(f"--data {name}: no such file or folder, and no corpus: those are {', '.join(CORPORA)}")
    else:
        settings = _settings(options, name)
    data = load_task(settings)
    if data.validation is None:
        raise UserError(f"--data {name} has no validation part")
    parts = {TRAIN: data.train, VALIDATION: data.validation, TEST: data.test}
    shown = name if name in CORPORA else path.stem
    return Task(shown, data.kind, data.label_names, parts, "accuracy")


def _settings(options: Options, task: str, test_file: str | None = None, validation: str | None = None) -> Settings:
    share = None if validation else options.validation_size or VALIDATION_SHARE
    return Settings(
        model=options.model,
        task=task,
        kind="text-classification",
        train_size=options.train_size,
        validation_size=share,
        test_size=options.test_size,
        validation_file=validation,
        test_file=test_file,
        seed=SPLIT_SEED,
    )


def _find(folder: Path, words: tuple[str, ...]) -> Path:
    for word in words:
        for suffix in SUFFIXES:
            if (folder / f"{word}{suffix}").is_file():
                return folder / f"{word}{suffix}"
    raise UserError(f"{folder} has no {words[0]} split: expected {words[0]}{', '.join(SUFFIXES)} among its files")
