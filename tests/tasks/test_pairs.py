"""tune on what GLUE's tasks are made of: pairs, numbers, a metric of choice, and GLUE's files by their heads."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from glue_files import LABELS, TASKS, write_glue
from tiny_task import write_model

from adapter_fast.cli import main
from adapter_fast.common.errors import UserError
from adapter_fast.experiments.glue.load_tasks import read_glue
from adapter_fast.experiments.grid.options import Options
from adapter_fast.tasks.data.glue_files import recognise
from adapter_fast.tasks.kinds.find import load_kind
from adapter_fast.tasks.kinds.settings import Settings, differences, read_settings
from adapter_fast.tasks.kinds.text import TextClassification, TextRegression
from adapter_fast.tasks.models import load_model
from adapter_fast.tasks.reload import score_saved
from adapter_fast.tasks.splits import load_task
from adapter_fast.tasks.tuning import tune

pytestmark = pytest.mark.filterwarnings("ignore:.*too few columns")  # QQP's, on purpose
METRIC = {"CoLA": "matthews", "MRPC": "f1", "QQP": "f1", "STS-B": "spearman"}
PAIRS = [("one two", "three", "yes"), ('a "b', "c", "no"), ("", "d e", "yes"), ("f", "", "no")] * 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glue(tmp_path_factory.mktemp("glue"), rows=24)


def write_pairs(path: Path, labels: list | None = None) -> Path:
    """PAIRS as a table or as JSON Lines, by the ending, with other labels if given."""
    rows = [[first, second, label] for (first, second, _), label in zip(PAIRS, labels or [row[2] for row in PAIRS])]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip("qsl", row))) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [list("qsl"), *rows]))
    else:
        quoted = [[f'"{cell}"'.replace('a "b', 'a ""b') for cell in map(str, row)] for row in rows]
        path.write_text("".join(",".join(row) + "\n" for row in [list("qsl"), *quoted]))
    return path


def settings_of(path: Path, model: str = "m", **changes: object) -> Settings:
    values = {"model": model, "task": str(path), "text_columns": ("q", "s"), "label_column": "l", "method": "head"}
    return Settings(**{**values, "bottleneck": 4, "epochs": 1, "batch_size": 8, "max_length": 16, **changes})


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_two_columns_are_pairs_in_every_format(ending: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / f"a.{ending}")
    data = load_task(settings_of(path, test_size=8))
    rows = [*zip(data.train.texts, data.train.seconds, data.train.labels)]
    rows += [*zip(data.test.texts, data.test.seconds, data.test.labels)]
    assert sorted(rows) == sorted(PAIRS) and isinstance(data.kind, TextClassification)
    turned = load_task(settings_of(path, text_columns=("s", "q"), test_size=8))
    assert sorted(zip(turned.train.seconds, turned.train.texts)) == sorted(zip(data.train.texts, data.train.seconds))
    alone = load_task(settings_of(path, text_columns=("s",), test_size=8))
    assert alone.train.seconds is None


def test_a_pair_reaches_the_model_with_token_types_and_comes_back_from_disk(model: str, tmp_path: Path) -> None:
    settings = settings_of(write_pairs(tmp_path / "a.csv"), model, method="fused", validation_size=6)
    outcome = tune(settings, tmp_path / "run", report=lambda event: None)
    data = load_task(settings)
    loaded = load_model(model, data.kind, data.label_names)
    encoded = loaded.kind.encode(data.test, loaded.processor, data.label_names, settings)
    assert {kind for row in encoded.columns["token_type_ids"] for kind in row} == {0, 1}
    scores, logits = score_saved(tmp_path / "run", report=lambda event: None)
    assert scores == outcome.results["metrics"] and np.array_equal(logits, outcome.logits)


def test_numbers_are_predicted_where_they_are_asked_for(model: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.jsonl", [0.5 * (i % 7) for i in range(24)])
    settings = settings_of(path, model, kind="text-regression", method="fused", validation_size=6)
    outcome = tune(settings, tmp_path / "run", report=lambda event: None)
    assert outcome.logits.shape == (5, 1) and list(outcome.results["metrics"]) == ["spearman", "pearson"]
    assert outcome.results["label_names"] == [] and len(outcome.results["validation"]) == 1
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "Classes" not in card
    scores, logits = score_saved(tmp_path / "run", report=lambda event: None)
    assert scores == outcome.results["metrics"] and np.array_equal(logits, outcome.logits)
    changed = settings_of(path, kind="text-regression", metric="pearson")
    assert load_task(changed).kind.metrics == ("pearson", "spearman")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("high", r"a\.tsv, line 4: the label must be a number, got 'high'"),
        ("nan", r"a\.tsv, line 4: the label must be a number, got 'nan'"),
        ("inf", r"a\.tsv, line 4: the label must be a number, got 'inf'"),
        ("1e999", r"a\.tsv, line 4: the label must be a number, got '1e999'"),
        ("1_000", r"a\.tsv, line 4: the label must be a number, got '1_000'"),
        ("", r"a\.tsv, line 4: the label is empty"),
    ],
)
def test_a_label_that_is_no_number(label: str, message: str, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.tsv", [1, 2.5, label, *range(21)])
    with pytest.raises(UserError, match=message):
        load_task(settings_of(path, kind="text-regression"))


def test_numbers_that_are_taken_for_classes_are_told(tmp_path: Path) -> None:
    for part in (1.5, "-1.5", ".5", "25e-1"):
        path = write_pairs(tmp_path / "a.csv", [part, 2, 3, 2] * 6)
        (notice,) = load_task(settings_of(path, test_size=8)).notices
        said = f"the labels are numbers, as {part}, and taken for 3 classes: --kind text-regression predicts numbers"
        assert notice == f"{path}, line 2: {said}"
    for classes in ([1, 2, 3, 2], ["1.5", "low", 3, 2], ["nan", "1.5", 3, 2]):
        path = write_pairs(tmp_path / "b.csv", classes * 6)
        assert load_task(settings_of(path, test_size=8)).notices == []


def test_numbers_that_make_no_classes_are_told_too(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.csv", [0.25 * i for i in range(12)] * 2)
    other = write_pairs(tmp_path / "b.csv", [0.5 * i for i in range(24)])
    rows = write_pairs(tmp_path / "c.jsonl", [2.5, 3.5] * 12)
    for task, changes, message in (
        (path, {}, "each part needs at least one example of each"),
        (path, {"test_file": str(other)}, "does not occur in the training data .*, nor do 17 others"),
        (rows, {}, r"c\.jsonl, line 1: 'l' must be a string or an integer, got 2\.5"),
    ):
        with pytest.raises(UserError, match=f"{message}: --kind text-regression predicts numbers$"):
            load_task(settings_of(task, **changes))
    named = write_pairs(tmp_path / "d.csv", [f"n{i}" for i in range(24)])
    with pytest.raises(UserError, match=r"each part needs at least one example of each$"):
        load_task(settings_of(named))


def test_numbers_in_json_may_be_strings(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.jsonl", [2.5, " 1 ", 3, "4.5"] * 6)
    data = load_task(settings_of(path, kind="text-regression"))
    assert {*data.train.labels, *data.test.labels} == {2.5, 1.0, 3.0, 4.5}
    for wrong, said in ((None, "null"), (True, "true"), ([1], "[1]")):
        write_pairs(path, [wrong, 1, 2, 3] * 6)
        with pytest.raises(UserError, match=r"a\.jsonl, line 1: the label must be a number") as error:
            load_task(settings_of(path, kind="text-regression"))
        assert str(error.value).endswith(f"got {said!r}")


def test_a_part_whose_labels_are_equal_has_no_correlation(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.csv", [2.5] * 24)
    with pytest.raises(UserError, match=r"a\.csv: Spearman correlation is undefined, since all of its 5 labels are"):
        load_task(settings_of(path, kind="text-regression"))


def test_the_metric_of_choice_comes_first(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.csv")
    assert load_task(settings_of(path)).kind.metrics == ("accuracy", "macro_f1", "f1", "matthews")
    for metric in ("accuracy", "macro_f1", "f1", "matthews"):
        kind = load_task(settings_of(path, metric=metric)).kind
        assert kind.metrics[0] == metric and set(kind.metrics) == {"accuracy", "macro_f1", "f1", "matthews"}
    three = write_pairs(tmp_path / "b.csv", ["a", "b", "c"] * 8)
    for where, changes, message in (
        (three, {"metric": "f1"}, "metric must be one of accuracy, macro_f1, matthews for this task, got 'f1'"),
        (path, {"metric": "pearson"}, "metric must be one of accuracy, macro_f1, f1, matthews for this task"),
        (path, {"text_columns": ("q", "s", "q")}, "text_column must be given once, or twice for pairs, got 3"),
        (path, {"text_columns": ("q", "q")}, "text_column must name two columns for pairs, got 'q' twice"),
        (path, {"text_columns": ("q", "x")}, r"has no column 'x': its columns are q, s, l"),
    ):
        with pytest.raises(UserError, match=message):
            load_task(settings_of(where, **changes))
    assert load_task(settings_of(three)).kind.metrics == ("accuracy", "macro_f1", "matthews")
    (tmp_path / "a.txt").write_text("some words\n" * 9)
    (tmp_path / "a.conll").write_text("a B-X\nb O\n\n" * 9)
    (tmp_path / "b.conll").write_text("a NN\nb DT\n\n" * 9)
    for name, theirs, metric in (
        ("a.txt", "perplexity, loss", "f1"),
        ("a.conll", "f1, precision, recall, accuracy", "macro_f1"),
        ("b.conll", "accuracy, macro_f1", "f1"),
    ):
        for own in theirs.split(", "):
            load_task(Settings("m", str(tmp_path / name), metric=own))
        with pytest.raises(UserError, match=f"metric must be one of {theirs} for this task, got '{metric}'"):
            load_task(Settings("m", str(tmp_path / name), metric=metric))
    with pytest.raises(UserError, match=r"text_column was given twice: .*a\.txt is for language-modelling, which"):
        load_task(Settings("m", str(tmp_path / "a.txt"), text_columns=("a", "b")))


def test_other_kinds_go_by_one_of_their_own_metrics(model: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("the B-X\nbank O\n\n" * 12)
    settings = Settings("m", str(tmp_path / "a.conll"), "head", epochs=2, max_length=16, validation_size=4)
    runs = [replace(settings, model=model, metric=metric) for metric in (None, "accuracy")]
    usual, chosen = (tune(run, tmp_path / str(run.metric), report=lambda event: None).results for run in runs)
    assert list(usual["metrics"]) == ["f1", "precision", "recall", "accuracy"]
    assert list(chosen["metrics"]) == ["accuracy", "f1", "precision", "recall"]
    assert chosen["metrics"] == usual["metrics"] and chosen["validation"] != usual["validation"]


def test_metrics_that_a_part_leaves_undefined_are_left_out_but_the_one_to_go_by(model: str, tmp_path: Path) -> None:
    path, other = write_pairs(tmp_path / "a.csv"), write_pairs(tmp_path / "b.csv", ["no"] * 24)
    settings = settings_of(path, model, test_file=str(other))
    metrics = tune(settings, tmp_path / "run", report=lambda event: None).results["metrics"]
    assert list(metrics) == ["accuracy", "macro_f1"]
    for metric, said in (("f1", "F1 is undefined, since no label is"), ("matthews", "Matthews correlation is undefi")):
        with pytest.raises(UserError, match=rf"b\.csv: {said}"):
            load_task(replace(settings, metric=metric))


# GLUE's own files


@pytest.mark.parametrize("task", TASKS)
def test_glues_files_are_read_by_their_heads_as_experiments_read_them(task: str, glue: Path) -> None:
    dev = "dev_matched.tsv" if task == "MNLI" else "dev.tsv"
    settings = Settings("m", str(glue / task / "train.tsv"), test_file=str(glue / task / dev), validation_size=6)
    data = load_task(settings)
    (theirs,) = read_glue(glue, Options(tasks=(task,)))
    train = theirs.parts["train"]
    assert type(data.kind) is type(theirs.kind) is (TextRegression if task == "STS-B" else TextClassification)
    published = theirs.kind.metrics
    assert data.kind.metrics[: len(published)] == published and published[0] == METRIC.get(task, "accuracy")
    assert task == "STS-B" or {"accuracy", "macro_f1"} <= set(data.kind.metrics)
    assert data.label_names == theirs.label_names == list(LABELS.get(task, ()))
    ours = [*zip(data.train.texts, data.train.seconds or data.train.texts, data.train.labels)]
    ours += [*zip(data.validation.texts, data.validation.seconds or data.validation.texts, data.validation.labels)]
    assert sorted(ours) == sorted(zip(train.texts, train.seconds or train.texts, train.labels))
    rest = len(theirs.parts["validation"]) + len(theirs.parts["test"])
    assert len(data.test) == rest and (data.test.seconds is None) == (task in ("CoLA", "SST-2"))
    shown = {"CoLA": "'sentence', label 'label', metric matthews", "MRPC": "'#1 String' and '#2 String' as a pair"}
    said = f"{glue / task / 'train.tsv'} is read by GLUE's rules for {task}: "
    assert data.notices[0].startswith(said + shown.get(task, ""))
    other = {"STS-B": "pearson"}.get(task, "macro_f1")
    assert load_task(replace(settings, metric=other)).notices[0].endswith(f"metric {other}")
    assert recognise(glue / task / "test.tsv") is None, "without labels it is no file to train on"


def test_what_only_looks_like_glues_is_read_as_any_table(glue: Path, tmp_path: Path) -> None:
    for name, content in (
        ("labels.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n"),
        ("columns.tsv", "sentence\tlabel\tmore\nx\t1\ty\n"),
        ("text.tsv", "text\tlabel\nx\t1\n"),
        ("four.tsv", "a\t1\tb\tc\n"),
        ("empty.tsv", ""),
        ("latin.tsv", "caf\xe9\t1\n"),
        ("short.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\n"),
        ("tabs.csv", "sentence\tlabel\nx\t1\n"),
        ("mrpc.csv", "Quality,#1 ID,#2 ID,#1 String,#2 String\n1,1,2,a,b\n"),
    ):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        assert recognise(tmp_path / name) is None, name
    assert recognise(tmp_path / "gone.tsv") is None
    (tmp_path / "five.tsv").write_text("sentence\tlabel\nx\t1\ny\t4\n")
    said = r"five\.tsv, line 3: label '4' is none of 0, 1; read as SST-2 of GLUE, unless --text-column names"
    with pytest.raises(UserError, match=said):
        load_task(Settings("m", str(tmp_path / "five.tsv")))
    own = Settings("m", str(tmp_path / "five.tsv"), text_columns=["sentence"])
    assert own.text_columns == ("sentence",)
    assert load_kind("text-classification").read(own.task, own).labels == ["1", "4"]
    asked = Settings("m", str(glue / "RTE/train.tsv"), text_columns=("sentence2",), test_size=6)
    data = load_task(asked)
    assert data.train.seconds is None and data.kind.metrics[0] == "accuracy"
    with pytest.raises(UserError, match="has no column 'text'"):
        load_task(Settings("m", str(glue / "RTE/train.tsv"), kind="text-classification"))


def test_the_command_on_glues_files(glue: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for task, score in (("MRPC", "f1"), ("STS-B", "spearman")):
        files = ["--task", str(glue / task / "train.tsv"), "--test", str(glue / task / "dev.tsv")]
        more = ["--epochs", "1", "--max-length", "16", "--bottleneck", "4", "--output", str(tmp_path / task)]
        assert main(["tune", "--model", model, *files, *more]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert f"by GLUE's rules for {task}" in out and f"{score} " in out
        results = json.loads((tmp_path / task / "results.json").read_text())
        assert next(iter(results["metrics"])) == score and math.isfinite(results["metrics"][score])


def test_a_file_that_was_moved_is_the_same_data(glue: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.tsv").write_bytes((glue / "QQP/train.tsv").read_bytes())
    parts = [
        load_task(Settings("m", str(path), test_size=6)).train
        for path in (glue / "QQP/train.tsv", tmp_path / "elsewhere.tsv")
    ]
    assert parts[0].notices != parts[1].notices and len(parts[0].notices) == 2
    assert parts[0].digest() == parts[1].digest()


def test_settings_of_an_earlier_version_name_one_column() -> None:
    now = Settings("m", "a.csv", text_columns=("body",))
    record = now.to_dict()
    assert differences(now, read_settings(json.loads(json.dumps(record)), "run.json")) == []
    del record["text_columns"], record["metric"]
    assert read_settings({**record, "text_column": "body"}, "run.json") == now
