"""The choice of tiles: pure Python, total over its domain, independent of the number of tokens."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from adapter_fast.kernels.tiles import LaunchConfig, Problem, family, padded, select_tiles, split_count

ARCHITECTURES = [
    "sm_80",
    "sm_86",
    "sm_89",
    "sm_90",
    "sm_100",
    "sm_103",
    "sm_120",
    "sm_121",
    "gfx90a",
    "gfx942",
    "gfx950",
]
KINDS = [(2, 2, "ieee"), (2, 4, "ieee"), (4, 4, "tf32"), (4, 4, "ieee"), (4, 2, "ieee"), (8, 8, "ieee"), (2, 8, "ieee")]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("x_bytes, w_bytes, precision", KINDS)
def test_an_answer_for_every_bottleneck(arch, x_bytes, w_bytes, precision):
    for m in (*range(1, 70), 127, 128, 129, 255, 256, 257, 512, 513, 2048):
        problems = [Problem(768, m, x_bytes, w_bytes, precision, arch, aligned=aligned) for aligned in (True, False)]
        for phase, problem in product(("forward", "dx", "expand", "weight_grad"), problems):
            config = select_tiles(phase, problem)
            assert isinstance(config, LaunchConfig)
            for block in (config.BLOCK_T, config.BLOCK_D, config.BLOCK_M):
                assert block >= 16 and block & (block - 1) == 0
            if config.form == "fused" and phase != "weight_grad":
                assert m <= config.BLOCK_M == padded(m) <= 256


def test_wide_bottlenecks_are_fused_up_to_256_on_hopper():
    for m, form in ((1, "fused"), (64, "fused"), (256, "fused"), (257, "split"), (512, "split")):
        assert select_tiles("forward", Problem(768, m, 2, 2, "ieee", "sm_90")).form == form
    tiles = select_tiles("forward", Problem(768, 256, 2, 2, "ieee", "sm_90"))
    assert (tiles.BLOCK_T, tiles.num_warps) == (64, 8)


def test_families():
    assert [family(arch) for arch in ("sm_80", "sm_86", "sm_89", "sm_90", "sm_103", "sm_121", "gfx90a")] == [
        "sm_80",
        "sm_120",
        "sm_120",
        "sm_90",
        "sm_100",
        "sm_120",
        "gfx942",
    ]


def test_padding():
    assert [padded(m) for m in (1, 16, 17, 64, 65, 256, 257)] == [16, 16, 32, 64, 128, 256, 512]


def test_runs_of_tokens():
    assert split_count(100, 12, 64, 132) == 1
    assert split_count(65536, 12, 64, 132) == 22
    assert split_count(4096, 12, 64, 132) == 4
    assert split_count(65536, 5000, 64, 132) == 1


def test_needs_no_triton():
    folder = str(Path(__file__).resolve().parents[1] / "kernels")
    code = f"import sys; sys.modules['triton'] = None; sys.path.insert(0, {folder!r}); import tiles"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
