"""AdapterHub's library `adapters`, which needs transformers 4.57: measured in a process of its own, sample by sample.

The worker is adapterhub_worker.py. It reads one JSON object a line and answers each with one: {"value": ...},
{"unavailable": why} or {"wrong": which result}.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch

import adapter_fast
from adapter_fast.benchmarks.cases.whole_models import ModelCase
from adapter_fast.benchmarks.peers.contender import Contender, Unavailable
from adapter_fast.benchmarks.rows.provenance import CHECKOUT
from adapter_fast.measure.clock import Sampler
from adapter_fast.testing import Case

VARIABLE = "ADAPTER_FAST_ADAPTERHUB"
MODULE = "adapter_fast.benchmarks.peers.adapterhub_worker"
SETTLING = 0.01  # seconds: idle threads of libgomp spin for up to 6 ms, and would take a core from the other process
CLOSING = 10  # seconds that a worker has to end by itself

_numbers = count()  # of contenders: never used twice, so that a new worker does not take one for an old one's


def folder() -> Path:
    """Where `pip install --target` put adapters: $ADAPTER_FAST_ADAPTERHUB, else build/adapterhub of the checkout."""
    return Path(os.environ.get(VARIABLE) or (CHECKOUT or Path()) / "build/adapterhub").resolve()


class AdapterHub:
    """One worker process: started when first needed, started again when it died, ended with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._log: Any = None
        atexit.register(self.close)

    def start(self) -> None:
        """Have a living worker. Unavailable where the library is not there."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        place = folder()
        if not (place / "adapters").is_dir():
            raise Unavailable("AdapterHub is not installed: make peers")
        ours = Path(adapter_fast.__file__).resolve().parents[1]
        rest = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(place), str(ours), *rest]),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            cwd=place,  # python -m searches it first
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: we end it
        )

    def ask(self, **request: Any) -> Any:
        """The worker's answer.

        Raises:
            Unavailable: it cannot, or it died; the message is its last. AssertionError: a result was wrong.
        """
        try:
            answer = self._exchange(json.dumps(request))
        except BaseException:  # Ctrl-C: its answer would be taken for that of the next question
            if self._process is not None:
                self._process.kill()
            self.close()
            raise
        if not answer:
            raise Unavailable(f"AdapterHub's process ended: {self._end()}")
        if "wrong" in answer:
            raise AssertionError(answer["wrong"])
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer["value"]

    def _exchange(self, request: str) -> dict[str, Any]:
        """Its answer; empty from one that is not there any more."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return {}
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return {}
        line = process.stdout.readline()
        return json.loads(line) if line else {}

    def close(self) -> None:
        """End the worker, if there is one."""
        self._end()

    def _end(self) -> str:
        """Its last words."""
        process, log = self._process, self._log
        self._process = self._log = None
        if process is None:
            return "it was closed"
        try:
            process.communicate(timeout=CLOSING)  # closes its requests, at which it ends
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        log.seek(0)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        log.close()
        return lines[-1].strip()[:160] if lines else f"exit code {process.returncode}"


class RemoteContender:
    """A Contender (contender.py) that lives in the worker."""

    def __init__(self, hub: AdapterHub, device: str, name: str = "adapterhub", **request: Any) -> None:
        self.hub, self.device, self.name, self.number = hub, device, name, next(_numbers)
        hub.start()
        told = hub.ask(do="prepare", number=self.number, device=device, **request)
        self.note: str = told["note"]
        self.parameters: int | None = told["parameters"]

    def warm(self) -> None:
        """Run it there until it is ready."""
        self._ask("warm")

    def check(self) -> None:
        """Have its results checked there."""
        self._ask("check")

    def peak(self) -> int:
        """Peak bytes of one call, in its process."""
        return self._ask("peak")

    def sampler(self, mode: str) -> Sampler | None:
        """Asks its process for each sample; None where it has no such mode."""
        return (lambda: self._sample(mode)) if self._ask("sampler", mode=mode) else None

    def close(self) -> None:
        """Have its process let go of it."""
        with suppress(Unavailable):  # it died, and everything with it
            self._ask("close")

    def _sample(self, mode: str) -> float:
        pause = SETTLING if self.device == "cpu" else 0.0
        time.sleep(pause)
        taken = self._ask("sample", mode=mode)
        time.sleep(pause)
        return taken

    def _ask(self, do: str, **request: Any) -> Any:
        return self.hub.ask(do=do, number=self.number, **request)


@cache
def _hub() -> AdapterHub:
    return AdapterHub()


def adapterhub_op(case: Case, phase: str) -> Contender:
    """AdapterHub's Adapter module on the op's own inputs; Unavailable where it is not installed."""
    fields = asdict(case) | {"dtype": _name(case.dtype), "weight_dtype": _name(case.weight_dtype)}
    return RemoteContender(_hub(), case.device, kind="op", fields=fields, phase=phase)


def adapterhub_model(case: ModelCase, device: str, bare: bool = False) -> Contender:
    """A transformer with AdapterHub's Houlsby adapters; Unavailable where it is not installed.

    bare: the same without adapters, of the transformers version that AdapterHub needs.
    """
    if bare:
        return RemoteContender(_hub(), device, "adapterhub-bare", kind="bare", fields=asdict(case))
    return RemoteContender(_hub(), device, kind="model", fields=asdict(case))


def _name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")
