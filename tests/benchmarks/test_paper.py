"""The paper's experiments on the pages: arithmetic of tables, pictures, and that pages and results agree."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import pytest
import sample_experiments as samples
from picture_checks import faults
from sample_experiments import run

from adapter_fast.benchmarks.pages import paper
from adapter_fast.benchmarks.pages.report import disagreements, render, report
from adapter_fast.benchmarks.rows import ResultsError
from adapter_fast.benchmarks.shown.figures.plots import digest_of
from adapter_fast.common.sheet import STYLE
from adapter_fast.experiments import NAMES, ablation, classification, tradeoff
from adapter_fast.experiments.figures.ablation_figures import init_figure, spans_figure
from adapter_fast.experiments.figures.tradeoff_figures import percentiles_figure, tasks_figure
from adapter_fast.experiments.find import find_experiment
from adapter_fast.experiments.glue.published import COLUMNS, TABLE
from adapter_fast.measure.machine import device_name

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/paper.md").read_text("utf-8")
BASE = samples.BASE


def cells(text):
    """A Markdown table's lines as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


# Arithmetic of tables


def scored_runs():
    """Two tasks, two seeds, four methods; adapters in two sizes, of which m = 4 is the better on validation."""
    scores = {
        "reuters-r8": {"head": (0.5, 0.6), "full": (0.9, 0.94), "top": (0.8, 0.8), 2: (0.7, 0.7), 4: (0.88, 0.90)},
        "election-tweets": {"head": (0.4, 0.4), "full": (0.8, 0.8), "top": (0.7, 0.72), 2: (0.6, 0.6), 4: (0.8, 0.82)},
    }
    rows = []
    for task, own in scores.items():
        for method, values in own.items():
            size = {"bottleneck": method} if isinstance(method, int) else {"top": 1} if method == "top" else {}
            for seed, value in enumerate(values):
                rows.append(run(task, method if isinstance(method, str) else "adapters", value, seed, **size))
    return rows


def test_classification_averages_totals_and_shares():
    lines = cells(classification.table(samples.result(classification, scored_runs())))
    assert lines[0] == ["", "head only", "full fine-tuning", "top layers", "adapters"]
    # standard error of two seeds: half of their difference
    assert lines[1] == ["reuters-r8", "55.0 ± 5.0", "92.0 ± 2.0", "80.0 ± 0.0 (k = 1)", "89.0 ± 1.0 (m = 4)"]
    assert lines[2] == ["election-tweets", "40.0 ± 0.0", "80.0 ± 0.0", "71.0 ± 1.0 (k = 1)", "81.0 ± 1.0 (m = 4)"]
    assert lines[3] == ["**average**", "47.5", "86.0", "75.5", "85.0"]
    heads = 384 * 8 + 8, 384 * 2 + 2
    adapters = 12 * (2 * 4 * 384 + 384 + 4) + 13 * 2 * 384  # 2·m·d + d + m an adapter, and 13 LayerNorms
    layer = 4 * (384 * 384 + 384) + (384 * 1536 + 1536) + (1536 * 384 + 384) + 4 * 384
    trained = {"head": heads, "full": [BASE + head for head in heads]}
    trained |= {"top": [layer + head for head in heads], "adapters": [adapters + head for head in heads]}
    shared = {"head": 1, "full": 0, "top": 1, "adapters": 1}  # copies of the base that are stored besides
    totals = [f"{shared[method] + sum(own) / BASE:.2f}×" for method, own in trained.items()]
    assert lines[4] == ["stored in all", *totals] and totals == ["1.00×", "2.00×", "1.16×", "1.00×"]
    shares = [100 * sum(own) / len(own) / BASE for own in trained.values()]
    assert lines[5] == ["trained a task", *(f"{s:.2f} %" if s < 10 else f"{s:.1f} %" for s in shares)]


def test_tradeoff_percentiles_and_shares():
    points = {point["name"]: point for point in tradeoff.curve_points(scored_runs())}
    assert list(points) == ["head only", "adapters, m = 2", "adapters, m = 4", "top layers, k = 1", "full fine-tuning"]
    # adapters of m = 4 lose 3 points and gain 1: percentiles 20, 50, 80 between them
    assert points["adapters, m = 4"]["deltas"] == pytest.approx([-2.2, -1.0, 0.2])
    assert points["full fine-tuning"]["deltas"] == [0, 0, 0]
    trained = 12 * (2 * 2 * 384 + 384 + 2) + 26 * 384 + (3080 + 770) / 2
    assert points["adapters, m = 2"]["trained"] == trained
    assert points["adapters, m = 2"]["share"] == pytest.approx(trained / BASE)
    line = next(own for own in cells(tradeoff.table(samples.result(tradeoff, scored_runs()))) if "m = 4" in own[0])
    assert line[2:] == ["89.0 ± 1.0", "81.0 ± 1.0", "−2.2 / −1.0 / +0.2"]


def test_findings_are_computed_from_the_rows():
    assert classification.finding(samples.result(classification, scored_runs())) == (
        "mean accuracy over 2 tasks: adapters 85.0 (0.24 % trained), full fine-tuning 86.0 (100.0 % trained), "
        "top layers 75.5 (7.82 % trained), head only 47.5 (0.01 % trained)"
    )
    assert tradeoff.finding(samples.result(tradeoff, scored_runs())) == (
        "the smallest adapters within 1 point of full fine-tuning have m = 4 (0.24 % trained): "
        "−1.0 points, median over tasks"
    )
    without = [row for row in scored_runs() if row["method"] != "adapters"]
    far = [run("reuters-r8", accuracy=0.88, bottleneck=2), run("election-tweets", accuracy=0.81, bottleneck=2)]
    assert tradeoff.finding(samples.result(tradeoff, [*without, *far])) == (
        "no m comes within 1 point of full fine-tuning; the best, m = 2, −1.5 points, median over tasks"
    )
    levels = {1e-4: 0.8, 1e-2: 0.82, 1.0: 0.4}
    rows = [run(accuracy=score, init_std=std, bottleneck=8) for std, score in levels.items()]
    rows.append(run(accuracy=0.9, spans=True, layers_of_model=2, bottleneck=8))
    left = rows[-1]["span_scores"]["0-1"]
    assert ablation.finding(samples.result(ablation, rows)) == (
        "mean accuracy 80.0 to 82.0 for initial σ up to 0.01; 40.0 at 1; "
        f"reuters-r8 without any adapter {100 * left:.1f} of 90.0 on validation"
    )


# Pictures


def drawn(experiment, result):
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return experiment.figures(result)


SHAPES = {
    "all": lambda: (tradeoff, samples.tradeoff_result()),
    "one task, one seed": lambda: (tradeoff, samples.tradeoff_result(("reuters-r8",), 1)),
    "two methods": lambda: (tradeoff, samples.tradeoff_result(("a", "b"), methods=("full", "adapters"))),
    "nothing to compare with": lambda: (tradeoff, samples.tradeoff_result(methods=("head", "layer-norms", "top"))),
    "ablation": lambda: (ablation, samples.ablation_result()),
    "ablation, one": lambda: (ablation, samples.ablation_result(("a",), 1, stds=(-2, 0))),
    "ablation, 12 layers": lambda: (
        ablation,
        samples.ablation_result(("a", "b"), layers=12, bottlenecks=(8, 64)),
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", SHAPES)
def test_figures_of_any_shape_are_drawn_and_no_text_is_cut_or_runs_into_another(shape):
    experiment, result = SHAPES[shape]()
    figures = drawn(experiment, result)
    assert set(figures) <= set(paper.all_pictures())
    for name, figure in figures.items():
        if shape == "nothing to compare with" and name == "tradeoff":
            figure.draw_without_rendering()
        else:
            assert faults(figure) == [], name
        assert any("minilm, Example CPU, torch 2.13.0+cpu; 400 training" in text.get_text() for text in figure.texts)


def lines_of(panel):
    """By colour, the points of each line; the caps of error bars have no line."""
    lines = [line for line in panel.lines if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]
    return {line.get_color(): line.get_xydata().tolist() for line in lines}


def test_percentiles_figure_shows_the_points():
    result = samples.tradeoff_result()
    points = tradeoff.curve_points(result.rows)
    panel = percentiles_figure(points, result).axes[0]
    medians = [[point["trained"], point["deltas"][1]] for point in points if point["method"] == "adapters"]
    assert lines_of(panel)["#D55E00"] == medians and panel.get_xscale() == "log"
    words = [text.get_text() for text in panel.texts]
    assert [word for word in words if word.isdigit()] == [str(2**n) for n in range(9)] + ["1", "2", "3", "5"]
    head = next(point for point in points if point["method"] == "head")
    assert f"▼ head only: −{-head['deltas'][1]:.1f}" in words  # far below: named at the edge, not drawn to scale
    assert panel.get_ylim()[0] > head["deltas"][1]


def test_tasks_figure_has_a_panel_a_task_with_standard_errors():
    result = samples.tradeoff_result()
    points = tradeoff.curve_points(result.rows)
    figure = tasks_figure(points, result)
    assert [panel.get_title() for panel in figure.axes] == list(samples.TASKS)
    own = [point["summaries"]["reuters-r8"] for point in points if point["method"] == "adapters"]
    assert lines_of(figure.axes[1])["#D55E00"] == [[one["trained"], 100 * one.mean()] for one in own]
    bars = next(bars for bars in figure.axes[1].containers if len(bars.lines[0].get_xdata()) == len(own))
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(100 * own[0].spread())


def test_spans_figure_writes_each_change_and_nothing_below_the_diagonal():
    scores = {"none": 0.9, "0-0": 0.88, "1-1": 0.91, "0-1": 0.5}
    panel = spans_figure({"reuters-r8": scores}, samples.ablation_result()).axes[0]
    assert {text.get_text(): text.get_position() for text in panel.texts} == {
        "−2.0": (0, 0),  # last removed layer across, first removed layer down
        "−40.0": (1, 0),
        "+1.0": (1, 1),
    }
    assert panel.get_title() == "reuters-r8 (90.0 with all)"


def test_init_figure_has_a_line_a_task_over_a_logarithmic_scale():
    result = samples.ablation_result()
    from adapter_fast.experiments.grid.cells import summarize

    scales = [summary for summary in summarize(result.rows) if summary["init_std"] is not None]
    panel = init_figure(scales, result).axes[0]
    curves = list(lines_of(panel).values())
    assert len(curves) == 2 and panel.get_xscale() == "log"
    assert [x for x, _ in curves[0]] == pytest.approx([10.0**power for power in range(-7, 1)])
    assert curves[0][0][1] == 100 * scales[0].mean()
    assert any(math.isclose(line.get_xdata()[0], 1e-2) and len(line.get_xdata()) == 2 for line in panel.lines)


# Pages


@pytest.fixture
def checkout(tmp_path):
    """A checkout with both pages, and what experiments wrote in out/."""
    return write_checkout(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The same after a report: its pages and pictures are made once."""
    root = write_checkout(tmp_path_factory.mktemp("reported"))
    assert report(keep_experiments=root / "out", root=root) == 0
    return root


@pytest.fixture
def own(reported, tmp_path):
    """A copy of `reported` to change."""
    return shutil.copytree(reported, tmp_path / "own")


def write_checkout(root):
    for result in (samples.tradeoff_result(("reuters-r8",), 2), samples.ablation_result(("reuters-r8",), 2)):
        result.write(root / "out" / result.experiment / "results.json")
    (root / "docs").mkdir()
    (root / "docs/benchmarks.md").write_text("first\n<!-- table: paper -->\nold\n<!-- end -->\nlast\n")
    shutil.copy(ROOT / "docs/paper.md", root / "docs")
    return root


FOLDER = "benchmarks/results/cpu/paper"


def test_report_keeps_results_and_writes_both_pages(reported, capsys):
    kept = json.loads((reported / FOLDER / "tradeoff.json").read_text())
    written = json.loads((reported / "out/tradeoff/results.json").read_text())
    assert {name: kept[name] for name in written} == written
    assert set(kept) - set(written) == {"device", "commit", "date"} and kept["device"] == device_name("cpu")

    page = (reported / "docs/paper.md").read_text()
    result = samples.tradeoff_result(("reuters-r8",), 2)
    assert tradeoff.table(result) in page and "Not run here: `adapter-fast experiment glue" in page
    assert f": {len(result.rows)} runs, " in page
    links = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert links == [f"../{FOLDER}/{name}.png" for name in ("tradeoff", "tradeoff-tasks", "spans", "init")]
    assert all((reported / "docs" / link).exists() for link in links)
    page = (reported / "docs/benchmarks.md").read_text()
    assert "old" not in page and page.endswith("last\n")
    assert [line[0] for line in cells(page)[1:]] == list(NAMES) and tradeoff.finding(result) in page
    capsys.readouterr()
    assert report(check=True, root=reported) == 0
    assert capsys.readouterr().out == "docs/benchmarks.md, docs/paper.md and the pictures agree with the results\n"


def test_a_changed_row_turns_pages_and_pictures_red(own):
    path = own / FOLDER / "ablation.json"
    values = json.loads(path.read_text())
    values["rows"][0]["scores"]["test"]["accuracy"] += 0.01
    path.write_text(json.dumps(values))
    late = "was drawn from other results: run adapter-fast report"
    assert disagreements(own) == [
        "docs/paper.md and the results differ: run adapter-fast report",
        *(f"{FOLDER}/{name}.{kind} {late}" for name in ("spans", "init") for kind in ("png", "svg")),
    ]
    (own / FOLDER / "tradeoff.svg").unlink()
    assert f"{FOLDER}/tradeoff.svg is missing: run adapter-fast report" in disagreements(own)
    path.unlink()
    assert f"{FOLDER}/spans.png has no results" in disagreements(own)
    report(root=own)
    assert disagreements(own) == [] and not (own / FOLDER / "spans.png").exists()
    marks = {digest_of(picture) for picture in (own / FOLDER).glob("tradeoff*.*g")}
    assert len(marks) == 1 and None not in marks


def test_a_changed_number_on_the_page_is_seen(own):
    page = own / "docs/paper.md"
    page.write_text(page.read_text().replace("| full fine-tuning | 22,", "| full fine-tuning | 23,", 1))
    assert disagreements(own) == ["docs/paper.md and the results differ: run adapter-fast report"]


def test_what_is_no_result_is_refused_and_nothing_is_written(checkout):
    with pytest.raises(ResultsError, match=r"expected results.json in folders of the names glue, .*, got none"):
        report(keep_experiments=checkout / "docs", root=checkout)
    shutil.copytree(checkout / "out/ablation", checkout / "out/squad")
    with pytest.raises(ResultsError, match=r"squad/results.json: expected runs of squad, got \d+ of ablation"):
        report(keep_experiments=checkout / "out", root=checkout)
    (checkout / "out/squad/results.json").write_text("[]")
    with pytest.raises(ResultsError, match=r"squad/results.json is no experiment's results file"):
        report(keep_experiments=checkout / "out", root=checkout)
    assert not (checkout / "benchmarks").exists()
    without = checkout / FOLDER / "ablation.json"
    without.parent.mkdir(parents=True)
    shutil.copy(checkout / "out/ablation/results.json", without)
    with pytest.raises(ResultsError, match=r"ablation.json: lacks device, commit, date"):
        report(root=checkout)
    with pytest.raises(ResultsError, match=r"figure must be one of squad, .*, got 'spam'"):
        render("<!-- figure: spam -->\n<!-- end -->", checkout)


def test_the_page_has_every_table_and_picture_once():
    assert sorted(re.findall(r"<!-- table: ([\w-]+) -->", PAGE)) == sorted([*NAMES, "paper"])
    assert sorted(re.findall(r"<!-- figure: ([\w-]+) -->", PAGE)) == sorted(paper.all_pictures())


def test_the_papers_table_1_is_the_one_that_the_experiment_has():
    lines = {line[0]: line for line in cells(PAGE.partition("## Table 1")[2].partition("**Ours")[0])[1:]}
    for row in TABLE.values():
        name = "full fine-tuning" if row.name == "full" else f"adapters, m = {row.name}"
        points = [f"{row.points[column]}" for column in COLUMNS]
        assert lines[name] == [name, f"{row.total}×", f"{100 * row.trained:g} %", *points, f"{row.score}"]


def test_every_field_of_a_row_is_explained():
    explained = set(re.findall(r"`(\w+)`", PAGE.partition("## Rows")[2]))
    assert set(run(spans=True)) <= explained


def test_commands_of_the_page_are_commands():
    from adapter_fast.experiments.commands import experiment

    commands = [*map(paper.command, NAMES), *re.findall(r"^ {4}(adapter-fast experiment [^#\n]+)", PAGE, re.M)]
    assert len(commands) == 2 * len(NAMES)
    for command in commands:
        context = experiment.make_context("experiment", shlex.split(command)[2:])
        assert find_experiment(context.params["name"]) and context.params["data"]
    targets = re.findall(r"^ {4}make ([a-z-]+)", PAGE, re.M)
    assert targets and all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in targets)
