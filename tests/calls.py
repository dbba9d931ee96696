"""What the tests of loading share: callers in the background, and modules made of a function."""

from collections.abc import Callable, Iterator
from typing import Any

from anyio.abc import TaskGroup

from anyload import AnyloadError, Backend, Initializer, ModelConfig, Registry
from anyload.testing import FakeModel, until


class Gpu(Backend):
    """A backend beside LOCAL, to fall back from."""

    backend_type = "GPU"


GPU_THEN_LOCAL = [{"type": "GPU"}, {"type": "LOCAL"}]


def two_backends() -> Registry:
    registry = Registry()
    registry.backend_type(Gpu)
    return registry


def does(body: Callable[[ModelConfig], object], **attributes: Any) -> Any:
    """Return a module whose load calls this first, and that remembers what it made."""

    class Does(FakeModel):
        made: list[FakeModel] = []  # noqa: RUF012  # each class of this function has its own

        @classmethod
        def load(cls, config: ModelConfig, **kwargs: Any) -> Any:
            body(config)
            model = cls(config, kwargs)
            cls.made.append(model)
            return model

    for name, value in attributes.items():
        setattr(Does, name, value)
    return Does


class Calls:
    """Callers of `init` in the background, and what each got: its model or its error."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._results: dict[str, Any] = {}

    def start(self, name: str, initializer: Initializer, model: Any, **options: Any) -> None:
        async def call() -> None:
            try:
                self._results[name] = await initializer.init(model, **options)
            except AnyloadError as error:
                self._results[name] = error

        self._tasks.start_soon(call)

    async def result(self, name: str) -> Any:
        """Wait for what a caller got."""
        await until(lambda: name in self._results)
        return self._results[name]

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)


async def error_of(initializer: Initializer, model: Any, **options: Any) -> Any:
    """Load, and return the error that this must end with."""
    try:
        value = await initializer.init(model, **options)
    except AnyloadError as error:
        return error
    raise AssertionError(f"loaded {value!r}")


def of_type(kind: type, events: list[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


async def arrived(kind: type, events: list[Any]) -> Any:
    """Wait for the first event of a type: hooks may hear of a load after its callers did."""
    await until(lambda: bool(of_type(kind, events)))
    return of_type(kind, events)[0]


__all__ = [
    "GPU_THEN_LOCAL",
    "Calls",
    "Gpu",
    "arrived",
    "does",
    "error_of",
    "of_type",
    "two_backends",
]
