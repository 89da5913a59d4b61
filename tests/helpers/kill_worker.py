"""python kill_worker.py FOLDER MOMENT …: `tune` in processes that end by SIGKILL at these moments, then `--resume`.

FOLDER holds settings.json. The run that is left alone is this process's own, every other is a fork, which need not
import again; on one thread, since a fork has no others. Prints one JSON object: for "whole" and for every moment how
the killed processes ended, what the last one reported ("start", "notes") and what it wrote, as digests.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ |= {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
import transformers.trainer
from transformers import Trainer, TrainerState

from adapter_fast.common import directories
from adapter_fast.tasks import tuning
from adapter_fast.tasks.kinds.settings import Settings

SAVE_STEPS = 3
Event = dict


def kill() -> None:
    """Nothing of Python's runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def at(name: str, step: int = 0) -> Callable[[Event], None]:
    """Killed at an event."""
    return lambda event: kill() if event["event"] == name and event.get("step", 0) == step else None


def before(owner: object, function: str, call: int = 1) -> Callable[[Event], None]:
    """Killed when a function is called for this time."""
    calls, real = [0], getattr(owner, function)

    def counted(*arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            kill()
        return real(*arguments, **options)

    setattr(owner, function, counted)
    return lambda event: None


def in_the_middle_of(file: str) -> Callable[[Event], None]:
    """Killed when half of one of torch's files is written."""
    real = torch.save

    def half(values: object, path: object, *arguments: object, **options: object) -> None:
        if not str(path).endswith(file):
            return real(values, path, *arguments, **options)
        content = io.BytesIO()
        real(values, content)
        Path(str(path)).write_bytes(content.getvalue()[: content.tell() // 2])
        return kill()

    torch.save = half
    return lambda event: None


def before_its_name(event: Event) -> None:
    """Killed when adapter or model is written, under another name still."""
    if event["event"] == "evaluate":
        for module in (directories, tuning):
            before(module, "put_in_place")


def results_last(event: Event) -> None:
    """Killed when everything but results.json is written."""
    if event["event"] == "evaluate":
        before(tuning, "write_json")


# Each is killed there, by those of a list one after another; the next process goes on.
MOMENTS: dict[str, list[Callable[[], Callable[[Event], None]]]] = {
    "with nothing but its record": [lambda: at("ready")],
    "before the first checkpoint": [lambda: at("step", 2)],
    "in the first checkpoint": [lambda: before(Trainer, "_save_rng_state")],
    "in a checkpoint, behind the weights": [lambda: before(Trainer, "_save_optimizer_and_scheduler", 2)],
    "in the optimizer's file": [lambda: in_the_middle_of("checkpoint-6/optimizer.pt")],
    "in the random state's file": [lambda: in_the_middle_of("checkpoint-6/rng_state.pth")],
    "before the trainer's state": [lambda: before(TrainerState, "save_to_json", 2)],
    "before an old checkpoint is removed": [lambda: before(transformers.trainer, "rotate_checkpoints", 3)],
    "between checkpoints": [lambda: at("step", 8)],
    "when trained": [lambda: at("evaluate")],
    "before its adapter has its name": [lambda: before_its_name],
    "before its results": [lambda: results_last],
    "three times": [
        lambda: at("step", 4),
        lambda: in_the_middle_of("checkpoint-6/optimizer.pt"),
        lambda: at("step", 8),
    ],
}


def forked(work: Callable[[], object]) -> tuple[int, object]:
    """How the work's own process ended: its exit code, or less the signal's number; and what the work gave."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(ours)
            with os.fdopen(theirs, "w") as pipe:
                json.dump(work(), pipe)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(told) if code == 0 else None


def run(settings: Settings, output: Path, resume: bool, moment: Callable | None = None) -> dict[str, object]:
    """One process's part of a run."""
    act = moment() if moment else lambda event: None
    told: dict[str, object] = {"start": None, "notes": []}

    def report(event: Event) -> None:
        if event["event"] == "start":
            told["start"] = event["step"]
        if event["event"] == "note":
            told["notes"].append(event["text"])  # type: ignore[union-attr]
        act(event)

    outcome = tuning.tune(settings, output, resume=resume, report=report)
    model = output / ("adapter" if settings.method == "fused" else "model")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir() if path.is_file()}
    names = sorted(path.name for path in output.iterdir())
    logits = hashlib.sha256(outcome.logits.tobytes()).hexdigest()
    return {**told, "files": files, "names": names, "logits": logits, "losses": outcome.results["losses"]}


def main(folder: Path, moments: list[str]) -> dict[str, object]:
    """The run that is left alone, and one killed at each of the moments."""
    settings = Settings(**json.loads((folder / "settings.json").read_text()), save_steps=SAVE_STEPS)
    found: dict[str, object] = {"whole": [0, run(settings, folder / "whole", False)]}
    for number, name in enumerate(moments):
        one = partial(run, settings, folder / f"run-{number}")
        ends = [forked(partial(one, i > 0, moment))[0] for i, moment in enumerate(MOMENTS[name])]
        found[name] = [ends, *forked(partial(one, True))]
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
