"""A process that sees AdapterHub's library and the transformers 4 it needs: it calls functions of hub_*.py for tests.

It reads one JSON list a line, [module, function, *arguments], and answers each with {"value": …} or {"error": …}.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 300  # for one answer


def folder() -> Path:
    """Where the library is; the test is skipped where it is not."""
    import pytest

    from adapter_fast.benchmarks.peers import adapterhub

    if not (adapterhub.folder() / "adapters").is_dir():
        pytest.skip(f"AdapterHub is not installed: make peers, or set {adapterhub.VARIABLE}")
    return adapterhub.folder()


@cache
def _process() -> subprocess.Popen[str]:
    """One for all tests of this process: importing the library takes most of the time."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, (folder(), ROOT, ROOT / "tests/helpers"))),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)  # closes its requests, at which it ends
    return process


@cache
def ask(module: str, function: str, *arguments: Any) -> Any:
    """What the function returns there; what it raises fails the test."""
    folder()
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([module, function, *arguments]) + "\n")
    process.stdin.flush()
    watch = threading.Timer(SECONDS, process.kill)
    watch.start()
    line = process.stdout.readline()
    watch.cancel()
    assert line, f"AdapterHub's process ended at {module}.{function}, code {process.poll()}"
    answer = json.loads(line)
    assert "value" in answer, answer["error"]
    return answer["value"]


def main() -> None:
    """Answer until there are no more requests; whatever else prints must not get between the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        module, function, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(importlib.import_module(module), function)(*arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
