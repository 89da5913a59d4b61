"""The plugin that runs PEFT's own tests (make test-peft-suite), on a small suite in their form, without a download."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft")
import peft
import peft_suite

ROOT = Path(__file__).parents[2]
COMMON = "from peft import LoraConfig\n"
SUITE = """
import pytest
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn
from . import testing_common, testing_utils

ROWS = [
    ("plain", "MLP", LoraConfig, {"target_modules": ["0"], "r": 4, "lora_alpha": 2}),
    ("dora", "MLP", LoraConfig, {"target_modules": ["0"], "use_dora": True}),
    ("other", "MLP", IA3Config, {"target_modules": ["0"], "feedforward_modules": []}),
    ("convolution", "Conv1d", LoraConfig, {"target_modules": ["0"]}),
]

@pytest.mark.parametrize("test_name, model_id, config_cls, config_kwargs", ROWS)
def test_wrap(test_name, model_id, config_cls, config_kwargs):
    assert test_name == "plain" and config_kwargs == {"target_modules": ["0"], "bottleneck": 4}
    model = get_peft_model(nn.Sequential(nn.Linear(2, 3)), config_cls(**config_kwargs))
    assert type(model.base_model.model[0]).__name__ == "BottleneckLayer"

@pytest.mark.parametrize("config", [LoraConfig(target_modules=["0"], init_lora_weights=False), IA3Config()])
def test_instance(config):
    seen = testing_utils.set_init_weights_false(type(config), {})
    assert config.peft_type == "BOTTLENECK" and config.init_std == seen["init_std"]

@pytest.mark.parametrize("config_cls", [IA3Config, LoraConfig])
def test_merge(config_cls):
    testing_common._skip_if_merging_not_supported("MLP", config_cls, {})

@pytest.mark.parametrize("config_cls", [LoraConfig])
def test_mixed_adapter_batches(config_cls):
    assert config_cls is LoraConfig is testing_common.LoraConfig

@pytest.mark.parametrize("config_cls", [LoraConfig])
@pytest.mark.parametrize("answer", [41, 42])
@pytest.mark.parametrize("listed", [False, True])
def test_answer(listed, answer, config_cls):
    assert answer == 42

def test_of_no_configuration():
    raise AssertionError
"""


def run(folder: Path, expected: str) -> tuple[int, str]:
    """The exit status and the output of the small suite with this list."""
    (folder / "tests").mkdir()
    files = {"__init__.py": "", "testing_common.py": COMMON, "test_other.py": SUITE}
    files["testing_utils.py"] = "def set_init_weights_false(config_cls, kwargs): return kwargs\n"
    files["test_lora_variants.py"] = "raise AssertionError\n"
    for name, text in files.items():
        (folder / "tests" / name).write_text(text)
    shutil.copy(peft_suite.__file__, folder)
    (folder / peft_suite.EXPECTED.name).write_text(expected)
    for name in peft_suite.MODELS:  # there are none to make
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "-p",
        "peft_suite",
        "-q",
        "-rfsx",
        "tests",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_it_is_our_method_that_runs_and_the_list_is_strict(tmp_path):
    code, output = run(tmp_path, "# the answer is another\ntests/test_other.py::test_answer[True-*\n")
    test = r"tests/test_other\.py::test_answer\[{}-BottleneckConfig\]"
    assert code == 1, output
    assert re.search(f"FAILED {test.format('False-41')}", output), output
    assert re.search(rf"FAILED {test.format('True-42')} - \[XPASS", output), output
    assert re.search(f"XFAIL {test.format('True-41')} - the answer is another", output), output
    assert "2 failed, 4 passed, 1 skipped, 1 deselected, 1 xfailed" in output, output


def test_a_list_that_names_a_test_that_is_gone_is_an_error(tmp_path):
    code, output = run(tmp_path, "# gone\ntests/test_other.py::test_gone[*\n")
    assert code != 0 and re.search(r"peft_suite_expected.txt names no test of this suite by .*test_gone", output)


def test_every_expected_failure_has_its_reason():
    found = peft_suite.expected_failures()
    assert len(found) > 10 and all(reason.strip() for reason in found.values())


@pytest.mark.parametrize("name", peft_suite.MODELS)
def test_the_models_have_targets(name):
    """Each is of a family of the table, or the plugin names targets for it, as a user must."""
    import transformers

    from adapter_fast.placement import FAMILIES

    kind, settings = peft_suite.MODELS[name]
    model_type = getattr(transformers, kind).config_class(**settings).model_type
    assert (model_type in FAMILIES) != any(part in name for part in peft_suite.TARGETS)


def test_what_has_no_counterpart_is_left_out():
    plain = {"target_modules": ["a"], "r": 4, "lora_alpha": 8, "bias": "none", "init_lora_weights": False}
    assert peft_suite.translated(plain) == {"target_modules": ["a"], "bottleneck": 4, "init_std": peft_suite.STD}
    for variant in ({"bias": "all"}, {"use_dora": True}, {"init_lora_weights": "pissa"}, {"rank_pattern": {"a": 2}}):
        assert peft_suite.translated(variant) is None
        assert peft_suite.row_of(("a name", peft.LoraConfig, variant)) is None
