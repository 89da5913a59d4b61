"""What a checkpoint lacks and transformers draws at random trains and is saved, or is named."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import TINY, assert_same, build, snapshot

from adapter_fast import AdapterConfig, add_adapters, load_adapters, save_adapters, train_adapters
from adapter_fast.placement.sites import new_parameters
from adapter_fast.recipe import train_head_only, train_layer_norms

CONFIG = AdapterConfig(4)
TASKS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
    "ForAudioFrameClassification",
    "ForXVector",
    "ForNextSentencePrediction",
)
OTHERS = {  # classes whose encoder is no module by the base model's name, or has another kind of configuration
    ("t5", "ForQuestionAnswering"),
    ("clip", "ForImageClassification"),
    ("gemma3_text", "ForSequenceClassification"),
}
CASES = [
    (family, task)
    for family, tiny in TINY.items()
    for task in TASKS
    if hasattr(transformers, f"{tiny.prefix}{task}") and (family, task) not in OTHERS
]


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def from_checkpoint(family, task, folder, drop=(), **options):
    """A model for a task from a checkpoint of the bare encoder, less what is named in drop."""
    with_task = build(family, task, num_labels=2 if task == "ForQuestionAnswering" else 3)
    base = getattr(with_task, with_task.base_model_prefix)
    base.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if not key.startswith(tuple(drop))} if drop else weights,
        folder / "model.safetensors",
        {"format": "pt"},
    )
    torch.manual_seed(5)
    return type(with_task).from_pretrained(folder, **options).eval()


@pytest.mark.parametrize(("family", "task"), CASES)
def test_all_that_is_new_trains_is_saved_and_comes_back(family, task, tmp_path):
    model = from_checkpoint(family, task, tmp_path / "base")
    new = set(new_parameters(model))
    train_adapters(add_adapters(model, CONFIG))
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert not new & frozen
    with torch.no_grad():
        for name in new:
            model.get_parameter(name).normal_()  # transformers 5.5 leaves AMSoftmax's weight as memory was
    save_adapters(model, tmp_path / "adapter")
    fresh = from_checkpoint(family, task, tmp_path / "again")
    load_adapters(fresh, tmp_path / "adapter")
    for name in new:
        assert torch.equal(fresh.get_parameter(name), model.get_parameter(name)), name


def test_the_examples_are_new(tmp_path):
    for family, task, example in (
        ("roberta", "ForMultipleChoice", "roberta.pooler.dense.weight"),
        ("xlm-roberta", "ForMultipleChoice", "roberta.pooler.dense.weight"),
        ("wav2vec2", "ForXVector", "tdnn.0.kernel.weight"),
    ):
        model = from_checkpoint(family, task, tmp_path / f"{family}-{task}", ("pooler",))
        # XLM-R's multiple choice has no pooler in transformers 5.5
        assert example in new_parameters(model) or (family == "xlm-roberta" and example not in model.state_dict())


def test_a_model_of_another_family(tmp_path):
    """XLNet by target_modules: its summary and logits are new."""
    config = transformers.XLNetConfig(vocab_size=60, d_model=32, n_layer=2, n_head=4, d_inner=48, num_labels=3)
    transformers.XLNetModel(config).save_pretrained(tmp_path)
    model = transformers.XLNetForSequenceClassification.from_pretrained(tmp_path)
    new = new_parameters(model)
    assert "logits_proj.weight" in new
    train_adapters(add_adapters(model, AdapterConfig(4, target_modules=r".*\.ff\.layer_2")))
    assert all(model.get_parameter(name).requires_grad for name in new)


def test_what_the_encoder_itself_lacks_is_an_error(tmp_path):
    for drop in ("encoder.layer.1.output.dense", "embeddings.word_embeddings"):
        model = add_adapters(from_checkpoint("bert", "ForSequenceClassification", tmp_path, (drop,)), CONFIG)
        before = snapshot(model)
        with pytest.raises(ValueError, match=rf"lacked bert\.{drop}.*random.*expected a checkpoint with it, or head"):
            train_adapters(model)
        assert_same(model, before)
        lost = [name for name in new_parameters(model) if name.startswith("bert.")]
        train_adapters(model, head=[*lost, "classifier"])
        assert all(model.get_parameter(name).requires_grad for name in lost)


def test_head_takes_names(tmp_path):
    model = add_adapters(build("bert"), CONFIG)
    train_adapters(model, layer_norms=False, head=["classifier.bias", "bert.pooler"])
    names = {name for name, value in model.named_parameters() if value.requires_grad and "adapter_site" not in name}
    assert names == {"classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    save_adapters(model, tmp_path / "adapter")
    fresh = build("bert")
    with pytest.raises(ValueError, match=r"head.pooler.dense.weight, which.*head=False"):
        load_adapters(fresh, tmp_path / "adapter")
    load_adapters(fresh, tmp_path / "adapter", head=["classifier", "bert.pooler"])
    with torch.no_grad():
        assert torch.equal(fresh.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_names_that_leave_something_random_or_are_none(tmp_path):
    model = add_adapters(from_checkpoint("roberta", "ForMultipleChoice", tmp_path, ("pooler",)), CONFIG)
    before = snapshot(model)
    for names, error, message in (
        (["classifier"], ValueError, r"lacked roberta\.pooler\.dense\.weight \(2 such\)"),
        (
            ["nothing"],
            ValueError,
            r"head names 'nothing', and RobertaForMultipleChoice has no such module or parameter",
        ),
        ("classifier", TypeError, r"head must be True, False or a list of names"),
        ([1], TypeError, r"head must be True, False or a list of names"),
    ):
        with pytest.raises(error, match=message):
            train_adapters(model, head=names)
        assert_same(model, before)


def test_a_head_that_is_left_out_is_said(tmp_path):
    model = add_adapters(from_checkpoint("bert", "ForSequenceClassification", tmp_path), CONFIG)
    with pytest.warns(UserWarning, match=r"head=False leaves classifier.weight \(2 such\) frozen as randomly drawn"):
        train_adapters(model, head=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_adapters(add_adapters(build("bert"), CONFIG), head=False)  # not made by from_pretrained: nothing is known


def test_a_baseline_trains_it_too(tmp_path):
    model = train_head_only(from_checkpoint("roberta", "ForMultipleChoice", tmp_path, ("pooler",)))
    assert model.roberta.pooler.dense.weight.requires_grad


def test_what_an_adapter_tuned_is_not_new_for_the_next(tmp_path):
    model = from_checkpoint("bert", "ForSequenceClassification", tmp_path)
    new = new_parameters(model)
    trained = []
    for name in ("a", "b"):
        train_adapters(add_adapters(model, CONFIG, name), name)
        assert new_parameters(model) == new == ["classifier.weight", "classifier.bias"]
        names = {key for key, value in model.named_parameters() if value.requires_grad and "adapter_site" not in key}
        trained.append(names)
    assert trained[0] == trained[1]


POOLER = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


def with_pooler(folder, bias):
    """A classifier from a checkpoint of a bare BERT whose pooler has this last bias and zeros otherwise."""
    model = from_checkpoint("bert", "ForSequenceClassification", folder)
    weights = load_file(folder / "model.safetensors")
    weights["pooler.dense.bias"].zero_()[-1] = bias
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return type(model).from_pretrained(folder).eval()


def test_a_pooler_that_no_training_reached_trains(tmp_path):
    """MiniLM's: the checkpoint has it, with a bias of zeros. One that was trained stays frozen, as in adapter-bert."""
    model = with_pooler(tmp_path / "base", 0.0)
    assert not POOLER & set(new_parameters(model))
    train_adapters(add_adapters(model, CONFIG))
    assert all(model.get_parameter(name).requires_grad for name in POOLER)
    with torch.no_grad():
        for name in POOLER:
            model.get_parameter(name).normal_()
    save_adapters(model, tmp_path / "adapter")
    fresh = with_pooler(tmp_path / "again", 0.0)
    load_adapters(fresh, tmp_path / "adapter")
    for name in POOLER:
        assert torch.equal(fresh.get_parameter(name), model.get_parameter(name)), name

    trained = train_adapters(add_adapters(with_pooler(tmp_path / "trained", 1e-3), CONFIG))
    assert not any(trained.get_parameter(name).requires_grad for name in POOLER)


def test_a_pooler_that_no_training_reached_is_the_users_to_freeze(tmp_path):
    model = with_pooler(tmp_path, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_adapters(add_adapters(model, CONFIG), head=["classifier"])
    assert not any(model.get_parameter(name).requires_grad for name in POOLER)
    with pytest.warns(UserWarning, match="frozen as randomly drawn"):
        train_adapters(model, "default", head=False)


@pytest.mark.parametrize("baseline", [train_head_only, train_layer_norms])
def test_baselines_train_a_pooler_that_no_training_reached(baseline, tmp_path):
    model = baseline(with_pooler(tmp_path, 0.0))
    assert all(model.get_parameter(name).requires_grad for name in POOLER)
