"""The choice of tiles: pure Python, total over its domain, independent of the number of tokens."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from adapter_fast.kernels import tuned
from adapter_fast.kernels.offers import OPTIONAL_FORMS, VARIABLE, requested_forms
from adapter_fast.kernels.shapes import TOKENS, LaunchConfig, Problem, bucket, family, padded
from adapter_fast.kernels.tiles import converted, forced, forced_choices, ruled, select_tiles, split_count
from adapter_fast.ops.explain import launch_form

KERNELS = Path(__file__).resolve().parents[2] / "kernels"

ARCHITECTURES = [
    "sm_80",
    "sm_86",
    "sm_89",
    "sm_90",
    "sm_100",
    "sm_103",
    "sm_120",
    "sm_121",
    "gfx90a",
    "gfx942",
    "gfx950",
]
KINDS = [(2, 2, "ieee"), (2, 4, "ieee"), (4, 4, "tf32"), (4, 4, "ieee"), (4, 2, "ieee"), (8, 8, "ieee"), (2, 8, "ieee")]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("x_bytes, w_bytes, precision", KINDS)
def test_an_answer_for_every_bottleneck(arch, x_bytes, w_bytes, precision):
    for m in (*range(1, 70), 127, 128, 129, 255, 256, 257, 512, 513, 2048):
        problems = [Problem(768, m, x_bytes, w_bytes, precision, arch, aligned=aligned) for aligned in (True, False)]
        for phase, problem in product(("forward", "dx", "expand", "weight_grad"), problems):
            config = select_tiles(phase, problem)
            assert isinstance(config, LaunchConfig)
            for block in (config.BLOCK_T, config.BLOCK_D, config.BLOCK_M):
                assert block >= 16 and block & (block - 1) == 0
            if config.form == "fused" and phase != "weight_grad":
                assert m <= config.BLOCK_M == padded(m) <= 256


def test_wide_bottlenecks_are_two_launches():
    """On Hopper from 256, where one launch would read the weights too often; elsewhere above that."""
    for m, form in ((1, "fused"), (64, "fused"), (128, "fused"), (129, "split"), (256, "split"), (512, "split")):
        assert select_tiles("forward", Problem(768, m, 2, 2, "ieee", "sm_90")).form == form
    for m, form in ((256, "fused"), (257, "split")):
        assert select_tiles("forward", Problem(768, m, 2, 2, "ieee", "sm_80")).form == form
    for tokens, rows in ((2048, 64), (65536, 128)):
        problem = Problem(768, 512, 2, 2, "ieee", "sm_90", tokens=tokens)
        assert [select_tiles(phase, problem).BLOCK_T for phase in ("forward", "dx", "expand")] == [rows] * 3


def test_families():
    assert [family(arch) for arch in ("sm_80", "sm_86", "sm_89", "sm_90", "sm_103", "sm_121", "gfx90a")] == [
        "sm_80",
        "sm_120",
        "sm_120",
        "sm_90",
        "sm_100",
        "sm_120",
        "gfx942",
    ]


def test_padding():
    assert [padded(m) for m in (1, 16, 17, 64, 65, 256, 257)] == [16, 16, 32, 64, 128, 256, 512]


def test_runs_of_tokens():
    assert split_count(100, 12, 64, 132) == 1
    assert split_count(65536, 12, 64, 132) == 22
    assert split_count(4096, 12, 64, 132) == 4
    assert split_count(65536, 5000, 64, 132) == 1


def test_needs_no_triton():
    code = "import sys; sys.modules['triton'] = sys.modules['torch'] = None\n"
    code += f"import types; package = types.ModuleType('kernels'); package.__path__ = [{str(KERNELS)!r}]\n"
    code += "sys.modules['kernels'] = package; import kernels.tiles"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


CHOICES = [
    (arch, x, w, precision, aligned)
    for arch in ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
    for x, w, precision in KINDS
    for aligned in (True, False)
]


@pytest.mark.parametrize("arch, x_bytes, w_bytes, precision, aligned", CHOICES)
def test_the_order_of_sums_does_not_depend_on_the_number_of_tokens(arch, x_bytes, w_bytes, precision, aligned):
    for optional, phase, m, d in product(
        ((), ("sliced",)),
        ("forward", "dx", "dx_z", "dx_x"),
        (8, 64, 128, 256, 512),
        (768, 2048, 4096),
    ):
        problem = Problem(d, m, x_bytes, w_bytes, precision, arch, aligned=aligned, optional=optional)
        orders = {select_tiles(phase, replace(problem, tokens=tokens)).order for tokens in TOKENS}
        assert len(orders) == 1, (optional, phase, m, d, orders)


def test_few_tokens_take_narrow_tiles_so_that_more_multiprocessors_have_one():
    problem = Problem(4096, 128, 2, 2, "ieee", "sm_90")
    assert [select_tiles("forward", replace(problem, tokens=n)).BLOCK_T for n in TOKENS] == [64, 64, 128, 128]


def test_buckets():
    assert [bucket(T) for T in (1, 128, 129, 2048, 2049, 16384, 16385, 65536, 10**9)] == [
        128,
        128,
        2048,
        2048,
        16384,
        16384,
        65536,
        65536,
        65536,
    ]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("aligned", [True, False])
def test_converted_weights_are_summed_in_the_order_of_few_tokens(arch, aligned):
    """The second launch of the split form too."""
    for m, direction in product((12, 64, 100, 128, 256, 509), ("forward", "backward")):
        phases = ("forward",) if direction == "forward" else ("dx", "dx_z", "dx_x")
        orders = set()
        for tokens in TOKENS:
            problem = Problem(768, m, 2, 4, "ieee", arch, aligned=aligned, tokens=tokens)
            chosen = [select_tiles(phase, converted(direction, problem)) for phase in phases]
            if any(config.form == "split" for config in chosen):
                chosen.append(select_tiles("expand", converted(direction, problem)))
            orders.add(tuple(config.order for config in chosen))
        assert len(orders) == 1, (m, direction)


def test_forced_tiles_are_taken_and_given_back():
    problem = Problem(768, 64, 2, 2, "ieee", "sm_90")
    mine = LaunchConfig("fused", 32, 32, 64, 2, 1)
    with forced(forward=mine):
        held = replace(problem, forced=forced_choices())
        assert select_tiles("forward", held) == mine
        assert select_tiles("dx", held) == select_tiles("dx", problem)
    assert forced_choices() == ()


def test_optional_forms_are_named_in_a_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, " sliced, sliced ,")
    assert requested_forms() == ("sliced",)
    monkeypatch.setenv(VARIABLE, "")
    assert requested_forms() == ()
    monkeypatch.setenv(VARIABLE, "sliced,fast")
    with pytest.raises(ValueError, match=r"ADAPTER_FAST_KERNELS must name forms out of .*, got 'fast'"):
        requested_forms()


def test_no_optional_form_is_a_default_unless_it_was_measured():
    for arch, x_bytes, w_bytes, precision, aligned in CHOICES:
        for m, d, tokens in product((8, 64, 256, 512), (768, 4096), TOKENS):
            problem = Problem(d, m, x_bytes, w_bytes, precision, arch, aligned=aligned, tokens=tokens)
            measured = {row["form"] for row in tuned_rows(arch)}
            for phase in ("forward", "dx", "dx_z", "dx_x", "expand", "weight_grad"):
                form = select_tiles(phase, problem).form
                assert form not in OPTIONAL_FORMS or form in measured


def tuned_rows(arch):
    path = tuned.FOLDER / f"{arch}.json"
    return json.loads(path.read_text()) if path.exists() else []


def test_every_tuned_file_is_read():
    for path in tuned.FOLDER.glob("*.json"):
        assert tuned.parse(json.loads(path.read_text()), path.name)


ROW = dict.fromkeys(tuned.MEASURED, 1.0) | {
    "kind": "16",
    "phase": "forward",
    "D": 768,
    "M": 64,
    "tokens": 16384,
    "form": "fused",
    "BLOCK_T": 32,
    "BLOCK_D": 128,
    "BLOCK_M": 64,
    "num_warps": 2,
    "num_stages": 4,
}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Write rows as the measured table of sm_90."""

    def write(*rows):
        (tmp_path / "sm_90.json").write_text(json.dumps(rows))
        monkeypatch.setattr(tuned, "FOLDER", tmp_path)
        for cached in (tuned._table, select_tiles):
            cached.cache_clear()

    yield write
    monkeypatch.undo()
    for cached in (tuned._table, select_tiles):
        cached.cache_clear()


def test_a_measured_row_comes_first_and_serves_its_neighbours(measured):
    measured(ROW, ROW | {"tokens": 65536, "num_warps": 8})
    chosen = lambda **changes: select_tiles("forward", replace(Problem(768, 64, 2, 2, "ieee", "sm_90"), **changes))  # noqa: E731
    assert chosen(tokens=16384) == LaunchConfig("fused", 32, 128, 64, 2, 4)
    assert chosen(tokens=65536).num_warps == 8
    assert chosen(tokens=128).num_warps == 2  # the nearest number of tokens
    assert chosen(D=1024).num_warps == 8  # the nearest hidden size within a factor of two
    assert chosen(M=40).num_warps == 8  # the same padded bottleneck
    others = {"D": 2048}, {"M": 128}, {"w_bytes": 4}, {"arch": "sm_80"}, {"aligned": False}
    for change in others:
        assert chosen(**change).BLOCK_D != 128, change


FUSED = ROW | {"BLOCK_T": 64, "BLOCK_D": 64, "num_warps": 4, "num_stages": 3, "partial_sums": True}
SLICED = FUSED | {"tokens": 128, "form": "sliced"}


def test_measured_rows_serve_for_all_numbers_of_tokens_or_for_none(measured):
    def served(**changes):
        problem = replace(Problem(768, 64, 2, 2, "ieee", "sm_90"), **changes)
        problems = [replace(problem, tokens=tokens) for tokens in TOKENS]
        assert len({select_tiles("forward", one).order for one in problems}) == 1
        return [select_tiles("forward", one) == ruled("forward", one) for one in problems]

    measured(SLICED, FUSED | {"tokens": 2048})
    assert not any(served())
    assert all(served(sms=8))  # for 24 programs that wait for each other


@pytest.mark.parametrize("d", [768, 1024, 4096])
def test_the_rules_decide_on_the_forward_where_a_form_is_asked_for(measured, d):
    """Few tokens take partial sums, which measured rows for more tokens do not."""
    rows = (FUSED | {"phase": phase, "D": d, "num_stages": 5, "partial_sums": False} for phase in ("forward", "dx"))
    measured(*rows)
    for tokens in TOKENS:
        problem = Problem(d, 64, 2, 2, "ieee", "sm_90", tokens=tokens, optional=("sliced",))
        chosen = select_tiles("forward", problem)
        assert chosen == ruled("forward", problem) and chosen.partial_sums
        plain = replace(problem, optional=())
        assert select_tiles("forward", plain) != ruled("forward", plain)
        assert select_tiles("dx", problem) == select_tiles("dx", plain) != ruled("dx", plain)


def phrase(d, m, T=4, dtype=torch.float16):
    """What explain() says of the launches under the interpreter, which takes the tiles of sm_90."""
    return launch_form(torch.device("cpu"), dtype, dtype, T, d, m)


def test_why_there_are_slices(measured, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sliced")
    measured(SLICED | {"D": 128}, FUSED | {"D": 128, "tokens": 2048})
    assert phrase(128, 64) == "one fused launch each way at m = 64; the sliced form, asked for"
    monkeypatch.delenv(VARIABLE)
    assert phrase(128, 64) == "one fused launch each way at m = 64; the sliced form, measured"


def test_why_there_are_two_launches(measured):
    assert phrase(768, 512) == "two launches for forward and dx at m = 512: a fused tile of that width does not fit"
    by_model = "by the model of traffic they move less than one, which is not measured yet"
    assert phrase(768, 200) == f"two launches for forward and dx at m = 200: {by_model}"
    assert phrase(770, 256).startswith("two launches for forward and dx at m = 256: a fused tile")
    measured(FUSED | {"M": 256, "form": "split", "BLOCK_M": 128, "partial_sums": False})
    two = "two launches for forward at m = 256: measured; two launches for dx at m = 256: by the model"
    assert phrase(768, 256).startswith(two)
    with forced(forward=LaunchConfig("split", 16, 32, 16, 4, 1)):
        assert phrase(768, 64) == "two launches for forward at m = 64: forced"


def test_a_tuned_table_is_checked():
    for change, message in (
        ({"tokens": 100}, "row 0: tokens must be one of"),
        ({"BLOCK_T": None}, "row 0 has no BLOCK_T"),
        ({"us_p50": None}, "row 0 has no us_p50"),
        ({"form": "resident"}, r"row 0: form must be one of \('fused', 'split', 'sliced'\), got 'resident'"),
    ):
        row = {name: value for name, value in (ROW | change).items() if value is not None}
        with pytest.raises(ValueError, match=f"table: {message}"):
            tuned.parse([row], "table")
    with pytest.raises(ValueError, match="row 1 measures a shape a second time"):
        tuned.parse([ROW, ROW], "table")
    slices = ROW | {"partial_sums": True}
    for one, other in ((ROW, {"BLOCK_T": 64}), (ROW, {"partial_sums": True}), (slices, {"BLOCK_D": 64})):
        with pytest.raises(ValueError, match="row 1 sums in another order"):
            tuned.parse([one, one | {"tokens": 128} | other], "table")


def test_weights_are_not_said_to_be_converted_where_another_dtype_made_the_same_problem():
    few = [launch_form(torch.device("cpu"), x, torch.float32, 4, 768, 64) for x in (torch.bfloat16, torch.float16)]
    assert not any("converted" in form for form in few)
