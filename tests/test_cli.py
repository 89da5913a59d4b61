"""The command line: one line for every mistake, nothing left behind, and a run that survives SIGKILL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_task import write_model, write_task

from adapter_fast import cli
from adapter_fast.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training through Triton's interpreter would take minutes, and the kernels have tests of their own."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BloomConfig

    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder / "model")
    write_task(folder / "task.csv")
    write_model(folder / "bloom", BloomConfig(vocab_size=24, hidden_size=16, n_layer=1, n_head=2, pad_token_id=0))
    write_model(folder / "one-layer-less")
    config = json.loads((folder / "one-layer-less/config.json").read_text())
    config["num_hidden_layers"] += 1
    (folder / "one-layer-less/config.json").write_text(json.dumps(config))
    write_model(folder / "broken")
    (folder / "broken/model.safetensors").write_bytes(b"short")
    write_model(folder / "mute")
    for path in (folder / "mute").glob("tokenizer*"):
        path.unlink()
    (folder / "void").mkdir()
    (folder / "columns.csv").write_text("body,class\nx,y\n")
    (folder / "empty.csv").write_text("")
    (folder / "unseen.csv").write_text("text,label\ngold,metal\nbank,river\n")
    return folder


def tune_arguments(tiny: Path, output: Path, **options: str) -> list[str]:
    """The command's words; `model`, `task` and `test` are names in the tiny folder."""
    files = {"model": "model", "task": "task.csv"}
    files.update({key: options.pop(key) for key in ("model", "task", "test") if key in options})
    words = ["tune", "--output", str(output), "--bottleneck", "4", "--batch-size", "8", "--max-length", "16"]
    for key, value in files.items():
        words += [f"--{key}", str(tiny / value)]
    for key, value in options.items():
        words += [f"--{key.replace('_', '-')}", value]
    return words


def test_tune_prints_its_result_and_writes_it(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tune_arguments(tiny, tmp_path / "run", epochs="1")) == 0
    captured = capsys.readouterr()
    results = json.loads((tmp_path / "run/results.json").read_text())
    shown = {"accuracy": "accuracy", "macro F1": "macro_f1", "matthews": "matthews"}
    scores = ", ".join(f"{name} {results[key]:.3f}" for name, key in shown.items())
    assert f"{scores} on 24 test texts" in captured.out
    assert captured.err == ""


BAD_INPUT = {
    "no-columns": ({"task": "columns.csv"}, r"columns.csv has no column 'text': its columns are body, class"),
    "empty-file": ({"task": "empty.csv"}, "empty.csv is empty: expected the columns 'text' and 'label'"),
    "missing-file": ({"task": "none.csv"}, "none.csv: no such file"),
    "unseen-label": ({"test": "unseen.csv"}, "unseen.csv: label 'river' does not occur in the training data (grain,"),
    "no-model": ({"model": "none"}, "none: no such model directory"),
    "void-model": ({"model": "void"}, "void' does not load: "),
    "broken-model": ({"model": "broken"}, "broken' does not load: Error while deserializing header"),
    "no-tokenizer": ({"model": "mute"}, "mute' has no tokenizer: expected tokenizer.json"),
    "no-site": ({"model": "bloom"}, "bloom"),
    "random-layer": ({"model": "one-layer-less"}, "lacked bert.encoder.layer.2.attention.self.query.weight (16 such)"),
    "too-long": ({"max_length": "64"}, "max_length 64 is over the model's 32 positions"),
    "bottleneck": ({"bottleneck": "0"}, "bottleneck must be at least 1, got 0"),
    "epochs": ({"epochs": "many"}, "Invalid value for '--epochs': 'many' is not a valid integer."),
    "method": ({"method": "lora"}, "Invalid value for '--method': 'lora' is not one of"),
    "fp16-on-cpu": ({"precision": "fp16"}, "precision fp16 needs a GPU, and there is none"),
}


@pytest.mark.parametrize("options, message", BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, str], message: str
) -> None:
    assert main(tune_arguments(tiny, tmp_path / "run", **options)) == cli.BAD_INPUT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("adapter-fast: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_sites_is_told_which_were_looked_for(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tune_arguments(tiny, tmp_path / "run", model="bloom"))
    error = capsys.readouterr().err
    assert "bert" in error and "distilbert" in error
    assert r"transformer\.h\.\d+\.mlp\.dense_4h_to_h" in error  # what could be a target


def test_an_output_directory_in_use_is_left_alone(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert main(tune_arguments(tiny, tmp_path)) == cli.BAD_INPUT
    assert f"output directory {tmp_path} is in use" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_missing_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--model", "minilm"]) == cli.BAD_INPUT
    assert capsys.readouterr().err == "adapter-fast: Missing option '--task'.\n"


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in ("rich", "sklearn") else object())
    assert main(["tune", "--help"]) == cli.FAILED
    assert capsys.readouterr().err == 'adapter-fast: rich is not installed: pip install "adapter_fast[tune]"\n'
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in ("accelerate", "sklearn") else object())
    assert main(["tune", "--help"]) == cli.FAILED
    expected = 'adapter-fast: accelerate, scikit-learn is not installed: pip install "adapter_fast[tune]"\n'
    assert capsys.readouterr().err == expected
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "matplotlib" else object())
    assert main(["bench"]) == cli.FAILED
    assert capsys.readouterr().err == 'adapter-fast: matplotlib is not installed: pip install "adapter_fast[bench]"\n'


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\S", text, re.M) for name in cli.COMMANDS)


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tuen"]) == cli.BAD_INPUT
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("adapter-fast: No such command 'tuen'")


def test_an_interrupt_says_how_to_go_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapter_fast.tasks import tuning

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", interrupted)
    assert main(tune_arguments(tiny, tmp_path / "run")) == cli.INTERRUPTED
    error = capsys.readouterr().err.strip()
    assert error == "adapter-fast: interrupted; tune goes on with --resume, experiment with the same command"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from adapter_fast.cli import main; main(['tune', '--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--label-column" in done.stdout
    assert not {"transformers", "sklearn", "accelerate"} & set(done.stderr.split())


def test_a_run_killed_with_sigkill_resumes_to_the_same_adapter(tiny: Path, tmp_path: Path) -> None:
    words = {"epochs": "4", "save_steps": "3", "lr": "1e-2"}
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "adapter_fast", *tune_arguments(tiny, killed, **words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 300
    while not list(killed.glob("checkpoints/*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (killed / "results.json").exists()
    subprocess.run([*command, "--resume"], cwd=ROOT, stdout=subprocess.DEVNULL, env=environment, check=True)
    whole = tmp_path / "whole"
    command = [sys.executable, "-m", "adapter_fast", *tune_arguments(tiny, whole, **words)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment, check=True)
    losses = [json.loads((run / "results.json").read_text())["losses"] for run in (killed, whole)]
    assert losses[0] == losses[1]
    weights = [(run / "adapter/adapter.safetensors").read_bytes() for run in (killed, whole)]
    assert weights[0] == weights[1]
