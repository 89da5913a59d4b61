"""Labelled text sets as tasks: corpora by name, files, and folders with a file a part; what the paper asks of them."""

from __future__ import annotations

import warnings
from pathlib import Path

from ...common.errors import UserError
from ...tasks.data.corpora import CORPORA
from ...tasks.data.readers import SUFFIXES
from ...tasks.kinds.settings import Settings
from ...tasks.splits import load_task
from .options import Options
from .task import TEST, TRAIN, VALIDATION, Task

# Section 3.3: the sweep over the additional tasks. Batch and schedule are those of GLUE (section 3.1).
PAPER = Options(
    seeds=5,
    rates={"adapters": (1e-5, 3e-5, 1e-4, 3e-3)},
    epochs=(20, 50, 100),
    bottlenecks=(2, 4, 8, 16, 32, 64),
    tops=(1, 2, 3, 5, 7, 9, 11, 12),
)
QUICK = Options(
    data=("election-tweets",),
    seeds=2,
    rates={"adapters": (3e-3,), "full": (1e-4,)},
    epochs=(1,),
    bottlenecks=(2, 8),
    tops=(1,),
    batch_size=8,
    max_length=16,
    train_size=32,
    validation_size=16,
    test_size=16,
)
VALIDATION_SHARE = 0.1  # of the training data, where --validation-size is not given
SPLIT_SEED = 0  # splits stay the same over the runs' seeds
EXPECTED = f"{', '.join(CORPORA)}, a file, or a folder with a file a part"
PARTS = {TRAIN: ("train",), VALIDATION: ("validation", "dev", "valid"), TEST: ("test",)}


def read_task(name: str, options: Options) -> Task:
    """A corpus, file or folder: its training part cut in two for the choice of settings, and its test part."""
    path = Path(name)
    if name not in CORPORA and path.is_dir():
        files = {part: _find(path, words) for part, words in PARTS.items()}
        settings = _settings(options, str(files[TRAIN]), test_file=str(files[TEST]), validation=str(files[VALIDATION]))
    elif name not in CORPORA and not path.exists():
        raise UserError(f"--data {name}: no such file or folder, and no corpus: those are {', '.join(CORPORA)}")
    else:
        settings = _settings(options, name)
    data = load_task(settings)
    for notice in data.notices:
        warnings.warn(notice, stacklevel=2)
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
