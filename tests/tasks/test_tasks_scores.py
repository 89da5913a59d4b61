"""Metrics of the kinds of task, and what carries predictions back to words and characters, on cases made by hand."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import WORDS, write_decoder, write_model, write_squad, write_tags

from adapter_fast.common.errors import UserError
from adapter_fast.tasks.data.documents import Documents
from adapter_fast.tasks.data.questions import Answer, Questions, read_questions
from adapter_fast.tasks.data.sentences import Sentences, read_sentences
from adapter_fast.tasks.data.windows import encode_questions, predict_answers
from adapter_fast.tasks.kinds.find import load_kind
from adapter_fast.tasks.kinds.language import BatchMasking, CausalLanguageModelling, MaskedLanguageModelling
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.kinds.tokens import CUT, first_tokens
from adapter_fast.tasks.metrics.answer_scores import exact_match, normalize_answer, score_answers, token_f1
from adapter_fast.tasks.metrics.answer_spans import best_spans
from adapter_fast.tasks.metrics.entities import OUTSIDE, entities, has_entities, score_entities


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A WordPiece one with special tokens, and a byte-level one without, which counts spaces to the next word."""
    folder = tmp_path_factory.mktemp("tokenizers")
    kind = load_kind("text-classification")
    wordpiece, bytelevel = write_model(folder / "bert"), write_decoder(folder / "gpt2")
    return {"wordpiece": kind.load_processor(str(wordpiece)), "bytelevel": kind.load_processor(str(bytelevel))}


both = pytest.mark.parametrize("name", ["wordpiece", "bytelevel"])


# Entities


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("O O", set()),
        ("B-A I-A O B-B", {("A", 0, 2), ("B", 3, 4)}),
        ("B-A B-A I-A", {("A", 0, 1), ("A", 1, 3)}),
        ("I-A I-A O I-B", {("A", 0, 2), ("B", 3, 4)}),
        ("B-A I-B I-B", {("A", 0, 1), ("B", 1, 3)}),
        ("O B-A-B I-A-B", {("A-B", 1, 3)}),
    ],
)
def test_entities_of_a_sentence(tags: str, expected: set) -> None:
    assert entities(tags.split()) == expected


def test_an_entity_counts_where_type_and_both_ends_are_right() -> None:
    gold = [["B-A", "I-A", "O", "B-B"], ["O", "B-A"], ["B-B", "O"]]
    predicted = [["B-A", "O", "O", "B-B"], ["O", "B-B"], ["B-B", "B-A"]]
    # right: B of the first and of the third; 4 in gold; 5 predicted
    assert score_entities(gold, predicted) == pytest.approx({"precision": 2 / 5, "recall": 2 / 4, "f1": 4 / 9})
    assert score_entities(gold, [["O"] * len(tags) for tags in gold]) == {"precision": 0, "recall": 0, "f1": 0}


SCHEMES = {  # the letters of a first, an inner, a last and an only word
    "IOB2": "BIIB",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
}


def tags_of(spans: list[tuple[str, int, int]], length: int, letters: str) -> list[str]:
    """The tags of spans in a scheme; letters alone where a type is ""."""
    tags = [OUTSIDE] * length
    first, inner, last, only = letters
    for kind, begin, end in spans:
        own = only if end - begin == 1 else first + inner * (end - begin - 2) + last
        tags[begin:end] = [f"{letter}-{kind}" if kind else letter for letter in own]
    return tags


@pytest.mark.parametrize("kinds", [("A",), ("A", "B-C"), ("",)], ids=["one", "two", "bare"])
@pytest.mark.parametrize("letters", SCHEMES.values(), ids=SCHEMES)
def test_entities_are_the_spans_that_a_scheme_was_made_of(letters: str, kinds: tuple[str, ...]) -> None:
    chance = random.Random(0)
    for _ in range(200):
        spans, at = [], chance.randint(0, 2)
        while at < 12:
            end = at + chance.randint(1, 4)
            spans.append((chance.choice(kinds), at, end))
            at = end + chance.choice((0, 0, 1, 3))  # most stand side by side
        tags = tags_of(spans, 18, letters)
        assert entities(tags) == set(spans), tags
        assert has_entities([*tags, letters[0] + (f"-{kinds[0]}" if kinds[0] else "")])


def test_a_scheme_out_of_order_is_read_as_seqeval_does() -> None:
    assert entities(["E-A", "E-A", "I-A"]) == {("A", 0, 1), ("A", 1, 2), ("A", 2, 3)}
    assert entities(["S-A", "I-A", "E-A", "O", "L-B"]) == {("A", 0, 1), ("A", 1, 3), ("B", 4, 5)}
    assert entities(["B-A", "E-B"]) == {("A", 0, 1), ("B", 1, 2)}


def test_tags_that_mark_no_entities() -> None:
    none = (
        ["O"],
        ["O", "NOUN"],
        ["O", "B-"],
        ["O", "B-A", "X"],
        ["O", "I"],
        ["N", "V", "O", "S", "E", "L"],
        ["0", "1"],
    )
    assert not any(map(has_entities, none))


# Answers


@pytest.mark.parametrize(
    "text, normal",
    [("The  Cat!", "cat"), ("an apple, a day", "apple day"), ("U.S.", "us"), ("well-known", "wellknown"), ("The", "")],
)
def test_answers_are_normalised_as_squad_does(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    "predicted, gold, match, f1",
    [
        ("the cat", "Cat.", 1, 1),
        ("a cat sat", "cat sat down", 0, 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("dog dog", "dog", 0, 2 / 3),
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("the", "a", 1, 0),  # nothing is left of either: v1.1's script calls that a match without a common word
        ("another theatre", "other theatre", 0, 1 / 2),  # articles are whole words
    ],
)
def test_exact_match_and_f1_of_one_answer(predicted: str, gold: str, match: float, f1: float) -> None:
    assert exact_match(predicted, gold) == match
    assert token_f1(predicted, gold) == pytest.approx(f1)


def test_the_best_of_several_gold_answers_counts() -> None:
    gold = {"1": ["in 1989", "1989", "June 1989"], "2": ["cat sat down"], "3": ["x"], "4": ["never answered"]}
    predicted = {"1": "1989", "2": "the cat sat", "3": ""}
    assert score_answers(predicted, gold) == pytest.approx({"exact_match": 1 / 4, "f1": (1 + 0.8) / 4})


# Spans


def test_spans_run_forward_and_are_not_too_long() -> None:
    start, end = np.array([0.0, 5.0, 1.0, 0.0]), np.array([9.0, 0.0, 0.0, 4.0])
    assert best_spans(start, end, n_best=2) == [(9, 0, 0), (9, 1, 3)]
    assert best_spans(start, end, max_tokens=2)[:3] == [(9, 0, 0), (5, 1, 1), (5, 1, 2)]
    assert best_spans(start[:0], end[:0]) == []


def test_spans_are_those_of_a_search_over_all() -> None:
    chance = np.random.default_rng(0)
    for length, most in itertools.product((1, 2, 7, 40), (1, 5, 30)):
        start, end = chance.normal(size=(2, length))
        pairs = [(i, j) for i in range(length) for j in range(i, min(i + most, length))]
        expected = sorted((start[i] + end[j] for i, j in pairs), reverse=True)[:20]
        found = best_spans(start, end, max_tokens=most)
        np.testing.assert_allclose([span.score for span in found], expected)
        assert all((span.start, span.end) in pairs for span in found)


# Windows


def made(context: str, *answers: str, question: str = "of the ?") -> Questions:
    """One question a given answer."""
    spans = [[Answer(answer, context.index(answer))] for answer in answers]
    return Questions(
        "made", [f"q{i}" for i in range(len(spans))], [question] * len(spans), [context] * len(spans), spans
    )


def test_windows_of_a_hand_made_context(tokenizers: dict[str, Any]) -> None:
    context = "the bank said gold and zinc to a market in wheat today"
    rows = made(context, "gold and zinc", "wheat today")
    encoded = encode_questions(rows, tokenizers["wordpiece"], max_length=12, stride=2)
    texts = [[WORDS[i] for i in ids] for ids in encoded.columns["input_ids"]]
    head = ["[CLS]", "of", "the", "[UNK]", "[SEP]"]
    words = context.split()
    assert texts == [[*head, *words[i : i + 6], "[SEP]"] for i in (0, 4, 8)] * 2
    assert [window.row for window in encoded.windows] == [0, 0, 0, 1, 1, 1]
    ends = list(zip(encoded.columns["start_positions"], encoded.columns["end_positions"]))
    # "gold and zinc" is cut by the second window, "wheat today" is in the last alone
    assert ends == [(5 + 3, 5 + 5), (0, 0), (0, 0), (0, 0), (0, 0), (5 + 2, 5 + 3)]


@both
def test_the_gold_positions_give_the_gold_answers(tokenizers: dict[str, Any], name: str, tmp_path: Path) -> None:
    rows = read_questions(write_squad(tmp_path / "q.json", contexts=10))
    length = {"wordpiece": 14, "bytelevel": 32}[name]
    encoded = encode_questions(rows, tokenizers[name], length, stride=7)
    assert len(encoded) > 2 * len(rows)
    starts, ends = np.zeros((2, len(encoded), length))
    for i, window in enumerate(encoded.windows):
        start, end = encoded.columns["start_positions"][i], encoded.columns["end_positions"][i]
        starts[i, start], ends[i, end] = 5, 5
        starts[i, window.first - 1 if start else 0] = 99  # the question's tokens are never an answer
    predicted = predict_answers(encoded, starts, ends)
    gold = {name: [answer.text for answer in answers] for name, answers in zip(rows.ids, rows.answers)}
    assert score_answers(predicted, gold) == {"exact_match": 1, "f1": 1}


def test_an_answer_over_the_edge_of_every_window_is_learnt_from_nowhere(tokenizers: dict[str, Any]) -> None:
    rows = made("the bank said gold and zinc to a market in wheat today", "said gold and zinc to a market in wheat")
    encoded = encode_questions(rows, tokenizers["wordpiece"], max_length=12, stride=2)
    assert set(encoded.columns["start_positions"]) == set(encoded.columns["end_positions"]) == {0}


def test_a_question_without_room_for_its_context_is_named(tokenizers: dict[str, Any]) -> None:
    rows = made("gold", "gold", question="of the market today")
    encode_questions(rows, tokenizers["wordpiece"], max_length=12, stride=4)
    with pytest.raises(UserError, match=r"question 'q0' has 4 tokens and leaves 5 of max_length 12 .* the stride, 5"):
        encode_questions(rows, tokenizers["wordpiece"], max_length=12, stride=5)


# Words and tokens


def test_a_words_first_token_is_found() -> None:
    words = ["ab", "c", "de"]  # "ab c de"
    assert first_tokens(words, [(0, 0), (0, 1), (1, 2), (3, 4), (5, 7), (0, 0)]) == [1, 3, 4]
    assert first_tokens(words, [(0, 2), (2, 4), (4, 6), (6, 7)]) == [0, 1, 2]  # spaces with the next word
    assert first_tokens(words, [(0, 2), (2, 3), (3, 4), (4, 5), (5, 7)]) == [0, 2, 4]  # spaces on their own
    assert first_tokens(words, [(0, 2), (5, 5), (5, 7)]) == [0, CUT, 2]  # a word that normalising took away
    assert first_tokens(words, [(0, 0), (0, 2), (0, 0)]) == [1, CUT, CUT]


@both
def test_each_tag_is_on_its_words_first_token(tokenizers: dict[str, Any], name: str, tmp_path: Path) -> None:
    tokenizer, kind = tokenizers[name], load_kind("token-classification")
    rows = read_sentences(write_tags(tmp_path / "t.jsonl", 20))
    names = sorted(set(kind.labels(rows) or []))
    encoded = kind.encode(rows, tokenizer, names, Settings("m", "t"))
    for i, words in enumerate(rows.tokens):
        labelled = [(at, names[label]) for at, label in enumerate(encoded.columns["labels"][i]) if label != -100]
        assert [tag for _, tag in labelled] == rows.tags[i]
        ids = encoded.columns["input_ids"][i]
        ends = [at for at, _ in labelled[1:]] + [len(ids)]
        pieces = [tokenizer.decode(ids[at:end], skip_special_tokens=True) for (at, _), end in zip(labelled, ends)]
        assert [piece.strip() for piece in pieces] == words


def tagged(names: list[str], encoded: Any, *tags: str) -> np.ndarray:
    """Logits that say these tags, sentence by sentence, where its words have tokens."""
    logits = np.zeros((len(encoded), max(map(len, encoded.columns["input_ids"])), len(names)))
    for i, sentence in enumerate(tags):
        for place, tag in zip(encoded.places[i], sentence.split()):
            if place != CUT:
                logits[i, place, names.index(tag)] = 1
    return logits


def test_words_that_were_cut_off_count_as_missed(tokenizers: dict[str, Any]) -> None:
    kind, names = load_kind("token-classification"), ["B-A", "I-A", "O"]
    tags = ["B-A I-A O O O B-A", "O B-A"]
    words = ["gold zinc of the said gold", "of gold"]
    rows = Sentences("made", [text.split() for text in words], [text.split() for text in tags])
    whole = kind.encode(rows, tokenizers["wordpiece"], names, Settings("m", "t"))
    assert kind.score(tagged(names, whole, *tags), whole) == {"f1": 1, "precision": 1, "recall": 1, "accuracy": 1}
    cut = kind.encode(rows, tokenizers["wordpiece"], names, Settings("m", "t", max_length=6))
    assert cut.columns["labels"] == [[-100, 0, 1, 2, 2, -100], [-100, 2, 0, -100]]
    scores = kind.score(tagged(names, cut, *tags), cut)
    assert scores == pytest.approx({"f1": 4 / 5, "precision": 1, "recall": 2 / 3, "accuracy": 6 / 8})
    assert next(iter(scores)) == "f1"


def test_tags_without_entities_are_scored_word_by_word(tokenizers: dict[str, Any]) -> None:
    kind, names = load_kind("token-classification"), ["NOUN", "VERB", "X"]
    rows = Sentences("made", [["gold", "said", "of", "gold"]], [["NOUN", "VERB", "NOUN", "NOUN"]])
    encoded = kind.encode(rows, tokenizers["wordpiece"], names, Settings("m", "t"))
    scores = kind.score(tagged(names, encoded, "NOUN VERB VERB NOUN"), encoded)
    assert scores == pytest.approx({"accuracy": 3 / 4, "macro_f1": (0.8 + 2 / 3) / 2})


# Language


def test_perplexity_weighs_every_token_alike() -> None:
    kind = CausalLanguageModelling()
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, 3], [4, 0, -100, -100]])
    kept = kind.reduce((logits, "cache"), labels)
    chances = torch.log_softmax(logits, -1)
    told = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 0)]  # block, place, the token behind it
    losses = [-chances[told_at].item() for told_at in told]
    np.testing.assert_allclose(kept, [[sum(losses[:3]), 3], [losses[3], 1]], rtol=1e-6)
    scores = kind.score(kept.numpy(), SimpleNamespace())  # type: ignore[arg-type]
    assert scores == pytest.approx({"perplexity": math.exp(sum(losses) / 4), "loss": sum(losses) / 4})
    masked = MaskedLanguageModelling().reduce(logits, labels)
    expected = -sum(chances[0, i, i].item() for i in range(4))
    np.testing.assert_allclose(masked[0], [expected, 4], rtol=1e-6)


def documents(*texts: str, one_text: bool = False) -> Documents:
    return Documents("made", list(texts), one_text=one_text)


def test_blocks_of_a_text_lose_nothing_and_documents_end(tokenizers: dict[str, Any]) -> None:
    tokenizer, kind = tokenizers["bytelevel"], CausalLanguageModelling()
    lines = ["the gold\n", "zinc, and\n", "a bank\n"]
    running = kind.encode(documents(*lines, one_text=True), tokenizer, [], Settings("m", "t", max_length=10))
    ids = running.columns["input_ids"]
    assert tokenizer.decode([i for block in ids for i in block]) == "".join(lines)
    assert {len(block) for block in ids[:-1]} == {10}
    assert running.columns["labels"] == ids
    apart = kind.encode(documents("a gold", "zinc"), tokenizer, [], Settings("m", "t", max_length=10))
    assert [tokenizer.decode(block) for block in apart.columns["input_ids"]] == ["a gold<|end|>", "zinc<|end|>"]
    batch = kind.collator(tokenizer, Settings("m", "t"))([apart[0], apart[1]])
    assert tokenizer.pad_token == tokenizer.eos_token
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == 2  # eos pads, and yet is learnt where it ends a text
    assert (batch["labels"] == -100).sum() == len(ids[0]) - 10 + len(apart[0]["labels"]) - len(apart[1]["labels"])


def test_blocks_that_say_nothing_are_left_out(tokenizers: dict[str, Any]) -> None:
    masked = MaskedLanguageModelling()
    encoded = masked.encode(documents("river", "gold"), tokenizers["wordpiece"], [], Settings("m", "t"))
    assert [[WORDS[i] for i in ids] for ids in encoded.columns["input_ids"]] == [["[CLS]", "gold", "[SEP]"]]
    with pytest.raises(UserError, match="made: its 1 texts hold no block of tokens to learn from"):
        masked.encode(documents("river"), tokenizers["wordpiece"], [], Settings("m", "t"))


def test_masks_depend_on_the_seed_and_the_batch_alone(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["wordpiece"]
    texts = ["gold zinc of the said bank", "wheat corn barley a market today"]
    blocks = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]
    collator = BatchMasking(tokenizer, seed=3)
    first = collator(blocks)
    torch.rand(5)
    again = collator(blocks)
    assert torch.equal(first["input_ids"], again["input_ids"]) and torch.equal(first["labels"], again["labels"])
    others = {
        tuple(BatchMasking(tokenizer, seed=seed)(batch)["labels"].sort(0).values.flatten().tolist())
        for seed, batch in ((3, blocks), (4, blocks), (3, blocks[::-1]), (3, blocks[:1] * 2))
    }
    assert len(others) == 4
    places = {
        tuple((collator([{"input_ids": [2, *ids, 3]}])["labels"] != -100).flatten().tolist())
        for ids in itertools.permutations(range(5, 9))
    }
    assert len(places) > 4  # the order of a batch is new in every epoch, and so are its masks
    for text in WORDS[5:]:  # with one word a batch, 15 % would mostly be no mask at all
        batch = collator([{"input_ids": tokenizer(text)["input_ids"]}])
        assert (batch["labels"] != -100).nonzero().tolist() == [[0, 1]]
