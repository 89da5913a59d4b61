"""A launch that is kept is launched again with other arguments: Triton itself would have chosen the same compilation.

And what is compiled ahead of time is what runs. Nothing is compiled here: key_worker.py asks Triton's own binder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
WORKER = Path(__file__).parents[1] / "helpers/key_worker.py"


def ask(what):
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "ADAPTER_FAST_KERNELS")}
    done = subprocess.run([sys.executable, str(WORKER), what], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_calls_that_share_a_kept_launch_want_the_same_compilation():
    found = ask("calls")
    kernels = ("forward", "dx", "sliced")
    wanted = [f"bottleneck_{name}_kernel" for name in kernels]
    wanted += [f"{name}_kernel" for name in ("weight_grad", "reduce", "expand")]
    few = [name for name in wanted if found["shared"].get(name, 0) < 20]
    assert not few, f"too few calls to tell: {found['shared']}"
    assert not found["wrong"], f"{len(found['wrong'])} calls, such as\n" + "\n".join(found["wrong"][:5])


def test_what_is_compiled_ahead_of_time_is_what_runs():
    found = ask("aot")
    assert found["cases"] > 500
    assert not found["never launched"], found["never launched"][:5]
    assert not found["never compiled"], found["never compiled"][:5]
