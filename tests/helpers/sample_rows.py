"""Made-up result rows of a plausible shape, to test what is drawn and written from rows. Nothing here was measured."""

from __future__ import annotations

from adapter_fast.benchmarks.rows import Row

CPU = {"device": "Example(R) CPU, 2 threads", "torch": "2.13.0+cpu"}
GPU = {"device": "Example GPU 80GB", "torch": "2.13.0+cu130"}
REASON = "AdapterHub is not installed: make peers"
NO_BACKWARD = "no backward: aten::_addmm_activation has no derivative"
PHASES = {"forward": 2.0, "backward": 3.2, "forward+backward": 5.3}  # passes over [T, d]
OP = {"fused": 1.25, "reference": 3.1, "two-kernel": 1.9, "compile": 1.75, "adapterhub": 4.2}  # times the floor
OP_MEMORY = {"fused": 0.55, "reference": 1.0, "two-kernel": 0.7, "compile": 0.62, "adapterhub": 1.4}
# What a model takes over the bare one.
MODEL = {"bare": 1.0, "fused": 1.06, "fused-compile": 0.93, "reference": 1.17, "compile": 0.98, "adapterhub": 1.34}
MODEL |= {"adapter-l": 1.09, "peft-lora": 1.15, "peft-lora-merged": 1.003, "full": 1.45}


def row(**fields) -> Row:
    """One row; whatever is not given is plausible."""
    given = {
        "suite": "op",
        "case": "T4096-d768-m64-float32",
        "provider": "fused",
        "phase": "forward",
        "mode": "eager",
        "dtype": "float32",
        "tokens": 4096,
        "hidden": 768,
        "bottleneck": 64,
        "us_p20": None,
        "us_p50": None,
        "us_p80": None,
        "peak_bytes": None,
        "floor_us": None,
        "copy_gbps": 25.6,
        **CPU,
        "triton": "3.9.0",
        "transformers": "5.23.0",
        "commit": "0123456789ab",
        "date": "2026-11-22",
        **fields,
    }
    return Row(**given)


def timed(us: float, spread: float = 0.04, **fields) -> Row:
    """A row with percentiles around a median, in microseconds."""
    marks = {"us_p20": us * (1 - spread / 2), "us_p50": us, "us_p80": us * (1 + spread)}
    marks |= {"us_p90": us * (1 + 2 * spread), "us_p99": us * (1 + 5 * spread)}
    return row(**{name: round(value, 2) for name, value in marks.items()}, samples=20, **fields)


def versus(us: float, reference: float) -> str:
    """The verdict that such a pair would be given; the reference is the same as itself."""
    return "faster" if us < 0.98 * reference else "slower" if us > 1.02 * reference else "same"


def op_rows(sizes, modes=("eager",), dtype="float32", gbps=25.0, without=(), origin=CPU, suffix="") -> list[Row]:
    """Rows of the op suite for (T, d, m); those in `without` did not run."""
    rows = []
    for T, d, m in sizes:
        size = 4 if dtype == "float32" else 2
        for phase, passes in PHASES.items():
            floor = passes * T * d * size / gbps / 1e3 * (1 + m / 400)
            shared = {"case": f"T{T}-d{d}-m{m}-{dtype}{suffix}", "phase": phase, "dtype": dtype, "tokens": T}
            shared |= {"hidden": d, "bottleneck": m, "parameters": 2 * d * m + d + m, "copy_gbps": gbps, **origin}
            for mode in modes:
                launch = {"eager": 22.0, "graph-cold": 2.5, "graph-hot": 1.5}[mode] if len(modes) > 1 else 60.0
                reference = floor * OP["reference"] + 3 * launch
                for name, factor in OP.items():
                    why = REASON if name in without else NO_BACKWARD if name == "two-kernel" and passes > 2 else ""
                    if why:
                        rows += [row(provider=name, mode=mode, note=why, **shared)] if mode == modes[0] else []
                        continue
                    us = floor * factor * (1 + 0.06 * (m / 64 - 1) * (factor < 2)) + launch * (3 if factor > 2 else 1)
                    note = {
                        "two-kernel": "gelu_tanh, no b_up: the only form there is, and less work than the others do"
                    }
                    note["compile"] = "default" if m < 64 else "max-autotune-no-cudagraphs"
                    rows.append(
                        timed(
                            us,
                            provider=name,
                            mode=mode,
                            floor_us=round(floor, 2),
                            peak_bytes=int(2 * T * d * size * OP_MEMORY[name]),
                            versus=versus(us, reference),
                            note=note.get(name, ""),
                            **shared,
                        )
                    )
    return rows


def memory_rows(sizes, dtype="float32", without=(), origin=CPU) -> list[Row]:
    """Rows of the memory suite for (T, d, m): peaks and no times."""
    rows = []
    for T, d, m in sizes:
        size = 4 if dtype == "float32" else 2
        for phase, passes in (("forward", 2), ("forward+backward", 3)):
            shared = {"suite": "memory", "case": f"T{T}-d{d}-m{m}-{dtype}", "phase": phase, "dtype": dtype}
            shared |= {"tokens": T, "hidden": d, "bottleneck": m, **origin}
            for name in OP:
                if name in without or name == "two-kernel":
                    rows.append(row(provider=name, note=REASON if name in without else NO_BACKWARD, **shared))
                else:
                    peak = int((passes * T * d + 3 * T * m) * size * OP_MEMORY[name])
                    rows.append(row(provider=name, peak_bytes=peak, **shared))
    return rows


def model_rows(cases, suite="model", without=(), modes=("eager",), origin=CPU) -> list[Row]:
    """Rows of a suite of whole models for (preset, batch, sequence, d, m, dtype, phase, bare microseconds)."""
    rows = []
    for preset, batch, seq_len, d, m, dtype, phase, bare in cases:
        shared = {"suite": suite, "case": f"{preset}-b{batch}-s{seq_len}-m{m}-{dtype}", "phase": phase, "dtype": dtype}
        shared |= {"tokens": batch * seq_len, "hidden": d, "bottleneck": m, **origin}
        absent = {"adapter-l"} if suite == "model" else {"full"}
        absent |= {"full"} if phase == "forward" else {"peft-lora-merged"}
        for mode in modes if phase == "forward" else modes[:1]:
            for name, factor in MODEL.items():
                if name in absent or (mode != "eager" and "compile" in name):
                    continue
                if name in without:
                    rows += [row(provider=name, note=REASON, **shared)] if mode == "eager" else []
                    continue
                excess = (factor - 1) * (1.0 if mode == "eager" else 0.4)
                us = bare * (1.0 if mode == "eager" else 0.6) * (1 + excess)
                own = 0 if name in ("bare", "full") else 24 * (2 * d * m + d + m)
                rows.append(
                    timed(
                        us,
                        provider=name,
                        mode=mode,
                        floor_us=round(bare * 1.02, 2) if own and "lora" not in name else None,
                        peak_bytes=int(batch * seq_len * d * (200 if phase == "step" else 24) * (0.7 + 0.3 * factor)),
                        parameters=own,
                        versus=versus(factor, MODEL["reference"]),
                        note="the head alone trains" if name == "bare" and phase == "step" else "",
                        **shared,
                    )
                )
    return rows


def small() -> dict[str, list[Row]]:
    """Like a CPU's results: six cases of the op, one model, one latency case; AdapterHub did not run."""
    absent = {"adapterhub"}
    return {
        "op": op_rows([(T, 768, m) for m in (64, 16) for T in (4096, 1024, 256)], without=absent),
        "model": model_rows(
            [("minilm", 8, 64, 384, 64, "float32", phase, us) for phase, us in (("step", 3.1e5), ("forward", 9e4))],
            without=absent,
        ),
        "memory": memory_rows([(T, 768, m) for T in (1024, 4096) for m in (16, 64, 256)], without=absent),
        "latency": model_rows([("gpt2", 1, 128, 768, 112, "float32", "forward", 1.8e5)], "latency", without=absent),
    }


def large() -> dict[str, list[Row]]:
    """Like a GPU's results: 28 cases of the op in three modes, two models, three latency cases; everybody ran."""
    gpu = {"origin": GPU}
    sizes = [(T, d, m) for d in (768, 1024, 4096) for m in (64, 16, 256) for T in (16384, 2048, 128)]
    modes = ("eager", "graph-cold", "graph-hot")
    op = op_rows([*sizes, (65536, 1024, 64)], modes, "bfloat16", 3000.0, **gpu)
    mixed = op_rows([(16384, 768, 64)], modes, "bfloat16", 2900.0, suffix="-w32", **gpu)
    models = [("bert-base", b, s, 768, 64, "bfloat16", p, us) for b, s in ((32, 128), (8, 512)) for p, us in STEPS]
    latency = [("gpt2-medium", 32, 512, 1024, 5, "bfloat16", "forward", 9.1e4)]
    latency += [
        ("gpt2-medium", b, s, 1024, 112, "bfloat16", "forward", us) for b, s, us in ((16, 256, 2.4e4), (1, 128, 9e3))
    ]
    return {
        "op": [*op, *mixed],
        "model": model_rows(models, modes=("eager", "graph-hot"), **gpu),
        "memory": memory_rows(
            [(T, d, m) for T, d in ((16384, 768), (65536, 768), (16384, 4096)) for m in (16, 64, 256)],
            "bfloat16",
            **gpu,
        ),
        "latency": model_rows(latency, "latency", modes=("eager", "graph-hot"), **gpu),
    }


STEPS = (("step", 2.9e4), ("forward", 7.2e3))
