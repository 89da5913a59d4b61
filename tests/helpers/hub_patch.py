"""What AdapterHub's models compute with and without our patch; called by test_adapterhub.py through hub_worker.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import adapters
import torch
import transformers
from adapters import AdapterSetup
from adapters.composition import Average, BatchSplit, Fuse, Parallel, Split, Stack
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import Adapter, BertFusion, PHMLayer
from torch import nn

from adapter_fast import FusedAdapter, fused_adapter
from adapter_fast.integrations import adapterhub
from adapter_fast.integrations.adapterhub import replacements as ours

D, M, LAYERS = 32, 8, 2
ROUNDS = 20  # of a block of timing
SIZES = {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(vocab_size=60, **SIZES, **NO_DROPOUT),
    "roberta": lambda: transformers.RobertaConfig(vocab_size=60, **SIZES, **NO_DROPOUT),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=60, dim=D, n_layers=LAYERS, n_heads=2, hidden_dim=48, dropout=0.0, attention_dropout=0.0
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=60, n_embd=D, n_layer=LAYERS, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "llama": lambda: transformers.LlamaConfig(vocab_size=60, num_key_value_heads=2, **SIZES),
    "vit": lambda: transformers.ViTConfig(image_size=16, patch_size=8, **SIZES, **NO_DROPOUT),
    "t5": lambda: transformers.T5Config(
        vocab_size=60, d_model=D, d_kv=16, d_ff=48, num_layers=LAYERS, num_heads=2, dropout_rate=0.0
    ),
}


def build(family: str = "bert", **kinds: Any) -> nn.Module:
    """A tiny model of the family with an adapter of each kind by its name, all far from the identity."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS[family]()).eval()
    adapters.init(model)
    for name, (kind, overrides) in kinds.items():
        model.add_adapter(name, config=adapters.AdapterConfig.load(kind, **{"reduction_factor": D / M, **overrides}))
    enlarge(model)
    return model


def enlarge(model: nn.Module) -> None:
    """Weights of fan-in scale in every adapter and fusion layer."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, (Adapter, BertFusion, PHMLayer)):
            for parameter in module.parameters():
                scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.3
                nn.init.normal_(parameter, mean=float(parameter.dim() == 1) * 0.2, std=scale)


def inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    if model.config.model_type == "vit":
        return {"pixel_values": torch.randn(4, 3, 16, 16, dtype=model.dtype)}
    ids = torch.randint(4, 60, (4, 6))
    return {"input_ids": ids, "decoder_input_ids": ids} if model.config.model_type == "t5" else {"input_ids": ids}


def compute(model: nn.Module, **options: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Last hidden states, and the gradient of a fixed projection of them for every parameter."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    y = model(**inputs(model), **options)[0]
    torch.manual_seed(4)
    (y * torch.randn(y.shape)).sum().backward()
    return y.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def difference(a: torch.Tensor, b: torch.Tensor, floor: float = 1e-30) -> float:
    """Largest difference over the largest value of b, or the floor."""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(floor)).item()


class Counted:
    """Counts the calls of a function that an object holds, inside the context."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name, self.calls = owner, name, 0

    def __enter__(self) -> Counted:
        self.function = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self._call if isinstance(self.owner, type(ours)) else self._method())
        return self

    def __exit__(self, *_: Any) -> None:
        setattr(self.owner, self.name, self.function)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)

    def _method(self) -> Any:
        return lambda *args, **kwargs: self._call(*args, **kwargs)


def compare(model: nn.Module, around: Any = nullcontext, **options: Any) -> dict[str, Any]:
    """The largest relative differences that the patch makes, and what ran: fused ops, compositions."""
    with around():
        y, grads = compute(model, **options)
    adapterhub.patch()
    try:
        with Counted(ours, "fused_adapter") as fused, Counted(BottleneckLayer, "compose") as composed, around():
            y_ours, grads_ours = compute(model, **options)
    finally:
        adapterhub.unpatch()
    assert grads.keys() == grads_ours.keys()
    own = [name for name in grads if "adapter" in name and grads[name].abs().max() > 0] or list(grads)
    largest = max(grads[name].abs().max().item() for name in own)  # some are zero but for rounding, as of Fuse's keys
    return {
        "y": difference(y_ours, y),
        "grad": max(difference(grads_ours[name], grads[name], 0.01 * largest) for name in own),
        "dtype": y_ours.dtype == y.dtype,
        "fused": fused.calls,
        "composed": composed.calls,
        "own": len(own),
    }


def single(kind: str = "double_seq_bn", family: str = "bert", train: bool = False, **overrides: Any) -> dict[str, Any]:
    model = build(family, a=(kind, overrides)).train(train)
    model.set_active_adapters("a")
    return compare(model)


def composed(
    block: Callable[[], Any], b: str = "double_seq_bn", fuse: tuple[Any, ...] = (), **options: Any
) -> dict[str, Any]:
    """Two Houlsby adapters and one of another kind in a composition."""
    model = build(a=("double_seq_bn", {}), b=(b, {}), c=("double_seq_bn", {}))
    for names in fuse:
        model.add_adapter_fusion(names)
    enlarge(model)
    model.set_active_adapters(block())
    return compare(model, **options)


def skipped() -> dict[str, Any]:
    model = build(a=("double_seq_bn", {}))
    model.set_active_adapters("a", skip_layers=[0])
    return compare(model)


def in_setup() -> dict[str, Any]:
    """The adapter of an AdapterSetup, not the active one."""
    model = build(a=("double_seq_bn", {}), b=("seq_bn", {}))
    model.set_active_adapters("a")
    return compare(model, partial(AdapterSetup, Stack("b")))


def inactive() -> dict[str, Any]:
    return compare(build(a=("double_seq_bn", {})))


def gating_scores() -> dict[str, Any]:
    """They come out as they do without the patch; an adapter without gating has a third output for them, sic."""
    model = build(a=("double_seq_bn", {"use_gating": True}), b=("double_seq_bn", {}))
    found = {}
    for name, block in (("single", Stack("a")), ("stack", Stack("a", "b"))):
        model.set_active_adapters(block)
        scores = []
        for patched in (False, True):
            if patched:
                adapterhub.patch()
            with torch.no_grad():
                scores.append(str(model(**inputs(model), output_adapter_gating_scores=True).adapter_gating_scores))
            adapterhub.unpatch()
        found[name] = {"same": scores[0] == scores[1], "any": "array" in scores[0]}
    return found


class Twice(Adapter):
    """One who reads the branch that Adapter.forward returns."""

    def forward(self, x: torch.Tensor, residual_input: torch.Tensor, output_gating: bool = False) -> Any:
        output, down, up = super().forward(x, residual_input, output_gating)
        return output + up, down, up


def subclass() -> dict[str, Any]:
    """A subclass's forward gets from ours what it got from theirs."""
    model = build(a=("double_seq_bn", {}))
    model.set_active_adapters("a")
    for module in model.modules():
        if type(module) is Adapter:
            module.__class__ = Twice
    return compare(model)


def hooked() -> dict[str, Any]:
    """A hook on a linear layer of an adapter is still called, and that adapter is theirs."""
    model = build(a=("double_seq_bn", {}))
    model.set_active_adapters("a")
    model.encoder.layer[0].output.adapters["a"].adapter_up.register_forward_hook(lambda module, args, y: 2 * y)
    return compare(model)


def bfloat16(autocast: bool, kind: str, **overrides: Any) -> dict[str, Any]:
    """Error against float64 with and without the patch, in a 16-bit model or under autocast."""
    model = build(a=(kind, overrides))
    model.set_active_adapters("a")
    exact = compute(model.double())[0]
    model.float() if autocast else model.bfloat16()
    around = partial(torch.autocast, "cpu", torch.bfloat16) if autocast else nullcontext
    with around():
        theirs = compute(model)[0]
    adapterhub.patch()
    with Counted(ours, "fused_adapter") as fused, around():
        y = compute(model)[0]
    adapterhub.unpatch()
    return {
        "theirs": difference(theirs, exact),
        "ours": difference(y, exact),
        "dtype": y.dtype == theirs.dtype,
        "fused": fused.calls,
    }


def checkpointed() -> dict[str, Any]:
    """Gradient checkpointing computes each layer anew in the backward pass, Fuse's children included."""
    model = build(a=("double_seq_bn", {}), b=("double_seq_bn", {}))
    model.add_adapter_fusion(["a", "b"])
    enlarge(model)
    model.set_active_adapters(Fuse("a", "b"))
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    fuse = compare(model)
    model.set_active_adapters("a")
    return {"fuse": fuse, "single": compare(model)}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "double_seq_bn": single,
    "seq_bn": lambda: single("seq_bn"),
    "par_bn": lambda: single("par_bn"),
    "compacter": lambda: single("compacter", phm_dim=2),
    "training": lambda: single(train=True),
    "dropout in eval": lambda: single(dropout=0.3),
    "dropout in training": lambda: single(train=True, dropout=0.3),
    "ln_before": lambda: single(ln_before=True),
    "ln_after": lambda: single(ln_after=True),
    "gating": lambda: single(use_gating=True),
    "scaling": lambda: single(scaling=4.0),
    "learned scaling": lambda: single(scaling="learned"),
    "channel scaling": lambda: single(scaling="channel"),
    "post_add": lambda: single("seq_bn", residual_before_ln="post_add"),
    "residual after ln": lambda: single("seq_bn", residual_before_ln=False),
    "original_ln_after": lambda: single("seq_bn", original_ln_after=False),
    "leave_out": lambda: single(leave_out=[0]),
    **{name: partial(single, non_linearity=name) for name in (*ours.ACTIVATIONS, "leakyrelu", "mish")},
    **{family: partial(single, family=family) for family in CONFIGS if family != "bert"},
    **{f"{family} seq_bn": partial(single, "seq_bn", family) for family in ("distilbert", "gpt2", "vit")},
    "skip_layers": skipped,
    "setup": in_setup,
    "inactive": inactive,
    "stack": lambda: composed(lambda: Stack("a", "b")),
    "stack of seq_bn": lambda: composed(lambda: Stack("a", "b"), "seq_bn"),
    "parallel": lambda: composed(lambda: Parallel("a", "b")),
    "parallel with compacter": lambda: composed(lambda: Parallel("a", "b"), "compacter"),
    "parallel after compacter": lambda: composed(lambda: Parallel("b", "a"), "compacter"),
    "batch split": lambda: composed(lambda: BatchSplit("b", "a", batch_sizes=[1, 3]), "compacter"),
    "split": lambda: composed(lambda: Split("a", "b", splits=3)),
    "average": lambda: composed(lambda: Average("b", "a"), "compacter"),
    "fuse": lambda: composed(lambda: Fuse("a", "b"), fuse=(["a", "b"],)),
    "fuse of a stack": lambda: composed(lambda: Fuse(Stack("c", "a"), "b"), fuse=(Fuse("a", "b"),)),
    "stack on a fuse": lambda: composed(lambda: Stack("c", Fuse("a", "b")), fuse=(["a", "b"],)),
    "gating scores": gating_scores,
    "hooked": hooked,
    "subclass": subclass,
    "bfloat16": lambda: bfloat16(False, "double_seq_bn"),
    "autocast": lambda: bfloat16(True, "double_seq_bn"),
    "autocast seq_bn": lambda: bfloat16(True, "seq_bn"),
    "autocast float32 residual": lambda: bfloat16(True, "seq_bn", residual_before_ln=False),
    "checkpointed": checkpointed,
}


def cases() -> dict[str, Any]:
    """What every case found."""
    return {name: run() for name, run in CASES.items()}


def compiled() -> dict[str, Any]:
    """A whole graph of a patched model, single adapter and stack, forward and backward."""
    found = {}
    for name, block in (("single", "a"), ("stack", Stack("a", "b"))):
        model = build(a=("double_seq_bn", {}), b=("seq_bn", {}))
        model.set_active_adapters(block)
        y, grads = compute(model)
        adapterhub.patch()
        model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
        y_ours, grads_ours = compute(model)
        adapterhub.unpatch()
        torch._dynamo.reset()
        own = [key for key in grads if ".adapters." in key]
        found[name] = {
            "y": difference(y_ours, y),
            "grad": max(difference(grads_ours[key], grads[key]) for key in own),
        }
    return found


def guards() -> dict[str, Any]:
    """What patch() and unpatch() leave and refuse."""
    places = list(ours.REPLACEMENTS)
    before = [owner.__dict__[name] for owner, name in places]
    adapterhub.unpatch()
    adapterhub.patch()
    adapterhub.patch()
    patched = [owner.__dict__[name] is function for (owner, name), function in ours.REPLACEMENTS.items()]
    adapterhub.unpatch()
    found: dict[str, Any] = {
        "patched": patched,
        "restored": [owner.__dict__[name] is function for (owner, name), function in zip(places, before)],
    }
    adapterhub.patch()
    Adapter.forward = foreign = lambda self, x, residual_input, output_gating=False: (x, None, None)
    found["unpatch refused"] = message(adapterhub.unpatch)
    found["left alone"] = Adapter.forward is foreign and BottleneckLayer.compose_single is ours.compose_single
    Adapter.forward = ours.adapter_forward
    adapterhub.unpatch()
    Adapter.forward = foreign
    found["patch refused"] = message(adapterhub.patch)
    found["nothing patched"] = BottleneckLayer.compose_single is before[2] and Adapter.forward is foreign
    Adapter.forward = before[0]
    return found


def message(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def timing(blocks: int) -> dict[str, Any]:
    """Host time of a call, in µs of this thread: medians over rounds in which all take turns, d small so that it shows.

    "path" is what stands around the adapter's own computation: the layer without Adapter.forward, the composition path
    as theirs takes it; our hooked module without the op and without the module's own computation. "strict" is
    theirs without the model's own LayerNorm too, which is in that path.
    """
    from adapter_fast.placement.container import attach

    model = build(a=("double_seq_bn", {}))
    model.set_active_adapters("a")
    layer, norm = model.encoder.layer[0].output, model.encoder.layer[0].output.LayerNorm
    theirs, x = layer.adapters["a"], torch.randn(1, 4, D)
    hooked, bare = nn.Dropout().eval(), nn.Dropout().eval()
    site = attach(hooked)
    site.add("a", FusedAdapter(D, M, activation="silu"))
    site.switch("a")
    own = site.adapters["a"]
    weights = (own.down.weight, own.down.bias, own.up.weight, own.up.bias)
    calls: dict[str, Callable[[], Any]] = {
        "layer": lambda: layer.bottleneck_layer_forward(x, x, norm),
        "adapter": lambda: theirs(x, residual_input=x),
        "norm": lambda: norm(x + x),
        "site": lambda: hooked(x),
        "bare": lambda: bare(x),
        "op": lambda: fused_adapter(x, *weights, activation="silu"),
    }
    paths = {
        "theirs": ("layer", "adapter"),
        "strict": ("layer", "adapter", "norm"),
        "patched": ("patched layer", "patched adapter"),
        "ours": ("site", "op", "bare"),
    }
    rounds: dict[str, list[float]] = {part: [] for parts in paths.values() for part in parts}
    with torch.inference_mode():
        for _ in range(blocks):
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    rounds[name].append(per_call(call))
            adapterhub.patch()
            for _ in range(ROUNDS):
                for name in ("layer", "adapter"):
                    rounds[f"patched {name}"].append(per_call(calls[name]))
            adapterhub.unpatch()
    return {
        "us": {name: statistics.median(values) for name, values in rounds.items()},
        "path": {
            name: statistics.median(whole - sum(rest) for whole, *rest in zip(*(rounds[part] for part in parts)))
            for name, parts in paths.items()
        },
    }


def per_call(call: Callable[[], Any], calls: int = 20) -> float:
    call()
    start = time.thread_time_ns()
    for _ in range(calls):
        call()
    return (time.thread_time_ns() - start) / calls / 1e3
