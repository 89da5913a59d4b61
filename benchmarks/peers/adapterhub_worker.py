"""The process that measures AdapterHub, started by adapterhub.py as a module."""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any, TextIO

import torch

from adapter_fast.benchmarks.cases.whole_models import ModelCase
from adapter_fast.benchmarks.peers.adapterhub_model import HubModel, adapter_op, bare_model
from adapter_fast.benchmarks.peers.contender import Contender, Unavailable
from adapter_fast.benchmarks.peers.op import LocalOp
from adapter_fast.common.errors import first_line
from adapter_fast.measure.clock import Sampler
from adapter_fast.measure.machine import pin_threads, version
from adapter_fast.testing import Case


class Worker:
    """Answers requests, by the contenders that it holds."""

    def __init__(self) -> None:
        self.contenders: dict[int, Contender] = {}
        self.samplers: dict[tuple[int, str], Sampler] = {}  # by contender and mode

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request's answer; whatever goes wrong is part of it."""
        try:
            return {"value": self.do(**request)}
        except AssertionError as error:
            return {"wrong": str(error)}
        except Unavailable as error:
            return {"unavailable": str(error)}
        except Exception as error:  # it must not end the process: another case may work
            return {"unavailable": f"{type(error).__name__}: {first_line(error)}"}

    def do(self, do: str, number: int, mode: str = "", **rest: Any) -> Any:
        """Carry out one request."""
        if do == "prepare":
            contender = self.contenders[number] = prepare(**rest)
            return {"note": contender.note, "parameters": contender.parameters}
        if number not in self.contenders:
            raise Unavailable("AdapterHub's process was started anew since this case was prepared")
        contender = self.contenders[number]
        if do == "sampler":
            sampler = contender.sampler(mode)
            if sampler is not None:
                self.samplers[number, mode] = sampler
            return sampler is not None
        if do == "sample":
            return self.samplers[number, mode]()
        if do == "close":
            for key in [key for key in self.samplers if key[0] == number]:
                del self.samplers[key]
            self.contenders.pop(number).close()
            return give_back()
        return {"warm": contender.warm, "check": contender.check, "peak": contender.peak}[do]()


def give_back() -> None:
    """Leave the memory that nobody uses here to the process that asks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def prepare(device: str, kind: str, fields: dict[str, Any], phase: str = "") -> Contender:
    """The contender of a model case, with adapters or bare, or of an op case, given as its fields."""
    if kind == "model":
        return HubModel(ModelCase(**fields), device)
    if kind == "bare":
        return bare_model(ModelCase(**fields), device)
    dtypes = {key: fields[key] and getattr(torch, fields[key]) for key in ("dtype", "weight_dtype")}
    case = Case(**{**fields, **dtypes})
    note = f"adapters {version('adapters')}: its Adapter module, called as its layers do"
    return LocalOp("adapterhub", adapter_op(case), case, phase, note)


def main(requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests."""
    pin_threads()
    worker = Worker()
    for line in requests:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Whatever else prints must not get between the answers.
    pipes = os.fdopen(os.dup(sys.stdin.fileno())), os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(*pipes)
