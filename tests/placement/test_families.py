"""Every model family of the table, in each placement, on tiny models built from a config."""

import copy
import pickle

import pytest
import torch
from tiny_models import GENERATING, TINY, assert_same, build, enlarge, inputs_of, is_norm, outputs, snapshot
from torch import nn

from adapter_fast.checkpoint import load_adapters, save_adapters
from adapter_fast.config import PLACEMENTS, AdapterConfig
from adapter_fast.placement import FAMILIES, add_adapters, disable_adapters, remove_adapters
from adapter_fast.placement.container import sites_in
from adapter_fast.placement.sites import family_of, find_layers, find_sites
from adapter_fast.placement.walk import is_ours
from adapter_fast.recipe import train_adapters

SECOND_NORM = ("gemma2", "gemma3_text", "gemma3")  # a norm between the adapter's place and the residual sum
SIDE_BY_SIDE = ("phi", "gpt_neox")  # attention and feed-forward read the same stream
HEADS = ("classifier", "pre_classifier", "score")

every_family = pytest.mark.parametrize("family", TINY)
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


@pytest.fixture(autouse=True)
def torch_backend(monkeypatch):
    """Placement does not depend on the backend, and the interpreter is slow."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def config_of(placement="houlsby", **fields):
    return AdapterConfig(8, "gelu_tanh", placement=placement, scale=0.7, **fields)


def adapted(family, placement="houlsby", **fields):
    return enlarge(add_adapters(build(family), config_of(placement, **fields)))


def said(model, family):
    with torch.no_grad():
        return outputs(model, family)


def calls_of(model, family):
    """x, residual and y of each adapter call, in order, in one forward."""
    calls = []
    for site in sites_in(model).values():
        for adapter in site.adapters.values():
            adapter.register_forward_hook(lambda _, args, y: calls.append((args[0], *args[1:], y)))
    said(model, family)
    return calls


def test_every_family_of_the_table_is_tested():
    seconds = {name for name, family in FAMILIES.items() if family.otherwise is not None}
    assert set(TINY) == {*FAMILIES, "opt-350m", "wav2vec2-stable"}
    assert seconds == {"opt", "wav2vec2"}
    for name, family in FAMILIES.items():
        assert family.models, name


@every_placement
@every_family
def test_identity_at_the_start_and_removal_bit_for_bit(family, placement):
    model = build(family)
    bare = said(model, family)  # first: transformers adds hooks of its own in the first forward
    before = snapshot(model)
    add_adapters(model, config_of(placement, init_std=0.0))
    assert torch.equal(said(model, family), bare)
    assert {key for key in model.state_dict() if not is_ours(key)} == before["state"].keys()
    enlarge(model)
    change = (said(model, family) - bare).norm() / bare.norm()
    assert change > 0.02
    with disable_adapters(model):
        assert torch.equal(said(model, family), bare)
    assert_same(remove_adapters(model), before)
    assert torch.equal(said(model, family), bare)


@every_placement
@every_family
def test_as_many_sites_as_sub_layers_each_run_once_a_pass(family, placement):
    model = adapted(family, placement)
    layers = len(list(find_layers(model, family_of(model))))
    sites = layers * len(PLACEMENTS[placement].sublayers)
    assert len(sites_in(model)) == len(find_sites(model, config_of(placement))) == sites
    passes = 2 if family == "albert" else 1  # its one layer runs twice
    assert len(calls_of(model, family)) == sites * passes


@every_placement
@every_family
def test_a_constant_branch_is_a_bias_of_the_sub_layers_last_linear(family, placement):
    """Independent of the table: where adapters add a constant, the model is one whose dense layers have that bias."""
    if placement == "pfeiffer" and family in SECOND_NORM:
        pytest.skip("its sum comes behind one more norm")
    model, biased = build(family), build(family)
    config = config_of(placement, sublayers=PLACEMENTS[placement].sublayers)
    generator = torch.Generator().manual_seed(5)
    values = {}
    for site in find_sites(biased, config):
        value = values[site.name] = torch.randn(site.width, generator=generator)
        with torch.no_grad():
            bias = site.dense.bias if site.dense.bias is not None else torch.zeros(site.width)
            site.dense.bias = nn.Parameter(bias + 0.7 * value)
    add_adapters(model, config)
    for name, site in sites_in(model).items():
        adapter = site.adapters["default"]
        nn.init.zeros_(adapter.up.weight)
        with torch.no_grad():
            adapter.up.bias.copy_(values[name])
    torch.testing.assert_close(said(model, family), said(biased, family), rtol=1e-4, atol=1e-5)


@every_family
def test_a_parallel_adapter_reads_the_stream_that_enters_the_sub_layer(family):
    model = adapted(family, "parallel")
    streams, sums = [], []
    for name, stack in find_layers(model, family_of(model)):
        layer = model.get_submodule(name)
        behind = layer.get_submodule(stack.feed_forward.norm) if stack.feed_forward.norm else None
        if behind is not None:
            behind.register_forward_pre_hook(lambda _, args: sums.append(args[0]))
        else:
            layer.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
            layer.register_forward_hook(lambda _, args, out: sums.append(out[0] if isinstance(out, tuple) else out))
    calls = calls_of(model, family)
    for index, (x, _, y) in enumerate(calls):
        total = sums[index].reshape(x.shape)
        if family in SIDE_BY_SIDE:
            assert torch.equal(x, streams[index])
        elif family in SECOND_NORM:
            layer = model.get_submodule(list(find_layers(model, family_of(model)))[index][0])
            torch.testing.assert_close(x + layer.post_feedforward_layernorm(y), total)
        else:
            torch.testing.assert_close(x + y, total)


@every_family
def test_a_pfeiffer_adapter_reads_the_norm_of_the_sum_or_the_sum(family):
    model = adapted(family, "pfeiffer")
    calls = calls_of(model, family)
    for name, site in sites_in(model).items():
        module = model.get_submodule(name)
        if is_norm(module):
            assert site.forms == {"default": "norm"}
            x, s, _ = calls[list(sites_in(model)).index(name)]
            assert torch.equal(x, module.forward(s))
        else:
            assert all(len(call) == 2 for call in calls)  # x and y: the residual is x
    post = [stack.feed_forward.norm is not None for _, stack in find_layers(model, family_of(model))]
    assert all(is_norm(model.get_submodule(name)) for name in sites_in(model)) is all(post)


@every_placement
@every_family
def test_gradients_equal_the_reference(family, placement):
    models = [adapted(family, placement, implementation=kind) for kind in ("fused", "reference")]
    gradients = []
    for model in models:
        train_adapters(model, head=False)
        said_now = outputs(model, family)  # weighted: CLIP's are of unit length, and their squares constant
        (said_now * torch.randn(said_now.shape, generator=torch.Generator().manual_seed(4))).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    ours, theirs = gradients
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name] is None) == (value is None), name
        if value is not None:
            assert (ours[name] - value).norm() <= 1e-4 * value.norm() + 1e-7, name
    assert all(ours[name] is not None for name in ours if ".adapters." in name)


@every_placement
@every_family
def test_only_adapters_train(family, placement):
    model = add_adapters(adapted(family, placement), config_of(placement), "other")
    train_adapters(model, layer_norms=False, head=False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".adapters.default." in name}
    assert len(trained) == 4 * len(sites_in(model))


def norms_by_type(model):
    """All LayerNorms but the attention's own, those of a convolution before the transformer, and the head's."""
    left_out = (".q_norm", ".k_norm", "feature_extractor.", "vision_tower.", "multi_modal_projector.")
    return {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if is_norm(module) and not name.startswith("head.") and not any(part in f".{name}" for part in left_out)
        for parameter, _ in module.named_parameters(recurse=False)
    }


@every_family
def test_all_layer_norms_and_the_head_train_by_the_recipe(family):
    model = adapted(family)
    head = {name for name, _ in model.named_parameters() if name.split(".")[0] in (*HEADS, "projector")}
    if family == "deberta-v2":
        head |= {"pooler.dense.weight", "pooler.dense.bias"}
    train_adapters(model, head=bool(head))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if ".adapters." not in name} == norms_by_type(model) | head


@every_family
def test_without_the_lower_layers_the_backward_pass_ends_at_the_lowest_adapter(family):
    layers = [name for name, _ in find_layers(build(family), family_of(build(family)))]
    upper = [index for index, name in enumerate(layers) if name.endswith(".1")] or [0]  # ALBERT has but one layer
    for placement in PLACEMENTS:
        model = adapted(family, placement, layers=upper)
        assert {site.layer for site in find_sites(model, config_of(placement, layers=upper))} == {
            layers[index] for index in upper
        }
        train_adapters(model, head=False)
        norms = {name for name, p in model.named_parameters() if p.requires_grad and ".adapters." not in name}
        assert norms < norms_by_type(model)
        assert norms or family == "albert" or placement == "pfeiffer"
        seen = {}
        for site in find_sites(model, config_of(placement, layers=upper)):
            adapter, stack = sites_in(model)[site.name].adapters["default"], site.layer.rpartition(".")[0]
            adapter.register_forward_hook(
                lambda _, args, y, seen=seen, stack=stack, form=site.form: seen.setdefault(stack, (form, args)) and None
            )
        outputs(model, family).sum().backward()
        for stack, (form, args) in seen.items():
            if "decoder" in stack and len(seen) == 2:
                continue  # the encoder's adapters run before it
            # A parallel adapter's residual has passed the trained norm in front of the feed-forward, and Pfeiffer's x
            # the trained norm that it hooks.
            enters = {"output": args, "norm": args[1:], "parallel": args[:1]}[form]
            assert all(not tensor.requires_grad for tensor in enters), (placement, stack)


@pytest.mark.parametrize("family", GENERATING)
@every_placement
def test_generation_with_the_cache_equals_that_without(family, placement):
    task = {"gpt2": "LMHeadModel"}.get(family)
    model = enlarge(add_adapters(build(family, task), config_of(placement)))
    given = {key: value[:2] for key, value in inputs_of(family).items() if not key.startswith("decoder")}
    if "attention_mask" in given:
        given["attention_mask"] = torch.ones_like(given["attention_mask"])
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}
    results = [model.generate(**given, **settings, output_logits=True, use_cache=cache) for cache in (True, False)]
    assert torch.equal(results[0].sequences, results[1].sequences)
    for with_cache, without in zip(results[0].logits, results[1].logits):
        torch.testing.assert_close(with_cache, without, rtol=1e-3, atol=1e-4)
    bare = remove_adapters(copy.deepcopy(model)).generate(**given, **settings, output_logits=True)
    assert (bare.logits[0] - results[0].logits[0]).abs().max() > 1e-3


def test_the_page_of_families_is_up_to_date():
    from benchmarks.pages import families

    assert families.PAGE.read_text("utf-8") == families.page(), "python -m benchmarks.pages.families"


@every_placement
@every_family
def test_copies_run_their_own_adapters(family, placement):
    """Hooks that were bound to the model they were made for would run the original's (adapters#822)."""
    model = adapted(family, placement)
    before = said(model, family)
    twins = [copy.deepcopy(model)]
    if not family.startswith("wav2vec2"):  # torch does not pickle its parametrised convolution
        twins.append(pickle.loads(pickle.dumps(model)))
    for twin in twins:
        assert torch.equal(said(twin, family), before)
        enlarge(twin, seed=8)
        changed = said(twin, family)
        assert not torch.equal(changed, before)
        assert torch.equal(said(model, family), before)
        own = {id(parameter) for parameter in twin.parameters()}
        assert own.isdisjoint(id(parameter) for parameter in model.parameters())
        assert sites_in(remove_adapters(twin)) == {}
        assert torch.equal(said(twin, family), said(build(family), family))
        assert torch.equal(said(model, family), before)


@every_placement
@every_family
def test_saved_and_loaded_bit_for_bit(family, placement, tmp_path):
    model = train_adapters(adapted(family, placement), head=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    expected = said(model, family)
    save_adapters(model, tmp_path / "adapter")
    fresh = build(family)
    assert not torch.equal(said(fresh, family), expected)
    assert torch.equal(said(load_adapters(fresh, tmp_path / "adapter"), family), expected)
