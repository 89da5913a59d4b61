"""Traces of one call by torch.profiler: taken, made fit for Perfetto, written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..common.files import write_whole
from ..measure.recorded import recorded
from .check_trace import Event, check_text, flow_of, nanoseconds, span_of

FORWARD = "forward"  # the range around the call
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of what ran on a GPU

Trace = dict[str, Any]


def record(call: Callable[[], object], device: str) -> Trace:
    """One call under torch.profiler, in a range named FORWARD: the exported trace, its times from zero, slices nested.

    device: "cpu" or "cuda"; for the latter the trace holds the launches and what they ran, to the end.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:  # else torch 2.11 warns of more cycles than one
        with record_function(FORWARD):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
    # Times are nanoseconds since long ago in more digits than a float has.
    trace: Trace = recorded(profiler, parse_float=Decimal)
    _rebase(trace)
    _nest(trace["traceEvents"])
    started = {flow_of(event) for event in trace["traceEvents"] if event["ph"] == "s"}
    trace["traceEvents"] = [e for e in trace["traceEvents"] if e["ph"] != "f" or flow_of(e) in started]
    return trace


def slices(trace: Trace, *categories: str) -> list[Event]:
    """The complete events ("X") of these categories."""
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and event.get("cat") in categories]


def write_trace(trace: Trace, path: Path) -> Path:
    """Write a trace of `record` as JSON, whole or not at all; ValueError where Perfetto could not read it all."""
    text = json.dumps(trace, default=float)  # decimals that the profiler put among the arguments
    check_text(text, str(path))
    return write_whole(path, text)


def _rebase(trace: Trace) -> None:
    times = [Decimal(event["ts"]) for event in trace["traceEvents"] if "ts" in event]
    origin = min(times, default=Decimal(0))
    for event in trace["traceEvents"]:
        for key, start in (("ts", origin), ("dur", 0)):
            if key in event:
                event[key] = float(Decimal(event[key]) - start)
    if "baseTimeNanoseconds" in trace:
        trace["baseTimeNanoseconds"] += int(origin * 1000)


def _nest(events: list[Event]) -> None:
    """Slices that cross another of their track, as a GPU's overlapping kernels may, move to a track beside it."""
    tracks: dict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    moved: dict[tuple[Any, Any, int], str] = {}
    for (pid, tid), track in tracks.items():
        lanes: list[list[int]] = [[]]  # ends of the open slices, outermost first
        for event in sorted(track, key=lambda event: (span_of(event)[0], -span_of(event)[1])):
            start, end = span_of(event)
            lane = next((lane for lane, ends in enumerate(lanes) if _fits(start, end, ends)), len(lanes))
            if lane == len(lanes):
                lanes.append([])
            lanes[lane].append(end)
            if lane:
                event["tid"] = moved[pid, tid, start] = f"{tid}, overlapping {lane}"
    for event in events:
        if event["ph"] in "sf":
            event["tid"] = moved.get((event["pid"], event["tid"], nanoseconds(event["ts"])), event["tid"])


def _fits(start: int, end: int, ends: list[int]) -> bool:
    """Whether a slice nests in the open ones, of which those that are over by its start are dropped."""
    while ends and ends[-1] <= start:
        ends.pop()
    return not ends or end <= ends[-1]
