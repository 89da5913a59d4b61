"""Tasks learned one after another: what is forgotten, what is stored, and that steps can be taken up again."""

from __future__ import annotations

import csv
import gc
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_checks import faults
from safetensors.numpy import load_file
from tiny_task import FILLER, TOPICS, write_model

from adapter_fast.common.digest import weights_digest
from adapter_fast.common.errors import UserError
from adapter_fast.experiments import classification, sequential
from adapter_fast.experiments.grid.cells import as_row
from adapter_fast.experiments.grid.engine import run_grid
from adapter_fast.experiments.grid.lab import Lab
from adapter_fast.experiments.grid.options import Options
from adapter_fast.experiments.grid.result import Result
from adapter_fast.experiments.grid.store import Store
from adapter_fast.experiments.grid.task import TEST
from adapter_fast.experiments.grid.train import predict, train
from adapter_fast.experiments.screen import Silence
from adapter_fast.experiments.sequential.accuracy import chain_courses, courses, mean_and_error
from adapter_fast.experiments.sequential.joint import TaskBatches, common_settings
from adapter_fast.experiments.sequential.kept import LAST_WRITTEN, recall_step
from adapter_fast.experiments.sequential.learners import AdapterLearner, Learner
from adapter_fast.experiments.sequential.step import ADAPTERS, SEQUENTIAL, Step

D, M, LAYERS = 32, 8, 2  # of the tiny model and its adapters
ADAPTER = 2 * LAYERS * (2 * M * D + D + M)
LAYER_NORMS = (2 * LAYERS + 1) * 2 * D
POOLER = D * (D + 1)  # of a base that was never trained: each task has its own
TIMES = ("train_seconds", "step_seconds")
LABELS = {"topics": 3, "mixed": 3, "shape": 2}


def write_tasks(folder: Path) -> tuple[str, ...]:
    """The same texts three times: by topic; under permuted labels, which say nothing of the topic; short or long."""
    chance = random.Random(0)
    texts, topics = [], []
    for i in range(120):
        topic = list(TOPICS)[i % len(TOPICS)]
        words = chance.choices(FILLER, k=chance.choice([2, 7])) + chance.choices(TOPICS[topic], k=3)
        chance.shuffle(words)
        texts.append(" ".join(words))
        topics.append(topic)
    labels = {
        "topics": topics,
        "mixed": chance.sample(topics, len(topics)),
        "shape": ["long" if len(text.split()) > 6 else "short" for text in texts],
    }
    for name, own in labels.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *zip(texts, own)])
    return tuple(str(folder / f"{name}.csv") for name in labels)


@pytest.fixture(scope="module", autouse=True)
def plain_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Adapters in plain PyTorch: the interpreter would take minutes. Tokenised data in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        patch.setenv("ADAPTER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        gc.freeze()  # Trainer collects garbage in every run, over all that was imported: half of a run's time
        yield
        gc.unfreeze()


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("tasks")
    return Options(
        model=str(write_model(folder / "model")),
        data=write_tasks(folder),
        seeds=1,
        rates={"adapters": (2e-2,), "full": (3e-3,)},
        epochs=(6,),
        bottlenecks=(M,),
        batch_size=16,
        max_length=16,
    )


def open_lab(options: Options, directory: Path) -> Lab:
    return Lab(options.model, sequential.read_tasks(options), Store(directory))


def do(options: Options, lab: Lab, alive: Any = lambda: True) -> list[dict[str, Any]]:
    tasks = list(lab.tasks.values())
    return run_grid(lambda rows: sequential.plan(lab, tasks, options, rows), lab, Silence(), alive)[0]


@pytest.fixture(scope="module")
def lab(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return open_lab(options, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def rows(options: Options, lab: Lab) -> list[dict[str, Any]]:
    """Of the whole experiment, unbroken."""
    return do(options, lab)


def of(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [row for row in rows if "chain" in row and row["method"] == method]


def step_of(row: dict[str, Any], lab: Lab, options: Options) -> Step:
    """The step of the module's own run."""
    jobs = sequential.plan(lab, list(lab.tasks.values()), options, lab.store.rows())
    return next(job for job in jobs if job.key == row["key"])  # type: ignore[return-value]


def test_adapters_forget_exactly_nothing_and_sequential_fine_tuning_forgets(rows: list[dict[str, Any]]) -> None:
    found = courses(rows)
    assert found["adapters"].tasks == list(LABELS)
    assert (found["adapters"].forgotten() == 0.0).all()
    assert [row["largest_logit_change"] for row in of(rows, ADAPTERS)] == [
        dict.fromkeys(list(LABELS)[:count], 0.0) for count in (1, 2, 3)
    ]
    topics, _ = found["sequential"].forgotten()[0]
    assert topics > 0.1
    changes = of(rows, SEQUENTIAL)[-1]["largest_logit_change"]
    assert changes["topics"] > 0.1 and changes["mixed"] > 0.1 and changes["shape"] == 0.0
    for method in ("adapters", "sequential", "joint", "full"):  # what can be learned was learned: chance is 1/3 and 1/2
        assert found[method].learned()[0, [0, 2]].min() > 0.6, method


def test_the_base_is_the_same_by_hash_under_adapters_alone(rows: list[dict[str, Any]], lab: Lab) -> None:
    for row in of(rows, ADAPTERS):
        assert row["base_unchanged"] and row["base_before"] == row["base_after"]
    for row in of(rows, SEQUENTIAL) + of(rows, "joint"):
        assert not row["base_unchanged"] and row["base_before"] != row["base_after"]
    assert len({row["base_before"] for row in rows if "chain" in row}) == 1
    assert len({row["base_after"] for row in of(rows, SEQUENTIAL)}) == 3
    task = lab.tasks["topics"]
    assert lab.pool.digest(task.kind) == lab.base(task)


def test_what_is_stored_is_the_base_and_each_tasks_own(rows: list[dict[str, Any]], options: Options) -> None:
    heads = {task: (D + 1) * labels for task, labels in LABELS.items()}
    last = of(rows, ADAPTERS)[-1]
    assert last["stored"] == {
        task: {"adapter": ADAPTER, "layer_norm": LAYER_NORMS, "head": head + POOLER} for task, head in heads.items()
    }
    assert last["trained"] == ADAPTER + LAYER_NORMS + heads["shape"] + POOLER
    assert of(rows, SEQUENTIAL)[-1]["stored"] == {task: {"head": head} for task, head in heads.items()}
    base = last["base_parameters"]
    assert {row["base_parameters"] for row in rows} == {base}
    table = sequential.table(Result("sequential", options, rows))
    own, one, all_at_once, apart = [line.split("|") for line in table.splitlines()[2:6]]
    assert own[7].strip() == f"{(base + 3 * (ADAPTER + LAYER_NORMS + POOLER) + sum(heads.values())) / base:.2f}×"
    assert one[7] == all_at_once[7] and one[7].strip() == f"{(base + sum(heads.values())) / base:.2f}×"
    assert apart[7].strip() == f"{(3 * base + sum(heads.values())) / base:.2f}×"


def test_a_switch_moves_the_adapter_the_layer_norms_and_the_head(rows: list[dict[str, Any]]) -> None:
    first, second, third = of(rows, ADAPTERS)
    assert first["switch"] is None
    own = [4 * (ADAPTER + LAYER_NORMS + POOLER + (D + 1) * labels) for labels in LABELS.values()]
    assert second["switch"]["bytes"] == own[:2]
    assert third["switch"]["bytes"] == own
    assert third["switch"]["model_bytes"] == 4 * third["base_parameters"] + own[0] - 4 * (LAYER_NORMS + POOLER)
    assert third["switch"]["milliseconds"] > 0


def test_the_table_says_so(rows: list[dict[str, Any]], options: Options) -> None:
    lines = sequential.table(Result("sequential", options, rows)).splitlines()
    assert lines[0].split("|")[4:7] == [" forgotten ", " of topics ", " of mixed "]
    assert lines[2].split("|")[4:7] == [" exactly 0 "] * 3
    assert f"yes, {of(rows, ADAPTERS)[0]['base_before']}" in lines[2]
    found = courses(rows)["sequential"]
    assert lines[3].split("|")[5].strip() == f"{100 * found.forgotten()[0, 0]:.1f}"
    matrix = lines[lines.index("Accuracy after each step, sequential fine-tuning:") + 4 :]
    assert matrix[0].split("|")[2].strip() == f"{100 * found.scores[0, 0, 0]:.1f}"
    assert matrix[2].split("|")[2].strip() == f"{100 * found.scores[0, 2, 0]:.1f}"
    assert "A task switch changes 0.01 MB of the" in lines[-1]


def test_the_figure_draws_each_task_from_its_own_step_on(rows: list[dict[str, Any]], options: Options) -> None:
    figure = sequential.figures(Result("sequential", options, rows))["sequential"]
    assert faults(figure) == []
    found = courses(rows)
    for axes, method in zip(figure.axes, ("adapters", "sequential")):
        for i, line in enumerate(axes.get_lines()[:3]):
            assert list(line.get_xdata()) == list(range(i, 3))
            assert np.allclose(line.get_ydata(), 100 * found[method].scores[0, i:, i])


def test_forgetting_is_the_loss_since_the_task_was_learned() -> None:
    steps = [[0.9], [0.8, 0.7], [0.5, 0.75, 0.6]], [[0.7], [0.1, 0.9], [0.6, 0.5, 1.0]]
    rows = [
        {
            "method": "sequential",
            "seed": seed,
            "chain": scores,
            "scores": {task: {"accuracy": score, "macro_f1": 0.0} for task, score in zip("abc", scores)},
            "metrics": dict.fromkeys("abc", "accuracy"),
        }
        for seed, own in enumerate(steps)
        for scores in own
    ]
    course = chain_courses(rows[::-1])["sequential"]
    assert course.tasks == ["a", "b", "c"] and [row["seed"] for row in course.rows] == [0, 1]
    assert np.allclose(course.learned(), [[0.9, 0.7, 0.6], [0.7, 0.9, 1.0]])
    assert np.allclose(course.at_end(), [[0.5, 0.75, 0.6], [0.6, 0.5, 1.0]])
    assert np.allclose(course.forgotten(), [[0.4, -0.05], [0.1, 0.4]])
    assert mean_and_error(course.forgotten().mean(axis=1)) == pytest.approx((0.2125, 0.0375))


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in TIMES}
    if kept.get("switch"):
        kept["switch"] = {**kept["switch"], "milliseconds": 0}
    return kept


def test_killed_in_a_step_and_stopped_after_others_it_gives_the_same_rows(
    rows: list[dict[str, Any]], options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part in a lab of its own, as in a process of its own; what has no steps is taken over."""
    for row in rows:
        if row["method"] in ("full", "joint"):
            Store(tmp_path).write(row["key"], row)
    learn, learned = AdapterLearner.learn, []

    def killed(self: AdapterLearner, *arguments: Any) -> list[float]:
        learned.append(len(self.models))
        seconds = learn(self, *arguments)
        if len(learned) == 2:
            raise KeyboardInterrupt
        return seconds

    monkeypatch.setattr(AdapterLearner, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        do(options, open_lab(options, tmp_path))
    with pytest.raises(SystemExit):  # ended between the second and the third task
        do(options, open_lab(options, tmp_path), lambda: len(learned) < 3)
    found = do(options, open_lab(options, tmp_path))
    assert learned == [1, 2, 2, 3]
    assert [without_times(row) for row in found] == [without_times(row) for row in rows]


def test_only_what_a_later_step_may_need_is_kept(rows: list[dict[str, Any]], lab: Lab) -> None:
    last = {of(rows, ADAPTERS)[-1]["key"], of(rows, SEQUENTIAL)[-1]["key"]}
    assert {path.name for path in (lab.store.directory / "kept").iterdir()} == last


def test_the_next_step_starts_from_the_trunk_that_the_last_one_left(
    rows: list[dict[str, Any]], options: Options, lab: Lab
) -> None:
    last = of(rows, SEQUENTIAL)[-1]
    learner = Learner(lab, [*step_of(last, lab, options).chain, *step_of(last, lab, options).chain[:1]])
    logits = recall_step(learner, lab.store.kept(last["key"]))
    assert weights_digest(learner.trunk.state_dict()) == last["base_after"]
    assert [len(learner.head(i)["classifier.bias"]) for i in range(3)] == list(LABELS.values())
    assert [logits[str(i)].shape[1] for i in range(3)] == list(LABELS.values())


def test_adapters_that_come_from_disk_leave_the_shared_base_alone(
    rows: list[dict[str, Any]], options: Options, lab: Lab
) -> None:
    last = of(rows, ADAPTERS)[-1]
    chain = step_of(last, lab, options).chain
    learner = AdapterLearner(lab, [*chain, chain[0]])
    recall_step(learner, lab.store.kept(last["key"]))
    assert lab.pool.digest(learner.models[0].kind) == lab.base(lab.tasks["topics"])
    learner.activate(1)
    assert weights_digest(learner.trunk.state_dict()) != learner.base_before
    assert learner.base_after() == last["base_after"]


@pytest.fixture(scope="module")
def other_lab(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return open_lab(options, tmp_path_factory.mktemp("other"))


def test_a_step_makes_again_what_it_needs_and_no_longer_finds(
    rows: list[dict[str, Any]], options: Options, lab: Lab, other_lab: Lab
) -> None:
    """Another branch of a finished chain; and the adapter is the same, whatever was learned in between."""
    chain = step_of(of(rows, ADAPTERS)[-1], lab, options).chain
    row = Step(ADAPTERS, (chain[0], chain[2])).run(other_lab, lambda event: None)
    assert row["largest_logit_change"] == {"topics": 0.0, "shape": 0.0}
    assert row["scores"]["shape"] == of(rows, ADAPTERS)[-1]["scores"]["shape"]


def test_a_wrong_adapter_would_be_seen(
    rows: list[dict[str, Any]], options: Options, lab: Lab, other_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate = AdapterLearner.activate
    monkeypatch.setattr(AdapterLearner, "activate", lambda self, number: activate(self, len(self.models) - 1))
    step = step_of(of(rows, ADAPTERS)[-1], lab, options)
    row = Step(ADAPTERS, step.chain[:2]).run(other_lab, lambda event: None)
    assert row["largest_logit_change"]["topics"] > 0.1 and row["largest_logit_change"]["mixed"] == 0.0


def test_an_adapter_is_learned_as_if_alone(options: Options, tmp_path: Path) -> None:
    """Behind another task it gets the logits that the plain run of its own gets, bit for bit."""
    tasks = sequential.read_tasks(options)
    lab = Lab(options.model, [tasks[0], tasks[2]], Store(tmp_path))
    cells = [classification.cell(lab, task, options, "adapters", bottleneck=M) for task in lab.tasks.values()]
    chain = tuple(made.spec.at(2e-2, 2, 0) for made in cells)
    Step(ADAPTERS, chain).run(lab, lambda event: None)
    trained = train(chain[1], lab, lambda event: None)
    part = lab.encode(tasks[2], trained.loaded.kind, tasks[2].parts[TEST], chain[1].settings())
    kept = load_file(lab.store.kept(Step(ADAPTERS, chain).key) / LAST_WRITTEN)["1"]
    assert np.array_equal(kept, predict(trained.trainer, part))


def test_the_first_step_of_sequential_fine_tuning_is_full_fine_tuning(rows: list[dict[str, Any]]) -> None:
    full = next(row for row in rows if row["task"] == "topics" and row["method"] == "full")
    assert of(rows, SEQUENTIAL)[0]["scores"]["topics"] == full["scores"][TEST]


def test_joint_training_passes_over_every_task_as_often(rows: list[dict[str, Any]], options: Options) -> None:
    (row,) = of(rows, "joint")
    sizes = [next(own["sizes"]["train"] for own in rows if own["task"] == task) for task in LABELS]
    assert row["steps"] == options.epochs[0] * sum(-(-size // options.batch_size) for size in sizes)
    assert list(row["scores"]) == list(LABELS)


def test_joint_batches_are_of_one_task_and_have_each_example_once_a_pass() -> None:
    parts = [[("a", i) for i in range(7)], [("b", i) for i in range(20)]]
    batches = TaskBatches(parts, [list, list], 4)  # type: ignore[arg-type]
    torch.manual_seed(0)
    seen = []
    for _ in range(2):
        batches.shuffle()
        items = [batches[i] for i in range(len(batches))]
        assert [item["task"] for item in items].count(0) == 2 and len(items) == 7
        for item in items:
            assert {name for name, _ in item["inputs"]} == {"ab"[item["task"]]}
        seen.append([example for item in items for example in item["inputs"]])
        assert sorted(seen[-1]) == parts[0] + parts[1]
    assert seen[0] != seen[1]


def test_settings_are_chosen_where_the_task_is_learned_alone(options: Options, lab: Lab) -> None:
    """With several to try: first the runs of classification, then chains of each task's best."""
    tasks = list(lab.tasks.values())
    wide = replace(options, rates={"adapters": (1e-3, 1e-2), "full": (1e-4, 3e-3)}, bottlenecks=(4, 8), seeds=2)
    shared = {job.key for job in classification.plan(lab, tasks, wide, {}) if "head" not in job.label}
    first = sequential.plan(lab, tasks, wide, {})
    assert {job.key for job in first} == shared and not any(isinstance(job, Step) for job in first)
    best = {"topics": (1e-2, 4, 1e-4), "mixed": (1e-3, 8, 3e-3), "shape": (1e-3, 4, 3e-3)}
    known = {}
    for spec in first:
        rate, size, full = best[spec.task]  # type: ignore[attr-defined]
        chosen = (spec.lr, spec.bottleneck) == (rate, size) or (spec.lr, spec.bottleneck) == (full, None)  # type: ignore[attr-defined]
        known[spec.key] = {**as_row(spec), "key": spec.key, "choose_by": 0.9 if chosen else 0.5}  # type: ignore[arg-type]
    steps = [job for job in sequential.plan(lab, tasks, wide, known) if isinstance(job, Step)]
    assert [(step.method, len(step.chain), step.chain[0].seed) for step in steps] == [
        (method, 3 if method == "joint" else 1, seed)
        for method in ("adapters", "sequential", "joint")
        for seed in (0, 1)
    ]
    known |= {step.key: {} for step in steps[:1]}
    steps = [job for job in sequential.plan(lab, tasks, wide, known) if isinstance(job, Step)]
    second = next(step for step in steps if step.method == ADAPTERS and len(step.chain) == 2)
    assert [(spec.task, spec.lr, spec.bottleneck) for spec in second.chain] == [("topics", 1e-2, 4), ("mixed", 1e-3, 8)]
    joint = next(step for step in steps if step.method == "joint")
    assert {(spec.lr, spec.epochs) for spec in joint.chain} == {(3e-3, 6)}


def test_joint_settings_of_a_tie_are_the_first_tasks(options: Options, lab: Lab) -> None:
    specs = [classification.cell(lab, task, options, "full").spec for task in lab.tasks.values()]
    chain = [spec.at(lr, 3, 0) for spec, lr in zip(specs, (1e-3, 1e-4))]
    assert [spec.lr for spec in common_settings(chain)] == [1e-3, 1e-3]


def test_the_key_says_what_came_before(options: Options, lab: Lab) -> None:
    a, b, c = [classification.cell(lab, task, options, "full").spec.at(1e-3, 1, 0) for task in lab.tasks.values()]
    steps = [Step(SEQUENTIAL, (a, c)), Step(SEQUENTIAL, (b, c)), Step(SEQUENTIAL, (c,)), Step(ADAPTERS, (a, c))]
    steps += [Step(SEQUENTIAL, (replace(a, lr=1e-2), c)), Step(SEQUENTIAL, (a, replace(c, seed=1)))]
    assert len({step.key for step in steps}) == len(steps)


def test_one_task_is_not_enough(options: Options) -> None:
    with pytest.raises(UserError, match="--data gives one task, topics: expected two or more"):
        sequential.read_tasks(replace(options, data=options.data[:1]))
