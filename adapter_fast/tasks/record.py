"""run.json: what a run was started with, so that --resume goes on with that very run or says what has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..common.digest import weights_digest
from ..common.directories import read_json
from ..common.errors import UserError
from .models import Loaded
from .splits import TaskData

RUN_FILE = "run.json"
START = "started_with"  # in run.json, beside the settings
_PARTS = {"train": "training", "validation": "validation", "test": "test"}


def process_count() -> int:
    """How many processes train together: those that torchrun or accelerate launch started, or this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start_of(data: TaskData, loaded: Loaded) -> dict[str, Any]:
    """What decides a run's result beside its settings, taken before the model is changed.

    Digests of the examples (of images, of their files' contents) and of the weights that the model's files hold.
    """
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    base = {name: value for name, value in loaded.model.state_dict().items() if name not in loaded.new_parameters}
    return {
        "processes": process_count(),
        "label_names": data.label_names,
        "data": {name: None if part is None else part.digest() for name, part in parts.items()},
        "model": weights_digest(base),
    }


def read_record(path: Path) -> dict[str, Any]:
    """A run's record; UserError where there is none, or what is there is none."""
    try:
        return read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no run with a {path.name}") from None
    except ValueError as error:
        raise UserError(f"the record of the run in {path.parent} is cut or none: {error}") from None


def check_start(where: Path, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Raise UserError where a run would go on with other labels, examples, weights or processes than it began with.

    Args:
        where: the run's directory. then: its record's START. now: what start_of gives.

    Returns:
        What the record, of an earlier version, does not tell.
    """
    if "label_names" in then:
        check_labels(f"the run in {where}", then["label_names"], now["label_names"])
    old = then.get("data", {})
    changed = [_PARTS[part] for part in old if old[part] != now["data"][part]]
    if changed:
        raise UserError(f"the run in {where} was started with other data: its {' and '.join(changed)} examples changed")
    if then.get("model", now["model"]) != now["model"]:
        raise UserError(f"the run in {where} was started with other weights: the files of its model changed")
    if then.get("processes", now["processes"]) != now["processes"]:
        raise UserError(
            f"the run in {where} was started with {then['processes']} processes, now there are {now['processes']}: "
            "a batch would have another size"
        )
    return [name for name in now if name not in then]


def check_labels(run: str, then: list[str], now: list[str]) -> None:
    """Raise UserError unless the labels are those that the run has, in their order."""
    if then == now:
        return
    new, gone = [name for name in now if name not in then], [name for name in then if name not in now]
    changes = [
        f"{', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} {word}"
        for names, word in ((new, "new"), (gone, "gone"))
        if names
    ]
    raise UserError(f"{run} has other labels than the data: {' and '.join(changes) or 'they are in another order'}")
