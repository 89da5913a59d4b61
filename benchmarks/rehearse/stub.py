"""Builds stub.c into a libcuda.so.1, against the cuda.h that the installed Triton brings."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("stub.c")


def build(folder: Path) -> Path:
    """The library in that folder, made there where it is not or is older than its source.

    Raises:
        RuntimeError: no Triton, no C compiler, or one that fails.
    """
    library = folder / "libcuda.so.1"
    if library.exists() and library.stat().st_mtime > SOURCE.stat().st_mtime:
        return library
    triton = find_spec("triton")  # found, and not imported
    compiler = shutil.which("cc") or shutil.which("gcc")
    if triton is None or not triton.origin or compiler is None:
        raise RuntimeError("a rehearsal needs Triton and a C compiler (cc or gcc) on the PATH")
    headers = Path(triton.origin).parent / "backends" / "nvidia" / "include"
    folder.mkdir(parents=True, exist_ok=True)
    new = library.with_suffix(".new")
    order = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-Wl,-soname,libcuda.so.1",
        f"-I{headers}",
        str(SOURCE),
        "-o",
        str(new),
    ]
    done = subprocess.run(order, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{compiler} failed on {SOURCE}: {done.stderr[-500:]}")
    new.replace(library)
    return library
