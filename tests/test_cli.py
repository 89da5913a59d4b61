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

from adapter_fast import __version__, cli
from adapter_fast.cli import main
from adapter_fast.common.errors import UserError

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
    "wide": ({"bottleneck": "100000000"}, "bottleneck must be at most 65,536, got 100,000,000"),
    "nested": ({"target_modules": "(" * 5000 + "a" + ")" * 5000}, "maximum recursion depth exceeded"),
    "counted": ({"target_modules": "a{99999999999999999999}"}, "the repetition number is too large"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune", "--model", "minilm"], "missing '--task', '--output': see adapter-fast tune --help"),
        (["convert", "here"], "missing 'OUTPUT', '--to' (adapterhub or adapter_fast): see adapter-fast convert --help"),
        (["tune", "--modle", "minilm"], "No such option '--modle'. (Did you mean one of: '--model', '--no-model')"),
        (["tuen"], "No such command 'tuen'. Did you mean tune?"),
        (["xyz"], "No such command 'xyz'. Commands: tune, convert, "),
    ],
)
def test_what_is_missing_or_mistyped_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == cli.BAD_INPUT
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"adapter-fast: {message[:40]}")


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


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\S", text, re.M) for name in cli.COMMANDS)


def test_version_and_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"adapter-fast, version {__version__}\n"
    assert main(["tune", "-h"]) == 0
    assert "--label-column" in capsys.readouterr().out


def test_report_outside_a_checkout_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {name: command for name, command in cli.COMMANDS.items() if name != "report"}
    monkeypatch.setattr(cli, "_offered", lambda: here)
    assert main(["report"]) == cli.BAD_INPUT
    assert "report needs a checkout of the repository" in capsys.readouterr().err


def raising(error: BaseException):
    """tuning.tune that does nothing else."""

    def tune(*_: object, **__: object) -> None:
        raise error

    return tune


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), cli.INTERRUPTED, "interrupted; the same command with --resume goes on"),
        (RuntimeError("odd\nand more"), cli.FAILED, "RuntimeError: odd (ADAPTER_FAST_DEBUG=1 shows where)"),
        (MemoryError(), cli.FAILED, "MemoryError: MemoryError (ADAPTER_FAST_DEBUG=1 shows where)"),
        (UserError("a \x1b[31mred\x07 name \ud800"), cli.BAD_INPUT, r"a \x1b[31mred\x07 name \ud800"),
    ],
)
def test_whatever_is_raised_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from adapter_fast.tasks import tuning

    monkeypatch.setattr(tuning, "tune", raising(error))
    assert main(tune_arguments(tiny, tmp_path / "run")) == code
    assert capsys.readouterr().err.strip() == f"adapter-fast: {line}"


def test_a_name_of_megabytes_is_shortened_and_the_end_stays(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapter_fast.tasks import tuning

    monkeypatch.setattr(tuning, "tune", raising(UserError(f"{'x' * 3_000_000} is no label: expected gold")))
    assert main(tune_arguments(tiny, tmp_path / "run")) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert len(error) < 2100
    assert error.endswith("is no label: expected gold\n")


def test_who_asks_for_it_gets_the_traceback(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapter_fast.tasks import tuning

    monkeypatch.setattr(tuning, "tune", raising(RuntimeError("odd")))
    monkeypatch.setenv(cli.DEBUG, "1")
    assert main(tune_arguments(tiny, tmp_path / "run")) == cli.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "adapter-fast: RuntimeError: odd"


def test_sigterm_is_an_interrupt(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapter_fast.tasks import tuning

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    monkeypatch.setattr(signal, "default_int_handler", signal.getsignal(signal.SIGINT))
    assert main(tune_arguments(tiny, tmp_path / "run")) == cli.INTERRUPTED
    assert "interrupted; " in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


C_LOCALE = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}


def run_program(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that imports main."""
    program = f"import sys; from adapter_fast.cli import main; {code}"
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environment)


def test_help_imports_nothing_heavy() -> None:
    loaded = "main([*sys.argv[1:], '--help']); print(*sys.modules, file=sys.stderr)"
    done = run_program(loaded)
    assert not {"torch", "numpy", "transformers"} & set(done.stderr.split())
    done = run_program(loaded.replace("*sys.argv[1:]", "'tune'"))
    assert "--label-column" in done.stdout
    assert not {"transformers", "sklearn", "accelerate"} & set(done.stderr.split())


def test_an_ascii_terminal_takes_every_character() -> None:
    signs = "print(chr(0x3bc), chr(0xd800))"  # no locale has the second
    assert run_program(signs, **C_LOCALE).returncode == 1
    done = run_program(f"main(['--version']); {signs}; sys.exit(main([chr(0x3bc)]))", **C_LOCALE)
    assert done.returncode == cli.BAD_INPUT
    assert r"\u03bc \ud800" in done.stdout
    assert r"No such command '\u03bc'" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_standard_output_that_takes_nothing_is_one_line() -> None:
    program = "import sys; from adapter_fast.cli import main; sys.exit(main(['--version']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == cli.FAILED
    assert done.stderr == "adapter-fast: standard output cannot be written: [Errno 28] No space left on device\n"


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
