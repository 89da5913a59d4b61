"""The doctor: healthy where it should be, a failed check named and an exit code of 1, no need of transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from adapter_fast import doctor
from adapter_fast.checks import DTYPES
from adapter_fast.doctor import doctor as command

ROOT = Path(__file__).parents[1]


def run(*words: str):
    return CliRunner().invoke(command, words)


def test_every_dtype_passes_on_each_backend_of_a_cpu(backend: str) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    assert f"all {2 * len(DTYPES)} checks passed" in done.output
    assert done.output.count("✓ ") >= 2 * len(DTYPES)
    assert backend in done.output
    assert "Triton runs here only under its interpreter (TRITON_INTERPRET=1)" in done.output
    assert max(map(len, done.output.splitlines())) <= 100


def test_json_holds_the_same() -> None:
    found = json.loads(run("--json").output)
    assert found["healthy"] is True
    assert {check["dtype"] for check in found["checks"]} == {"float16", "bfloat16", "float32", "float64"}
    assert all(check["passed"] for check in found["checks"])
    assert found["versions"]["torch"] == torch.__version__
    assert {option["name"] for option in found["options"]} >= {"nvidia-smi", "ncu", "peft", "AdapterHub"}


def wrong_in_float32(*args: torch.Tensor, **options: object) -> torch.Tensor:
    from adapter_fast import reference_adapter

    y = reference_adapter(*args, **options)
    return y * 1.01 if y.dtype == torch.float32 else y


def test_a_wrong_result_fails_its_own_checks_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "fused_adapter", wrong_in_float32)
    done = run()
    assert done.exit_code == 1
    failed = [line for line in done.output.splitlines() if line.startswith("✗")]
    assert len(failed) == 2
    assert all("float32" in line and "y: max error" in line for line in failed)
    assert "2 of 8 checks failed" in done.output
    assert run("--json").exit_code == 1


def test_what_a_compiler_raises_is_a_failed_check_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no tile fits [m, d] here\nand much more")

    monkeypatch.setattr(doctor, "fused_adapter", broken)
    done = run()
    assert done.exit_code == 1
    assert "no tile fits [m, d] here" in done.output
    assert "much more" not in done.output
    assert "Traceback" not in done.output


def test_options_that_are_not_there_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADAPTER_FAST_ADAPTERHUB", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {option.name: option.found for option in doctor.examine().options}
    assert found["AdapterHub"] == found["ncu"] == found["nvidia-smi"] == ""
    monkeypatch.setenv("ADAPTER_FAST_ADAPTERHUB", str(tmp_path))
    assert {option.name: option.found for option in doctor.examine().options}["AdapterHub"] == str(tmp_path)


def test_needs_torch_click_and_rich_only() -> None:
    program = """
import sys
for name in ("transformers", "safetensors", "matplotlib", "peft"):
    sys.modules[name] = None
from adapter_fast.doctor import doctor
doctor()
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "checks passed" in done.stdout
