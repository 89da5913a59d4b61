"""What is compiled ahead of a campaign is found by its calls, by Triton's own keys."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from adapter_fast.benchmarks.tiles import precompile

WORKER = Path(__file__).parents[1] / "helpers/precompile_worker.py"
KERNELS = ["bottleneck_dx_kernel", *["bottleneck_forward_kernel"] * 2, "reduce_kernel", "weight_grad_kernel"]


def ask(what, cache, *words, **settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON_", "ADAPTER_FAST_"))}
    environment |= {"TRITON_CACHE_DIR": str(cache), "TRITON_STORE_BINARY_ONLY": "1"} | settings
    order = [sys.executable, str(WORKER), what, *words]
    done = subprocess.run(order, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_call_compiles_nothing_after_it(tmp_path):
    found = ask("fill", tmp_path, "2")
    # The inference pass has a forward kernel of its own. One that does not compile stops no other.
    assert (found["found"], found["compiled"]) == ([], KERNELS)
    assert [line.split(":")[1] for line in found["failed"]] == [" 3, 'num_stages'"]
    assert ask("call", tmp_path) == {"launched": 5, "hits": 5, "misses": 0}


def test_the_command_packs_on_one_machine_and_unpacks_on_another(tmp_path):
    cache, packed, result = tmp_path / "cache", tmp_path / "packed/cache.tar.xz", tmp_path / "result.json"
    words = ("first", "--cache", str(cache), "--jobs", "2")
    assert ask("main", "elsewhere", *words, "--pack", str(packed), RESULT=str(result)) == {"code": 0}
    told = json.loads(result.read_text())
    assert (told["found"], told["compiled"], told["failed"], told["arch"]) == (0, 5, 0, "sm_90")
    assert packed.stat().st_size < 500_000
    # Triton writes absolute paths: the cache must be at the same one.
    assert all(str(cache) in path.read_text() for path in cache.glob("*/__grp__*"))
    shutil.rmtree(cache)
    assert ask("main", "elsewhere", *words, "--unpack", str(packed), RESULT=str(result)) == {"code": 0}
    told = json.loads(result.read_text())
    assert (told["found"], told["compiled"]) == (5, 0)


def test_the_lists_have_every_kernel_and_all_that_is_compiled_ahead_of_time(tmp_path):
    found = ask("lists", tmp_path)
    names = {f"bottleneck_{name}_kernel" for name in ("forward", "dx", "sliced")}
    names |= {f"{name}_kernel" for name in ("weight_grad", "reduce", "expand")}
    assert found["kernels"].keys() == names
    assert found["everything"] == found["cases"] > 150


def test_a_file_that_is_not_there_is_told_in_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    threads = torch.get_num_threads()
    assert precompile.main(["--unpack", str(tmp_path / "none.tar.xz"), "--cache", str(tmp_path)]) == 2
    torch.set_num_threads(threads)
    assert capsys.readouterr().err.startswith("--unpack must name what --pack wrote, got ")
