"""The rules of traffic: who imports whom, what importing us costs, and which names are public."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adapter_fast

ROOT = Path(__file__).parents[1]

# A room imports itself and rooms of the lines before its own: those of one line do not know each other.
STOREYS = [
    ["kernels", "reference"],
    ["checks", "common"],
    ["testing"],  # for tests, benchmarks and doctor's self-check: no other room imports it
    ["children", "ops"],
    ["autograd"],
    ["functional"],
    ["config"],
    ["adapter"],
    ["placement"],
    ["recipe"],
    ["checkpoint"],
    ["adapter_fast"],  # the package's own __init__
    ["integrations"],
    ["measure"],
    ["profiler", "doctor", "tasks"],
    ["experiments"],
    ["benchmarks"],
    ["cli"],
    ["__main__"],
]
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
STDLIB = sys.stdlib_module_names
PUBLIC = [
    "AdapterConfig",
    "FusedAdapter",
    "ReferenceAdapter",
    "adapter_summary",
    "add_adapters",
    "disable_adapters",
    "fused_adapter",
    "load_adapters",
    "reference_adapter",
    "remove_adapters",
    "save_adapters",
    "set_adapter",
    "train_adapters",
]


class Imports(ast.NodeVisitor):
    """(dotted name, not when the file itself is imported?) for every import of a file.

    Later, or never, come imports in functions and those for type checkers.
    """

    def __init__(self, module: str, is_package: bool) -> None:
        self.package = module if is_package else module.rpartition(".")[0]
        self.depth = 0
        self.found: list[tuple[str, bool]] = []

    def visit_FunctionDef(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node):
        for_types = "TYPE_CHECKING" in ast.unparse(node.test)
        self.depth += for_types
        for statement in node.body:
            self.visit(statement)
        self.depth -= for_types
        for statement in node.orelse:
            self.visit(statement)

    def visit_Import(self, node):
        self.found += [(alias.name, self.depth > 0) for alias in node.names]

    def visit_ImportFrom(self, node):
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
        self.found += [(f"{base}.{alias.name}", self.depth > 0) for alias in node.names]


def modules():
    """Dotted name → path of every file of ours; kernels/ under the name it is imported by."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / "adapter_fast").rglob("*.py"))
        if not {"kernels", "benchmarks"} & set(path.parts)
    } | {
        ".".join(("adapter_fast", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for room in ("kernels", "benchmarks")
        for path in sorted((ROOT / room).rglob("*.py"))
    }


def imports(module, path):
    visitor = Imports(module, path.name == "__init__.py")
    visitor.visit(ast.parse(path.read_text("utf-8")))
    return visitor.found


def room(module):
    """'adapter_fast.placement.sites' → 'placement'; a name that is no file of ours belongs to the package itself."""
    parts = module.split(".")
    if len(parts) > 1 and ((ROOT / "adapter_fast" / parts[1]).is_dir() or f"{parts[0]}.{parts[1]}" in modules()):
        return parts[1]
    return "adapter_fast"


MODULES = modules()
VERSION = "adapter_fast.__version__"  # a string, which setup.py reads where it stands: the one import against the law


def neighbours(module):
    """The files of ours that a file imports, whenever it does."""
    for name, _ in imports(module, MODULES[module]):
        while name and name not in MODULES and name != VERSION:
            name = name.rpartition(".")[0]
        if name and name != VERSION:
            yield name


def folder(module):
    """Where a file lies. A package's own files and its __init__ are one folder, its sub-packages others.

    Files directly in adapter_fast/ are rooms by themselves, whose order STOREYS tells.
    """
    if MODULES[module].name == "__init__.py":
        return module
    parent = module.rpartition(".")[0]
    return module if parent == "adapter_fast" else parent


def circle(edges):
    """A circle among (from, to), as names; None where there is none."""
    sorter = graphlib.TopologicalSorter()
    for source, target in edges:
        if source != target:
            sorter.add(source, target)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return None


def test_the_walk_sees_the_house():
    assert {"adapter_fast", "adapter_fast.ops", "adapter_fast.kernels.tiles", "adapter_fast.reference"} <= set(MODULES)
    assert {room(module) for module in MODULES} == set(STOREY)
    source = "from . import a\nfrom .b import c\nfrom ..d import e\nimport f.g\ndef h():\n    from .i import j"
    source += "\nif TYPE_CHECKING:\n    from .k import l"
    visitor = Imports("adapter_fast.x.y", False)
    visitor.visit(ast.parse(source))
    names = [
        "adapter_fast.x.a",
        "adapter_fast.x.b.c",
        "adapter_fast.d.e",
        "f.g",
        "adapter_fast.x.i.j",
        "adapter_fast.x.k.l",
    ]
    assert visitor.found == [(name, index > 3) for index, name in enumerate(names)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    mine = room(module)
    for name, _ in imports(module, MODULES[module]):
        if name.split(".")[0] != "adapter_fast" or name == VERSION:
            continue
        other = room(name)
        assert other == mine or STOREY[other] < STOREY[mine], f"{module} imports {name}"
        assert mine != "common" or other == "common", f"{module} imports {name}"


def test_no_file_imports_itself_over_others():
    assert circle([("a", "b"), ("b", "c"), ("c", "a")]) in (list("abca"), list("bcab"), list("cabc"))
    assert circle([("a", "b"), ("b", "c"), ("a", "c"), ("a", "a")]) is None
    found = circle((module, other) for module in MODULES for other in neighbours(module))
    assert not found, " imports ".join(found)


def test_no_folder_imports_itself_over_others():
    """Names that packages offer lazily count; what is found by its name in a string (a form, a kind) does not."""
    found = circle((folder(module), folder(other)) for module in MODULES for other in neighbours(module))
    assert not found, " imports ".join(found)


# A kernel file imports those of its own line and of the lines before.
KERNELS = [
    ["blocks", "activations", "shapes", "tables", "offers", "errors"],
    ["tuned"],
    ["tiles", "launch"],
    ["reduce", "expand"],
    ["forward"],
    ["backward"],
    ["forms"],
]
KERNEL_LINE = {name: number for number, names in enumerate(KERNELS) for name in names}


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "kernels"])
def test_kernels_stand_in_order(module):
    for other in neighbours(module):
        assert KERNEL_LINE[other.split(".")[2]] <= KERNEL_LINE[module.split(".")[2]], f"{module} imports {other}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "kernels"])
def test_kernels_import_torch_triton_and_their_siblings_by_relative_imports(module):
    assert "adapter_fast" not in MODULES[module].read_text("utf-8").replace("adapter_fast.kernels", "")
    for name, _ in imports(module, MODULES[module]):
        assert name.split(".")[0] in {"torch", "triton", *STDLIB} or name.startswith("adapter_fast.kernels."), name


PURE = tuple(f"adapter_fast.kernels.{name}" for name in ("shapes", "tables", "offers", "tiles", "tuned"))


def test_tiles_are_pure_python():
    for module in PURE:
        for name, _ in imports(module, MODULES[module]):
            assert name.split(".")[0] in STDLIB or name.startswith(("adapter_fast.kernels", *PURE)), f"{module}: {name}"
            if name.startswith("adapter_fast.kernels."):
                assert name.startswith(PURE), f"{module} imports {name}"


def test_reference_imports_torch_only():
    found = imports("adapter_fast.reference", MODULES["adapter_fast.reference"])
    assert all(name.split(".")[0] in {"torch", *STDLIB} for name, _ in found)


def test_only_ops_imports_the_kernels_and_only_when_called():
    for module, path in MODULES.items():
        for name, lazily in imports(module, path):
            if name.startswith("adapter_fast.kernels") and room(module) != "kernels":
                assert room(module) in {"ops", "benchmarks"}, f"{module} imports {name}"
                if room(module) != "benchmarks" or not name.startswith(PURE):
                    assert lazily, f"{module} imports {name} when it is itself imported"


def test_no_room_needs_the_kernels_as_a_top_level_package():
    for module, path in MODULES.items():
        assert not [name for name, _ in imports(module, path) if name.split(".")[0] == "kernels"], module
    assert not (ROOT / "kernels/__init__.py").exists()
    assert (ROOT / "adapter_fast/kernels").resolve() == ROOT / "kernels"
    assert (ROOT / "adapter_fast/benchmarks").resolve() == ROOT / "benchmarks"


def test_no_file_hides_another_of_its_name():
    """A process that starts in a file's folder finds that file first."""
    for module, path in MODULES.items():
        assert path.stem == "__main__" or module.rpartition(".")[2] not in STDLIB, f"{path} hides a standard module"
    done = subprocess.run(
        [sys.executable, "-c", "import torch, triton"],
        cwd=ROOT / "kernels",
        env={key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_testing_is_for_measuring_only():
    for module, path in MODULES.items():
        if any(name.startswith("adapter_fast.testing") for name, _ in imports(module, path)):
            assert room(module) in {"benchmarks", "doctor"}, module


NOT_INSTALLED = tuple(f"adapter_fast.benchmarks.{room}" for room in ("pages", "tiles", "rehearse"))


def test_what_is_installed_imports_nothing_that_is_not():
    for module, path in MODULES.items():
        if not module.startswith(NOT_INSTALLED):
            assert not [name for name, _ in imports(module, path) if name.startswith(NOT_INSTALLED)], module


def test_public_names_are_pinned():
    assert sorted(adapter_fast.__all__) == PUBLIC
    assert all(getattr(adapter_fast, name) is not None for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(adapter_fast))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = adapter_fast.no_such_name


def python(program, **environment):
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_neither_triton_nor_transformers_and_touches_no_device():
    program = """
import sys, torch
before = set(sys.modules)
import adapter_fast
assert adapter_fast.FusedAdapter and adapter_fast.fused_adapter
new = {name.split(".")[0] for name in set(sys.modules) - before}
assert not new & {"triton", "transformers", "safetensors", "numpy"}, new
assert not any(name.startswith("adapter_fast.kernels") for name in sys.modules)
assert not torch.cuda.is_initialized()
"""
    python(program)


def test_works_without_triton_and_without_transformers():
    program = """
import sys
for name in ("triton", "transformers"):
    sys.modules[name] = None
import torch, adapter_fast
x = torch.randn(5, 8, dtype=torch.float64)
fused = adapter_fast.FusedAdapter(8, 4, dtype=torch.float64, init_std=0.5)
plain = adapter_fast.ReferenceAdapter(8, 4, dtype=torch.float64)
plain.load_state_dict(fused.state_dict())
torch.testing.assert_close(fused(x), plain(x))
fused(x).sum().backward()
print(fused.explain(x).name)
"""
    assert python(program).strip() == "torch"
