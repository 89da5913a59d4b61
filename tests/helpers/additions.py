"""What the diffs of docs/extending.md add, at work: run in a copy of the checkout to which they have been applied.

Prints one JSON object: each section of the page, and "" or how it failed.
"""

from __future__ import annotations

import io
import json
import os
import traceback
from contextlib import redirect_stdout, suppress
from pathlib import Path

import torch

from adapter_fast import AdapterConfig, FusedAdapter, adapter_summary, add_adapters, fused_adapter, reference_adapter
from adapter_fast.checks import select_backend
from adapter_fast.testing import Case, assert_case, evaluate, grad_output, make_inputs


def choices(command, option):
    """What a click command takes for an option."""
    return list(next(one.type.choices for one in command.params if one.name == option))


def an_activation():
    from adapter_fast.checkpoint.adapterhub.config import to_bn_config
    from adapter_fast.tasks.commands import tune

    case = Case(21, 40, 9, torch.float64, activation="leaky_relu", scale=0.7)
    inputs, dy = make_inputs(case), grad_output(case)
    expected = evaluate(reference_adapter, case, inputs, dy)
    plain = evaluate(reference_adapter, Case(21, 40, 9, torch.float64, activation="gelu", scale=0.7), inputs, dy)
    assert (expected["y"] - plain["y"]).abs().max() > 1e-3
    for interpret, backend in (("1", "triton-interpreter"), ("0", "torch")):
        os.environ["TRITON_INTERPRET"] = interpret
        assert select_backend(torch.device("cpu"), torch.float64).name == backend
        found = evaluate(fused_adapter, case, inputs, dy)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12, msg=f"{backend}: {name}")
    assert "leaky_relu" in choices(tune, "activation")
    refused(to_bn_config, AdapterConfig(activation="leaky_relu"), 32, [])


def a_family():
    from benchmarks.pages.families import page

    model = build("camembert")
    before = logits(model)
    enlarge(add_adapters(model, AdapterConfig(8)))
    assert len(adapter_summary(model).sites) == 4
    assert (logits(model) - before).norm() > 0.02 * before.norm()
    assert "| CamemBERT | `camembert` |" in page()


def a_placement():
    from adapter_fast.checkpoint.adapterhub.config import to_bn_config
    from adapter_fast.placement.sites import find_sites
    from adapter_fast.tasks.commands import tune
    from adapter_fast.tasks.kinds.settings import Settings
    from adapter_fast.tasks.models import adapter_config
    from benchmarks.pages.families import page

    config = AdapterConfig.before_dropout(bottleneck=8)
    assert adapter_config(Settings("m", "t", placement="before_dropout")).placement == "before_dropout"
    assert "before_dropout" in choices(tune, "placement") and "- **before_dropout**: " in page()
    model = build()
    assert [site.name[-12:] for site in find_sites(model, config)] == 4 * ["output.dense"]
    # Without dropout it computes what Houlsby's place does.
    expected = logits(enlarge(add_adapters(build(), AdapterConfig(8))))
    torch.testing.assert_close(logits(enlarge(add_adapters(model, config))), expected)
    refused(to_bn_config, config, 32, [])


def a_kernel_form():
    from adapter_fast.kernels.forms import tall
    from adapter_fast.kernels.offers import VARIABLE

    os.environ["TRITON_INTERPRET"], launch, calls = "1", tall.launch, []

    def counted(*args, **settings):
        calls.append(args)
        return launch(*args, **settings)

    tall.launch = counted
    case = Case(40, 64, 16, torch.float16)
    assert_case(fused_adapter, case)
    assert not calls
    os.environ[VARIABLE] = "tall"
    assert_case(fused_adapter, case)
    assert calls
    adapter = FusedAdapter(64, 16, dtype=torch.float16)
    assert "the tall form, asked for" in adapter.explain(torch.zeros(40, 64, dtype=torch.float16)).reason


def a_peer():
    from adapter_fast.benchmarks.commands import bench
    from adapter_fast.benchmarks.peers.op_peers import op_contenders
    from adapter_fast.benchmarks.shown.wording import label

    assert "addmm" in choices(bench, "providers") and label("addmm") == "two addmm"
    contender = op_contenders(Case(24, 32, 8), "forward+backward", autotune=False)["addmm"]()
    contender.warm()
    contender.check()
    assert contender.sampler("eager")() > 0


def an_experiment():
    import sample_experiments as samples

    from adapter_fast.cli import main
    from adapter_fast.experiments.commands import experiment
    from adapter_fast.experiments.find import Experiment, find_experiment
    from benchmarks.pages.paper import command, tables

    out = io.StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        main(["--help"])
    assert "ablation, rates" in " ".join(out.getvalue().split()) and "rates" in choices(experiment, "name")
    module = find_experiment("rates")
    wanted = {*Experiment.__annotations__, *(name for name in vars(Experiment) if not name.startswith("_"))}
    assert wanted and all(hasattr(module, name) for name in wanted)
    result = samples.result(
        module, [samples.run(accuracy=score, lr=rate) for rate, score in ((1e-3, 0.5), (3e-3, 0.6))]
    )
    assert "| 0.003 | 60.0 |" in module.table(result)
    assert module.finding(result) == "accuracy 50.0 to 60.0 over tasks and learning rates"
    assert command("rates") in tables("rates", Path("none"))


def a_kind_of_task():
    import numpy as np

    from adapter_fast.tasks.commands import tune
    from adapter_fast.tasks.data.encoded import Encoded
    from adapter_fast.tasks.kinds.find import load_kind
    from adapter_fast.tasks.kinds.settings import Settings

    assert "text-grading" in choices(tune, "kind")
    Path("stars.csv").write_text("text,label\ngood,4\nbad,1\nfair,2\n")
    kind = load_kind("text-grading")
    rows = kind.read("stars.csv", Settings("m", "stars.csv", kind="text-grading"))
    assert rows.texts == ["good", "bad", "fair"] and kind.labels(rows) == ["4", "1", "2"]
    encoded = Encoded(rows, ["1", "2", "4"], {"labels": [2, 0, 1]})
    near, far = (kind.score(np.eye(3)[grades], encoded) for grades in ([1, 0, 1], [0, 0, 1]))
    assert list(near) == ["kappa", "accuracy", "macro_f1"] and near["accuracy"] == far["accuracy"]
    assert near["kappa"] > far["kappa"]


def refused(function, *arguments):
    """Whether AdapterHub's files, which have no word for it, refuse it in words."""
    try:
        function(*arguments)
    except ValueError as error:
        assert "cannot be told in AdapterHub's files" in str(error)
    else:
        raise AssertionError("not refused")


CHECKS = (an_activation, a_family, a_placement, a_kernel_form, a_peer, an_experiment, a_kind_of_task)

if __name__ == "__main__":
    from tiny_models import build, enlarge, logits

    # Kernels are interpreted or not as the variable says when they are imported.
    import adapter_fast.kernels.backward
    import adapter_fast.kernels.forms.sliced  # noqa: F401

    said = {}
    for check in CHECKS:
        os.environ["TRITON_INTERPRET"] = "0"  # a check of the kernels asks for the interpreter
        try:
            check()
            said[check.__name__] = ""
        except Exception:
            said[check.__name__] = traceback.format_exc()
    print(json.dumps(said))
