"""--resume: what a run may go on with, from which checkpoint, and what its record must say."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_task import write_images, write_lines, write_model, write_squad, write_tags, write_task

from adapter_fast.common.errors import UserError
from adapter_fast.common.files import write_json
from adapter_fast.tasks import checkpoints, record, tuning
from adapter_fast.tasks.kinds.settings import Settings, differences, read_settings
from adapter_fast.tasks.progress import Board
from adapter_fast.tasks.reload import score_saved
from adapter_fast.tasks.splits import load_task
from adapter_fast.tasks.tuning import tune


@pytest.fixture(autouse=True)
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training through Triton's interpreter would take minutes, and the kernels have tests of their own."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


class Killed(BaseException):
    """Stands for the signal that ends a run: nothing of ours catches it."""


class Screen:
    """What a run reports: where it began, and its notes; it is killed at a step."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at
        self.starts: list[int] = []
        self.notes: list[str] = []

    def __call__(self, event: dict) -> None:
        if event["event"] == "start":
            self.starts.append(event["step"])
        if event["event"] == "note":
            self.notes.append(event["text"])
        if event["event"] == "step" and event["step"] == self.kill_at:
            raise Killed


def settings_of(folder: Path, **values: object) -> Settings:
    given = {
        "model": str(folder / "model"),
        "task": str(folder / "task.csv"),
        "bottleneck": 4,
        "epochs": 2,
        "batch_size": 8,
        "max_length": 16,
        "lr": 1e-2,
        "save_steps": 2,
    }
    return Settings(**{**given, **values})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a task, and a run that was killed at its ninth step: whole checkpoints at 6 and 8."""
    folder = tmp_path_factory.mktemp("begun")
    write_model(folder / "model")
    write_task(folder / "task.csv", rows=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        with pytest.raises(Killed):
            tune(settings_of(folder), folder / "run", report=Screen(kill_at=9))
    return folder


@pytest.fixture
def world(begun: Path, tmp_path: Path) -> Path:
    """The killed run to change, at the path that it began at."""
    kept = tmp_path / "kept"
    shutil.copytree(begun, kept)
    yield begun
    shutil.rmtree(begun)
    shutil.copytree(kept, begun)


# The data and the model that the run was started with


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def other_weights(world: Path) -> None:
    file = world / "model/model.safetensors"
    weights = load_file(file)
    weights["bert.encoder.layer.0.output.dense.bias"][0] += 1
    save_file(weights, file, {"format": "pt"})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "renamed": (
        lambda world: edit(world / "task.csv", lambda text: text.replace(",metal", ",river")),
        "has other labels than the data: 'river' is new and 'metal' is gone",
    ),
    "swapped": (
        lambda world: edit(
            world / "task.csv",
            lambda text: text.replace(",metal", ",x").replace(",grain", ",metal").replace(",x", ",grain"),
        ),
        "was started with other data: its training and test examples changed",
    ),
    "one more": (
        lambda world: edit(world / "task.csv", lambda text: text + "wheat said,acid\n" * 3 + "corn,zoo\n" * 3),
        "has other labels than the data: 'acid', 'zoo' are new",
    ),
    "one less": (
        lambda world: edit(world / "task.csv", lambda text: text.replace(",metal", ",grain")),
        "has other labels than the data: 'metal' is gone",
    ),
    "a word": (
        lambda world: edit(world / "task.csv", lambda text: text.replace("gold", "zinc")),
        "was started with other data: its training",
    ),
    "an example": (
        lambda world: edit(world / "task.csv", lambda text: text + "wheat,grain\n"),
        "was started with other data: its training",
    ),
    "weights": (other_weights, "was started with other weights: the files of its model changed"),
}


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_go_on_with_what_it_was_not_started_with(
    world: Path, change: Callable[[Path], None], message: str
) -> None:
    before = {path: path.read_bytes() for path in (world / "run").rglob("*") if path.is_file()}
    change(world)
    with pytest.raises(UserError) as error:
        tune(settings_of(world), world / "run", resume=True, report=Screen())
    assert str(error.value).startswith(f"the run in {world / 'run'} ")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in (world / "run").rglob("*") if path.is_file()} == before


def test_a_run_does_not_go_on_with_another_number_of_processes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = json.loads((world / "run/run.json").read_text())[record.START]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="was started with 1 processes, now there are 2: a batch would"):
        record.check_start(world / "run", now, now | {"processes": record.process_count()})


def test_labels_in_another_order_are_other_labels() -> None:
    record.check_labels("the run", ["a", "b"], ["a", "b"])
    with pytest.raises(UserError, match="has other labels than the data: they are in another order"):
        record.check_labels("the run", ["a", "b"], ["b", "a"])


def test_the_same_data_at_another_time_goes_on(world: Path) -> None:
    os.utime(world / "task.csv", (1, 1))
    screen = Screen()
    tune(settings_of(world), world / "run", resume=True, report=screen)
    assert (screen.starts, screen.notes) == ([8], [])


KINDS = {
    "texts": (
        lambda path: write_task(path / "task.csv"),
        lambda path: edit(path, lambda text: text.replace("gold", "zinc")),
    ),
    "tags": (
        lambda path: write_tags(path / "task.conll"),
        lambda path: edit(path, lambda text: text.replace("gold", "zinc")),
    ),
    "questions": (
        lambda path: write_squad(path / "task.json"),
        lambda path: edit(path, lambda text: text.replace("gold", "zinc")),
    ),
    "lines": (
        lambda path: write_lines(path / "task.txt"),
        lambda path: edit(path, lambda text: text.replace("gold", "zinc")),
    ),
    "images": (lambda path: write_images(path / "images", 8), lambda path: one_pixel(path / "red/00.png")),
}


def one_pixel(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.putpixel((0, 0), (1, 2, 3))
        image.save(path)


@pytest.mark.parametrize("write, change", KINDS.values(), ids=KINDS)
def test_the_digest_of_every_kind_of_data_is_of_its_content(
    tmp_path: Path, write: Callable[[Path], Path], change: Callable[[Path], None]
) -> None:
    path = write(tmp_path)

    def digests() -> list[str]:
        data = load_task(Settings("m", str(path)))
        return [data.train.digest(), data.test.digest()]

    before = digests()
    assert digests() == before
    moved = path.rename(tmp_path / f"moved{path.suffix}")
    assert [part.digest() for part in (load_task(Settings("m", str(moved))).train,)] == before[:1]
    path = moved
    rows = load_task(Settings("m", str(path))).train
    for name, column in rows._columns().items():
        turned = [*column[1:], column[0]]
        assert turned == column or replace(rows, **{name: turned}).digest() != rows.digest(), name
    change(path)
    assert digests() != before


def test_a_finished_run_is_not_scored_on_other_labels(world: Path) -> None:
    tune(settings_of(world), world / "run", resume=True, report=Screen())
    edit(world / "task.csv", lambda text: text.replace(",metal", ",river"))
    with pytest.raises(UserError, match="has other labels than the data: 'river' is new and 'metal' is gone"):
        score_saved(world / "run", Screen())


# The record


@pytest.mark.parametrize("content", [b"", b"{", b'{"model": "m", "ta', b"[]", b"null", b"\xff\xfe"], ids=repr)
@pytest.mark.parametrize("name", ["run.json", "results.json"])
def test_a_record_that_is_cut_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError) as error:
        if name == "run.json":
            tuning.check_output(tmp_path, Settings("m", "t"), resume=True)
        else:
            score_saved(tmp_path, Screen())
    assert str(error.value).startswith(f"the record of the run in {tmp_path} is cut or none: {tmp_path / name} must ")
    assert "\n" not in str(error.value)


def test_a_directory_without_a_finished_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run with a results\.json"):
        score_saved(tmp_path, Screen())


OPTIONAL = [field.name for field in fields(Settings) if field.name not in ("model", "task")]


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_setting_that_the_record_lacks_has_its_default(tmp_path: Path, name: str) -> None:
    settings = Settings("m", "t")
    older = settings.to_dict()
    del older[name]
    write_json(tmp_path / "run.json", older)
    assert tuning.check_output(tmp_path, settings, resume=True) == {}
    other = {"epochs": 9, "report_to": "wandb", "layers": [1], "method": "head", "lr": 0.1, "placement": "pfeiffer"}
    if name in other:
        with pytest.raises(UserError, match=rf"had other settings: {name} was {getattr(settings, name)!r}, now "):
            tuning.check_output(tmp_path, replace(settings, **{name: other[name]}), resume=True)


def test_a_setting_of_a_newer_version_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {**Settings("m", "t").to_dict(), "warmth": 3})
    with pytest.raises(UserError, match=r"run\.json has the setting 'warmth' \(3\), which this version does not know"):
        tuning.check_output(tmp_path, Settings("m", "t"), resume=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": "many"}, "not supported between"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"method": "lora"}, "method must be one of"),
        ({"model": None}, "it lacks model"),
    ],
)
def test_a_record_with_impossible_settings_is_one_line(tmp_path: Path, change: dict, message: str) -> None:
    values = {
        name: value for name, value in {**Settings("m", "t").to_dict(), **change}.items() if name != "model" or value
    }
    with pytest.raises(UserError, match=rf"^x\.json.*{message}"):
        read_settings(values, "x.json")


def test_a_tuple_is_the_list_that_its_record_holds() -> None:
    ours = Settings("m", "t", layers=(0, 1))  # type: ignore[arg-type]
    assert differences(ours, Settings("m", "t", layers=[0, 1])) == []


def test_a_record_of_an_earlier_version_goes_on_and_says_what_it_cannot_tell(world: Path) -> None:
    values = json.loads((world / "run/run.json").read_text())
    del values[record.START], values["report_to"]
    write_json(world / "run/run.json", values)
    screen = Screen()
    tune(settings_of(world), world / "run", resume=True, report=screen)
    assert screen.starts == [8]
    assert screen.notes == [
        "run.json is of an earlier version: it does not say with what processes, label_names, data, model "
        "the run was started"
    ]


# Checkpoints


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def zeros(path: Path) -> None:
    """As some file systems leave a file when the power is lost: of its length, without its content."""
    path.write_bytes(bytes(path.stat().st_size))


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as records:
        largest = max(records.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + 128 + largest.file_size // 2] ^= 1
    path.write_bytes(bytes(content))


NAMES = ("trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
FAULTS = {"gone": Path.unlink, "empty": cut(0), "half": cut(0.5), "almost": cut(0.99), "zeros": zeros}
BROKEN = [(name, what, fault) for name in NAMES for what, fault in FAULTS.items()]
BROKEN += [(name, "a bit", one_bit) for name in ("optimizer.pt", "rng_state.pth")]
BROKEN += [("training_args.bin", "half", cut(0.5)), ("config.json", "half", cut(0.5))]


@pytest.mark.parametrize("name, what, break_it", BROKEN, ids=[f"{name} {what}" for name, what, _ in BROKEN])
def test_a_broken_checkpoint_is_passed_over(begun: Path, tmp_path: Path, name: str, what: str, break_it) -> None:
    for step in (6, 8):
        shutil.copytree(begun / f"run/checkpoints/checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    newest = tmp_path / "checkpoint-8"
    assert checkpoints.newest_whole(tmp_path) == (newest, {})
    break_it(newest / name)
    found, passed = checkpoints.newest_whole(tmp_path)
    assert found == tmp_path / "checkpoint-6"
    assert list(passed) == [newest]
    assert name in passed[newest] or (what == "gone" and passed[newest].startswith("it has no "))
    assert "\n" not in passed[newest]


def sharded(checkpoint: Path) -> None:
    """The weights in two files with an index, as those of a large model are."""
    weights = load_file(checkpoint / "model.safetensors")
    names = sorted(weights)
    parts = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, checkpoint / file)
    index = {"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    write_json(checkpoint / "model.safetensors.index.json", index)
    (checkpoint / "model.safetensors").unlink()


def pickled(checkpoint: Path) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()


def adapter_only(checkpoint: Path) -> None:
    (checkpoint / "adapter").mkdir()
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter/adapter.safetensors")


def of_two_processes(checkpoint: Path) -> None:
    for rank in range(2):
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{rank}.pth")
    (checkpoint / "rng_state.pth").unlink()


FORMS = {
    "shards": (sharded, "model-00002-of-00002.safetensors"),
    "pickle": (pickled, "pytorch_model.bin"),
    "adapter": (adapter_only, "adapter/adapter.safetensors"),
    "processes": (of_two_processes, "rng_state_1.pth"),
}


@pytest.mark.parametrize("break_it", [Path.unlink, cut(0.5)], ids=["gone", "half"])
@pytest.mark.parametrize("rewrite, file", FORMS.values(), ids=FORMS)
def test_every_form_of_a_checkpoint_is_whole_only_with_all_its_files(
    begun: Path, tmp_path: Path, rewrite: Callable[[Path], None], file: str, break_it: Callable[[Path], None]
) -> None:
    newest = tmp_path / "checkpoint-8"
    shutil.copytree(begun / "run/checkpoints/checkpoint-8", newest)
    rewrite(newest)
    processes = 2 if file.startswith("rng") else 1
    assert checkpoints.fault(newest, processes) is None
    break_it(newest / file)
    assert checkpoints.fault(newest, processes) is not None


def test_only_folders_with_a_step_are_checkpoints(begun: Path, tmp_path: Path) -> None:
    for name in ("checkpoint-final", "checkpoint-", "checkpoint-8.old", "tmp-checkpoint-9"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert checkpoints.newest_whole(tmp_path) == (None, {})
    assert checkpoints.newest_whole(tmp_path / "none") == (None, {})
    shutil.copytree(begun / "run/checkpoints/checkpoint-8", tmp_path / "checkpoint-8")
    assert checkpoints.newest_whole(tmp_path) == (tmp_path / "checkpoint-8", {})


def test_a_run_goes_on_from_the_newest_whole_checkpoint_and_says_what_it_passed_over(
    world: Path, tmp_path: Path
) -> None:
    whole = tune(settings_of(world), tmp_path / "whole", report=Screen())
    cut(0.5)(world / "run/checkpoints/checkpoint-8/optimizer.pt")
    screen = Screen()
    resumed = tune(settings_of(world), world / "run", resume=True, report=screen)
    assert screen.starts == [6]
    assert len(screen.notes) == 1
    assert screen.notes[0].startswith("checkpoint-8 is passed over: optimizer.pt is cut: ")
    assert resumed.results["losses"] == whole.results["losses"]
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    files = [(run / "adapter/adapter.safetensors").read_bytes() for run in (world / "run", tmp_path / "whole")]
    assert files[0] == files[1]


def test_a_run_without_a_whole_checkpoint_begins_anew_and_says_so(world: Path) -> None:
    for step in (6, 8):
        (world / f"run/checkpoints/checkpoint-{step}/scheduler.pt").unlink()
    screen = Screen()
    tune(settings_of(world), world / "run", resume=True, report=screen)
    assert screen.starts == [0]
    assert screen.notes == [
        "checkpoint-8 is passed over: it has no scheduler state",
        "checkpoint-6 is passed over: it has no scheduler state",
        "no checkpoint is whole: the run begins anew",
    ]


def test_a_checkpoint_that_is_written_again_is_not_whole_until_its_end(world: Path, monkeypatch) -> None:
    """Its files of before would else stand for those that a kill kept from being written."""
    newest = world / "run/checkpoints/checkpoint-8"
    cut(0.5)(newest / "model.safetensors")

    def killed(self: object, directory: str) -> None:
        assert checkpoints.fault(Path(directory)) == "it has no trainer_state.json"
        raise Killed

    monkeypatch.setattr(tuning.TuningTrainer, "_save_scaler", killed)
    with pytest.raises(Killed):
        tune(settings_of(world), world / "run", resume=True, report=Screen())


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_a_broken_one(begun: Path, tmp_path, monkeypatch) -> None:
    shutil.copytree(begun / "run/checkpoints/checkpoint-8", tmp_path / "checkpoint-8")

    def refused(file: str, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(checkpoints.zipfile, "ZipFile", refused)
    with pytest.raises(PermissionError, match=r"optimizer\.pt"):
        checkpoints.newest_whole(tmp_path)


def test_the_board_prints_a_note_as_it_is() -> None:
    from rich.console import Console

    text = io.StringIO()
    with Board(Console(file=text, width=40), ["run"]) as board:
        board.handle("run", {"event": "note", "text": "checkpoint-8 is passed over: [bold] optimizer.pt is cut" * 2})
    assert re.search(r"^(checkpoint-8 is passed over: \[bold\] optimizer\.pt is cut){2}$", text.getvalue(), re.M)
