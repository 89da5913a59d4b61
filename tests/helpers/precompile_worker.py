"""What precompile.py puts into Triton's cache, and what calls find there. Run with TRITON_INTERPRET unset.

    python precompile_worker.py fill JOBS     one call's launches, and one that does not compile
    python precompile_worker.py call          the same call through Triton's own dispatch
    python precompile_worker.py main ...      the command, as if the campaign were that call
    python precompile_worker.py lists         how many launches the lists have, and which tests' shapes

Prints JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import torch
import triton
from fake_gpu import example, fake_gpu

from adapter_fast import fused_adapter
from adapter_fast.benchmarks.tiles import precompile
from adapter_fast.benchmarks.tiles.aot import cases as aot_cases
from adapter_fast.benchmarks.tiles.precompile import Call, Gpu, as_if_on, campaign, distinct, everything, launches
from adapter_fast.kernels.launch import Launch
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import forced
from adapter_fast.testing import Case

CHOICES = {"forward": LaunchConfig("fused", 64, 64, 16, 4, 2)}  # not Triton's default of three stages
CALL = Call(Case(64, 768, 16, torch.bfloat16), choices=CHOICES)
SMALL = Gpu(sms=8)  # as the fake GPU is


def fill(jobs):
    with as_if_on(SMALL):
        work = distinct(launches([CALL, CALL]))
    # A launch with as many warps as no kernel can have goes first.
    launch, arguments = work[0]
    broken = Launch(launch.kernel, launch.constants, launch.options | {"num_warps": 3}, False)
    found = precompile.fill([(broken, arguments), *work], SMALL, jobs)
    return {outcome: sorted(what) for outcome, what in found.items()}


def calls():
    hits = []
    triton.knobs.compilation.listener = lambda *, cache_hit, **_: hits.append(cache_hit)
    inputs = example(64, 768, 16)
    with fake_gpu() as launched, forced(**CHOICES):
        with torch.no_grad():
            fused_adapter(**inputs)
        y = fused_adapter(**inputs)
        torch.autograd.grad(y, list(inputs.values()), torch.empty_like(y))
        return {"launched": len(launched), "hits": sum(hits), "misses": len(hits) - sum(hits)}


def command(words):
    precompile.campaign = lambda gpu, part: iter([CALL])
    return {"code": precompile.main(words)}


def lists():
    gpu = Gpu()
    with as_if_on(gpu):
        asked = list(campaign(gpu))
        of_campaign = distinct(launches(asked))
        aot_cases.DTYPES, aot_cases.HIDDEN, aot_cases.BOTTLENECKS = aot_cases.DTYPES[:1], (768,), (64,)
        whole = distinct(everything("sm_90"))
    kernels = Counter(launch.kernel.__name__ for launch, _ in of_campaign)
    return {
        "calls": len(asked),
        "kernels": kernels,
        "everything": len(whole),
        "cases": len(list(aot_cases.cases("sm_90"))),
    }


if __name__ == "__main__":
    modes = {
        "fill": lambda: fill(int(sys.argv[2])),
        "main": lambda: command(sys.argv[2:]),
        "call": calls,
        "lists": lists,
    }
    print(json.dumps(modes[sys.argv[1]]()))
