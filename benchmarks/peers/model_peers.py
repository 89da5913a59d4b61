"""Everyone who is measured on a whole model, by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from adapter_fast.benchmarks.cases.budgets import houlsby_parameters, lin_parameters, lora_parameters
from adapter_fast.benchmarks.cases.whole_models import ModelCase
from adapter_fast.benchmarks.peers.adapterhub import adapterhub_model
from adapter_fast.benchmarks.peers.build import Implementation, base_model, houlsby_model
from adapter_fast.benchmarks.peers.contender import Contender, Factory
from adapter_fast.benchmarks.peers.lin import lin_bottleneck, lin_model
from adapter_fast.benchmarks.peers.lora import TARGETS, lora_model, lora_rank
from adapter_fast.benchmarks.peers.model import LocalModel
from adapter_fast.measure.machine import version
from adapter_fast.recipe import train_head_only

COMPILED = "torch.compile of the whole model, default mode, static shapes"


def model_contenders(case: ModelCase, device: str) -> dict[str, Factory]:
    """By name, whoever is measured on one model and phase; each factory may raise Unavailable.

    A forward pass has "peft-lora-merged" and the bare models that the compiled ones and AdapterHub's stand against; a
    training step has "full", the latency suite "adapter-l".
    """
    houlsby = partial(_houlsby, case=case, device=device)
    found: dict[str, Factory] = {
        "fused": lambda: houlsby("fused", implementation="fused"),
        "reference": lambda: houlsby("reference", implementation="reference"),
        "compile": lambda: houlsby("compile", implementation="reference", compiled=True),
        "fused-compile": lambda: houlsby("fused-compile", implementation="fused", compiled=True),
        "adapterhub": lambda: adapterhub_model(case, device),
        "peft-lora": lambda: _lora("peft-lora", case, device),
    }
    if case.phase == "forward":
        found["peft-lora-merged"] = lambda: _lora("peft-lora-merged", case, device)
        found["bare-compile"] = lambda: _bare("bare-compile", case, device)
        found["adapterhub-bare"] = lambda: adapterhub_model(case, device, bare=True)
    if case.suite == "latency":
        found["adapter-l"] = lambda: _lin(case, device)
    if case.phase == "step":
        found["full"] = lambda: _full(case, device)
    return {**found, "bare": lambda: _bare("bare", case, device)}


def _houlsby(
    name: str, case: ModelCase, device: str, implementation: Implementation, compiled: bool = False
) -> Contender:
    notes = [COMPILED] if compiled else []
    if name == "reference" and case.suite == "latency":
        notes.append("Adapter-H of the LoRA paper in plain PyTorch")
    return LocalModel(
        name,
        case,
        device,
        houlsby_model(case, device, implementation),
        plain=lambda: houlsby_model(case, device, "reference"),
        parameters=houlsby_parameters(case.hidden, case.layers)(case.bottleneck),
        note="; ".join(notes),
        compiled=compiled,
    )


def _lora(name: str, case: ModelCase, device: str) -> Contender:
    merged, rank = name == "peft-lora-merged", lora_rank(case)
    model: Any = lora_model(case, device, merged)
    targets = " and ".join(TARGETS[model.config.model_type])
    note = f"PEFT {version('peft')}, r = {rank} on {targets}"
    if merged:
        note += ", multiplied into the weights: nothing is added to the pass"
    if case.phase == "step":
        note += "; trains these and the head, no LayerNorms"
    return LocalModel(
        name,
        case,
        device,
        model,
        plain=(lambda: lora_model(case, device)) if merged else None,
        parameters=lora_parameters(case.hidden, case.layers)(rank),
        note=note,
    )


def _lin(case: ModelCase, device: str) -> Contender:
    m = lin_bottleneck(case)
    note = f"Adapter-L of the LoRA paper in plain PyTorch: m = {m} behind the feed-forward only, a LayerNorm in front"
    count = lin_parameters(case.hidden, case.layers)(m)
    return LocalModel("adapter-l", case, device, lin_model(case, device), parameters=count, note=note)


def _full(case: ModelCase, device: str) -> Contender:
    model = base_model(case, device).requires_grad_(True)  # in its own dtype: no float32 masters, the lighter way
    count = sum(parameter.numel() for parameter in model.parameters())
    note = f"no adapters: all {count / 1e6:.1f} million parameters train"
    return LocalModel("full", case, device, model, parameters=0, note=note)


def _bare(name: str, case: ModelCase, device: str) -> Contender:
    model: nn.Module = base_model(case, device)
    compiled = name == "bare-compile"
    note = COMPILED if compiled else ""
    if case.phase == "step":
        model, note = train_head_only(model), "no adapters: only the head trains, no gradient runs through the layers"
    return LocalModel(name, case, device, model, parameters=0, note=note, compiled=compiled)
