"""The quarter of an hour: no step stops another, and what is known is kept, whatever ends."""

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapter_fast.benchmarks import quarter
from adapter_fast.benchmarks.quarter import PARTS, Campaign, Step, expected, main
from adapter_fast.benchmarks.rows import NAMES, read_rows
from adapter_fast.benchmarks.suites import benches

ROOT = Path(__file__).parents[2]


def shell(text):
    return ["sh", "-c", text]


def ran(tmp_path, *steps, seconds=60.0, code=None):
    """The campaign's report and its log after these steps."""
    found = Campaign("part", steps, tmp_path, seconds).run()
    assert code is None or found == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.json", "part.log.xz"]
    report = json.loads((tmp_path / "part.json").read_text())
    return report, lzma.decompress((tmp_path / "part.log.xz").read_bytes()).decode()


def outcomes(report):
    return {row["step"]: row["outcome"] for row in report["steps"]}


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_a_step_that_fails_or_does_not_start_stops_no_other(tmp_path, capsys):
    steps = [
        Step("bad", 0, 9, shell("echo first; echo what was wrong; exit 3")),
        Step("absent", 0, 9, [str(tmp_path / "no such program")]),
        Step("killed", 0, 9, shell("kill -9 $$")),
        Step("good", 0, 9, shell("echo fine")),
    ]
    report, log = ran(tmp_path, *steps, code=1)
    assert outcomes(report) == {
        "bad": "exit code 3",
        "absent": "did not start",
        "killed": "exit code -9",
        "good": "ok",
    }
    assert report["steps"][0]["last"] == ["first", "what was wrong"]
    assert "no such program" in report["steps"][1]["last"][0]
    assert "===== bad\nfirst\nwhat was wrong\n" in log and "===== good\nfine\n" in log
    table = capsys.readouterr().out.splitlines()[-4:]
    assert [line.split()[0] for line in table] == ["bad", "absent", "killed", "good"]
    assert table[0].endswith("what was wrong")


def test_all_right_is_exit_code_0(tmp_path):
    ran(tmp_path, Step("one", 0, 9, shell("true")), Step("two", 0, 9, shell("true"), only_if_failed="one"), code=0)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_step_that_hangs_is_cut_with_all_that_it_started(tmp_path, deaf):
    pids = tmp_path.parent / f"pids-{deaf}"
    ignore = "trap '' TERM; " if deaf else ""
    # One child in the background that hears nothing, too.
    text = f"{ignore}sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 99 & wait' & echo $$ >> {pids}; echo so far; wait"
    start = time.monotonic()
    report, _ = ran(tmp_path, Step("hangs", 0, 1.5, shell(text)), Step("next", 0, 9, shell("true")), code=1)
    assert outcomes(report) == {"hangs": "cut at 2 s", "next": "ok"}
    assert report["steps"][0]["last"] == ["so far"]
    assert time.monotonic() - start < 12
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    wait_for(lambda: not any(map(alive, found)), 2)


def test_what_a_finished_step_left_running_is_ended(tmp_path):
    pid = tmp_path.parent / "left-running"
    report, _ = ran(tmp_path, Step("leaves", 0, 9, shell(f"sleep 99 & echo $! > {pid}")), code=0)
    assert outcomes(report) == {"leaves": "ok"}
    wait_for(lambda: not alive(int(pid.read_text())), 2)


def test_steps_beside_each_other_each_have_their_own_time(tmp_path):
    steps = [
        Step("long", 0, 9, shell("sleep 2")),
        Step("short", 0, 9, shell("sleep 0.1"), beside=True),
        Step("cut", 0, 1, shell("sleep 9"), beside=True),
        Step("after", 0, 9, shell("true")),
    ]
    report, _ = ran(tmp_path, *steps, code=1)
    assert [row["step"] for row in report["steps"]] == ["short", "cut", "long", "after"]
    seconds = {row["step"]: row["seconds"] for row in report["steps"]}
    assert seconds["short"] < seconds["cut"] < seconds["long"]
    assert report["seconds"] < 3  # one after the other they take 3.1


def test_steps_that_come_too_late_are_told_and_the_last_gets_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(quarter, "LEAST", 0.5)
    steps = [
        Step("one", 0, 9, shell("sleep 0.3")),
        Step("two", 0, 9, shell("sleep 9")),
        Step("three", 0, 9, shell("true")),
        Step("four", 0, 9, shell("true"), beside=True),
    ]
    report, _ = ran(tmp_path, *steps, seconds=2.3, code=1)
    late = "no time left"
    assert outcomes(report) == {"one": "ok", "two": "cut at 2 s", "three": late, "four": late}
    assert report["seconds"] < 4


def test_steps_for_a_failure_run_after_one_alone_and_may_be_the_last(tmp_path):
    def steps(text):
        return [
            Step("smoke", 0, 9, shell(text)),
            Step("sanitizer", 0, 9, shell("false"), only_if_failed="smoke"),
            Step("blocking", 0, 9, shell("true"), only_if_failed="smoke", ends=True),
            Step("rest", 0, 9, shell("true")),
            Step("beside", 0, 9, shell("true"), beside=True),
        ]

    report, _ = ran(tmp_path, *steps("true"), code=0)
    no = quarter.NOT_NEEDED
    assert outcomes(report) == {"smoke": "ok", "sanitizer": no, "blocking": no, "rest": "ok", "beside": "ok"}
    report, _ = ran(tmp_path, *steps("false"), code=1)
    assert outcomes(report) == {
        **{"smoke": "exit code 1", "sanitizer": "exit code 1", "blocking": "ok"},
        **{"rest": "not run", "beside": "not run"},
    }
    assert report["steps"][-1]["last"] == ["the last after a failure was blocking"]


def test_results_are_taken_in_and_those_half_written_or_too_large_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(quarter, "RESULT_BYTES", 1000)
    rows = tmp_path / "results/nvidia/op.json"
    steps = [
        Step("what, found", 0, 9, shell("""echo '{"us": 7}' > "$RESULT" """)),
        Step("half", 0, 1.5, shell("""printf '{"us": ' > "$RESULT"; sleep 9""")),
        Step("bytes", 0, 9, shell("""printf '\\377\\376' > "$RESULT" """)),
        Step(
            "large", 0, 9, [sys.executable, "-c", "import os; open(os.environ['RESULT'], 'w').write('[' + '1,' * 999)"]
        ),
        Step("bench", 0, 9, shell(f"mkdir -p {rows.parent}; echo '[1]' > {rows}")),
        Step("setting", 0, 9, shell("""echo "[$NUMBER]" > "$RESULT" """), {"NUMBER": "5"}),
    ]
    report, _ = ran(tmp_path, *steps)
    assert report["results"] == {
        "what--found": {"us": 7},
        "half": None,
        "bytes": None,
        "large": "left out: 1999 characters",
        "results/nvidia/op.json": [1],
        "setting": [5],
    }


def test_the_size_of_what_is_left_is_bounded(tmp_path):
    chatter = "import random\nfor _ in range(60000): print(random.getrandbits(400))\nprint('the end')"
    report, log = ran(tmp_path, Step("chatters", 0, 30, [sys.executable, "-c", chatter]), code=0)
    assert len(log) < quarter.LOG_BYTES + 100 and log.endswith("the end\n")
    assert len(report["steps"][0]["last"]) == quarter.LINES
    assert (tmp_path / "part.json").stat().st_size < 5000
    steps = len(PARTS["first"][0](tmp_path))
    assert steps * max(quarter.LOG_BYTES, quarter.RESULT_BYTES) < 16 * 2**20


def driver(tmp_path, *steps):
    """A campaign in a process of its own."""
    text = f"from pathlib import Path\nfrom adapter_fast.benchmarks.quarter import *\nsteps = {list(steps)!r}\n"
    text += f"sys.exit(Campaign('part', steps, Path({str(tmp_path)!r}), 60).run())"
    return subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_killed_leaves_what_was_done(tmp_path, kind):
    pid = tmp_path.parent / f"pid-{kind}"
    result = Step("one", 0, 9, shell("""echo done; echo '{"us": 7}' > "$RESULT" """))
    process = driver(tmp_path, result, Step("two", 0, 50, shell(f"echo $$ > {pid}; echo so far; exec sleep 50")))
    wait_for(lambda: pid.exists() and pid.read_text().strip())
    step = int(pid.read_text())
    process.send_signal(kind)
    try:
        assert process.wait(10) == (-kind if kind == signal.SIGKILL else 128 + kind)
        report = json.loads((tmp_path / "part.json").read_text())
        assert report["results"] == {"one": {"us": 7}}
        if kind == signal.SIGKILL:
            assert outcomes(report) == {"one": "ok"}
            # And the next run begins anew.
            report, log = ran(tmp_path, Step("again", 0, 9, shell("true")), code=0)
            assert outcomes(report) == {"again": "ok"} and report["results"] == {} and "so far" not in log
        else:
            assert outcomes(report) == {"one": "ok", "two": "ended from outside"}
            assert b"so far" in lzma.decompress((tmp_path / "part.log.xz").read_bytes())
            wait_for(lambda: not alive(step), 2)
    finally:
        if alive(step):
            os.kill(step, signal.SIGKILL)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_step_starts_leaves_no_process(tmp_path, monkeypatch, kind):
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(kind)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    steps = [Step("one", 0, 50, ["sleep", "50"]), Step("two", 0, 50, ["sleep", "50"])]
    try:
        report, _ = ran(tmp_path, *steps, code=128 + kind)
        assert outcomes(report) == {"one": "ended from outside"}
        assert len(started) == 1 and started[0].poll() is not None
    finally:
        for process in started:
            process.kill()


# ---- the two parts


@pytest.mark.parametrize("part", PARTS)
def test_a_part_fits_its_time_and_its_names_are_there(part, tmp_path):
    make, seconds = PARTS[part]
    steps = make(tmp_path)
    assert expected(steps) <= seconds
    assert all(step.expected <= step.seconds for step in steps)
    assert len({step.file for step in steps}) == len(steps)
    names = {step.name for step in steps}
    assert {step.only_if_failed for step in steps} <= {"", *names}
    for step in steps:
        words = list(step.command)
        suites = [words[at + 1] for at, word in enumerate(words) if word == "--suite"]
        known = {bench.case for suite in suites for bench in benches(suite, "cuda")}
        if suites:
            assert {words[at + 1] for at, word in enumerate(words) if word == "--case"} <= known, step.name
        for path in (word for word in words if word.startswith("tests/")):
            assert (ROOT / path).exists()
        if words[:2] == [sys.executable, "-m"] and words[2].startswith("benchmarks."):
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists()


def test_every_selection_of_tests_selects_some(tmp_path):
    steps = [step for make, _ in PARTS.values() for step in make(tmp_path) if "pytest" in step.command]
    chosen = {tuple(step.command[step.command.index("-k") - 1 :]) for step in steps}
    assert len(chosen) >= 4
    orders = [["--collect-only", "-q", "-m", "gpu", *words] for words in chosen]
    # One process for all: most of the time goes into what the tests import.
    text = f"import pytest\nprint([int(pytest.main(words)) for words in {orders!r}])"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str([0] * len(orders)), (orders, done.stdout[-500:], done.stderr[-500:])


def test_seconds_side_by_side_count_once():
    steps = [Step("a", 3, 9, []), Step("b", 5, 9, [], beside=True), Step("c", 4, 9, [])]
    assert expected(steps) == 9


def test_the_options(tmp_path, capsys, monkeypatch):
    def one(output):
        return [
            Step("left out", 0, 9, shell(f"touch {tmp_path}/ran; sleep 50")),
            Step("taken", 3, 9, shell("exit 4")),
        ]

    monkeypatch.setitem(PARTS, "first", (one, 330))
    assert main(["first", "--list", "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "taken" in out and "at most   9 s  sh -c 'exit 4'" in out and "3 s expected, at most 330 s" in out
    assert not (tmp_path / "out").exists()
    assert main(["first", "--only", "taken", "--output", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "ran").exists()
    assert outcomes(json.loads((tmp_path / "out/first.json").read_text())) == {"taken": "exit code 4"}
    assert main(["first", "--patience", "0.1", "--output", str(tmp_path / "out")]) == 1
    cut = outcomes(json.loads((tmp_path / "out/first.json").read_text()))
    assert cut == {"left out": "cut at 1 s", "taken": "exit code 4"}
    with pytest.raises(SystemExit):
        main(["first", "--only", "smoek"])
    assert "--only must name steps out of left out; taken, got 'smoek'" in capsys.readouterr().err


def test_results_come_into_their_files_and_leave_other_rows(tmp_path, capsys, monkeypatch):
    row = dict.fromkeys(NAMES) | {"suite": "op", "provider": "fused", "phase": "forward", "mode": "eager"}
    results = tmp_path / "kept"
    monkeypatch.setattr("adapter_fast.benchmarks.rows.provenance.RESULTS", results)
    for part, us, cases in (("first", 1.0, ("a", "b")), ("second", 2.0, ("b", "c"))):
        rows = [row | {"case": case, "us_p50": us} for case in cases]
        launched = [
            {"case": case, "launch": "dx", "form": "default", "us_p50": us, "device": "NVIDIA"} for case in cases
        ]
        swept = [here | {"swept": True, "tiles": tiles} for here in launched for tiles in ("wide", "narrow")]
        known = {
            "launches": launched,
            "tiles": swept,
            "results/nvidia/op.json": rows,
            "results/nvidia/ncu.json": [us],
            "smoke": [1],
            "half": None,
        }
        (tmp_path / f"{part}.json").write_text(json.dumps({"results": known | {"results/nvidia/model.json": None}}))
        assert main([part, "--keep", str(tmp_path / f"{part}.json")]) == 0
    names = sorted(path.name for path in results.rglob("*.json"))
    assert names == ["launches.json", "ncu.json", "op.json", "sweep.json"]
    launched = json.loads((results / "nvidia/launches.json").read_text())
    assert {one["case"]: one["us_p50"] for one in launched} == {"a": 1.0, "b": 2.0, "c": 2.0} and len(launched) == 3
    assert len(json.loads((results / "nvidia/sweep.json").read_text())) == 6
    kept = {one.case: one.us_p50 for one in read_rows(results / "nvidia/op.json")}
    assert kept == {"a": 1.0, "b": 2.0, "c": 2.0}
    assert json.loads((results / "nvidia/ncu.json").read_text()) == [2.0]
    assert capsys.readouterr().out.count("wrote ") == 8


def test_a_carried_cache_is_unpacked_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(quarter, "CARRIED", tmp_path / "cache.tar.xz")
    assert "--unpack" not in quarter.compiling("first").command
    quarter.CARRIED.touch()
    assert quarter.compiling("first").command[-2:] == ["--unpack", str(quarter.CARRIED)]
