"""A pytest plugin for the tests in PEFT's own sdist: they run with BottleneckConfig where they take LoraConfig.

`make test-peft-suite` unpacks the sdist and runs this over its tests. Where a test is given LoraConfig by a list of
parameters, it is given BottleneckConfig here with the same targets, and nothing else; the tests of other methods are
left out. A model of the hub is a folder of the working directory with its name: a tiny one, made from a configuration.
peft_suite_expected.txt says what fails and why: any other failure is red, and so is a listed test that passes.
"""

from __future__ import annotations

import re
import sys
import types
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

EXPECTED = Path(__file__).with_name("peft_suite_expected.txt")
FILES = ("config", "custom_models", "decoder_models", "encoder_decoder_models", "feature_extraction_models")
FILES += ("low_level_api", "other", "seq_classifier", "token_classification_qa")
# Convolutions and nn.MultiheadAttention have no last dimension of known width: BottleneckConfig refuses them by name,
# which test_explicit_targets_follow_peft and its neighbours hold. Every test of these models would raise that.
REFUSED = re.compile(r"Conv\d.*|MHA")
STD = 0.5  # of weights that are to be seen in the output, where LoRA's tests turn its identity at the start off
SAME = {
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "task_type",
    "inference_mode",
    "base_model_name_or_path",
}
WITHOUT_MEANING = {"lora_alpha", "lora_dropout", "fan_in_fan_out"}
# What no table of families is for: the targets that a user would give.
TARGETS = {"GPTJ": ["attn.out_proj", "mlp.fc_out"], "DebertaModel": ["attention.output.dense", "output.dense"]}
IDENTITY = "test_disable_adapters["  # takes a new adapter for the identity, as LoRA's is: that is init_std=0

_SIZES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_BERT = {**_SIZES, "intermediate_size": 37, "type_vocab_size": 2, "pad_token_id": 1}
_DEBERTA = {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_LLAMA = {**_SIZES, "intermediate_size": 37, "num_key_value_heads": 2}
_LLAMA |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_GPT |= {"bos_token_id": 98, "eos_token_id": 98}
_OPT = {**_SIZES, "ffn_dim": 37, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "pad_token_id": 1}
_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
_T5 |= {"decoder_start_token_id": 0}
_BART = {"vocab_size": 99, "d_model": 32, "max_position_embeddings": 64}
for _part in ("encoder", "decoder"):
    _BART |= {f"{_part}_layers": 2, f"{_part}_attention_heads": 4, f"{_part}_ffn_dim": 37}
# By the name on the hub: the class, and what its configuration is made with.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": ("OPTForCausalLM", _OPT),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": ("GPT2LMHeadModel", _GPT),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": ("GPTJForCausalLM", {**_GPT, "rotary_dim": 4}),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", _LLAMA),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": ("LlamaForSequenceClassification", _LLAMA),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2ForCausalLM", _LLAMA),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": ("Gemma3ForCausalLM", {**_LLAMA, "head_dim": 8}),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": ("T5ForConditionalGeneration", _T5),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": ("BartForConditionalGeneration", _BART),
    "peft-internal-testing/tiny-random-BertModel": ("BertModel", _BERT),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaModel", _BERT),
    "peft-internal-testing/tiny-random-DebertaModel": ("DebertaModel", _DEBERTA),
    "peft-internal-testing/tiny-random-DebertaV2Model": ("DebertaV2Model", _BERT),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": ("BertForSequenceClassification", _BERT),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": ("RobertaForSequenceClassification", _BERT),
}
LORA = "peft-internal-testing/tiny-opt-lora-revision"  # the one adapter of the hub that these tests read
_ours: set[str] = set()  # the tests that take our configuration


def pytest_configure(config: pytest.Config) -> None:
    """The models, what PEFT's helpers must know of the method, and a stand-in for a package that is only imported."""
    if not hasattr(config, "workerinput"):
        make_models(Path.cwd())
    import peft
    import transformers  # noqa: F401

    from adapter_fast.integrations.peft import BottleneckConfig

    diffusers = types.ModuleType("diffusers")
    diffusers.__spec__ = ModuleSpec("diffusers", None)
    diffusers.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
    sys.modules.setdefault("diffusers", diffusers)
    from tests import testing_utils

    others = testing_utils.set_init_weights_false
    testing_utils.set_init_weights_false = lambda cls, settings: (
        {**settings, "init_std": STD} if cls is BottleneckConfig else others(cls, settings)
    )
    from tests import testing_common

    def skip(*_: Any) -> None:
        pytest.skip("bottleneck adapters cannot be merged")

    testing_common._skip_if_merging_not_supported = skip  # as for PEFT's own Lily and Shadow
    if not hasattr(config, "workerinput"):
        peft.LoraConfig().save_pretrained(LORA)


def make_models(folder: Path) -> None:
    """The tiny models, by the names that they have on the hub; those that are there stay."""
    import torch
    import transformers

    for name, (kind, settings) in MODELS.items():
        if not (folder / name / "config.json").exists():
            torch.manual_seed(0)
            model = getattr(transformers, kind)
            model(model.config_class(**settings)).save_pretrained(folder / name)


# The method in LoRA's place


def translated(settings: dict[str, Any]) -> dict[str, Any] | None:
    """BottleneckConfig's arguments for LoraConfig's; None where one of them has no counterpart."""
    own: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "r":
            own["bottleneck"] = value
        elif key == "init_lora_weights" and isinstance(value, bool):
            own |= {} if value else {"init_std": STD}
        elif key in SAME:
            own[key] = value
        elif key not in WITHOUT_MEANING and (key, value) != ("bias", "none"):
            return None
    return own


def row_of(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A row of parameters with BottleneckConfig for LoraConfig; None where it has no LoraConfig, or a variant's."""
    from peft import LoraConfig

    from adapter_fast.integrations.peft import BottleneckConfig

    found, row = False, []
    for value in values:
        if isinstance(value, str) and REFUSED.fullmatch(value):
            return None
        if value is LoraConfig:
            found, value = True, BottleneckConfig
        elif type(value) is LoraConfig:
            default = LoraConfig().to_dict()
            own = translated({key: item for key, item in value.to_dict().items() if item != default[key]})
            found, value = True, None if own is None else BottleneckConfig(**own)
        elif found and isinstance(value, dict):
            value = translated(value)
        if value is None and found:
            return None
        row.append(value)
    return tuple(row) if found else None


def _values(row: Any) -> tuple[Any, ...]:
    values = row.values if isinstance(row, type(pytest.param())) else row
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Only the files of whole models and of configurations; the others are of one method each, or ask for a GPU."""
    name = collection_path.stem
    return True if name.startswith("test_") and name.removeprefix("test_") not in FILES else None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A list of parameters that has LoRA's rows gets these in our method's name, and no other rows."""
    marks = metafunc.definition.own_markers
    for place, mark in enumerate(marks):
        rows = [row for each in mark.args[1] if (row := row_of(_values(each)))] if mark.name == "parametrize" else []
        if rows:
            alone = len(rows[0]) == 1
            marks[place] = pytest.mark.parametrize(mark.args[0], [row[0] for row in rows] if alone else rows).mark
            _ours.add(metafunc.definition.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Where the rows of a batch have adapters of their own, all methods but LoRA are skipped by name: not ours."""
    from adapter_fast.integrations.peft import BottleneckConfig
    from tests import testing_common

    with ExitStack() as stack:
        for module in (testing_common, pyfuncitem.module):
            if "with_mixed_adapter" in pyfuncitem.name or "test_mixed_adapter_batches[" in pyfuncitem.name:
                stack.enter_context(mock.patch.object(module, "LoraConfig", BottleneckConfig, create=True))
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of our method, give targets to models outside the table, mark what is expected to fail."""
    kept = [item for item in items if item.nodeid.partition("[")[0] in _ours]
    kept_ids = {id(item) for item in kept}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept_ids])
    expected = expected_failures()
    unused = set(expected)
    for item in kept:
        parameters = item.callspec.params
        for part, targets in TARGETS.items():
            if part in str(parameters.get("model_id")) and "config_kwargs" in parameters:
                parameters["config_kwargs"] = {**parameters["config_kwargs"], "target_modules": targets}
        if IDENTITY in item.nodeid:
            parameters["config_kwargs"] = {**parameters["config_kwargs"], "init_std": 0.0}
        for pattern, reason in expected.items():
            if pattern.fullmatch(item.nodeid):
                unused.discard(pattern)
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    files = {item.nodeid.partition("::")[0] for item in items}
    gone = sorted(each.pattern for each in unused if each.pattern.partition("::")[0].replace("\\", "") in files)
    if gone and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"{EXPECTED.name} names no test of this suite by {gone[0]}")
    items[:] = kept


def expected_failures() -> dict[re.Pattern[str], str]:
    """The reason by the expression of its tests: a line "# reason", then lines of node ids with * for any text."""
    found, reason = {}, ""
    for line in EXPECTED.read_text().splitlines():
        if line.startswith("# "):
            reason = line.removeprefix("# ")
        elif line:
            found[re.compile(re.escape(line).replace(r"\*", ".*"))] = reason
    return found
