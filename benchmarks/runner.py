"""One run: check, weigh and time every contender of every case, and keep what is measured as it comes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adapter_fast.benchmarks.cases import DTYPES
from adapter_fast.benchmarks.peers.contender import Contender, Unavailable
from adapter_fast.benchmarks.rows import ResultsError, Row, merge, path_of, read_rows, write_rows
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.benchmarks.suites import Bench
from adapter_fast.common.errors import first_line
from adapter_fast.measure.clock import Sampler, Samples, compare, event_timer, host_timer, interleave, spread
from adapter_fast.measure.machine import clocks
from adapter_fast.measure.roofline import Ceilings, measure_ceilings

MUST_BE_RIGHT = "fused"  # a wrong result of a peer is a row that says so, of ours the end of the run
BASELINE = "reference"


class WrongResult(Exception):
    """Our own results are wrong: nothing of the case is timed or written."""


@dataclass
class Run:
    """What all rows of a run share, and where they go.

    device: "cpu" or "cuda". providers: whom to measure, None for all. output: the directory of results, None to write
    nothing. seconds: start no new phase after this long, None for no limit. resume: leave out phases whose rows are
    there already, from this commit and these versions. whole: the benches are a suite's whole grid, and rows of cases
    that it lacks go.
    """

    device: str
    providers: Sequence[str] | None = None
    output: Path | None = None
    seconds: float | None = None
    resume: bool = False
    whole: bool = True

    def __post_init__(self) -> None:
        self.origin = provenance(self.device)
        self.start = time.monotonic()
        self.longest = 0.0
        self._stopped = False
        self._ceilings: dict[str, Ceilings] = {}

    def stop(self) -> None:
        """End the run at its next step: may be called by a signal's handler or another thread."""
        self._stopped = True

    def _step(self) -> None:
        if self._stopped:
            raise KeyboardInterrupt

    def ceilings(self, dtype: str) -> Ceilings:
        """Copy bandwidth and matrix rate of this run, measured when first asked for."""
        if dtype not in self._ceilings:
            timer = event_timer if self.device == "cuda" else host_timer
            self._ceilings[dtype] = measure_ceilings(self.device, DTYPES[dtype], timer)
        return self._ceilings[dtype]

    def run(self, benches: list[Bench], report: Callable[[Bench], None] = lambda bench: None) -> dict[str, Outcome]:
        """Measure phase by phase in the order given; each suite's outcome by its name.

        A phase's rows are written when it is done, in place of those of the same case, phase, mode and provider.
        `report` is called before each phase.

        Raises:
            WrongResult: ours are wrong. ResultsError: resume on a file of another schema. KeyboardInterrupt: stop()
            was called. What was written before stays.
        """
        order: dict[str, list[str]] = {}
        for bench in benches:
            order.setdefault(bench.suite, []).append(bench.case)
        outcomes = {suite: self._begin(suite) for suite in order}
        for bench in benches:
            outcome = outcomes[bench.suite]
            if self._measured(bench, outcome.rows):
                continue
            if not self._has_time():
                outcome.left.append(f"{bench.case}, {bench.phase}")
                continue
            began = time.monotonic()
            report(bench)
            rows = self.measure(bench)
            self._step()  # what was stopped on the way may not be what is measured
            self.longest = max(self.longest, time.monotonic() - began)
            outcome.rows = merge(outcome.rows, rows, order[bench.suite])
            outcome.write()
        for suite, outcome in outcomes.items():
            if self.whole and not outcome.left:  # the whole grid: its dtype has no other cases
                names = set(order[suite])
                dtypes = {bench.dtype for bench in benches if bench.suite == suite}
                outcome.rows = [row for row in outcome.rows if row.case in names or row.dtype not in dtypes]
                outcome.write()
        return outcomes

    def _begin(self, suite: str) -> Outcome:
        path = path_of(self.output, self.origin["device"], suite) if self.output else None
        return Outcome(self._old(path), [], path)

    def _old(self, path: Path | None) -> list[Row]:
        """Rows of earlier runs: each goes when its case is measured again. Without --resume any schema may be there."""
        if path is None or not path.exists():
            return []
        try:
            return read_rows(path)
        except ResultsError:
            if self.resume:
                raise
            return []

    def measure(self, bench: Bench) -> list[Row]:
        """All rows of one case and phase; the reason in place of figures for a peer that does not run."""
        ceilings = self.ceilings(bench.dtype)
        ready, absent = self._ready(bench)
        try:
            self._step()
            peaks = self._peaks(ready, absent)
            rows = []
            for mode in bench.modes or ("eager",):
                samples, failed = self._samples(ready, bench, mode) if bench.modes else ({}, {})
                medians = {name: spread(taken).p50 for name, taken in samples.items()}
                for name, contender in ready.items():
                    if bench.modes and name not in samples and name not in failed:
                        continue  # it has no such mode
                    floor = bench.floor(name, medians, ceilings) if name in samples else None
                    row = self._row(bench, name, mode, ceilings, contender.note, contender.parameters)
                    row = replace(row, peak_bytes=peaks[name], floor_us=_rounded(floor))
                    if name in failed:
                        row = replace(row, peak_bytes=None, note=failed[name])
                    rows.append(_timed(row, samples.get(name), samples.get(BASELINE)))
            first = (bench.modes or ("eager",))[0]
            rows += [self._row(bench, name, first, ceilings, why, None) for name, why in absent.items()]
        finally:
            for contender in ready.values():
                contender.close()
            gc.collect()
            if self.device == "cuda":
                torch.cuda.empty_cache()
        clock, temperature = clocks(self.device)
        return [replace(row, clock_mhz=clock, celsius=temperature) for row in rows]

    def _ready(self, bench: Bench) -> tuple[dict[str, Contender], dict[str, str]]:
        """Who is warm and right, and why the others are not here."""
        ready: dict[str, Contender] = {}
        absent: dict[str, str] = {}
        for name, factory in bench.contenders.items():
            if self._stopped:
                break  # measure() closes those that are ready, then ends
            if self.providers is not None and name not in self.providers:
                continue
            contender = None
            try:
                contender = factory()
                contender.warm()
                contender.check()
            except AssertionError as error:
                if name == MUST_BE_RIGHT:
                    raise WrongResult(str(error)) from error
                absent[name] = f"refused before timing, its result is wrong: {error}"
            except Exception as error:  # whatever a library raises: the others are measured all the same
                absent[name] = _reason(error)
            if contender is not None and name not in absent:
                ready[name] = contender
            elif contender is not None:
                contender.close()
        return ready, absent

    def _peaks(self, ready: dict[str, Contender], absent: dict[str, str]) -> dict[str, int]:
        """Peak bytes of each; who fails goes from `ready` to `absent`."""
        peaks = {}
        for name, contender in list(ready.items()):
            self._step()
            try:
                peaks[name] = contender.peak()
            except Exception as error:  # as above
                absent[name] = _reason(error)
                ready.pop(name).close()
        return peaks

    def _samples(self, ready: dict[str, Contender], bench: Bench, mode: str) -> tuple[Samples, dict[str, str]]:
        """Samples by provider, and why one that should run in this mode does not."""
        samplers: dict[str, Sampler] = {}
        failed: dict[str, str] = {}
        for name, contender in ready.items():
            self._step()
            try:
                sampler = contender.sampler(mode)
                if sampler is not None:
                    sampler()  # the first call of a mode is not like the others
                    samplers[name] = sampler
            except Exception as error:  # as above
                failed[name] = _reason(error)
        gc.collect()
        gc.disable()
        try:
            while True:  # again from the start, without whoever fails on the way: a process that ends
                try:
                    timed = {name: self._named(name, one) for name, one in samplers.items()}
                    return interleave(timed, bench.rounds), failed
                except _SamplerError as error:
                    failed[error.name] = _reason(error.__cause__)
                    del samplers[error.name]
        finally:
            gc.enable()

    def _named(self, name: str, sampler: Sampler) -> Sampler:
        def sample() -> float:
            self._step()
            try:
                return sampler()
            except Exception as error:
                raise _SamplerError(name) from error

        return sample

    def _row(
        self, bench: Bench, provider: str, mode: str, ceilings: Ceilings, note: str, parameters: int | None
    ) -> Row:
        return Row(
            suite=bench.suite,
            case=bench.case,
            provider=provider,
            phase=bench.phase,
            mode=mode,
            dtype=bench.dtype,
            tokens=bench.tokens,
            hidden=bench.hidden,
            bottleneck=bench.bottleneck,
            us_p20=None,
            us_p50=None,
            us_p80=None,
            peak_bytes=None,
            floor_us=None,
            copy_gbps=round(ceilings.copy_gbps, 1),
            **self.origin,
            parameters=parameters,
            tflops=round(ceilings.tflops, 3),
            note=note,
        )

    def _measured(self, bench: Bench, old: Iterable[Row]) -> bool:
        """Whether every provider has its row of this phase, from this commit and these versions.

        If one has none all are measured again: figures are compared within one run alone.
        """
        if not self.resume:
            return False
        same = ("device", "torch", "triton", "transformers", "commit")
        found = {
            row.provider
            for row in old
            if (row.case, row.phase) == (bench.case, bench.phase)
            and all(getattr(row, key) == self.origin[key] for key in same)
        }
        return found >= {name for name in bench.contenders if self.providers is None or name in self.providers}

    def _has_time(self) -> bool:
        """Whether a phase as long as the longest so far would still end in time."""
        return self.seconds is None or time.monotonic() - self.start + self.longest < self.seconds


@dataclass
class Outcome:
    """The rows of a suite, the cases left for another run, and the file."""

    rows: list[Row]
    left: list[str]
    path: Path | None

    def write(self) -> None:
        """The rows so far, where they go anywhere."""
        if self.path is not None:
            write_rows(self.rows, self.path)


def _timed(row: Row, samples: list[float] | None, baseline: list[float] | None) -> Row:
    """The row with its percentiles, rounded to what the clock can tell."""
    if not samples:
        return row
    times = spread(samples)
    return replace(
        row,
        us_p20=round(times.p20, 2),
        us_p50=round(times.p50, 2),
        us_p80=round(times.p80, 2),
        us_p90=round(times.p90, 2),
        us_p99=round(times.p99, 2),
        samples=len(samples),
        versus=compare(samples, baseline) if baseline else "",
    )


class _SamplerError(Exception):
    """A sampler failed in its turn."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _reason(error: BaseException | None) -> str:
    if isinstance(error, Unavailable):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}" if error else "no reason given"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
