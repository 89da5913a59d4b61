"""The experiments' engine on a tiny model: rows, sweeps, claims, kills, caches, and the quick forms' arithmetic."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import write_model, write_task

from adapter_fast import AdapterConfig, add_adapters
from adapter_fast.cli import main
from adapter_fast.common.errors import UserError
from adapter_fast.experiments import NAMES, classification, drive
from adapter_fast.experiments.ablation import span_scores
from adapter_fast.experiments.data import read_tasks
from adapter_fast.experiments.find import find_experiment
from adapter_fast.experiments.grid import cache, engine, pool
from adapter_fast.experiments.grid.cells import Cell, plan_cells, summarize
from adapter_fast.experiments.grid.engine import run_grid
from adapter_fast.experiments.grid.lab import Lab
from adapter_fast.experiments.grid.methods import bottleneck_for, cell
from adapter_fast.experiments.grid.options import Options
from adapter_fast.experiments.grid.result import Result, read_result
from adapter_fast.experiments.grid.store import Store
from adapter_fast.experiments.grid.wording import share, signed
from adapter_fast.experiments.screen import Silence
from adapter_fast.placement.sites import find_sites, layer_norm_parameters
from adapter_fast.recipe import train_top_layers
from adapter_fast.tasks.kinds.text import TextClassification

ROOT = Path(__file__).parents[2]
HIDDEN, LAYERS, LABELS = 32, 2, 3
HEAD = LABELS * (HIDDEN + 1)
POOLER = HIDDEN * (HIDDEN + 1)  # of a base that was never trained, so that it trains with the head
NORMS = (2 * LAYERS + 1) * 2 * HIDDEN


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of the test's own, and PyTorch's backend: the interpreter is for kernels' tests."""
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "model")
    write_task(folder / "first.csv", rows=90)
    write_task(folder / "second.csv", rows=90, seed=1)
    return folder


def options_of(world: Path, **changes: object) -> Options:
    values: dict = {
        "model": str(world / "model"),
        "data": (str(world / "first.csv"), str(world / "second.csv")),
        "seeds": 2,
        "rates": {"adapters": (1e-2,), "full": (3e-3,)},
        "epochs": (3,),
        "bottlenecks": (2, 4),
        "tops": (1, 5),
        "batch_size": 16,
        "max_length": 16,
        "precision": "fp32",
    }
    return Options(**{**values, **changes})


def run(name: str, options: Options, output: Path) -> Result:
    return drive.run_experiment(name, find_experiment(name), options, Store(output), Silence())


def command(name: str, world: Path, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "adapter_fast", "experiment", name, "--model", str(world / "model")),
        *("--data", str(world / "first.csv"), "--data", str(world / "second.csv"), "--output", str(output)),
        *("--seeds", "2", "--lr", "1e-2", "--lr", "full=3e-3", "--epochs", "3", "--bottleneck", "2,4"),
        *("--top-layers", "1", "--batch-size", "16", "--max-length", "16", "--precision", "fp32", *more),
    ]


def environment(tmp_path: Path) -> dict[str, str]:
    own = {"ADAPTER_FAST_CACHE": str(tmp_path / "cache"), "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT)}


def what_counts(rows: list[dict]) -> list[dict]:
    """Rows without what a clock says."""
    return [{name: value for name, value in row.items() if "seconds" not in name and name != "date"} for row in rows]


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The whole tradeoff grid, run once for the tests that read it."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTER_FAST_CACHE", str(output / "cache"))
        patch.setenv("TRITON_INTERPRET", "0")
        return run("tradeoff", options_of(world), output)


def test_parameters_are_those_of_the_formula(finished: Result) -> None:
    base = {row["base_parameters"] for row in finished.rows}
    assert len(base) == 1
    seen = set()
    for row in finished.rows:
        m, method = row["bottleneck"], row["method"]
        adapters = 2 * LAYERS * (2 * m * HIDDEN + HIDDEN + m) if method == "adapters" else 0
        assert row["adapter_parameters"] == adapters
        assert row["adapters"] == (2 * LAYERS if method == "adapters" else 0)
        assert row["head_parameters"] == HEAD
        expected = {
            "head": HEAD + POOLER,
            "layer-norms": NORMS + HEAD + POOLER,
            "adapters": adapters + NORMS + HEAD + POOLER,
            "full": row["base_parameters"] + HEAD,
        }
        assert method == "top" or row["trained"] == expected[method]
        assert row["base_unchanged"], "every method trains copies"
        seen.add(method)
    assert seen == {"head", "layer-norms", "adapters", "full", "top"}
    assert not [row for row in finished.rows if row["top"] == 5], "the model has two layers"


def test_every_cell_has_its_seeds_and_learns_something(finished: Result) -> None:
    summaries = summarize(finished.rows)
    assert len(summaries) == 2 * (3 + 1 + 2)
    for summary in summaries:
        assert [row["seed"] for row in summary.rows] == [0, 1]
        assert summary.mean() == statistics.fmean(row["scores"]["test"]["accuracy"] for row in summary.rows)
    best = max(summary.mean() for summary in summaries)
    assert best > 0.6, "chance is a third"


def test_averages_totals_and_shares_of_table_2(finished: Result) -> None:
    rows = [row for row in finished.rows if row["method"] != "layer-norms"]
    text = classification.table(replace(finished, rows=rows))
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()[2:7]
    }
    chosen = classification.best_of(rows)
    base = rows[0]["base_parameters"]
    for column, method in enumerate(classification.COLUMNS):
        own = [chosen[task][method] for task in ("first", "second")]
        accuracy = [statistics.fmean(row["scores"]["test"]["accuracy"] for row in summary.rows) for summary in own]
        assert lines["first"][column].startswith(f"{100 * accuracy[0]:.1f}")
        assert lines["**average**"][column] == f"{100 * sum(accuracy) / 2:.1f}"
        trained = [summary["trained"] for summary in own]
        total = sum(trained) / base + (method != "full")
        assert lines["stored in all"][column] == f"{total:.2f}×"
        assert lines["trained a task"][column].startswith(share(sum(trained) / 2 / base))


def test_classification_takes_the_rows_that_tradeoff_has(
    finished: Result, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    for row in finished.rows:
        store.write(row["key"], row)
    monkeypatch.setattr("adapter_fast.experiments.grid.train.train_and_score", None)  # nothing is left to run
    shared = run("classification", options_of(world), tmp_path)
    assert {row["method"] for row in shared.rows} == {"head", "full", "top", "adapters"}
    assert len(shared.rows) == len(finished.rows) - 4


def test_a_row_does_not_depend_on_what_ran_before(finished: Result, world: Path, tmp_path: Path) -> None:
    options = options_of(world, data=(str(world / "second.csv"),), bottlenecks=(4,), tops=())
    alone = run("classification", options, tmp_path)
    by_key = {row["key"]: row for row in finished.rows}
    assert len(alone.rows) == 6
    assert what_counts(alone.rows) == what_counts([by_key[row["key"]] for row in alone.rows])


def test_results_files_read_back(finished: Result, tmp_path: Path) -> None:
    path = finished.write(tmp_path / "results.json")
    assert read_result(path) == finished
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="is no experiment's results file"):
        read_result(path)


def test_the_model_is_read_once_and_frozen_weights_are_shared(world: Path, tmp_path: Path) -> None:
    options = options_of(world)
    tasks = read_tasks(options)
    lab = Lab(options.model, tasks, Store(tmp_path))
    spec = cell(lab, tasks[0], options, "adapters", bottleneck=2).spec.at(1e-3, 1, 0)
    models = [lab.build(task, spec.settings()).model for task in tasks]
    weights = lab.pool._weights["AutoModelForSequenceClassification"]
    for model in models:
        from adapter_fast.experiments.grid.train import prepare

        prepare(model, spec)
        pool.own_trained(model)
        shared = {name for name, value in model.named_parameters() if name in weights and _same(value, weights[name])}
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        assert shared == set(weights) & {name for name, _ in model.named_parameters()} - trained
        assert len(shared) > 10
        assert len(trained & set(weights)) == 2 * (2 * LAYERS + 1) + 2  # the LayerNorms, and the pooler
    assert lab.pool.reads == 1
    before = lab.pool.digest(tasks[0].kind)
    with torch.no_grad():
        weights["bert.pooler.dense.bias"].add_(1e-6)
    assert lab.pool.digest(tasks[0].kind) != before


def _same(value: torch.Tensor, other: torch.Tensor) -> bool:
    return value.data_ptr() == other.data_ptr()


def test_texts_are_tokenised_once(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_of(world)
    task = read_tasks(options)[0]
    spec = cell(Lab(options.model, [task], Store(tmp_path)), task, options, "head").spec.at(1e-3, 1, 0)
    settings = spec.settings()
    calls = []
    encode = TextClassification.encode
    monkeypatch.setattr(TextClassification, "encode", lambda self, *given: calls.append(1) or encode(self, *given))

    def encoded(rows=task.parts["test"], settings=settings):
        lab = Lab(options.model, [task], Store(tmp_path))  # as another process would
        kind = lab.pool.load(task.kind).kind
        first = lab.encode(task, kind, rows, settings)
        assert lab.encode(task, kind, rows, settings) is first
        return first

    made, again = encoded(), encoded()
    assert len(calls) == 1
    assert [made[i] for i in range(len(made))] == [again[i] for i in range(len(again))]
    encoded(settings=replace(settings, max_length=8))
    encoded(rows=task.parts["validation"])
    assert len(calls) == 3, "another length and other rows are other data"
    for path in (tmp_path / "cache" / "encoded").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    broken = encoded()
    assert len(calls) == 4
    assert [made[i] for i in range(len(made))] == [broken[i] for i in range(len(broken))]
    monkeypatch.setattr(cache, "write_whole", _no_space)
    encoded(settings=replace(settings, max_length=7))


def _no_space(*_: object) -> None:
    raise OSError("No space left on device")


def grid(world: Path, tmp_path: Path, name: str = "classification") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").glob("*.json"))]


def test_kill_9_in_the_middle_of_a_grid(finished: Result, world: Path, tmp_path: Path) -> None:
    arguments = command("tradeoff", world, tmp_path)
    process = subprocess.Popen(arguments, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
    rows = tmp_path / "runs"
    deadline = time.monotonic() + 100
    while len(list(rows.glob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written = {path.name: path.stat().st_mtime_ns for path in rows.glob("*.json")}
    assert 5 <= len(written) < len(finished.rows)
    broken, *whole = sorted(written)
    (rows / broken).write_text((rows / broken).read_text()[:200])  # as a dying disk would leave it
    done = subprocess.run(arguments, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout.count(", lr ") == len(finished.rows) - len(whole), (
        "one line a run: finished ones are not run again"
    )
    assert all((rows / name).stat().st_mtime_ns == written[name] for name in whole)
    result = read_result(tmp_path / "tradeoff" / "results.json")
    keys = [row["key"] for row in result.rows]
    assert len(set(keys)) == len(keys) == len(list(rows.glob("*.json")))
    assert what_counts(result.rows) == what_counts(finished.rows)


def test_two_workers_share_a_grid(finished: Result, world: Path, tmp_path: Path) -> None:
    arguments = command("tradeoff", world, tmp_path, "--workers", "2")
    done = subprocess.run(arguments, env=environment(tmp_path), capture_output=True, text=True, check=True)
    mine = done.stdout.count(", lr ")
    assert 0 < mine < len(finished.rows), "the helper ran the others"
    assert what_counts(read_result(tmp_path / "tradeoff" / "results.json").rows) == what_counts(finished.rows)


def test_torchruns_processes_share_a_grid_and_one_prints(finished: Result, world: Path, tmp_path: Path) -> None:
    module = command("tradeoff", world, tmp_path)[1:]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *module]
    done = subprocess.run(launcher, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout.count("| stored") <= 1 and done.stdout.count("runs in ") == 1
    assert what_counts(read_result(tmp_path / "tradeoff" / "results.json").rows) == what_counts(finished.rows)


class Note:
    """A job that only says that it ran."""

    def __init__(self, key: str, ran: list[str], seed: int = 0) -> None:
        self.key, self.label, self.ran, self.seed = key, key, ran, seed

    def run(self, lab: Lab, report: object) -> dict:
        self.ran.append(self.key)
        return {"key": self.key}


def test_a_claimed_run_is_left_to_its_process(world: Path, tmp_path: Path) -> None:
    options = options_of(world)
    store = Store(tmp_path)
    lab = Lab(options.model, read_tasks(options), store)
    ran: list[str] = []
    jobs = [Note("a", ran), Note("b", ran)]
    looked = []

    def plan(rows: dict) -> list[Note]:
        looked.append(sorted(rows))
        if len(looked) == 2:  # the other process finishes its run
            Store(tmp_path).write("a", {"key": "a"})
        return jobs

    with store.claim("a") as mine:
        assert mine
        rows, finished = run_grid(plan, lab, Silence())
    assert ran == ["b"] and finished
    assert rows == [{"key": "a"}, {"key": "b"}]


def test_a_grid_whose_time_is_up_has_a_seed_of_every_cell_before_a_second_one(world: Path, tmp_path: Path) -> None:
    options = options_of(world)
    lab = Lab(options.model, read_tasks(options), Store(tmp_path))
    ran: list[str] = []
    jobs = [Note(f"{cell} {seed}", ran, seed) for cell in "abc" for seed in range(2)]
    now = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.time, "monotonic", lambda: now + len(ran))
        rows, finished = run_grid(lambda rows: jobs, lab, Silence(), until=now + 3)
    assert ran == ["a 0", "b 0", "c 0", "a 1"] and not finished
    assert [row["key"] for row in rows] == ["a 0", "a 1", "b 0", "c 0"]
    rows, finished = run_grid(lambda rows: jobs, lab, Silence())
    assert len(rows) == 6 and finished


@pytest.mark.parametrize("name", ["sequential", "tradeoff"])
def test_a_command_whose_time_is_up_at_once(name: str, world: Path, tmp_path: Path, capsys) -> None:
    done = subprocess.run(
        command(name, world, tmp_path / "o", "--minutes", "0.0002"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Time is up with 0 runs, too few for a table: the same command goes on" in done.stdout


def test_tables_of_some_runs_say_so_and_sequentials_wait_for_all(finished: Result, tmp_path: Path) -> None:
    some = replace(finished, rows=finished.rows[:3], finished=False)
    assert drive.write_files(find_experiment("tradeoff"), some, tmp_path)
    assert "**Not all runs are finished**." in (tmp_path / "tradeoff/table.md").read_text()
    assert "Not all" not in find_experiment("tradeoff").table(finished)
    waiting = replace(some, experiment="sequential")
    assert drive.write_files(find_experiment("sequential"), waiting, tmp_path) == []
    assert not (tmp_path / "sequential").exists()


def test_rows_of_another_machine_are_taken_as_they_are(finished: Result, world: Path, tmp_path: Path) -> None:
    some = [{**row, "processor": "elsewhere"} for row in finished.rows[::2]]
    Result("tradeoff", finished.options, some, finished=False).write(tmp_path / "theirs.json")
    more = ["--known", str(tmp_path / "theirs.json")]
    done = subprocess.run(command("tradeoff", world, tmp_path / "o", *more), env=environment(tmp_path), check=True)
    assert done.returncode == 0
    rows = read_result(tmp_path / "o/tradeoff/results.json").rows
    assert what_counts([row for row in rows if row["processor"] == "elsewhere"]) == what_counts(some)
    by_key = {row["key"]: {**row, "processor": ""} for row in finished.rows}
    assert what_counts([{**row, "processor": ""} for row in rows]) == what_counts([by_key[row["key"]] for row in rows])


def test_a_sweep_goes_on_with_its_best(world: Path, tmp_path: Path) -> None:
    options = options_of(world)
    tasks = read_tasks(options)
    lab = Lab(options.model, tasks, Store(tmp_path))
    swept = Cell(cell(lab, tasks[0], options, "head").spec, (1e-3, 1e-2), (1, 2), seeds=3, sweep_seeds=1)
    first = plan_cells([swept], {})
    assert [(spec.lr, spec.epochs, spec.seed) for spec in first] == [
        (rate, epochs, 0) for rate in (1e-3, 1e-2) for epochs in (1, 2)
    ]
    rows = {spec.key: {"choose_by": value} for spec, value in zip(first, (0.1, 0.9, 0.4, 0.2))}
    assert len(plan_cells([swept], dict(list(rows.items())[:3]))) == 4, "not before the whole sweep is there"
    more = plan_cells([swept], rows)
    assert [(spec.lr, spec.epochs, spec.seed) for spec in more[4:]] == [(1e-3, 2, 1), (1e-3, 2, 2)]
    assert len(plan_cells([replace(swept, sweep_seeds=3)], {})) == 12


def test_the_budget_gives_the_largest_m(world: Path, tmp_path: Path) -> None:
    options = options_of(world)
    tasks = read_tasks(options)
    lab = Lab(options.model, tasks, Store(tmp_path))
    base = lab.pool.size(tasks[0].kind)

    def cost(m: int) -> int:
        return 2 * LAYERS * (2 * m * HIDDEN + HIDDEN + m) + NORMS

    for m in (1, 3, 7):
        assert bottleneck_for(lab, tasks[0], cost(m) / base) == m
        assert bottleneck_for(lab, tasks[0], (cost(m + 1) - 1) / base) == m
    with pytest.raises(UserError, match=r"budget 1 % is too small: m = 1 with the LayerNorms takes \d+\.\d\d %"):
        bottleneck_for(lab, tasks[0], 0.01)


def test_spans_are_the_model_without_these_adapters(world: Path) -> None:
    from transformers import BertModel

    from adapter_fast import disable_adapters
    from adapter_fast.experiments.grid.layer_spans import score_spans

    model = BertModel.from_pretrained(world / "model").eval()
    torch.manual_seed(0)
    add_adapters(model, AdapterConfig(bottleneck=4, init_std=0.3))
    ids = torch.randint(5, 20, (2, 6))
    state = []

    @torch.no_grad()
    def score() -> float:
        state.append(model(ids).last_hidden_state)
        return float(len(state))

    scores = score_spans(model, score)
    assert list(scores) == ["none", "0-0", "0-1", "1-1"]
    outputs = dict(zip(scores, state))
    with disable_adapters(model), torch.no_grad():
        bare = model(ids).last_hidden_state
    assert torch.equal(outputs["0-1"], bare)
    with torch.no_grad():
        assert torch.equal(model(ids).last_hidden_state, outputs["none"]), "they are back"
    assert not any(torch.equal(one, other) for one, other in combinations(outputs.values(), 2))
    lower = BertModel.from_pretrained(world / "model").eval()
    torch.manual_seed(0)
    add_adapters(lower, AdapterConfig(bottleneck=4, init_std=0.3))
    for site in find_sites(lower)[2:]:
        site.module.adapter_site.switch(None)
    with torch.no_grad():
        assert torch.equal(lower(ids).last_hidden_state, outputs["1-1"])


@pytest.mark.parametrize("layers", [1, 2])
def test_top_layers_are_those_layers_and_what_is_above(world: Path, layers: int) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(world / "model")
    train_top_layers(model, layers)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    heads = ("bert.pooler.", "classifier.", *(f"bert.encoder.layer.{i}." for i in range(LAYERS - layers, LAYERS)))
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(heads)}
    with pytest.raises(ValueError, match="layers must be from 1 to 2, the model's number of layers, got 3"):
        train_top_layers(model, 3)


def test_top_layers_need_layers_of_their_own() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "embedding_size": 8,
        "vocab_size": 30,
    }
    model = AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=3, **sizes))
    with pytest.raises(ValueError, match="one stack of layers of their own"):
        train_top_layers(model, 1)


def test_below_the_lowest_adapter_there_is_no_backward(world: Path, tmp_path: Path) -> None:
    from adapter_fast.experiments.grid.train import prepare

    options = options_of(world)
    task = read_tasks(options)[0]
    lab = Lab(options.model, [task], Store(tmp_path))
    made = cell(lab, task, options, "adapters", bottleneck=2, layers=(1,)).spec.at(1e-3, 1, 0)
    model = lab.build(task, made.settings()).model
    prepare(model, made)
    needs = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda module, given, out: needs.append(torch.is_tensor(out) and out.requires_grad))
    model(torch.ones(1, 4, dtype=torch.long), labels=torch.tensor([0])).loss.backward()
    assert needs == [False, True]


def test_the_quick_form_of_sequential(world: Path, tmp_path: Path) -> None:
    data = ["--data", str(world / "first.csv"), "--data", str(world / "second.csv")]
    given = ["--model", str(world / "model"), *data, "--seeds", "1", "--output", str(tmp_path)]
    assert main(["experiment", "sequential", "--quick", *given]) == 0
    rows = read_result(tmp_path / "sequential" / "results.json").rows
    chains = [row for row in rows if "chain" in row]
    assert [(row["method"], len(row["chain"])) for row in chains] == [
        *(("adapters", 1), ("adapters", 2), ("sequential", 1), ("sequential", 2), ("joint", 2))
    ]
    m, base = chains[1]["bottleneck"], chains[1]["base_parameters"]
    own = {"adapter": 2 * LAYERS * (2 * m * HIDDEN + HIDDEN + m), "layer_norm": NORMS, "head": HEAD + POOLER}
    assert chains[1]["stored"] == {"first": own, "second": own}
    table = (tmp_path / "sequential" / "table.md").read_text()
    line = next(line for line in table.splitlines() if "an adapter a task" in line)
    assert "exactly 0" in line and f"{(base + 2 * sum(own.values())) / base:.2f}×" in line
    assert (tmp_path / "sequential" / "sequential.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["classification", "tradeoff", "ablation"])
def test_the_quick_form_writes_table_and_plots(name: str, world: Path, tmp_path: Path, capsys) -> None:
    given = ["--model", str(world / "model"), "--data", str(world / "first.csv"), "--output", str(tmp_path)]
    assert main(["experiment", name, "--quick", "--seeds", "1", *given]) == 0
    out = capsys.readouterr().out
    result = read_result(tmp_path / name / "results.json")
    assert f"{len(result.rows)} runs" in out
    table = (tmp_path / name / "table.md").read_text()
    assert table.count("|---") or table.count("| --- ")
    module = find_experiment(name)
    for figure in module.figures(result):
        for kind in ("png", "svg"):
            assert (tmp_path / name / f"{figure}.{kind}").stat().st_size > 5000
    for row in result.rows:
        own = row["adapters"] * (2 * (row["bottleneck"] or 0) * HIDDEN + HIDDEN + (row["bottleneck"] or 0))
        assert row["adapter_parameters"] == own
    if name == "ablation":
        by_place = {(tuple(row["sublayers"] or ()), tuple(row["layers"] or ())): row["adapters"] for row in result.rows}
        assert by_place == {((), ()): 4, (("attention",), ()): 2, (("feed_forward",), ()): 2, ((), (1,)): 2}
        (spans,) = [row["span_scores"] for row in result.rows if row["spans"]]
        assert list(spans) == ["none", "0-0", "0-1", "1-1"]
        frozen = next(row for row in result.rows if not row["layer_norms"])
        assert frozen["trained"] == frozen["adapter_parameters"] + HEAD + POOLER
    again = main(["experiment", name, "--quick", "--seeds", "1", *given])
    assert again == 0 and ", lr " not in capsys.readouterr().out, "nothing is run twice"


def test_every_experiment_has_what_the_command_needs() -> None:
    for name in NAMES:
        module = find_experiment(name)
        assert module.COMMAND and isinstance(module.PAPER, Options) and isinstance(module.QUICK, Options)
        assert module.PAPER.seeds >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.csv"], "--data nowhere.csv: no such file or folder, and no corpus: those are reuters-r8"),
        (["--data", "{world}"], "has no train split: expected train.csv, .tsv, .jsonl among its files"),
        (["--data", "{first}", "--data", "{first}"], "two tasks of the name 'first'"),
        (["--lr", "ful=1e-3"], "lr: 'ful' is no method: expected one of adapters, top"),
        (["--lr", "full=fast"], "--lr 'full=fast': expected METHOD=RATE,RATE"),
        (["--lr", "0"], "lr of adapters must be a positive number, got 0.0"),
        (["--epochs", "3,x"], "'3,x' is not int numbers with commas between them"),
        (["--bottleneck", "0"], "bottlenecks must be whole numbers from 1 on, got 0"),
        (["--budget", "3.6%", "--bottleneck", "8"], "--budget takes the place of --bottleneck"),
        (["--budget", "many"], "'many' is no share: expected one as 3.6% or 0.036"),
        (["--budget", "120%"], "budget must be between 0 and 100 %, got 120 %"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--max-length", "64"], "max_length 64 is over the model's 32 positions"),
        (["--seeds", "third=3"], "--seeds third=…: no such task: expected one of first"),
        (["--epochs", "first=0"], "epochs of first must be whole numbers from 1 on, got 0"),
        (["--task", "CoLA"], "--task CoLA chooses among GLUE's tasks: expected --data with GLUE's folder"),
        (["--known", "nowhere.json"], "nowhere.json cannot be read: No such file or directory"),
        (["--output", "{first}"], "first.csv is a file: expected a directory"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, world: Path, tmp_path: Path, capsys) -> None:
    places = {"world": world, "first": world / "first.csv"}
    given = [text.format(**places) if text.startswith("{") else text for text in arguments]
    defaults = ["--model", str(world / "model")]
    defaults += [] if "--data" in given else ["--data", str(world / "first.csv")]
    defaults += [] if "--output" in given else ["--output", str(tmp_path / "out")]
    assert main(["experiment", "classification", "--quick", *defaults, *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_folder_with_a_file_a_part(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "topics"
    folder.mkdir()
    for part, rows in (("train", 30), ("dev", 12), ("test", 9)):
        write_task(folder / f"{part}.csv", rows=rows)
    (task,) = read_tasks(options_of(world, data=(str(folder),)))
    assert task.name == "topics"
    assert {name: len(rows) for name, rows in task.parts.items()} == {"train": 30, "validation": 12, "test": 9}
    (folder / "dev.csv").unlink()
    with pytest.raises(UserError, match="topics has no validation split"):
        read_tasks(options_of(world, data=(str(folder),)))


def test_a_run_that_diverges_is_a_row_that_says_so(world: Path, tmp_path: Path) -> None:
    options = options_of(world, data=(str(world / "first.csv"),), seeds=1, rates={"adapters": (1e30,)}, tops=())
    result = run("classification", options, tmp_path)
    assert any(row["diverged"] for row in result.rows)
    assert all(np.isfinite(row["choose_by"]) for row in result.rows)
    assert "runs diverged" in classification.table(result)


def test_differences_have_a_sign_or_are_nothing() -> None:
    assert [signed(value) for value in (0.44, -1.16, -0.04, 0.0)] == ["+0.4", "−1.2", "0.0", "0.0"]


def test_spans_of_several_sizes_and_sweeps_are_told_apart(finished: Result) -> None:
    template = next(row for row in finished.rows if row["method"] == "adapters" and row["bottleneck"] == 2)

    def trained(m: int, seed: int, lr: float, without: float) -> dict:
        scores = {"none": 0.9, "0-0": without, "0-1": 0.3, "1-1": 0.7}
        changes = {"bottleneck": m, "seed": seed, "lr": lr, "spans": True, "span_scores": scores}
        return {**template, **changes, "choose_by": lr}

    rows = [trained(2, 0, 0.1, 0.8), trained(2, 1, 0.1, 0.6), trained(2, 0, 0.01, 0.0)]
    assert span_scores(rows) == {"first": {"none": 0.9, "0-0": pytest.approx(0.7), "0-1": 0.3, "1-1": 0.7}}
    both = span_scores([*rows, trained(4, 0, 0.1, 0.5)])
    assert {name: scores["0-0"] for name, scores in both.items()} == {
        "first, m = 2": pytest.approx(0.7),
        "first, m = 4": 0.5,
    }


def test_norms_of_the_tiny_model_are_as_counted_here(world: Path) -> None:
    from transformers import BertModel

    model = BertModel.from_pretrained(world / "model")
    assert sum(model.get_parameter(name).numel() for name in layer_norm_parameters(model)) == NORMS
