"""GLUE: its files and the hub's copy of them, each task's inputs and metrics, and the leaderboard's files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from glue_files import LABELS, TASKS, write_diagnostic, write_glue, write_hub
from tiny_task import write_decoder, write_model

from adapter_fast.common import directories
from adapter_fast.common.errors import UserError, WriteError
from adapter_fast.experiments.glue import hub
from adapter_fast.experiments.glue.load_tasks import read_glue
from adapter_fast.experiments.glue.submission import FILES, answers, file_of, majority, write_submission
from adapter_fast.experiments.grid.options import Options
from adapter_fast.experiments.grid.task import Task
from adapter_fast.tasks.data.glue_files import read_part
from adapter_fast.tasks.data.glue_tasks import GLUE
from adapter_fast.tasks.data.texts import Texts
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.kinds.text import TextClassification, TextRegression
from adapter_fast.tasks.models import load_model
from adapter_fast.tasks.splits import split

pytestmark = pytest.mark.filterwarnings("ignore:.*too few columns")  # QQP's, on purpose
ALL = Options()
METRICS = {
    "CoLA": ("matthews",),
    "SST-2": ("accuracy",),
    "MRPC": ("f1", "accuracy"),
    "STS-B": ("spearman", "pearson"),
    "QQP": ("f1", "accuracy"),
    "MNLI": ("accuracy",),
    "QNLI": ("accuracy",),
    "RTE": ("accuracy",),
    "WNLI": ("accuracy",),
}


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nine tasks and the diagnostic set."""
    return write_diagnostic(write_glue(tmp_path_factory.mktemp("glue")))


@pytest.fixture(scope="module")
def tasks(glue: Path) -> dict[str, Task]:
    return {task.name: task for task in read_glue(glue, ALL)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


def named(*names: str) -> Options:
    return Options(tasks=names)


def one(task: Task, part: str) -> Texts:
    rows = {**task.parts, **task.unlabelled}[part]
    assert isinstance(rows, Texts)
    return rows


# Files


def test_every_task_of_a_folder_is_read(tasks: dict[str, Task]) -> None:
    assert tuple(tasks) == TASKS
    for name, task in tasks.items():
        kind, scored = type(task.kind), ["validation", *(["mismatched"] if name == "MNLI" else []), "test"]
        assert kind is (TextRegression if name == "STS-B" else TextClassification)
        assert (task.metric, task.kind.metrics) == (METRICS[name][0], METRICS[name])
        assert task.label_names == list(LABELS.get(name, ()))
        assert list(task.parts) == ["train", *scored]
        # of the 16 rows of the development part a third is chosen by, and the rest reported; mismatched is reported
        assert [len(task.parts[part]) for part in task.parts] == [24, 5, *([16] if name == "MNLI" else []), 11]
        assert not set(one(task, "validation").ids) & set(task.parts["test"].ids)
        hidden = ["test_matched", "test_mismatched", "AX"] if name == "MNLI" else ["test"]
        assert list(task.unlabelled) == hidden
        assert all(one(task, part).labels is None for part in hidden)
        assert (one(task, "train").seconds is None) == (name in ("CoLA", "SST-2"))


def test_rows_that_a_line_break_cut_are_left_out_with_their_number(tmp_path: Path) -> None:
    path = write_glue(tmp_path, ("QQP",)) / "QQP" / "train.tsv"
    path.write_bytes(path.read_bytes() + b"9\t1\t2\thalf\n")
    rows = read_part(GLUE["QQP"], path, labelled=True)
    assert len(rows) == 24 and rows.notices == (f"{path}: 2 rows have too few columns and are left out",)
    with pytest.warns(UserWarning, match=r"train\.tsv: 2 rows have too few columns and are left out"):
        read_glue(tmp_path, ALL)


@pytest.mark.parametrize(
    "task, file, line, expected",
    [
        ("CoLA", "train.tsv", 'gj04\t0\t*\tHe said "no.', ("0", 'He said "no.', None, "0")),
        ("CoLA", "test.tsv", "7\tThey \\ left.", ("7", "They \\ left.", None, None)),
        ("SST-2", "dev.tsv", "a 'good' film \t1", ("0", "a 'good' film ", None, "1")),
        ("MRPC", "train.tsv", '1\t5\t6\tAmrozi "x\ty"\r', ("0", 'Amrozi "x', 'y"', "1")),
        ("MRPC", "test.tsv", "9\t5\t6\tx\ty", ("9", "x", "y", None)),
        ("STS-B", "dev.tsv", "8\tg\tf\t2012\t1\tn\tn\tA\tB\t3.8", ("8", "A", "B", 3.8)),
        ("STS-B", "test.tsv", "8\tg\tf\t2012\t1\tn\tn\tA\tB", ("8", "A", "B", None)),
        ("QQP", "train.tsv", "5\t1\t2\t\tWhy?\t0", ("5", "", "Why?", "0")),
        ("QQP", "test.tsv", "4\tWho?\tWhy?", ("4", "Who?", "Why?", None)),
        ("MNLI", "train.tsv", "3\t6\t6e\tf\t(\t(\t(\t(\tA\tB\tneutral\tneutral", ("3", "A", "B", "neutral")),
        ("MNLI", "dev_matched.tsv", "3\t6\t6e\tf" + "\t(" * 4 + "\tA\tB" + "\tneutral" * 6, ("3", "A", "B", "neutral")),
        ("MNLI", "test_mismatched.tsv", "3\t6\t6e\tf" + "\t(" * 4 + "\tA\tB", ("3", "A", "B", None)),
        ("QNLI", "dev.tsv", "3\tWho?\tHe.\tentailment", ("3", "Who?", "He.", "entailment")),
        ("RTE", "train.tsv", "3\tA\u2028 \x0b b\tB\tnot_entailment", ("3", "A\u2028 \x0b b", "B", "not_entailment")),
        ("WNLI", "test.tsv", "2\tx\ty", ("2", "x", "y", None)),
    ],
)
def test_a_row_of_a_file(glue: Path, tmp_path: Path, task: str, file: str, line: str, expected: tuple) -> None:
    labelled = not file.startswith("test")
    header = [] if task == "CoLA" and labelled else [(glue / task / file).read_bytes().decode().split("\n")[0]]
    path = tmp_path / file
    path.write_bytes("\n".join([*header, "", line, ""]).encode())
    rows = read_part(GLUE[task], path, labelled)
    found = (rows.ids, rows.texts, rows.seconds, rows.labels)
    assert found == tuple(None if value is None else [value] for value in expected)


def test_folders_go_by_the_hubs_names_too_and_the_diagnostic_set_by_the_sites(tmp_path: Path) -> None:
    write_glue(tmp_path, ("SST-2", "STS-B", "MNLI"))
    for old, new in (("SST-2", "sst2"), ("STS-B", "sts-b"), ("MNLI", "mnli")):
        (tmp_path / old).rename(tmp_path / new)
    write_diagnostic(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/diagnostic/diagnostic.tsv").rename(tmp_path / "AX.tsv")
    found = read_glue(tmp_path, ALL)
    assert [task.name for task in found] == ["SST-2", "STS-B", "MNLI"]
    assert one(found[2], "AX").ids == ["0", "1", "2"]
    assert [task.name for task in read_glue(tmp_path, named("mnli", "SST-2"))] == ["SST-2", "MNLI"]


def test_a_folder_without_the_diagnostic_set_is_read(tmp_path: Path) -> None:
    assert list(read_glue(write_glue(tmp_path, ("MNLI",)), ALL)[0].unlabelled) == ["test_matched", "test_mismatched"]


def test_a_named_task_must_be_there(glue: Path, tmp_path: Path) -> None:
    write_glue(tmp_path, ("RTE",))
    with pytest.raises(UserError, match="has no folder CoLA"):
        read_glue(tmp_path, named("RTE", "CoLA"))
    with pytest.raises(UserError, match="--task 'imdb': expected one of CoLA, SST-2"):
        read_glue(glue, named("imdb"))
    with pytest.raises(UserError, match="has none of GLUE's folders"):
        read_glue(tmp_path / "RTE", ALL)
    with pytest.raises(UserError, match=r"train\.tsv is a file: expected GLUE's folder"):
        read_glue(tmp_path / "RTE" / "train.tsv", ALL)


def test_a_folder_says_which_tasks_are_complete(tmp_path: Path) -> None:
    write_glue(tmp_path, ("CoLA", "QNLI", "RTE"))
    for file in ("QNLI/train.tsv", "RTE/test.tsv"):
        (tmp_path / file).unlink()
    with pytest.warns(
        UserWarning, match=rf"^CoLA, RTE: complete\. QNLI is left out: {tmp_path}/QNLI has no train\.tsv$"
    ):
        cola, rte = read_glue(tmp_path, ALL)
    assert cola.unlabelled and not rte.unlabelled, "what is hidden is not needed"
    with pytest.raises(UserError, match=rf"^{tmp_path}/QNLI has no train\.tsv$"):
        read_glue(tmp_path, named("RTE", "QNLI"))
    (tmp_path / "QNLI/dev.tsv").unlink()
    with pytest.raises(UserError, match=r"QNLI has no train\.tsv and no dev\.tsv"):
        read_glue(tmp_path, named("qnli"))
    for name in ("CoLA", "RTE"):
        (tmp_path / name / "dev.tsv").unlink()
    with pytest.raises(UserError, match=r"CoLA is left out: .*CoLA has no dev\.tsv; QNLI is left out: .*; RTE is left"):
        read_glue(tmp_path, ALL)


def _rewrite(path: Path, change: Any) -> None:
    path.write_bytes("\n".join(change(path.read_bytes().decode().split("\n"))).encode())


@pytest.mark.parametrize(
    "task, file, change, message",
    [
        ("RTE", "dev.tsv", None, r"RTE has no dev\.tsv"),
        ("MNLI", "dev_mismatched.tsv", None, r"MNLI has no dev_mismatched\.tsv"),
        ("RTE", "train.tsv", lambda lines: [], r"train\.tsv is empty: expected RTE's"),
        ("RTE", "train.tsv", lambda lines: lines[:1], r"train\.tsv has no examples"),
        ("QQP", "train.tsv", lambda lines: [lines[0], lines[-2]], r"train\.tsv has no examples"),
        ("RTE", "train.tsv", lambda lines: lines[1:], "line 1: no column 'sentence1': its columns are 0, "),
        ("RTE", "train.tsv", lambda lines: ["index\tsentence1\tsentence2", *lines[1:]], "line 1: no column 'label'"),
        (
            "RTE",
            "train.tsv",
            lambda lines: [f"{lines[0]}\tlabel", *lines[1:]],
            "line 1: the column 'label' is there 2 ",
        ),
        ("RTE", "test.tsv", lambda lines: ["id\tsentence1\tsentence2", *lines[1:]], "line 1: no column 'index'"),
        ("RTE", "dev.tsv", lambda lines: [*lines[:3], "7\tx\ty", *lines[4:]], "line 4: 3 columns, expected 4: index"),
        ("QQP", "train.tsv", lambda lines: [*lines[:3], lines[3] + "\t1"], "line 4: 7 columns, expected 6"),
        ("CoLA", "dev.tsv", lambda lines: ["a\t1\tb", *lines], "line 1: 3 columns, expected 4"),
        (
            "RTE",
            "dev.tsv",
            lambda lines: [*lines[:2], "9\tx\ty\tmaybe"],
            "line 3: label 'maybe' is none of entailment, ",
        ),
        (
            "CoLA",
            "train.tsv",
            lambda lines: ["source\tlabel\tmark\tsentence", *lines],
            "line 1: label 'label' is none of",
        ),
        (
            "MNLI",
            "train.tsv",
            lambda lines: [*lines[:1], lines[1][: -len("entailment")] + "-"],
            "gold_label '-' is none of",
        ),
        (
            "RTE",
            "train.tsv",
            lambda lines: [*lines[:5], lines[2], ""],
            "line 6: index '1' occurs twice, first in line 3",
        ),
        ("RTE", "test.tsv", lambda lines: [*lines[:5], lines[2]], "line 6: index '1' occurs twice, first in line 3"),
        ("CoLA", "dev.tsv", lambda lines: lines[::2], "Matthews correlation is undefined, since all of its 3 labels"),
        ("STS-B", "dev.tsv", lambda lines: lines[:2], "Spearman correlation is undefined, since all of its 1 labels"),
        ("QQP", "dev.tsv", lambda lines: lines[:2], "F1 is undefined, since no label is the positive class"),
        (
            "STS-B",
            "dev.tsv",
            lambda lines: [*lines[:2], lines[2][:-5] + "5.001"],
            "line 3: score must be a number from 0",
        ),
        ("STS-B", "dev.tsv", lambda lines: [*lines[:2], lines[2][:-5] + "-1"], "line 3: score must be .* got '-1'"),
        ("STS-B", "dev.tsv", lambda lines: [*lines[:2], lines[2][:-5] + "nan"], "line 3: score must be .* got 'nan'"),
        ("STS-B", "dev.tsv", lambda lines: [*lines[:2], lines[2][:-5] + "high"], "line 3: score must be .* got 'high'"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path: Path, task: str, file: str, change: Any, message: str) -> None:
    path = write_glue(tmp_path, (task,)) / task / file
    read_glue(tmp_path, ALL)
    if change is None:
        path.unlink()
    else:
        _rewrite(path, change)
    with pytest.raises(UserError, match=message) as raised:
        read_glue(tmp_path, ALL)
    assert str(path.parent if change is None else path) in str(raised.value) and "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = write_glue(tmp_path, ("RTE",)) / "RTE" / "dev.tsv"
    path.write_bytes(path.read_bytes() + b"77\tcaf\xe9\tx\tentailment\n")
    with pytest.raises(UserError, match=r"dev\.tsv, line 18: is not UTF-8"):
        read_glue(tmp_path, ALL)


# The hub


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local copy of the hub's repository, whose cache goes with the test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return write_hub(tmp_path / "copy")


def test_the_hubs_tasks_are_those_of_the_files(parquet: Path, tasks: dict[str, Task]) -> None:
    found = {task.name: task for task in read_glue(parquet, ALL)}
    assert tuple(found) == TASKS
    for name, task in found.items():
        files = tasks[name]
        assert (type(task.kind), task.kind.metrics, task.metric, task.label_names) == (
            type(files.kind),
            files.kind.metrics,
            files.metric,
            files.label_names,
        )
        assert (list(task.parts), list(task.unlabelled)) == (list(files.parts), list(files.unlabelled))
        ours, theirs = one(task, "train"), one(files, "train").pick(range(12))
        assert (ours.texts, ours.seconds, ours.labels) == (
            [text.rstrip(" ") for text in theirs.texts],
            theirs.seconds,
            theirs.labels,
        )
        assert all(one(task, part).labels is None and one(task, part).ids[-1] == "11" for part in task.unlabelled)
    assert one(found["MNLI"], "mismatched").texts[:5] != one(found["MNLI"], "validation").texts


def test_what_is_wrong_on_the_hub_is_said(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = parquet / "rte"

    def change(split: str, **columns: Any) -> None:
        own = datasets.Dataset.from_parquet(str(folder / f"{split}-00000-of-00001.parquet"), keep_in_memory=True)
        values = {name: list(own[name]) for name in own.column_names if columns.get(name, ()) is not None}
        made = datasets.Dataset.from_dict(values | {name: value for name, value in columns.items() if value})
        made.to_parquet(folder / f"{split}-00000-of-00001.parquet")

    for split_name in ("train", "validation", "test"):
        change(split_name)  # plain numbers: the library itself refuses those that are no class of its own
    rest = list(range(2, 12))
    for columns, message in (
        ({"label": [2, *[0] * 11]}, "rte, train, idx 0: label must be a class number from 0 to 1, got 2"),
        ({"label": [-1, *[0] * 11]}, "rte, train, idx 0: label must be a class number from 0 to 1, got -1"),
        ({"label": [0] * 12, "idx": [0, 0, *rest]}, "rte, train: idx 0 occurs twice"),
        ({"idx": list(range(12)), "sentence2": [*["x"] * 11, None]}, "rte, train, idx 11: 'sentence2' is no text"),
    ):
        change("train", **columns)
        with pytest.raises(UserError, match=message):
            read_glue(parquet, named("RTE"))
    for split_name in ("train", "validation", "test"):
        change(split_name, idx=None, sentence2=["x"] * 12)
    with pytest.raises(UserError, match="rte, train: no field 'idx': its fields are sentence1, sentence2, label"):
        read_glue(parquet, named("RTE"))
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="configuration 'rte', does not load: ") as raised:
        read_glue(parquet, named("RTE"))
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is read with the package datasets, which is not installed"):
        read_glue(parquet, named("RTE"))
    (folder / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"rte has no validation-\*\.parquet"):
        read_glue(parquet, named("RTE"))


def test_a_name_of_the_hub_is_loaded_by_configuration(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked, load = [], datasets.load_dataset

    def offline(name: str, config: str | None = None, **options: Any) -> Any:
        asked.append((name, config))
        if config is None:
            return load(name, **options)
        raise ConnectionError("no network here\nat all")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match="nyu-mll/glue, configuration 'cola', does not load: no network here"):
        read_glue("nyu-mll/glue", ALL)
    assert asked == [("nyu-mll/glue", "cola")]
    files = {config: str(parquet / config) for config in ("mnli", "ax")}
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, config: {
            path.name.split("-")[0]: datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
            for path in Path(files[config]).glob("*.parquet")
        },
    )
    (task,) = read_glue("nyu-mll/glue", named("mnli"))
    assert list(task.unlabelled) == ["test_matched", "test_mismatched", "AX"] and len(task.parts["train"]) == 12


# Inputs


SETTINGS = Settings(model="m", task="t")


def test_pairs_have_token_types_and_the_longer_text_is_cut(tasks: dict[str, Task], model: str) -> None:
    processor, kind = load_model(model, tasks["RTE"].kind, ["a", "b"])[1:3]
    firsts, seconds = (
        ["gold zinc", "the bank", "the bank of said a market"],
        ["wheat corn barley gold zinc", "of", "to"],
    )
    rows = Texts("made", firsts, ["b", "a", "a"], seconds)
    encoded = kind.encode(rows, processor, ["a", "b"], Settings(model="m", task="t", max_length=8))
    words = [processor.convert_ids_to_tokens(ids) for ids in encoded.columns["input_ids"]]
    # seven words in five places: the second text loses two, the first none
    assert words[0] == ["[CLS]", "gold", "zinc", "[SEP]", "wheat", "corn", "barley", "[SEP]"]
    assert words[1] == ["[CLS]", "the", "bank", "[SEP]", "of", "[SEP]"]
    assert words[2] == ["[CLS]", "the", "bank", "of", "said", "[SEP]", "to", "[SEP]"]
    types = [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]]
    assert (encoded.columns["token_type_ids"], encoded.columns["labels"]) == (types, [1, 0, 0])
    batch = kind.collator(processor, SETTINGS)([encoded[0], encoded[1]])
    assert batch["token_type_ids"].shape == (2, 8) and batch["labels"].tolist() == [1, 0]


def test_single_texts_and_parts_without_labels(tasks: dict[str, Task], model: str) -> None:
    task = tasks["CoLA"]
    processor, kind = load_model(model, task.kind, task.label_names)[1:3]
    encoded = kind.encode(one(task, "test"), processor, task.label_names, SETTINGS)
    assert "labels" not in encoded.columns and len(encoded) == 6
    assert not any(map(any, encoded.columns["token_type_ids"]))


def test_an_empty_text_is_a_token_where_there_are_no_special_ones(tasks: dict[str, Task], tmp_path: Path) -> None:
    kind = tasks["CoLA"].kind
    processor = kind.load_processor(str(write_decoder(tmp_path)))
    encoded = kind.encode(Texts("made", [""], ["0"]), processor, ["0", "1"], SETTINGS)
    assert encoded.columns["input_ids"] == [[processor.pad_token_id]]
    pairs = kind.encode(Texts("made", ["", "", "the"], ["0"] * 3, ["", "the", ""]), processor, ["0", "1"], SETTINGS)
    one, *others = pairs.columns["input_ids"]
    assert one == [processor.pad_token_id] and others[0] == others[1] == processor("the")["input_ids"]


def test_a_split_keeps_the_shares_of_classes_and_takes_scores_as_they_come(tasks: dict[str, Task]) -> None:
    part, rest = split(one(tasks["MNLI"], "train"), 12, seed=0)
    assert sorted(part.labels) == sorted(rest.labels) == sorted(LABELS["MNLI"] * 4)
    part, rest = split(one(tasks["STS-B"], "train"), 10, seed=0)
    assert (len(part), len(rest)) == (10, 14) and part.strata() is None
    assert split(one(tasks["RTE"], "test"), 2, seed=0)[0].labels is None


@pytest.mark.parametrize("auto", ["SequenceClassification", "MaskedLM"])
def test_a_regression_head_has_one_output_and_the_squared_error(
    tasks: dict[str, Task], tmp_path: Path, auto: str
) -> None:
    task = tasks["STS-B"]
    loaded = load_model(str(write_model(tmp_path, auto=auto)), task.kind, task.label_names)
    assert loaded.model.config.num_labels == 1 and loaded.model.config.problem_type == "regression"
    assert {name for name in loaded.new_parameters if name.startswith("classifier")}
    encoded = task.kind.encode(one(task, "train"), loaded.processor, task.label_names, SETTINGS)
    batch = task.kind.collator(loaded.processor, SETTINGS)([encoded[i] for i in range(5)])
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == [0, 1.25, 2.5, 3.75, 5]
    out = loaded.model.eval()(**batch)
    assert out.logits.shape == (5, 1)
    torch.testing.assert_close(out.loss, ((out.logits[:, 0] - batch["labels"]) ** 2).mean())


def test_a_base_that_was_tuned_for_regression_is_none_for_classes(tasks: dict[str, Task], tmp_path: Path) -> None:
    score, classes = tasks["STS-B"], tasks["CoLA"]
    load_model(str(write_model(tmp_path)), score.kind, []).model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), classes.kind, classes.label_names)
    encoded = classes.kind.encode(one(classes, "validation"), loaded.processor, classes.label_names, SETTINGS)
    batch = classes.kind.collator(loaded.processor, SETTINGS)([encoded[i] for i in range(4)])
    out = loaded.model.eval()(**batch)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, batch["labels"]))


def test_a_classification_head_has_the_tasks_classes(tasks: dict[str, Task], model: str) -> None:
    task = tasks["MNLI"]
    config = load_model(model, task.kind, task.label_names).model.config
    assert config.id2label == dict(enumerate(("entailment", "neutral", "contradiction")))


# The leaderboard


def predicted(tasks: dict[str, Task]) -> dict[str, dict[str, str]]:
    """Every file's predictions: row i of a part is of class i modulo their number, scores run from -1 to 6."""
    made = {}
    for file, (name, part) in FILES.items():
        rows, classes = len(one(tasks[name], part)), len(tasks[name].label_names)
        numbers = np.arange(rows) % classes if classes else np.linspace(-1, 6, rows)
        made[file] = answers(tasks[name], part, [str(number) for number in numbers])
        assert file_of(name, part) == file
    return made


def test_the_files_of_a_submission_byte_for_byte(tasks: dict[str, Task], tmp_path: Path) -> None:
    files, said = write_submission(tmp_path / "glue", predicted(tasks))
    archive = files[-1]
    assert said == "submission.zip, which GLUE takes" and len(files) == 12
    binary = "index\tprediction\n0\t0\n1\t1\n2\t0\n3\t1\n4\t0\n5\t1\n"
    words = binary.replace("\t0", "\tentailment").replace("\t1", "\tnot_entailment")
    order = ("entailment", "neutral", "contradiction")
    mnli = "".join(f"{9815 + i}\t{order[i % 3]}\n" for i in range(6))
    expected = {
        **dict.fromkeys(("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "QQP.tsv", "WNLI.tsv"), binary),
        **dict.fromkeys(("QNLI.tsv", "RTE.tsv"), words),
        **dict.fromkeys(("MNLI-m.tsv", "MNLI-mm.tsv"), f"index\tprediction\n{mnli}"),
        "STS-B.tsv": "index\tprediction\n0\t0.000\n1\t0.400\n2\t1.800\n3\t3.200\n4\t4.600\n5\t5.000\n",
        "AX.tsv": "index\tprediction\n0\tentailment\n1\tneutral\n2\tcontradiction\n",
    }
    assert len(expected) == 11
    assert {path.name for path in archive.parent.iterdir()} == {*expected, "submission.zip"}
    with zipfile.ZipFile(archive) as zipped:
        assert {name: zipped.read(name).decode() for name in zipped.namelist()} == expected
        assert {info.date_time for info in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # not the time of writing
    assert {name: (archive.parent / name).read_bytes().decode() for name in expected} == expected
    before = archive.read_bytes()
    assert write_submission(tmp_path / "glue", predicted(tasks))[0][-1].read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["glue"]
    some = {name: rows for name, rows in predicted(tasks).items() if name in ("RTE", "CoLA")}
    files, said = write_submission(tmp_path / "glue", some)
    assert [path.name for path in files] == ["CoLA.tsv", "RTE.tsv"] == sorted(os.listdir(tmp_path / "glue"))
    assert said.startswith("CoLA.tsv, RTE.tsv; GLUE takes a zip of all 11 files, and lacks SST-2, MRPC, STS-B")


def test_wnli_may_be_answered_with_its_majority(tasks: dict[str, Task]) -> None:
    rows = one(tasks["WNLI"], "train")
    task = Task(
        "WNLI", tasks["WNLI"].kind, ["0", "1"], {"train": rows.pick([0, 1, 3])}, "accuracy", tasks["WNLI"].unlabelled
    )
    assert majority(task, "test") == {str(i): "1" for i in range(6)}
    with pytest.raises(ValueError, match="task must have classes"):
        majority(tasks["STS-B"], "test")


def test_what_the_site_would_not_take_is_refused(tasks: dict[str, Task], tmp_path: Path) -> None:
    target, good = tmp_path / "glue", predicted(tasks)
    for change, message in (
        (dict.fromkeys(good), "there are no predictions"),
        ({"MNLI": {"0": "neutral"}}, "unknown file 'MNLI': expected CoLA, SST-2"),
        ({"RTE": {"0": "1"}}, r"RTE\.tsv, index 0: '1' is none of entailment, not_entailment"),
        ({"STS-B": {"4": "5.1"}}, r"STS-B\.tsv, index 4: expected a number from 0 to 5, got '5\.1'"),
        ({"STS-B": {"4": "nan"}}, r"STS-B\.tsv, index 4: expected a number"),
        ({"STS-B": {"4": "x"}}, r"STS-B\.tsv, index 4: expected a number"),
        ({"QQP": {}}, r"QQP\.tsv: no predictions"),
    ):
        made = {name: rows for name, rows in {**good, **change}.items() if rows is not None}
        with pytest.raises(UserError, match=message):
            write_submission(target, made)
    assert not list(tmp_path.iterdir())
    target.mkdir()
    (target / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds thesis\.tex: expected a new directory"):
        write_submission(target, good)
    with pytest.raises(UserError, match="is a file: expected a directory"):
        write_submission(target / "thesis.tex", good)
    assert [path.name for path in target.iterdir()] == ["thesis.tex"]


def test_a_submission_that_cannot_be_written_leaves_the_old_one(
    tasks: dict[str, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_submission(tmp_path / "glue", predicted(tasks))[0][-1]
    before, write = archive.read_bytes(), directories._write

    def full(path: Path, content: bytes) -> None:
        if path.name == "QNLI.tsv":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(directories, "_write", full)
    with pytest.raises(WriteError, match="glue cannot be written: No space left on device"):
        write_submission(tmp_path / "glue", {**predicted(tasks), "WNLI": majority(tasks["WNLI"], "test")})
    assert archive.read_bytes() == before and len(list((tmp_path / "glue").iterdir())) == 12
