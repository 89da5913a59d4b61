"""Damaged files of adapters: each is refused in one line, or is bit for bit the adapter that was saved."""

from __future__ import annotations

import random
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from tiny_models import assert_same, build, enlarge, snapshot

from adapter_fast.checkpoint import export_adapterhub, load_adapters, save_adapters
from adapter_fast.checkpoint.record.collect import collect
from adapter_fast.config import AdapterConfig
from adapter_fast.placement import add_adapters, remove_adapters
from adapter_fast.recipe import train_adapters

# Of AdapterHub's files only these have checksums: its JSON and its safetensors files have none.
FILES = {
    "own": ("adapter.safetensors", "adapter_config.json"),
    "hub": ("pytorch_adapter.bin", "pytorch_model_head.bin"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model = enlarge(add_adapters(build(), AdapterConfig(5, scale=0.7)), "default", 7)
    train_adapters(model, layer_norms=False)
    save_adapters(model, folder / "own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a pooler, where it trained
        export_adapterhub(model, folder / "hub")
    return folder


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One fault: a bit, a byte, a run of zeros, a piece lost, doubled or moved, the end cut off."""
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice((1, 1, 4, 64)))
    piece, before, after = content[start:end], content[:start], content[end:]
    other = {
        "bit": bytes([piece[0] ^ 1 << chance.randrange(8)]) + piece[1:],
        "byte": bytes([chance.randrange(256)]) + piece[1:],
        "zeros": bytes(len(piece)),
        "lost": b"",
        "doubled": piece + piece,
        "moved": piece[::-1],
        "cut": None,
    }[chance.choice(("bit", "bit", "byte", "zeros", "lost", "doubled", "moved", "cut"))]
    return before if other is None else before + other + after


@pytest.mark.parametrize("count", [pytest.param(250, id="some"), pytest.param(5000, id="many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FILES)
def test_no_fault_gives_another_adapter(kind: str, count: int, saved: Path, tmp_path: Path) -> None:
    model, chance, loaded = build(), random.Random(count), 0
    base = snapshot(model)
    expected = collect(load_adapters(model, saved / kind), "default")
    remove_adapters(model)
    directory = Path(shutil.copytree(saved / kind, tmp_path / kind))
    for number in range(count):
        path = directory / FILES[kind][number % 2]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, chance))
        try:
            load_adapters(model, directory)
        except (ValueError, FileNotFoundError) as error:
            assert "\n" not in str(error) and str(directory) in str(error), number
        else:
            found = collect(model, "default")
            assert found.record == expected.record, number
            assert found.tensors.keys() == expected.tensors.keys()
            assert all(torch.equal(found.tensors[key], value) for key, value in expected.tensors.items()), number
            remove_adapters(model)
            loaded += 1
        path.write_bytes(whole)
    assert_same(model, base)
    assert loaded < count / 2
