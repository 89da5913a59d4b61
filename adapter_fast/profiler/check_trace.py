"""Perfetto's rules for a Chrome trace, as its importer (importers/json in its sources) reads the Trace Event Format.

Slices of one track must nest: Perfetto drops one that crosses another's end.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def check_trace(path: Path) -> None:
    """check_text of a trace file."""
    check_text(path.read_text("utf-8"), str(path))


def check_text(text: str, where: str = "trace") -> None:
    """Raise ValueError with the first thing in a trace that Perfetto would refuse, drop or misread.

    Strict JSON with a list `traceEvents`; every event has `ph`, and all but metadata a time; slices have pid, tid, name
    and a duration of at least 0, B and E pair up, and all nest on their track; metadata has args; flows have ids and
    none ends that did not start. where: what to call the trace in the message.
    """
    try:
        trace = json.loads(text, parse_constant=_not_json)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    events = trace.get("traceEvents") if isinstance(trace, dict) else None
    if not isinstance(events, list):
        raise ValueError(f"{where}: expected an object with a list traceEvents")
    spans: dict[tuple[Any, Any], list[tuple[int, int, str]]] = defaultdict(list)
    opened: dict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for number, event in enumerate(events):
        wrong = _check_event(event, opened, spans)
        if wrong:
            raise ValueError(f"{where}: event {number}: {wrong}")
    for track, left in opened.items():
        if left:
            raise ValueError(f"{where}: {left[-1]['name']!r} on track {track} begins and never ends")
    for track, all_spans in spans.items():
        _check_nesting(all_spans, f"{where}: track {track}")
    started = {flow_of(event) for event in events if event["ph"] == "s"}
    for event in events:
        if event["ph"] == "f" and flow_of(event) not in started:
            raise ValueError(f"{where}: flow {event['id']!r} ends and never starts")


def _check_event(event: Any, opened: dict[Any, list[Event]], spans: dict[Any, list[tuple[int, int, str]]]) -> str:
    """What is wrong with one event, "" for nothing; B and E go through `opened`, finished slices to `spans`."""
    if not isinstance(event, dict) or not isinstance(event.get("ph"), str) or len(event["ph"]) != 1:
        return "has no phase `ph`"
    phase = event["ph"]
    if phase == "M":
        return "" if isinstance(event.get("args"), dict) and "name" in event else "metadata without name or args"
    if not _is_number(event.get("ts")):
        return f"ts must be a number, got {event.get('ts')!r}"
    missing = [key for key in ("pid", "tid", *(["name"] if phase in "XBsf" else [])) if key not in event]
    if missing:
        return f"lacks {', '.join(missing)}"
    if phase in "sf":
        return "" if isinstance(event.get("id"), (int, str)) else f"a flow's id must be given, got {event.get('id')!r}"
    track = event["pid"], event["tid"]
    if phase == "X":
        if not _is_number(event.get("dur")) or event["dur"] < 0:
            return f"dur must be a number of at least 0, got {event.get('dur')!r}"
        spans[track].append((*span_of(event), str(event["name"])))
    elif phase == "B":
        opened[track].append(event)
    elif phase == "E":
        begin = opened[track].pop() if opened[track] else None
        if begin is None or event.get("name", begin["name"]) != begin["name"] or event["ts"] < begin["ts"]:
            return f"E without its B on track {track}"
        spans[track].append((nanoseconds(begin["ts"]), nanoseconds(event["ts"]), str(begin["name"])))
    return ""


def _check_nesting(spans: list[tuple[int, int, str]], where: str) -> None:
    ends: list[tuple[int, str]] = []
    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        while ends and ends[-1][0] <= start:
            ends.pop()
        if ends and end > ends[-1][0]:
            raise ValueError(f"{where}: {name!r} crosses the end of {ends[-1][1]!r}")
        ends.append((end, name))


def span_of(event: Event) -> tuple[int, int]:
    """Start and end of a complete event, in nanoseconds."""
    start = nanoseconds(event["ts"])
    return start, start + nanoseconds(event["dur"])


def nanoseconds(microseconds: float) -> int:
    """A time of a trace, exactly."""
    return round(microseconds * 1000)


def flow_of(event: Event) -> tuple[Any, ...]:
    """What ties the start of a flow to its end."""
    return event.get("cat"), event["name"], event["id"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _not_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")
