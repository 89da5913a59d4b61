"""Saving and loading: bitwise round trips, atomic writes, and an error that names it for every damaged file."""

import json
import os
import shutil
import stat
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
import yaml
from tiny_models import FAMILIES, assert_same, build, enlarge, logits, snapshot
from torch import nn
from torch.nn.utils import parametrizations, prune

from adapter_fast.checkpoint import load, load_adapters, save_adapters
from adapter_fast.checkpoint.record import CONFIG_FILE, WEIGHTS_FILE
from adapter_fast.checkpoint.record.base import digest_of
from adapter_fast.config import AdapterConfig
from adapter_fast.placement import add_adapters, disable_adapters, remove_adapters, set_adapter
from adapter_fast.placement.container import sites_in
from adapter_fast.placement.walk import is_ours
from adapter_fast.recipe import train_adapters, train_all

CONFIG = AdapterConfig(8, "gelu_tanh", scale=0.7)


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    """Placement does not depend on the backend, and the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def tuned(family="bert", config=CONFIG, name="default", seed=7, id2label=None, **switches):
    """A model whose adapter, LayerNorms and head all differ from the base's, as after training."""
    base = build(family, **({} if id2label is None else {"id2label": id2label}))
    model = train_adapters(enlarge(add_adapters(base, config, name), name, seed), name, **switches)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and ".adapters." not in key:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def saved(tmp_path):
    save_adapters(tuned(), tmp_path / "adapter")
    return tmp_path / "adapter"


# Round trips


@pytest.mark.parametrize("implementation", ["fused", "reference"])
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_into_a_fresh_model_is_bitwise(family, implementation, tmp_path):
    model = tuned(family, AdapterConfig(8, "silu", bias=False, implementation=implementation))
    before, output = snapshot(model), logits(model)
    assert save_adapters(model, tmp_path / "adapter") is model
    assert_same(model, before)
    fresh = build(family)
    assert not torch.equal(logits(fresh), output)
    assert load_adapters(fresh, tmp_path / "adapter") is fresh
    assert torch.equal(logits(fresh), output)
    assert list(fresh.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in fresh.state_dict().items())
    save_adapters(fresh, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "adapter")
    assert_same(remove_adapters(fresh), snapshot(build(family)))


def test_files_are_pinned(saved):
    record = json.loads((saved / CONFIG_FILE).read_text())
    assert sorted(os.listdir(saved)) == ["README.md", "adapter.safetensors", "adapter_config.json"]
    assert list(record) == [
        "format_version", "library_version", "name", "model_type", "hidden_size", "config", "dtype", "sites",
        "layer_norms", "head", "sha256", "base", "labels", "transformers_version", "record_sha256",
    ]  # fmt: skip
    assert list(record["base"]) == ["name", "revision", "digest"]
    assert record["transformers_version"] == transformers.__version__
    assert (record["format_version"], record["model_type"], record["hidden_size"]) == (1, "bert", 32)
    assert record["config"] == CONFIG.to_dict()
    assert record["sites"][0] == "encoder.layer.0.attention.output.dropout"
    tensors = safetensors.torch.load_file(saved / WEIGHTS_FILE)
    assert len(tensors) == 4 * 4 + 5 * 2 + 2
    assert tensors["adapter.encoder.layer.1.output.dropout.up.weight"].shape == (32, 8)
    assert {"layer_norm.embeddings.LayerNorm.weight", "head.classifier.bias"} < tensors.keys()


def test_only_what_was_trained_is_stored(tmp_path):
    for switches, parts in (
        ({"layer_norms": False}, {"adapter", "head"}),
        ({"head": False}, {"adapter", "layer_norm"}),
        ({"layer_norms": False, "head": False}, {"adapter"}),
    ):
        save_adapters(tuned(**switches), tmp_path / "adapter")
        tensors = safetensors.torch.load_file(tmp_path / "adapter" / WEIGHTS_FILE)
        assert {key.split(".")[0] for key in tensors} == parts


def test_loading_only_a_part(saved):
    source, base = tuned(), build()
    fresh = load_adapters(build(), saved, layer_norms=False, head=False)
    for key, value in fresh.state_dict().items():
        origin = source if is_ours(key) else base
        assert torch.equal(value, origin.state_dict()[key]), key
    without_head = load_adapters(build(), saved, head=False)
    assert torch.equal(without_head.classifier.weight, base.classifier.weight)
    assert torch.equal(without_head.bert.embeddings.LayerNorm.bias, source.bert.embeddings.LayerNorm.bias)


def test_loads_into_the_bare_encoder_and_other_heads(saved):
    source = tuned()
    encoder = build("bert", "Model")
    encoder.load_state_dict(build().bert.state_dict())
    load_adapters(encoder, saved, head=False)
    assert torch.equal(logits(encoder), logits(source.bert))
    before = snapshot(build("bert", "ForQuestionAnswering"))
    model = build("bert", "ForQuestionAnswering")
    with pytest.raises(ValueError, match=r"has head\.classifier\.weight, which the model has not: pass head=False"):
        load_adapters(model, saved)
    assert_same(model, before)
    load_adapters(model, saved, head=False)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtype_survives_the_round_trip(dtype, tmp_path):
    model = tuned(config=AdapterConfig(8, dtype=dtype))
    save_adapters(model, tmp_path / "adapter")
    fresh = load_adapters(build(), tmp_path / "adapter")
    for name, site in sites_in(fresh).items():
        for key, value in site.adapters["default"].state_dict().items():
            assert value.dtype == getattr(torch, dtype)
            assert torch.equal(value, sites_in(model)[name].adapters["default"].state_dict()[key])


def test_dtype_of_a_whole_16_bit_model_survives(tmp_path):
    model = tuned().bfloat16()
    save_adapters(model, tmp_path / "adapter")
    fresh = load_adapters(build().bfloat16(), tmp_path / "adapter")
    assert {p.dtype for p in fresh.parameters()} == {torch.bfloat16}
    assert torch.equal(logits(fresh), logits(model))


def test_several_tasks_in_one_model(tmp_path):
    outputs = {}
    for seed, name in enumerate("ab"):
        model = tuned(name=name, seed=seed)
        outputs[name] = logits(model)
        save_adapters(model, tmp_path / name, name)
    model = load_adapters(load_adapters(build(), tmp_path / "a"), tmp_path / "b")
    assert torch.equal(logits(model), outputs["b"])
    for name in "aba":
        assert torch.equal(logits(set_adapter(model, name)), outputs[name])
    save_adapters(model, tmp_path / "b again", "b")
    assert contents(tmp_path / "b again") == contents(tmp_path / "b")
    load_adapters(model, tmp_path / "b", "c")
    assert torch.equal(logits(model), outputs["b"])
    assert_same(remove_adapters(model), snapshot(build()))


# Writing


def test_an_adapter_saved_before_is_replaced(saved):
    save_adapters(tuned(seed=8), saved)
    assert torch.equal(logits(load_adapters(build(), saved)), logits(tuned(seed=8)))
    assert os.listdir(saved.parent) == ["adapter"]


def test_new_empty_nested_and_relative_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for directory in ("empty", "new/and/nested", Path("new/other/")):
        save_adapters(tuned(), directory)
        load_adapters(build(), tmp_path / directory)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((tmp_path / "empty" / WEIGHTS_FILE).stat().st_mode) == 0o666 & ~mask


def test_a_link_to_a_directory_stays_a_link(saved):
    link = saved.parent / "link"
    link.symlink_to(saved)
    save_adapters(tuned(seed=8), link)
    assert link.is_symlink()
    assert torch.equal(logits(load_adapters(build(), saved)), logits(tuned(seed=8)))


def test_a_directory_with_other_files_is_refused(saved):
    (saved / "notes.txt").write_text("mine")
    before = contents(saved.parent)
    with pytest.raises(ValueError, match=r"must be new, empty or a saved adapter, it holds notes.txt"):
        save_adapters(tuned(seed=8), saved)
    assert contents(saved.parent) == before
    file = saved / "notes.txt"
    with pytest.raises(ValueError, match="must be a directory or new, it is a file"):
        save_adapters(tuned(seed=8), file)
    assert contents(saved.parent) == before


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failing_rename_leaves_the_old_adapter(saved, monkeypatch, fails_at):
    before, real, calls = contents(saved.parent), os.rename, []

    def rename(*paths):
        calls.append(paths)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        real(*paths)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        save_adapters(tuned(seed=8), saved)
    assert len(calls) >= fails_at
    assert contents(saved.parent) == before
    assert os.listdir(saved.parent) == ["adapter"]


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_full_disk_leaves_the_old_adapter_or_none(saved, monkeypatch, fails_at):
    before, real, calls = contents(saved.parent), os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for directory in (saved, saved.parent / "second"):
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            save_adapters(tuned(seed=8), directory)
    assert contents(saved.parent) == before
    assert os.listdir(saved.parent) == ["adapter"]


def test_killed_between_the_two_renames_the_old_adapter_comes_back(saved):
    output, other = logits(load_adapters(build(), saved)), tuned(seed=8)
    pid = os.fork()
    if pid == 0:
        real, calls = os.rename, []

        def rename(*paths):
            calls.append(paths)
            if len(calls) == 2:
                os._exit(9)
            real(*paths)

        os.rename = rename
        save_adapters(other, saved)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not saved.exists()
    assert torch.equal(logits(load_adapters(build(), saved)), output)
    save_adapters(tuned(seed=8), saved)
    assert torch.equal(logits(load_adapters(build(), saved)), logits(tuned(seed=8)))


@pytest.mark.parametrize(
    ("make", "name", "error", "message"),
    [
        (build, "default", ValueError, "has no adapters"),
        (tuned, "sst2", ValueError, "no adapter named 'sst2': the model has 'default'"),
        (tuned, None, TypeError, "name must be a string, got None"),
        (
            lambda: add_adapters(build(), CONFIG).to("meta"),
            "default",
            ValueError,
            "on the meta device and has no values",
        ),
    ],
)
def test_what_cannot_be_saved_writes_nothing(make, name, error, message, saved):
    before = contents(saved.parent)
    with pytest.raises(error, match=message):
        save_adapters(make(), saved, name)
    assert contents(saved.parent) == before
    assert os.listdir(saved.parent) == ["adapter"]


def changed(change):
    """A tuned model after something was done to one projection."""
    model = tuned()
    adapter = next(iter(sites_in(model).values())).adapters["default"]
    other = change(adapter.up)
    if other is not adapter.up:
        adapter.up = other
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda up: prune.l1_unstructured(up, "weight", 0.5), "up.weight"),
        (lambda up: parametrizations.weight_norm(up), "up.parametrizations.weight.original0"),
        (lambda up: nn.Sequential(up), "up.0.bias"),
        (lambda up: torch.ao.quantization.quantize_dynamic(nn.Sequential(up), {nn.Linear})[0], "up._packed"),
    ],
    ids=["pruned", "parametrised", "wrapped", "quantised"],
)
def test_projections_that_are_more_than_plain_are_not_saved(change, odd, saved):
    """The file would have had tensors that no load knows."""
    before = contents(saved.parent)
    with pytest.raises(
        ValueError, match=f"'default' must have plain projections to be saved, at .* {odd}.* is odd: undo"
    ):
        save_adapters(changed(change), saved)
    assert contents(saved.parent) == before


def test_fields_that_came_later_may_be_absent(saved):
    """Files of before they came load, with the defaults; those of the first files are needed."""
    first = {"bottleneck", "activation", "placement", "scale", "bias", "init_std", "implementation", "dtype", "memory"}
    output = logits(load_adapters(build(), saved))
    written = json.loads((saved / CONFIG_FILE).read_text())["config"]
    edit_record(config={key: value for key, value in written.items() if key in first}, record_sha256=...)(saved)
    model = load_adapters(build(), saved)
    assert torch.equal(logits(model), output)
    adapter = next(iter(sites_in(model).values())).adapters["default"]
    assert (adapter.init, adapter.dropout) == ("houlsby", 0.0)
    for key in first:
        edit_record(config={other: value for other, value in written.items() if other != key})(saved)
        with pytest.raises(ValueError, match=f"adapter_config.json: config lacks {key}$"):
            load_adapters(build(), saved)


@pytest.mark.parametrize("field", [{"dropout": 0.25}, {"init": "zero_up"}, {"init": "bert"}])
def test_init_and_dropout_are_kept(field, tmp_path):
    save_adapters(tuned(config=AdapterConfig(8, **field)), tmp_path / "adapter")
    model = load_adapters(build(), tmp_path / "adapter")
    for site in sites_in(model).values():
        ((key, value),) = field.items()
        assert getattr(site.adapters["default"], key) == value


# Damaged and foreign files: one line, model and files as they were


def edit_record(**changes):
    def edit(directory):
        record = json.loads((directory / CONFIG_FILE).read_text())
        for key, value in changes.items():
            if value is ...:
                del record[key]
            else:
                record[key] = value
        (directory / CONFIG_FILE).write_text(json.dumps(record))

    return edit


def edit_config(**changes):
    def edit(directory):
        record = json.loads((directory / CONFIG_FILE).read_text())
        edit_record(config={**record["config"], **changes})(directory)

    return edit


def edit_tensors(change):
    def edit(directory):
        tensors = safetensors.torch.load_file(directory / WEIGHTS_FILE)
        change(tensors)
        safetensors.torch.save_file(tensors, directory / WEIGHTS_FILE)

    return edit


def edit_bytes(file, change):
    def edit(directory):
        (directory / file).write_bytes(change((directory / file).read_bytes()))

    return edit


UP = "adapter.encoder.layer.0.output.dropout.up.weight"
NORM = "layer_norm.encoder.layer.0.output.LayerNorm.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_bytes(WEIGHTS_FILE, lambda b: b[:-1]), "adapter.safetensors cannot be read as safetensors, truncated"),
        (edit_bytes(WEIGHTS_FILE, lambda b: b[:100]), "adapter.safetensors cannot be read as safetensors, truncated"),
        (edit_bytes(WEIGHTS_FILE, lambda b: b""), "adapter.safetensors cannot be read as safetensors, truncated"),
        (edit_bytes(WEIGHTS_FILE, lambda b: b[:-1] + bytes([b[-1] ^ 1])), "another sha256 than adapter_config.json"),
        (edit_tensors(lambda t: t.pop(UP)), f"lacks the tensor {UP} .1 missing"),
        (edit_tensors(lambda t: t.pop("head.classifier.bias")), "lacks the tensor head.classifier.bias"),
        (edit_tensors(lambda t: t.update(evil=torch.ones(1))), "tensor that adapter_config.json does not name, evil"),
        (
            edit_tensors(lambda t: t.update({UP: torch.ones(8, 32)})),
            rf"{UP} must have shape \[32, 8\], .* has \[8, 32\]",
        ),
        (edit_tensors(lambda t: t.update({UP: t[UP].half()})), f"{UP} must be float32, .* has float16"),
        (edit_tensors(lambda t: t.update({UP: t[UP] + 1})), "another sha256 than adapter_config.json"),
        (edit_record(sites=["encoder.layer.0.output.dropout"]), "is for 1 sites, the model has 4: encoder.layer.0.att"),
        (edit_record(format_version=2), "must have format_version 1, it has 2"),
        (edit_record(format_version=...), "must have format_version 1, it has None"),
        (edit_record(extra=1), "adapter_config.json has unknown keys extra: known are format_version"),
        (edit_record(sha256=...), "adapter_config.json lacks sha256"),
        (edit_record(head=..., sites=...), "adapter_config.json lacks sites, head"),
        (edit_record(head="classifier"), "head must be a list of strings, it is 'classifier'"),
        (edit_record(sites=[1]), r"sites must be a list of strings, it is \[1\]"),
        (edit_record(hidden_size="32"), "hidden_size must be of type int, it is '32'"),
        (edit_record(dtype="int8"), "dtype must be one of float32, .*, it is 'int8'"),
        (edit_record(dtype="bfloat16"), "must be bfloat16, .* has float32"),
        (edit_record(model_type="roberta"), "is for model_type 'roberta', the model has 'bert'"),
        (edit_record(hidden_size=64), "is for hidden_size 64, the model has 32"),
        (edit_record(name="a.b"), "without a dot, got 'a.b'"),
        (
            edit_record(layer_norms=["embeddings.word_embeddings.weight"]),
            "lacks the tensor layer_norm.embeddings.word",
        ),
        (edit_config(reduction_factor=16), "adapter_config.json: unknown adapter config keys reduction_factor: known"),
        (edit_config(bottleneck=0), "adapter_config.json: bottleneck must be at least 1, got 0"),
        (edit_config(bottleneck=9), r"down.weight must have shape \[9, 32\], .* has \[8, 32\]"),
        (edit_config(scale=float("nan")), "adapter_config.json: scale must be finite, got nan"),
        (edit_config(bias=False), "tensor that adapter_config.json does not name, adapter.*bias"),
        (edit_record(config={}), "config lacks bottleneck, activation"),
        (edit_bytes(CONFIG_FILE, lambda b: b[:50]), "adapter_config.json must be JSON, it does not parse"),
        (edit_bytes(CONFIG_FILE, lambda b: b"\xff\xfe"), "adapter_config.json must be JSON, it does not parse"),
        (edit_bytes(CONFIG_FILE, lambda b: b"[]"), "adapter_config.json must hold a JSON object, it holds list"),
        (edit_config(scale=0.8), "adapter_config.json was changed after it was saved: its record_sha256 is of other"),
        (edit_record(labels=["b", "a"]), "adapter_config.json was changed after it was saved"),
        (edit_bytes(CONFIG_FILE, lambda b: b[:1] + b'"dtype": "float16",' + b[1:]), "parse: it has 'dtype' twice"),
        (
            lambda directory: os.truncate(directory / CONFIG_FILE, 2**26 + 1),
            "adapter_config.json must be JSON of at most 67,108,864 bytes, it has 67,108,865$",
        ),
    ],
)
@pytest.mark.parametrize("others", [0, 1])
def test_damage_is_named_and_changes_nothing(edit, message, others, saved):
    model = tuned(name="other", seed=3) if others else build()
    before, output = snapshot(model), logits(model)
    edit(saved)
    files = contents(saved.parent)
    with pytest.raises(ValueError, match=message) as caught:
        load_adapters(model, saved)
    assert "\n" not in str(caught.value)
    assert_same(model, before)
    assert torch.equal(logits(model), output)
    assert contents(saved.parent) == files


def reseal(directory):
    import hashlib

    new = hashlib.sha256((directory / WEIGHTS_FILE).read_bytes()).hexdigest()
    edit_record(sha256=new, record_sha256=None)(directory)


def test_a_file_that_renames_a_base_weight_as_a_layer_norm_is_refused(saved):
    edit_tensors(lambda t: t.update({"layer_norm.embeddings.word_embeddings.weight": torch.ones(60, 32)}))(saved)
    record = json.loads((saved / CONFIG_FILE).read_text())
    edit_record(layer_norms=[*record["layer_norms"], "embeddings.word_embeddings.weight"])(saved)
    reseal(saved)
    model = build()
    with pytest.raises(
        ValueError, match=r"has layer_norm\.embeddings\.word_embeddings\.weight, which the model has not"
    ):
        load_adapters(model, saved)
    assert_same(model, snapshot(build()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NORM: torch.ones(31)}, rf"{NORM} must have shape \[32\], .* has \[31\]"),
        ({NORM: torch.ones(32).half()}, f"{NORM} must be float32, .* has float16"),
        ({"head.classifier.bias": torch.ones(4)}, r"head.classifier.bias must have shape \[3\], .* has \[4\]"),
    ],
)
def test_layer_norms_and_head_must_fit_the_model(change, message, saved):
    edit_tensors(lambda t: t.update(change))(saved)
    reseal(saved)
    model = build()
    with pytest.raises(ValueError, match=message):
        load_adapters(model, saved)
    assert_same(model, snapshot(build()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("roberta"), "is for model_type 'bert', the model has 'roberta'"),
        (lambda: build("bert", hidden_size=64), "is for hidden_size 32, the model has 64"),
        (
            lambda: build("bert", num_hidden_layers=3),
            "is for 4 sites, the model has 6: encoder.layer.2.attention",
        ),
        (lambda: build("bert", num_labels=5), r"head.classifier.weight must have shape \[5, 32\], .* has \[3, 32\]"),
        (lambda: build().double(), "layer_norm.*must be float64, .* has float32"),
        (tuned, "an adapter named 'default' exists already: the model has 'default'"),
    ],
)
def test_a_model_it_was_not_made_for(make, message, saved):
    model = make()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message) as caught:
        load_adapters(model, saved)
    assert "\n" not in str(caught.value)
    assert_same(model, before)


def test_loading_something_that_is_not_there(saved):
    model = build()
    for directory, file in ((saved.parent / "nothing", CONFIG_FILE), (saved, WEIGHTS_FILE)):
        (saved / WEIGHTS_FILE).unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError, match=f"no saved adapter in .*: it has no {file}"):
            load_adapters(model, directory)
    assert_same(model, snapshot(build()))


def test_loading_into_a_thing_without_sites(saved):
    with pytest.raises(ValueError, match="is for model_type 'bert', the model has None"):
        load_adapters(nn.Linear(2, 2), saved)


def test_a_failure_after_the_checks_takes_everything_back(saved, monkeypatch):
    model = tuned(name="other", seed=3)
    before = snapshot(model)

    def failing(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(load, "give", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        load_adapters(model, saved)
    assert_same(model, before)


def test_no_pickle(saved):
    """A pickle in the weights' place is refused, not run."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(saved.parent / "exploded"),))

    (saved / WEIGHTS_FILE).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_adapters(build(), saved)
    torch.save(Bomb(), saved / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_adapters(build(), saved)
    assert not (saved.parent / "exploded").exists()


def test_a_saved_directory_can_be_moved(saved):
    shutil.move(saved, saved.parent / "elsewhere")
    load_adapters(build(), saved.parent / "elsewhere")


# The base, the classes and the card


def test_files_of_an_older_version_load(saved):
    """They had no base, labels, transformers_version or record_sha256, and their config had fewer fields."""
    record = json.loads((saved / CONFIG_FILE).read_text())
    for key in ("base", "labels", "transformers_version", "record_sha256"):
        del record[key]
    (saved / CONFIG_FILE).write_text(json.dumps(record))
    assert torch.equal(logits(load_adapters(build(), saved)), logits(tuned()))


@pytest.mark.parametrize(("key", "value"), [("base", "bert"), ("labels", "yes"), ("labels", [1])])
def test_what_the_record_says_of_the_base_is_checked(key, value, saved):
    record = json.loads((saved / CONFIG_FILE).read_text())
    (saved / CONFIG_FILE).write_text(json.dumps({**record, key: value}))
    with pytest.raises(ValueError, match=f"{key} must be"):
        load_adapters(build(), saved)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_base_is_said(family, tmp_path):
    save_adapters(tuned(family), tmp_path / "adapter")
    for same in (build(family), build(family).bfloat16(), train_all(build(family))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_adapters(same, tmp_path / "adapter")
    other = build(family)
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(1.1)
    with pytest.warns(UserWarning, match="was trained over .*, whose weights differ from this model's"):
        load_adapters(other, tmp_path / "adapter")


def test_the_digest_does_not_change_with_what_was_tuned_or_is_active(saved):
    model = tuned()
    digest = digest_of(model)
    assert digest == digest_of(build())
    with disable_adapters(model):
        assert digest_of(model) == digest
    assert digest_of(remove_adapters(model)) == digest
    assert json.loads((saved / CONFIG_FILE).read_text())["base"]["digest"] == digest


def test_classes_by_other_names_are_said(tmp_path):
    names = {0: "no", 1: "yes", 2: "maybe"}
    save_adapters(tuned(id2label=names), tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())["labels"] == list(names.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapters(build(), tmp_path / "adapter")
        load_adapters(build(id2label=names), tmp_path / "adapter")
    with pytest.warns(UserWarning, match="has a head whose class 'yes' is named 'no' in this model"):
        load_adapters(build(id2label={0: "no", 1: "no", 2: "maybe"}), tmp_path / "adapter")


def test_the_card_says_how_to_load_and_stays_where_it_was_changed(tmp_path):
    model = tuned(id2label={0: "no", 1: "yes", 2: "maybe"})
    model.config._name_or_path = "google-bert/bert-base-uncased"
    save_adapters(model, tmp_path / "adapter")
    card = tmp_path / "adapter" / "README.md"
    metadata = yaml.safe_load(card.read_text().split("---")[1])
    assert metadata["base_model"] == "google-bert/bert-base-uncased"
    assert metadata["library_name"] == "adapter_fast"
    assert {"adapter_fast", "bottleneck-adapter", "bert"} <= set(metadata["tags"])
    assert "load_adapters(model, directory)" in card.read_text()
    assert "Classes: no, yes, maybe." in card.read_text()
    model.config.id2label[1] = "yes\n# \x1b[2J"
    model.config._name_or_path = "a\x1b[2J"
    save_adapters(model, tmp_path / "adapter")
    assert r"Classes: no, yes\n# \x1b[2J, maybe." in card.read_text()
    assert "\x1b" not in card.read_text()
    model.config._name_or_path = "/somewhere/of/mine"
    save_adapters(model, tmp_path / "adapter")
    assert "base_model" not in card.read_text()
    assert "/somewhere" not in card.read_text()
    card.write_text("# Mine")
    save_adapters(model, tmp_path / "adapter")
    assert card.read_text() == "# Mine"
