"""Which of the measured backends `auto` should take on this machine, for `depth bench --remember`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from depthcli.backends import CPU_BACKENDS, pick_backend
from depthcli.bench.contenders import Contender
from depthcli.bench.statistics import median, times_faster
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, Log, UsageError
from depthcli.host import fastest
from depthcli.host.fastest import Fastest
from depthcli.zoo.rows import ModelRow

# How many times faster than the one of the fixed order a backend must be: less is within what two runs differ by.
MARGIN = 1.1
_DIGITS = {"int8": 0, "bf16": 1, "fp16": 1, "fp32": 2}


def check_rememberable(choices: Sequence[BackendChoice]) -> None:
    """Raise UsageError if these choices do not compare what `auto` could take on a CPU."""
    for choice in choices:
        if choice.device not in ("auto", "cpu"):
            raise UsageError(f"`remember` is for the CPU, not for `device` {choice.device}", "leave out one of them")
        if choice.precision == "exact":
            raise UsageError("`precision` exact is computed by torch alone", "leave out `remember`")
    usual = pick_backend(BackendChoice(device="cpu", precision=choices[0].precision))
    named = [choice.backend for choice in choices]
    if usual not in named or len(named) < 2 or not set(named) <= set(CPU_BACKENDS):
        raise UsageError(
            f"`remember` compares {usual} with others, got `backend` {','.join(named)}",
            "leave out `backend`, or name all",
        )


def fastest_of(row: ModelRow, precision: str, contenders: Sequence[Contender]) -> Fastest:
    """Return the fastest contender, which is the one of the fixed order if no other clearly beats it.

    A contender that computes in less precise numbers is not taken. Raises EngineError if the first one failed.
    """
    usual = pick_backend(BackendChoice(device="cpu", precision=precision))
    times, digits = {}, {}
    for item in contenders:
        if item.choice is not None and item.times and not item.error and item.device == "cpu":
            times[item.choice.backend] = next(iter(item.times.values()))
            digits[item.choice.backend] = _DIGITS[item.precision]
    if usual not in times:
        raise EngineError(f"nothing is remembered: {usual} was not measured")
    better = [
        name for name in times if digits[name] >= digits[usual] and times_faster(times[usual], times[name]) >= MARGIN
    ]
    best = min(better or [usual], key=lambda name: median(times[name]))
    machine, versions = fastest.here()
    return Fastest(
        network=row.encoder,
        precision=precision,
        backend=best,
        milliseconds={name: round(median(each), 1) for name, each in times.items()},
        machine=machine,
        versions=versions,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def keep_fastest(item: Fastest, log: Log) -> None:
    """Remember a measurement; forget the earlier one if the fixed order has the fastest. Raises OutputError."""
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in item.milliseconds.items())
    if item.backend == pick_backend(BackendChoice(device="cpu", precision=item.precision)):
        fastest.forget(other for other in fastest.every() if other.place == item.place)
        log(f"nothing to remember: no backend is {MARGIN} times as fast as {item.backend}, which auto takes ({times})")
        return
    fastest.remember(item)
    log(f"remembered: auto takes {item.backend} for {item.network} here ({times})")
    log("depth models cache shows it, and can forget it")
