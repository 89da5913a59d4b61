"""Question answering: the set over this project's documentation, SQuAD's scores and windows, the hub's reader."""

from __future__ import annotations

import json
import re
import statistics
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_task import WORDS, write_model, write_squad

from adapter_fast.cli import main
from adapter_fast.common.errors import UserError
from adapter_fast.experiments import drive, squad
from adapter_fast.experiments.find import find_experiment
from adapter_fast.experiments.grid import cache
from adapter_fast.experiments.grid.cells import as_row
from adapter_fast.experiments.grid.lab import Lab
from adapter_fast.experiments.grid.options import Options
from adapter_fast.experiments.grid.result import Result, read_result
from adapter_fast.experiments.grid.spec import Spec
from adapter_fast.experiments.grid.store import Store
from adapter_fast.experiments.screen import Silence
from adapter_fast.tasks.data.questions import Answer, Questions, check_questions, read_questions
from adapter_fast.tasks.data.questions_hub import read_hub_questions
from adapter_fast.tasks.data.windows import EncodedQuestions, encode_questions, predict_answers
from adapter_fast.tasks.kinds.find import load_kind
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.metrics.answer_scores import exact_match, normalize_answer, score_answers, token_f1
from adapter_fast.tasks.metrics.answer_spans import MAX_ANSWER_TOKENS


@pytest.fixture(scope="module")
def docs() -> dict[str, Questions]:
    return {part: read_questions(squad.DOCS / f"{part}-v1.1.json") for part in ("train", "dev")}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One token a word or a run of punctuation; most of them unknown."""
    return load_kind("question-answering").load_processor(str(write_model(tmp_path_factory.mktemp("tokenizer"))))


# The questions over this project's documentation


def test_the_docs_set_is_of_the_size_that_it_claims(docs: dict[str, Questions]) -> None:
    train, dev = docs["train"], docs["dev"]
    assert len(train) >= 80 and len(dev) >= 24
    assert len(set(train.contexts)) >= 20
    assert not set(train.contexts) & set(dev.contexts)
    ids = train.ids + dev.ids
    assert ids == [f"docs-{i:04}" for i in range(1, len(ids) + 1)]
    assert len(set(train.questions + dev.questions)) == len(ids)
    assert all(question.endswith("?") for question in train.questions + dev.questions)
    assert sum(len(answers) > 1 for answers in dev.answers) > len(dev) / 2


@pytest.mark.parametrize("part", ["train", "dev"])
def test_the_docs_sets_answers_are_whole_words_and_short_enough(docs: dict[str, Questions], part: str) -> None:
    for name, context, answers in zip(docs[part].ids, docs[part].contexts, docs[part].answers):
        assert len({answer.text for answer in answers}) == len(answers), name
        for text, start in answers:
            end = start + len(text)
            assert not re.search(r"\w\w", context[max(0, start - 1) : start + 1]), name
            assert not re.search(r"\w\w", context[end - 1 : end + 1]), name
            assert text == text.strip() and normalize_answer(text), name


@pytest.mark.parametrize("part", ["train", "dev"])
def test_the_docs_set_has_contexts_that_need_windows(docs: dict[str, Questions], part: str) -> None:
    def least_tokens(context: str) -> int:
        """BERT's tokenizers cut at white space and around each mark, and may cut more."""
        return len(re.findall(r"[^\W_]+|[^\w\s]|_", context))

    assert any(least_tokens(context) > 384 for context in docs[part].contexts)


def gold_logits(encoded: EncodedQuestions, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that finds the first gold answer wherever a window holds it."""
    starts, ends = np.zeros((2, len(encoded), length))
    for i, window in enumerate(encoded.windows):
        start, end = encoded.columns["start_positions"][i], encoded.columns["end_positions"][i]
        held = window.first <= start < window.first + len(window.characters)
        starts[i, start], ends[i, end] = (5, 5) if held else (0, 0)
    return starts, ends


@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_model_that_knows_the_docs_gets_every_answer(docs: dict[str, Questions], tokenizer: Any, part: str) -> None:
    rows = docs[part]
    encoded = encode_questions(rows, tokenizer, max_length=128, stride=48)
    assert len(encoded) > len(rows)
    predicted = predict_answers(encoded, *gold_logits(encoded, 128))
    gold = {name: [answer.text for answer in answers] for name, answers in zip(rows.ids, rows.answers)}
    assert {name for name in gold if exact_match(predicted[name], gold[name][0]) < 1} == set()
    assert score_answers(predicted, gold) == {"exact_match": 1, "f1": 1}


# Scores: SQuAD v1.1's script, on cases by hand


@pytest.mark.parametrize(
    "text, normal",
    [
        ("", ""),
        ("?!…", "…"),  # the ellipsis is no ASCII punctuation
        ("...", ""),
        ("the a an", ""),
        ("An A-Team", "ateam"),  # punctuation goes first, so this a is no article
        ("1,500 texts", "1500 texts"),
        ("$3.5 million", "35 million"),
        ("O'Neill's", "oneills"),
        ("“Café”", "“café”"),
        ("ÉCOLE\u00a0Normale", "école normale"),
        ("Straße", "straße"),
        ("theatre", "theatre"),
        ("the\tend\n of", "end of"),
        ("x_ptr", "xptr"),
        ("5 %", "5"),
    ],
)
def test_normalised_answers_by_hand(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    "predicted, gold, match, f1",
    [
        ("", "", 1, 0),
        ("", "the", 1, 0),
        ("!", "?", 1, 0),
        ("", "1989", 0, 0),
        ("1500", "1,500", 1, 1),
        ("5", "5 %", 1, 1),
        ("5.0", "5", 0, 0),
        ("cafe", "café", 0, 0),
        ("CAFÉ", "the café", 1, 1),
        ("new york city", "york", 0, 1 / 2),
        ("york york city", "new york york", 0, 2 / 3),
        ("about half of the memory", "about half", 0, 2 * (2 / 4) * 1 / (2 / 4 + 1)),
    ],
)
def test_scores_of_one_answer_by_hand(predicted: str, gold: str, match: float, f1: float) -> None:
    assert exact_match(predicted, gold) == match
    assert token_f1(predicted, gold) == pytest.approx(f1)


def test_the_best_gold_answer_counts_for_each_score_by_itself() -> None:
    gold = {"a": ["the", "half of it"], "b": ["five", "5 %", "about 5 %"], "c": ["x y", "y z w"]}
    predicted = {"a": "an", "b": "around 5", "c": "y z"}
    # a: nothing is left of "an" nor of "the", a match without a word; b: 1 of 2 and 1 of 1; c: 2 of 2 and 2 of 3
    assert score_answers(predicted, gold) == pytest.approx({"exact_match": 1 / 3, "f1": (0 + 2 / 3 + 4 / 5) / 3})


# Windows


def asked(context: str, *answers: Answer, question: str = "of the ?") -> Questions:
    return Questions("made", ["q"], [question], [context], [list(answers)])


def held_by(encoded: EncodedQuestions) -> list[bool]:
    return [start > 0 for start in encoded.columns["start_positions"]]


def test_an_answer_that_the_third_window_alone_holds(tokenizer: Any) -> None:
    context = "the bank said gold and zinc to a market in wheat today"
    rows = asked(context, Answer("wheat today", context.index("wheat")))
    encoded = encode_questions(rows, tokenizer, max_length=12, stride=2)
    assert held_by(encoded) == [False, False, True]
    starts, ends = gold_logits(encoded, 12)
    starts[:2, 5], ends[:2, 7] = 4, 4  # the others are a little less sure of a wrong one
    assert predict_answers(encoded, starts, ends) == {"q": "wheat today"}
    assert predict_answers(encoded, starts[::-1], ends[::-1]) != {"q": "wheat today"}


def test_a_better_window_wins_whether_it_comes_first_or_last(tokenizer: Any) -> None:
    context = "the bank said gold and zinc to a market in wheat today"
    encoded = encode_questions(asked(context, Answer("gold", 14)), tokenizer, max_length=12, stride=2)
    for best, text in enumerate(("the", "and", "market")):
        starts, ends = np.zeros((2, 3, 12))
        starts[:, 5], ends[:, 5] = 1, 1
        starts[best, 5] = 2
        assert predict_answers(encoded, starts, ends) == {"q": text}


def test_an_answer_that_every_window_cuts_is_found_in_part(tokenizer: Any) -> None:
    context = "the bank said gold and zinc to a market in wheat today"
    answer = "gold and zinc to a market in wheat"
    encoded = encode_questions(asked(context, Answer(answer, 14)), tokenizer, max_length=12, stride=2)
    assert held_by(encoded) == [False] * 3
    starts, ends = np.zeros((2, 3, 12))
    starts[1, 5], ends[1, 10] = 5, 5
    predicted = predict_answers(encoded, starts, ends)["q"]
    assert predicted == "and zinc to a market in"
    # 5 of 5 and 5 of 7 words: the article is none
    assert token_f1(predicted, answer) == pytest.approx(2 * 5 / (5 + 7)) and not exact_match(predicted, answer)


def test_an_answer_over_thirty_tokens_is_learnt_whole_and_found_in_part(tokenizer: Any) -> None:
    words = [f"w{i}" for i in range(60)]
    answer = " ".join(words[10:45])
    context = " ".join(words)
    encoded = encode_questions(asked(context, Answer(answer, context.index(answer))), tokenizer, 80, stride=8)
    assert encoded.columns["end_positions"][0] - encoded.columns["start_positions"][0] + 1 == 35 > MAX_ANSWER_TOKENS
    starts, ends = np.zeros((2, 1, 80))
    first, last = encoded.columns["start_positions"][0], encoded.columns["end_positions"][0]
    starts[0, first], ends[0, last] = 5, 5
    ends[0, last - 6] = 1
    predicted = predict_answers(encoded, starts, ends)["q"]
    assert predicted == " ".join(words[10:39])  # the best of those that are short enough
    # 29 of 29 and 29 of 35 words
    assert token_f1(predicted, answer) == pytest.approx(2 * 29 / (29 + 35)) and not exact_match(predicted, answer)


@pytest.mark.parametrize("text", [" gold and zinc", "gold and zinc ", "  gold and zinc  "])
def test_white_space_around_an_answer_is_not_looked_for(tokenizer: Any, text: str) -> None:
    context = "  the bank said  gold and zinc  to a market  "
    encoded = encode_questions(asked(context, Answer(text, context.index(text))), tokenizer, 16, stride=2)
    assert predict_answers(encoded, *gold_logits(encoded, 16)) == {"q": "gold and zinc"}


def test_an_answer_at_either_end_of_its_context(tokenizer: Any) -> None:
    context = " the bank said gold and zinc to a market in wheat today "
    for text in (" the bank", "wheat today ", "the", "today"):
        encoded = encode_questions(asked(context, Answer(text, context.index(text))), tokenizer, 12, stride=2)
        assert predict_answers(encoded, *gold_logits(encoded, 12)) == {"q": text.strip()}


def test_logits_that_are_no_numbers_give_no_answer(tokenizer: Any) -> None:
    encoded = encode_questions(asked("the bank", Answer("bank", 4)), tokenizer, 12, stride=2)
    assert predict_answers(encoded, *np.full((2, 1, 12), np.nan)) == {"q": ""}


# The hub's reader, on a local copy


def entry(name: str = "q1", texts: Any = ("cat",), starts: Any = (4,), **changes: Any) -> dict[str, Any]:
    answers = {"text": list(texts), "answer_start": list(starts)}
    return {"id": name, "title": "t", "context": "The cat sat.", "question": "Who?", "answers": answers} | changes


def copy(folder: Path, **splits: list[dict[str, Any]]) -> str:
    """A folder of parquet files as a hub's data set has them."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "squad"


def test_the_hubs_questions_are_those_of_the_files(hub: Path) -> None:
    several = entry("q2", ("cat", "The cat"), (4, 0))
    name = copy(hub, train=[entry(), several], validation=[entry("q3")])
    train, dev = read_hub_questions(name)
    assert train.ids == ["q1", "q2"] and dev.ids == ["q3"]
    assert train.answers == [[Answer("cat", 4)], [Answer("cat", 4), Answer("The cat", 0)]]
    assert train.contexts == ["The cat sat."] * 2 and train.questions == ["Who?"] * 2
    assert read_hub_questions(name, ("validation",)) == [dev]


BAD_ROWS = {
    "twice": ([entry(), entry()], "train: the question id 'q1' occurs twice"),
    "not-there": ([entry(starts=[5])], "row 0: the answer 'cat' of question 'q1' is not at 5 in its context: it is at"),
    "unanswerable": ([entry(), entry("q2", (), ())], "row 1: question 'q2' has no answer: expected SQuAD v1.1"),
    "empty-answer": ([entry(texts=[" "], starts=[3])], "row 0: question 'q1' has an empty answer"),
    "lengths": ([entry(starts=[4, 4])], "row 0: 'answers' must hold as many texts"),
    "no-texts": ([entry(answers="cat")], "row 0: 'answers' must hold as many texts"),
    "no-context": ([entry(), entry("q2", context=None)], "row 1: 'context' must be of type str, got NoneType"),
    "no-field": (
        [{key: value for key, value in entry().items() if key != "answers"}],
        "train has no field 'answers': its fields are id, title, context, question",
    ),
    "ids": ([entry(3)], "row 0: 'id' must be of type str, got int"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("rows, message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_of_the_hub_are_named(hub: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_hub_questions(copy(hub, train=rows), ("train",))


def test_a_missing_split_is_named(hub: Path) -> None:
    with pytest.raises(UserError, match="squad has no split 'validation': its splits are train"):
        read_hub_questions(copy(hub, train=[entry()]))


def test_a_name_that_cannot_be_loaded_is_one_line(hub: Path) -> None:
    with pytest.raises(UserError, match=r"datasets cannot load '.*none': ") as caught:
        read_hub_questions(str(hub / "none"))
    assert "\n" not in str(caught.value)


def test_without_datasets_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the package datasets: pip install datasets"):
        read_hub_questions("rajpurkar/squad")


def test_an_unanswerable_question_of_version_two_is_refused() -> None:
    plausible = [{"text": "cat", "answer_start": 4}]
    impossible = {"id": "q", "question": "?", "answers": [], "is_impossible": True, "plausible_answers": plausible}
    with pytest.raises(
        UserError, match=r"question 'q' has no answer: expected SQuAD v1\.1, where each has one or more"
    ):
        check_questions("v2", [("row", "The cat", impossible)])


# The experiment


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for texts as long as the quick form's."""
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=squad.QUICK.max_length,
        initializer_range=0.2,  # large enough to learn in a few steps
    )
    folder = write_model(tmp_path_factory.mktemp("reader") / "model", config, auto="QuestionAnswering")
    tokenizer = folder / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "model_max_length": squad.QUICK.max_length}))
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")


def squad_folder(folder: Path) -> Path:
    """SQuAD's two files, of 45 and of 12 contexts."""
    folder.mkdir()
    article = json.loads(write_squad(folder / "dev-v1.1.json", contexts=57).read_text())["data"][0]
    for name, part in (("train", slice(45)), ("dev", slice(45, None))):
        content = {"version": "1.1", "data": [{**article, "paragraphs": article["paragraphs"][part]}]}
        (folder / f"{name}-v1.1.json").write_text(json.dumps(content))
    return folder


def lines_of(text: str) -> dict[str, list[str]]:
    """A Markdown table's cells by the first of each line."""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.usefixtures("own_cache")
def test_the_quick_form_runs_offline_and_its_table_adds_up(reader: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["experiment", "squad", "--quick", "--model", str(reader), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    result = read_result(tmp_path / "out/squad/results.json")
    rows = result.rows
    assert [(row["method"], row["bottleneck"] or row["top"], row["seed"]) for row in rows] == [
        *(("adapters", m, seed) for m in (2, 8) for seed in (0, 1)),
        *((method, top, seed) for method, top in (("top", 1), ("full", None)) for seed in (0, 1)),
    ]
    hidden, layers, head = 32, 2, 2 * (32 + 1)
    norms = (2 * layers + 1) * 2 * hidden
    for row in rows:
        m = row["bottleneck"]
        if row["method"] == "adapters":
            assert row["adapter_parameters"] == 2 * layers * (2 * m * hidden + hidden + m)
            assert row["trained"] == row["adapter_parameters"] + norms + head
        assert row["method"] != "full" or row["trained"] == row["base_parameters"] + head
        assert row["head_parameters"] == head and row["labels"] == 0
        assert 0 < row["sizes"]["train"] <= 16 and 0 < row["sizes"]["validation"] <= 12
        assert set(row["scores"]) == {"validation"} and row["choose_by"] == row["scores"]["validation"]["f1"]
        assert row["base_unchanged"] and not row["diverged"]
    written = (tmp_path / "out/squad/table.md").read_text()
    lines = lines_of(written)
    assert list(lines)[2:] == ["adapters, m = 2", "adapters, m = 8", "top layers, k = 1", "full fine-tuning"]
    small = rows[0]
    assert lines["adapters, m = 2"][0].startswith(f"{small['trained']:,} (")
    assert f"({100 * small['trained'] / small['base_parameters']:.2f} %)" in lines["adapters, m = 2"][0]
    for place, metric in ((1, "exact_match"), (2, "f1")):
        values = [100 * row["scores"]["validation"][metric] for row in rows[:2]]
        expected = f"{statistics.fmean(values):.1f} ± {abs(values[0] - values[1]) / 2:.1f}"  # s / √2 of two values
        assert lines["adapters, m = 2"][place] == expected
    assert "Data: docs_questions" in written and "to be compared with that model and those data alone" in written
    for kind in ("png", "svg"):
        assert (tmp_path / f"out/squad/squad.{kind}").stat().st_size > 1000


@pytest.mark.usefixtures("own_cache")
def test_adapters_learn_from_a_folder_of_squads_files(reader: Path, tmp_path: Path) -> None:
    options = replace(
        squad.QUICK,
        model=str(reader),
        data=(str(squad_folder(tmp_path / "tiny")),),
        seeds=1,
        rates={"adapters": (3e-2,), "full": (1e-2,)},
        epochs=(15,),
        bottlenecks=(8,),
        tops=(),
        max_length=20,
        batch_size=32,
        stride=4,
        train_size=None,
        validation_size=None,
        precision="fp32",
    )
    result = drive.run_experiment("squad", find_experiment("squad"), options, Store(tmp_path / "out"), Silence())
    adapters, full = squad.points(result.rows)
    assert (adapters["method"], adapters["task"], full["method"]) == ("adapters", "tiny", "full")
    assert adapters["sizes"] == {"train": 90, "validation": 24}
    assert adapters.mean("validation", "exact_match") > 0.25


def made_row(method: str, size: int | None, f1: float, seed: int, **changes: Any) -> dict[str, Any]:
    spec = Spec("m", "b", "t", "d", method, 32, 384, "fp32", lr=1e-4, epochs=3, seed=seed)
    size_of = {"adapters": "bottleneck", "top": "top"}
    own = {**as_row(spec), **({size_of[method]: size} if size else {})}
    row = {
        "metric": "f1",
        "scores": {"validation": {"f1": f1, "exact_match": f1 - 0.1}},
        "choose_by": f1,
        "diverged": False,
        "sizes": {"train": 7, "validation": 1234},
        "trained": 20_000 * (size or 50),
        "base_parameters": 1_000_000,
        "device": "CPU",
        "versions": {"torch": "0"},
    }
    return {**own, **row, **changes}


def test_the_papers_figures_stand_beside_their_own_sizes() -> None:
    f1 = {2: (0.5, 0.6, 0.7), 8: (0.1,) * 3, 64: (0.8,) * 3}
    rows = [made_row("full", None, 0.9, seed, epochs=2) for seed in range(3)]
    rows += [made_row("top", 1, 0.25, seed, epochs=5) for seed in range(3)]
    rows += [made_row("adapters", m, value, seed) for m in (64, 8, 2) for seed, value in enumerate(f1[m])]
    written = squad.table(Result("squad", squad.PAPER, rows))
    lines = lines_of(written)
    # standard error: standard deviation 0.1, three seeds
    assert lines["adapters, m = 2"] == ["40,000 (4.00 %)", "50.0 ± 5.8", "60.0 ± 5.8", "0.0001, 3", "89.9"]
    assert "90" not in "".join(lines["adapters, m = 8"])
    assert lines["adapters, m = 64"][-1] == "90.4"
    assert lines["full fine-tuning"] == ["1,000,000 (100.0 %)", "80.0 ± 0.0", "90.0 ± 0.0", "0.0001, 2", "90.7"]
    assert list(lines)[2:] == [*(f"adapters, m = {m}" for m in (2, 8, 64)), "top layers, k = 1", "full fine-tuning"]
    assert "Epochs of fine-tuning: 2, 5." in written and "1,234 questions" in written


@pytest.mark.usefixtures("own_cache")
def test_the_papers_sweep(reader: Path, tmp_path: Path) -> None:
    options = replace(squad.PAPER, model=str(reader))
    tasks = squad.read_tasks(options)
    lab = Lab(options.model, tasks, Store(tmp_path / "out"))
    tried: dict[tuple, set] = {}
    for spec in squad.plan(lab, tasks, options, {}):
        assert spec.seed in range(3) and spec.batch_size == 32
        tried.setdefault((spec.method, spec.bottleneck or spec.top), set()).add((spec.lr, spec.epochs, spec.seed))
    assert list(tried) == [*(("adapters", m) for m in (2, 8, 64, 256)), ("top", 1), ("top", 2), ("full", None)]
    theirs = {
        "adapters": ((3e-5, 1e-4, 3e-4, 1e-3), (3, 10, 20)),
        "top": ((3e-5, 5e-5, 1e-4), (2, 3, 5)),
        "full": ((3e-5, 5e-5, 1e-4), (2, 3, 5)),
    }
    for (method, _), choices in tried.items():
        assert choices == set(product(*theirs[method], range(3)))
    other = squad.plan(lab, tasks, replace(options, epochs=(4,)), {})
    assert {spec.epochs for spec in other} == {4}


def test_data_in_each_of_its_forms(tmp_path: Path) -> None:
    folder = squad_folder(tmp_path / "tiny")
    files = (str(folder / "train-v1.1.json"), str(folder / "dev-v1.1.json"))
    for data, name in (((str(folder),), "tiny"), (files, "train-v1.1")):
        (task,) = squad.read_tasks(Options(data=data))
        assert (task.name, task.metric, task.label_names) == (name, "f1", [])
        assert task.parts == {"train": read_questions(files[0]), "validation": read_questions(files[1])}
    (task,) = squad.read_tasks(Options())
    assert task.name == "docs_questions" and len(task.parts["train"]) > 80


def test_one_file_is_cut_by_article_in_three_ways(tmp_path: Path) -> None:
    def article(number: int, questions: int) -> dict[str, Any]:
        answers = [{"text": "cat", "answer_start": 4}]
        entries = [{"id": f"q{number}-{i}", "question": "Who?", "answers": answers} for i in range(questions)]
        return {"title": f"t{number}", "paragraphs": [{"context": "The cat sat.", "qas": entries}]}

    articles = [article(number, number % 3) for number in range(13)]  # five of them have no question
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    tasks = squad.read_tasks(Options(data=(str(path),)))
    assert [task.name for task in tasks] == ["one, split 1", "one, split 2", "one, split 3"]
    cuts = []
    for task in tasks:
        train, dev = ({name.partition("-")[0] for name in task.parts[part].ids} for part in ("train", "validation"))
        assert not train & dev and len(train) == 6 and len(dev) == 2
        assert sum(len(rows) for rows in task.parts.values()) == len(read_questions(path)) == 12
        cuts.append(frozenset(dev))
    assert len(set(cuts)) == 3
    again = squad.read_tasks(Options(data=(str(path),)))
    assert [task.parts for task in again] == [task.parts for task in tasks]


def test_splits_are_one_line_of_the_table_and_their_spread_is_over_all_runs() -> None:
    rows = [
        {**made_row("full", None, value, seed, epochs=2), "task": f"one, split {split}"}
        for split, values in ((1, (0.5, 0.7)), (2, (0.6, 0.8)))
        for seed, value in enumerate(values)
    ]
    written = squad.table(Result("squad", squad.PAPER, rows))
    # standard deviation of .5 .6 .7 .8 over 2
    assert lines_of(written)["full fine-tuning"][2] == "65.0 ± 6.5"
    assert "Data: one, split 1; one, split 2, scored on 1,234, 1,234 questions" in written
    assert "mean ± standard error over splits and seeds" in written
    assert squad.finding(Result("squad", squad.PAPER, rows)).startswith("F1 on one: full fine-tuning 65.0")


def test_data_from_a_copy_of_the_hubs(hub: Path) -> None:
    (task,) = squad.read_tasks(Options(data=(copy(hub, train=[entry()], validation=[entry("q2")]),)))
    assert task.name == "squad" and task.parts["train"].ids == ["q1"] and task.parts["validation"].ids == ["q2"]


def test_parts_of_a_size_keep_contexts_whole(docs: dict[str, Questions]) -> None:
    (task,) = squad.read_tasks(Options(train_size=30, validation_size=0.5))
    train, dev = task.parts["train"], task.parts["validation"]
    assert 20 <= len(train) <= 30 and len(docs["dev"]) / 4 < len(dev) <= len(docs["dev"]) / 2
    rest = [context for name, context in zip(docs["train"].ids, docs["train"].contexts) if name not in train.ids]
    assert not set(rest) & set(train.contexts)


BAD_DATA = {
    "three": (("a", "b", "c"), {}, "--data was given 3 times: expected a folder, two files, or a name"),
    "one-file": (
        ("tiny/dev-v1.1.json",),
        {},
        "dev-v1.1.json has 1 articles: expected 4 or more to cut, or a second file",
    ),
    "no-dev": (("half",), {}, "half/dev-v1.1.json: no such file"),
    "no-folder": (("/none/such",), {}, "--data /none/such: no such file or folder, nor the name of a data set"),
    "no-single-file": (("none.json",), {}, "--data none.json: no such file or folder"),
    "no-file": (("tiny/none.json", "tiny/dev-v1.1.json"), {}, "none.json: no such file"),
    "same": (
        ("tiny/dev-v1.1.json",) * 2,
        {},
        "tiny/dev-v1.1.json: the question '45-bond' is in tiny/dev-v1.1.json too",
    ),
    "test-size": (("tiny",), {"test_size": 3}, "--test-size: SQuAD's test part is not public"),
    "too-many": (("tiny",), {"train_size": 91}, "a part of size 91 was asked for, it has 90 questions"),
    "too-few": (("tiny",), {"validation_size": 0.001}, "a part of size 0.001 was asked for, it has 24 questions"),
}


@pytest.mark.parametrize("data, changes, message", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_named(
    data: tuple[str, ...], changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squad_folder(tmp_path / "tiny")
    (tmp_path / "half").mkdir()
    write_squad(tmp_path / "half/train-v1.1.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        squad.read_tasks(Options(data=data, **changes))


@pytest.mark.usefixtures("own_cache")
def test_windows_come_back_from_the_cache_as_they_were(docs: dict[str, Questions], tokenizer: Any) -> None:
    class Once(type(load_kind("question-answering"))):  # type: ignore[misc]
        encoded = 0

        def encode(self, *arguments: Any) -> EncodedQuestions:
            Once.encoded += 1
            return super().encode(*arguments)

    settings = Settings("m", "t", kind="question-answering", max_length=64, stride=16)
    first, second = (cache.encoded(Once(), docs["dev"], tokenizer, [], settings) for _ in range(2))
    assert Once.encoded == 1 and len(first) > len(docs["dev"])
    assert second.columns == first.columns and second.windows == first.windows
    assert second.rows is docs["dev"] and isinstance(second, EncodedQuestions)
