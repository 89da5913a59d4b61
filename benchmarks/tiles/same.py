"""Whether a change of the kernels' source changes what is compiled: a digest of each case's code, before and after.

    python -m benchmarks.tiles.same --write build/before.json              before the change
    python -m benchmarks.tiles.same --against build/before.json            after it: exit code 1 names what differs
    python -m benchmarks.tiles.same --stage ptx --filter expand …          where Triton's own code differs

Compared is Triton's code after its own simplification (ttir), of which the rest of the compiler makes the binary on
every architecture, or PTX; names of values, source lines and comments are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from adapter_fast.benchmarks.tiles.aot.compiler import described, load_cases
from adapter_fast.benchmarks.tiles.aot.progress import Progress
from adapter_fast.benchmarks.tiles.aot.targets import ARCHS
from adapter_fast.common.files import write_json

CASES = "adapter_fast.benchmarks.tiles.aot.cases"


def cleaned(text: str, stage: str) -> str:
    """The code without what names a place in the source; values are numbered in the order in which they appear."""
    if stage == "ptx":
        text = text.partition(".section\t.debug")[0]
        text = re.sub(r"//.*", "", text)
        return "\n".join(
            line for line in text.splitlines() if line.strip() and not re.match(r"\s*\.(loc|file)\b|\$L__tmp", line)
        )
    text = re.sub(r" ?loc\((?:[^()]|\([^()]*\))*\)", "", re.sub(r"(?m)^#loc.*$\n?", "", text))
    numbers: dict[str, int] = {}
    return re.sub(r"%\w+", lambda name: f"%{numbers.setdefault(name[0], len(numbers))}", text)


def digest(arch_name: str, index: int, stage: str) -> str:
    """sha256 of the cleaned code of one case; no later stage is run."""
    from triton._C.libtriton import ir
    from triton.compiler import make_backend

    arch, case = ARCHS[arch_name], load_cases(CASES, arch_name)[index]
    source, target = described(case, arch)
    backend = make_backend(target)
    options = backend.parse_options(dict(case.options))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    code = source.make_ir(target, options, functions, modules, context)
    stages: dict = {}
    backend.add_stages(stages, options, source.language)
    metadata = {"target": target, **options.__dict__}
    for name, run in stages.items():
        code = run(code, metadata)
        if name == stage:
            break
    return hashlib.sha256(cleaned(str(code), stage).encode()).hexdigest()


def digests(archs: list[str], part: str, stage: str) -> dict[str, str]:
    """By "<architecture> <case>", of all cases whose name contains this part."""
    work = [
        (arch, index, case.name)
        for arch in archs
        for index, case in enumerate(load_cases(CASES, arch))
        if part in case.name
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), max(1, len(work))), mp_context=context) as pool:
        made = [pool.submit(digest, arch, index, stage) for arch, index, _ in work]
        progress = Progress(len(made))
        for task, (arch, _, name) in zip(made, work):
            task.result()
            progress.step(f"{arch} {name}")
    return {f"{arch} {name}": task.result() for task, (arch, _, name) in zip(made, work)}


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each case that is other code now, was not there, or is there no longer."""
    changed = [
        f"{name}: {'other code' if name in before else 'not there before'}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    return changed + [f"{name}: no longer there" for name in before.keys() - after.keys()]


def main(arguments: list[str] | None = None) -> int:
    """Write or compare, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.same",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the digests there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with what --write kept")
    parser.add_argument("--stage", default="ttir", choices=["ttir", "ptx"])
    parser.add_argument("--arch", action="append", choices=list(ARCHS), help="may be repeated; sm_80 and sm_90 without")
    parser.add_argument("--filter", default="", metavar="SUBSTR", help="only cases whose name contains this")
    options = parser.parse_args(arguments)
    if not options.write and not options.against:
        parser.error("--write or --against must name a file")
    try:
        before = json.loads(options.against.read_text("utf-8")) if options.against else {}
    except (OSError, ValueError):
        parser.error(f"--against must name what --write kept, got {options.against}")
    os.environ.pop("TRITON_INTERPRET", None)  # interpreted functions cannot be compiled
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    archs = options.arch or ["sm_80", "sm_90"]
    found = digests(archs, options.filter, options.stage)
    if not found:
        parser.error(f"no case's name contains {options.filter!r}")
    if options.write:
        print(f"wrote {len(found)} digests: {write_json(options.write, found)}")
    if not options.against:
        return 0
    asked = {name: value for name, value in before.items() if name.split()[0] in archs and options.filter in name}
    changed = differences(asked, found)
    print("\n".join([*changed, f"{len(found)} cases compared, {len(changed)} differ ({options.stage})"]))
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
