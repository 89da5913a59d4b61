"""What each suite measures: its cases, phases and modes, whom it measures, and the floor of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from adapter_fast.benchmarks.cases import case_name, memory_cases, op_cases, shape_of, x_dtype
from adapter_fast.benchmarks.cases.whole_models import ModelCase, latency_cases, model_cases, model_floor_us
from adapter_fast.benchmarks.peers.contender import Factory
from adapter_fast.benchmarks.peers.op import TRAINING
from adapter_fast.benchmarks.peers.op_peers import op_contenders
from adapter_fast.benchmarks.rows import SUITES
from adapter_fast.benchmarks.rows.compare import provider_of
from adapter_fast.measure.roofline import PHASES, Ceilings, Phase, floor_us
from adapter_fast.testing import Case

# Microseconds of a call at the floor, from the provider, the medians of all of them in its mode, and the ceilings.
Floor = Callable[[str, Mapping[str, float], Ceilings], "float | None"]


@dataclass(frozen=True)
class Bench:
    """One case and phase of a suite."""

    suite: str
    case: str
    phase: str
    dtype: str
    tokens: int
    hidden: int
    bottleneck: int
    contenders: Mapping[str, Factory]
    floor: Floor
    modes: tuple[str, ...]
    rounds: int


HEADLINE = 3  # cases of the op suite that a campaign measures first, with every mode of torch.compile


def benches(
    suite: str, device: str, *, dtype: str | None = None, quick: bool = False, autotune: bool = True
) -> list[Bench]:
    """Everything a suite measures on "cpu" or "cuda", what matters most first.

    Args:
        suite: one of SUITES. dtype: "float32", "bfloat16" or "float16"; None takes bfloat16 on a GPU, float32 on a CPU.
        quick: one small case, to see that everything runs. autotune: the headline cases try all modes of torch.compile.

    Raises:
        ValueError: an unknown suite; the message names the known ones.
    """
    if suite == "op":
        cases = op_cases(device, dtype, quick)
        return [
            _op(case, phase, place < HEADLINE, quick, autotune) for place, case in enumerate(cases) for phase in PHASES
        ]
    if suite == "memory":
        cases = memory_cases(device, dtype, quick)
        return [_memory(case, phase) for case in cases for phase in ("forward", "forward+backward")]
    if suite == "model":
        return [_model(suite, case, device, quick) for case in model_cases(device, quick, dtype)]
    if suite == "latency":
        return [_model(suite, case, device, quick) for case in latency_cases(device, quick, dtype)]
    raise ValueError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}")


def campaign(device: str, *, dtype: str | None = None, quick: bool = False, autotune: bool = True) -> list[Bench]:
    """All suites, in an order in which a run that ends early has the most to show."""
    by_suite = {suite: benches(suite, device, dtype=dtype, quick=quick, autotune=autotune) for suite in SUITES}
    first = HEADLINE * len(PHASES)
    op = by_suite["op"]
    return [*op[:first], *by_suite["model"], *by_suite["latency"], *by_suite["memory"], *op[first:]]


def chosen(grid: list[Bench], cases: Sequence[str], rounds: int | None) -> list[Bench]:
    """Those of the named cases, all where none is named, with so many rounds; None keeps each its own.

    Raises:
        ValueError: a name that no case has; the message tells the names.
    """
    names = list(dict.fromkeys(bench.case for bench in grid))
    for case in cases:
        if case not in names:
            raise ValueError(f"--case must name cases out of {', '.join(names)}, got {case!r}")
    found = [bench for bench in grid if not cases or bench.case in cases]
    return [replace(bench, rounds=rounds) if rounds and bench.modes else bench for bench in found]


def _op(case: Case, phase: Phase, important: bool, quick: bool, autotune: bool) -> Bench:
    gpu = case.device == "cuda"
    shape = shape_of(case)
    return _adapter(
        "op",
        case,
        phase,
        op_contenders(
            case,
            phase,
            autotune=autotune and important and not quick and phase != "backward",
            modes=phase == "forward+backward" and (important or quick),
        ),
        lambda provider, medians, ceilings: floor_us(shape, phase, ceilings),
        ("eager", "graph-cold", "graph-hot") if gpu else ("eager",),
        5 if quick else 10,
    )


def _memory(case: Case, phase: str) -> Bench:
    contenders = op_contenders(case, TRAINING if phase == "forward" else phase, autotune=False, modes=True)
    del contenders["two-kernel"]  # it cannot train at all
    # No time is taken, so none has a floor.
    return _adapter("memory", case, phase, contenders, lambda provider, medians, ceilings: None, (), 0)


def _adapter(
    suite: str,
    case: Case,
    phase: str,
    contenders: Mapping[str, Factory],
    floor: Floor,
    modes: tuple[str, ...],
    rounds: int,
) -> Bench:
    sizes = (case.T, case.d, case.m)
    return Bench(suite, case_name(case), phase, x_dtype(case), *sizes, contenders, floor, modes, rounds)


def _model(suite: str, case: ModelCase, device: str, quick: bool) -> Bench:
    from adapter_fast.benchmarks.peers.model_peers import model_contenders

    def floor(provider: str, medians: Mapping[str, float], ceilings: Ceilings) -> float | None:
        bare = medians.get(provider_of(provider).bare, medians.get("bare"))
        if bare is None or not provider_of(provider).adapters:
            return None  # the floor is that of the adapters, over the bare model
        return model_floor_us(case, bare, ceilings)

    rounds = 5 if device == "cpu" else {"model": 10, "latency": 25}[suite]
    modes = ("eager", "graph-hot") if device == "cuda" and case.phase == "forward" else ("eager",)
    return Bench(
        suite,
        case.name,
        case.phase,
        case.dtype,
        case.tokens,
        case.hidden,
        case.bottleneck,
        model_contenders(case, device),
        floor,
        modes,
        5 if quick else rounds,
    )
