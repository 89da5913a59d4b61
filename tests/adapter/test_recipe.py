"""The recipe: what trains in each family, the optimiser's groups, the schedule, and that Trainer agrees."""

import copy

import pytest
import torch
from tiny_models import FAMILIES, assert_same, build, enlarge, inputs, logits, snapshot
from torch import nn

from adapter_fast import recipe
from adapter_fast.config import AdapterConfig
from adapter_fast.placement import add_adapters, remove_adapters
from adapter_fast.recipe import train_adapters, train_all, train_head_only

CONFIG = AdapterConfig(8, "gelu_tanh")
HEAD = {
    "bert": ("classifier.weight", "classifier.bias"),
    "distilbert": ("pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"),
    "gpt2": ("score.weight",),
}
HEAD |= dict.fromkeys(
    ("roberta", "xlm-roberta", "electra"),
    tuple(f"classifier.{part}.{key}" for part in ("dense", "out_proj") for key in ("weight", "bias")),
)


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    """Placement does not depend on the backend, and the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapter_names(model, name="default"):
    return {key for key, _ in model.named_parameters() if f".adapters.{name}." in key}


def norm_names(model):
    """By module type, where the table goes by name."""
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    return {f"{name}.{key}" for name in norms for key in ("weight", "bias")}


# What trains


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("layer_norms", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapter_layer_norms_and_head_train(family, layer_norms, head):
    model = add_adapters(add_adapters(build(family), CONFIG), CONFIG, "other")
    assert train_adapters(model, layer_norms=layer_norms, head=head) is model
    expected = adapter_names(model)
    assert len(expected) == 16
    assert len(norm_names(model)) == 10
    expected |= norm_names(model) if layer_norms else set()
    expected |= set(HEAD[family]) if head else set()
    assert trained(model) == expected


def test_what_trains_in_bert_is_pinned():
    model = train_adapters(add_adapters(build("bert"), CONFIG))
    names = {"classifier.weight", "classifier.bias"}
    for key in ("weight", "bias"):
        names.add(f"bert.embeddings.LayerNorm.{key}")
        for layer in range(2):
            for part in ("attention.output", "output"):
                site = f"bert.encoder.layer.{layer}.{part}"
                names.add(f"{site}.LayerNorm.{key}")
                names |= {f"{site}.dropout.adapter_site.adapters.default.{linear}.{key}" for linear in ("down", "up")}
    assert trained(model) == names
    assert not any("pooler" in name for name in names)


@pytest.mark.parametrize("task", ["ForTokenClassification", "ForQuestionAnswering"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_heads(family, task):
    head = "classifier" if task == "ForTokenClassification" else "qa_outputs"
    model = train_adapters(add_adapters(build(family, task, num_labels=2), CONFIG), layer_norms=False)
    assert trained(model) - adapter_names(model) == {f"{head}.weight", f"{head}.bias"}


def test_a_model_without_a_head_says_so():
    model = add_adapters(build("bert", "Model"), CONFIG)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"BertModel has no task head .*: pass head=False"):
        train_adapters(model)
    assert_same(model, before)
    train_adapters(model, head=False)
    assert trained(model) == adapter_names(model) | norm_names(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_parameter_gets_a_gradient_and_no_other(family):
    model = train_adapters(enlarge(add_adapters(build(family), CONFIG)))
    model.train()(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained(model)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_training_activates_the_adapter():
    model = enlarge(add_adapters(enlarge(add_adapters(build(), CONFIG, "a"), "a", 1), CONFIG, "b"), "b", 2)
    a = logits(model)
    train_adapters(model, "b")
    assert not torch.equal(logits(model), a)
    assert trained(model) & adapter_names(model, "a") == set()
    with pytest.raises(ValueError, match="no adapter named 'c': the model has 'a', 'b'"):
        train_adapters(model, "c")


def test_training_without_adapters_says_so():
    model = build()
    before = snapshot(model)
    with pytest.raises(ValueError, match="has no adapters: add one"):
        train_adapters(model)
    assert_same(model, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_steps_lower_the_loss_and_leave_the_base(family):
    model = train_adapters(add_adapters(build(family), CONFIG))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = recipe.create_optimizer(model, 1e-2)
    scheduler = recipe.create_scheduler(optimizer, 20)
    losses = []
    for _ in range(20):
        loss = model(**inputs(), labels=torch.tensor([0, 1, 2])).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert losses[-1] < 0.9 * losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == trained(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_baselines(family):
    model = build(family)
    assert trained(train_head_only(model)) == set(HEAD[family])
    assert trained(train_all(model)) == {name for name, _ in model.named_parameters()}
    add_adapters(model, CONFIG, "a")
    for baseline in (train_head_only, train_all):
        with pytest.raises(ValueError, match=f"{baseline.__name__} is a baseline without adapters: remove 'a' first"):
            baseline(model)
    remove_adapters(model)
    train_head_only(model)


# Optimiser and schedule


@pytest.mark.parametrize("family", FAMILIES)
def test_optimizer_groups(family):
    model = train_adapters(add_adapters(build(family), CONFIG))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, plain = recipe.optimizer_groups(model)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    in_decayed, in_plain = [{names[p] for p in group["params"]} for group in (decayed, plain)]
    assert in_decayed | in_plain == trained(model)
    assert in_decayed == {name for name in trained(model) - norm_names(model) if name.endswith("weight")}
    assert any(".adapters." in name for name in in_decayed)
    assert len(decayed["params"]) + len(plain["params"]) == len(trained(model))


def test_optimizer_groups_of_a_frozen_model():
    with pytest.raises(ValueError, match="Linear has no parameter that trains: call train_adapters first"):
        recipe.optimizer_groups(nn.Linear(2, 2).requires_grad_(False))


def test_optimizer_constants():
    optimizer = recipe.create_optimizer(train_adapters(add_adapters(build(), CONFIG)), 1e-3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert {(g["lr"], g["betas"], g["eps"]) for g in optimizer.param_groups} == {(1e-3, (0.9, 0.999), 1e-6)}
    assert (recipe.WARMUP_SHARE, recipe.MAX_GRAD_NORM, recipe.BATCH_SIZE) == (0.1, 1.0, 32)


def test_schedule_values():
    factors = [recipe.schedule_factor(step, 20) for step in range(22)]
    assert factors[:3] == [0.0, 0.5, 1.0]
    assert factors[11] == 0.5
    assert factors[19:] == [1 / 18, 0.0, 0.0]
    assert [recipe.schedule_factor(step, 1) for step in (0, 1)] == [0.0, 0.0]
    assert recipe.schedule_factor(0, 10, 0.0) == 1.0


@pytest.mark.parametrize("steps", [1, 7, 20, 33])
def test_schedule_is_transformers_linear(steps):
    from transformers import get_linear_schedule_with_warmup

    def rates(make):
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
        scheduler = make(optimizer)
        seen = []
        for _ in range(steps):
            seen.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return seen

    ours = rates(lambda optimizer: recipe.create_scheduler(optimizer, steps))
    theirs = rates(lambda optimizer: get_linear_schedule_with_warmup(optimizer, -(-steps // 10), steps))
    assert ours == pytest.approx(theirs)


def test_trainer_takes_the_defaults_and_trains_only_the_adapters_share(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = train_adapters(add_adapters(build(), CONFIG))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = [{**{k: v[i] for k, v in inputs(4).items()}, "labels": torch.tensor(i % 3)} for i in range(4)]
    settings = {**recipe.training_arguments_defaults(), "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    arguments = TrainingArguments(
        str(tmp_path), max_steps=10, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, **settings
    )
    assert arguments.get_warmup_steps(10) == 1
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    groups = {group["weight_decay"]: len(group["params"]) for group in trainer.optimizer.param_groups}
    assert groups == {0.01: 9, 0.0: 19}
    assert groups == {g["weight_decay"]: len(g["params"]) for g in recipe.optimizer_groups(model)}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p.cpu(), before[name])}
    assert changed == trained(model)


# Giving back


@pytest.mark.parametrize("family", FAMILIES)
def test_removal_after_training_gives_back_values_and_flags(family):
    model = train_head_only(build(family))
    before, output = snapshot(model), logits(model)
    train_adapters(add_adapters(model, CONFIG))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    twin = copy.deepcopy(model)
    for each in (model, twin):
        assert not torch.equal(logits(each), output)
        assert_same(remove_adapters(each), before)
    assert trained(model) == set(HEAD[family])
