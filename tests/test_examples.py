"""The examples, by the very lines that the README gives, in a folder that is not the checkout."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(r"^    (python examples/\S+\.py .*--tiny)\b", (ROOT / "README.md").read_text("utf-8"), re.M)
SAID = {
    "classification": ["trained 9,218 of 45,666 parameters", "loaded again: True"],
    "causal_lm": ["praise: loss", "blame: loss", "without adapters: the film was a"],
    "vision": ["vit.layers.3", "a gradient below layer 2: False"],
    "peft_bottleneck": ["trainable params: ", "loaded again: True", "the base without the adapter: True"],
}


def test_the_readme_names_every_example():
    examples = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"offline"}
    assert {Path(shlex.split(command)[1]).stem for command in COMMANDS} == examples == set(SAID)


@pytest.mark.parametrize("command", COMMANDS)
def test_example(command, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    name = Path(shlex.split(command)[1]).stem
    if name == "peft_bottleneck":
        pytest.importorskip("peft")
    run = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for words in SAID[name]:
        assert words in run.stdout, run.stdout
    accuracy = re.search(r"accuracy (\S+)", run.stdout)
    assert accuracy is None or float(accuracy[1]) >= 0.9
    said = dict(re.findall(r"^(praise|blame|without adapters): the film was a (.*)$", run.stdout, re.M))
    assert len(set(said.values())) == len(said), "the tasks say the same"
