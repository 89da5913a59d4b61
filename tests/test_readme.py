"""What README and docs/benchmarks.md say: the example runs, tables are the results, commands exist."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny_models import build

from adapter_fast.benchmarks.pages.report import disagreements, render
from adapter_fast.benchmarks.rows.provenance import RESULTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text("utf-8")
EXAMPLE = re.search(r"```python\n(.*?)```", README, re.S)[1]


def test_the_example_has_eight_lines_and_runs(monkeypatch, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    code = [line for line in EXAMPLE.splitlines() if line.strip()]
    assert len(code) <= 8
    made = []

    def from_pretrained(name, num_labels):
        made.append(build("bert", num_labels=num_labels))
        return made[-1]

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(EXAMPLE, namespace)

    model = namespace["model"]
    assert model is made[0]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("adapter" in name for name in trained) and "classifier.weight" in trained
    assert not any("query" in name for name in trained)
    assert "one fused launch each way" in capsys.readouterr().out
    from adapter_fast import load_adapters

    fresh = build("bert", num_labels=2)
    load_adapters(fresh, tmp_path / "my-task")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.isfinite(fresh.eval()(ids).logits).all()


def test_tables_and_figures_are_the_committed_results():
    assert disagreements(ROOT) == []
    assert "| adapters (fused) |" in BENCHMARKS and "| forward+backward |" in BENCHMARKS


def test_a_changed_figure_would_be_seen():
    changed = re.sub(r"(\| adapters \(fused\) \|.*?\| )0\.\d+", r"\g<1>0.999", BENCHMARKS)
    assert changed != BENCHMARKS and render(changed, RESULTS) != changed


def test_the_kernels_page_runs_one_kernel():
    page = (ROOT / "kernels/README.md").read_text("utf-8")
    code = textwrap.dedent(re.search(r"python - <<'PY'\n(.*?)    PY\n", page, re.S)[1])
    command, environment = [sys.executable, "-c", code], {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(re.search(r"tensor\((\S+)\)", done.stdout)[1]) < 1e-5


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", README + BENCHMARKS)) - {"the"}:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_claims_no_gpu_figure_without_a_gpu_result():
    on_gpu = [path for path in RESULTS.glob("*/*.json") if "nvidia" in path.parent.name]
    assert on_gpu or "**On a GPU: not measured yet.**" in BENCHMARKS


def test_it_is_one_screen():
    assert len(README.splitlines()) <= 120


PAGES = ["README.md", "CONTRIBUTING.md", "kernels/README.md", "kernels/forms/README.md", "benchmarks/README.md"]


@pytest.mark.parametrize("page", [*PAGES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target
