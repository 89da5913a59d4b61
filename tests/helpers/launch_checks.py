"""What test_distributed.py launches with torchrun on two processes: named checks, each with one process beside it.

    torchrun --standalone --nproc-per-node 2 launch_checks.py FOLDER quick|slow

Every process runs every check, until one fails; FOLDER/RANK.json gets what that one said, or the names of all.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"

import torch
import torch.distributed as dist
from tiny_models import build, enlarge, inputs
from tiny_trainer import train
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from adapter_fast import (
    AdapterConfig,
    add_adapters,
    disable_adapters,
    load_adapters,
    remove_adapters,
    save_adapters,
    set_adapter,
    train_adapters,
)
from adapter_fast.config import PLACEMENTS
from adapter_fast.placement.container import sites_in
from adapter_fast.recipe import create_optimizer

CHECKS: dict[str, dict[str, Callable[[Path], None]]] = {"quick": {}, "slow": {}}
ROWS = 4


def check(speed: str, *cases: object) -> Callable:
    """Register a function under its name, once for each case, which it then takes as its second argument."""

    def register(function: Callable) -> Callable:
        for case in cases or (None,):
            name = function.__name__ if case is None else f"{function.__name__}[{case}]"
            CHECKS[speed][name] = function if case is None else lambda folder, case=case: function(folder, case)
        return function

    return register


def first() -> bool:
    return dist.get_rank() == 0


def config_of(placement: str = "houlsby", bottleneck: int = 6, **fields) -> AdapterConfig:
    return AdapterConfig(bottleneck, placement=placement, scale=0.7, **fields)


def tuned(family: str = "bert", placement: str = "houlsby", **fields) -> nn.Module:
    """The same on every process, ready to train, in eval mode: without dropout."""
    model = enlarge(add_adapters(build(family), config_of(placement, **fields)))
    return train_adapters(model, head=family == "bert").eval()


def batch(family: str = "bert") -> dict[str, Tensor]:
    given = inputs(ROWS, 9)
    if family == "llama":
        given.pop("attention_mask")  # so that both halves have as many labels
    return {**given, "labels": torch.arange(ROWS) % 3 if family == "bert" else given["input_ids"]}


def mine(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process's half of the rows."""
    half = ROWS // dist.get_world_size()
    return {name: value[dist.get_rank() * half :][:half] for name, value in given.items()}


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gradients(model: nn.Module, *batches: dict[str, Tensor]) -> dict[str, Tensor]:
    for given in batches:
        (model(**given).loss / len(batches)).backward()
    base = getattr(model, "module", model)
    found = {name: whole(value.grad).clone() for name, value in base.named_parameters() if value.grad is not None}
    model.zero_grad()
    assert any(".adapters." in name and bool(value.any()) for name, value in found.items())
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-4, atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys(), set(found) ^ set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(value.detach()) for name, value in model.named_parameters()}


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**inputs()).logits


def shard(model: nn.Module, *more: type[nn.Module]) -> nn.Module:
    """fully_shard on each layer and the root, and ahead of them on modules of these types."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for module in list(model.modules()):
        if isinstance(module, more):
            fully_shard(module, mesh=mesh)
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2].isdigit():
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def split(model: nn.Module, down: RowwiseParallel | None = None) -> nn.Module:
    """A Llama whose projections are spread over the processes, as its tp_plan has them."""
    plan = {}
    for layer in range(2):
        columns = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
        plan |= {f"model.layers.{layer}.{name}": ColwiseParallel() for name in columns}
        plan[f"model.layers.{layer}.self_attn.o_proj"] = RowwiseParallel()
        plan[f"model.layers.{layer}.mlp.down_proj"] = down or RowwiseParallel()
    return parallelize_module(model, init_device_mesh("cpu", (dist.get_world_size(),)), plan)


def assert_same_files(folder: Path, name: str, model: nn.Module, single: nn.Module, adapter: str = "default") -> None:
    """save_adapters of a sharded model, called by all, writes what one process writes."""
    save_adapters(model, folder / name, adapter)
    if first():
        save_adapters(single, folder / f"{name}-single", adapter)
        for file in ("adapter.safetensors", "adapter_config.json"):
            assert (folder / name / file).read_bytes() == (folder / f"{name}-single" / file).read_bytes(), file


@contextmanager
def refused(kind: type[Exception], words: str) -> Iterator[None]:
    try:
        yield
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"nothing was refused with {words!r}")


@check("quick", *PLACEMENTS)
def data_parallel(folder: Path, placement: str) -> None:
    """Two steps: the second would say that a parameter got no gradient, find_unused_parameters being off."""
    for fields in ({}, {"layers": (1,)}):
        expected = gradients(tuned(placement=placement, **fields), batch())
        for options in ({}, {"static_graph": True}):
            parallel = DistributedDataParallel(tuned(placement=placement, **fields), **options)
            for _ in range(2):
                assert_same(gradients(parallel, mine(batch())), expected)


@check("quick")
def data_parallel_micro_batches(folder: Path) -> None:
    expected = gradients(tuned(), batch())
    parallel = DistributedDataParallel(tuned())
    rows = [{name: value[row : row + 1] for name, value in mine(batch()).items()} for row in (0, 1)]
    with parallel.no_sync():
        (parallel(**rows[0]).loss / 2).backward()
    (parallel(**rows[1]).loss / 2).backward()
    grads = {name: value.grad for name, value in parallel.module.named_parameters() if value.grad is not None}
    assert_same(grads, expected)


@check("quick")
def trainer(folder: Path) -> None:
    """transformers' Trainer under torchrun; the single process that it is compared with is the test's own."""
    model, world = train(folder / "out", rows=2)
    assert world == dist.get_world_size()
    torch.save(values(model), folder / f"trained-{dist.get_rank()}.pt")


@check("quick", *PLACEMENTS)
def fully_sharded(folder: Path, placement: str) -> None:
    single, model = tuned(placement=placement), shard(tuned(placement=placement))
    assert all(hasattr(value, "full_tensor") for value in model.parameters())
    assert_same_files(folder, f"sharded-{placement}", model, single)
    assert_same(gradients(model, mine(batch())), gradients(single, batch()))
    for each, given in ((model, mine(batch())), (single, batch())):
        optimizer = create_optimizer(each, learning_rate=1e-2)
        for _ in range(2):
            each(**given).loss.backward()
            nn.utils.clip_grad_norm_([value for value in each.parameters() if value.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert_same(values(model), values(single), atol=1e-5)
    torch.testing.assert_close(logits(model), logits(single), rtol=1e-4, atol=1e-4)


@check("quick")
def fully_sharded_switching(folder: Path) -> None:
    """Two adapters with a LayerNorm and head each: switched, disabled, saved while not active, removed."""

    def two() -> nn.Module:
        model = tuned()
        enlarge(add_adapters(model, config_of(bottleneck=5), "other"), "other", seed=8)
        train_adapters(model, "other")
        with torch.no_grad():
            for name in ("classifier.bias", "bert.encoder.layer.0.output.LayerNorm.weight"):
                model.get_parameter(name).add_(1.0)
        return set_adapter(model, "default")

    single, model = two(), shard(two())
    said = []
    for name in ("other", "default"):
        for each in (model, single):
            set_adapter(each, name)
        said.append(logits(model))
        assert torch.equal(said[-1], logits(single)), name
    assert not torch.allclose(*said)
    assert_same_files(folder, "other", model, single, "other")
    with disable_adapters(model), disable_adapters(single):
        assert torch.equal(logits(model), logits(single))
    for each in (model, single):
        remove_adapters(each, "default")
        set_adapter(each, "other")
    assert torch.equal(logits(model), said[0])
    remove_adapters(model)
    assert torch.equal(logits(model), logits(build()))


@check("quick")
def fully_sharded_refusals(folder: Path) -> None:
    model = shard(build())
    with refused(ValueError, "before fully_shard"):
        add_adapters(model, config_of())
    if first():
        save_adapters(tuned(), folder / "loadable")
    dist.barrier()
    with refused(ValueError, "before fully_shard"):
        load_adapters(model, folder / "loadable")
    loaded = shard(load_adapters(build(), folder / "loadable"))
    assert torch.equal(logits(loaded), logits(tuned()))
    if first():
        (folder / "foreign").mkdir()
        (folder / "foreign" / "notes.txt").write_text("not ours")
    dist.barrier()
    with refused(ValueError if first() else RuntimeError, "notes.txt"):
        save_adapters(loaded, folder / "foreign")
    with refused(TypeError, "w_down must be a local tensor, got a DTensor"):
        next(iter(sites_in(shard(tuned())).values())).adapters["default"](torch.randn(2, 32))


@check("quick", *PLACEMENTS)
def tensor_parallel(folder: Path, placement: str) -> None:
    single = tuned("llama", placement)
    model = enlarge(add_adapters(split(build("llama")), config_of(placement)))
    train_adapters(model, head=False)
    assert_same(gradients(model, batch("llama")), gradients(single, batch("llama")))
    assert_same_files(folder, f"split-{placement}", model, single)
    loaded = load_adapters(split(build("llama")), folder / f"split-{placement}")
    torch.testing.assert_close(logits(loaded), logits(single))
    remove_adapters(model)
    torch.testing.assert_close(logits(model), logits(build("llama")))


@check("quick")
def tensor_parallel_processes_agree(folder: Path) -> None:
    """Each process draws initial weights of its own; one adapter must come of it."""
    model = split(build("llama"))
    torch.manual_seed(dist.get_rank())
    add_adapters(model, config_of())
    for name, value in model.named_parameters():
        if ".adapters." in name:
            both = [torch.empty_like(value) for _ in range(2)]
            dist.all_gather(both, value.detach())
            assert torch.equal(*both), name


@check("quick")
def a_sequence_parallel_output_is_refused(folder: Path) -> None:
    model = split(build("llama"), down=RowwiseParallel(output_layouts=Shard(1), use_local_output=False))
    add_adapters(model, config_of(sublayers=("feed_forward",)))
    with refused(TypeError, "x must be a local tensor, got a DTensor"):
        model(input_ids=inputs(2, 8)["input_ids"])


@check("slow", *PLACEMENTS)
def tp_plan(folder: Path, placement: str) -> None:
    """transformers' own tensor parallelism, as from_pretrained sets it up."""
    from transformers import LlamaForCausalLM

    if first():
        build("llama").save_pretrained(folder / "llama")
    dist.barrier()
    single = tuned("llama", placement)
    model = LlamaForCausalLM.from_pretrained(folder / "llama", tp_plan="auto", attn_implementation="eager").eval()
    assert any(hasattr(value, "full_tensor") for value in model.parameters())
    train_adapters(enlarge(add_adapters(model, config_of(placement))), head=False)
    assert_same(gradients(model, batch("llama")), gradients(single, batch("llama")))
    single.config._name_or_path = model.config._name_or_path  # files say of which base they are
    assert_same_files(folder, f"plan-{placement}", model, single)


@check("slow", *PLACEMENTS)
def fully_sharded_by_accelerate(folder: Path, placement: str) -> None:
    """accelerate has FSDP2 on accelerators alone: its own preparation, called as its Accelerator calls it there."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    for efficient in (False, True):
        accelerator = Accelerator(cpu=True)
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
            cpu_ram_efficient_loading=efficient,
        )
        single = tuned("llama", placement)
        model = fsdp2_prepare_model(accelerator, tuned("llama", placement))
        assert_same(gradients(model, mine(batch("llama"))), gradients(single, batch("llama")))
        assert_same_files(folder, f"accelerate-{placement}-{efficient}", accelerator.unwrap_model(model), single)
        accelerator.state._reset_state(reset_partial_state=False)


@check("slow", *PLACEMENTS)
def checkpointed(folder: Path, placement: str) -> None:
    for family in ("bert", "llama"):
        expected = gradients(tuned(family, placement), batch(family))
        for wrap in (DistributedDataParallel, shard):
            model = tuned(family, placement).train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
                if hasattr(module, "dropout_prob") or hasattr(module, "attention_dropout"):
                    module.dropout_prob = module.attention_dropout = 0.0
            model.gradient_checkpointing_enable()
            assert_same(gradients(wrap(model), mine(batch(family))), expected)


@check("slow", *PLACEMENTS)
def compiled(folder: Path, placement: str) -> None:
    expected = gradients(tuned(placement=placement), batch())
    for wrap in (DistributedDataParallel, shard):
        torch._dynamo.reset()
        model = wrap(tuned(placement=placement))
        torch.compile(model, backend="aot_eager")(**mine(batch())).loss.backward()
        base = getattr(model, "module", model)
        grads = {name: whole(value.grad) for name, value in base.named_parameters() if value.grad is not None}
        assert_same(grads, expected)


@check("slow")
def a_16_bit_base(folder: Path) -> None:
    """FSDP2 wants one dtype among what trains in a unit: all of it is float32, but without masters."""

    def half(**options: bool) -> nn.Module:
        model = enlarge(add_adapters(build().to(torch.bfloat16), config_of()))
        return train_adapters(model, **options).eval()

    with refused(AssertionError, "uniform original parameter dtype"):
        gradients(shard(half(master_weights=False)), mine(batch()))
    single, model = half(), shard(half())
    assert_same_files(folder, "half", model, single)
    found, expected = gradients(model, mine(batch())), gradients(single, batch())
    assert {value.dtype for value in found.values()} == {torch.float32}
    for name, value in found.items():
        assert (value.double() - expected[name].double()).norm() <= 0.02 * expected[name].double().norm(), name
    with refused(ValueError, "switch and remove before fully_shard"):
        remove_adapters(model)


def main(folder: Path, speed: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    outcome = folder / f"{dist.get_rank()}.json"
    for name, function in CHECKS[speed].items():
        try:
            function(folder)
        except Exception:  # the end: the processes are no longer at the same place
            outcome.write_text(json.dumps(f"{name}: {traceback.format_exc()}"))
            raise
        dist.barrier()
    outcome.write_text(json.dumps(list(CHECKS[speed])))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
