"""Tables, pictures and the screen say what the rows say: nothing is lost, made up, cut off or out of date."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sample_rows as samples
from picture_checks import faults
from sample_rows import row, timed

from adapter_fast.benchmarks.pages.report import disagreements, render, report
from adapter_fast.benchmarks.pages.suite_tables import latency_table, memory_table, model_table, op_table
from adapter_fast.benchmarks.rows import ResultsError, path_of, write_rows
from adapter_fast.benchmarks.rows.compare import PROVIDERS, groups, model_size, over_bare, provider_of
from adapter_fast.benchmarks.shown.figures.plots import FIGURES, PAINTERS, digest_of, digest_rows, draw_plots, drawable
from adapter_fast.benchmarks.shown.screen import headline, screen
from adapter_fast.benchmarks.shown.wording import absences, number, remarks, time_unit
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.common.sheet import STYLE

SETS = {"small": samples.small, "large": samples.large}

ROOT = Path(__file__).parents[2]


# Tables of the README


def op_group(**fields):
    """Fused, reference, two peers that ran and one that did not, on one case."""
    return [
        timed(1000.0, provider="fused", peak_bytes=50, floor_us=500.0, versus="faster", **fields),
        timed(1500.0, provider="reference", peak_bytes=100, **fields),
        timed(1250.0, provider="compile", note="default", **fields),
        row(provider="adapterhub", note=samples.REASON, **fields),
    ]


def test_op_table():
    lines = op_table(op_group()).splitlines()
    assert lines[:3] == [
        "| tokens, d, m | phase | fused, µs | reference | torch.compile | AdapterHub | of the floor "
        "| peak memory against reference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 4096, 768, 64 | forward | 1,000 (980 … 1,040) | 1.50× | 1.25× | not run | 50 % | 0.50 |",
    ]
    assert lines[4].startswith(
        "Example(R) CPU, 2 threads, float32, 2026-11-22, eager; torch 2.13.0+cpu, Triton 3.9.0, "
    )
    assert lines[6] == "torch.compile: default. AdapterHub: not run, AdapterHub is not installed: make peers."


@pytest.mark.parametrize(
    ("verdict", "cell"), [("faster", "1.50×"), ("same", "1.50× (same)"), ("slower", "1.50× (slower)")]
)
def test_op_table_says_where_ours_is_not_faster(verdict, cell):
    rows = [replace(row, versus=verdict) if row.provider == "fused" else row for row in op_group()]
    assert op_table(rows).splitlines()[2].split(" | ")[3] == cell


def test_op_table_prefers_cold_graphs_and_keeps_the_eager_launch():
    cold = [replace(row, us_p50=row.us_p50 and row.us_p50 / 100) for row in op_group(mode="graph-cold")]
    cold = [row for row in cold if row.provider != "adapterhub"]  # one that never ran says so in one mode only
    lines = op_table([*op_group(), *cold]).splitlines()
    assert lines[0].endswith("| reference, launched from Python |")
    assert "| 10.0 (" in lines[2] and "| not run |" in lines[2] and lines[2].endswith("| 1.50× |")
    assert "CUDA graph, inputs in no cache" in lines[4]


def test_op_table_orders_by_size_and_names_another_weight_dtype():
    shapes = [
        (4096, 64, "T4096-d768-m64-bfloat16-w32"),
        (4096, 64, "T4096-d768-m64-bfloat16"),
        (256, 16, "T256-d768-m16"),
    ]
    rows = [r for T, m, case in shapes for r in op_group(case=case, tokens=T, bottleneck=m)]
    first = [line.split(" | ")[0] for line in op_table(rows).splitlines()[2:5]]
    assert first == ["| 256, 768, 16", "| 4096, 768, 64", "| 4096, 768, 64 (float32 weights)"]


MODEL = {"case": "minilm-b8-s64-m64-float32", "tokens": 512, "hidden": 384}


def test_model_table():
    rows = [
        timed(110e3, provider="fused", phase="step", peak_bytes=40_000_000, parameters=595_968, **MODEL),
        row(provider="adapterhub", phase="step", note="a | b", **MODEL),
        timed(100e3, provider="bare", phase="step", parameters=0, note="only the head trains", **MODEL),
    ]
    lines = model_table(rows).splitlines()
    assert lines[0] == "| | provider | ms | tokens/s | over bare | peak memory | parameters added |"
    assert lines[2] == (
        "| minilm, 8 × 64 tokens, step, eager | fused | 110 (108 … 114) | 4,655 | +10.0 % | 40.0 MB | 595,968 |"
    )
    assert lines[3] == "| | AdapterHub | not run: a \\| b | | | | |"
    assert lines[4] == "| | bare model | 100 (98.0 … 104) | 5,120 | | | 0 |"
    assert lines[-1] == "bare model: only the head trains."


def latency_rows(batch, seq_len, parameters, us):
    shared = {"case": f"gpt2-medium-b{batch}-s{seq_len}-m112-bfloat16", "tokens": batch * seq_len}
    return [
        timed(us * 1.3, provider="reference", parameters=parameters, **shared),
        timed(us, provider="bare", **shared),
        timed(us / 2, provider="bare", mode="graph-hot", **shared),
        row(provider="adapterhub", note="out of memory: tried 2 GiB", **shared),
    ]


def test_latency_table_has_the_papers_columns():
    rows = [*latency_rows(1, 128, 11_093_376, 20e3), *latency_rows(32, 512, 500_000, 1.4e6)]
    lines = latency_table(rows).splitlines()
    assert lines[0] == "| gpt2-medium | | 32 / 512 / 0.5 M | 1 / 128 / 11.1 M |"
    assert lines[2:6] == [
        "| reference | eager | 1,820 (1,966, 2,184) +30.0 % | 26.0 (28.1, 31.2) +30.0 % |",
        "| AdapterHub | eager | not run | not run |",
        "| bare model | eager | 1,400 (1,512, 1,680) | 20.0 (21.6, 24.0) |",
        "| bare model | CUDA graph | 700 (756, 840) | 10.0 (10.8, 12.0) |",
    ]
    assert lines[-1] == "AdapterHub: not run, out of memory: tried 2 GiB."


def test_memory_table():
    peaks = {"fused": 2_000_000, "reference": 4_000_000}
    rows = [row(suite="memory", provider=name, peak_bytes=peak) for name, peak in peaks.items()]
    lines = memory_table([*rows, row(suite="memory", provider="two-kernel", note="no backward")]).splitlines()
    assert lines[0] == "| tokens, d, m | phase | fused | reference |"
    assert lines[2] == "| 4096, 768, 64 | forward | 2.00 (0.50) | 4.00 |"
    assert lines[-1] == "two kernels: not run, no backward."


def test_numbers_and_units():
    assert [number(value) for value in (4920.8, 49.25, 4.921, 0.4921, 0)] == ["4,921", "49.2", "4.92", "0.492", "0.000"]
    assert time_unit([timed(9_999.0)]) == ("µs", 1.0) and time_unit([timed(5.0), timed(10_000.0)]) == ("ms", 1e3)
    assert model_size("bert-base-b32-s128-m64-bfloat16") == ("bert-base", 32, 128)
    assert model_size("T4096-d768-m64-float32") is None


def test_one_that_never_ran_stands_in_every_mode_and_one_that_ran_elsewhere_does_not():
    rows = [timed(1.0, mode=mode) for mode in ("eager", "graph-hot")]
    rows += [row(provider="adapterhub", note="gone"), timed(2.0, provider="compile")]
    rows += [row(provider="compile", mode="graph-cold", note="capture failed")]
    found = {mode: list(group) for (_, _, mode), group in groups(rows).items()}
    assert found == {"eager": ["fused", "compile", "adapterhub"], "graph-hot": ["fused", "adapterhub"]} | {
        "graph-cold": ["compile", "adapterhub"]
    }


def test_notes_are_counted_and_reasons_name_the_phase():
    notes = ["default", "max-autotune", "default"]
    assert remarks([timed(1.0, provider="compile", note=note) for note in notes]) == [
        ("compile", "default (2 of 3); max-autotune (1 of 3)")
    ]
    backward = [
        row(provider="two-kernel", phase=phase, note="no backward") for phase in ("backward", "forward+backward")
    ]
    assert absences([timed(1.0, provider="two-kernel"), *backward]) == [
        "two kernels, backward and forward+backward: not run, no backward"
    ]


def test_each_model_stands_against_its_own_bare_one():
    times = {"bare": 100.0, "bare-compile": 50.0, "adapterhub-bare": 80.0, "fused": 110.0, "fused-compile": 60.0}
    times |= {"compile": 55.0, "adapterhub": 100.0, "peft-lora": 120.0}
    rows = [timed(us, provider=name, **MODEL) for name, us in times.items()]
    [group] = groups(rows).values()
    above = {name: over_bare(row, group) for name, row in group.items()}
    assert above == pytest.approx(
        {"fused": 0.1, "fused-compile": 0.2, "compile": 0.1, "adapterhub": 0.25, "peft-lora": 0.2}
        | dict.fromkeys(("bare", "bare-compile", "adapterhub-bare"))
    )
    [alone] = groups([row for row in rows if row.provider in ("bare", "compile")]).values()
    assert over_bare(alone["compile"], alone) == pytest.approx(-0.45)  # nothing better to compare with


# README and pictures


@pytest.fixture
def checkout(tmp_path):
    """A page with every marker and the small set's results."""
    for suite, rows in samples.small().items():
        write_rows(rows, path_of(tmp_path / "benchmarks/results", rows[0].device, suite))
    names = ["demo", "op", "model", "latency", "memory"]
    tables = [f"# {name}\n<!-- table: {name} -->\nold\n<!-- end -->\n" for name in names]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/benchmarks.md").write_text("".join([*tables, "<!-- figures -->\n<!-- end -->\nlast\n"]))
    return tmp_path


FOLDER = "benchmarks/results/example-cpu-2-threads"


def test_report_writes_and_check_sees_every_change(checkout, capsys):
    assert report(check=True, root=checkout) == 1
    assert report(root=checkout) == 0
    text = (checkout / "docs/benchmarks.md").read_text()
    assert "old" not in text and text.endswith("last\n") and "Not measured yet: `make demo`." in text
    images = re.findall(r"!\[.+\]\((.+)\)", text)
    assert images == [f"../{FOLDER}/{name}.png" for name in FIGURES]
    assert all((checkout / "docs" / image).exists() for image in images)
    capsys.readouterr()
    assert report(check=True, root=checkout) == 0
    assert capsys.readouterr().out == "docs/benchmarks.md and the pictures agree with the results\n"

    changed = text.replace("+6.0 %", "+5.0 %", 1)
    assert changed != text
    (checkout / "docs/benchmarks.md").write_text(changed)
    assert disagreements(checkout) == ["docs/benchmarks.md and the results differ: run adapter-fast report"]
    (checkout / "docs/benchmarks.md").write_text(text)
    (checkout / FOLDER / "floor.png").unlink()
    assert disagreements(checkout) == [f"{FOLDER}/floor.png is missing: run adapter-fast report"]


def test_a_picture_older_than_its_results_is_seen(checkout):
    report(root=checkout)
    path = path_of(checkout / "benchmarks/results", samples.CPU["device"], "memory")
    rows = samples.small()["memory"]
    write_rows([replace(rows[0], peak_bytes=rows[0].peak_bytes + 10), *rows[1:]], path)
    assert disagreements(checkout) == [
        f"{FOLDER}/memory.{kind} was drawn from other results: run adapter-fast report" for kind in ("png", "svg")
    ]
    path.unlink()
    assert f"{FOLDER}/memory.png has no results" in disagreements(checkout)
    report(root=checkout)
    assert disagreements(checkout) == [] and not (checkout / FOLDER / "memory.png").exists()


def test_nothing_measured_is_said_and_an_unknown_table_refused(tmp_path):
    text = "<!-- table: {} -->\n<!-- end -->\n<!-- figures -->\n<!-- end -->\n"
    fresh = render(text.format("model"), tmp_path)
    assert re.findall("Not measured yet: `(.+)`", fresh) == ["adapter-fast bench --suite model", "adapter-fast bench"]
    with pytest.raises(
        ResultsError, match=r"table must be one of demo, op, model, latency, memory, modes, paper, .*, got 'modle'"
    ):
        render(text.format("modle"), tmp_path)


def test_results_of_another_schema_are_one_line(checkout):
    path = path_of(checkout / "benchmarks/results", samples.CPU["device"], "op")
    path.write_text(json.dumps([{"suite": "op", "speed": 3}]))
    with pytest.raises(
        ResultsError, match=r"op.json: row 0 is of another schema \(lacks case, .*; has speed\)"
    ) as caught:
        report(root=checkout)
    assert "\n" not in str(caught.value)


def test_keep_demo(checkout, tmp_path_factory, capsys):
    source = tmp_path_factory.mktemp("demo") / "results.json"
    run = {"trained": 10, "share": 0.5, "accuracy": 0.9, "step_seconds": 0.1, "peak_bytes": 5e6, "peak_meaning": "most"}
    run |= {
        "settings": dict.fromkeys(("train_size", "test_size", "max_length", "epochs", "batch_size"), 4),
        "losses": [1],
    }
    record = {
        "methods": dict.fromkeys(("head", "reference", "fused", "full"), run),
        "seconds": 90,
        "loss_difference": 1e-7,
    }
    source.write_text(json.dumps(record))
    assert report(keep_demo=source, root=checkout) == 0
    [kept] = checkout.glob("benchmarks/results/*/demo.json")
    assert "losses" not in kept.read_text()
    page = (checkout / "docs/benchmarks.md").read_text()
    assert "| adapters (fused) | 10 (50.00 %) | 0.900 | 0.10 | 5 MB |\n" in page
    source.write_text('{"methods": {}}')
    with pytest.raises(ResultsError, match="not a demo's results: expected the methods head, reference, fused, full"):
        report(keep_demo=source, root=checkout)


# Pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Both sets, drawn once."""
    return {name: draw_plots(make(), tmp_path_factory.mktemp(name)) for name, make in SETS.items()}


@pytest.mark.parametrize("name", SETS)
def test_pictures_are_made_and_not_blank(pictures, name):
    from matplotlib.image import imread

    assert [path.name for path in pictures[name]] == [
        f"{figure}.{kind}" for figure in FIGURES for kind in ("png", "svg")
    ]
    for path in pictures[name]:
        if path.suffix == ".png":
            image = (imread(path)[:, :, :3] * 255).astype(np.uint32)
            _, counts = np.unique(image @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_counts=True)
            assert (counts > 50).sum() > 10 and counts.max() < 0.97 * counts.sum(), path.name
            assert min(image.shape[:2]) > 400


def words(path: Path) -> str:
    """All text of an SVG, line by line."""
    return "\n".join(re.findall(r">([^<>]+)</t", path.read_text("utf-8")))


def test_pictures_say_what_they_show(pictures):
    small = {path.stem: words(path) for path in pictures["small"] if path.suffix == ".svg"}
    large = {path.stem: words(path) for path in pictures["large"] if path.suffix == ".svg"}
    for text in small.values():
        assert "Example(R) CPU, 2 threads, float32, 2026-11-22" in text
        assert "torch 2.13.0+cpu, Triton 3.9.0, transformers 5.23.0, commit 0123456789ab" in text
    for name in ("floor", "memory", "latency"):
        assert "AdapterHub: not run, AdapterHub is not installed: make peers" in small[name], name
    for part in (
        "forward+backward, d = 4096",
        "fused, m = 256",
        "float32 weights",
        "64k",
        "CUDA graph, inputs in no cache",
    ):
        assert part in large["speedup"], part
    assert "two kernels" in large["floor"] and "AdapterHub" in large["memory"]
    for part in ("gpt2-medium, batch 32, 512 tokens", "PEFT LoRA, merged", "+34.0 %", "−7.0 %", "bare model, p50"):
        assert part in large["latency"], part


@pytest.mark.parametrize("name", SETS)
def test_no_text_of_a_picture_is_cut_or_runs_into_another(name):
    import matplotlib

    for figure_name, rows in drawable(SETS[name]()).items():
        with matplotlib.rc_context(STYLE):
            assert faults(PAINTERS[figure_name](rows)) == [], f"{name}/{figure_name}"


def test_pictures_are_the_same_each_time_and_carry_their_rows(tmp_path):
    rows = {"memory": samples.memory_rows([(256, 128, 16)])}
    first, second = draw_plots(rows, tmp_path / "a"), draw_plots(rows, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {digest_of(path) for path in first} == {digest_rows(rows["memory"])}
    changed = [replace(rows["memory"][0], peak_bytes=1), *rows["memory"][1:]]
    assert digest_rows(changed) != digest_rows(rows["memory"])


def test_a_write_that_fails_leaves_the_old_picture(tmp_path, monkeypatch):
    rows = {"memory": samples.memory_rows([(256, 128, 16)])}
    [path] = draw_plots(rows, tmp_path, ("png",))
    before = path.read_bytes()
    monkeypatch.setattr("adapter_fast.common.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        draw_plots(rows, tmp_path, ("png",))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_was_not_measured_is_not_drawn(tmp_path):
    op = samples.op_rows([(256, 128, 16)])
    alone = [replace(row, floor_us=None) for row in op if row.provider == "fused"]
    assert [path.name for path in draw_plots({"op": op}, tmp_path, ("png",))] == ["speedup.png", "floor.png"]
    assert drawable({"op": alone}) == {}
    assert drawable({"latency": [row(provider="fused", note="no")], "memory": []}) == {}
    assert drawable({}) == {}


def test_speedup_shows_the_preferred_mode_only():
    rows = drawable(samples.large())["speedup"]
    assert {row.mode for row in rows} == {"graph-cold"} and {"two-kernel", "adapterhub"}.isdisjoint(
        r.provider for r in rows
    )


def test_every_provider_has_a_colour_of_its_own():
    everyone = [*PROVIDERS.values(), provider_of("someone else")]
    assert len({provider.colour for provider in everyone}) == len({one.label for one in everyone}) == len(everyone)


def test_the_benchmarks_readme_says_who_each_provider_is():
    page = (ROOT / "benchmarks/README.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\w, -]+) \|", page.partition("| provider |")[2].partition("\n\n")[0], re.M)
    named = [name for row in rows for name in row.split(", ") if not name.startswith("---")]
    modes = {f"fused-{memory}" for memory in MEMORY_MODES}  # ours, in the other memory modes
    assert sorted(named) == sorted(PROVIDERS.keys() - modes)


# The screen


def on_screen(rows, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO())
    screen(rows, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", SETS)
def test_screen_holds_its_width(name, width):
    cases = {rows[0].case for rows in SETS[name]().values()} | {"T16384-d768-m64-bfloat16-w32"}
    text = on_screen([row for rows in SETS[name]().values() for row in rows if row.case in cases], width)
    assert max(map(len, text.splitlines())) <= width
    assert "…\n" not in text and "\x1b" not in text
    assert "adapterhub" in text and "two-kernel  did not run: no backward" in text


def test_screen_says_all_of_a_row():
    lines = on_screen(op_group(), 100).splitlines()
    assert lines[1:5] == [
        "op: Example(R) CPU, 2 threads, float32, 2026-11-22",
        "torch 2.13.0+cpu, Triton 3.9.0, transformers 5.23.0, commit 0123456789ab",
        "",
        "T4096-d768-m64-float32",
    ]
    table = [" ".join(line.split()) for line in lines[5:]]
    assert table[:7] == [
        "forward, eager",
        "provider time p20 … p80 × reference floor peak MB of ref",
        "fused 1,000 µs 980 … 1,040 1.50 faster 50 % 0.000 0.50",
        "reference 1,500 µs 1,470 … 1,560 1.00 0.000 1.00",
        "compile 1,250 µs 1,225 … 1,300 1.20",
        "adapterhub did not run: AdapterHub is not installed: make peers",
        "compile: default",
    ]


def test_screen_of_a_model_shows_overhead_and_tokens():
    text = on_screen(samples.small()["latency"], 120)
    [fused] = [" ".join(line.split()) for line in text.splitlines() if line.startswith("  fused ")]
    assert fused == "fused 191 ms 206 229 1.10 faster +6.0 % +10,800 96 % 671 4.1 M"
    narrow = on_screen(samples.small()["latency"], 80)
    assert "over bare" in narrow and "parameters" not in narrow


def test_headline_says_where_ours_loses():
    rows = []
    for T, ours, verdict in ((256, 800.0, "faster"), (1024, 2000.0, "slower")):
        shared = {"case": f"T{T}", "tokens": T}
        rows += [timed(ours, provider="fused", versus=verdict, peak_bytes=50, **shared)]
        rows += [timed(1000.0, provider="reference", peak_bytes=100, **shared), row(provider="adapterhub", note="gone")]
        rows += [timed(1000.0, provider="compile", **shared), timed(900.0, provider="two-kernel", **shared)]
    assert headline(rows) == [
        "op forward: fused 1.26× SLOWER than the reference (faster in 1, slower in 1 of 2); "
        "1.41× SLOWER than the fastest peer (behind two-kernel in 1 of 2)",
        "peak memory of fused over the reference's: 0.50 in op",
    ]
    assert headline([row(provider="adapterhub", note="gone")]) == []


def test_headline_of_a_model_sets_compiled_against_compiled():
    shared = {"suite": "model", "phase": "step", **MODEL}
    times = {"fused": 110e3, "fused-compile": 80e3, "reference": 121e3, "compile": 100e3, "bare": 100e3, "full": 50e3}
    rows = [timed(us, provider=name, versus="faster", **shared) for name, us in times.items()]
    assert headline(rows) == [
        "model step: fused 1.10× as fast as the reference (faster in 1 of 1); "
        "compiled, 1.25× as fast as the fastest peer; +10.0 % over the bare model"
    ]
