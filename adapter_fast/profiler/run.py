"""From a request to a profile, and from a profile to its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..common.files import write_whole
from ..measure import machine
from ..measure.clock import event_timer, host_timer
from ..measure.roofline import measure_ceilings
from . import modes
from .breakdown import break_down
from .chrome_trace import write_trace
from .latency import measure, overhead, steps_of
from .limits import memory_errors
from .measured import Profile, as_json, describe_run, floors
from .picture import draw_breakdown
from .request import ProfileError, Request
from .subject import prepare

TRACED = 10


def total_steps(request: Request) -> int:
    """How often run_profile calls its `tick`."""
    return 2 + steps_of(request) + TRACED + 1


def run_profile(request: Request, tick: Callable[[str], object] = lambda stage: None) -> Profile:
    """Measure what the request asks for. On a CPU the number of threads is pinned for the whole process.

    tick: called total_steps(request) times, between measurements, with the stage that the step belongs to: "loading",
        "timing" or "tracing".

    Raises:
        ProfileError: bad input, or something the machine cannot do; one line.
    """
    if request.device == "cpu":
        machine.pin_threads()
    with memory_errors(request):
        subject = prepare(request)
        tick("loading")
        timer = event_timer if request.device == "cuda" else host_timer
        ceilings = measure_ceilings(request.device, getattr(torch, request.dtype), timer)
        tick("loading")
        sides = measure(request, subject, partial(tick, "timing"))
        about = describe_run(request, subject)
        with torch.no_grad():
            call = modes.eager(subject.model, subject.inputs)
            breakdown = break_down(subject.model, call, request.device, TRACED, partial(tick, "tracing"))
    return Profile(
        request=request,
        about=about,
        sides=sides,
        overhead=overhead(sides["adapters"].samples, sides["bare"].samples),
        breakdown=breakdown,
        adapters=floors(request, subject.model, breakdown, ceilings),
        ceilings=ceilings,
    )


def write_profile(profile: Profile, output: Path) -> list[Path]:
    """profile.json, breakdown.png, breakdown.svg and trace.json in `output`, each whole or not at all.

    Raises:
        OSError: `output` cannot be written.
        ProfileError: the trace is one that Perfetto could not read; the other files are there.
    """
    text = json.dumps(as_json(profile), indent=1, ensure_ascii=False) + "\n"
    paths = [write_whole(output / "profile.json", text)]
    paths += [write_whole(output / f"breakdown.{suffix}", draw_breakdown(profile, suffix)) for suffix in ("png", "svg")]
    try:
        return [*paths, write_trace(profile.breakdown.trace, output / "trace.json")]
    except ValueError as error:
        raise ProfileError(f"{error}: Perfetto could not read it all, so it is not written") from error
