"""The sanitizer's run covers every form, tells what a tool found, and fails where it did not get to the end."""

import os
import re
import stat

import pytest
import torch

from adapter_fast.benchmarks.tiles import sanitize
from adapter_fast.benchmarks.tiles.sanitize import Variant, command, main, run, summary, variants
from adapter_fast.kernels.offers import OPTIONAL_FORMS
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.testing import Case

CLEAN = "fused: ran\nsliced: not here (no room)\n========= ERROR SUMMARY: 0 errors\n"
DIRTY = "fused: ran\n========= Invalid __global__ read of size 2 bytes\n========= ERROR SUMMARY: 1 error\n"


def test_every_form_mode_and_layout_is_launched():
    found = list(variants("cuda"))
    assert {one.form for one in found} == {"", *OPTIONAL_FORMS}
    assert {one.memory for one in found} == {"speed", "balanced", "lean"}
    assert {one.case.residual for one in found} == {"x", "tensor", "none"}
    assert any(one.odd for one in found) and any(one.case.T == 1 for one in found)
    assert any(one.case.weight_dtype == torch.float32 for one in found)
    assert all(one.case.T % 64 for one in found)
    assert len({one.name for one in found}) == len(found) == len(list(variants("cpu")))


def test_a_variant_runs_and_one_that_is_not_finite_is_refused(monkeypatch):
    tile = LaunchConfig("fused", 32, 32, 16, 4, 1)
    variant = Variant("small", Case(37, 24, 8, dtype=torch.float16), choices=(("forward", tile),), odd=True)
    run(variant)
    monkeypatch.setattr(sanitize, "evaluate", lambda *_: {"y": torch.tensor(float("nan"))})
    with pytest.raises(RuntimeError, match="small: y not finite"):
        run(variant)


def test_a_failure_of_a_plain_form_ends_the_run_and_a_missing_form_is_told(monkeypatch, capsys):
    def refuse(variant):
        if variant.form == "sliced":
            raise ValueError("sliced needs sm_90")

    monkeypatch.setattr(sanitize, "run", refuse)
    assert sanitize.launch("cpu") == 0
    out = capsys.readouterr().out
    assert "sliced: not here (sliced needs sm_90)" in out and "fused, lean: ran" in out

    def fail(variant):
        raise ValueError("broken")

    monkeypatch.setattr(sanitize, "run", fail)
    with pytest.raises(ValueError, match="broken"):
        sanitize.launch("cpu")


def test_summaries_of_the_tools():
    assert summary(CLEAN) == "ERROR SUMMARY: 0 errors"
    hazards = "RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)"
    assert summary(f"noise\n========= {hazards}\n") == hazards
    with pytest.raises(ValueError, match=r"no summary .* ends with 'Segmentation fault'"):
        summary("fused: ran\nSegmentation fault\n")


def fake_tool(tmp_path, text, code):
    path = tmp_path / "compute-sanitizer"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("text", "code", "expected", "line"),
    [
        (CLEAN, 0, 0, r"memcheck: clean, 1 variants, ERROR SUMMARY: 0 errors \(exit code 0\)\n    sliced: not here"),
        (DIRTY, 99, 1, r"memcheck: FAILED, 1 variants, ERROR SUMMARY: 1 error \(exit code 99\)\n    =+ Invalid"),
        (CLEAN, 1, 1, r"memcheck: FAILED, 1 variants"),  # the launches themselves failed
        (CLEAN.replace("ran", "skipped"), 0, 1, r"memcheck: FAILED, 0 variants"),
        ("", 0, 1, r"memcheck: FAILED, 0 variants, no summary"),
    ],
)
def test_a_tools_answer_becomes_a_line_and_an_exit_code(tmp_path, monkeypatch, capsys, text, code, expected, line):
    fake_tool(tmp_path, text, code)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["--tool", "memcheck"]) == expected
    assert re.match(line, capsys.readouterr().out)


def test_a_tool_that_never_ends_is_told(tmp_path, monkeypatch, capsys):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho 'fused, speed: ran'\necho '========= Invalid read'\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["--tool", "racecheck", "--timeout", "1"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == ["racecheck: FAILED, 1 variants, no summary (not done after 1 s)", "    ========= Invalid read"]


def test_some_variants_alone(capsys):
    assert [one.name for one in sanitize.chosen("cuda", ["odd", "sliced"])] == [
        *("fused, odd sizes", "fused, odd addresses", "sliced")
    ]
    assert command("tool", "memcheck", ["odd"])[-2:] == ["--variant", "odd"]
    assert main(["--variant", "odd", "--variant", "cubic"]) == 2
    assert "--variant must be part of a name out of fused, speed; " in capsys.readouterr().err


def test_without_gpu_or_tool_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert main([]) == 2
    assert "compute-sanitizer is neither on the PATH" in capsys.readouterr().err


def test_the_command_gives_each_allocation_to_the_tool(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    environment = sanitize._environment()
    assert environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1" and "TRITON_INTERPRET" not in environment
    words = command("compute-sanitizer", "racecheck")
    assert words[:3] == ["compute-sanitizer", "--tool", "racecheck"]
    assert words[-4:] == ["-m", "adapter_fast.benchmarks.tiles.sanitize", "--launch", "cuda"]
