"""The files that GLUE's leaderboard takes: one TSV a test part, and the zip of them."""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...common.directories import replace_directory
from ...common.errors import UserError
from ...tasks.data.glue_tasks import DIAGNOSTIC, GLUE, SCORES
from ...tasks.data.texts import Texts
from ..grid.task import TRAIN, Task

Predictions = Mapping[str, str]  # a test row's name to its label, in the test file's order

# The site's names of the files, and the task and part that each answers.
FILES = {
    "CoLA": ("CoLA", "test"),
    "SST-2": ("SST-2", "test"),
    "MRPC": ("MRPC", "test"),
    "STS-B": ("STS-B", "test"),
    "QQP": ("QQP", "test"),
    "MNLI-m": ("MNLI", "test_matched"),
    "MNLI-mm": ("MNLI", "test_mismatched"),
    "QNLI": ("QNLI", "test"),
    "RTE": ("RTE", "test"),
    "WNLI": ("WNLI", "test"),
    "AX": ("MNLI", DIAGNOSTIC.name),
}
ZIP = "submission.zip"
HEADER = "index\tprediction\n"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same predictions make the same bytes


def file_of(task: str, part: str) -> str:
    """Which of FILES a task's part is."""
    return next(name for name, place in FILES.items() if place == (task, part))


def answers(task: Task, part: str, predicted: Sequence[str]) -> dict[str, str]:
    """A part's predictions as the site wants them: labels as the task's files write them, scores cut to 0 ... 5.

    Args:
        predicted: a class number or a score a row, in the part's order.

    Raises:
        UserError: there are fewer or more than the part has rows.
    """
    rows = task.unlabelled[part]
    if len(predicted) != len(rows):
        raise UserError(f"{task.name}'s {part} part was cut to {len(predicted)} of {len(rows)} rows (--test-size)")
    if task.label_names:
        words = [task.label_names[int(number)] for number in predicted]
    else:
        words = [f"{min(max(float(score), SCORES[0]), SCORES[1]):.3f}" for score in predicted]
    return dict(zip(rows.ids, words, strict=True))  # type: ignore[attr-defined]


def majority(task: Task, part: str) -> dict[str, str]:
    """The label that is most common in training for every row of a part.

    It is what BERT's authors submitted for WNLI, whose test part no trained model answered better (Devlin et al. 2019,
    appendix B.1), and the paper compares with them.
    """
    train, rows = task.parts[TRAIN], task.unlabelled[part]
    if not isinstance(train, Texts) or not isinstance(rows, Texts) or not task.label_names:
        raise ValueError(f"task must have classes for a most common one, got {task.name}")
    label = Counter(train.labels).most_common(1)[0][0]
    return {name: str(label) for name in rows.ids or ()}


def write_submission(directory: str | Path, predictions: Mapping[str, Predictions]) -> tuple[list[Path], str]:
    """Write a file for each of the predictions, and submission.zip where they are all; the files, and what they are.

    The site asks for a zip of all eleven, each with the header index, prediction and the test file's rows in their
    order (gluebenchmark.com/faq, 1). A file is never made up here for a task that was not run: it would stand in the
    leaderboard as this system's result, and would be none. Who wants a fill-in gives it: `majority` for WNLI.

    Args:
        directory: new, or an earlier submission, which is replaced.
        predictions: for names of FILES each row's label.

    Raises:
        UserError: there are none, a file is unknown, a label is outside its set, a part has no rows, the directory
            holds other files. WriteError: it cannot be written.
    """
    directory = Path(directory)
    missing = [name for name in FILES if name not in predictions]
    if not predictions:
        raise UserError("there are no predictions")
    unknown = sorted(set(predictions) - set(FILES))
    if unknown:
        raise UserError(f"unknown file {unknown[0]!r}: expected {', '.join(FILES)}")
    contents = {f"{name}.tsv": _content(name, predictions[name]) for name in FILES if name in predictions}
    said = f"{ZIP}, which GLUE takes"
    if missing:
        said = f"{', '.join(contents)}; GLUE takes a zip of all {len(FILES)} files, and lacks {', '.join(missing)}"
    else:
        contents[ZIP] = _zipped(contents)
    known = {*(f"{name}.tsv" for name in FILES), ZIP}
    _check_directory(directory, known)
    replace_directory(directory, contents, known=known)
    return [directory / name for name in contents], said


def _content(name: str, predictions: Predictions) -> bytes:
    task = GLUE[FILES[name][0]]
    if not predictions:
        raise UserError(f"{name}.tsv: no predictions")
    for row, label in predictions.items():
        if task.labels and label not in task.labels:
            raise UserError(f"{name}.tsv, index {row}: {label!r} is none of {', '.join(task.labels)}")
        if not task.labels and not _is_score(label):
            raise UserError(f"{name}.tsv, index {row}: expected a number from 0 to 5, got {label!r}")
    return (HEADER + "".join(f"{row}\t{label}\n" for row, label in predictions.items())).encode()


def _is_score(label: str) -> bool:
    try:
        score = float(label)
    except ValueError:
        return False
    return math.isfinite(score) and SCORES[0] <= score <= SCORES[1]


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _check_directory(directory: Path, own: set[str]) -> None:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"submission {directory} is a file: expected a directory")
    others = sorted({path.name for path in directory.iterdir()} - own) if directory.exists() else []
    if others:
        raise UserError(f"submission {directory} holds {others[0]}: expected a new directory or an earlier submission")
