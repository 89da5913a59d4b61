"""The benchmarks measure what they say: wrong results are refused, slow ones are told, rows are kept as they come."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from adapter_fast import reference_adapter
from adapter_fast.benchmarks import commands, runner
from adapter_fast.benchmarks.cases import case_name, memory_cases, op_cases
from adapter_fast.benchmarks.peers.contender import Unavailable
from adapter_fast.benchmarks.peers.op import TRAINING, LocalOp, input_sets
from adapter_fast.benchmarks.peers.op_peers import op_contenders
from adapter_fast.benchmarks.rows import NAMES, SUITES, ResultsError, Row, merge, path_of, read_rows, write_rows
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.benchmarks.runner import Run, WrongResult
from adapter_fast.benchmarks.suites import Bench, benches, campaign
from adapter_fast.benchmarks.tiles import ncu
from adapter_fast.common.files import write_whole
from adapter_fast.measure.roofline import Ceilings
from adapter_fast.testing import Case

ROOT = Path(__file__).parents[2]
AGREED = [
    *("suite", "case", "provider", "phase", "mode", "dtype", "tokens", "hidden", "bottleneck"),
    *("us_p20", "us_p50", "us_p80", "peak_bytes", "floor_us", "copy_gbps"),
    *("device", "torch", "triton", "transformers", "commit", "date"),
]
CASE = Case(64, 32, 8)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """The kernels have tests of their own; a run's ceilings take a second; one thread."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(runner, "measure_ceilings", lambda *_: Ceilings(10.0, 0.1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Fake:
    """A contender whose samples are given; remembers whether it was timed."""

    def __init__(self, name, us=100.0, wrong=False, unavailable="", note="", modes=("eager",)):
        self.name, self.us, self.wrong, self.unavailable, self.note = name, us, wrong, unavailable, note
        self.modes, self.parameters, self.log = modes, 7, []

    def warm(self):
        self.log.append("warm")
        if self.unavailable:
            raise Unavailable(self.unavailable)

    def check(self):
        self.log.append("check")
        if self.wrong:
            raise AssertionError(f"{self.name}: max error 1.0")

    def peak(self):
        self.log.append("peak")
        return 1000

    def sampler(self, mode):
        self.log.append("sampler")
        return (lambda: self.us) if mode in self.modes else None

    def close(self):
        self.log.append("close")


def made_bench(*contenders, case="one", suite="op", modes=("eager",), phase="forward"):
    factories = {contender.name: lambda contender=contender: contender for contender in contenders}
    floor = lambda provider, medians, ceilings: 50.0  # noqa: E731
    return Bench(suite, case, phase, "float32", 64, 32, 8, factories, floor, modes, 5)


# ---- rows and files


def row(case="one", provider="fused", **values):
    bench = made_bench(Fake(provider), case=case)
    made = Run("cpu").measure(bench)[0]
    return replace(made, **values)


def test_a_row_has_the_agreed_fields_first():
    assert [field.name for field in fields(Row)][: len(AGREED)] == AGREED
    assert list(provenance("cpu")) == AGREED[15:]


def test_rows_are_written_and_read_back(tmp_path):
    rows = [row(), row(provider="adapterhub", us_p50=None, note="not here")]
    path = write_rows(rows, path_of(tmp_path, "NVIDIA H100", "op"))
    assert path == tmp_path / "nvidia-h100/op.json"
    assert [list(record) for record in json.loads(path.read_text())] == [list(NAMES)] * 2
    assert read_rows(path) == rows
    assert [file.name for file in path.parent.iterdir()] == ["op.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a results file"),
        ("{}", "expected a list of rows, got dict"),
        ('[{"suite": "op"}]', "row 0 is of another schema \\(lacks case, provider"),
        ('[{"colour": 1}]', "has colour"),
    ],
)
def test_a_file_of_another_schema_is_told_in_a_line(tmp_path, text, message):
    path = tmp_path / "op.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_figure_measured_again_takes_the_place_of_its_old_row_alone():
    old = [row("a"), row("a", "reference"), row("a", phase="backward"), row("a", mode="graph-cold"), row("other")]
    new = [row("b"), row("a", us_p50=1.0)]
    assert merge(old, new, ["a", "b"]) == [*old[1:4], new[1], new[0], old[4]]


def test_who_cannot_run_any_more_has_no_figures_of_that_phase_in_any_mode():
    gone = row("a", us_p50=None, peak_bytes=None, note="not here")
    old = [row("a"), row("a", mode="graph-cold"), row("a", phase="backward"), row("a", "reference")]
    assert merge(old, [gone], ["a"]) == [*old[2:], gone]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = write_whole(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---- grids


def test_the_gpu_grid_is_the_issues():
    cases = op_cases("cuda")
    grid = {(case.d, case.m, case.T) for case in cases}
    assert grid >= {(d, m, T) for d in (768, 1024, 4096) for m in (16, 64, 256) for T in (128, 2048, 16384)}
    assert all(case.dtype == torch.bfloat16 for case in cases)
    assert [case_name(case) for case in cases if case.weight_dtype] == ["T16384-d768-m64-bfloat16-w32"]
    assert len(set(map(case_name, cases))) == len(cases)
    assert all(case.dtype == torch.float16 for case in op_cases("cuda", "float16"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_cases_and_a_quick_form(suite, device):
    whole, quick = benches(suite, device), benches(suite, device, quick=True)
    assert len({bench.case for bench in quick}) <= 2 < 2 + len(whole)
    providers = {name for bench in whole for name in bench.contenders}
    assert {"fused", "reference", "compile", "adapterhub"} <= providers
    assert providers <= set(commands.PROVIDERS)
    assert all(bench.suite == suite for bench in whole)


def test_an_unknown_suite_names_the_known_ones():
    with pytest.raises(ValueError, match="suite must be one of op, model, memory, latency, got 'speed'"):
        benches("speed", "cpu")


def test_a_campaign_is_every_suite_once():
    def key(bench):
        return bench.suite, bench.case, bench.phase

    every = [key(bench) for suite in SUITES for bench in benches(suite, "cuda")]
    assert sorted(map(key, campaign("cuda"))) == sorted(every)


# ---- the op's contenders


@pytest.mark.parametrize("phase", ["forward", "backward", "forward+backward", TRAINING])
@pytest.mark.parametrize("provider", ["fused", "reference", "two-kernel", "compile"])
def test_each_provider_of_the_op_is_right_and_can_be_timed_and_weighed(provider, phase):
    factory = op_contenders(CASE, phase, autotune=False)[provider]
    if provider == "two-kernel" and phase != "forward":
        with pytest.raises(Unavailable, match="no backward: aten::_addmm_activation has no derivative"):
            factory()
        return
    contender = factory()
    contender.warm()
    contender.check()
    sample = contender.sampler("eager")
    assert sample() > 0 and sample() > 0
    X, y = CASE.T * CASE.d * 4, 0 if phase == "backward" else CASE.T * CASE.d * 4
    assert y <= contender.peak() < 8 * X
    assert contender.parameters == 2 * 32 * 8 + 32 + 8
    contender.close()


def test_the_note_of_compile_says_which_mode_won():
    contender = op_contenders(CASE, "forward", autotune=True)["compile"]()
    contender.warm()
    modes = ("default", "max-autotune-no-cudagraphs")
    assert contender.note in {f"mode {mode}, the fastest of 2 modes" for mode in modes}


def test_a_compiler_that_fails_is_a_reason():
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler\nsecond line")

    with pytest.raises(Unavailable, match=r"RuntimeError: no C\+\+ compiler$"):
        LocalOp("compile", broken, CASE, "forward").warm()


def test_inputs_are_random_seeded_and_shared():
    [one], [other] = input_sets(CASE), input_sets(replace(CASE, seed=1))
    assert one.tensors["x"].std() > 0.9 and one.dy.std() > 0.9
    assert not torch.equal(one.tensors["x"], other.tensors["x"])
    contenders = op_contenders(CASE, "forward", autotune=False)
    assert contenders["fused"]().sets[0].tensors["x"] is contenders["reference"]().sets[0].tensors["x"]


def test_backward_alone_leaves_the_forward_out():
    calls = []

    def counted(*arguments, **settings):
        calls.append(1)
        return reference_adapter(*arguments, **settings)

    contender = LocalOp("counted", counted, CASE, "backward")
    sample = contender.sampler("eager")
    before = len(calls)
    sample()
    assert len(calls) == before


NAMES_OF_RESULTS = ("y", "d_x", "d_w_down", "d_b_down", "d_w_up", "d_b_up")


@pytest.mark.parametrize("name", NAMES_OF_RESULTS)
def test_every_result_is_held_against_float64(name):
    class Wrong(torch.autograd.Function):
        """reference_adapter with one result 0.1 % too large."""

        @staticmethod
        def forward(ctx, *tensors):
            with torch.enable_grad():
                leaves = [tensor.detach().requires_grad_() for tensor in tensors]
                y = reference_adapter(*leaves)
            ctx.graph = y, leaves
            return y.detach() * (1.001 if name == "y" else 1.0)

        @staticmethod
        def backward(ctx, dy):
            y, leaves = ctx.graph
            grads = torch.autograd.grad(y, leaves, dy, retain_graph=True)
            return tuple(
                grad * (1.001 if name == key else 1.0) for key, grad in zip(NAMES_OF_RESULTS[1:], grads, strict=True)
            )

    wrong = LocalOp("wrong", lambda *tensors, **_: Wrong.apply(*tensors), CASE, "forward+backward")
    with pytest.raises(AssertionError, match=f"wrong, T64-d32-m8-float32: {name}: max error"):
        wrong.check()


def less_exact(*tensors, **settings):
    """reference_adapter with half a rounding error on every element, always the same way: only the mean shows it."""
    y = reference_adapter(*tensors, **settings)
    return y + 1.5 * torch.finfo(y.dtype).eps * y.detach().abs().amax(-1, keepdim=True)


def test_a_peer_that_is_right_but_less_exact_is_timed_and_says_so():
    peer = LocalOp("compile", less_exact, CASE, "forward", note="default")
    peer.check()
    assert peer.note == "default; y is less exact than PyTorch's own"
    with pytest.raises(AssertionError, match=r"y: max error .* mean error"):
        LocalOp("fused", less_exact, CASE, "forward").check()


# ---- a run


def test_a_wrong_result_is_refused_before_timing():
    wrong, right = Fake("compile", wrong=True), Fake("fused")
    rows = {row.provider: row for row in Run("cpu").measure(made_bench(right, wrong))}
    assert wrong.log == ["warm", "check", "close"]
    assert rows["compile"].us_p50 is None and rows["compile"].peak_bytes is None
    assert rows["compile"].note == "refused before timing, its result is wrong: compile: max error 1.0"
    assert rows["fused"].us_p50 == 100.0


def test_a_tensor_that_is_wrong_is_refused_before_timing():
    def almost(*arguments, **settings):
        return reference_adapter(*arguments, **settings) * 1.0001

    bench = made_bench(Fake("fused"), LocalOp("two-kernel", almost, CASE, "forward"))
    [_, refused] = Run("cpu").measure(bench)
    assert refused.us_p50 is None and refused.note.startswith("refused before timing, its result is wrong: two-kernel")


def test_when_ours_is_wrong_nothing_of_the_case_is_written(tmp_path):
    run = Run("cpu", output=tmp_path)
    good, bad = made_bench(Fake("fused"), case="good"), made_bench(Fake("fused", wrong=True), case="bad")
    with pytest.raises(WrongResult, match="fused: max error"):
        run.run([good, bad])
    [path] = tmp_path.glob("*/op.json")
    assert {row.case for row in read_rows(path)} == {"good"}


def test_a_fifth_slower_is_slower_and_the_same_is_the_same_under_noise():
    """As samples on a busy machine: both drift together, and some take twice as long."""
    for seed in range(50):
        chance = random.Random(seed)
        drift = [chance.uniform(0.9, 1.1) for _ in range(1000)]
        contenders = []
        for name, us in (("reference", 100.0), ("slow", 120.0), ("twin", 100.0)):
            fake = Fake(name)
            turns = iter(drift)

            def sample(us=us, turns=turns, chance=chance):
                return us * next(turns) * chance.gauss(1, 0.02) * (2.0 if chance.random() < 0.05 else 1.0)

            fake.sampler = lambda mode, sample=sample: sample
            contenders.append(fake)
        bench = replace(made_bench(*contenders), rounds=20)
        rows = {row.provider: row.versus for row in Run("cpu").measure(bench)}
        assert rows == {"reference": "same", "slow": "slower", "twin": "same"}, seed


@pytest.mark.slow  # another process on the cores can hide a fifth
def test_a_provider_a_fifth_slower_is_reported_as_slower_in_five_runs_of_five():
    def slowed(*arguments, **settings):
        start = time.perf_counter_ns()
        y = reference_adapter(*arguments, **settings)
        end = time.perf_counter_ns()
        while time.perf_counter_ns() < end + 0.2 * (end - start):
            pass
        return y

    case = Case(256, 256, 32)
    for _ in range(5):
        contenders = LocalOp("reference", reference_adapter, case, "forward"), LocalOp("slow", slowed, case, "forward")
        bench = replace(made_bench(*contenders), rounds=20)
        rows = {row.provider: row for row in Run("cpu").measure(bench)}
        assert rows["slow"].versus == "slower"
        assert rows["reference"].versus == "same"


def test_a_row_for_whoever_cannot_run():
    hub = Fake("adapterhub", unavailable="AdapterHub is not installed: make peers")
    rows = {row.provider: row for row in Run("cpu").measure(made_bench(Fake("fused"), hub))}
    assert rows["adapterhub"].note == "AdapterHub is not installed: make peers"
    assert not rows["adapterhub"].ran and rows["fused"].ran


@pytest.mark.parametrize("where", ["warm", "check", "peak", "sampler", "sample"])
def test_a_peer_that_breaks_anywhere_is_a_row_and_the_others_are_measured(where):
    class Broken(Fake):
        calls = 0

        def sampler(self, mode):
            def sample():
                self.calls += 1
                if self.calls > 3:
                    raise Unavailable("its process ended")
                return 1.0

            return sample

    broken = Broken("adapterhub")
    if where != "sample":
        setattr(broken, where, lambda *_: (_ for _ in ()).throw(RuntimeError("out of luck\nmore")))
    fused, peer = Run("cpu").measure(made_bench(Fake("fused"), broken))
    assert fused.us_p50 == 100.0 and fused.samples == 10
    assert peer.us_p50 is None and not peer.ran
    assert peer.note == ("its process ended" if where == "sample" else "RuntimeError: out of luck")


def test_figures_of_a_row():
    rows = Run("cpu").measure(made_bench(Fake("fused", 80.0, note="n"), Fake("reference", 100.0)))
    fused = rows[0]
    assert (fused.us_p20, fused.us_p50, fused.us_p80, fused.us_p90, fused.us_p99) == (80.0,) * 5
    assert (fused.versus, fused.samples, fused.note, fused.parameters) == ("faster", 10, "n", 7)
    assert (fused.floor_us, fused.copy_gbps, fused.tflops, fused.peak_bytes) == (50.0, 10.0, 0.1, 1000)


def test_a_mode_that_a_provider_lacks_is_no_row():
    both, eager = Fake("fused", modes=("eager", "graph-hot")), Fake("compile")
    rows = Run("cpu").measure(made_bench(both, eager, modes=("eager", "graph-hot")))
    assert [(row.provider, row.mode) for row in rows] == [
        ("fused", "eager"),
        ("compile", "eager"),
        ("fused", "graph-hot"),
    ]


def test_only_the_providers_asked_for():
    rows = Run("cpu", providers=("fused",)).measure(made_bench(Fake("fused"), Fake("reference")))
    assert [row.provider for row in rows] == ["fused"]


def test_what_is_measured_is_kept_when_the_run_is_interrupted(tmp_path):
    class Interrupting(Fake):
        def peak(self):
            raise KeyboardInterrupt

    first, second = made_bench(Fake("fused"), case="one"), made_bench(Interrupting("fused"), case="two")
    with pytest.raises(KeyboardInterrupt):
        Run("cpu", output=tmp_path).run([first, second])
    [path] = tmp_path.glob("*/op.json")
    assert {row.case for row in read_rows(path)} == {"one"}

    again = Fake("fused"), Fake("fused")
    outcome = Run("cpu", output=tmp_path, resume=True).run(
        [made_bench(again[0], case="one"), made_bench(again[1], case="two")]
    )["op"]
    assert again[0].log == [] and "peak" in again[1].log
    assert [row.case for row in outcome.rows] == [row.case for row in read_rows(path)] == ["one", "two"]


def test_resume_measures_again_what_another_commit_measured(tmp_path):
    Run("cpu", output=tmp_path).run([made_bench(Fake("fused"))])
    run, again = Run("cpu", output=tmp_path, resume=True), Fake("fused", 200.0)
    run.origin["commit"] = "other"
    assert run.run([made_bench(again)])["op"].rows[0].us_p50 == 200.0


def test_phases_and_providers_of_a_case_come_one_by_one(tmp_path):
    def run(phase, *providers, us=100.0, resume=False):
        fakes = [Fake(name, us) for name in providers]
        run = Run("cpu", providers, output=tmp_path, resume=resume, whole=False)
        rows = run.run([made_bench(*fakes, phase=phase)])["op"].rows
        [path] = tmp_path.glob("*/op.json")
        assert read_rows(path) == rows
        return fakes, {(row.phase, row.provider): row.us_p50 for row in rows}

    run("forward", "fused", "reference")
    _, found = run("backward", "fused")
    first = {("forward", "fused"): 100.0, ("forward", "reference"): 100.0, ("backward", "fused"): 100.0}
    assert found == first
    # There already: nothing is measured.
    [fake], found = run("backward", "fused", us=1.0, resume=True)
    assert fake.log == [] and found == first
    # One of the two is not: figures are compared within one run alone, so both are measured.
    fakes, found = run("backward", "fused", "reference", us=2.0, resume=True)
    assert all(fake.log for fake in fakes)
    assert found == first | {("backward", "fused"): 2.0, ("backward", "reference"): 2.0}
    _, found = run("forward", "reference", us=3.0)
    assert found[("forward", "reference")] == 3.0 and found[("forward", "fused")] == 100.0


def test_a_run_of_some_cases_keeps_the_others(tmp_path):
    Run("cpu", output=tmp_path).run([made_bench(Fake("fused"), case="one"), made_bench(Fake("fused"), case="two")])
    outcome = Run("cpu", output=tmp_path, whole=False).run([made_bench(Fake("fused", 1.0), case="two")])["op"]
    assert [(row.case, row.us_p50) for row in outcome.rows] == [("two", 1.0), ("one", 100.0)]


def test_a_copy_without_git_names_its_commit(monkeypatch):
    monkeypatch.setattr("adapter_fast.benchmarks.rows.provenance.CHECKOUT", None)
    assert provenance("cpu")["commit"] == "unknown"
    monkeypatch.setenv("ADAPTER_FAST_COMMIT", "0123456789ab")
    assert provenance("cpu")["commit"] == "0123456789ab"


def test_results_that_a_run_writes_do_not_make_the_commit_another(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    code, results = tmp_path / "code.py", tmp_path / "benchmarks/results/cpu/op.json"
    for path in (code, results):
        write_whole(path, "old")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr("adapter_fast.benchmarks.rows.provenance.CHECKOUT", tmp_path)
    clean = provenance("cpu")["commit"]
    write_whole(results, "new")
    assert provenance("cpu")["commit"] == clean
    write_whole(code, "new")
    assert provenance("cpu")["commit"] == f"{clean}-dirty"


def test_a_run_out_of_time_says_what_is_left(tmp_path):
    run = Run("cpu", output=tmp_path, seconds=1e-9)
    outcome = run.run([made_bench(Fake("fused"), case="one"), made_bench(Fake("fused"), case="two")])["op"]
    assert outcome.left == ["one, forward", "two, forward"] and outcome.rows == []


def test_a_whole_run_drops_cases_that_are_no_longer_measured(tmp_path):
    Run("cpu", output=tmp_path).run([made_bench(Fake("fused"), case="old")])
    outcome = Run("cpu", output=tmp_path).run([made_bench(Fake("fused"), case="new")])["op"]
    assert [row.case for row in outcome.rows] == ["new"]


def test_a_results_file_of_another_schema_stops_a_resumed_run(tmp_path):
    path = path_of(tmp_path, provenance("cpu")["device"], "op")
    write_whole(path, '[{"suite": "op"}]')
    with pytest.raises(ResultsError, match="another schema"):
        Run("cpu", output=tmp_path, resume=True).run([made_bench(Fake("fused"))])
    Run("cpu", output=tmp_path).run([made_bench(Fake("fused"))])
    assert read_rows(path)[0].case == "one"


# ---- the command


def invoke(*words):
    return CliRunner().invoke(commands.bench, words, standalone_mode=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "speed"], "'speed' is not one of 'op', 'model', 'memory', 'latency', 'all'"),
        (
            ["--provider", "cudnn"],
            "'cudnn' is not one of 'fused', 'fused-balanced', 'fused-lean', 'fused-compile', 'reference'",
        ),
        (["--dtype", "int8"], "'int8' is not one of 'float32', 'bfloat16', 'float16'"),
        (["--device", "cpu", "--dtype", "float16"], "--dtype float16 on a CPU: expected float32 or bfloat16"),
        (["--device", "cpu", "--quick", "--resume"], "--resume with --quick, --provider or --case needs --output"),
        (
            ["--device", "cpu", "--case", "one", "--resume"],
            "--resume with --quick, --provider or --case needs --output",
        ),
        (["--minutes", "0"], "'--minutes': 0.0 is not in the range x>0"),
        (["--rounds", "0"], "'--rounds': 0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_one_line(words, message):
    done = invoke(*words)
    assert done.exit_code == 2
    assert message in done.output.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_told_in_a_line():
    assert "--device cuda: there is no CUDA device here" in invoke("--device", "cuda").output


def command(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    return [sys.executable, "-m", "adapter_fast", "bench", *words], environment


def test_a_quick_run_of_the_op_end_to_end(tmp_path):
    words = ["--device", "cpu", "--suite", "op", "--quick", "--output", str(tmp_path)]
    words += ["--provider", "fused", "--provider", "reference"]
    line, environment = command(*words)
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*/op.json")
    rows = read_rows(path)
    assert {(row.provider, row.phase, row.mode) for row in rows} == {
        (provider, phase, "eager")
        for provider in ("fused", "reference")
        for phase in ("forward", "backward", "forward+backward")
    }
    assert all(row.peak_bytes > 0 and row.floor_us > 0 and row.us_p20 <= row.us_p50 <= row.us_p80 for row in rows)
    assert "1 host thread pinned" in done.stdout
    assert {"speedup.png", "speedup.svg", "floor.png", "floor.svg"} <= {file.name for file in path.parent.iterdir()}


def test_the_cases_rounds_and_parts_asked_for(tmp_path, monkeypatch):
    fakes = {case: Fake("fused") for case in ("one", "two", "three")}
    asked = []

    def grid(suite, device, **settings):
        asked.append(settings)
        return [made_bench(fake, case=case, suite=suite) for case, fake in fakes.items()]

    monkeypatch.setattr("adapter_fast.benchmarks.suites.benches", grid)
    words = ["--device", "cpu", "--suite", "op", "--output", str(tmp_path), "--case", "three", "--case", "one"]
    done = invoke(*words, "--rounds", "3", "--no-plots", "--no-autotune")
    assert done.exit_code == 0, done.output
    assert [case for case, fake in fakes.items() if fake.log] == ["one", "three"]
    [path] = tmp_path.glob("*/op.json")
    assert [row.samples for row in read_rows(path)] == [6, 6]
    assert [file.name for file in path.parent.iterdir()] == ["op.json"]
    assert asked == [{"dtype": None, "quick": False, "autotune": False}]
    assert invoke(*words, "--case", "four").output.splitlines()[-1] == (
        "Error: --case must name cases out of one, two, three, got 'four'"
    )
    assert invoke(*words[:-4], "--case", "two", "--no-plots").exit_code == 0
    assert [row.case for row in read_rows(path)] == ["two", "one", "three"]
    # Rows of some cases are no whole suite, and go nowhere by themselves.
    monkeypatch.setattr("adapter_fast.benchmarks.rows.provenance.RESULTS", tmp_path / "checkout")
    assert invoke("--device", "cpu", "--suite", "op", "--case", "one", "--no-plots").exit_code == 0
    assert not (tmp_path / "checkout").exists()


def test_without_autotune_torch_compile_has_one_mode(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "adapter_fast.benchmarks.suites.op_contenders",
        lambda case, phase, autotune, modes: asked.append(autotune) or {},
    )
    benches("op", "cuda", autotune=False)
    assert not any(asked)
    benches("op", "cuda")
    assert any(asked)


def test_ctrl_c_is_a_clean_stop(tmp_path):
    line, environment = command("--device", "cpu", "--suite", "op", "--output", str(tmp_path))
    process = subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "[1/" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == commands.INTERRUPTED
    assert errors.splitlines()[-1].startswith("adapter-fast: interrupted; what was measured is in")
    assert "Traceback" not in errors


@pytest.fixture
def interruptible():
    """A shell starts what it runs in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["warm", "peak", "sample", "last sample"])
def test_ctrl_c_is_not_lost_in_a_callback(where, tmp_path, monkeypatch, capfd, interruptible):
    """Python drops an exception that is raised in a finaliser, and torch.compile has many."""

    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    class Pressed(Fake):
        def warm(self):
            super().warm()
            self.press("warm")

        def peak(self):
            self.press("peak")
            return super().peak()

        def sampler(self, mode):
            times = iter(range(1000))

            def sample():
                taken = next(times)
                self.press("sample" if taken == 3 else "last sample" if taken == 5 else "")  # the first is not kept
                return self.us

            return sample

        def press(self, here):
            if here == where:
                Finalised()

    pressed, beside, after = Pressed("fused"), Fake("reference"), Fake("fused")
    work = [made_bench(Fake("fused"), case="one"), made_bench(pressed, beside, case="two")]
    work.append(made_bench(after, case="three"))
    monkeypatch.setattr("adapter_fast.benchmarks.suites.campaign", lambda device, **_: work)
    result = invoke("--device", "cpu", "--output", str(tmp_path))
    assert result.exit_code == commands.INTERRUPTED and "adapter-fast: interrupted" in result.output
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    assert pressed.log[-1] == "close" and after.log == []
    assert beside.log == [] if where == "warm" else beside.log[-1] == "close"
    [path] = tmp_path.glob("*/op.json")
    assert {row.case for row in read_rows(path)} == {"one"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- the hardware's counters

_METRICS = (
    '"dram__bytes_read.sum","dram__bytes_write.sum","gpu__time_duration.sum","launch__grid_size",'
    '"launch__registers_per_thread","sm__warps_active.avg.pct_of_peak_sustained_active"'
)
NCU = f"""==PROF== Connected to process 1
"ID","Process ID","Kernel Name",{_METRICS}
"","","","byte","byte","ns","","register/thread","%"
"0","1","bottleneck_forward_kernel","25,300,000","25165824","17500","128","128","24.5"
"""


def test_ncu_figures_are_read():
    [record] = ncu.parse(NCU)
    assert record == {
        "kernel": "bottleneck_forward_kernel",
        "dram_read_bytes": 25300000.0,
        "dram_write_bytes": 25165824.0,
        "ns": 17500.0,
        "occupancy_percent": 24.5,
        "registers": 128.0,
        "grid": 128.0,
    }
    text = ncu.table([{"case": "T16384", "x_bytes": 25165824, **record}])
    assert text.splitlines()[1].split() == [
        "T16384",
        "bottleneck_forward_kernel",
        "1.01",
        "1.00",
        "17.5",
        "24",
        "128",
        "128",
    ]


@pytest.mark.parametrize("text", ["", "==ERROR== No kernels were profiled", NCU.replace("dram__bytes_read.sum", "x")])
def test_ncu_without_figures_is_an_error(text):
    with pytest.raises(ValueError, match="ncu gave no"):
        ncu.parse(text)


def test_ncu_keeps_what_it_has_where_a_case_fails_or_does_not_end(tmp_path, monkeypatch, capsys):
    ran = []

    def tool(order, timeout, **_):
        ran.append(order[-1])
        if len(ran) == 2:
            raise subprocess.TimeoutExpired("ncu", timeout)
        return subprocess.CompletedProcess(order, 0, NCU if len(ran) == 1 else "", "no permission")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ncu.shutil, "which", lambda name: name)
    monkeypatch.setattr(ncu, "provenance", lambda device: {"device": "NVIDIA H100"})
    monkeypatch.setattr(ncu.subprocess, "run", tool)
    assert ncu.main(["--timeout", "7", "--output", str(tmp_path)]) == 1
    assert len(ran) == 3
    [kept] = json.loads((tmp_path / "nvidia-h100/ncu.json").read_text())
    assert kept["case"] == "T16384-d768-m64-bfloat16" and kept["registers"] == 128
    told = capsys.readouterr()
    assert "T16384-d768-m64-bfloat16  bottleneck_forward_kernel" in told.out
    assert "not done after 7.0 s" in told.err and "ncu gave no figures: no permission" in told.err


def test_ncu_leaves_the_clocks_alone():
    line = ncu.command("ncu", Case(16, 32, 8, dtype=torch.bfloat16))
    assert line[line.index("--clock-control") + 1] == "none"
    assert line[-2:] == ["--launch", "16,32,8,bfloat16"]


@pytest.mark.gpu
@pytest.mark.parametrize("suite", SUITES)
def test_a_quick_run_on_a_gpu(suite, tmp_path):
    line, environment = command("--device", "cuda", "--suite", suite, "--quick", "--output", str(tmp_path))
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob(f"*/{suite}.json")
    rows = read_rows(path)
    assert any(row.ran for row in rows if row.provider == "fused")
    if suite == "op":
        assert {row.mode for row in rows} == {"eager", "graph-cold", "graph-hot"}


def test_memory_grid_names_are_distinct():
    for device in ("cpu", "cuda"):
        names = [case_name(case) for case in memory_cases(device)]
        assert len(set(names)) == len(names)
