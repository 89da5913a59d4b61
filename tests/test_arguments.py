"""How much a function may be handed by place: past a few arguments nobody sees which is which."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 8
MOST_OF_DEVICE_FUNCTIONS = 18  # Triton functions that kernels call
# What torch.library calls, by the flat schemas of adapter_fast/ops/__init__.py.
REGISTERED = {f"{kind}_{name}" for kind in ("_op", "_fake") for name in ("forward", "forward_save", "backward")}


def most(function, path):
    """How many positional parameters this function may have; None: any number."""
    jitted = any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)
    if jitted:
        return None if function.name.endswith("_kernel") else MOST_OF_DEVICE_FUNCTIONS
    if path.startswith("adapter_fast/ops/") and function.name in REGISTERED:
        return None
    return MOST


def too_many(source, path):
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count, limit = len(node.args.posonlyargs) + len(node.args.args), most(node, path)
            if limit is not None and count > limit:
                found.append(f"{path}:{node.lineno}: {node.name} takes {count} by place, at most {limit}")
    return found


def test_the_count_is_of_parameters_by_place():
    names = ", ".join(f"a{i}" for i in range(MOST))
    assert not too_many(f"def f({names}, *rest, key, **more): ...", "adapter_fast/x.py")
    assert too_many(f"class A:\n    def f(self, {names}): ...", "adapter_fast/x.py")
    assert too_many(f"def f(b, /, {names}): ...", "benchmarks/x.py")
    many = ", ".join(f"a{i}" for i in range(MOST_OF_DEVICE_FUNCTIONS + 1))
    assert too_many(f"@triton.jit\ndef f({many}): ...", "kernels/x.py")
    assert not too_many(f"@triton.jit(do_not_specialize=['a1'])\ndef f_kernel({many}): ...", "kernels/x.py")


def test_no_function_takes_many_arguments_by_place():
    # rglob does not follow adapter_fast's links to the other two.
    paths = [path for room in ("adapter_fast", "kernels", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    assert len(paths) > 200
    found = [line for path in paths for line in too_many(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())]
    assert not found, "\n".join(found)
