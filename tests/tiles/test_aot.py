"""The ahead-of-time gate: it reads the compilers' texts rightly and goes red for each fault it is there to catch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapter_fast.benchmarks.tiles.aot import resources
from adapter_fast.benchmarks.tiles.aot.gate import Reading, faults
from adapter_fast.benchmarks.tiles.aot.readings import offenders, readings_table, write_readings
from adapter_fast.benchmarks.tiles.aot.targets import ARCHS

ROOT = Path(__file__).parents[2]

USAGE = """Resource usage:
 Common:
  GLOBAL:11 CONSTANT[4]:8
 Function two_loop:
  REG:{registers} STACK:{stack} SHARED:0 LOCAL:0 CONSTANT[0]:440 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
        /*0a10*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT ;
        /*0a20*/                   STL.64 [R1+0x8], R36 ;
        /*0a30*/                   LDL.LU R19, [R1+0x4] ;
        /*0a40*/                   LDSM.16.M88.4 R8, [R57] ;
"""
PTX = """
	wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%r1,%r2}, %rd1, %rd2, 1, 1, 1, 0, 1;
	wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%r1,%r2}, %rd3, %rd4, 1, 1, 1, 0, 1;
	wgmma.wait_group.sync.aligned 0;
"""
AMD = """
	v_mfma_f32_32x32x8_bf16 a[0:15], v[2:3], v[4:5], a[0:15]
	.amdgpu_metadata
  - .agpr_count:     16
    .private_segment_fixed_size: {private}
    .sgpr_count:     106
    .sgpr_spill_count: {scalar}
    .vgpr_count:     196
    .vgpr_spill_count: {vector}
"""


WGMMA = {"wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16": 2}
OLD = {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": 24}


def reading(**changes):
    base = {
        "arch": "sm_90",
        "name": "case",
        "num_warps": 4,
        "num_stages": 3,
        "expects_tensor_core": True,
        "registers": 90,
        "shared": 32768,
        "blocks_per_sm": 5,
        "tensor_ops": WGMMA,
    }
    return Reading(**{**base, **changes})


def test_nvidia_texts_are_read():
    found = resources.from_nvidia(USAGE.format(registers=148, stack=0), "", PTX)
    assert (found.registers, found.spill_bytes, found.local_ops) == (148, 0, 0)
    assert found.tensor_ops == {"wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16": 2}


def test_nvidia_spill_is_read_and_fails():
    found = resources.from_nvidia(USAGE.format(registers=255, stack=96), SASS, PTX)
    assert (found.registers, found.spill_bytes, found.local_ops) == (255, 96, 2)
    assert "spills 96 bytes" in faults(reading(spill_bytes=96, local_ops=2), ARCHS["sm_90"])[0]


@pytest.mark.parametrize(
    "name", ["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "tcgen05.mma.cta_group::1.kind::f16"]
)
def test_tensor_core_instructions_are_named(name):
    ptx = f"@%p4 {name} [ %r1 + 0 ], %rd1, %rd2, %r2, %p5;"
    assert resources.from_nvidia(USAGE.format(registers=64, stack=0), "", ptx).tensor_ops == {name: 1}


def test_unreadable_text_is_an_error_not_a_pass():
    with pytest.raises(ValueError, match="no REG/STACK line"):
        resources.from_nvidia("cuobjdump fatal   : is not a supported file", "", PTX)
    with pytest.raises(ValueError, match="vgpr_spill_count"):
        resources.from_amd("s_endpgm")


@pytest.mark.parametrize(("private", "scalar", "vector", "spill"), [(0, 0, 0, 0), (64, 0, 16, 64), (0, 3, 0, 12)])
def test_amd_texts_are_read(private, scalar, vector, spill):
    found = resources.from_amd(AMD.format(private=private, scalar=scalar, vector=vector))
    assert (found.registers, found.spill_bytes) == (196, spill)
    assert found.tensor_ops == {"v_mfma_f32_32x32x8_bf16": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"spill_bytes": 8}, "spills 8 bytes"),
        ({"local_ops": 2}, "2 loads and stores"),
        ({"shared": 232448}, None),
        ({"shared": 232449}, "wants 232449 bytes of shared memory, a block has 232448"),
        ({"tensor_ops": {}}, "no tensor-core instruction"),
        ({"tensor_ops": {}, "expects_tensor_core": False}, None),
        ({"tensor_ops": OLD, "labels": {"x_dtype": "bf16", "BLOCK_T": 64}}, "where every dot should be wgmma"),
        ({"tensor_ops": OLD | WGMMA, "labels": {"x_dtype": "fp16", "BLOCK_T": 128}}, "mma.sync.aligned.m16n8k16"),
        ({"tensor_ops": {}, "labels": {"x_dtype": "bf16", "BLOCK_T": 64}}, "no tensor-core instruction"),
        ({"tensor_ops": WGMMA, "labels": {"x_dtype": "bf16", "BLOCK_T": 64}}, None),
        ({"tensor_ops": OLD, "labels": {"x_dtype": "bf16", "BLOCK_T": 32}}, None),
        ({"tensor_ops": OLD, "labels": {"x_dtype": "fp32", "BLOCK_T": 64}}, None),
        ({"tensor_ops": OLD, "labels": {"x_dtype": "bf16", "BLOCK_T": 64}, "arch": "sm_120"}, None),
        ({"error": "PTXASError: C7602"}, "C7602"),
    ],
)
def test_gate(changes, words):
    made = reading(**changes)
    found = faults(made, ARCHS[made.arch])
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_blocks_per_multiprocessor():
    h100 = ARCHS["sm_90"]
    assert h100.blocks(registers=64, shared=0, num_warps=4) == 8  # 65536 / (64 · 128)
    assert h100.blocks(registers=65, shared=0, num_warps=4) == 7  # rounded up to 72
    assert h100.blocks(registers=32, shared=75 * 1024, num_warps=4) == 3  # 228 KB / 76 KB
    assert h100.blocks(registers=16, shared=0, num_warps=8) == 8  # 2048 threads
    assert h100.blocks(registers=32, shared=0, num_warps=4, tensor_memory=256) == 2
    assert ARCHS["sm_120"].blocks(registers=16, shared=0, num_warps=1) == 24
    assert ARCHS["gfx942"].blocks(registers=128, shared=16384, num_warps=4) == 4
    assert ARCHS["gfx942"].blocks(registers=416, shared=0, num_warps=4) == 1


def test_table_and_files(tmp_path):
    readings = [reading(name="b"), reading(name="a", spill_bytes=4), reading(name="c", error="PTXASError: C7602")]
    text = readings_table(readings)
    assert "wgmma.mma_async.m64n64k16.f32.bf16.bf16 ×2" in text
    assert "sm_90: 3 cases, 2 failed" in text
    assert [line.split(":")[0] for line in offenders(readings)] == ["sm_90 a", "sm_90 c"]
    [path] = write_readings(readings, tmp_path, "3.9.0")
    first = path.read_bytes()
    assert path.name == "sm_90-triton3.9.0.json"
    assert [row["name"] for row in json.loads(first)] == ["a", "b", "c"]
    write_readings(reversed(readings), tmp_path, "3.9.0")
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def run_aot(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/helpers"), "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "benchmarks.tiles.aot", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_real_compiles_go_green_and_red(tmp_path):
    pytest.importorskip("triton")
    archs = ["--arch", "sm_90", "--arch", "gfx942"]
    red = run_aot("--cases", "aot_samples", *archs, "--output", str(tmp_path))
    assert red.returncode == 1, red.stdout + red.stderr
    [listed] = red.stdout.split("FAILED, ")[1:]
    for line in (
        "sm_90 spills: spills ",
        "sm_90 shared: wants ",
        "gfx942 shared: wants ",
        "sm_90 no_tensor_core: no tensor-core instruction",
        "sm_90 no_compile: CompilationError: ",
        "gfx942 no_compile: CompilationError: ",
    ):
        assert line in listed
    assert " good:" not in listed
    assert "wgmma.mma_async.m64n64k16.f32.bf16.bf16" in red.stdout
    assert "v_mfma_f32_32x32x8_bf16" in red.stdout
    assert len(list(tmp_path.iterdir())) == 2

    green = run_aot("--cases", "aot_samples", *archs, "--filter", "good", "--jobs", "1")
    assert green.returncode == 0, green.stdout + green.stderr
    assert "passed: no spill" in green.stdout


def test_wrong_calls_are_told_in_a_line():
    pytest.importorskip("triton")
    for arguments, words in (
        (["--cases", "no_such_module"], "cannot import no_such_module"),
        (["--cases", "aot_samples", "--filter", "nothing"], "no case's name contains 'nothing'"),
    ):
        done = run_aot(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_readings_of_the_docs_are_of_the_kernels_of_today():
    [path] = (ROOT / "docs/aot").glob("*.json")
    read = {f"sm_90 {one['name']}" for one in json.loads(path.read_text())}
    listed = run_aot("--arch", "sm_90", "--filter", "bf16/bf16 ieee aligned", "--list")
    assert read == set(listed.stdout.splitlines())


STAGED = """
from dataclasses import replace
from adapter_fast.benchmarks.tiles.aot.compiler import compile_case
from adapter_fast.benchmarks.tiles.aot.targets import ARCHS
from adapter_fast.benchmarks.tiles.aot.cases import cases
plain = "forward fused bf16/bf16 ieee aligned 64x64x16 w4 s3"
wanted = (plain, plain + " m ragged")
found = [case for case in cases("sm_90") if case.name in wanted]
assert [case.name for case in found] == list(wanted), found
for case in found:
    copies = []
    for stages in (1, 3):
        staged = replace(case, constexprs=case.constexprs | {"STAGES": stages})
        copies.append(compile_case(staged, ARCHS["sm_90"]).asm["ptx"].count("cp.async.cg"))
    print(*copies)
"""


def test_the_second_loop_asks_for_its_rows_ahead_and_x_is_wide_whatever_m(tmp_path):
    """Its rows come by asynchronous copies of 16 bytes; a ragged bottleneck takes away those of weights only."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET")
    done = subprocess.run([sys.executable, "-c", STAGED], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (whole_one, whole), (ragged_one, ragged) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert whole > whole_one > 0 and ragged > ragged_one > 0, done.stdout
