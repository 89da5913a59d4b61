"""docs/extending.md: its diffs apply to these sources, and what they add works; a copy of the checkout is extended."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text("utf-8")
DIFFS = dict(re.findall(r"^## (.+?)\n(?:(?!^## ).)*?```diff\n(.*?)```$", PAGE, re.S | re.M))
COPIED = ("adapter_fast", "kernels", "benchmarks", "tests/helpers", "docs")


def touched(diff):
    return set(re.findall(r"^\+\+\+ b/(.+)$", diff, re.M))


def test_the_diffs_apply_and_what_they_add_works(tmp_path):
    for folder in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}  # else git looks for a checkout around it
    for name, diff in DIFFS.items():
        command = ["git", "apply", "-"]
        done = subprocess.run(command, cwd=tmp_path, env=outside, input=diff, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    paths = os.pathsep.join([str(tmp_path), str(tmp_path / "tests/helpers")])
    environment = {**os.environ, "PYTHONPATH": paths, "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(tmp_path / "tests/helpers/additions.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert list(outcomes) == [name.lower().replace(" ", "_") for name in DIFFS]
    assert not any(outcomes.values()), "\n".join(outcomes.values())


def test_the_page_has_one_of_each():
    assert list(DIFFS) == [
        *("An activation", "A family", "A placement", "A kernel form"),
        *("A peer", "An experiment", "A kind of task"),
    ]
    assert PAGE.count("```diff") == len(DIFFS)


def test_an_activation_touches_its_functions_and_its_two_references_alone():
    assert touched(DIFFS["An activation"]) == {
        "kernels/activations.py",
        "adapter_fast/reference.py",
        "adapter_fast/ops/eager.py",
    }
