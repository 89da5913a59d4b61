"""What every figure rests on: turns, percentiles, verdicts, peaks, floors, and the machine's name."""

import random
import time

import pytest
import torch

from adapter_fast.measure.clock import Spread, compare, host_timer, interleave, repeated, settled, spread
from adapter_fast.measure.machine import clocks, device_name, slug, version
from adapter_fast.measure.memory import peak_bytes
from adapter_fast.measure.presets import PRESETS, build
from adapter_fast.measure.roofline import Ceilings, Shape, floor_us, flops, measure_ceilings, minimal_bytes


def test_providers_take_turns_there_and_back():
    seen = []
    samplers = {name: lambda name=name: seen.append(name) or float(len(seen)) for name in "AB"}
    ticks = []
    taken = interleave(samplers, rounds=2, tick=lambda: ticks.append(len(seen)))
    assert "".join(seen) == "ABBAABBA"
    assert taken == {"A": [1, 4, 5, 8], "B": [2, 3, 6, 7]}  # both medians 4.5: no provider is favoured
    assert ticks == [4, 8]


def test_percentiles():
    assert spread(range(1, 102)) == Spread(21, 51, 81, 91, 100)
    assert spread([10.0] * 9 + [20.0]).jitter == pytest.approx(0.91)


def noisy(true, factor, rounds, seed):
    """Samples of two providers in turn: both drift by 30 %, each sample has noise of 5 %."""
    generator = random.Random(seed)
    drift = [1 + 0.3 * i / rounds for i in range(rounds)]
    one, two = ([true * step * generator.gauss(1, 0.05) for step in drift] for _ in range(2))
    return [factor * sample for sample in one], two


@pytest.mark.parametrize("seed", range(20))
def test_a_difference_of_a_fifth_is_seen_through_noise_and_drift_and_none_is_invented(seed):
    slow, base = noisy(1000.0, 1.2, 20, seed)
    assert compare(slow, base) == "slower" and compare(base, slow) == "faster"
    even, base = noisy(1000.0, 1.0, 20, seed)
    assert compare(even, base) == "same"


def test_a_fifth_slower_call_is_slower_in_five_runs_of_five():
    a = torch.randn(128, 128)

    def work():
        for _ in range(5):
            torch.mm(a, a)

    def slowed():
        start = time.perf_counter_ns()
        work()
        end = time.perf_counter_ns()
        while time.perf_counter_ns() < end + 0.2 * (end - start):
            pass

    samplers = {
        name: lambda call=call: repeated(call, 1, host_timer) for name, call in (("plain", work), ("slow", slowed))
    }
    for _ in range(5):
        taken = interleave(samplers, 20)
        assert compare(taken["slow"], taken["plain"]) == "slower"


def test_a_settled_sample_follows_an_unmeasured_one():
    given = iter([50.0, 10.0, 40.0, 11.0])
    sample = settled(lambda: next(given))
    assert [sample(), sample()] == [10.0, 11.0]


def test_repeated_gives_the_time_of_one_call():
    calls = []
    assert repeated(lambda: calls.append(0), 4, lambda run: run() or 20.0) == 5.0
    assert len(calls) == 4


def test_peak_is_the_highest_sum_of_live_allocations():
    def call():
        a = torch.empty(1000, dtype=torch.uint8)
        b = torch.empty(500, dtype=torch.uint8)
        del a
        c = torch.empty(700, dtype=torch.uint8)
        return b, c

    assert peak_bytes(call, "cpu") == 1500
    assert peak_bytes(lambda: None, "cpu") == 0


H100 = Ceilings(copy_gbps=3000, tflops=798)


@pytest.mark.parametrize(
    ("sizes", "phase", "microseconds"),
    [  # the roofline table's own values
        ((16384, 768, 64), "forward", 16.8),
        ((16384, 4096, 64), "forward", 89.8),
        ((65536, 1024, 256), "forward", 89.8),
        ((16384, 768, 64), "forward+backward", 43.5),
        ((65536, 1024, 64), "forward+backward", 230),
    ],
)
def test_floor_is_the_roofline_tables(sizes, phase, microseconds):
    assert floor_us(Shape(*sizes, 2, 2), phase, H100) == pytest.approx(microseconds, rel=0.01)


def test_a_wide_bottleneck_is_bound_by_its_products():
    shape = Shape(65536, 1024, 512, 2, 2)
    assert floor_us(shape, "forward", H100) == pytest.approx(172, rel=0.01)  # of which the bytes would take 90
    assert flops(shape, "forward+backward") == 3 * flops(shape, "forward") == 12 * 65536 * 1024 * 512


def test_minimal_bytes_by_hand():
    shape = Shape(10, 4, 2, x_bytes=2, w_bytes=4)
    X, Z, W, biases = 80, 40, 32, 24
    assert minimal_bytes(shape, "forward") == 2 * X + 2 * W + biases
    assert minimal_bytes(shape, "backward") == 3 * X + Z + 4 * W + biases
    assert minimal_bytes(shape, "forward+backward") == 5 * X + 2 * Z + 6 * W + 2 * biases


def test_ceilings_are_measured_from_bytes_and_products():
    ceilings = measure_ceilings("cpu", torch.float32, lambda call: (call(), 1000.0)[1], rounds=3)
    assert ceilings.copy_gbps == pytest.approx(2 * 4 * 2**26 / 1000.0 / 1e3)
    assert ceilings.tflops == pytest.approx(2 * 1536**3 / 1000.0 / 1e6)


def test_names():
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("Intel(R) Xeon(R) Processor, 2 threads") == "intel-xeon-processor-2-threads"
    assert device_name("cpu").endswith(f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}")
    assert version("torch") == torch.__version__ and version("no-such-package") == "none"
    assert clocks("cpu") == (None, None)


@pytest.mark.parametrize("preset", ["tiny-bert", "tiny-gpt2"])
def test_presets_are_built_from_their_configuration(preset):
    one, same = build(preset), build(preset)
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert next(build(preset, dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match=f"model must be one of {', '.join(PRESETS)}, got 'bert'"):
        build("bert")
