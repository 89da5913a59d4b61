"""What says that a change of the source changes no compiled kernel: it goes red for a change, and for nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from adapter_fast.benchmarks.tiles import same

ROOT = Path(__file__).parents[2]

TTIR = """#loc = loc("blocks.py":3:0)
module {
  tt.func public @kernel(%x_ptr: !tt.ptr<f32> loc("x_ptr"(#loc)), %T: i32) {
    %z = arith.constant 1.0 : f32 loc(#loc1)
    %z_1 = arith.addf %z, %z : f32 loc(#loc2)
  } loc(#loc)
} loc(#loc)
#loc1 = loc("blocks.py":7:4)
"""
PTX = """// Generated
.visible .entry kernel(
	.param .u32 T
)
{
	.loc	1 7 4
$L__tmp0:
	add.f32 	%f1, %f0, %f0; // z
$L__BB0_1:
	ret;
}
	.file	1 "blocks.py"
	.section	.debug_abbrev
{
.b8 1
}
"""


def test_places_and_names_in_the_source_do_not_count():
    moved = (
        TTIR.replace("blocks.py", "forward.py").replace(":7:4", ":9:8").replace("%z", "%acc").replace("%x_ptr", "%p")
    )
    assert same.cleaned(moved, "ttir") == same.cleaned(TTIR, "ttir")
    assert "loc" not in same.cleaned(TTIR, "ttir")
    moved = (
        PTX.replace("blocks.py", "forward.py").replace("1 7 4", "1 9 8").replace("$L__tmp0:\n", "").replace(".b8 1", "")
    )
    assert same.cleaned(moved, "ptx") == same.cleaned(PTX, "ptx")
    assert "$L__BB0_1" in same.cleaned(PTX, "ptx")


@pytest.mark.parametrize(
    "text, stage, old, new",
    [
        (TTIR, "ttir", "arith.addf %z, %z", "arith.mulf %z, %z"),
        (TTIR, "ttir", "constant 1.0", "constant 2.0"),
        (TTIR, "ttir", "@kernel(%x_ptr: !tt.ptr<f32>", "@kernel(%x_ptr: !tt.ptr<f16>"),
        (PTX, "ptx", "add.f32", "mul.f32"),
        (PTX, "ptx", "%f0, %f0;", "%f1, %f0;"),
        (PTX, "ptx", "$L__BB0_1", "$L__BB0_2"),
    ],
)
def test_other_code_counts(text, stage, old, new):
    assert old in text
    assert same.cleaned(text.replace(old, new), stage) != same.cleaned(text, stage)


def test_a_case_that_changed_or_came_or_went_is_named():
    before, after = {"a": "1", "b": "2", "gone": "3"}, {"a": "1", "b": "4", "c": "5"}
    assert same.differences(before, after) == ["b: other code", "c: not there before", "gone: no longer there"]


def run(*words):
    command = [sys.executable, "-m", "benchmarks.tiles.same", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_is_green_for_the_same_source_and_red_for_another(tmp_path):
    kept = tmp_path / "before.json"
    words = ("--arch", "sm_90", "--filter", "expand y split bf16/bf16 ieee aligned 64x128x64", "--stage", "ptx")
    done = run(*words, "--write", str(kept))
    assert done.returncode == 0, done.stderr[-2000:]
    digests = json.loads(kept.read_text())
    assert digests and all(name.startswith("sm_90 expand y") for name in digests)
    first = next(iter(digests))
    elsewhere = {"sm_80 expand y": "of an architecture that is not asked for", "sm_90 forward": "of another name"}
    kept.write_text(json.dumps(digests | elsewhere | {first: "of other code"}))
    done = run(*words, "--against", str(kept))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{first}: other code", f"{len(digests)} cases compared, 1 differ (ptx)"]


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "--write or --against must name a file"),
        (("--against", "nothing.json"), "--against must name what --write kept, got nothing.json"),
        (("--write", "x.json", "--filter", "nothing"), "no case's name contains 'nothing'"),
    ],
)
def test_wrong_calls_are_told_in_a_line(words, said):
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(said)
