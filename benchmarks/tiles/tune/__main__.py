"""Command line of the tuner: see `python -m benchmarks.tiles.tune --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch

from adapter_fast.benchmarks.rows.provenance import CHECKOUT
from adapter_fast.benchmarks.tiles import tune
from adapter_fast.benchmarks.tiles.tune.campaign import (
    BOTTLENECKS,
    HIDDEN,
    OTHER_MODES,
    PHASES,
    op_phase,
    rehearsal,
    targets,
)
from adapter_fast.kernels.offers import OPTIONAL_FORMS
from adapter_fast.kernels.tuned import FOLDER

REHEARSED = {"most": 3, "rounds": (1, 1)}  # each call takes a tenth of a second under the interpreter


def main(arguments: list[str] | None = None) -> int:
    """Tune and write; the exit code: 2 where there is nothing to run on."""
    options = _parse(arguments)
    chosen = rehearsal() if options.rehearse else targets(options.hidden, options.bottleneck)
    phases = [phase for phase in (*PHASES, *OTHER_MODES) if phase in (options.phase or PHASES)]
    if options.list:
        for target in chosen:
            print(f"{target.name}: {', '.join(f'{phase} (op {op_phase(phase)})' for phase in phases)}")
        return 0
    if not options.rehearse and not torch.cuda.is_available():
        print("no CUDA device here: run on a GPU machine, or rehearse with --rehearse", file=sys.stderr)
        return 2
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported, here and in the examiners
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    # Imported after that: the kernels are decorated for the interpreter or for the compiler, once.
    from adapter_fast.benchmarks.tiles.tune.device_clock import DeviceClock
    from adapter_fast.benchmarks.tiles.tune.session import Session

    clock = DeviceClock("cpu" if options.rehearse else "cuda", chosen[0].dtype if chosen else torch.bfloat16)
    try:
        arch = clock.problem(chosen[0], 1).arch if chosen else "none"
        folder = options.output or ((CHECKOUT or Path()) / "build/rehearsal/tuned" if options.rehearse else FOLDER)
        limits: dict[str, Any] = dict(REHEARSED) if options.rehearse else {}
        limits |= {"without": options.without or (), "say": _say}
        session = Session(clock, folder / f"{arch}.json", phases, options.minutes, options.resume, **limits)
        left = session.run(chosen)
    finally:
        clock.close()
    print(f"wrote {session.path}")
    if left:
        print(f"{len(left)} left, run again with --resume: {'; '.join(left[:5])}{' …' if len(left) > 5 else ''}")
    else:
        print("nothing is left")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles.tune",
        description=tune.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--phase", action="append", choices=[*PHASES, *OTHER_MODES], help="may be repeated")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(HIDDEN))
    parser.add_argument("--bottleneck", type=int, nargs="+", default=list(BOTTLENECKS))
    parser.add_argument("--without", action="append", choices=OPTIONAL_FORMS, help="a form not to try; may be repeated")
    parser.add_argument("--minutes", type=float, help="begin nothing that would take longer than this in all")
    parser.add_argument("--resume", action="store_true", help="leave out what is measured, by this commit")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: kernels/tuned")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, tiny shapes, into build/rehearsal/tuned")
    parser.add_argument("--list", action="store_true", help="say what would be tuned")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
