"""The experiment glue: its data, its plan, Table 1 from rows, the leaderboard's files, and a small grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from glue_files import TASKS, write_diagnostic, write_glue
from tiny_task import write_model, write_task

from adapter_fast.cli import main
from adapter_fast.common.errors import UserError
from adapter_fast.experiments import classification, glue, tradeoff
from adapter_fast.experiments.data import read_tasks
from adapter_fast.experiments.drive import run_experiment
from adapter_fast.experiments.glue.submission import FILES
from adapter_fast.experiments.glue.table import COLUMNS
from adapter_fast.experiments.grid.lab import Lab
from adapter_fast.experiments.grid.result import Result
from adapter_fast.experiments.grid.spec import Spec
from adapter_fast.experiments.grid.store import Store
from adapter_fast.experiments.screen import Silence
from adapter_fast.tasks.data.glue_tasks import GLUE

pytestmark = pytest.mark.filterwarnings("ignore:.*too few columns")  # QQP's, on purpose
HIDDEN, LAYERS = 32, 2  # of write_model's


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_diagnostic(write_glue(tmp_path_factory.mktemp("glue")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


# Data


def test_tasks_are_chosen_and_cut_to_the_sizes(data: Path) -> None:
    every = glue.read_tasks(replace(glue.QUICK, data=(str(data),)))
    assert [task.name for task in every] == list(TASKS)
    sizes = {"train_size": 12, "validation_size": None, "test_size": 4}
    some = replace(glue.QUICK, data=(str(data),), tasks=("mnli", "CoLA"), **sizes)
    tasks = glue.read_tasks(some)
    assert [task.name for task in tasks] == ["CoLA", "MNLI"]
    assert {name: len(rows) for name, rows in tasks[1].parts.items()} == {
        "train": 12,
        "validation": 5,  # the third of 16 by which settings are chosen
        "mismatched": 4,
        "test": 4,
    }
    assert {name: len(rows) for name, rows in tasks[1].unlabelled.items()} == {
        "test_matched": 4,
        "test_mismatched": 4,
        "AX": 3,
    }
    assert sorted(tasks[0].parts["test"].labels) == ["0"] * 2 + ["1"] * 2
    again = glue.read_tasks(some)
    assert again[1].parts["train"] == tasks[1].parts["train"]


def test_bad_data_is_refused(data: Path, tmp_path: Path) -> None:
    write_glue(tmp_path, ("RTE", "STS-B"))
    for changes, message in (
        ({"data": ()}, "--data was given 0 times: expected once, the folder that download_glue_data"),
        ({"tasks": ("RTE", "QQP")}, "has no folder QQP"),
        ({"data": (str(data), str(tmp_path))}, "--data was given 2 times"),
        ({"tasks": ("RTE",), "task_epochs": {"CoLA": (3,)}}, "--epochs CoLA=…: no such task: expected one of RTE"),
        ({"tasks": ("STS-B",), "validation_size": 1}, "Spearman correlation is undefined, since all of its 1 labels"),
    ):
        with pytest.raises(UserError, match=message):
            glue.read_tasks(replace(glue.QUICK, **{"data": (str(tmp_path),), **changes}))


def test_other_experiments_take_tasks_of_glues_folder_beside_texts(data: Path, tmp_path: Path) -> None:
    write_task(tmp_path / "topics.csv", rows=200)
    tasks = read_tasks(replace(tradeoff.QUICK, data=(str(data), str(tmp_path / "topics.csv")), tasks=("STS-B", "RTE")))
    assert [(task.name, task.metric) for task in tasks] == [
        ("STS-B", "spearman"),
        ("RTE", "accuracy"),
        ("topics", "accuracy"),
    ]
    assert all(list(task.parts) == ["train", "validation", "test"] for task in tasks)


# The plan


def test_the_papers_sweep_is_the_default(data: Path, model: str, tmp_path: Path) -> None:
    options = replace(glue.PAPER, model=model, data=(str(data),), tasks=("RTE", "STS-B"))
    tasks = glue.read_tasks(options)
    jobs = glue.plan(Lab(model, tasks, Store(tmp_path)), tasks, options, {})
    assert len({job.key for job in jobs}) == len(jobs) == 2 * 5 * (3 * 2 * 3 + 4 + 6)
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
    metric = GLUE[task].metrics[0]
    scores = {"validation": {metric: 0.0}, "test": {metric: value}}
    scores |= {"mismatched": {metric: mismatched}} if task == "MNLI" else {}
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
    assert list(full) == ["total", "trained a task", *COLUMNS, "WNLI", "average"]
    assert (full["total"], full["trained a task"]) == ("3.03×", "101.0 % (0.00404 MB)")
    assert (full["CoLA"], full["MNLI-m"], full["MNLI-mm"], full["RTE"]) == ("60.0 ± 10.0", "80.0", "70.0", "not run")
    assert full["average"] == "67.5"  # CoLA 60, MNLI (80 + 70) / 2, WNLI left out
    best = columns["ours: adapters, m = 8, 64"]
    # 90 for CoLA and WNLI with m = 8, 650 for MNLI with m = 64, and one base
    assert (best["total"], best["trained a task"]) == ("1.83×", "27.7 % (0.00111 MB)")
    assert (best["CoLA"], best["MNLI-m"], best["MNLI-mm"]) == ("40.0 (m = 8)", "70.0 (m = 64)", "50.0 (m = 64)")
    assert (best["WNLI"], best["average"]) == ("90.0 (m = 8)", "50.0")
    kept = columns["of full fine-tuning"]  # of the line of one size, the last: CoLA 30 of 60, MNLI 60 of 75
    assert (kept["CoLA"], kept["MNLI-m"], kept["WNLI"], kept["average"]) == ("50.0 %", "87.5 %", "", "66.7 %")
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
    assert set(lines["ours: head only"].values()) == {"not run"} and "of full fine-tuning" not in lines
    assert set(lines["ours: adapters, m = 64"].values()) == {"not run"}


def test_one_size_fills_the_line_of_one_size_alone(data: Path) -> None:
    rows = [row("RTE", "full", 0.5), row("RTE", "adapters", 0.6, m=64)]
    result = Result("glue", replace(glue.PAPER, data=(str(data),)), rows, finished=False)
    lines = cells(glue.table(result))
    assert set(lines["ours: adapters, m = 8-256"].values()) == {"not run"}
    assert lines["ours: adapters, m = 64"]["RTE"] == "60.0" and lines["of full fine-tuning"]["RTE"] == "120.0 %"
    assert "So far 1 seed. **Not all runs are finished**." in glue.table(result)
    assert glue.finding(result).startswith("means over 1 task, development part: adapters 60.0")
    more = replace(result, rows=[*rows, *(row("RTE", "full", 0.5, seed=seed) for seed in (1, 2))])
    assert "So far 1 to 3 seeds. **Not all runs are finished**." in glue.table(more)


def test_what_is_no_accuracy_is_not_called_one(data: Path) -> None:
    rows = [row("CoLA", "full", 0.5), row("RTE", "full", 0.5)]
    for module in (tradeoff, classification):
        text = module.table(Result("x", glue.PAPER, rows))
        assert "Test score (CoLA matthews, RTE accuracy) in points" in text
        assert "Test accuracy in points" in module.table(Result("x", glue.PAPER, rows[1:]))


def predicted(made: dict, data: Path) -> dict:
    """The row with predictions: the first class (or 3.5) for seed 0, the last for others."""
    (task,) = glue.read_tasks(replace(glue.PAPER, data=(str(data),), tasks=(made["task"],)))
    last = len(task.label_names) - 1
    word = "3.500" if last < 0 else str(0 if made["seed"] == 0 else last)
    return {**made, "predicted": {part: " ".join([word] * len(own)) for part, own in task.unlabelled.items()}}


def test_the_submission_is_of_each_tasks_best_run(data: Path, tmp_path: Path) -> None:
    rows = [predicted(row(task, "adapters", 0.5, m=8, seed=seed), data) for task in TASKS for seed in (0, 1)]
    rows = [{**made, "choose_by": 0.9} if (made["task"], made["seed"]) == ("RTE", 1) else made for made in rows]
    rows.append(predicted(row("RTE", "full", 0.5), data))
    late = rows[0].pop("predicted")  # CoLA's best was trained once more
    rows.append({"key": "later", "task": "CoLA", "predicts": rows[0]["key"], "predicted": late})
    result = Result("glue", replace(glue.PAPER, data=(str(data),)), rows)
    written = glue.extras(result, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "submission-full/RTE.tsv",
        *(f"submission-sizes/{file}.tsv" for file in FILES),
        "submission-sizes/submission.zip",
        "submission.md",
    ]
    folder = tmp_path / "out/submission-sizes"
    assert (folder / "RTE.tsv").read_text().splitlines()[1] == "0\tnot_entailment"  # seed 1's
    assert (folder / "QNLI.tsv").read_text().splitlines()[1] == "0\tentailment"  # seed 0's
    assert (folder / "CoLA.tsv").read_text().splitlines()[1] == "0\t0"
    assert (folder / "AX.tsv").read_text() == "index\tprediction\n0\tentailment\n1\tentailment\n2\tentailment\n"
    assert (folder / "STS-B.tsv").read_text().splitlines()[1] == "0\t3.500"
    note = written[-1].read_text()
    assert "- full: submission-full/RTE.tsv; GLUE takes a zip of all 11 files, and lacks CoLA, SST-2" in note
    assert "- sizes: submission-sizes/submission.zip, which GLUE takes\n" in note


def test_wnli_that_was_not_run_is_answered_by_its_majority(data: Path, tmp_path: Path) -> None:
    rows = [predicted(row(task, "full", 0.5), data) for task in TASKS[:-1]]
    options = replace(glue.PAPER, data=(str(data),), tasks=TASKS[:-1])
    glue.extras(Result("glue", options, rows), tmp_path / "out")
    assert (tmp_path / "out/submission-full/WNLI.tsv").read_text().startswith("index\tprediction\n0\t0\n1\t0\n")
    note = (tmp_path / "out/submission.md").read_text()
    assert "- full: submission-full/submission.zip, which GLUE takes, WNLI by majority" in note


def test_no_submission_of_cut_parts_or_without_predictions(data: Path, tmp_path: Path) -> None:
    rows = [predicted(row(task, "full", 0.5), data) for task in TASKS]
    rows[0]["predicted"] = {"test": "0 1"}
    rows.append(row("RTE", "adapters", 0.5, m=8))
    (note,) = glue.extras(Result("glue", replace(glue.PAPER, data=(str(data),)), rows), tmp_path / "out")
    assert r"full: not written: CoLA's test part was cut to 2 of 6 rows (--test-size)" in note.read_text()
    assert "sizes: not written: there are no predictions" in note.read_text()


# A grid


def test_a_small_grid_runs_and_its_parameters_add_up(data: Path, model: str, tmp_path: Path) -> None:
    options = replace(glue.QUICK, model=model, data=(str(data),), tasks=("STS-B", "MNLI"), seeds=1, bottlenecks=(8,))
    result = run_experiment("glue", glue, options, Store(tmp_path), Silence())
    assert [(made["task"], made["method"], made["bottleneck"]) for made in result.rows] == [
        (task, *method) for task in ("STS-B", "MNLI") for method in (("head", None), ("full", None), ("adapters", 8))
    ]
    for made in result.rows:
        outputs = 1 if made["task"] == "STS-B" else 3
        assert made["head_parameters"] == outputs * (HIDDEN + 1)
        assert made["base_unchanged"] and made["train_tokens"] > 32
        if made["method"] == "adapters":
            m = made["bottleneck"]
            assert made["adapter_parameters"] == 2 * LAYERS * (2 * m * HIDDEN + HIDDEN + m)
            beside = made["trained"] - made["adapter_parameters"] - made["head_parameters"]
            assert beside == (2 * LAYERS + 1) * 2 * HIDDEN + HIDDEN * (HIDDEN + 1)  # LayerNorms, untrained pooler
        elif made["method"] == "full":
            assert made["trained"] == made["base_parameters"] + made["head_parameters"]
        assert {name: len(words.split()) for name, words in made["predicted"].items()} == (
            {"test": 6} if made["task"] == "STS-B" else {"test_matched": 6, "test_mismatched": 6, "AX": 3}
        )
    assert {tuple(made["scores"]["validation"]) for made in result.rows} == {("spearman", "pearson"), ("accuracy",)}
    assert set(result.rows[-1]["scores"]) == {"validation", "mismatched", "test"}
    note = glue.extras(result, tmp_path / "glue")[-1].read_text()
    assert "- full: submission-full/STS-B.tsv, MNLI-m.tsv, MNLI-mm.tsv, WNLI.tsv, AX.tsv; GLUE takes" in note


def test_predictions_are_of_the_chosen_run_and_of_few_others(data: Path, model: str, tmp_path: Path) -> None:
    """A chosen run that was not the best of its cell when it was trained is trained once more, to the same end."""
    options = replace(glue.QUICK, model=model, data=(str(data),), tasks=("RTE",), bottlenecks=(8,), seeds=3)
    store = Store(tmp_path)
    result = run_experiment("glue", glue, options, store, Silence())
    runs = [made for made in result.rows if made["method"] == "adapters"]
    best, chosen = max(made["choose_by"] for made in runs), glue.chosen(runs)["sizes"]["RTE"].best_seed
    assert "predicted" in chosen and chosen["choose_by"] == best
    for number, made in enumerate(runs):  # in the order of seeds, as they are done
        assert ("predicted" in made) == all(made["choose_by"] > earlier["choose_by"] for earlier in runs[:number])
    said = chosen.pop("predicted")
    store.write(chosen["key"], chosen)
    again = run_experiment("glue", glue, options, Store(tmp_path), Silence())
    assert len(again.rows) == len(result.rows) + 1
    assert (again.rows[-1]["predicts"], again.rows[-1]["predicted"]) == (chosen["key"], said)
    assert glue.table(again) == glue.table(result)
    assert (tmp_path / "glue").exists() is False
    assert (glue.extras(again, tmp_path / "glue")[0].parent / "RTE.tsv").is_file()


def test_the_command_quick_over_all_of_glue(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # the kernels have tests of their own
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "cache"))
    given = ["--model", model, "--data", str(data), "--seeds", "1", "--output", str(tmp_path / "o")]
    assert main(["experiment", "glue", "--quick", *given]) == 0
    lines = cells((tmp_path / "o/glue/table.md").read_text("utf-8"))
    assert not any("not run" in cell for line in lines.values() for cell in line.values())
    note = (tmp_path / "o/glue/submission.md").read_text("utf-8")
    assert capsys.readouterr().err == ""
    for line in ("full", "sizes", "fixed", "head"):
        assert f"- {line}: submission-{line}/submission.zip, which GLUE takes\n" in note
        assert (tmp_path / f"o/glue/submission-{line}/submission.zip").is_file()
