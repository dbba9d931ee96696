"""Scenes that corrupt a process, played by hand, and the same loads through anyload.

Each scene is a function that is to run in a process of its own, because by hand it leaves that
process broken: wrong functions in torch and transformers, another default dtype. `play` makes the
process, from one that has imported everything and loaded nothing.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

LOADS = 100
"""Loads in a scene."""
AT_ONCE = 4
"""Threads by hand, slots with anyload."""
LATER = 16
"""Loads by hand, one after another, when a scene is over."""
PATIENCE = 60.0
"""How long a scene may take, in seconds."""
RIGHT, REFUSED = "right", "refused"

PRELOAD = (
    "anyio._backends._asyncio",
    "anyio._backends._trio",
    "anyload.adapters.torch",
    "anyload.adapters.transformers",
    "anyload.testing",
    "torch._export.serde.serialize",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
)
"""What every scene needs: imported once, in the process that the others are forked from."""

Loop = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What came of a scene.

    Args:
        outcomes: the loads, by what is wrong with the model, `RIGHT` where nothing is.
        left: what torch and transformers hold that is not what they held before.
        later: loads one after another in the same process, afterwards; as ``outcomes``.
        dtype: the default dtype that the process is left with.
        meanwhile: the dtypes that a thread that loads nothing got for its tensors meanwhile.
        seconds: how long the loads took, all together.
    """

    outcomes: Counter[str]
    left: tuple[str, ...]
    later: Counter[str]
    dtype: str
    meanwhile: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """How many loads gave no model or a wrong one, those not counted that were refused."""
        return self.outcomes.total() - self.outcomes[RIGHT] - self.outcomes[REFUSED]

    @property
    def later_bad(self) -> int:
        """How many of the later loads did."""
        return self.later.total() - self.later[RIGHT]


# A process for a scene


def play(scene: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a scene returns, played in a clean process of its own.

    Raises:
        RuntimeError: it raised, died or hung.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(PRELOAD))
    ours, theirs = forks.Pipe(duplex=False)
    process = forks.Process(target=_perform, args=(theirs, scene, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE):
            raise RuntimeError(f"{scene.__name__} takes over {PATIENCE} s")
        result, error = ours.recv()
    except EOFError:
        process.join(PATIENCE)
        died = f"the process of {scene.__name__} died with status {process.exitcode}"
        raise RuntimeError(died) from None
    finally:
        ours.close()
        process.kill()
        process.join()
    if error:
        raise RuntimeError(f"{scene.__name__} raised\n{error}")
    return result


def _perform(theirs: Connection, scene: Callable[..., Any], arguments: Sequence[Any]) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        theirs.send((scene(*arguments), None))
    except BaseException:
        theirs.send((None, traceback.format_exc()))


def make_models(directory: Path) -> None:
    """Write the models of the scenes."""
    import torch
    from made import bert, gpt2

    bert(directory / "bert")
    bert(directory / "masked", masked=True)
    gpt2(directory / "gpt2")
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    exported = torch.export.export(net.eval(), (torch.zeros(2, 8),))
    torch.export.save(exported, str(directory / "net.pt2"))


# What is loaded


class Subject(Protocol):
    """A kind of model: how to load it, and how to tell whether it is right."""

    def by_hand(self, number: int) -> Any:
        """Load it as one does without anyload; loads of different numbers may differ."""
        ...

    def config(self, number: int) -> Any:
        """Return what to load with anyload."""
        ...

    def framework_model(self, loaded: Any) -> Any:
        """Return what ``by_hand`` returns, of what anyload has loaded."""
        ...

    def wrong(self, number: int, model: Any) -> str:
        """Return what is wrong with it; nothing if it is like one that was loaded alone."""
        ...


class Transformer:
    """A model of transformers, in one dtype or several in turn.

    Args:
        path: its directory.
        auto_class: the class whose ``from_pretrained`` loads it.
        dtypes: the dtypes, by name.
    """

    def __init__(self, path: Path, auto_class: str, dtypes: Sequence[str] = ("float32",)) -> None:
        import torch

        self.path, self.auto_class, self.dtypes = path, auto_class, dtypes
        self._ids = torch.tensor([[2, 5, 6, 3]])
        alone = [self.by_hand(number) for number in range(len(dtypes))]
        self.cls = type(alone[0])
        self._expected = [self._output(model) for model in alone]

    def by_hand(self, number: int) -> Any:
        import torch
        import transformers

        auto: Any = getattr(transformers, self.auto_class)
        dtype = getattr(torch, self._dtype(number))
        return auto.from_pretrained(self.path, local_files_only=True, dtype=dtype)

    def config(self, number: int) -> Any:
        from anyload import ModelConfig

        # No tokenizer beside it: exactly what is loaded by hand.
        fields = {"auto_class": self.auto_class, "processor": "none"}
        return ModelConfig("transformers", self.path, dtype=self._dtype(number), **fields)

    def framework_model(self, loaded: Any) -> Any:
        return loaded.model

    def wrong(self, number: int, model: Any) -> str:
        import torch

        found = []
        if any(one.is_meta for one in (*model.parameters(), *model.buffers())):
            found.append("on meta")
        got = {str(one.dtype).removeprefix("torch.") for one in model.parameters()}
        if got != {self._dtype(number)}:
            found.append(f"{'/'.join(sorted(got))} for {self._dtype(number)}")
        try:
            if not torch.equal(self._output(model), self._expected[number % len(self.dtypes)]):
                found.append("wrong output")
        except Exception as error:
            found.append(f"inference raises {type(error).__name__}")
        return ", ".join(found)

    def _dtype(self, number: int) -> str:
        return self.dtypes[number % len(self.dtypes)]

    def _output(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model(input_ids=self._ids)[0]


class Exported:
    """A program that ``torch.export.save`` has written.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        self._input = torch.ones(2, 8)
        self._expected = self._output(self.by_hand(0))

    def by_hand(self, number: int) -> Any:
        import torch

        return torch.export.load(str(self.path)).module()

    def config(self, number: int) -> Any:
        from anyload import ModelConfig

        # A program is code, which is for whoever made the catalogue to allow.
        return ModelConfig("torch", self.path, allow_pickle=True)

    def framework_model(self, loaded: Any) -> Any:
        return loaded.model

    def wrong(self, number: int, model: Any) -> str:
        import torch

        return "" if torch.equal(self._output(model), self._expected) else "wrong output"

    def _output(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model(self._input)


def bert(models: Path) -> Subject:
    """A BERT whose output layer shares the weights of its embeddings."""
    return Transformer(models / "masked", "AutoModelForMaskedLM")


def gpt2(models: Path) -> Subject:
    """A GPT-2, whose output layer shares them too."""
    return Transformer(models / "gpt2", "AutoModelForCausalLM")


def mixed(models: Path) -> Subject:
    """A BERT in one dtype after the other."""
    in_turn = ("bfloat16", "float32", "float16", "float32")
    return Transformer(models / "bert", "AutoModel", in_turn)


def exported(models: Path) -> Subject:
    """A program of ``torch.export``."""
    return Exported(models / "net.pt2")


# The scenes


def parallel(make: Callable[[Path], Subject], models: Path, loop: Loop | None) -> Seen:
    """Many loads, four at once: by hand on threads of one's own, or with anyload on a loop."""
    subject = make(models)
    before, began = _held(), time.perf_counter()
    with _bystander() as meanwhile:
        if loop is None:
            results = _on_threads(subject)
        else:
            results = _run(loop, lambda: _with_anyload(subject))
    took = time.perf_counter() - began
    # Only now, so that what is wrong is the model itself, whatever else runs meanwhile.
    return _seen(subject, results, before, meanwhile=meanwhile, seconds=took)


def stuck(models: Path, loop: Loop | None) -> Seen:
    """A first load hangs in its constructor and is past its limit; others are to go on.

    By hand, its caller gives up after the limit and loads in float32 what could not be had in
    bfloat16, again and again, while the first thread is where it was.
    """
    subject = Transformer(models / "masked", "AutoModelForMaskedLM")
    before, began = _held(), time.perf_counter()
    if loop is not None:
        results, more = _run(loop, lambda: _stuck_with_anyload(subject))
        took = time.perf_counter() - began
        return _seen(subject, results, before, later=more, seconds=took)
    from anyload.testing import Gate

    gate = Gate()
    _hold_up(subject.cls, gate)
    primary = _primary(models)
    gate.entered_sync()
    primary.join(0.05)
    results = [_attempt(subject.by_hand, number) for number in range(LOADS)]
    gate.open()
    primary.join()
    return _seen(subject, results, before, seconds=time.perf_counter() - began)


def crossed(models: Path, loop: Loop | None) -> Seen:
    """A first load is past its limit and ends while its fallback is at it.

    By hand, the first puts back what it found, and then the fallback what it found, which is
    what the first had put there. The loads that count are the fallback, and those after it; with
    anyload all of them are fallbacks.
    """
    subject = Transformer(models / "masked", "AutoModelForMaskedLM")
    before, began = _held(), time.perf_counter()
    if loop is not None:
        results = _run(loop, lambda: _crossed_with_anyload(subject))
        return _seen(subject, results, before, seconds=time.perf_counter() - began)
    from anyload.testing import Gate

    first, second = Gate(), Gate()
    _hold_up(subject.cls, first, second)
    primary = _primary(models)
    first.entered_sync()
    primary.join(0.05)
    results = []
    fallback = threading.Thread(target=lambda: results.append(_attempt(subject.by_hand, 0)))
    fallback.start()
    second.entered_sync()
    first.open()
    primary.join()
    second.open()
    fallback.join()
    results += [_attempt(subject.by_hand, number) for number in range(1, LOADS)]
    return _seen(subject, results, before, seconds=time.perf_counter() - began)


# By hand


def _attempt(load: Callable[[int], Any], number: int) -> Any:
    try:
        return load(number)
    except Exception as error:
        return error


def _on_threads(subject: Subject) -> list[Any]:
    results: list[Any] = [None] * LOADS
    numbers, lock = iter(range(LOADS)), threading.Lock()
    start = threading.Barrier(AT_ONCE)

    def work() -> None:
        start.wait()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            results[number] = _attempt(subject.by_hand, number)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _primary(models: Path) -> threading.Thread:
    """Start the load that hangs: the same model, in bfloat16, as one would on another device."""

    def load() -> None:
        import torch
        from transformers import AutoModelForMaskedLM

        path = models / "masked"
        AutoModelForMaskedLM.from_pretrained(path, local_files_only=True, dtype=torch.bfloat16)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def _hold_up(cls: Any, *gates: Any) -> None:
    """Let the first models that are constructed from now on wait, each at its gate."""
    construct, numbers = cls.__init__, count()

    def slow(self: Any, *args: Any, **kwargs: Any) -> None:
        number = next(numbers)
        if number < len(gates):
            gates[number].enter()
        construct(self, *args, **kwargs)

    cls.__init__ = slow


# With anyload


def _run(loop: Loop, scene: Callable[[], Awaitable[Any]]) -> Any:
    import anyio

    backend, options = loop

    async def main() -> Any:
        with anyio.fail_after(PATIENCE / 2):
            return await scene()

    return anyio.run(main, backend=backend, backend_options=options)


async def _all_at_once(initializer: Any, subject: Subject, loads: int = LOADS) -> list[Any]:
    """Load so many models, all asked for at once and none shared."""
    from anyio import create_task_group

    from anyload import AnyloadError

    results: list[Any] = [None] * loads

    async def one(number: int) -> None:
        try:
            # A key of its own makes it a load of its own.
            loaded = await initializer.init(subject.config(number), key=number)
            results[number] = subject.framework_model(loaded)
        except AnyloadError as error:
            results[number] = error

    async with create_task_group() as tasks:
        for number in range(loads):
            tasks.start_soon(one, number)
    return results


async def _with_anyload(subject: Subject, loads: int = LOADS) -> list[Any]:
    from anyload import Initializer, Registry
    from anyload.testing import settled

    async with Initializer(Registry.discover(), max_concurrent_loads=AT_ONCE) as initializer:
        results = await _all_at_once(initializer, subject, loads)
        await settled(initializer)
    return results


def _first_and_second() -> Any:
    """Return a registry with two backends, the first of which loads in bfloat16."""
    from anyload import Backend, ModelConfig, Registry
    from anyload.adapters.transformers import TransformersModel

    class First(Backend):
        backend_type = "FIRST"

    class Second(Backend):
        backend_type = "SECOND"

    class InBfloat16(TransformersModel):
        @classmethod
        def load(cls, config: ModelConfig, load_backend: Backend) -> Any:
            fields = {**config.fields, "dtype": "bfloat16"}
            return super().load(
                ModelConfig(config.module_id, config.model_path, **fields), load_backend
            )

    registry = Registry()
    registry.backend_type(First)
    registry.backend_type(Second)
    registry.module("transformers", "FIRST")(InBfloat16)
    registry.module("transformers", "SECOND")(TransformersModel)
    return registry


def _limits(first: float, second: float) -> list[dict[str, Any]]:
    return [{"type": "FIRST", "timeout": first}, {"type": "SECOND", "timeout": second}]


async def _stuck_with_anyload(subject: Transformer) -> tuple[list[Any], list[Any]]:
    """Return what came of the loads while the first was stuck, and of some more afterwards."""
    from anyload import Initializer
    from anyload.testing import Gate, settled

    gate = Gate()
    _hold_up(subject.cls, gate)
    limits = _limits(0.3, 0.3)
    async with Initializer(_first_and_second(), backend_priority=limits) as initializer:
        results = await _all_at_once(initializer, subject)
        await gate.entered()
        assert gate.inside == 1
        assert initializer.statistics().abandoned == 1
        gate.open()
        await settled(initializer)
    return results, await _with_anyload(subject, LATER)


async def _crossed_with_anyload(subject: Transformer) -> list[Any]:
    """Return what came of the loads, whose fallbacks were waiting when the first one ended."""
    from anyio import create_task_group

    from anyload import Initializer
    from anyload.events import Event, Queued
    from anyload.testing import Gate, settled, until

    gate = Gate()
    falling_back: list[str] = []
    results: list[Any] = []

    def hook(event: Event) -> None:
        if isinstance(event, Queued) and event.backend == "SECOND":
            falling_back.append(event.model)

    _hold_up(subject.cls, gate)
    limits = _limits(0.3, PATIENCE)
    initializer = Initializer(_first_and_second(), backend_priority=limits, hooks=[hook])

    async def load() -> None:
        results.extend(await _all_at_once(initializer, subject))

    async with initializer:
        async with create_task_group() as tasks:
            tasks.start_soon(load)
            await gate.entered()
            await until(lambda: len(falling_back) == LOADS)
            assert gate.inside == 1
            gate.open()
        await settled(initializer)
    return results


# What came of it

WATCHED = (
    "torch.nn",
    "torch._export.serde.serialize",
    "transformers.initialization",
    "transformers.modeling_utils",
)
"""Where to look, with all that begins so, for what is not what it was before."""


def _held() -> dict[str, Any]:
    """Return every function and class there, and what else loads are known to leave changed.

    It does not go by the list that anyload's guard watches, so as to be a witness of its own.
    """
    import torch
    from torch._export.serde import serialize
    from transformers.modeling_utils import PreTrainedModel

    owners = {
        name: vars(module)
        for name, module in sorted(sys.modules.items())
        if name == "torch" or name.startswith(WATCHED)
    }
    owners["PreTrainedModel"] = dict(vars(PreTrainedModel))
    return {
        "the default dtype": torch.get_default_dtype(),
        "the deserializer": serialize._CURRENT_DESERIALIZER,
        "the warnings filters": tuple(warnings.filters),
        **{
            f"{owner}.{name}": value
            for owner, values in owners.items()
            for name, value in list(values.items())
            if callable(value)
        },
    }


def _changed(before: dict[str, Any]) -> tuple[str, ...]:
    after = _held()
    return tuple(
        name
        for name, value in before.items()
        if after.get(name) is not value and (callable(value) or after.get(name) != value)
    )


@contextmanager
def _bystander() -> Iterator[Counter[str]]:
    """Let a thread that has nothing to do with loading make tensors, and count their dtypes."""
    import torch

    dtypes, stop = Counter[str](), threading.Event()

    def work() -> None:
        while not stop.wait(0.0005):
            dtypes[str(torch.zeros(1).dtype).removeprefix("torch.")] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield dtypes
    finally:
        stop.set()
        thread.join()


def _outcome(subject: Subject, number: int, result: Any) -> str:
    from anyload import LoadError

    if isinstance(result, LoadError) and len(result.attempts) == 2:
        first, second = result.attempts
        holder = f"the load of {str(subject.config(number))!r} on FIRST"
        waited = f"waited for {holder}, which is past its limit and still running"
        if first.outcome == second.outcome == "timed_out" and second.reason == waited:
            return REFUSED
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {result}".partition("\n")[0][:120]
    return subject.wrong(number, result) or RIGHT


def _outcomes(subject: Subject, results: Sequence[Any]) -> Counter[str]:
    return Counter(_outcome(subject, number, one) for number, one in enumerate(results))


def _seen(
    subject: Subject,
    results: Sequence[Any],
    before: dict[str, Any],
    *,
    later: Sequence[Any] = (),
    **more: Any,
) -> Seen:
    import torch

    left, dtype = _changed(before), str(torch.get_default_dtype()).removeprefix("torch.")
    outcomes = _outcomes(subject, results)
    by_hand = [_attempt(subject.by_hand, number) for number in range(LATER)]
    afterwards = _outcomes(subject, later) + _outcomes(subject, by_hand)
    return Seen(outcomes, left, afterwards, dtype, **more)
