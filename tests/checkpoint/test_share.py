"""push and pull, against a hub that is a folder."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tiny_models import build, enlarge, logits

from adapter_fast import AdapterConfig, add_adapters, load_adapters, save_adapters
from adapter_fast.cli import BAD_INPUT, main


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """huggingface_hub's three functions, on files."""
    root = tmp_path / "hub"

    def create_repo(repository, private, exist_ok):
        (root / repository).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(repo_id, folder_path, allow_patterns):
        for file in allow_patterns:
            shutil.copy(Path(folder_path) / file, root / repo_id)

    def snapshot_download(repository, revision, allow_patterns):
        if not (root / repository).is_dir():
            raise OSError(f"404: {repository} at {revision}\nand more")
        return str(root / repository)

    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for function in (create_repo, upload_folder, snapshot_download):
        monkeypatch.setattr(huggingface_hub, function.__name__, function)
    return root


def test_there_and_back(tmp_path, hub, capsys):
    model = enlarge(add_adapters(build(), AdapterConfig(8)))
    save_adapters(model, tmp_path / "saved")
    assert main(["push", str(tmp_path / "saved"), "me/adapter"]) == 0
    (hub / "me/adapter/README.md").write_text("not ours")
    (hub / "me/adapter/run.py").write_text("raise SystemExit")
    assert main(["pull", "me/adapter", str(tmp_path / "pulled")]) == 0
    assert "adapter_config.json, adapter.safetensors" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "pulled").iterdir()} == {"adapter_config.json", "adapter.safetensors"}
    assert torch.equal(logits(load_adapters(build(), tmp_path / "pulled")), logits(model))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["push", "nowhere", "me/adapter"], "no saved adapter in nowhere: expected adapter_config.json"),
        (["pull", "me/none", "pulled"], "me/none: 404: me/none at None"),
        (["pull", "me/empty", "pulled"], "no saved adapter in me/empty"),
        (["pull", "me/adapter", "."], "must be new, empty or a saved adapter, it holds hub"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, message, tmp_path, hub, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (hub / "me/empty").mkdir(parents=True)
    (hub / "me/adapter").mkdir()
    for file in ("adapter_config.json", "adapter.safetensors"):
        (hub / "me/adapter" / file).write_text("{}")
    assert main(command) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "pulled").exists()
