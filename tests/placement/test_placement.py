"""Adapters in tiny transformers of every family: where they sit, switching, disabling, removal, copies, errors."""

import copy
import io
import pickle

import pytest
import torch
from tiny_models import FAMILIES, HIDDEN, assert_same, build, enlarge, inputs, logits, snapshot
from torch import nn

from adapter_fast.config import AdapterConfig
from adapter_fast.placement import adapter_summary, add_adapters, disable_adapters, remove_adapters, set_adapter
from adapter_fast.placement.container import run_site, sites_in
from adapter_fast.placement.walk import is_ours
from adapter_fast.recipe import train_adapters
from adapter_fast.reference import reference_adapter

CONFIG = AdapterConfig(8, "gelu_tanh", scale=0.7)
REFERENCE = AdapterConfig(8, "gelu_tanh", scale=0.7, implementation="reference")
SITES = {
    "bert": ("attention.output.dropout", "output.dropout"),
    "roberta": ("attention.output.dropout", "output.dropout"),
    "xlm-roberta": ("attention.output.dropout", "output.dropout"),
    "electra": ("attention.output.dropout", "output.dropout"),
    "distilbert": ("attention.out_lin", "ffn.dropout"),
    "gpt2": ("attn.resid_dropout", "mlp.dropout"),
}
LAYER = {family: f"{family}.encoder.layer" for family in FAMILIES}
LAYER |= {"xlm-roberta": "roberta.encoder.layer", "distilbert": "distilbert.transformer.layer", "gpt2": "transformer.h"}


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    """Placement does not depend on the backend, and the interpreter is slow: one test below runs both."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def adapted(family="bert", config=CONFIG, name="default", seed=7, **overrides):
    return enlarge(add_adapters(build(family, **overrides), config, name), name, seed)


def difference(a, b):
    return (a - b).abs().max().item()


# Where


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_are_pinned(family):
    model = adapted(family)
    expected = [f"{LAYER[family]}.{layer}.{hook}" for layer in range(2) for hook in SITES[family]]
    assert list(sites_in(model)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_runs_once_a_layer_on_the_tensor_before_residual_and_layer_norm(family):
    model = adapted(family)
    calls, norms = [], {}
    for name, site in sites_in(model).items():
        adapter = site.adapters["default"]
        adapter.register_forward_hook(lambda _, args, out, name=name: calls.append((name, args[0], out)))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, args: norms.setdefault(len(calls), args[0]))
    layer_inputs = []
    for layer in model.get_submodule(LAYER[family]):
        layer.register_forward_pre_hook(lambda _, args: layer_inputs.append(args[0]))
    logits(model)
    assert [name for name, _, _ in calls] == list(sites_in(model))
    assert set(norms) == {0, 1, 2, 3, 4}  # before the first site and behind each: GPT-2 has its LayerNorms in front
    assert len(layer_inputs) == 2
    for index, (name, x, y) in enumerate(calls):
        weights = sites_in(model)[name].adapters["default"].state_dict()
        w = [weights[key] for key in ("down.weight", "down.bias", "up.weight", "up.bias")]
        torch.testing.assert_close(y, reference_adapter(x, *w, activation="gelu_tanh", scale=0.7))
        assert difference(y, x) > 0.1
        if index % 2 == 0:
            assert torch.equal(norms[index + 1], y + layer_inputs[index // 2])


def test_bert_layer_is_what_the_paper_draws():
    """Figure 2: dense, dropout, adapter, then residual and LayerNorm, recomputed by hand in training mode."""
    model = adapted("bert", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.5)
    layer = model.bert.encoder.layer[0].train()
    x = torch.randn(2, 5, HIDDEN)
    with torch.no_grad():
        torch.manual_seed(3)
        actual = layer(x)
        torch.manual_seed(3)
        context = layer.attention.self(x)[0]

        def sub_layer(output, into, residual):
            h = torch.dropout(output.dense(into), 0.5, True)
            weights = output.dropout.adapter_site.adapters["default"]
            h = h + 0.7 * weights.up(nn.functional.gelu(weights.down(h), approximate="tanh"))
            return output.LayerNorm(h + residual)

        attention = sub_layer(layer.attention.output, context, x)
        expected = sub_layer(layer.output, layer.intermediate(attention), attention)
    torch.testing.assert_close(actual, expected)
    with disable_adapters(model):
        torch.manual_seed(3)
        assert difference(layer(x), expected) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_equals_reference(family, torch_backend, backend):
    fused, reference = adapted(family, CONFIG), adapted(family, REFERENCE)
    torch.testing.assert_close(logits(fused), logits(reference), rtol=1e-5, atol=1e-6)
    assert difference(logits(fused), logits(build(family))) > 1e-3
    assert {site.backend for site in adapter_summary(fused).sites} == {backend}
    for model in (fused, reference):
        train_adapters(model)(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
    for name, parameter in reference.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
            torch.testing.assert_close(fused.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_chunked_feed_forward_gives_the_same(family):
    whole = logits(adapted(family))
    chunked = logits(adapted(family, chunk_size_feed_forward=1))
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_starts_near_the_identity_and_keeps_the_bases_keys(family):
    model = build(family)
    before, output = snapshot(model), logits(model)
    add_adapters(model, AdapterConfig.houlsby(bottleneck=8))
    assert 0 < difference(logits(model), output) < 1e-3
    keys = [key for key in model.state_dict() if not is_ours(key)]
    assert keys == list(before["state"])
    assert {key: model.get_parameter(key).requires_grad for key in before["requires_grad"]} == before["requires_grad"]


def test_adapter_keys_are_pinned():
    model = adapted("distilbert")
    keys = [key for key in model.state_dict() if "transformer.layer.1.attention.out_lin.adapter_site" in key]
    prefix = "distilbert.transformer.layer.1.attention.out_lin.adapter_site.adapters.default."
    assert keys == [prefix + key for key in ("down.weight", "down.bias", "up.weight", "up.bias")]


def test_base_models_without_a_head_and_inner_models_are_adapted():
    assert len(sites_in(add_adapters(build("bert", "Model"), CONFIG))) == 4
    inner = build("bert")
    add_adapters(inner.bert, CONFIG)
    with pytest.raises(ValueError, match="adapters in this BertForSequenceClassification were added to its submodule"):
        set_adapter(inner, "default")
    outer = add_adapters(build("bert"), CONFIG)
    with pytest.raises(ValueError, match="adapters in this BertModel were added to a model around it"):
        remove_adapters(outer.bert)


# Device, dtype, mode


@pytest.mark.parametrize(
    ("base", "asked", "expected"),
    [
        (torch.bfloat16, "auto", torch.float32),
        (torch.float16, "auto", torch.float32),
        (torch.float32, "auto", torch.float32),
        (torch.float64, "auto", torch.float64),
        (torch.bfloat16, "bfloat16", torch.bfloat16),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_dtype_follows_the_base_and_the_model_still_runs(base, asked, expected, implementation):
    model = build("bert").to(base)
    config = AdapterConfig(8, dtype=asked, implementation=implementation)
    plain = logits(model)
    enlarge(add_adapters(model, config))
    assert {p.dtype for site in sites_in(model).values() for p in site.parameters()} == {expected}
    output = logits(model)
    assert output.dtype == base
    assert difference(output, plain) > 1e-3
    train_adapters(model)
    model(**inputs())[0].float().sum().backward()
    gradients = [p.grad for site in sites_in(model).values() for p in site.parameters()]
    assert all(g.dtype == expected and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_autocast(implementation):
    model = adapted("bert", AdapterConfig(8, implementation=implementation))
    exact = logits(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = logits(model)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.1, atol=0.05)


def test_meta_device():
    with torch.device("meta"):
        model = build("bert")
    add_adapters(model, CONFIG)
    assert all(p.is_meta for site in sites_in(model).values() for p in site.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_mode_follows_the_model(training):
    model = add_adapters(build("bert").train(training), CONFIG)
    assert all(module.training is training for site in sites_in(model).values() for module in site.modules())


# Generation


def test_generation_with_a_cache_gives_the_tokens_and_logits_of_generation_without():
    model = adapted("gpt2", task="LMHeadModel")
    prompt = {name: value[:1] for name, value in inputs().items()}

    def generate(use_cache):
        return model.generate(
            **prompt,
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
            use_cache=use_cache,
            return_dict_in_generate=True,
            output_logits=True,
        )

    with_cache, without = generate(True), generate(False)
    assert with_cache.sequences.shape == (1, 11 + 8)
    assert torch.equal(with_cache.sequences, without.sequences)
    torch.testing.assert_close(torch.stack(with_cache.logits), torch.stack(without.logits), rtol=1e-4, atol=1e-5)
    with disable_adapters(model):
        assert difference(generate(True).logits[0], with_cache.logits[0]) > 1e-3


def test_gpt2s_tied_language_head_is_no_head_of_a_task():
    model = adapted("gpt2", task="LMHeadModel")
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel has no task head .*: pass head=False"):
        train_adapters(model)
    train_adapters(model, head=False)
    assert not model.lm_head.weight.requires_grad
    assert {p.requires_grad for p in model.transformer.ln_f.parameters(recurse=False)} == {True}


# Several adapters


def test_the_first_added_is_active_and_switching_is_exact():
    alone = {name: logits(adapted("bert", CONFIG, name, seed)) for name, seed in (("a", 1), ("b", 2))}
    assert difference(alone["a"], alone["b"]) > 1e-3
    model = adapted("bert", CONFIG, "a", 1)
    enlarge(add_adapters(model, AdapterConfig(8, "gelu_tanh", scale=0.7), "b"), "b", 2)
    assert torch.equal(logits(model), alone["a"])
    assert torch.equal(logits(set_adapter(model, "b")), alone["b"])
    assert torch.equal(logits(set_adapter(model, "a")), alone["a"])


def test_adapters_of_different_shape_live_together():
    model = adapted("bert", CONFIG, "a", 1)
    enlarge(add_adapters(model, AdapterConfig(3, "relu", bias=False), "b"), "b", 2)
    assert torch.equal(
        logits(set_adapter(model, "b")), logits(adapted("bert", AdapterConfig(3, "relu", bias=False), "b", 2))
    )


def test_switching_brings_each_tasks_layer_norms_and_head():
    model = build("bert")
    base = logits(model)
    outputs = {}
    for seed, name in enumerate("ab"):
        enlarge(add_adapters(model, CONFIG, name), name, seed)
        train_adapters(model, name)
        assert torch.equal(model.classifier.weight, build("bert").classifier.weight)
        with torch.no_grad():
            model.classifier.weight.add_(1.0 + seed)
            model.bert.embeddings.LayerNorm.bias.add_(0.5 + seed)
        outputs[name] = logits(model)
    for name in "abba":
        assert torch.equal(logits(set_adapter(model, name)), outputs[name])
    remove_adapters(model, "b")
    assert torch.equal(logits(model), outputs["a"])
    remove_adapters(model)
    assert torch.equal(logits(model), base)


# Disabling


def test_disabling_nests_and_survives_exceptions():
    model = adapted("bert")
    on, off = logits(model), logits(build("bert"))
    with disable_adapters(model) as same:
        assert same is model
        assert torch.equal(logits(model), off)
        with disable_adapters(model):
            assert torch.equal(logits(model), off)
        assert torch.equal(logits(model), off)
        set_adapter(model, "default")
        assert torch.equal(logits(model), off)
        add_adapters(model, CONFIG, "more")
        assert torch.equal(logits(model), off)
    assert torch.equal(logits(model), on)
    with pytest.raises(RuntimeError, match="inside"), disable_adapters(model), disable_adapters(model):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), on)


# Removal


@pytest.mark.parametrize("family", FAMILIES)
def test_removal_gives_the_model_back_bit_for_bit(family):
    model = build(family)
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    before, output = snapshot(model), logits(model)
    enlarge(add_adapters(model, CONFIG))
    add_adapters(model, CONFIG, "b")
    train_adapters(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()
    assert difference(logits(model.eval()), output) > 1e-3
    assert remove_adapters(model) is model
    assert_same(model, before)
    assert torch.equal(logits(model), output)
    assert torch.equal(logits(model), output)


def test_removing_one_of_several():
    model = adapted("bert", CONFIG, "a", 1)
    enlarge(add_adapters(model, CONFIG, "b"), "b", 2)
    base, a = logits(build("bert")), logits(model)
    remove_adapters(model, "b")
    assert torch.equal(logits(model), a)
    assert not [key for key in model.state_dict() if ".b." in key]
    enlarge(add_adapters(model, CONFIG, "b"), "b", 2)
    remove_adapters(model, "a")
    assert torch.equal(logits(model), base)
    set_adapter(model, "b")
    assert torch.equal(logits(model), logits(adapted("bert", CONFIG, "b", 2)))
    remove_adapters(model, "b")
    assert_same(model, snapshot(build("bert")))


def test_removal_leaves_other_peoples_hooks():
    def other(module, args, output):
        return output

    model = build("bert")
    dropout = model.bert.encoder.layer[0].output.dropout
    dropout.register_forward_hook(other)
    adapt = add_adapters(model, CONFIG)
    dropout.register_forward_hook(other)
    assert list(dropout._forward_hooks.values()) == [other, run_site, other]
    remove_adapters(adapt)
    assert list(dropout._forward_hooks.values()) == [other, other]


# Copies


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("copier", [copy.deepcopy, through_pickle, through_torch_save])
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_copies_run_their_own_adapters(copier, family):
    model = adapted(family)
    train_adapters(model)
    output = logits(model)
    twin = copier(model)
    assert torch.equal(logits(twin), output)
    enlarge(twin, seed=99)
    assert difference(logits(twin), output) > 1e-3
    assert torch.equal(logits(model), output)
    with disable_adapters(twin):
        assert torch.equal(logits(model), output)
    changed = logits(twin)
    remove_adapters(model)
    assert torch.equal(logits(twin), changed)
    remove_adapters(twin)
    assert_same(twin, snapshot(build(family)))


def test_hook_is_one_module_level_function():
    model = adapted("bert")
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert hooks == [run_site] * 4
    assert run_site.__closure__ is None


# Checkpointing, compile


@pytest.mark.parametrize("layer_norms", [True, False])
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family, use_reentrant, layer_norms):
    def gradients(checkpointing):
        model = adapted(family)
        train_adapters(model, layer_norms=layer_norms)
        if checkpointing:
            # transformers 5.0 knows the old name, 5.23 both
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        calls = []
        for site in sites_in(model).values():
            # A pre-hook: torch stops recomputing inside GPT-2's last site, whose saved tensors are the layer's last.
            site.adapters["default"].register_forward_pre_hook(lambda *_: calls.append(1))
        torch.manual_seed(5)
        model.train()(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
        assert len(calls) == (8 if checkpointing else 4)
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_compiles_without_a_graph_break(family):
    model = adapted(family)
    train_adapters(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    eager = model(**inputs(), labels=torch.tensor([0, 1, 2]))
    eager.loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    output = compiled(**inputs(), labels=torch.tensor([0, 1, 2]))
    torch.testing.assert_close(output.logits, eager.logits)
    output.loss.backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)
    with torch.no_grad(), disable_adapters(compiled):
        torch.testing.assert_close(compiled(**inputs()).logits, logits(build(family)))
    assert set_adapter(compiled, "default") is compiled


def test_data_parallel_wrappers_are_seen_through():
    model = add_adapters(nn.DataParallel(build("bert")), CONFIG)
    assert len(sites_in(model.module)) == 4
    remove_adapters(model)
    assert_same(model.module, snapshot(build("bert")))


def test_distributed_data_parallel_trains_and_switches(tmp_path):
    def gradients(wrapped, model):
        wrapped(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    alone, model = adapted("bert"), adapted("bert")
    enlarge(add_adapters(model, CONFIG, "b"), "b", 2)
    train_adapters(alone)
    train_adapters(model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        expected, actual = gradients(alone, alone), gradients(wrapped, model)
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient)
        for change in (lambda: add_adapters(wrapped, CONFIG, "c"), lambda: train_adapters(wrapped, "b")):
            with pytest.raises(ValueError, match="needs a model before DistributedDataParallel"):
                change()
        assert set_adapter(wrapped, "b") is wrapped
        assert torch.equal(logits(wrapped), logits(adapted("bert", CONFIG, "b", 2)))
    finally:
        torch.distributed.destroy_process_group()


def test_save_pretrained_and_load_state_dict_of_an_adapted_model(tmp_path):
    model = adapted("bert")
    model.save_pretrained(tmp_path)
    twin = add_adapters(build("bert"), CONFIG)
    assert twin.load_state_dict(model.state_dict()).missing_keys == []
    assert torch.equal(logits(twin), logits(model))
    assert torch.equal(
        logits(type(model).from_pretrained(tmp_path, attn_implementation="eager").eval()), logits(build("bert"))
    )


# Summary


def test_summary_counts():
    model = adapted("bert", AdapterConfig(8))
    base = sum(p.numel() for p in build("bert").parameters())
    d, m = HIDDEN, 8
    one = 2 * m * d + d + m
    train_adapters(model)
    summary = adapter_summary(model)
    assert summary.adapters == {"default": 4 * one}
    assert summary.total == base + 4 * one
    assert summary.trained == 4 * one + 5 * 2 * d + 3 * d + 3
    assert summary.share == summary.trained / summary.total
    assert [(site.name, site.kind) for site in summary.sites[:2]] == [
        ("bert.encoder.layer.0.attention.output.dropout", "attention"),
        ("bert.encoder.layer.0.output.dropout", "feed_forward"),
    ]
    adapter = next(iter(sites_in(model).values())).adapters["default"]
    assert {site.backend for site in summary.sites} == {adapter.explain(torch.empty(0, d)).name}
    text = str(summary)
    assert f"trained {summary.trained:,} of {summary.total:,} parameters" in text
    assert "bert.encoder.layer.1.output.dropout" in text
    assert "adapter default (active)" in text
    with disable_adapters(model):
        assert {site.backend for site in adapter_summary(model).sites} == {"none"}
        assert "(active, disabled)" in str(adapter_summary(model))


def test_summary_of_the_reference_and_of_no_active_adapter():
    model = adapted("bert", REFERENCE, "a")
    assert {site.backend for site in adapter_summary(model).sites} == {"reference"}
    remove_adapters(add_adapters(model, CONFIG, "b"), "a")
    assert adapter_summary(model).active is None
    assert "no adapter is active" in str(adapter_summary(model))


# Bad input: one line, the model as it was


def _unknown():
    from transformers import CTRLConfig, CTRLModel

    return CTRLModel(CTRLConfig(n_embd=8, n_layer=1, n_head=1, dff=8, vocab_size=11, n_positions=9))


def _bert_without_layers():
    model = build("bert")
    model.bert.encoder.layer = nn.ModuleList()
    return model


@pytest.mark.parametrize(
    ("make", "call", "error", "message"),
    [
        (
            _unknown,
            lambda m: add_adapters(m, CONFIG),
            ValueError,
            r"model_type 'ctrl'.*known model types are bert, rob.*target_modules.*h\\\.\\d\+\\\.ffn\\\.\\d\+ \(2\)",
        ),
        (
            lambda: nn.Linear(2, 2),
            lambda m: add_adapters(m, CONFIG),
            ValueError,
            "Linear with model_type None has no kn",
        ),
        (
            _bert_without_layers,
            lambda m: add_adapters(m, CONFIG),
            ValueError,
            r"model_type 'bert' has no adapter site: no module matches .*encoder\\.layer",
        ),
        (build, lambda m: add_adapters(m, {"bottleneck": 8}), TypeError, "config must be an AdapterConfig, got dict"),
        (build, lambda m: add_adapters(m, CONFIG, ""), ValueError, "name must be non-empty and without a dot, got ''"),
        (build, lambda m: add_adapters(m, CONFIG, "a.b"), ValueError, "without a dot, got 'a.b'"),
        (build, lambda m: add_adapters(m, CONFIG, " "), ValueError, "all to be seen, got ' ' of length 1"),
        (build, lambda m: add_adapters(m, CONFIG, "a\x1b[2J"), ValueError, r"all to be seen, got 'a\\x1b\[2J'"),
        (build, lambda m: add_adapters(m, CONFIG, "a\u200b"), ValueError, r"all to be seen, got 'a\\u200b'"),
        (build, lambda m: add_adapters(m, CONFIG, "a\ud800"), ValueError, r"all to be seen, got 'a\\ud800'"),
        (build, lambda m: add_adapters(m, CONFIG, "a" * 9999), ValueError, r"at most 200 .* 'a+ … a+' of length 9,999"),
        (build, lambda m: add_adapters(m, CONFIG, 3), TypeError, "name must be a string, got 3"),
        (build, lambda m: add_adapters(m, CONFIG, "keys"), ValueError, "own attributes, got 'keys'"),
        (build, lambda m: set_adapter(m, "a"), ValueError, "BertForSequenceClassification has no adapters"),
        (build, lambda m: remove_adapters(m), ValueError, "BertForSequenceClassification has no adapters"),
        (build, lambda m: adapter_summary(m), ValueError, "BertForSequenceClassification has no adapters"),
        (build, lambda m: disable_adapters(m).__enter__(), ValueError, "BertForSequenceClassification has no adapters"),
        (
            adapted,
            lambda m: add_adapters(m, CONFIG),
            ValueError,
            "named 'default' exists already: the model has 'defau",
        ),
        (adapted, lambda m: set_adapter(m, "sst2"), ValueError, "no adapter named 'sst2': the model has 'default'"),
        (adapted, lambda m: set_adapter(m, None), TypeError, "name must be a string, got None"),
        (adapted, lambda m: remove_adapters(m, "sst2"), ValueError, "no adapter named 'sst2': the model has 'default'"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(make, call, error, message):
    model = make()
    before = snapshot(model)
    with pytest.raises(error, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert_same(model, before)


def test_a_thing_that_is_no_model():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got str"):
        add_adapters("bert-base-uncased", CONFIG)


def test_a_failure_half_way_changes_nothing(monkeypatch):
    from adapter_fast.placement import inject

    real, built = inject._build, []

    def failing(site, config):
        if len(built) == 2:
            raise RuntimeError("out of memory")
        built.append(site)
        return real(site, config)

    model = build("bert")
    before = snapshot(model)
    monkeypatch.setattr(inject, "_build", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        add_adapters(model, CONFIG)
    assert len(built) == 2
    assert_same(model, before)


def test_switching_to_a_head_that_no_longer_fits_changes_nothing():
    model = adapted("bert", CONFIG, "a")
    train_adapters(model, "a")
    add_adapters(model, CONFIG, "b")
    model.classifier = nn.Linear(HIDDEN, 5)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"adapter 'a' has tuned classifier\.weight, and its module was replaced"):
        set_adapter(model, "b")
    assert_same(model, before)
