"""Every error that anyload raises.

::

    AnyloadError
    ├── ConfigError             a configuration that cannot be used
    │   └── RegistrationError   a registration that conflicts or cannot work
    ├── ModelNotFoundError      no such model, or it lies outside the root
    ├── LoadError               no backend could load the model
    │   └── LoadTimeoutError    ... within load_timeout
    ├── SaturatedError          every slot is held by a load that is past its limit
    ├── ReentrantLoadError      a load that would wait for itself
    ├── WrongTypeError          load returned something that is not a model of its module
    ├── ClosedError             the initializer is closed
    ├── IntegrityError          a file is not what it should be
    ├── UnsafeArchiveError      an archive that could write outside its directory
    ├── UnsafePickleError       a file that is code, a pickle say, and that nobody has allowed
    ├── MissingExtraError       a framework that is not installed
    ├── WrongDeviceError        a framework took another device than the one asked for
    ├── ModelUnavailableError   a repository remembers that the model failed, or has unloaded it
    ├── MemoryBudgetError       a model does not fit into the memory budget
    ├── QueueFullError          too many models wait to be loaded
    ├── DrainTimeoutError       leases of a model were still out when its time to drain was over
    └── BulkLoadError           some models of a bulk did not load (also an ExceptionGroup)
    LoadCancelled               a BaseException: this load is no longer wanted

An error is its fields; the text is derived from them. Every error pickles.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from ._text import LONGEST_NAME, LONGEST_TEXT, one_line, quoted
from .reports import Attempt, LoadReport, StuckLoad, attempt_rows, seconds

MOST_PROBLEMS = 100


class AnyloadError(Exception):
    """The root of what anyload raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields go along as they are: a constructor may take them in another shape.
        return _rebuild, (type(self), self.args), _state(self)


def _state(error: BaseException) -> dict[str, Any]:
    state = dict(vars(error))
    if "__notes__" in state:
        state["__notes__"] = list(state["__notes__"])  # a copy takes notes of its own
    return state


def _rebuild(kind: type[AnyloadError], args: tuple[Any, ...]) -> AnyloadError:
    return kind.__new__(kind, *args)


class Problem(NamedTuple):
    """One thing that is wrong with a configuration: where it is and what is wrong."""

    where: str
    what: str


class ConfigError(AnyloadError):
    """A configuration cannot be used.

    Args:
        source: the file, or what else was read.
        problems: everything that is wrong with it, not only the first.
    """

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(Problem(*problem) for problem in problems)
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        source, count = one_line(self.source, LONGEST_NAME), len(self.problems)
        if count == 1 and not self.problems[0].where:
            return f"{source}: {one_line(self.problems[0].what)}"
        rows = [
            (one_line(where, LONGEST_NAME), one_line(what))
            for where, what in self.problems[:MOST_PROBLEMS]
        ]
        width = max((len(where) for where, _ in rows), default=0)
        lines = [f"{source} has {count} problem{'' if count == 1 else 's'}"]
        lines += [f"  {where:<{width}}  {what}".rstrip() for where, what in rows]
        lines += ["  ..."] if count > MOST_PROBLEMS else []
        return "\n".join(lines)


class RegistrationError(ConfigError):
    """A module or backend type cannot be registered; the text names both sides of a conflict."""


class ModelNotFoundError(AnyloadError):
    """There is no such model.

    Args:
        model: the name or path that was asked for.
        reason: what was looked for, and where.
    """

    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        self.reason = reason
        super().__init__(model, reason)

    def __str__(self) -> str:
        return f"model {quoted(self.model)} not found: {one_line(self.reason)}"


class LoadError(AnyloadError):
    """No backend could load the model; ``__cause__`` is what the last failing one raised.

    Args:
        model: the name or path that was asked for.
        module_id: the module that was to load it.
        attempts: every backend's turn, in order.
        report: the same with its timing, where the load got far enough to have one.
    """

    def __init__(
        self,
        model: str,
        module_id: str | None = None,
        attempts: Iterable[Attempt] = (),
        report: LoadReport | None = None,
    ) -> None:
        self.model = model
        self.module_id = module_id
        self.attempts = tuple(attempts)
        self.report = report
        super().__init__(model, module_id)

    def __str__(self) -> str:
        return "\n".join([self._headline(), *attempt_rows(self.attempts)])

    def _headline(self) -> str:
        return f"no backend could load {self._model_and_module()}"

    def _model_and_module(self) -> str:
        module = f" (module {quoted(self.module_id)})" if self.module_id else ""
        return quoted(self.model) + module


class LoadTimeoutError(LoadError):
    """The model did not load within ``load_timeout``.

    It is not a TimeoutError, so that callers can tell it from their own ``fail_after``.

    Args:
        limit: the ``load_timeout`` that passed, in seconds.
        waited: what it waited for then, in words; empty if a load was running.
    """

    def __init__(
        self,
        model: str,
        module_id: str | None = None,
        attempts: Iterable[Attempt] = (),
        report: LoadReport | None = None,
        *,
        limit: float,
        waited: str = "",
    ) -> None:
        self.limit = limit
        self.waited = waited
        super().__init__(model, module_id, attempts, report)

    def _headline(self) -> str:
        limit, waited = seconds(self.limit), f": {self.waited}" if self.waited else ""
        return f"{self._model_and_module()} was not loaded within load_timeout, {limit}{waited}"


class SaturatedError(AnyloadError):
    """Every slot is held by a load that is past its limit; nothing can run until one ends.

    Args:
        model: the name or path that was asked for.
        stuck: the loads that hold the slots.
    """

    def __init__(self, model: str, stuck: Sequence[StuckLoad]) -> None:
        self.model = model
        self.stuck = tuple(stuck)
        super().__init__(model, self.stuck)

    def __str__(self) -> str:
        model = quoted(self.model)
        head = f"cannot load {model}: every slot is held by a load that is past its limit"
        tail = "restart the process, or raise max_abandoned_loads to go on without those threads"
        return "\n".join([head, *(f"  {load}" for load in self.stuck), tail])


class ReentrantLoadError(AnyloadError):
    """Going on would make a load wait for itself.

    Args:
        model: the name or path that was asked for.
        chain: the models and groups of the cycle, from the outermost load inwards.
    """

    def __init__(self, model: str, chain: Iterable[str]) -> None:
        self.model = model
        self.chain = tuple(chain)
        super().__init__(model, self.chain)

    def __str__(self) -> str:
        chain = one_line(" -> ".join(self.chain))
        return f"loading {quoted(self.model)} would wait for itself: {chain}"


class WrongTypeError(AnyloadError):
    """``load`` returned something that is not a model of its module.

    Args:
        implementation: the class whose ``load`` it was.
        returned: what came back, in words.
        expected: what is accepted, in words.
    """

    def __init__(self, implementation: str, returned: str, expected: str) -> None:
        self.implementation = implementation
        self.returned = returned
        self.expected = expected
        super().__init__(implementation, returned, expected)

    def __str__(self) -> str:
        return f"{self.implementation}.load returned {self.returned}; expected {self.expected}"


class ClosedError(AnyloadError):
    """The initializer is closed, or closed before the model was loaded.

    Args:
        model: the name or path that was asked for.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(model)

    def __str__(self) -> str:
        return f"cannot load {quoted(self.model)}: the initializer is closed"


class IntegrityError(AnyloadError):
    """A file is not what it should be: empty, cut short, not what its name or manifest says.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(path, reason)

    def __str__(self) -> str:
        return f"{one_line(self.path, LONGEST_NAME)}: {one_line(self.reason)}"


class UnsafeArchiveError(AnyloadError):
    """An archive holds a member that must not be extracted; nothing of it is left behind.

    Args:
        archive: the archive's path.
        member: the member's name.
        reason: what is unsafe about it.
    """

    def __init__(self, archive: str, member: str, reason: str) -> None:
        self.archive = archive
        self.member = member
        self.reason = reason
        super().__init__(archive, member, reason)

    def __str__(self) -> str:
        return f"{one_line(self.archive, LONGEST_NAME)}: member {quoted(self.member)} {self.reason}"


class UnsafePickleError(AnyloadError):
    """Loading a file would run code that is in it, and nobody has allowed that.

    Args:
        path: the file.
        reason: what is missing.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(path, reason)

    def __str__(self) -> str:
        return f"{one_line(self.path, LONGEST_NAME)}: {one_line(self.reason)}"


class MissingExtraError(AnyloadError):
    """A framework is not installed.

    Args:
        package: the package that is missing.
        extra: the extra of anyload that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(package, extra)

    def __str__(self) -> str:
        return f"{self.package} is not installed; pip install 'anyload[{self.extra}]'"


class WrongDeviceError(AnyloadError):
    """A framework took another device than the one asked for, or has none such.

    Args:
        asked: the device.
        got: what it took, or has.
    """

    def __init__(self, asked: str, got: str) -> None:
        self.asked = asked
        self.got = got
        super().__init__(asked, got)

    def __str__(self) -> str:
        return f"asked for {self.asked}, got {self.got}"


class ModelUnavailableError(AnyloadError):
    """A repository does not even try to load a model; ``__cause__`` is what it remembers.

    Args:
        model: the model's name.
        reason: why.
        retry_after: seconds after which it is tried again; None if not before its catalogue
            entry or its files change.
    """

    def __init__(self, model: str, reason: str, retry_after: float | None = None) -> None:
        self.model = model
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(model, reason, retry_after)

    def __str__(self) -> str:
        if self.retry_after is None:
            when = "until its catalogue entry or its files change"
        else:
            when = f"for another {seconds(self.retry_after)}"
        return f"{quoted(self.model)} is unavailable {when}: {self.reason}"


class MemoryBudgetError(AnyloadError):
    """A model does not fit into the memory budget, or did not get room in time.

    Args:
        model: the model's name.
        need: what its load needs, in bytes by device.
        limits: the budget, in bytes by device.
        reason: what stands in the way, with its sizes.
    """

    def __init__(
        self, model: str, need: Mapping[str, int], limits: Mapping[str, int], reason: str
    ) -> None:
        self.model = model
        self.need = dict(need)
        self.limits = dict(limits)
        self.reason = reason
        super().__init__(model, self.need, self.limits, reason)

    def __str__(self) -> str:
        return f"no room for {quoted(self.model)}: {self.reason}"


class QueueFullError(AnyloadError):
    """As many models wait to be loaded as may.

    Args:
        model: the model's name.
        queued: how many wait.
        retry_after: for how many seconds it is likely to be no use to ask again.
    """

    def __init__(self, model: str, queued: int, retry_after: float) -> None:
        self.model = model
        self.queued = queued
        self.retry_after = retry_after
        super().__init__(model, queued, retry_after)

    def __str__(self) -> str:
        return (
            f"cannot load {quoted(self.model)} now: {self.queued} models wait to be loaded; "
            f"try again in {seconds(self.retry_after)}"
        )


class DrainTimeoutError(AnyloadError):
    """Leases of a model were still out when its time to drain was over.

    It is unloaded when the last of them is returned.

    Args:
        model: the model's name.
        leases: how many were out.
        timeout: how long was waited for them, in seconds.
    """

    def __init__(self, model: str, leases: int, timeout: float) -> None:
        self.model = model
        self.leases = leases
        self.timeout = timeout
        super().__init__(model, leases, timeout)

    def __str__(self) -> str:
        return (
            f"{quoted(self.model)} is still in use after {seconds(self.timeout)}: "
            f"{self.leases} leases are out; it is unloaded when the last of them is returned"
        )


class BulkLoadError(ExceptionGroup[Exception], AnyloadError):
    """Some models of a bulk did not load.

    It is raised after every load has ended, or at once with ``fail_fast``.

    Args:
        message: one line that says how many.
        exceptions: the error of each model that failed, in the order in which they were given.
        models: the models that did load, by the object that was given.
        failed: the error of each model that failed, by the object that was given.
    """

    models: Mapping[Any, Any]
    failed: Mapping[Any, Exception]

    # An exception group is made in __new__, which is where its fields have to be set.
    def __new__(
        cls,
        message: str,
        exceptions: Sequence[Exception],
        models: Mapping[Any, Any] | None = None,
        failed: Mapping[Any, Exception] | None = None,
    ) -> Self:
        """Make the error; see the class."""
        self = super().__new__(cls, message, exceptions)
        self.models = {} if models is None else models
        self.failed = {} if failed is None else failed
        return self

    def __init__(
        self,
        message: str,
        exceptions: Sequence[Exception],
        models: Mapping[Any, Any] | None = None,
        failed: Mapping[Any, Exception] | None = None,
    ) -> None:
        super().__init__(message, exceptions)

    def derive(self, exceptions: Sequence[Any], /) -> ExceptionGroup[Any]:
        """Return the same with other exceptions; ``except*`` and ``split`` use it."""
        kept = {model: error for model, error in self.failed.items() if error in exceptions}
        return BulkLoadError(self.message, exceptions, self.models, kept)

    def __reduce__(self) -> tuple[Any, ...]:
        # The models stay behind: they are large, and belong to the process that loaded them.
        failed = {_portable(model): error for model, error in self.failed.items()}
        state = {**_state(self), "models": {}, "failed": failed}
        return type(self), (self.message, list(self.exceptions)), state


def _portable(model: Any) -> Any:
    """Return what somebody asked for, or its text where it cannot go to another process."""
    try:
        pickle.dumps(model)
    except Exception:
        try:
            return repr(model)
        except Exception:
            return object.__repr__(model)
    return model


class LoadCancelled(BaseException):
    """This load is no longer wanted; let it pass and clean up on the way.

    It is a BaseException so that a broad ``except Exception`` in a module does not eat it.
    """


def describe(error: BaseException) -> str:
    """Return ``Type: message`` for any exception, cut to 4 kB.

    An exception whose ``__str__`` is broken or endless is described all the same: what a module
    raises must not be able to break the report of it.
    """
    name = _class_name(error)
    try:
        message = str.__str__(str(error))  # which may be of a class of its own
    except BaseException as broken:
        message = f"<its text could not be made: {_class_name(broken)}>"
    text = f"{name}: {message}" if message else name
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}... ({len(text) - LONGEST_TEXT} more characters)"
    return text


def _class_name(error: BaseException) -> str:
    """Return the name of its class, whatever a metaclass would say."""
    name: str = vars(type)["__name__"].__get__(type(error))
    return name
