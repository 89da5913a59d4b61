"""Tuning runs of every kind of task, end to end on tiny models: they learn, resume, reload, and score as others do."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_models import TINY
from tiny_task import (
    TOPICS,
    write_decoder,
    write_image_model,
    write_images,
    write_lines,
    write_model,
    write_squad,
    write_tags,
    write_task,
)

from adapter_fast import load_adapters
from adapter_fast.cli import BAD_INPUT, main
from adapter_fast.common.errors import UserError
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.metrics.answer_scores import score_answers
from adapter_fast.tasks.metrics.entities import score_entities
from adapter_fast.tasks.reload import score_saved
from adapter_fast.tasks.splits import load_task
from adapter_fast.tasks.tuning import Outcome, tune


@pytest.fixture(autouse=True)
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training through Triton's interpreter would take minutes, and the kernels have tests of their own."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def silent(event: object) -> None:
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks, and a model for each."""
    folder = tmp_path_factory.mktemp("world")
    write_task(folder / "texts.csv")
    write_tags(folder / "tags.conll")
    write_squad(folder / "squad.json")
    write_lines(folder / "lines.txt")
    write_model(folder / "tagger", auto="TokenClassification")
    write_model(folder / "reader", auto="QuestionAnswering")
    write_model(folder / "masked", auto="MaskedLM")
    write_decoder(folder / "causal")
    write_decoder(folder / "decoder", "SequenceClassification")
    return folder


@pytest.fixture(scope="module")
def pictures(world: Path) -> Path:
    pytest.importorskip("PIL")
    write_image_model(world / "vit")
    return write_images(world / "images")


# What each kind runs on, for how long, and the score it must pass.
RUNS: dict[str, tuple[dict[str, Any], Callable[[dict[str, float]], bool]]] = {
    "tagger": ({"task": "tags.conll", "epochs": 12, "lr": 2e-2}, lambda scores: scores["f1"] > 0.25),
    "reader": ({"task": "squad.json", "epochs": 9, "stride": 4}, lambda scores: scores["exact_match"] > 0.25),
    "masked": ({"task": "lines.txt", "epochs": 6}, lambda scores: scores["perplexity"] < 60),
    "causal": ({"task": "lines.txt", "epochs": 4, "max_length": 32}, lambda scores: scores["perplexity"] < 200),
    "decoder": ({"task": "texts.csv", "epochs": 4, "max_length": 40}, lambda scores: scores["accuracy"] > 0.5),
    "vit": ({"task": "images", "epochs": 3}, lambda scores: scores["accuracy"] > 0.8),
}
KINDS = {
    "tagger": "token-classification",
    "reader": "question-answering",
    "masked": "language-modelling",
    "causal": "language-modelling",
    "decoder": "text-classification",
    "vit": "image-classification",
}
everywhere = pytest.mark.parametrize("model", RUNS)


def settings_of(world: Path, model: str, **values: object) -> Settings:
    given = {"bottleneck": 16, "batch_size": 8, "max_length": 16, "lr": 1e-2, **RUNS[model][0], **values}
    task = str(world / given.pop("task"))
    return Settings(str(world / model), task, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """The finished run of a model, once for all tests."""
    done: dict[str, tuple[Path, Outcome]] = {}

    def finished(model: str) -> tuple[Path, Outcome]:
        if model == "vit":
            request.getfixturevalue("pictures")
        if model not in done:
            output = tmp_path_factory.mktemp("runs") / model
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TRITON_INTERPRET", "0")
                done[model] = output, tune(settings_of(world, model, validation_size=8), output, report=silent)
        return done[model]

    return finished


def fresh(output: Path, world: Path, model: str, auto: str, **labels: object) -> torch.nn.Module:
    """The base with the adapter that a run saved, loaded by transformers and by us without the run's machinery."""
    base = getattr(transformers, f"AutoModelFor{auto}").from_pretrained(world / model, **labels)
    return load_adapters(base, output / "adapter").eval()


@everywhere
def test_a_run_learns_and_records_what_it_scored(run, world: Path, model: str) -> None:
    output, outcome = run(model)
    results = outcome.results
    assert results["kind"] == KINDS[model]
    assert RUNS[model][1](results["metrics"]), results["metrics"]
    assert np.mean(results["losses"][-2:]) < 0.8 * np.mean(results["losses"][:2])
    assert len(results["validation"]) == RUNS[model][0]["epochs"]
    assert results["sizes"] == load_task(settings_of(world, model, validation_size=8)).sizes()
    assert json.loads((output / "results.json").read_text())["metrics"] == results["metrics"]
    assert sorted(path.name for path in output.iterdir()) == ["adapter", "results.json", "run.json"]
    assert ("accuracy" in results) == (KINDS[model] == "text-classification")


@everywhere
def test_the_saved_adapter_scores_the_same_in_a_fresh_model(run, model: str) -> None:
    output, outcome = run(model)
    metrics, logits = score_saved(output, silent)
    assert metrics == outcome.results["metrics"]
    np.testing.assert_array_equal(logits, outcome.logits)


# Scores, again, by other means: one example at a time, without windows, padding or the trainer


def test_tags_are_those_of_transformers_pipeline(world: Path, tmp_path: Path) -> None:
    settings = settings_of(world, "tagger", method="full", epochs=6, lr=1e-2)
    outcome = tune(settings, tmp_path / "run", checkpoints=False, report=silent)
    tagger = transformers.pipeline("token-classification", model=str(tmp_path / "run/model"))
    test = load_task(settings).test
    predicted = [[word["entity"] for word in tagger(" ".join(words), ignore_labels=[])] for words in test.tokens]
    scores = score_entities(test.tags, predicted)
    assert scores["f1"] > 0.3
    assert outcome.results["metrics"] == pytest.approx({**scores, "accuracy": outcome.results["metrics"]["accuracy"]})


def test_answers_are_those_of_each_window_alone(run, world: Path) -> None:
    output, outcome = run("reader")
    model = fresh(output, world, "reader", "QuestionAnswering")
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "reader")
    test = load_task(settings_of(world, "reader", validation_size=8)).test
    answers = {}
    for name, question, context in zip(test.ids, test.questions, test.contexts):
        words = context.split()
        best = (-math.inf, "")
        for begin in range(0, len(words), 7):  # room for 11 words behind [CLS] rate ? [SEP], of which 4 come again
            part = words[begin : begin + 11]
            with torch.no_grad():
                said = model(**tokenizer(question, " ".join(part), return_tensors="pt"))
            for i in range(len(part)):
                for j in range(i, len(part)):
                    score = (said.start_logits[0, 4 + i] + said.end_logits[0, 4 + j]).item()
                    best = max(best, (score, " ".join(part[i : j + 1])))
            if begin + 11 >= len(words):
                break
        answers[name] = best[1]
    gold = {name: [answer.text for answer in given] for name, given in zip(test.ids, test.answers)}
    assert outcome.results["metrics"] == pytest.approx(score_answers(answers, gold))


def test_perplexity_is_that_of_each_block_alone(run, world: Path) -> None:
    output, outcome = run("causal")
    model = fresh(output, world, "causal", "CausalLM")
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "causal")
    lines = (world / "lines.txt").read_text().splitlines(keepends=True)
    ids = tokenizer("".join(lines[-12:]))["input_ids"]  # a fifth of the lines, at the end
    total = count = 0
    for i in range(0, len(ids), 32):
        block = torch.tensor([ids[i : i + 32]])
        with torch.no_grad():
            loss = model(input_ids=block, labels=block).loss.item()
        total += loss * (block.shape[1] - 1)
        count += block.shape[1] - 1
    assert outcome.results["metrics"] == pytest.approx(
        {"perplexity": math.exp(total / count), "loss": total / count}, rel=1e-5
    )


def test_a_decoder_padded_with_its_end_token_sees_what_it_sees_without(run, world: Path) -> None:
    output, outcome = run("decoder")
    labels = {"id2label": dict(enumerate(sorted(TOPICS))), "pad_token_id": 0, "ignore_mismatched_sizes": True}
    model = fresh(output, world, "decoder", "SequenceClassification", **labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "decoder")
    assert tokenizer.pad_token is None
    texts = load_task(settings_of(world, "decoder", validation_size=8)).test.texts
    assert len(set(map(len, texts))) > 4
    with torch.no_grad():
        alone = [model(torch.tensor([tokenizer(text)["input_ids"][:40]])).logits[0].numpy() for text in texts]
    np.testing.assert_allclose(outcome.logits, alone, rtol=1e-4, atol=1e-5)


def test_images_are_classed_as_transformers_pipeline_does(pictures: Path, world: Path, tmp_path: Path) -> None:
    settings = settings_of(world, "vit", method="full", epochs=1, lr=1e-3)
    outcome = tune(settings, tmp_path / "run", checkpoints=False, report=silent)
    classify = transformers.pipeline("image-classification", model=str(tmp_path / "run/model"))
    test = load_task(settings).test
    said = [classify(path)[0]["label"] for path in test.paths]
    assert said == [outcome.results["label_names"][i] for i in outcome.logits.argmax(1)]
    assert outcome.results["metrics"]["accuracy"] == np.mean(np.array(said) == np.array(test.labels)) > 0.5


# Runs that are killed


class Killed(BaseException):
    """Stands for the signal that ends a run: nothing of ours catches it."""


@pytest.mark.parametrize("model", ["masked", pytest.param("reader", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_very_same_adapter(world: Path, tmp_path: Path, model: str) -> None:
    settings = settings_of(world, model, epochs=4, save_steps=3, batch_size=4, validation_size=4)
    whole = tune(settings, tmp_path / "whole", report=silent)

    def kill(event: dict) -> None:
        if event["event"] == "step" and event["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        tune(settings, tmp_path / "killed", report=kill)
    starts: list[int] = []
    resumed = tune(
        settings,
        tmp_path / "killed",
        resume=True,
        report=lambda e: starts.append(e["step"]) if e["event"] == "start" else None,
    )
    assert starts == [6]
    assert resumed.results["losses"] == whole.results["losses"]
    assert resumed.results["validation"] == whole.results["validation"]
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    weights = [(tmp_path / name / "adapter/adapter.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


# Options


@pytest.mark.parametrize(
    "options, sites",
    [({}, 4), ({"placement": "pfeiffer"}, 2), ({"placement": "parallel"}, 2), ({"layers": [1]}, 2)],
)
def test_placement_and_layers_are_where_adapters_sit(
    world: Path, tmp_path: Path, options: dict[str, Any], sites: int
) -> None:
    settings = settings_of(world, "masked", epochs=1, layer_norms=False, **options)
    outcome = tune(settings, tmp_path / "run", checkpoints=False, report=silent)
    d, m = 32, 16
    assert outcome.results["trained"] == sites * (2 * m * d + d + m)
    config = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())["config"]
    assert (config["placement"], config["layers"]) == (options.get("placement", "houlsby"), options.get("layers"))


def test_a_family_without_a_row_takes_target_modules(world: Path, tmp_path: Path) -> None:
    config = transformers.BloomConfig(vocab_size=24, hidden_size=16, n_layer=2, n_head=2, pad_token_id=0)
    write_model(tmp_path / "bloom", config)
    given = {"model": str(tmp_path / "bloom"), "task": str(world / "texts.csv"), "bottleneck": 4, "max_length": 16}
    with pytest.raises(UserError, match="model_type 'bloom' has no known adapter site"):
        tune(Settings(**given), tmp_path / "run", report=silent)
    settings = Settings(**given, epochs=1, target_modules=r".+\.mlp\.dense_4h_to_h", layer_norms=False)
    outcome = tune(settings, tmp_path / "run", checkpoints=False, report=silent)
    assert outcome.results["trained"] == 2 * (2 * 4 * 16 + 16 + 4) + 3 * 16  # two sites and the head
    assert score_saved(tmp_path / "run", silent)[0] == outcome.results["metrics"]


def test_gradient_checkpointing_computes_layers_again_to_the_same_end(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.bert.modeling_bert import BertIntermediate  # 5.23 wraps the layer's own forward

    plain, calls = BertIntermediate.forward, []
    monkeypatch.setattr(BertIntermediate, "forward", lambda self, x: (calls.append(self.training), plain(self, x))[1])
    losses, trained = {}, {}
    for wanted in (False, True):
        calls.clear()
        settings = settings_of(world, "masked", epochs=1, gradient_checkpointing=wanted)
        results = tune(settings, tmp_path / f"{wanted}", checkpoints=False, report=silent).results
        losses[wanted], trained[wanted] = results["losses"], sum(calls)
    assert trained[True] == 2 * trained[False] == 4 * len(losses[False])
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-5)


def test_logs_go_where_trainer_sends_them_and_stay(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package tensorboardX, which transformers takes where tensorboard is not installed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/tensorboardX.py").write_text(
        "import json, os\n"
        "class SummaryWriter:\n"
        "    def __init__(self, log_dir):\n"
        "        os.makedirs(log_dir)\n"
        "        self.file = open(os.path.join(log_dir, 'scalars'), 'w')\n"
        "    def add_scalar(self, name, value, step):\n"
        "        print(json.dumps([name, value, step]), file=self.file)\n"
        "    def add_text(self, *_): pass\n"
        "    def add_hparams(self, *_, **__): pass\n"
        "    def flush(self): self.file.flush()\n"
        "    def close(self): self.file.close()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    settings = settings_of(world, "masked", epochs=1, report_to="tensorboard", validation_size=4)
    outcome = tune(settings, tmp_path / "run", report=silent)
    sys.modules.pop("tensorboardX", None)
    lines = [json.loads(line) for line in (tmp_path / "run/logs/scalars").read_text().splitlines()]
    losses = [value for name, value, _ in lines if name == "train/loss"]
    assert losses == outcome.results["losses"]
    assert [value for name, value, _ in lines if name == "eval/perplexity"] == [outcome.results["validation"][0][1]]


def test_a_logger_that_is_not_there_is_one_line(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.integrations.integration_utils, "is_tensorboard_available", lambda: False)
    for name, message in (("tensorboard", "requires tensorboard to be installed"), ("diary", "diary is not supported")):
        with pytest.raises(UserError, match=f"report_to '{name}': .*{message}") as caught:
            tune(settings_of(world, "masked", report_to=name), tmp_path / "run", report=silent)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_empty_text_is_scored_by_a_decoder_too(world: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "gold,a\n,b\n" * 6)
    settings = settings_of(world, "decoder", epochs=1, batch_size=1, test_size=2).to_dict() | {
        "task": str(tmp_path / "t.csv")
    }
    outcome = tune(Settings(**settings), tmp_path / "run", checkpoints=False, report=silent)
    assert np.isfinite(outcome.logits).all()


def test_bf16_runs_on_a_cpu(world: Path, tmp_path: Path) -> None:
    settings = settings_of(world, "reader", epochs=1, precision="bf16")
    outcome = tune(settings, tmp_path / "run", checkpoints=False, report=silent)
    assert np.isfinite(outcome.logits).all()


# Models that do not fit


def unfit(world: Path, tmp_path: Path, model: str, **values: object) -> str:
    with pytest.raises(UserError) as caught:
        tune(settings_of(world, model, **values), tmp_path / "run", report=silent)
    assert not (tmp_path / "run").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_that_do_not_fit_are_one_line(world: Path, tmp_path: Path) -> None:
    write_model(world / "bart", transformers.BartConfig(**TINY["bart"].sizes, vocab_size=24), "SequenceClassification")
    RUNS["bart"] = ({"task": "lines.txt"}, bool)
    try:
        assert "bart' has model_type 'bart', an encoder with a decoder" in unfit(world, tmp_path, "bart")
    finally:
        del RUNS["bart"]
    decoder = unfit(world, tmp_path, "decoder", task="tags.conll", kind="image-classification")
    assert "tags.conll: no such folder: expected one with a subfolder of images" in decoder
    headless = unfit(world, tmp_path, "reader", task="lines.txt")
    assert "reader' has no weights for cls.predictions" in headless and "or --method full" in headless
    assert "method head trains a task's new head" in unfit(world, tmp_path, "masked", method="head")
    assert "layers must be below 2" in unfit(world, tmp_path, "masked", layers=[0, 2])
    assert "max_length 64 is over the model's 32 positions" in unfit(world, tmp_path, "reader", max_length=64)


def test_a_model_without_the_kind_is_named(pictures: Path, world: Path, tmp_path: Path) -> None:
    error = unfit(world, tmp_path, "vit", task="tags.conll")
    assert "vit' has model_type 'vit', for which transformers has no AutoModelForTokenClassification" in error


def test_positions_behind_the_paddings_own_are_not_counted(world: Path, tmp_path: Path) -> None:
    config = transformers.RobertaConfig(**TINY["roberta"].sizes, vocab_size=24, max_position_embeddings=18)
    write_model(tmp_path / "roberta", config)
    settings = {"task": str(world / "texts.csv"), "model": str(tmp_path / "roberta"), "max_length": 17, "bottleneck": 4}
    with pytest.raises(UserError, match="max_length 17 is over the model's 16 positions"):
        tune(Settings(**settings), tmp_path / "run", report=silent)
    (tmp_path / "long.csv").write_text("text,label\n" + f"{'gold ' * 20},a\n{'bank ' * 20},b\n" * 8)
    fits = {**settings, "max_length": 16, "task": str(tmp_path / "long.csv"), "epochs": 1}
    assert tune(Settings(**fits), tmp_path / "run", checkpoints=False, report=silent).results["max_length"] == 16


# The command


def test_the_command_shows_the_kinds_metric(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["tune", "--model", str(world / "reader"), "--task", str(world / "squad.json"), "--output"]
    options = ["--epochs", "1", "--max-length", "16", "--stride", "4", "--bottleneck", "4", "--layers", "0-1"]
    assert main([*words, str(tmp_path / "run"), *options, "--placement", "pfeiffer"]) == 0
    captured = capsys.readouterr()
    metrics = json.loads((tmp_path / "run/results.json").read_text())["metrics"]
    shown = f"F1 {metrics['f1']:.3f}, exact match {metrics['exact_match']:.3f} on 18 test questions"
    assert shown in captured.out and captured.err == ""
    assert json.loads((tmp_path / "run/run.json").read_text())["layers"] == [0, 1]


def test_the_command_shows_what_it_read_before_it_trains(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    task = tmp_path / "multiconer.conll"
    sentences = (world / "tags.conll").read_text().replace("\tX\t", " _ _ ").strip().split("\n\n")
    task.write_text("\n".join(f"# id {i}\tdomain=train\n{text.strip()}\n" for i, text in enumerate(sentences)))
    words = ["tune", "--model", str(world / "tagger"), "--task", str(task), "--output", str(tmp_path / "run")]
    assert main([*words, "--epochs", "1", "--bottleneck", "4", "--max-length", "16"]) == 0
    captured = capsys.readouterr()
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert list(results["metrics"]) == ["f1", "precision", "recall", "accuracy"]
    assert results["label_names"] == sorted(["O", *(f"{letter}-{topic}" for letter in "BI" for topic in TOPICS)])
    assert captured.out.startswith(
        f"read 90 sentences from {task}: 72 to train on, 18 to test\n7 classes to train on: O "
    )
    note = f"note: {task}, line 1: begins with # and is taken for a comment, with 89 more\n"
    assert captured.out.index(note) < captured.out.index("F1 ") and captured.err == ""


def test_bad_answers_are_skipped_by_the_command(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    content = json.loads((world / "squad.json").read_text())
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 999
    (tmp_path / "squad.json").write_text(json.dumps(content))
    words = ["tune", "--model", str(world / "reader"), "--task", str(tmp_path / "squad.json")]
    options = ["--output", str(tmp_path / "run"), "--epochs", "1", "--max-length", "16", "--stride", "4"]
    assert main([*words, *options]) == BAD_INPUT
    assert "is not at 999 in its context" in capsys.readouterr().err
    assert main([*words, *options, "--skip-bad"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("read 89 questions from ")
    assert "squad.json: 1 bad answer left out, and 1 question that had no other; the first: " in shown


@pytest.mark.parametrize("value", ["a", "3-1", "1,,2", "-1", "0-"])
def test_layers_that_are_no_numbers_are_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--model", "m", "--task", "t", "--output", "o", f"--layers={value}"]) == BAD_INPUT
    [line] = capsys.readouterr().err.splitlines()
    assert f"{value!r} is not numbers and ranges of them, as 0-3,8" in line


# Every family

AUTO = {
    "texts.csv": "SequenceClassification",
    "tags.conll": "TokenClassification",
    "squad.json": "QuestionAnswering",
    "lines.txt": "MaskedLM",
    "images": "ImageClassification",
}
SOUND = ("speech", "sound")


def small_config(family: str) -> Any:
    """A tiny configuration of the family for the tiny tokenizer."""
    tiny = TINY[family]
    words = {} if tiny.kind in ("image", "both") or "text_config" in tiny.sizes else {"vocab_size": 60}
    positions = {"max_position_embeddings": 40} if tiny.kind == "text" and words and family != "gpt2" else {}
    end = {"eos_token_id": 3} if tiny.kind == "seq2seq" else {}
    return getattr(transformers, f"{tiny.prefix}Config")(**{**tiny.sizes, **words, **positions, **end})


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family, tiny in TINY.items() if tiny.kind not in SOUND])
def test_every_family_is_tuned_where_transformers_has_the_kind(
    pictures: Path, world: Path, tmp_path: Path, family: str
) -> None:
    config, tuned = small_config(family), []
    for task, auto in AUTO.items():
        masked = auto == "MaskedLM"
        if masked and type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
            auto = "CausalLM"
        if type(config) not in getattr(transformers, f"AutoModelFor{auto}")._model_mapping:
            continue
        if masked and config.is_encoder_decoder:
            continue
        folder = write_model(tmp_path / task, config, auto)
        if task == "images":
            processor = {**json.loads((world / "vit/preprocessor_config.json").read_text())}
            processor["size"] = {"height": 16, "width": 16}
            (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        settings = Settings(
            str(folder), str(world / task), bottleneck=4, epochs=1, max_length=16, stride=4, train_size=16, lr=1e-2
        )
        outcome = tune(settings, tmp_path / f"{task}-run", checkpoints=False, report=silent)
        assert np.isfinite(outcome.logits).all() and np.isfinite(outcome.results["losses"]).all(), task
        assert score_saved(tmp_path / f"{task}-run", silent)[0] == outcome.results["metrics"], task
        tuned.append(task)
    assert tuned or family.startswith("clip_")
