"""Two gloo processes on the CPU: data-parallel gradients of adapters equal those of one process."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_models import build, enlarge

from adapter_fast import AdapterConfig, add_adapters, train_adapters

ROWS, LENGTH = 4, 9


def tuned_model():
    model = add_adapters(build("bert"), AdapterConfig(bottleneck=6, init_std=0.1))
    return train_adapters(enlarge(model)).eval()


def batch():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, (ROWS, LENGTH), generator=generator)
    return ids, torch.randint(3, (ROWS,), generator=generator)


def gradients(model, ids, labels):
    model(input_ids=ids, labels=labels).loss.backward()
    inner = getattr(model, "module", model)
    return {name: p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None}


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TRITON_INTERPRET="0")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    ids, labels = batch()
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    parallel = torch.nn.parallel.DistributedDataParallel(tuned_model())
    torch.save(gradients(parallel, ids[mine], labels[mine]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_data_parallel_gradients_equal_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    expected = gradients(tuned_model(), *batch())
    assert any("adapter" in name for name in expected)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, grad in found.items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)
