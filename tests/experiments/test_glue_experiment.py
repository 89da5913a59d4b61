"""The experiment glue: its data, its plan, Table 1 from rows, the leaderboard's files, and a small grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from glue_files import TASKS, write_diagnostic, write_glue
from safetensors.numpy import save_file
from tiny_task import write_model

from adapter_fast.cli import main
from adapter_fast.common.errors import UserError
from adapter_fast.experiments import glue
from adapter_fast.experiments.drive import run_experiment
from adapter_fast.experiments.grid.lab import Lab
from adapter_fast.experiments.grid.result import Result
from adapter_fast.experiments.grid.spec import Spec
from adapter_fast.experiments.grid.store import Store
from adapter_fast.experiments.grid.train import PREDICTIONS
from adapter_fast.experiments.screen import Silence

pytestmark = pytest.mark.filterwarnings("ignore:.*too few columns")  # QQP's, on purpose
HIDDEN, LAYERS = 32, 2  # of write_model's


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_diagnostic(write_glue(tmp_path_factory.mktemp("glue")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


# Data


def test_tasks_are_named_behind_their_folder_and_cut_to_the_sizes(data: Path) -> None:
    every = glue.read_tasks(replace(glue.QUICK, data=(str(data),)))
    assert [task.name for task in every] == list(TASKS)
    some = replace(glue.QUICK, data=(f"{data}/mnli", f"{data}/CoLA/"), train_size=12, validation_size=0.5, test_size=3)
    tasks = glue.read_tasks(some)
    assert [task.name for task in tasks] == ["CoLA", "MNLI"]
    assert {name: len(rows) for name, rows in tasks[1].parts.items()} == {"train": 12, "validation": 8, "mismatched": 8}
    assert {name: len(rows) for name, rows in tasks[1].unlabelled.items()} == {
        "test_matched": 3,
        "test_mismatched": 3,
        "AX": 3,
    }
    assert sorted(tasks[0].parts["validation"].labels) == ["0"] * 4 + ["1"] * 4
    again = glue.read_tasks(some)
    assert again[1].parts["train"] == tasks[1].parts["train"]


def test_bad_data_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_glue(tmp_path, ("RTE", "STS-B"))
    for given, message in (
        ((), "--data is needed: the folder that download_glue_data"),
        ((f"{tmp_path}/RTE", f"{tmp_path}/QQP"), "has no folder QQP"),
        ((str(data), f"{tmp_path}/RTE"), "gives RTE twice"),
    ):
        with pytest.raises(UserError, match=message):
            glue.read_tasks(replace(glue.QUICK, data=given))
    with pytest.raises(UserError, match="Spearman correlation is undefined, since all of its 1 labels are equal"):
        glue.read_tasks(replace(glue.QUICK, data=(f"{tmp_path}/STS-B",), validation_size=1))
    monkeypatch.chdir(tmp_path)
    assert [task.name for task in glue.read_tasks(replace(glue.QUICK, data=("RTE",)))] == ["RTE"]


# The plan


def test_the_papers_sweep_is_the_default(data: Path, model: str, tmp_path: Path) -> None:
    options = replace(glue.PAPER, model=model, data=(f"{data}/RTE", f"{data}/STS-B"))
    tasks = glue.read_tasks(options)
    jobs = glue.plan(Lab(model, tasks, Store(tmp_path)), tasks, options, {})
    assert len({job.key for job in jobs}) == len(jobs) == 2 * 5 * (3 * 2 * 3 + 4)
    own = [job for job in jobs if isinstance(job, Spec) and job.task == "RTE"]
    adapters = {(job.lr, job.epochs, job.bottleneck) for job in own if job.method == "adapters"}
    assert adapters == {(lr, e, m) for lr in (3e-5, 3e-4, 3e-3) for e in (3, 20) for m in (8, 64, 256)}
    assert {(job.lr, job.epochs) for job in own if job.method == "full"} == {(lr, 3) for lr in (2e-5, 3e-5, 4e-5, 5e-5)}
    assert {job.seed for job in own} == set(range(5)) and {job.batch_size for job in own} == {32}
    shorter = glue.plan(Lab(model, tasks, Store(tmp_path)), tasks, replace(options, epochs=(1, 2)), {})
    assert {job.epochs for job in shorter if isinstance(job, Spec) and job.method == "full"} == {1, 2}


# The table and the files, from rows made by hand


def row(task: str, method: str, value: float, m: int | None = None, seed: int = 0, mismatched: float = 0.0) -> dict:
    """A row of the store: a base of 1000, full 1000 + 10 trained, adapters 10·m + 10."""
    metric = glue.GLUE[task].metrics[0]
    scores = {"validation": {metric: value}} | ({"mismatched": {metric: mismatched}} if task == "MNLI" else {})
    spec = Spec("tiny", "b", task, "d", method, 32, 128, "auto", bottleneck=m, lr=1e-3, epochs=3, seed=seed)
    return {
        **{name: getattr(spec, name) for name in Spec.__dataclass_fields__},
        "key": spec.key,
        "metric": metric,
        "scores": scores,
        "choose_by": value,
        "diverged": False,
        "sizes": {"train": 24},
        "trained": 1010 if m is None else 10 * m + 10,
        "base_parameters": 1000,
        "device": "CPU",
        "versions": {"torch": "2"},
    }


def cells(text: str) -> dict[str, dict[str, str]]:
    """The table's lines by their name, each by column."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines[2:]}


def test_table_1_from_rows(data: Path) -> None:
    rows = [
        *(row("CoLA", "full", value, seed=seed) for seed, value in enumerate((0.5, 0.7))),
        row("MNLI", "full", 0.8, mismatched=0.7),
        row("WNLI", "full", 0.1),
        row("CoLA", "adapters", 0.4, m=8),
        row("CoLA", "adapters", 0.3, m=64),
        row("MNLI", "adapters", 0.6, m=8, mismatched=0.9),
        row("MNLI", "adapters", 0.7, m=64, mismatched=0.5),
        row("WNLI", "adapters", 0.9, m=8),
    ]
    text = glue.table(Result("glue", replace(glue.PAPER, data=(str(data),)), rows))
    columns = cells(text)
    full = columns["ours: full fine-tuning"]
    assert list(full) == ["total", "trained a task", *glue.COLUMNS, "WNLI", "average"]
    assert (full["total"], full["trained a task"]) == ("3.03×", "101.0 %")
    assert (full["CoLA"], full["MNLI-m"], full["MNLI-mm"], full["RTE"]) == ("60.0 ± 10.0", "80.0", "70.0", "not run")
    assert full["average"] == "67.5"  # CoLA 60, MNLI (80 + 70) / 2, WNLI left out
    best = columns["ours: adapters, m = 8, 64"]
    # 90 for CoLA and WNLI with m = 8, 650 for MNLI with m = 64, and one base
    assert (best["total"], best["trained a task"]) == ("1.83×", "27.7 %")
    assert (best["CoLA"], best["MNLI-m"], best["MNLI-mm"]) == ("40.0 (m = 8)", "70.0 (m = 64)", "50.0 (m = 64)")
    assert (best["WNLI"], best["average"]) == ("90.0 (m = 8)", "50.0")
    fixed = columns["ours: adapters, m = 64"]
    assert (fixed["CoLA"], fixed["WNLI"], fixed["total"], fixed["average"]) == ("30.0", "not run", "2.30×", "45.0")
    paper = columns["paper: full fine-tuning"]
    assert (paper["CoLA"], paper["WNLI"], paper["average"]) == ("60.5", "", "73.4")  # (60.5 + (86.7 + 85.9) / 2) / 2
    assert columns["paper: adapters, m = 8-256"]["trained a task"] == "3.6 %"
    assert "80.4 (full), 80.0 (8-256), 79.6 (64)" in text and "Full fine-tuning: 3 epochs" in text


def test_a_line_without_runs_says_so(data: Path) -> None:
    text = glue.table(Result("glue", replace(glue.PAPER, data=(str(data),)), [row("RTE", "adapters", 0.6, m=8)]))
    lines = cells(text)
    assert set(lines["ours: full fine-tuning"].values()) == {"not run"}
    assert list(lines["ours: adapters, m = 8"].values())[-2:] == ["60.0 (m = 8)", "60.0"]
    assert set(lines["ours: adapters, m = 64"].values()) == {"not run"}


def kept(rows: list[dict], store: Store, data: Path) -> None:
    """Logits of every row's unlabelled parts: the first class for seed 0, the last for the others."""
    tasks = {task.name: task for task in glue.read_tasks(replace(glue.QUICK, data=(str(data),), test_size=None))}
    for made in rows:
        task = tasks[made["task"]]
        classes = len(task.label_names) or 1
        logits = np.zeros(classes, np.float32)
        logits[0 if made["seed"] == 0 else -1] = 3.5
        folder = store.kept(made["key"])
        folder.mkdir(parents=True)
        save_file({part: np.tile(logits, (len(own), 1)) for part, own in task.unlabelled.items()}, folder / PREDICTIONS)


def test_the_submission_is_of_each_tasks_best_run(data: Path, tmp_path: Path) -> None:
    rows = [row(task, "adapters", 0.5, m=8, seed=seed) for task in TASKS for seed in (0, 1)]
    rows = [{**made, "choose_by": 0.9} if (made["task"], made["seed"]) == ("RTE", 1) else made for made in rows]
    rows.append(row("RTE", "full", 0.5))
    store = Store(tmp_path / "store")
    kept(rows, store, data)
    result = Result("glue", replace(glue.PAPER, data=(str(data),)), rows)
    written = glue.extras(result, store, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "submission-sizes/submission.zip",
        "submission.md",
    ]
    folder = written[0].parent
    assert (folder / "RTE.tsv").read_text().splitlines()[1] == "0\tnot_entailment"  # seed 1's
    assert (folder / "QNLI.tsv").read_text().splitlines()[1] == "0\tentailment"  # seed 0's
    assert (folder / "AX.tsv").read_text() == "index\tprediction\n0\tentailment\n1\tentailment\n2\tentailment\n"
    assert (folder / "STS-B.tsv").read_text().splitlines()[1] == "0\t3.500"
    note = written[1].read_text()
    assert "- full: not written: GLUE takes all 11 files, and there are no predictions for CoLA, SST-2" in note
    assert "- sizes: submission-sizes/submission.zip\n" in note


def test_wnli_that_was_not_run_is_answered_by_its_majority(data: Path, tmp_path: Path) -> None:
    rows = [row(task, "full", 0.5) for task in TASKS[:-1]]
    store = Store(tmp_path / "store")
    kept(rows, store, data)
    named = tuple(f"{data}/{task}" for task in TASKS[:-1])
    glue.extras(Result("glue", replace(glue.PAPER, data=named), rows), store, tmp_path / "out")
    assert (tmp_path / "out/submission-full/WNLI.tsv").read_text().startswith("index\tprediction\n0\t0\n1\t0\n")
    assert "- full: submission-full/submission.zip, WNLI by majority" in (tmp_path / "out/submission.md").read_text()


def test_no_submission_of_cut_parts_or_lost_predictions(data: Path, tmp_path: Path) -> None:
    rows = [row(task, "full", 0.5) for task in TASKS]
    store = Store(tmp_path / "store")
    kept(rows, store, data)
    path = store.kept(rows[0]["key"]) / PREDICTIONS
    save_file({"test": np.zeros((2, 2), np.float32)}, path)
    result = Result("glue", replace(glue.PAPER, data=(str(data),)), rows)
    (note,) = glue.extras(result, store, tmp_path / "out")
    assert r"full: not written: CoLA's test part was cut to 2 of 6 rows (--test-size)" in note.read_text()
    path.unlink()
    (note,) = glue.extras(result, store, tmp_path / "out")
    assert "is gone, where a run's predictions were kept" in note.read_text()


# A grid


def test_a_small_grid_runs_and_its_parameters_add_up(data: Path, model: str, tmp_path: Path) -> None:
    options = replace(glue.QUICK, model=model, data=(f"{data}/STS-B", f"{data}/MNLI"), seeds=1, bottlenecks=(8,))
    result = run_experiment("glue", glue, options, tmp_path, Silence(), lambda: True)
    assert [(made["task"], made["method"], made["bottleneck"]) for made in result.rows] == [
        (task, *method) for task in ("STS-B", "MNLI") for method in (("full", None), ("adapters", 8))
    ]
    for made in result.rows:
        outputs = 1 if made["task"] == "STS-B" else 3
        assert made["head_parameters"] == outputs * (HIDDEN + 1)
        assert made["base_unchanged"]
        if made["method"] == "adapters":
            m = made["bottleneck"]
            assert made["adapter_parameters"] == 2 * LAYERS * (2 * m * HIDDEN + HIDDEN + m)
            norms = made["trained"] - made["adapter_parameters"] - made["head_parameters"]
            assert norms == (2 * LAYERS + 1) * 2 * HIDDEN
        else:
            assert made["trained"] == made["base_parameters"] + made["head_parameters"]
    assert {tuple(made["scores"]["validation"]) for made in result.rows} == {("spearman", "pearson"), ("accuracy",)}
    assert set(result.rows[-1]["scores"]) == {"validation", "mismatched"}
    (note,) = glue.extras(result, Store(tmp_path), tmp_path / "glue")
    assert "no predictions for CoLA, SST-2, MRPC, QQP, QNLI, RTE, WNLI" not in note.read_text()
    assert "no predictions for CoLA, SST-2, MRPC, QQP, QNLI, RTE\n" in note.read_text()


def test_the_command_quick_over_all_of_glue(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # the kernels have tests of their own
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "cache"))
    given = ["--model", model, "--data", str(data), "--seeds", "1", "--output", str(tmp_path / "o")]
    assert main(["experiment", "glue", "--quick", *given]) == 0
    lines = cells((tmp_path / "o/glue/table.md").read_text("utf-8"))
    assert not any("not run" in cell for line in lines.values() for cell in line.values())
    note = (tmp_path / "o/glue/submission.md").read_text("utf-8")
    for line in ("full", "sizes", "fixed"):
        assert f"- {line}: submission-{line}/submission.zip\n" in note
        assert (tmp_path / f"o/glue/submission-{line}/submission.zip").is_file()
