"""``anyload doctor``: examines each model in processes of its own, and says what to declare.

A model may crash, hang or corrupt the process that loads it; that is then a finding about the
model. What is done in there is in ``_examination.py``. Here is what comes of it, and the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from ._children import Unfinished, run_part
from .reports import seconds

Gil = Literal["held", "not held", "too short"]
Examination = Literal["alone", "together"]

ENOUGH_SECONDS = 0.05
"""A load that is shorter does not tell whether it holds the GIL: the event loop is late by some
milliseconds for many reasons."""
LOADS_AT_LEAST = 7
"""How many loads the examination of loads at once comes to, should they take turns: two alone, one
round of four, and one more alone."""
MUCH_MEMORY = 50 << 20
"""From this many bytes on, what a release does not give back is told of."""


@dataclass(frozen=True, slots=True)
class Alone:
    """What was measured of a model that was loaded on its own, several times.

    Args:
        module_id: the module that loads it.
        backend: the type of the backend that did.
        implementation: the class whose ``load`` ran.
        exclusive_group: the group that the class declares.
        holds_gil: whether it declares that its load keeps the GIL.
        prepare_seconds: what the first load waited for: imports, the start of a backend.
        first_seconds: the first load itself, with what it imported late.
        load_seconds: each of the later loads; the first one, where there was time for one only.
        gaps: the longest time that the event loop was kept from running, in each of these.
        gil: whether they keep the GIL, by `gil_of`.
        memory_before: resident bytes before the first load; None where that cannot be told.
        memory_loaded: the same with the model in memory.
        memory_released: and after its release.
        threads_left: how many more threads there are after the later loads than before them.
        files_left: the same of open file descriptors; None where that cannot be told.
        changes: process-wide state that loads have left changed.
    """

    module_id: str
    backend: str
    implementation: str
    exclusive_group: str | None
    holds_gil: bool
    prepare_seconds: float
    first_seconds: float
    load_seconds: tuple[float, ...]
    gaps: tuple[float, ...]
    gil: Gil
    memory_before: int | None = None
    memory_loaded: int | None = None
    memory_released: int | None = None
    threads_left: int = 0
    files_left: int | None = None
    changes: tuple[str, ...] = ()

    @property
    def usual_seconds(self) -> float:
        """How long a load takes: the median."""
        return median(self.load_seconds)

    @property
    def longest_gap(self) -> float:
        """The longest time that a load kept the event loop from running."""
        return max(self.gaps)

    @property
    def memory_taken(self) -> int | None:
        """The bytes that the first load has added."""
        return _added(self.memory_loaded, self.memory_before)

    @property
    def memory_kept(self) -> int | None:
        """The bytes of these that its release has not given back."""
        return _added(self.memory_released, self.memory_before)

    @property
    def leaks(self) -> tuple[str, ...]:
        """What each load leaves behind; what came once, as a pool of threads does, is none."""
        count = len(self.load_seconds)
        left = (("threads", self.threads_left), ("file descriptors", self.files_left or 0))
        return tuple(
            f"{number} {what} by {count} loads" for what, number in left if number >= count
        )


def gil_of(stopped: Sequence[float], load_seconds: Sequence[float]) -> Gil:
    """Return whether loads keep the GIL: the event loop is then stopped for half of each. Pure.

    Args:
        stopped: how long it was stopped in each load, all gaps together that are more than a delay.
        load_seconds: how long each load took.
    """
    if median(load_seconds) < ENOUGH_SECONDS:
        return "too short"
    pairs = zip(stopped, load_seconds, strict=True)
    # The least of them: a busy machine keeps an event loop from running too, but a load that keeps
    # the GIL does so every time.
    return "held" if min(gaps / took for gaps, took in pairs) >= 0.5 else "not held"


@dataclass(frozen=True, slots=True)
class Together:
    """What came of loading a model several times at once, with nothing to keep the loads apart.

    Args:
        loads: how many loads there were.
        at_once: how many of them at a time.
        errors: what they ended with that a load alone does not.
        wrong: models that are unlike one that was loaded alone.
        changes: process-wide state that they have left changed.
        afterwards: what was wrong with a load alone, when they had ended.
    """

    loads: int
    at_once: int
    errors: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()

    @property
    def unsafe(self) -> bool:
        """Whether anything was seen that a load alone does not do."""
        return bool(self.errors or self.wrong or self.changes or self.afterwards)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found out about a model.

    Args:
        model: its name.
        alone: what was measured of loads one after another.
        together: what came of loads at once; None where it does not load alone.
        verdict: what is declared is enough; something is to be declared; it does not load.
        declare: the class attributes that its module lacks.
        remarks: sentences for a person: what was seen, and what follows.
    """

    model: str
    alone: Alone | Unfinished
    together: Together | Unfinished | None
    verdict: Literal["ok", "declare", "failed"]
    declare: tuple[str, ...]
    remarks: tuple[str, ...]


def diagnose(
    model: str, alone: Alone | Unfinished, together: Together | Unfinished | None
) -> Diagnosis:
    """Decide what the module of a model has to declare. Pure."""
    if isinstance(alone, Unfinished):
        remark = f"It does not load: {_how(alone)}."
        return Diagnosis(model, alone, together, "failed", (), (remark,))
    if together is None or (isinstance(together, Unfinished) and together.how == "failed"):
        reason = together.reason if together else "it was not tried"
        remark = f"It loads, but could not be loaded several times at once: {reason}."
        return Diagnosis(model, alone, together, "failed", (), (remark,))
    seen = (*_seen_together(together), *_seen_alone(alone))
    remarks, declare = list(seen), []
    if seen and alone.exclusive_group is None:
        declare.append("exclusive_group")
        remarks.append(
            'Declare exclusive_group = "...", the same name in every module that loads with'
            " the same framework: loads of one group never overlap."
        )
    elif seen:
        remarks.append(f"The declared exclusive_group {alone.exclusive_group!r} is needed.")
    if alone.gil == "held":
        gap, took = max(zip(alone.gaps, alone.load_seconds, strict=True))
        remarks.append(
            f"It keeps the GIL: a load of {seconds(took)} stopped the event loop, the longest"
            f" time for {seconds(gap)}."
        )
        if not alone.holds_gil:
            declare.append("holds_gil")
            remarks.append("Declare holds_gil = True: such loads then run one at a time.")
    remarks += [f"Loads leave behind {leak}." for leak in alone.leaks]
    remarks += _seen_of_memory(alone)
    return Diagnosis(
        model, alone, together, "declare" if declare else "ok", tuple(declare), tuple(remarks)
    )


def _how(ended: Unfinished) -> str:
    words = {"failed": "", "crashed": "it ended its process, ", "hung": "it hung, "}
    return f"{words[ended.how]}{ended.reason}"


def _seen_together(together: Together | Unfinished) -> list[str]:
    """Return what speaks against loading it several times at once."""
    if isinstance(together, Unfinished):
        return [f"Loads at once are unsafe: {_how(together)}."]
    kinds = (
        ("errors", together.errors),
        ("other models than a load alone gives", together.wrong),
        ("left changed for the whole process", together.changes),
        ("and a load alone afterwards", together.afterwards),
    )
    found = "; ".join(f"{what}: {', '.join(told)}" for what, told in kinds if told)
    many = f"{together.loads} loads, {together.at_once} at once"
    return [f"Loads at once are unsafe ({many}): {found}."] if found else []


def _seen_alone(alone: Alone) -> list[str]:
    changes = ", ".join(alone.changes)
    return [f"A load alone leaves changed: {changes}."] if changes else []


def _seen_of_memory(alone: Alone) -> list[str]:
    taken, kept = alone.memory_taken or 0, alone.memory_kept or 0
    if kept < max(MUCH_MEMORY, taken / 2):
        return []
    return [f"Its release keeps {kept >> 20} of {taken >> 20} MB; a release() may give them back."]


def _added(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)


# The processes


@dataclass(frozen=True, slots=True)
class Doctor:
    """Examines models of one configuration, each examination in a process of its own.

    Args:
        config: the configuration.
        name: which of its initializers.
        loop: the event loop to load on.
        rounds: how often each model is loaded several times at once.
        timeout: the limit of each examination, in seconds; it is ended then, with all that it
            has started.
    """

    config: str
    name: str
    loop: str
    rounds: int
    timeout: float

    def examine(self, model: str) -> Diagnosis:
        """Examine a model; it blocks.

        On Ctrl-C or SIGTERM it ends the process group of the examination, and raises.
        """
        alone: Alone | Unfinished
        together: Together | Unfinished | None = None
        found = self._run("alone", model)
        if isinstance(found, Unfinished):
            alone = found
        else:
            alone = Alone(**found)
            found = too_slow(alone, self.timeout) or self._run("together", model)
            together = found if isinstance(found, Unfinished) else Together(**found)
        return diagnose(model, alone, together)

    def _run(self, examination: Examination, model: str) -> dict[str, Any] | Unfinished:
        """Return what an examination has measured, or how it ended without a result."""
        options = ["doctor", self.config, f"--model={model}", f"--name={self.name}"]
        options += [f"--loop={self.loop}", f"--rounds={self.rounds}", f"--examine={examination}"]
        return run_part(options, self.timeout)


def too_slow(alone: Alone, timeout: float) -> Unfinished | None:
    """Return why loads at once cannot be told from a hang within a limit, if they cannot. Pure."""
    needed = alone.prepare_seconds + alone.first_seconds + LOADS_AT_LEAST * alone.usual_seconds
    if needed <= timeout / 2:
        return None
    took = seconds(alone.usual_seconds)
    return Unfinished("failed", f"with {took} a load that needs --timeout {2 * needed:.0f}")
