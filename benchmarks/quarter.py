"""The quarter of an hour on a GPU: a campaign in two parts, each a list of steps with a time box.

    python -m benchmarks.quarter first --output DIR        330 s: is it right, how long does it take
    python -m benchmarks.quarter second --output DIR       400 s: what failed again, tiles, forms, counters
    python -m benchmarks.quarter first --list              the steps, and run nothing
    python -m benchmarks.quarter first --patience 4        on a machine that is slower than a GPU's, as in a rehearsal
    python -m benchmarks.quarter first --keep FILE         results of a run's FILE, into benchmarks/results

Every step is a process group of its own: one that fails, hangs or poisons its CUDA context ends alone. What is known is
written after every step: DIR/PART.json (steps, their outcomes, their results) and DIR/PART.log.xz, two files. Needs no
make, no network and no .git: the commit is in ADAPTER_FAST_COMMIT.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapter_fast.common.files import write_whole

CACHE = Path(
    "/tmp/adapter_fast-cache"
)  # the same path where it was filled: Triton writes absolute paths into its cache
CARRIED = Path("build/triton-cache.tar.xz")  # what python -m benchmarks.tiles.precompile --pack wrote elsewhere
LINES = 12  # of a step's output that the report keeps
LOG_BYTES = 400_000  # of a step's output that the log keeps
RESULT_BYTES = 1_000_000  # of a results file that the report takes in


@dataclass(frozen=True)
class Step:
    """One command.

    expected: seconds, as seen on an H200 with 16 cores where it ran there; seconds: after so many it is ended.
    beside: it starts with the step before it. only_if_failed: the step without whose failure it does not run; ends: and
    after it no other runs.
    """

    name: str
    expected: float
    seconds: float
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    beside: bool = False
    only_if_failed: str = ""
    ends: bool = False

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
# The LoRA paper's Table 1, where fine-tuning and merged LoRA are the bare model: nothing is compiled.
TABLE_1 = ("fused", "reference", "adapter-l", "bare")
TABLE_1_CASES = {"1": "b1-s128-m112", "16": "b16-s256-m112", "32": "b32-s512-m5"}
FORMS = "tests/kernels/test_gpu_forms.py"
TESTS = ("-n", "10", "tests/kernels/test_gpu.py", "-k", "not compile_fullgraph")


def repeated(option: str, values: Sequence[str]) -> list[str]:
    """--option a --option b."""
    return [word for value in values for word in (option, value)]


def compiling(part: str) -> Step:
    """Every kernel of a part on all cores, or out of a carried cache; what does not fit is compiled where it is met."""
    carried = ["--unpack", str(CARRIED)] if CARRIED.is_file() else []
    return Step("compile", 25, 50, python("benchmarks.tiles.precompile", part, *carried))


def first(output: Path) -> list[Step]:
    """Is it right, and how long does it take: 330 s."""
    blocking = {"CUDA_LAUNCH_BLOCKING": "1"}
    warm = bench(None, "op", "--no-autotune", "--rounds", "1", "--provider", "compile")
    table_1 = ("--rounds", "5", *repeated("--provider", TABLE_1))
    return [
        Step("machine", 0, 10, ["nvidia-smi"]),
        compiling("first"),
        # 50 s where it compiled its 32 kernels itself.
        Step("smoke", 20, 40, python("benchmarks.smoke")),
        Step(
            "smoke, memcheck",
            0,
            90,
            python("benchmarks.tiles.sanitize", "--tool", "memcheck"),
            {},
            only_if_failed="smoke",
        ),
        Step("smoke, blocking", 0, 60, python("benchmarks.smoke"), blocking, only_if_failed="smoke", ends=True),
        # 49 s with the compiler at work in each, and torch.compile 70 s in one process.
        Step("tests", 40, 90, gpu_tests(*TESTS)),
        Step("torch.compile, warmed", 40, 75, [*warm, *repeated("--case", KEY[::2])], beside=True),
        Step("torch.compile, warmed too", 40, 75, [*warm, *repeated("--case", KEY[1::2])], beside=True),
        Step("form sliced", 35, 45, gpu_tests(FORMS, "-k", "sliced")),
        Step("launches", 17, 30, python("benchmarks.tiles.launches", "--peers")),
        Step("op", 85, 100, bench(output, "op", "--no-autotune", "--rounds", "5", *repeated("--case", KEY))),
        # Batch 1 with six contenders and ten rounds: 50 s or less.
        *[
            Step(
                f"table 1, batch {batch}",
                30,
                40,
                bench(output, "latency", *table_1, "--case", f"gpt2-medium-{case}-bfloat16"),
            )
            for batch, case in TABLE_1_CASES.items()
        ],
    ]


def second(output: Path) -> list[Step]:
    """What failed again, then tiles, forms and counters: 400 s."""
    results = str(output / "results")
    shapes = repeated("--case", ("16384,1024,64", "65536,1024,64"))
    sweep = python("benchmarks.tiles.launches", "--sweep", *shapes)
    bert = repeated("--provider", ("fused", "reference", "bare"))
    return [
        compiling("second"),
        Step("tests", 40, 60, gpu_tests(*TESTS)),
        Step("tile choices", 50, 60, gpu_tests("-n", "10", FORMS, "-k", "choice or number_of")),
        Step("host", 12, 20, gpu_tests(FORMS, "-k", "the_host")),
        Step(
            "form sliced, timed",
            12,
            25,
            python("benchmarks.tiles.launches", *shapes, "--case", "128,1024,64"),
            {"ADAPTER_FAST_KERNELS": "sliced"},
        ),
        Step("tiles", 45, 60, sweep),
        Step("op, max-autotune", 60, 80, bench(output, "op", "--rounds", "5", "--case", KEY[1])),
        Step("ncu", 40, 50, python("benchmarks.tiles.ncu", "--output", results, "--timeout", "20")),
        Step("memcheck", 40, 50, python("benchmarks.tiles.sanitize", "--tool", "memcheck", "--timeout", "40")),
        Step("BERT-base step", 40, 60, bench(output, "model", "--rounds", "3", "--case", BERT, *bert)),
    ]


BERT = "bert-base-b32-s128-m64-bfloat16"
PARTS = {"first": (first, 330), "second": (second, 400)}


def expected(steps: Sequence[Step]) -> float:
    """Seconds of all steps, of those side by side the longest."""
    total = longest = 0.0
    for step in steps:
        if not step.beside:
            total, longest = total + longest, 0.0
        longest = max(longest, step.expected)
    return total + longest


@dataclass
class Running:
    """A step under way, and since when."""

    step: Step
    path: Path
    process: subprocess.Popen
    began: float
    limit: float


class Campaign:
    """Runs steps in order and keeps what they leave.

    name: of the part. output: where PART.json and PART.log.xz go; what steps write is below it until the end.
    seconds: for all of them.
    """

    def __init__(self, name: str, steps: Sequence[Step], output: Path, seconds: float) -> None:
        self.name, self.steps, self.output, self.seconds = name, steps, output, seconds
        self.began = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.running: list[Running] = []
        self.ended = 0  # the signal that ended it
        self.parts = output / "parts"

    def run(self) -> int:
        """Every step; 1 where one failed. Ended from outside (SIGTERM, Ctrl-C) it ends its steps and keeps the rest."""
        shutil.rmtree(self.parts, ignore_errors=True)  # of a run that was killed
        self.parts.mkdir(parents=True)
        # A signal is looked at after a start: an exception out of one would leave a process that nobody ends.
        before = {kind: signal.signal(kind, self._end_from_outside) for kind in (signal.SIGTERM, signal.SIGINT)}
        try:
            for batch in self._batches():
                for step in batch if not self.ended else ():
                    self._start(step)
                while self.running and not self.ended:
                    time.sleep(0.02)
                    for running in list(self.running):
                        self._look_at(running)
        finally:
            for running in list(self.running):
                self._finish(running, "ended from outside")
            self._save()
            self._pack()
            for kind, handler in before.items():
                signal.signal(kind, handler)
        if self.ended:
            return 128 + self.ended
        print(self.table())
        return int(any(row["outcome"] not in ("ok", NOT_NEEDED) for row in self.rows))

    def table(self) -> str:
        """A line a step: outcome, seconds, and the last line it printed."""
        lines = []
        for row in self.rows:
            last = " ".join(row["last"][-1:])[:100]
            lines.append(f"{row['step']:26s} {row['outcome']:16s} {row['seconds']:6.1f} s  {last}")
        return "\n".join(lines)

    def _end_from_outside(self, kind: int, frame: object) -> None:
        self.ended = kind

    def _batches(self) -> list[list[Step]]:
        batches: list[list[Step]] = []
        for step in self.steps:
            if step.beside and batches:
                batches[-1].append(step)
            else:
                batches.append([step])
        return batches

    def _start(self, step: Step) -> None:
        """Start it, or write down why not."""
        failed = {row["step"] for row in self.rows if row["outcome"] not in ("ok", NOT_NEEDED)}
        ended = [row["step"] for row in self.rows for other in self.steps if other.ends and row["step"] == other.name]
        left = self.seconds - (time.monotonic() - self.began)
        if any(row["outcome"] != NOT_NEEDED for row in self.rows if row["step"] in ended):
            return self._keep(step, "not run", 0.0, [f"the last after a failure was {ended[0]}"])
        if step.only_if_failed and step.only_if_failed not in failed:
            return self._keep(step, NOT_NEEDED, 0.0, [])
        if left < LEAST:
            return self._keep(step, "no time left", 0.0, [])
        path = self.parts / f"{step.file}.log"
        environment = {**os.environ, **_ENVIRONMENT, **step.environment, "RESULT": str(path.with_suffix(".json"))}
        try:
            with path.open("wb") as log:
                process = subprocess.Popen(
                    step.command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
        except OSError as error:
            return self._keep(step, "did not start", 0.0, [str(error)])
        self.running.append(Running(step, path, process, time.monotonic(), min(step.seconds, left)))
        return None

    def _look_at(self, running: Running) -> None:
        code = running.process.poll()
        if code is not None:
            self._finish(running, "ok" if code == 0 else f"exit code {code}")
        elif time.monotonic() - running.began > running.limit:
            self._finish(running, f"cut at {running.limit:.0f} s")

    def _finish(self, running: Running, outcome: str) -> None:
        spent = time.monotonic() - running.began
        _end(running.process)
        self.running = [one for one in self.running if one is not running]
        self._keep(running.step, outcome, spent, _tail(running.path).splitlines()[-LINES:])

    def _keep(self, step: Step, outcome: str, seconds: float, last: list[str]) -> None:
        self.rows.append({"step": step.name, "outcome": outcome, "seconds": round(seconds, 1), "last": last})
        print(f"[{time.monotonic() - self.began:5.1f} s] {step.name}: {outcome}, {seconds:.1f} s", flush=True)
        self._save()

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
                packed.write(f"\n===== {path.stem}\n{_tail(path)}")
        for folder in (self.parts, self.output / "results"):
            shutil.rmtree(folder, ignore_errors=True)


LEAST = 5.0  # seconds that are worth a start
NOT_NEEDED = "not needed"
_ENVIRONMENT = {
    "TRITON_CACHE_DIR": str(CACHE / "triton"),
    "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
}


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read(LOG_BYTES).decode(errors="replace")


def _json(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if len(text) <= RESULT_BYTES else f"left out: {len(text)} characters"
    except (OSError, ValueError):
        return None  # cut while it wrote


def _end(process: subprocess.Popen) -> None:
    """The process, politely, then whatever is left of its group."""
    for kind, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        try:
            os.killpg(process.pid, kind)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def keep_results(file: Path, results: Path) -> list[Path]:
    """The results in a part's JSON into files of their own below `results`, rows in place of those they are of.

    Those of benchmarks/tiles/launches.py go to <device>/launches.json, and to sweep.json where tiles were tried.
    """
    from adapter_fast.benchmarks.rows import SUITES, Row, merge, read_rows, write_rows
    from adapter_fast.measure.machine import slug

    written = []
    for name, records in json.loads(file.read_text("utf-8"))["results"].items():
        if not isinstance(records, list) or not records:
            continue
        if isinstance(records[0], dict) and "launch" in records[0]:
            file_name = "sweep.json" if records[0].get("swept") else "launches.json"
            path = results / slug(records[0]["device"]) / file_name
            of = ("case", "launch", "form", "tiles") if records[0].get("swept") else ("case", "launch", "form")
            old = json.loads(path.read_text("utf-8")) if path.exists() else []
            rows_of = {tuple(row[key] for key in of): row for row in (*old, *records)}
            text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows_of.values())
            written.append(write_whole(path, f"[\n{text}\n]\n"))
            continue
        path = results / name.removeprefix("results/")
        if not name.startswith("results/"):
            continue
        if path.stem in SUITES:
            rows, old = [Row(**record) for record in records], read_rows(path) if path.exists() else []
            written.append(write_rows(merge(old, rows, list(dict.fromkeys(row.case for row in rows))), path))
        else:
            written.append(write_whole(path, json.dumps(records, indent=1) + "\n"))
    return written


def main(arguments: list[str] | None = None) -> int:
    """Run a part; the exit code, 1 where a step failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quarter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--output", type=Path, default=Path("build/quarter"), metavar="DIR")
    parser.add_argument("--seconds", type=float, help="for the whole part  [default: 330 and 400]")
    parser.add_argument("--patience", type=float, default=1, metavar="FACTOR", help="so much more time for all of it")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps alone")
    parser.add_argument("--list", action="store_true", help="name the steps and run nothing")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write its results to benchmarks/results, no more")
    options = parser.parse_args(arguments)
    if options.keep:
        from adapter_fast.benchmarks.rows.provenance import RESULTS

        print("\n".join(f"wrote {path}" for path in keep_results(options.keep, RESULTS)))
        return 0
    make, seconds = PARTS[options.part]
    steps = make(options.output.resolve())
    names = [step.name for step in steps]
    for name in options.only or ():
        if name not in names:
            parser.error(f"--only must name steps out of {'; '.join(names)}, got {name!r}")
    steps = [step for step in steps if not options.only or step.name in options.only]
    if options.list:
        for step in steps:
            print(f"{step.name:26s} {step.expected:4.0f} s, at most {step.seconds:3.0f} s  {shlex.join(step.command)}")
        print(f"{expected(steps):.0f} s expected, at most {seconds} s")
        return 0
    steps = [replace(step, seconds=step.seconds * options.patience) for step in steps]
    return Campaign(
        options.part, steps, options.output.resolve(), (options.seconds or seconds) * options.patience
    ).run()


if __name__ == "__main__":
    sys.exit(main())
