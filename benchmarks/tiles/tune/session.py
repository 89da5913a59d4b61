"""One tuning run: shape by shape and phase by phase, examined, timed, chosen and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.tiles.traffic import tiles_text
from adapter_fast.benchmarks.tiles.tune.campaign import PHASES, Target, memory_of, op_phase
from adapter_fast.benchmarks.tiles.tune.candidates import MOST, candidates
from adapter_fast.benchmarks.tiles.tune.choosing import choose, shortlist
from adapter_fast.benchmarks.tiles.tune.device_clock import Clock
from adapter_fast.benchmarks.tiles.tune.examine import Candidate
from adapter_fast.benchmarks.tiles.tune.forced import Choices
from adapter_fast.benchmarks.tiles.tuned_rows import (
    TunedRow,
    already_measured,
    group_of,
    merge_tuned,
    read_tuned,
    tiles_of,
    tuned_row,
    write_tuned,
)
from adapter_fast.kernels.offers import fits
from adapter_fast.kernels.shapes import LaunchConfig, Phase, Problem
from adapter_fast.measure.clock import Spread

GROUP = 4  # candidates whose graphs are alive at a time in the coarse round, beside the rules' own
ROUNDS = (3, 10)  # of the coarse and of the fine round, two samples each
FEW = 2**25  # elements of x in a check against float64

Tiles = Mapping[int, LaunchConfig]


class Search(NamedTuple):
    """One shape and phase: its problem by bucket of tokens, the rules' own choice there, and what is decided before."""

    target: Target
    phase: Phase
    problems: Mapping[int, Problem]
    static: Tiles
    decided: Mapping[Phase, Tiles]


@dataclass
class Session:
    """What a run knows: the device's clock, where rows go, and how long it may take.

    phases: in the order in which they are tuned. minutes: no phase is begun that would end later, None for no limit.
    resume: leave out what is there from this device, these versions and this commit. most: candidates of a phase.
    rounds: of the coarse and of the fine round. without: forms that are not tried. tell: where it says what it does.
    left: what another run has to do.
    """

    clock: Clock
    path: Path
    phases: Sequence[Phase] = PHASES
    minutes: float | None = None
    resume: bool = False
    most: int = MOST
    rounds: tuple[int, int] = ROUNDS
    without: Sequence[str] = ()
    tell: Callable[[str], None] = print
    left: list[str] = field(default_factory=list)

    def run(self, targets: Sequence[Target]) -> list[str]:
        """Tune, and write after every phase; what is left for another run.

        Raises:
            ValueError: the file that is there is none that select_tiles could read.
        """
        start, longest = time.monotonic(), 0.0
        rows = read_tuned(self.path)
        for target in targets:
            decided: dict[Phase, Tiles] = {}
            for phase in self.phases:
                search = self._search(target, phase, decided)
                if search is None:
                    continue
                problems = search.problems
                wanted = group_of(phase, next(iter(problems.values())))
                done = already_measured(rows, wanted, list(problems), self.clock.origin) if self.resume else []
                if done:
                    decided[phase] = {row["tokens"]: tiles_of(row) for row in done}
                    continue
                spent = time.monotonic() - start
                if self.minutes is not None and spent + longest > 60 * self.minutes:
                    self.left.append(f"{target.name}: {phase}")
                    continue
                try:
                    new = self.tune(search)
                except Unavailable as error:
                    self.tell(f"{target.name}: {phase}: {error}")
                    self.left.append(f"{target.name}: {phase}")
                    continue
                longest = max(longest, time.monotonic() - start - spent)
                decided[phase] = {row["tokens"]: tiles_of(row) for row in new}
                rows = merge_tuned(rows, new)
                write_tuned(self.path, rows)
        return self.left

    def tune(self, search: Search) -> list[TunedRow]:
        """The rows of one shape and phase, one for each number of tokens.

        Raises:
            Unavailable: the rules' own choice is refused or does not run, so that there is nothing to compare with.
        """
        target, phase, problems, static, _ = search
        tokens = dict(target.tokens)
        tried = candidates(phase, list(problems.values()), list(static.values()), self.most)
        tried = [one for one in tried if one.form not in self.without]
        verdicts = dict(zip(tried, self.clock.examine([self._task(search, config) for config in tried])))
        refused = {config: verdict.error for config, verdict in verdicts.items() if verdict.error}
        self.tell(f"{target.name}: {phase}: {len(tried)} candidates, {len(refused)} refused")
        for config, why in refused.items():
            self.tell(f"    {tiles_text(config)}: {why}")
        for config in static.values():
            if config in refused:
                raise Unavailable(f"the rules' own choice {tiles_text(config)} was refused: {refused[config]}")
        passed = [config for config in tried if config not in refused]
        free = phase == "weight_grad"
        coarse = {n: self._coarse(search, n, passed) for n in tokens}
        short = shortlist(static, coarse, free)
        fine = {n: self._time(search, n, configs, self.rounds[1]) for n, configs in short.items()}
        chosen = choose(static, fine, free)
        self._tell_forms(coarse)
        rows = []
        for n, config in chosen.items():
            least = self.clock.floor_us(target, tokens[n], op_phase(phase))
            times, own = fine[n][config], fine[n][static[n]]
            self.tell(
                f"    {tokens[n]} tokens: {tiles_text(config)} {times.p50:.1f} µs, the rules' {tiles_text(static[n])} "
                f"{own.p50:.1f} µs, floor {least:.1f} µs ({least / times.p50:.0%})"
            )
            measures = (least, self.clock.copy_gbps, len(passed), self.clock.origin)
            rows.append(tuned_row(phase, problems[n], (config, times), (static[n], own), *measures))
        return rows

    def _search(self, target: Target, phase: Phase, decided: Mapping[Phase, Tiles]) -> Search | None:
        """None where the shape has no such phase."""
        problems = {n: self.clock.problem(target, T) for n, T in target.tokens}
        first = (self._tiles_of("forward", n, problem, decided) for n, problem in problems.items())
        if phase == "expand" and all(one.form != "split" for one in first):
            return None
        static = {n: self.clock.ruled(phase, problem) for n, problem in problems.items()}
        return Search(target, phase, problems, static, decided)

    def _tiles_of(self, phase: Phase, n: int, problem: Problem, decided: Mapping[Phase, Tiles]) -> LaunchConfig:
        return decided[phase][n] if phase in decided else self.clock.ruled(phase, problem)

    def _choices(self, search: Search, config: LaunchConfig, n: int) -> Choices:
        """Every phase of the op by name, so that nothing of an older table takes part."""
        others: tuple[Phase, ...] = ("forward", "dx", "dx_z", "dx_x", "expand", "weight_grad")
        found = {one: self._tiles_of(one, n, search.problems[n], search.decided) for one in others}
        found[search.phase] = config
        return tuple(sorted(found.items(), key=lambda one: one[0]))

    def _task(self, search: Search, config: LaunchConfig) -> Candidate:
        target, problems = search.target, search.problems
        n = max((n for n in problems if fits(config, problems[n])), default=min(problems))
        case = target.case(checked_tokens(target.d, dict(target.tokens)[n]))
        choices = self._choices(search, config, n)
        return Candidate(case, op_phase(search.phase), memory_of(search.phase), choices, config.form)

    def _coarse(self, search: Search, n: int, passed: Sequence[LaunchConfig]) -> dict[LaunchConfig, float]:
        """Times over the rules' own, which takes part in every group, so that groups compare."""
        ruled = search.static[n]
        others = [config for config in passed if config != ruled and fits(config, search.problems[n])]
        found = {ruled: 1.0}
        for start in range(0, len(others), GROUP):
            times = self._time(search, n, [ruled, *others[start : start + GROUP]], self.rounds[0])
            own = times.pop(ruled).p50
            found |= {config: one.p50 / own for config, one in times.items()}
        return found

    def _time(self, search: Search, n: int, configs: Sequence[LaunchConfig], rounds: int) -> dict[LaunchConfig, Spread]:
        tiles = {config: self._choices(search, config, n) for config in configs}
        target, phase, ruled = search.target, search.phase, search.static[n]
        T = dict(target.tokens)[n]
        times = self.clock.time(target, T, op_phase(phase), memory_of(phase), tiles, rounds)
        if ruled not in times:
            raise Unavailable(f"the rules' own choice {tiles_text(ruled)} did not run on {T} tokens")
        return times

    def _tell_forms(self, coarse: Mapping[int, Mapping[LaunchConfig, float]]) -> None:
        """Where fusion stops paying: the best of each form, where more than one was timed."""
        for n, times in coarse.items():
            best: dict[str, float] = {}
            for config, relative in times.items():
                best[config.form] = min(relative, best.get(config.form, relative))
            if len(best) > 1:
                forms = ", ".join(f"{form} {relative:.2f}" for form, relative in sorted(best.items()))
                self.tell(f"    bucket {n}: best of each form over the rules' own: {forms}")


def checked_tokens(d: int, T: int) -> int:
    """How many tokens a candidate is checked on: few, and ragged."""
    T = min(T, FEW // d)
    return T - min(37, T // 4)
