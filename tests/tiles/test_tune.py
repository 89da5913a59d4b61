"""The tuner tries what is sensible, refuses what is wrong or hangs, chooses by the agreed margins, and can resume."""

import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from adapter_fast.benchmarks.tiles.tune import __main__ as command
from adapter_fast.benchmarks.tiles.tune import examine
from adapter_fast.benchmarks.tiles.tune.campaign import Target, op_phase, rehearsal, targets
from adapter_fast.benchmarks.tiles.tune.candidates import MOST, all_tiles, candidates
from adapter_fast.benchmarks.tiles.tune.choosing import choose, geometric_mean, shortlist, wins
from adapter_fast.benchmarks.tiles.tune.examine import Candidate, Examiners, Verdict
from adapter_fast.benchmarks.tiles.tune.forced import ForcedOp
from adapter_fast.benchmarks.tiles.tune.session import Session, checked_tokens
from adapter_fast.benchmarks.tiles.tuned_rows import merge_tuned, read_tuned
from adapter_fast.kernels import tuned
from adapter_fast.kernels.offers import fits
from adapter_fast.kernels.shapes import TOKENS, LaunchConfig, Problem
from adapter_fast.kernels.tiles import select_tiles
from adapter_fast.measure.clock import Spread
from adapter_fast.testing import Case

A = LaunchConfig("fused", 64, 64, 64, 4, 3)
B = replace(A, BLOCK_T=128, num_warps=8)  # the order of A
C = replace(A, BLOCK_D=128, partial_sums=True)  # another
OPTIONAL = replace(A, form="sliced")
ORIGIN = {"device": "a GPU", "torch": "2", "triton": "3", "transformers": "5", "commit": "abc", "date": "2026-01-01"}


def took(us, noise=0.0):
    return Spread(us * (1 - noise), us, us * (1 + noise), us, us)


def problem_at(tokens, d=768, m=64, **options):
    return Problem(d, m, 2, 2, "ieee", "sm_90", tokens=tokens, **options)


# ---- candidates


SHAPES = [(768, 16), (1024, 128), (8192, 256), (4096, 512)]
CASES = [(phase, *shape) for phase in ("forward", "dx", "dx_z", "dx_x", "weight_grad") for shape in SHAPES]
CASES += [("expand", *shape) for shape in SHAPES[2:]]


@pytest.mark.parametrize(("phase", "d", "m"), CASES)
def test_candidates_are_few_sensible_and_hold_the_rules_own(phase, d, m):
    problems = [problem_at(tokens, d, m) for tokens in TOKENS]
    static = [select_tiles(phase, problem) for problem in problems]
    found = candidates(phase, problems, static)
    assert found[0] == static[0] and set(static) <= set(found)
    assert len(found) == len(set(found)) and 4 <= len(found) <= MOST + 3
    for config in found:
        assert all(size >= 16 and size & (size - 1) == 0 for size in (config.BLOCK_T, config.BLOCK_D, config.BLOCK_M))
        assert config.num_warps in (4, 8) and config.num_stages in (1, 2, 3, 4, 5)


def test_every_form_is_among_the_candidates_where_it_can_run():
    forms = lambda phase, problem: {one.form for one in all_tiles(phase, problem)}  # noqa: E731
    assert forms("forward", problem_at(128)) == {"fused", "sliced"}
    assert forms("forward", problem_at(65536)) == {"fused"}  # too many programs to wait for each other
    assert forms("forward", problem_at(65536, m=128)) == {"fused", "split"}
    assert forms("forward", problem_at(65536, m=512)) == {"split"}
    assert forms("dx", problem_at(128)) == {"fused"}


def test_a_sliced_candidate_brings_a_plain_kernel_of_its_order():
    problems = [problem_at(tokens, 4096) for tokens in TOKENS]
    found = candidates("forward", problems, [select_tiles("forward", problem) for problem in problems])
    wide = [one for one in found if one.form == "sliced" and one.BLOCK_T >= 64]
    assert wide
    for one in wide:
        assert any(other.form == "fused" and other.order == one.order for other in found)


def test_wide_steps_and_deep_pipelines_are_tried():
    problem = problem_at(16384, 1024)
    everything = [one for one in all_tiles("forward", problem) if one.form == "fused"]
    assert {one.BLOCK_D for one in everything} == {32, 64, 128, 256}
    assert {one.num_stages for one in everything} == {2, 3, 4, 5}
    found = candidates("forward", [problem], [A])
    assert {64, 128, 256} <= {one.BLOCK_D for one in found}
    assert {3, 4, 5} <= {one.num_stages for one in found if (one.BLOCK_T, one.BLOCK_D) == (64, 64)}


def test_what_the_model_holds_for_hopeless_is_not_tried():
    """128 tokens: steps of 32 columns are four times as many, one after another."""
    found = candidates("forward", [problem_at(128, 8192, 16)], [A])
    assert all(one.BLOCK_D > 32 for one in found if one.form == "fused")


# ---- choosing, by a made-up clock


def test_a_win_is_beyond_the_spread_and_the_margin():
    assert wins(took(97.9), took(100), 0.02)
    assert not wins(took(98.1), took(100), 0.02)
    assert not wins(took(96, noise=0.02), took(100, noise=0.02), 0.02)


def test_the_rules_keep_what_is_not_beaten_by_the_margin():
    static = {128: A, 2048: A}
    fine = {128: {A: took(100), B: took(99)}, 2048: {A: took(100), B: took(90)}}
    assert choose(static, fine, False) == {128: A, 2048: B}


def test_an_optional_form_must_win_by_five_percent():
    assert choose({128: A}, {128: {A: took(100), OPTIONAL: took(95.5)}}, False) == {128: A}
    assert choose({128: A}, {128: {A: took(100), OPTIONAL: took(94.9)}}, False) == {128: OPTIONAL}
    # Over the plain winner, not over the rules' own.
    fine = {128: {A: took(100), B: took(92), OPTIONAL: took(90)}}
    assert choose({128: A}, fine, False) == {128: B}


def test_one_order_for_all_tokens_by_the_geometric_mean():
    static = {128: A, 2048: A}
    fine = {128: {A: took(100), C: took(50)}, 2048: {A: took(100), B: took(95), C: took(120)}}
    assert choose(static, fine, False) == {128: C, 2048: C}  # √(0.5 · 1.2) < √0.95
    fine[2048][C] = took(210)
    assert choose(static, fine, False) == {128: A, 2048: B}
    assert choose(static, fine, True) == {128: C, 2048: B}  # sums over tokens may differ from size to size
    del fine[2048][C]  # an order that has no answer for every number of tokens
    assert choose(static, fine, False) == {128: A, 2048: B}


def test_another_order_must_win_as_a_whole_beyond_the_spread():
    fine = {128: {A: took(100, 0.02), C: took(97, 0.02)}}
    assert choose({128: A}, fine, False) == {128: A}
    assert choose({128: A}, {128: {A: took(100), C: took(97)}}, False) == {128: C}


def test_the_fine_round_has_the_best_of_the_best_orders_and_the_rules_own():
    D = replace(A, BLOCK_D=32, partial_sums=True)
    coarse = {128: {A: 1.0, B: 1.1, C: 0.8, D: 1.5, OPTIONAL: 0.9}, 2048: {A: 1.0, B: 0.9, C: 0.9, D: 1.4}}
    fine = shortlist({128: A, 2048: A}, coarse, False)
    assert set(fine[128]) == {A, B, C, OPTIONAL} and set(fine[2048]) == {A, B, C}
    assert fine[128][0] == fine[2048][0] == A


def test_geometric_mean():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert geometric_mean([1.0, float("inf")]) == float("inf")


# ---- a session with a made-up clock


class FakeClock:
    """Times by form and tile; remembers what it was asked."""

    copy_gbps = 3000.0

    def __init__(self, us, refuse=lambda config: "", origin=ORIGIN):
        self.us, self.refuse, self.origin = us, refuse, origin
        self.examined, self.timed = [], []

    def problem(self, target, T):
        return problem_at(next(n for n, count in target.tokens if count == T), target.d, target.m)

    def ruled(self, phase, problem):
        return select_tiles(phase, replace(problem, forced=()))

    def examine(self, tasks):
        self.examined += tasks
        return [Verdict(self.refuse(dict(task.choices)["forward"])) for task in tasks]

    def time(self, target, T, phase, memory, tiles, rounds):
        self.timed.append((T, phase, memory, dict(tiles), rounds))
        return {config: took(us) for config, choices in tiles.items() if (us := self.us(phase, config, choices, T))}

    def floor_us(self, target, T, phase):
        return 10.0


TARGET = Target(768, 64, torch.bfloat16, torch.bfloat16)


def session(tmp_path, clock, **options):
    return Session(clock, tmp_path / "sm_90.json", tell=lambda text: None, **options)


def wide_is_fast(phase, config, choices, T):
    return 50.0 if config.BLOCK_T == 128 else 100.0


def test_a_session_writes_rows_that_select_tiles_reads(tmp_path):
    clock = FakeClock(wide_is_fast)
    assert session(tmp_path, clock).run([TARGET]) == []
    rows = json.loads((tmp_path / "sm_90.json").read_text())
    assert [(row["phase"], row["tokens"]) for row in rows] == [
        (phase, n) for phase in ("dx", "forward", "weight_grad") for n in TOKENS
    ]
    parsed = tuned.parse(rows, "here")
    assert parsed[("16", "forward", 64)][768][128].BLOCK_T == 128
    forward = rows[len(TOKENS)]
    assert (forward["us_p50"], forward["us_ruled"], forward["floor_us"], forward["device"]) == (50, 100, 10, "a GPU")
    # The launches around the one that is tuned are named, so that no older table takes part.
    for *_, tiles, _ in clock.timed:
        for choices in tiles.values():
            assert {"forward", "dx", "weight_grad", "expand"} <= set(dict(choices))


def test_what_is_refused_is_never_timed(tmp_path):
    clock = FakeClock(wide_is_fast, refuse=lambda config: "spills 4 registers" if config.BLOCK_D == 128 else "")
    said = []
    run = session(tmp_path, clock, phases=("forward",))
    run.tell = said.append
    run.run([TARGET])
    timed = [config for *_, tiles, _ in clock.timed for config in tiles]
    assert timed and all(config.BLOCK_D != 128 for config in timed)
    assert any("spills 4 registers" in line for line in said)


def test_a_form_that_is_left_out_is_not_even_examined(tmp_path):
    clock = FakeClock(wide_is_fast)
    session(tmp_path, clock, phases=("forward",), without=("sliced",)).run([TARGET])
    assert {task.form for task in clock.examined} == {"fused"}
    session(tmp_path, clock, phases=("forward",)).run([TARGET])
    assert {task.form for task in clock.examined} == {"fused", "sliced"}


def test_rules_that_are_refused_or_do_not_run_are_told_and_the_next_phase_goes_on(tmp_path):
    clock = FakeClock(wide_is_fast, refuse=lambda config: "wrong: y: max error 1.0")
    assert session(tmp_path, clock, phases=("forward",)).run([TARGET]) == [f"{TARGET.name}: forward"]
    clock = FakeClock(lambda phase, config, choices, T: None if phase == "forward" else 100.0)
    left = session(tmp_path, clock, phases=("forward", "dx")).run([TARGET])
    assert left == [f"{TARGET.name}: forward"]
    assert {row["phase"] for row in json.loads((tmp_path / "sm_90.json").read_text())} == {"dx"}


def test_resume_leaves_out_what_this_commit_has_measured(tmp_path):
    session(tmp_path, FakeClock(wide_is_fast), phases=("forward",)).run([TARGET])
    again = FakeClock(wide_is_fast)
    session(tmp_path, again, phases=("forward", "dx"), resume=True).run([TARGET])
    assert {phase for _, phase, *_ in again.timed} == {"backward"}
    # The forward inside dx is the one that was decided then.
    assert all(dict(choices)["forward"].BLOCK_T == 128 for *_, tiles, _ in again.timed for choices in tiles.values())
    other = FakeClock(wide_is_fast, origin=ORIGIN | {"commit": "def"})
    session(tmp_path, other, phases=("forward",), resume=True).run([TARGET])
    assert other.timed
    fresh = FakeClock(wide_is_fast)
    session(tmp_path, fresh, phases=("forward",)).run([TARGET])
    assert fresh.timed


def test_time_that_is_up_leaves_the_rest_for_another_run(tmp_path, monkeypatch):
    now = iter(range(0, 10000, 40))  # every look at the clock is 40 s later
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    left = session(tmp_path, FakeClock(wide_is_fast), phases=("forward", "dx", "weight_grad"), minutes=2).run([TARGET])
    assert left == [f"{TARGET.name}: dx", f"{TARGET.name}: weight_grad"]


def test_rows_of_other_shapes_stay_and_a_group_is_replaced_whole(tmp_path):
    other = replace(TARGET, d=1024)
    slow = FakeClock(lambda *_: 100.0)
    session(tmp_path, slow, phases=("forward",)).run([TARGET, other])
    before = read_tuned(tmp_path / "sm_90.json")
    session(tmp_path, FakeClock(wide_is_fast), phases=("forward",)).run([TARGET])
    after = read_tuned(tmp_path / "sm_90.json")
    assert [row for row in before if row["D"] == 1024] == [row for row in after if row["D"] == 1024]
    assert len(after) == len(before) == 2 * len(TOKENS)
    few = [{**row, "tokens": 128} for row in after if row["D"] == 768][:1]
    assert len(merge_tuned(after, few)) == len(TOKENS) + 1


def test_a_table_that_cannot_be_read_ends_the_run_before_it_begins(tmp_path):
    (tmp_path / "sm_90.json").write_text('[{"kind": "16"}]')
    with pytest.raises(ValueError, match=r"sm_90.json: row 0 has no phase"):
        session(tmp_path, FakeClock(wide_is_fast)).run([TARGET])


def test_checks_are_ragged_and_small():
    for d in (768, 8192):
        T = checked_tokens(d, 65536)
        assert T % 16 and 2**25 // d > T
    assert checked_tokens(768, 1) == 1


def test_programs_that_wait_for_each_other_must_all_run_at_once():
    sliced = LaunchConfig("sliced", 64, 64, 64, 4, 1)
    assert fits(sliced, problem_at(128, 4096)) and not fits(sliced, problem_at(128, 8192))
    assert not fits(sliced, problem_at(2048, 4096)) and fits(A, problem_at(65536, 8192))


# ---- examining


def _crash_hang_or_answer(task):
    if task.case.T == 1:
        os._exit(3)
    if task.case.T == 2:
        time.sleep(600)
    return Verdict(registers=task.case.T)


def test_a_crash_and_a_hang_are_verdicts_and_the_others_are_answered():
    examiners = Examiners(1, seconds=1.5, examiner=_crash_hang_or_answer)
    tasks = [Candidate(Case(T, 8, 8), "forward", "speed", (), "fused") for T in (5, 1, 6, 2)]
    found = examiners.examine(tasks)
    examiners.close()
    assert (found[0], found[2]) == (Verdict(registers=5), Verdict(registers=6))
    assert found[1].error == "its process ended with code 3"
    assert found[3].error == "no answer after 1.5 s"


def compiled(name, spills=0):
    metadata = SimpleNamespace(name=name, shared=1024)
    return SimpleNamespace(metadata=metadata, n_spills=spills, n_regs=90)


def test_kernels_that_spill_or_are_of_another_form_are_refused():
    assert examine.judge([compiled("bottleneck_forward_kernel")], "fused") == Verdict("", 90, 1024)
    assert examine.judge([compiled("bottleneck_forward_kernel", 8)], "fused").error == "spills 8 registers"
    assert "another form ran" in examine.judge([compiled("bottleneck_forward_kernel")], "sliced").error
    assert examine.judge([compiled("bottleneck_sliced_kernel")], "sliced").error == ""
    assert "no kernel" in examine.judge([], "fused").error


def test_examine_tells_a_wrong_result_from_a_right_one(monkeypatch):
    task = Candidate(Case(37, 24, 8), "backward", "speed", (("forward", replace(A, BLOCK_M=16)),), "fused")
    assert examine.examine(task) == Verdict()
    from adapter_fast.benchmarks.tiles.tune import forced as module

    def off(op, case, inputs, dy):
        return {name: value * 1.01 for name, value in evaluate(op, case, inputs, dy).items()}

    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", off)
    assert examine.examine(task).error.startswith("wrong: y: max error")


@pytest.mark.parametrize("memory", ["speed", "balanced", "lean"])
def test_forced_tiles_reach_the_launch(memory, monkeypatch):
    """Tiles that do not cover the bottleneck leave columns of z out: the check must see that."""
    case = Case(37, 24, 20)
    whole, half = replace(A, BLOCK_M=32), replace(A, BLOCK_M=16, BLOCK_T=32)
    ForcedOp("right", case, "backward", memory, (("forward", whole), ("dx", whole))).check()
    with pytest.raises(AssertionError, match=r"max error|not finite"):
        ForcedOp("wrong", case, "backward", memory, (("forward", half),)).check()


# ---- the campaign and the command


def test_the_campaign_begins_with_the_headline():
    found = targets()
    assert [(one.d, one.m) for one in found[:3]] == [(768, 64), (1024, 64), (4096, 64)]
    assert [one.weight_dtype for one in found[3:6]] == [torch.float32] * 3
    assert len(found) == len(set(found)) == 5 * 6 + 3
    assert [(one.d, one.m) for one in targets([768], [16])] == [(768, 16)]
    assert {T for target in rehearsal() for _, T in target.tokens} <= set(range(1, 2049))
    assert op_phase("forward") == "forward" and op_phase("weight_grad") == "backward"


def test_without_a_gpu_the_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    assert command.main(["--list", "--hidden", "768", "--bottleneck", "64"]) == 0
    assert capsys.readouterr().out.startswith("d 768, m 64, bfloat16: forward (op forward), dx (op backward)")


@pytest.mark.slow
def test_the_rehearsal_runs_the_whole_path(tmp_path, capsys):
    assert command.main(["--rehearse", "--output", str(tmp_path)]) == 0
    rows = read_tuned(tmp_path / "sm_90.json")
    assert {row["phase"] for row in rows} == {"forward", "dx", "weight_grad"}
    assert "the rules'" in capsys.readouterr().out
