"""The tests tested: every seeded fault of mutants.py turns the test it names red, and without it that test is green."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

ROOT = Path(__file__).parents[1]


def test_every_fault_still_applies():
    gone = [f"{one.name}: {one.file}" for one in MUTANTS if one.old not in (ROOT / one.file).read_text("utf-8")]
    assert not gone, f"the lines that these change are gone: {gone}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the tests need, to be broken."""
    copy = tmp_path_factory.mktemp("mutants") / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("adapter_fast", "kernels", "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def run(checkout, mutants):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    command += sorted({mutant.test for mutant in mutants})
    if len(mutants) == 1 and mutants[0].select:
        command += ["-k", mutants[0].select]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(checkout)}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fault_turns_its_test_red(mutant, checkout):
    path = checkout / mutant.file
    source = path.read_text()
    assert mutant.old in source, f"{mutant.name}: the line it changes is gone from {mutant.file}"
    path.write_text(source.replace(mutant.old, mutant.new))
    try:
        done = run(checkout, [mutant])
    finally:
        path.write_text(source)
    assert done.returncode != 0, f"{mutant.name}: {mutant.test} stayed green"
    # A fault must fail an assertion of the test, or crash the process that the fault sends out of bounds.
    assert done.returncode < 0 or re.search(r"\d+ failed", done.stdout), done.stdout[-2000:]


@pytest.mark.slow
def test_unbroken_the_same_tests_are_green(checkout):
    done = run(checkout, MUTANTS)
    assert done.returncode == 0, done.stdout[-2000:]
