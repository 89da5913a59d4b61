"""The quarter of an hour on a GPU: a campaign in two parts, each a list of steps with a time box.

    python -m benchmarks.quarter first --output DIR        330 s: is it right, how long does it take
    python -m benchmarks.quarter second --output DIR       400 s: what failed again, tiles, forms, counters
    python -m benchmarks.quarter first --list              the steps, and run nothing

Every step is a process group of its own: one that fails, hangs or poisons its CUDA context ends alone. What is known is
written after every step: DIR/PART.json (steps, their outcomes, their results) and DIR/PART.log.xz, two files. Needs no
make, no network and no .git: the commit is in ADAPTER_FAST_COMMIT.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from adapter_fast.profiler.files import write_whole

CACHE = Path("/tmp/adapter_fast")  # the same path where it was filled: Triton writes absolute paths into its cache
LINES = 12  # of a step's output that the report keeps
LOG_BYTES = 400_000  # of a step's output that the log keeps


@dataclass(frozen=True)
class Step:
    """One command: at most so many seconds. beside: it starts with the step before it; after: only if that passed."""

    name: str
    seconds: float
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    beside: bool = False
    only_if_failed: str = ""

    @property
    def file(self) -> str:
        """Its name as a file's."""
        return "".join(c if c.isalnum() else "-" for c in self.name)


def python(*arguments: str) -> list[str]:
    """This interpreter on a module."""
    return [sys.executable, "-m", *arguments]


def gpu_tests(*arguments: str) -> list[str]:
    """pytest over GPU tests, each with a time-out that ends its process."""
    quiet = ["-p", "no:cacheprovider", "-q", "--tb", "short", "-m", "gpu"]
    return python("pytest", *quiet, "--timeout", "60", "--timeout-method", "thread", *arguments)


def bench(output: Path | None, suite: str, *arguments: str) -> list[str]:
    """adapter-fast bench on the GPU, rows alone; no output: nothing is kept but the compilers' caches."""
    options = ["--device", "cuda", "--no-plots", "--suite", suite]
    options += [] if output is None else ["--output", str(output / "results")]
    return python("adapter_fast", "bench", *options, *arguments)


KEY_SHAPES = ("16384-768-64", "16384-1024-64", "16384-4096-64", "65536-1024-64", "16384-1024-256", "128-1024-64")
KEY = [f"T{T}-d{d}-m{m}-bfloat16" for T, d, m in (words.split("-") for words in KEY_SHAPES)]
KEY.insert(3, "T16384-d768-m64-bfloat16-w32")
TABLE_1 = ("fused", "reference", "bare", "adapter-l", "peft-lora", "peft-lora-merged")


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """--option a --option b."""
    return [word for value in values for word in (option, value)]


def first(output: Path) -> list[Step]:
    """Is it right, and how long does it take: 330 s."""
    return [
        Step("machine", 10, ["nvidia-smi"]),
        Step("smoke", 60, python("benchmarks.smoke")),
        Step("smoke, memcheck", 90, python("benchmarks.sanitize", "--tool", "memcheck"), only_if_failed="smoke"),
        Step("smoke, blocking", 60, python("benchmarks.smoke"), {"CUDA_LAUNCH_BLOCKING": "1"}, only_if_failed="smoke"),
        Step("tests", 90, gpu_tests("-n", "10", "tests/test_gpu.py", "-k", "not compile_fullgraph")),
        Step(
            "torch.compile, warmed",
            75,
            bench(None, "op", "--no-autotune", "--rounds", "1", "--provider", "compile", *repeated("--case", KEY)),
            beside=True,
        ),
        Step("launches", 45, python("benchmarks.launches", "--peers")),
        Step("op", 110, bench(output, "op", "--no-autotune", "--rounds", "5", *repeated("--case", KEY))),
        Step("table 1", 60, bench(output, "latency", "--rounds", "10", *repeated("--provider", TABLE_1))),
        Step("form sliced", 40, gpu_tests("tests/test_gpu_forms.py", "-k", "sliced")),
    ]


def second(output: Path) -> list[Step]:
    """What failed again, then tiles, forms and counters: 400 s."""
    return [
        Step("tests", 60, gpu_tests("-n", "10", "tests/test_gpu.py", "-k", "not compile_fullgraph")),
        Step("tile choices", 60, gpu_tests("-n", "10", "tests/test_gpu_forms.py", "-k", "every_choice or number_of")),
        Step("op, max-autotune", 80, bench(output, "op", "--rounds", "5", "--case", KEY[1])),
        Step("ncu", 45, python("benchmarks.ncu", "--output", str(output / "results"))),
        Step("memcheck", 60, python("benchmarks.sanitize", "--tool", "memcheck")),
        Step(
            "BERT-base step", 60, bench(output, "model", "--rounds", "3", "--provider", "fused", "--provider", "bare")
        ),
    ]


PARTS = {"first": (first, 330), "second": (second, 400)}


@dataclass
class Running:
    """A step under way: its process, None where it did not start, and since when."""

    step: Step
    path: Path
    log: IO[bytes]
    process: subprocess.Popen | None
    began: float
    error: str = ""


class Campaign:
    """Runs steps in order and keeps what they leave.

    name: of the part. output: where PART.json and PART.log.xz go; what steps write is below it until the end.
    seconds: for all of them.
    """

    def __init__(self, name: str, steps: Sequence[Step], output: Path, seconds: float) -> None:
        self.name, self.steps, self.output, self.seconds = name, steps, output, seconds
        self.began = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.parts = output / "parts"

    def run(self) -> int:
        """Every step; 1 where one failed."""
        self.parts.mkdir(parents=True, exist_ok=True)
        for batch in self._batches():
            left = self.seconds - (time.monotonic() - self.began)
            if left < 5:
                self.rows += [{"step": step.name, "outcome": "no time left"} for step in batch]
                continue
            for running in [self._start(step) for step in batch]:
                self.rows.append(self._finish(running))
                self._save()
        self._save()
        self._pack()
        print(self.table())
        return int(any(row["outcome"] != "ok" for row in self.rows))

    def table(self) -> str:
        """A line a step: outcome, seconds, and the last line it printed."""
        lines = []
        for row in self.rows:
            last = " ".join(row.get("last", [])[-1:])[:100]
            lines.append(f"{row['step']:24s} {row['outcome']:16s} {row.get('seconds', 0):6.1f} s  {last}")
        return "\n".join(lines)

    def _batches(self) -> list[list[Step]]:
        batches: list[list[Step]] = []
        for step in self.steps:
            if step.beside and batches:
                batches[-1].append(step)
            else:
                batches.append([step])
        return batches

    def _start(self, step: Step) -> Running:
        path = self.parts / f"{step.file}.log"
        log = path.open("wb")
        failed = [row["step"] for row in self.rows if row["outcome"] != "ok"]
        if step.only_if_failed and step.only_if_failed not in failed:
            return Running(step, path, log, None, time.monotonic(), "not needed")
        environment = {**os.environ, **self._environment(), **step.environment}
        environment["RESULT"] = str(self.parts / f"{step.file}.json")
        try:
            process = subprocess.Popen(
                step.command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        except OSError as error:
            return Running(step, path, log, None, time.monotonic(), f"did not start: {error}")
        return Running(step, path, log, process, time.monotonic())

    def _environment(self) -> dict[str, str]:
        return {
            "TRITON_CACHE_DIR": str(CACHE / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def _finish(self, running: Running) -> dict[str, Any]:
        if running.process is None:
            running.log.close()
            outcome = "ok" if running.error == "not needed" else running.error
            return {"step": running.step.name, "outcome": outcome, "seconds": 0.0, "last": [running.error]}
        limit = min(running.step.seconds, self.seconds - (running.began - self.began))
        try:
            code = running.process.wait(max(0.1, running.began + limit - time.monotonic()))
            outcome = "ok" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            _end(running.process)
            outcome = f"cut at {limit:.0f} s"
        running.log.close()
        lines = running.path.read_bytes().decode(errors="replace").splitlines()
        spent = round(time.monotonic() - running.began, 1)
        row = {"step": running.step.name, "outcome": outcome, "seconds": spent, "last": lines[-LINES:]}
        print(f"[{time.monotonic() - self.began:5.1f} s] {row['step']}: {outcome}, {spent} s", flush=True)
        return row

    def _save(self) -> None:
        """All that is known, whole: a command that is cut still leaves it."""
        results = {path.stem: _json(path) for path in sorted(self.parts.glob("*.json"))}
        found = sorted((self.output / "results").rglob("*.json"))
        results |= {str(path.relative_to(self.output)): _json(path) for path in found}
        known = {"seconds": round(time.monotonic() - self.began, 1), "steps": self.rows, "results": results}
        write_whole(self.output / f"{self.name}.json", json.dumps(known) + "\n")

    def _pack(self) -> None:
        with lzma.open(self.output / f"{self.name}.log.xz", "wt", encoding="utf-8") as packed:
            for path in sorted(self.parts.glob("*.log")):
                text = path.read_bytes()[-LOG_BYTES:].decode(errors="replace")
                packed.write(f"\n===== {path.stem}\n{text}")
        for folder in (self.parts, self.output / "results"):
            for path in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []:
                path.unlink() if path.is_file() else path.rmdir()
            if folder.is_dir():
                folder.rmdir()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        return None  # cut while it wrote


def _end(process: subprocess.Popen) -> None:
    """The whole process group, politely, then not."""
    for kind, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        try:
            os.killpg(process.pid, kind)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def main(arguments: list[str] | None = None) -> int:
    """Run a part; the exit code, 1 where a step failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quarter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--output", type=Path, default=Path("build/quarter"), metavar="DIR")
    parser.add_argument("--seconds", type=float, help="for the whole part  [default: 330 and 400]")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps alone")
    parser.add_argument("--list", action="store_true", help="name the steps and run nothing")
    options = parser.parse_args(arguments)
    make, seconds = PARTS[options.part]
    steps = make(options.output.resolve())
    steps = [step for step in steps if not options.only or step.name in options.only]
    if options.list:
        for step in steps:
            print(f"{step.name:24s} {step.seconds:4.0f} s  {' '.join(step.command)}")
        return 0
    return Campaign(options.part, steps, options.output.resolve(), options.seconds or seconds).run()


if __name__ == "__main__":
    sys.exit(main())
