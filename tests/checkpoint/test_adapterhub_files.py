"""AdapterHub's files, both ways: the real library's are read, it reads ours, and damage is named and changes nothing.

What needs the library runs in a process with its transformers 4.57 (hub_files.py); where it is not, that skips.
"""

import json
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import hub_worker
import pytest
import safetensors.torch
import torch
import transformers
from click.testing import CliRunner
from tiny_models import assert_same, build, enlarge, logits, snapshot

from adapter_fast.checkpoint import convert_adapter, export_adapterhub, load_adapters, save_adapters
from adapter_fast.checkpoint.adapterhub.config import bottleneck, reduction_factor
from adapter_fast.checkpoint.adapterhub.names import ACTIVATIONS, DEFAULTS, HUB_FAMILIES
from adapter_fast.checkpoint.commands import convert
from adapter_fast.common.errors import UserError
from adapter_fast.config import AdapterConfig
from adapter_fast.placement import add_adapters, remove_adapters, set_adapter
from adapter_fast.placement.container import sites_in
from adapter_fast.placement.sites import head_parameters, task_parameters
from adapter_fast.recipe import train_adapters

TOLERANCE = 1e-5  # of logits, float32
FAMILIES = tuple(HUB_FAMILIES)
KINDS = ("double_seq_bn", "seq_bn", "par_bn")
VARIANTS = (
    "attention",
    "feed_forward",
    "pfeiffer_both",
    "parallel_both",
    "leave_out",
    "leave_out_last",
    "one_unit",
    "wider",
)
AUTO = {"llama": "AutoModelForCausalLM", "vit": "AutoModelForImageClassification"}
FILES = ["adapter_config.json", "pytorch_adapter.bin"]
HEAD_FILES = ["head_config.json", "pytorch_model_head.bin"]


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    """Files do not depend on the backend, and the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


# With the real library


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What their library wrote, for every family."""
    hub_worker.folder()
    folder = tmp_path_factory.mktemp("theirs")
    hub_worker.ask("hub_files", "write", str(folder), FAMILIES)
    return folder


def base_model(theirs, family):
    auto = getattr(transformers, AUTO.get(family, "AutoModelForSequenceClassification"))
    return auto.from_pretrained(theirs / family).eval()


def stored(theirs, family):
    """The inputs and the outputs by kind."""
    tensors = safetensors.torch.load_file(theirs / family / "io.safetensors")
    inputs = {key[3:]: value for key, value in tensors.items() if key.startswith("in.")}
    return inputs, {key: value for key, value in tensors.items() if not key.startswith("in.")}


def outputs(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_theirs_compute_the_same_here(family, theirs):
    inputs, expected = stored(theirs, family)
    assert (outputs(base_model(theirs, family), inputs) - expected["base"]).abs().max() <= TOLERANCE
    for kind in (*KINDS, *(VARIANTS if family == "bert" else ())):
        model = base_model(theirs, family)
        before = snapshot(model)
        assert load_adapters(model, theirs / family / kind) is model
        found = outputs(model, inputs)
        assert (expected[kind] - expected["base"]).abs().max() > 0.01, kind  # or leaving the adapter out would pass
        assert (found - expected[kind]).abs().max() <= TOLERANCE, kind
        assert_same(remove_adapters(model, "task"), before)


def ours_for_them(model, config, seed=7):
    """A model with an adapter, and but for a language model with a head (BERT's pooler with it), unlike the base's."""
    enlarge(add_adapters(model, config, "task"), "task", seed)
    if head_parameters(model):
        train_adapters(model, "task", layer_norms=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name in task_parameters(model, True):
                parameter = model.get_parameter(name)
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


OURS = {
    "houlsby": AdapterConfig(5, "silu"),
    "pfeiffer": AdapterConfig.pfeiffer(bottleneck=7),
    "parallel": AdapterConfig.parallel(bottleneck=6),
}
OURS_IN_BERT = {
    "no_bias": AdapterConfig(8, bias=False, scale=0.5),
    "layers": AdapterConfig(3, "gelu_tanh", layers=(0, 2)),
    "first_layers": AdapterConfig(33, "tanh", layers=range(2)),
    "attention": AdapterConfig(1, "identity", sublayers=("attention",)),
    "pfeiffer_both": AdapterConfig.pfeiffer(bottleneck=4, sublayers=("attention", "feed_forward")),
    "parallel_both": AdapterConfig.parallel(bottleneck=40, sublayers=("attention", "feed_forward")),
    "half": AdapterConfig(8, "gelu", dtype="bfloat16"),
}


@pytest.fixture(scope="module")
def read_there(theirs, tmp_path_factory):
    """What their library says of what we wrote, by family/kind."""
    out = tmp_path_factory.mktemp("ours")
    for family in FAMILIES:
        found = {}
        inputs, _ = stored(theirs, family)
        for kind, config in (OURS | OURS_IN_BERT if family == "bert" else OURS).items():
            model = ours_for_them(base_model(theirs, family), config)
            found[kind] = outputs(model, inputs)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "pooler.dense.weight")  # tested below
                export_adapterhub(model, out / family / kind, "task")
        safetensors.torch.save_file(found, out / family / "io.safetensors")
    model = ours_for_them(base_model(theirs, "bert"), OURS_IN_BERT["layers"])
    save_adapters(model, out / "own", "task")
    with pytest.warns(UserWarning, match="pooler.dense.weight"):
        convert_adapter(
            out / "own", out / "bert/converted", "adapterhub", model_class="BertForSequenceClassification", layers=3
        )
    found = safetensors.torch.load_file(out / "bert/io.safetensors")
    safetensors.torch.save_file({**found, "converted": found["layers"].clone()}, out / "bert/io.safetensors")
    return hub_worker.ask("hub_files", "read", str(theirs), str(out))


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_compute_the_same_there(family, read_there):
    kinds = {*OURS, *OURS_IN_BERT, "converted"} if family == "bert" else {*OURS}
    found = {key.split("/")[1]: value for key, value in read_there.items() if key.startswith(f"{family}/")}
    assert set(found) == kinds
    for kind, case in found.items():
        assert (case["name"], case["missing"], case["unexpected"]) == ("task", [], [])
        # Their library computes with float32 weights what ours does with bfloat16 ones: the products agree.
        assert case["difference"] <= TOLERANCE, kind


def test_a_pooler_that_trained_comes_back_and_is_told_of(theirs, tmp_path):
    model = ours_for_them(base_model(theirs, "bert"), OURS["houlsby"])
    with pytest.warns(UserWarning, match=r"pooler.dense.weight \(2 such\), .* replaces the base's in AdapterHub"):
        export_adapterhub(model, tmp_path / "hub", "task")
    back = load_adapters(base_model(theirs, "bert"), tmp_path / "hub")
    inputs, _ = stored(theirs, "bert")
    assert torch.equal(outputs(back, inputs), outputs(model, inputs))
    untouched = base_model(theirs, "bert")
    assert not torch.equal(back.bert.pooler.dense.weight, untouched.bert.pooler.dense.weight)
    assert_same(remove_adapters(back, "task"), snapshot(untouched))


def test_an_adapter_saved_without_the_model_s_head(theirs):
    inputs, _ = stored(theirs, "bert")
    with_head, bare = base_model(theirs, "bert"), base_model(theirs, "bert").bert
    load_adapters(with_head, theirs / "bare")
    load_adapters(bare, theirs / "bare")
    assert torch.equal(outputs(bare, inputs), outputs(with_head.bert, inputs))
    load_adapters(base_model(theirs, "bert").bert, theirs / "bert/double_seq_bn", head=False)


def test_head_and_name_as_asked(theirs):
    model, base = base_model(theirs, "bert"), base_model(theirs, "bert")
    load_adapters(model, theirs / "bert/double_seq_bn", "mine", head=False)
    assert torch.equal(model.classifier.weight, base.classifier.weight)
    load_adapters(model, theirs / "bert/double_seq_bn", "again")
    set_adapter(model, "again")
    assert not torch.equal(model.classifier.weight, base.classifier.weight)
    set_adapter(model, "mine")
    assert torch.equal(model.classifier.weight, base.classifier.weight)


def test_converted_here_and_loaded_is_bitwise_what_is_loaded(theirs, tmp_path):
    inputs, _ = stored(theirs, "bert")
    for kind in ("double_seq_bn", "seq_bn", "leave_out"):
        convert_adapter(theirs / "bert" / kind, tmp_path / kind, "adapter_fast")
        direct = load_adapters(base_model(theirs, "bert"), theirs / "bert" / kind)
        converted = load_adapters(base_model(theirs, "bert"), tmp_path / kind)
        assert torch.equal(outputs(converted, inputs), outputs(direct, inputs))
        save_adapters(direct, tmp_path / "direct", "task")
        names = ["adapter.safetensors", "adapter_config.json"]
        assert sorted(os.listdir(tmp_path / kind)) == sorted(os.listdir(tmp_path / "direct")) == ["README.md", *names]
        tensors = [safetensors.torch.load_file(tmp_path / place / names[0]) for place in (kind, "direct")]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


REFUSED = (
    "phm_layer True",
    "use_gating True",
    "ln_before True",
    "ln_after True",
    "inv_adapter 'nice'",
    "scaling 'learned'",
    "scaling 'channel'",
    "reduction_factor {",
    "residual_before_ln 'post_add'",
    "residual_before_ln False",
    "original_ln_after False",
    "non_linearity must be one of .* it is 'leakyrelu'",
    "architecture 'lora'",
    "architecture 'prefix_tuning'",
    "architecture 'union'",
)


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_our_op_cannot_compute_is_refused_by_name(number, theirs):
    refuse(base_model(theirs, "bert"), theirs / f"refused{number}", REFUSED[number])


@pytest.mark.parametrize(
    ("place", "message", "head"),
    [
        (
            "flexible",
            r"head_config.json is of a flexible head, 'classification' of 'BertAdapterModel'.*head=False",
            True,
        ),
        ("fusion", r"adapter_fusion_config.json belongs to no single bottleneck adapter", False),
        ("setup", r"adapter_setup.json belongs to no single bottleneck adapter", False),
    ],
)
def test_other_things_of_theirs_are_refused_by_name(place, message, head, theirs):
    refuse(base_model(theirs, "bert"), theirs / place, message)
    if head:
        load_adapters(base_model(theirs, "bert"), theirs / place, head=False)


def test_the_tables_are_the_library_s():
    assert hub_worker.ask("hub_files", "bn_config") == DEFAULTS


@pytest.mark.parametrize("d", [384, 768])
def test_every_bottleneck_survives_there(d):
    sizes = list(range(1, 2 * d + 1))
    factors = [reduction_factor(d, m) for m in sizes]
    assert hub_worker.ask("hub_files", "bottlenecks", d, tuple(factors)) == sizes


# Without it: what we write, we read


@pytest.mark.parametrize("d", [384, 768])
def test_every_bottleneck_survives(d):
    for m in range(1, 2 * d + 1):
        factor = json.loads(json.dumps(reduction_factor(d, m)))
        assert bottleneck(d, factor) == m
        assert d % m or factor == d // m
    assert int(d // (d / 13)) == 12  # the plain quotient does not do


def test_bottleneck_of_a_factor():
    cases = ((768, 16, 48), (768, 12.3, 62), (768, 1e9, 1), (32, 6.4, 4), (768, 0.5, 1536))
    assert [bottleneck(d, factor) for d, factor, _ in cases] == [m for *_, m in cases]


def exported(directory, family="bert", config=OURS["houlsby"], head=True):
    model = (
        ours_for_them(build(family), config) if head else enlarge(add_adapters(build(family), config, "task"), "task")
    )
    export_adapterhub(model, directory, "task")
    return model


@pytest.fixture
def saved(tmp_path):
    exported(tmp_path / "adapter")
    return tmp_path / "adapter"


def read(path):
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", OURS)
def test_round_trip_without_the_library_is_bitwise(family, kind, tmp_path):
    from tiny_models import outputs as outputs_of

    with torch.no_grad():
        model = exported(tmp_path / "adapter", family, OURS[kind])
        expected = outputs_of(model, family)
        fresh = build(family)
        before = snapshot(fresh)
        assert not torch.equal(outputs_of(fresh, family), expected)
        assert torch.equal(outputs_of(load_adapters(fresh, tmp_path / "adapter"), family), expected)
    assert_same(remove_adapters(fresh), before)


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS.values())))
def test_activations_survive(activation, tmp_path):
    exported(tmp_path / "adapter", config=AdapterConfig(4, activation))
    model = load_adapters(build(), tmp_path / "adapter")
    assert {site.adapters["task"].activation for site in sites_in(model).values()} == {activation}


def test_files_are_pinned(saved):
    record = read(saved / "adapter_config.json")
    assert sorted(os.listdir(saved)) == sorted(FILES + HEAD_FILES)
    assert {key: value for key, value in record.items() if key != "config"} == {
        "hidden_size": 32,
        "model_class": "BertForSequenceClassification",
        "model_name": "",
        "model_type": "bert",
        "name": "task",
        "version": "adapters.1.3.0",
    }
    changed = {
        "mh_adapter": True,
        "output_adapter": True,
        "reduction_factor": 32 / 5.5,
        "non_linearity": "swish",
    }
    assert record["config"] == {**DEFAULTS, **changed}
    assert read(saved / "head_config.json") == {
        **{key: value for key, value in record.items() if key not in ("config", "name")},
        "name": None,
        "config": None,
        "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
        "num_labels": 3,
    }
    keys = torch.load(saved / "pytorch_adapter.bin", weights_only=True).keys()
    assert len(keys) == 16
    assert {
        "bert.encoder.layer.0.attention.output.adapters.task.adapter_down.0.weight",
        "bert.encoder.layer.1.output.adapters.task.adapter_up.bias",
    } < set(keys)


def test_layers_are_told_both_ways(tmp_path):
    exported(tmp_path / "adapter", config=AdapterConfig(4, layers=(1,)))
    assert read(tmp_path / "adapter/adapter_config.json")["config"]["leave_out"] == [0]
    model = load_adapters(build(), tmp_path / "adapter")
    assert {name.split(".")[3] for name in sites_in(model)} == {"1"}


def test_without_a_head_there_are_no_files_of_one(saved):
    exported(saved, head=False)  # in the place of one with a head
    assert sorted(os.listdir(saved)) == FILES
    base, model = build(), load_adapters(build(), saved)
    assert torch.equal(model.classifier.weight, base.classifier.weight)


def test_training_only_keys_are_loaded_with_a_word(saved):
    config(saved, {"stochastic_depth": 0.2})
    with pytest.warns(UserWarning, match="stochastic_depth 0.2 is left out, further training here has none"):
        load_adapters(build(), saved)
    before = snapshot(model := build())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            load_adapters(model, saved)
    assert_same(model, before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config(saved, {"stochastic_depth": 0.0})
        load_adapters(build(), saved)


def test_dropout_is_kept_both_ways_and_its_other_place_told(tmp_path):
    """Theirs is behind the up-projection: methods/modeling.py of adapters 1.3.0."""
    with pytest.warns(UserWarning, match="dropout 0.25 is written, but here it drops elements of the bottleneck"):
        exported(tmp_path / "adapter", config=AdapterConfig(8, dropout=0.25))
    assert read(tmp_path / "adapter/adapter_config.json")["config"]["dropout"] == 0.25
    with pytest.warns(UserWarning, match="dropout 0.25 is kept, but here it drops elements of the bottleneck"):
        model = load_adapters(build(), tmp_path / "adapter")
    adapters = [site.adapters["task"] for site in sites_in(model).values()]
    assert [adapter.dropout for adapter in adapters] == [0.25] * 4
    x = torch.randn(2, 3, 32)
    with torch.no_grad():
        assert torch.equal(adapters[0].eval()(x), adapters[0](x))
        assert not torch.equal(adapters[0].train()(x), adapters[0](x)), "another mask"
    save_adapters(model, tmp_path / "ours", "task")
    again = load_adapters(build(), tmp_path / "ours")
    assert {site.adapters["task"].dropout for site in sites_in(again).values()} == {0.25}


@pytest.mark.parametrize("value", [1, 1.0, 1.5, -0.1, float("nan"), float("inf"), True, None])
def test_dropout_out_of_range_is_refused(value, saved):
    config(saved, {"dropout": value})
    refuse(build(), saved, f"dropout {value} cannot be computed here, expected a number of at least 0 and below 1")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtype_is_kept(dtype, tmp_path):
    exported(tmp_path / "adapter", config=AdapterConfig(8, dtype=dtype))
    model = load_adapters(build(), tmp_path / "adapter")
    for site in sites_in(model).values():
        assert {parameter.dtype for parameter in site.adapters["task"].parameters()} == {getattr(torch, dtype)}


def test_values_that_are_no_numbers_come_as_they_are(saved):
    edit(saved, lambda tensors: first(tensors).fill_(float("nan")))
    model = load_adapters(build(), saved)
    assert any(parameter.isnan().any() for parameter in model.parameters())


def test_safetensors_are_read_and_preferred(saved):
    tensors = torch.load(saved / FILES[1], weights_only=True)
    safetensors.torch.save_file({key: 2 * value for key, value in tensors.items()}, saved / "adapter.safetensors")
    ours, doubled = load_adapters(build(), saved), enlarge(add_adapters(build(), OURS["houlsby"], "task"), "task")
    for name, site in sites_in(ours).items():
        for key, value in site.adapters["task"].state_dict().items():
            assert torch.equal(value, 2 * sites_in(doubled)[name].adapters["task"].state_dict()[key])
    (saved / FILES[1]).unlink()
    load_adapters(build(), saved)


# What cannot be exported


def test_trained_layer_norms_are_not_lost_in_silence(tmp_path):
    model = train_adapters(add_adapters(build(), OURS["houlsby"], "task"), "task")
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"'task' has 10 LayerNorm parameters trained with it.*layer_norms=False"):
        export_adapterhub(model, tmp_path / "adapter", "task")
    assert not os.listdir(tmp_path)
    assert export_adapterhub(model, tmp_path / "adapter", "task", layer_norms=False) is model
    assert_same(model, before)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("electra", AdapterConfig(4), "model_type must be one of bert, .* it is 'electra'"),
        ("t5", AdapterConfig(4), "model_type must be one of bert, .* it is 't5'"),
        ("bert", AdapterConfig(4, target_modules=r".*\.query"), r"target_modules '\.\*\\\\\.query' cannot be told"),
    ],
)
def test_what_their_files_cannot_say_is_refused(family, config, message, tmp_path):
    model = add_adapters(build(family), config, "task")
    with pytest.raises(ValueError, match=message):
        export_adapterhub(model, tmp_path / "adapter", "task")
    assert not os.listdir(tmp_path)


def test_a_directory_with_other_files_and_links_out_of_it_are_left_alone(saved, tmp_path):
    model = exported(tmp_path / "model")
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must be new, empty or a saved adapter, it holds notes\.txt"):
        export_adapterhub(model, saved, "task")
    (saved / "notes.txt").unlink()
    (tmp_path / "outside").write_text("mine")
    (saved / FILES[1]).unlink()
    (saved / FILES[1]).symlink_to(tmp_path / "outside")
    export_adapterhub(model, saved, "task")
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (saved / FILES[1]).is_symlink()


def test_a_failing_write_leaves_the_old_adapter(saved, monkeypatch):
    before = {name: (saved / name).read_bytes() for name in os.listdir(saved)}

    def full(_):
        raise OSError(28, "No space left on device")

    model = enlarge(add_adapters(build(), AdapterConfig(3), "task"), "task")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export_adapterhub(model, saved, "task")
    assert {name: (saved / name).read_bytes() for name in os.listdir(saved)} == before
    assert os.listdir(saved.parent) == [saved.name]


# Converting


def test_convert_there_and_back_is_bitwise(tmp_path):
    model = ours_for_them(build(), OURS["houlsby"])
    save_adapters(model, tmp_path / "own", "task")
    convert_adapter(tmp_path / "own", tmp_path / "hub", "adapterhub", model_class="BertForSequenceClassification")
    convert_adapter(tmp_path / "hub", tmp_path / "again", "adapter_fast")
    for place in ("own", "hub", "again"):
        assert torch.equal(logits(load_adapters(build(), tmp_path / place)), logits(model))
    export_adapterhub(model, tmp_path / "exported", "task")
    assert (tmp_path / "exported" / FILES[1]).read_bytes() == (tmp_path / "hub" / FILES[1]).read_bytes()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("norms", {}, "LayerNorm parameters trained with it"),
        ("head", {}, "has a head: model_class must name the model's class, got None"),
        ("layers", {}, "layers must give the model's number of layers, got None"),
        ("layers", {"layers": 1}, "layers must be above 1, the adapter's last layer, got 1"),
        ("odd", {}, "'a' must have the sites of a gpt2: encoder.layer.0.attention.output.dropout is odd"),
        ("hub", {}, "is in the format adapterhub already"),
        ("head", {"to": "safetensors"}, "to must be one of adapterhub, adapter_fast, got 'safetensors'"),
        ("head", {"output": "head"}, "output must be another directory than source"),
        ("head", {"to": "adapter_fast"}, "is in the format adapter_fast already"),
    ],
)
def test_what_cannot_be_converted_writes_nothing(source, options, message, tmp_path):
    save_adapters(train_adapters(add_adapters(build(), OURS["houlsby"], "a"), "a", head=False), tmp_path / "norms", "a")
    save_adapters(ours_for_them(build(), OURS["houlsby"]), tmp_path / "head", "task")
    save_adapters(add_adapters(build(), AdapterConfig(4, layers=(1,)), "a"), tmp_path / "layers", "a")
    save_adapters(add_adapters(build(), AdapterConfig(4), "a"), tmp_path / "odd", "a")
    header(tmp_path / "odd", model_type="gpt2", record_sha256="gone")
    exported(tmp_path / "hub")
    options = {"to": "adapterhub", "output": "out", **options}
    with pytest.raises(ValueError, match=message):
        convert_adapter(tmp_path / source, tmp_path / options.pop("output"), **options)
    assert sorted(os.listdir(tmp_path)) == ["head", "hub", "layers", "norms", "odd"]


def test_parts_left_out_of_a_conversion(tmp_path):
    model = train_adapters(enlarge(add_adapters(build(), OURS["houlsby"], "a"), "a"), "a")
    save_adapters(model, tmp_path / "own", "a")
    convert_adapter(tmp_path / "own", tmp_path / "hub", "adapterhub", layer_norms=False, head=False)
    assert sorted(os.listdir(tmp_path / "hub")) == FILES
    load_adapters(build(), tmp_path / "hub")
    with pytest.raises(FileNotFoundError, match=r"no saved adapter in .*nothing: it has no adapter_config\.json"):
        convert_adapter(tmp_path / "nothing", tmp_path / "out", "adapterhub")


def command(*arguments):
    return CliRunner().invoke(convert, [str(argument) for argument in arguments])


def test_the_command_converts(tmp_path):
    model = exported(tmp_path / "hub")
    done = command(tmp_path / "hub", tmp_path / "own", "--to", "adapter_fast")
    assert (done.exit_code, done.output) == (
        0,
        f"{tmp_path}/own holds the adapter of {tmp_path}/hub in the format adapter_fast\n",
    )
    assert torch.equal(logits(load_adapters(build(), tmp_path / "own")), logits(model))
    named = ("--model-class", "BertForSequenceClassification")
    assert command(tmp_path / "own", tmp_path / "again", "--to", "adapterhub", *named).exit_code == 0
    assert torch.equal(logits(load_adapters(build(), tmp_path / "again")), logits(model))
    assert command(tmp_path / "own", tmp_path / "headless", "--to", "adapterhub", "--no-head").exit_code == 0
    assert sorted(os.listdir(tmp_path / "headless")) == FILES


def test_the_command_s_mistakes_are_one_line(tmp_path):
    exported(tmp_path / "hub")
    header(tmp_path / "hub", version="adapters.9.0.0")
    for source, message in (("hub", "version must be adapters.1.x"), ("nothing", "it has no adapter_config.json")):
        done = command(tmp_path / source, tmp_path / "own", "--to", "adapter_fast")
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception) and "\n" not in str(done.exception)
    assert os.listdir(tmp_path) == ["hub"]


# Bad input: one line, and the model as it was


def refuse(model, directory, message, error=ValueError, **options):
    before = snapshot(model)
    with pytest.raises(error, match=message) as caught:
        load_adapters(model, directory, **options)
    assert "\n" not in str(caught.value)
    assert_same(model, before)


def config(directory, changes=None, remove=(), file="adapter_config.json", header=None):
    """Edit a JSON file's config, or its header."""
    values = read(directory / file)
    values.update(header or {})
    values["config"] = {key: value for key, value in (values["config"] or {}).items() if key not in remove}
    values["config"].update(changes or {})
    (directory / file).write_text(json.dumps(values))


def header(directory, file="adapter_config.json", **changes):
    values = {**read(directory / file), **changes}
    (directory / file).write_text(json.dumps({key: value for key, value in values.items() if value != "gone"}))


def edit(directory, change, file="pytorch_adapter.bin"):
    """Edit the tensors of a file: change(tensors) in place, or returning others."""
    tensors = torch.load(directory / file, weights_only=True)
    changed = change(tensors)
    torch.save(changed if isinstance(changed, (dict, list)) else tensors, directory / file)


def packed(path):
    """The same members, deflated: what a small file could make a large one of."""
    with zipfile.ZipFile(path) as stored:
        members = {each: stored.read(each) for each in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)


def first(tensors):
    return next(iter(tensors.values()))


def widen(tensors):
    key = next(iter(tensors))
    tensors[key] = torch.zeros(6, 32)


def mix(tensors):
    key = next(iter(tensors))
    tensors[key] = tensors[key].double()


def drop(tensors):
    del tensors[next(iter(tensors))]


def rename(old, new):
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


UP = "bert.encoder.layer.0.attention.output.adapters.task.adapter_up.weight"
DAMAGE = {
    "newer version": (
        lambda at: header(at, version="adapters.9.0.0"),
        "version must be adapters.1.x, it is 'adapters.9.0",
    ),
    "older library": (lambda at: header(at, version="3.2.1"), r"version must be adapters\.1\.x, it is '3\.2\.1'"),
    "version a number": (lambda at: header(at, version=1), "version must be adapters.1.x, it is 1"),
    "no version": (lambda at: header(at, version="gone"), "must have format_version 1, it has None"),
    "another family": (lambda at: header(at, model_type="xmod"), "model_type must be one of bert, .* it is 'xmod'"),
    "a family as a list": (
        lambda at: header(at, model_type=["bert"]),
        r"model_type must be one of .* it is \['bert'\]",
    ),
    "another model's": (lambda at: header(at, model_type="gpt2"), "is none of adapter 'task' in a gpt2"),
    "another width": (lambda at: header(at, hidden_size=64), r"must have shape \[10, 64\], .* has \[5, 32\]"),
    "width zero": (lambda at: header(at, hidden_size=0), "hidden_size must be a whole number from 1"),
    "width endless": (lambda at: header(at, hidden_size=10**400), "hidden_size must be a whole number from 1"),
    "width a string": (lambda at: header(at, hidden_size="32"), "hidden_size must be a whole number from 1"),
    "no name": (lambda at: header(at, name=None), "name must be a string, it is None"),
    "a path as name": (
        lambda at: (header(at, name="../x"), edit(at, rename("task", "../x"))),
        "without a dot, got '../x'",
    ),
    "another name": (
        lambda at: header(at, name="other"),
        "has a tensor that is none of adapter 'other' in a bert, bert",
    ),
    "a pattern as name": (lambda at: header(at, name="t.sk"), r"is none of adapter 't\.sk'"),
    "config a list": (lambda at: header(at, config=[]), r"config must be an object, it is \[\]"),
    "no config": (lambda at: header(at, config=None), "config must be an object, it is None"),
    "unknown key": (lambda at: config(at, {"surprise": 1}), "config has unknown keys surprise"),
    "missing key": (lambda at: config(at, remove=["non_linearity"]), "config lacks non_linearity"),
    "cross attention": (lambda at: config(at, {"cross_adapter": True}), "cross_adapter True cannot be computed here"),
    "residual behind the norm": (
        lambda at: config(at, {"original_ln_before": True, "residual_before_ln": False}),
        "residual_before_ln False cannot be computed here with original_ln_before True, expected True",
    ),
    "no place": (lambda at: config(at, {"mh_adapter": False, "output_adapter": False}), "one of mh_adapter and output"),
    "a place as string": (
        lambda at: config(at, {"mh_adapter": "yes"}),
        "mh_adapter must be true or false, it is 'yes'",
    ),
    "fewer places": (
        lambda at: config(at, {"mh_adapter": False}),
        "tensor that adapter_config.json does not name, bert",
    ),
    "no activation": (lambda at: config(at, {"non_linearity": None}), "non_linearity must be a string, it is None"),
    "factor zero": (lambda at: config(at, {"reduction_factor": 0}), "reduction_factor 0 cannot be computed here"),
    "factor tiny": (lambda at: config(at, {"reduction_factor": 5e-324}), "reduction_factor 5e-324 gives no bottleneck"),
    "factor small": (
        lambda at: config(at, {"reduction_factor": 1e-9}),
        "reduction_factor 1e-09 gives no bottleneck",
    ),
    "factor a string": (lambda at: config(at, {"reduction_factor": "16"}), "reduction_factor '16' cannot be computed"),
    "scaling true": (
        lambda at: config(at, {"scaling": True}),
        "scaling True cannot be computed here, expected a number",
    ),
    "scaling endless": (lambda at: config(at, {"scaling": float("inf")}), "scaling inf cannot be computed here"),
    "dropout a string": (lambda at: config(at, {"dropout": "0.1"}), "dropout '0.1' cannot be computed here"),
    "layers as text": (lambda at: config(at, {"leave_out": ["1"]}), r"leave_out must be a list of whole numbers"),
    "a layer too many": (lambda at: config(at, {"leave_out": [1]}), "an adapter in layer 1, which leave_out names"),
    "a layer too few": (
        lambda at: edit(at, rename("layer.0.", "layer.5.")),
        "lacks the adapter of layer 0, which leave_out does not name",
    ),
    "a layer far away": (
        lambda at: edit(at, rename("layer.0.", "layer.99999999999.")),
        "none of adapter 'task' in a bert, bert.encoder.layer.99999999999",
    ),
    "wrong shape": (lambda at: edit(at, widen), r"adapter_down\.0\.weight must have shape \[5, 32\], .* has \[6, 32\]"),
    "two dtypes": (lambda at: edit(at, mix), "'task' must have weights of one dtype, it has float32, float64"),
    "whole numbers": (
        lambda at: edit(at, lambda tensors: {key: value.int() for key, value in tensors.items()}),
        "must have weights of float32, .* it has int32",
    ),
    "missing tensor": (
        lambda at: edit(at, drop),
        r"lacks the tensor bert\.encoder\..*adapter_down\.0\.weight \(1 missing",
    ),
    "extra tensor": (
        lambda at: edit(at, lambda tensors: {**tensors, "bert.embeddings.word_embeddings.weight": torch.zeros(60, 32)}),
        "none of adapter 'task' in a bert, bert.embeddings.word_embeddings.weight",
    ),
    "a tensor twice": (
        lambda at: edit(at, lambda tensors: {**tensors, UP.removeprefix("bert."): tensors[UP]}),
        "has the tensor encoder.layer.0.* twice, with and without bert",
    ),
    "no tensor": (lambda at: edit(at, lambda tensors: {}), "holds no adapter"),
    "a list": (lambda at: edit(at, list), "must hold tensors by name, it holds list"),
    "numbers": (lambda at: edit(at, lambda tensors: {"a": 1}), "must hold dense tensors, a is int"),
    "sparse": (
        lambda at: edit(at, lambda tensors: {key: value.to_sparse() for key, value in tensors.items()}),
        "must hold dense tensors, bert",
    ),
    "truncated": (lambda at: cut(at / FILES[1]), "cannot be read as tensors alone, truncated or unsafe"),
    "empty": (lambda at: (at / FILES[1]).write_bytes(b""), "cannot be read as tensors alone, truncated or unsafe"),
    "noise": (lambda at: (at / FILES[1]).write_bytes(os.urandom(999)), "cannot be read as tensors alone"),
    "truncated safetensors": (
        lambda at: (at / "adapter.safetensors").write_bytes(safetensors.torch.save({"a": torch.ones(9)})[:-4]),
        "cannot be read as safetensors, truncated or tampered with",
    ),
    "config truncated": (lambda at: cut(at / FILES[0]), "must be JSON, it does not parse"),
    "config deep": (lambda at: (at / FILES[0]).write_text("[" * 100_000), "must be JSON, it does not parse"),
    "config no object": (lambda at: (at / FILES[0]).write_text("[]"), "must hold a JSON object, it holds list"),
    "an interface": (lambda at: (at / "adapter_interface.json").write_text("{}"), "belongs to no single bottleneck"),
    "head of another": (
        lambda at: header(at, "head_config.json", model_type="gpt2"),
        "head_config.json is for model_type 'gpt2', adapter_config.json for 'bert'",
    ),
    "head of a flexible kind": (
        lambda at: config(at, {"head_type": "tagging"}, file="head_config.json"),
        "is of a flexible head, 'tagging' of 'BertForSequenceClassification'.*pass head=False",
    ),
    "head of another shape": (
        lambda at: edit(at, lambda tensors: {key: value[:2] for key, value in tensors.items()}, HEAD_FILES[1]),
        r"head\.classifier\.\w+ must have shape \[3",
    ),
    "head of another kind": (
        lambda at: edit(at, rename("classifier", "qa_outputs"), HEAD_FILES[1]),
        r"has head\.qa_outputs\.\w+, which the model has not: pass head=False",
    ),
    "head that is the base": (
        lambda at: edit(at, lambda _: {"bert.embeddings.word_embeddings.weight": torch.zeros(60, 32)}, HEAD_FILES[1]),
        r"has head\.embeddings.*, which is the base's in the model: list the head's names in head, or pass head=False",
    ),
    "a tensor of few bytes": (
        lambda at: edit(
            at, lambda t: {key: value.flatten()[:1].clone().expand(value.shape) for key, value in t.items()}
        ),
        r"must hold dense tensors, .* has fewer bytes stored",
    ),
    "packed": (lambda at: packed(at / FILES[1]), "data.pkl is packed, as torch.save never does"),
    "head truncated": (lambda at: cut(at / HEAD_FILES[1]), "pytorch_model_head.bin cannot be read as tensors alone"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_changes_nothing(name, saved):
    damage, message = DAMAGE[name]
    load_adapters(build(), saved)  # before
    damage(saved)
    refuse(build(), saved, message)
    other = enlarge(add_adapters(build(), AdapterConfig(4), "other"), "other")
    refuse(other, saved, message)
    if name.startswith("head") and name != "head of a flexible kind":
        load_adapters(build(), saved, head=False)


@pytest.mark.parametrize("missing", [FILES[1], HEAD_FILES[0]])
def test_a_missing_file_is_named(missing, saved):
    (saved / missing).unlink()
    refuse(build(), saved, f"it has no {missing}", FileNotFoundError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("gpt2"), "is for model_type 'bert', the model has 'gpt2'"),
        (lambda: build("roberta"), "is for model_type 'bert', the model has 'roberta'"),
        (lambda: build(num_hidden_layers=3), "is for 4 sites, the model has 6"),
        (lambda: build(num_hidden_layers=1), "is for 4 sites, the model has 2"),
        (lambda: build(hidden_size=64), "is for hidden_size 32, the model has 64"),
        (lambda: build(num_labels=5), r"head\.classifier\.\w+ must have shape \[5"),
        (lambda: add_adapters(build(), AdapterConfig(4), "task"), "an adapter named 'task' exists already"),
    ],
)
def test_a_model_it_was_not_made_for(make, message, saved):
    refuse(make(), saved, message)


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "was here")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("file", [FILES[1], HEAD_FILES[1]])
@pytest.mark.parametrize("how", ["zip", "bare"])
def test_a_malicious_pickle_does_not_run(file, how, saved, tmp_path):
    mark = tmp_path / "mark"
    tensors = {**torch.load(saved / file, weights_only=True), "evil": Evil(mark)}
    if how == "zip":
        torch.save(tensors, saved / file)
    else:
        (saved / file).write_bytes(pickle.dumps(tensors))
    why = "it holds more than tensors$" if how == "zip" else "it is no whole zip of torch.save, File is not a zip file$"
    refuse(build(), saved, f"{file} cannot be read as tensors alone, truncated or unsafe: {why}")
    assert not mark.exists()
    torch.load(saved / file, weights_only=False) if how == "zip" else pickle.loads((saved / file).read_bytes())
    assert mark.read_text() == "was here"  # so it would have


def test_links_into_the_directory_are_followed_as_a_cache_of_the_hub_needs(saved, tmp_path):
    for number, name in enumerate(os.listdir(saved)):
        shutil.move(saved / name, tmp_path / f"blob{number}")
        (saved / name).symlink_to(tmp_path / f"blob{number}")
    load_adapters(build(), saved)
