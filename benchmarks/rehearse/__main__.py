"""Command line of the rehearsal.

python -m benchmarks.rehearse -m pytest -m gpu tests/kernels/test_gpu.py    Triton's frontend and the launchers alone
python -m benchmarks.rehearse --compile -m benchmarks.quarter first         binaries for sm_90 too, as on the GPU

The arguments are Python's, and its processes see one GPU: their tensors lie in the host's memory, Triton compiles for
sm_90, launches are checked and counted, and nothing is computed, measured or compared. Prints what was launched and
compiled; the exit code is the command's own, or 1 where it launched nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import stub, tools

GPUS = ("h100", "h200")
HERE = Path(__file__).parent


def environment(folder: Path, *, real: bool = False, gpu: str = "h100", log: Path | None = None) -> dict[str, str]:
    """The variables under which a Python process, and every one that it starts, is part of a rehearsal.

    folder: where the stub, its count of launches and stand-ins for NVIDIA's tools go. real: compile to binaries. log: a
    file that gets a JSON line for each kernel.
    """
    folder = folder.resolve()
    library = stub.build(folder)
    count = folder / f"launches-{os.getpid()}"
    count.write_bytes(bytes(8))
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in tools.TOOLS:
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tools.__file__}" {name} "$@"\n')
        script.chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    paths = [str(HERE / "pretend"), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {
        "REHEARSE": "real" if real else "skip",
        "REHEARSE_GPU": gpu,
        "REHEARSE_LAUNCHES": str(count),
        "TRITON_LIBCUDA_PATH": str(library.parent),
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)]),
        "PYTEST_PLUGINS": "pretend_pytest",
    }
    return clean | changed | ({} if log is None else {"REHEARSE_LOG": str(log.resolve())})


def launches(variables: dict[str, str]) -> int:
    """How many launches there were, in all processes of that environment."""
    return int.from_bytes(Path(variables["REHEARSE_LAUNCHES"]).read_bytes(), sys.byteorder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rehearse",
        usage="%(prog)s [options] -m MODULE | -c CODE | FILE.py ...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--compile", action="store_true", help="to binaries for sm_90, not only through the frontend")
    parser.add_argument("--gpu", choices=GPUS, default="h100", help="[default: h100]")
    parser.add_argument("--folder", type=Path, default=Path("build/rehearse"), metavar="DIR")
    parser.add_argument("--log", type=Path, metavar="FILE", help="a JSON line a kernel  [default: DIR/kernels.jsonl]")
    given = list(sys.argv[1:] if arguments is None else arguments)
    start = next((i for i, word in enumerate(given) if word in ("-m", "-c") or word.endswith(".py")), len(given))
    options, command = parser.parse_args(given[:start]), given[start:]
    if not command:
        parser.error("what to rehearse? expected -m MODULE, -c CODE or a file, for example: -m benchmarks.smoke")
    log = options.log or options.folder / "kernels.jsonl"
    try:
        variables = environment(options.folder, real=options.compile, gpu=options.gpu, log=log)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    log.unlink(missing_ok=True)
    code = subprocess.run([sys.executable, *command], env=variables).returncode
    count = launches(variables)
    Path(variables["REHEARSE_LAUNCHES"]).unlink()
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    made = [row for row in rows if row["compiled"]]
    how = "compiled" if options.compile else "read by Triton's frontend"
    cpu = sum(row["cpu"] for row in made)
    kernels = f"{len({row['key'] for row in rows})} kernels, {len(made)} {how} in {cpu:.1f} CPU s"
    print(f"rehearsed: exit code {code}, {count} launches, {kernels}")
    if count == 0:
        print("nothing was launched", file=sys.stderr)
    return code or int(count == 0)


if __name__ == "__main__":
    sys.exit(main())
