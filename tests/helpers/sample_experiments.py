"""Made-up runs of experiments, plausible, to test what is drawn and written from them. Nothing here was measured."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from adapter_fast.experiments import ablation, tradeoff
from adapter_fast.experiments.grid.cells import as_row
from adapter_fast.experiments.grid.result import Result
from adapter_fast.experiments.grid.spec import Spec

TASKS = {"20newsgroups": (20, 0.68), "reuters-r8": (8, 0.955), "reuters-r52": (52, 0.83), "election-tweets": (2, 0.89)}
HIDDEN, BASE = 384, 22_713_216
SPEC = {"model": "minilm", "base": "0" * 16, "data": "1" * 16, "batch_size": 16, "max_length": 32, "precision": "bf16"}


def run(task="reuters-r8", method="adapters", accuracy=None, seed=0, layers_of_model=6, **fields):
    """One row; whatever is not given is plausible, and the parameters are the method's own arithmetic."""
    labels, best = TASKS.get(task, (2, 0.9))
    spec = Spec(**{**SPEC, "task": task, "method": method, "lr": 3e-3, "epochs": 10, "seed": seed, **fields})
    head = HIDDEN * labels + labels
    norms = 26 * HIDDEN * layers_of_model // 6
    adapters = 2 * len(spec.layers or range(layers_of_model)) if method == "adapters" else 0
    adapters //= 2 if spec.sublayers else 1
    m = spec.bottleneck or 0
    own = adapters * (2 * m * HIDDEN + HIDDEN + m)
    trained = {
        "adapters": own + norms * spec.layer_norms,
        "top": (spec.top or 0) * 1_774_464,
        "layer-norms": norms,
        "head": 0,
        "full": BASE,
    }[method]
    if accuracy is None:
        lost = {"full": 0.0, "head": 0.22, "layer-norms": 0.05, "top": 0.16 / (1 + (spec.top or 0))}
        lost["adapters"] = 0.05 / math.sqrt(max(m, 1)) + 0.25 * min(1.0, (spec.init_std or 0) / 2)
        noise = random.Random(repr(spec)).random() - 0.5
        accuracy = best - lost[method] * (1.6 - best) + 0.012 * noise
    return {
        **as_row(spec),
        "key": spec.key,
        "metric": "accuracy",
        "scores": {"validation": {"accuracy": accuracy}, "test": {"accuracy": accuracy}},
        "choose_by": accuracy,
        "diverged": False,
        "sizes": {"train": 400, "validation": 100, "test": 500},
        "labels": labels,
        "trained": trained + head,
        "base_parameters": BASE,
        "head_parameters": head,
        "adapters": adapters,
        "adapter_parameters": own,
        "base_unchanged": True,
        "train_seconds": 50.0,
        "step_seconds": 0.2,
        "device": "Example CPU",
        "threads": 1,
        "versions": {"adapter_fast": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
        **({"span_scores": spans(accuracy, layers_of_model)} if spec.spans else {}),
    }


def spans(accuracy, layers):
    """What is left without the adapters of each span of layers: more lost for more and for higher layers."""
    left = {"none": accuracy}
    for first in range(layers):
        for last in range(first, layers):
            lost = sum(0.5 + layer for layer in range(first, last + 1)) / (layers * layers / 2)
            left[f"{first}-{last}"] = accuracy * (1 - 0.85 * lost**1.3)
    return left


def result(experiment, rows, **changes):
    """The rows under the options of the quick form."""
    return Result(experiment.__name__.rpartition(".")[2], replace(experiment.QUICK, seeds=3, **changes), rows)


def tradeoff_result(tasks=tuple(TASKS), seeds=3, methods=("head", "layer-norms", "full", "top", "adapters")):
    """All methods over their sizes."""
    sized = {"top": [{"top": k} for k in (1, 2, 3, 5)], "adapters": [{"bottleneck": 2**n} for n in range(9)]}
    rows = [
        run(task, method, seed=seed, **size)
        for task in tasks
        for method in methods
        for size in sized.get(method, [{}])
        for seed in range(seeds)
    ]
    return result(tradeoff, rows)


def classification_result(tasks=tuple(TASKS), seeds=3):
    """The methods of Table 2 in one size each."""
    return replace(tradeoff_result(tasks, seeds, ("head", "full", "top", "adapters")), experiment="classification")


def ablation_result(tasks=("20newsgroups", "election-tweets"), seeds=3, layers=6, stds=range(-7, 1), bottlenecks=(64,)):
    """Every variant of section 3.6."""
    variants = [{"spans": True}, {"sublayers": ("attention",)}, {"layer_norms": False}, {"layers": (layers - 1,)}]
    variants += [{"init_std": 10.0**power} for power in stds]
    rows = [
        run(task, seed=seed, layers_of_model=layers, bottleneck=m, **variant)
        for task in tasks
        for m in bottlenecks
        for variant in variants
        for seed in range(seeds)
    ]
    return result(ablation, rows)
