"""How a process ends in the middle of a load: with what exit code, and that it does end.

Nothing here may hang, whatever a load hangs in. `tests/test_closing.py` has the ends after a clean
close, and forks.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import HANGS, LOOPS, End, build_native, end_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are other ones there")

on_each_loop = pytest.mark.parametrize("loop", LOOPS)
in_each_way = pytest.mark.parametrize("hangs", HANGS)

NATIVE = "in native code that comes back for the GIL"
SOON = 20.0
"""Seconds; but for a grace that was asked for an end takes a fraction of one."""

WAITS = """
async def main():
    await opened().init(HANGS)
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the extension that hangs in native code."""
    directory = tmp_path_factory.mktemp("native")
    build_native(directory)
    return directory


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return where a child runs: where the extension is, for the test that needs it."""
    if request.node.callspec.params.get("hangs") != NATIVE:
        return tmp_path
    directory: Path = request.getfixturevalue("native")
    return directory


def clean(end: End, code: int, *out: str) -> None:
    """Assert an end without a word of complaint."""
    assert (end.code, end.out, end.err) == (code, ["in the load", *out], "")
    assert end.seconds < SOON


# By itself


@in_each_way
def test_main_returns(hangs: str, path: Path) -> None:
    """A load that nobody waits for does not keep the process; native code may abort it."""
    end = end_of(
        """
        async def main():
            initializer = limited()
            await ask(initializer)
            await initializer.init(ModelConfig("free"))
            say("over")
        run(main)
        """,
        hangs=hangs,
        path=path,
    )
    assert end.out == ["in the load", "LoadError", "over"]
    # What docs/how-to.md says, and what exit_process is for.
    assert end.code in ((0, -signal.SIGABRT, -signal.SIGSEGV) if hangs == NATIVE else (0,)), end


@in_each_way
def test_exit_process(hangs: str, path: Path) -> None:
    """It ends the process with its code whatever a load hangs in."""
    end = end_of(
        """
        async def main():
            initializer = limited()
            await ask(initializer)
            say(len(await initializer.aclose(0)))
        run(main)
        exit_process(7)
        """,
        hangs=hangs,
        path=path,
    )
    clean(end, 7, "LoadError", "1")


@on_each_loop
def test_exit_process_without_a_close(loop: str) -> None:
    """In the middle of everything, from the loop itself, with loads that run and that wait."""
    end = end_of(
        """
        async def main():
            initializer = limited()
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(ask, initializer)
                while not initializer.statistics().abandoned:
                    await anyio.sleep(0.01)
                exit_process(7)
        run(main)
        """,
        loop=loop,
    )
    assert end.code == 7
    assert end.err == ""


@on_each_loop
def test_sys_exit(loop: str) -> None:
    """Its code is the process's, though a load hangs and others are queued behind it."""
    end = end_of(
        """
        async def main():
            initializer = opened()
            async def fail():
                while not initializer.statistics().running:
                    await anyio.sleep(0.01)
                sys.exit(3)
            try:
                async with anyio.create_task_group() as tasks:
                    for number in range(5):
                        tasks.start_soon(initializer.init, HANGS)
                    tasks.start_soon(fail)
            except BaseExceptionGroup as group:
                raise group.exceptions[0]
        run(main)
        """,
        loop=loop,
    )
    clean(end, 3)


@on_each_loop
def test_an_exception_out_of_main(loop: str) -> None:
    """It is told as ever, and ends the process."""
    end = end_of(
        """
        async def main():
            initializer = limited()
            try:
                await initializer.init(HANGS)
            except Exception:
                raise ValueError("out of main") from None
        run(main)
        """,
        loop=loop,
    )
    assert (end.code, end.out) == (1, ["in the load"])
    assert end.err.splitlines()[-1] == "ValueError: out of main"


@on_each_loop
def test_main_returns_with_loads_in_the_queue(loop: str) -> None:
    """They never begin."""
    end = end_of(
        """
        async def main():
            initializer = opened()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(initializer.init, HANGS)
                while not initializer.statistics().running:
                    await anyio.sleep(0.01)
                for number in range(100):
                    tasks.start_soon(initializer.init, HANGS)
                while initializer.statistics().queued < 100:
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            say(initializer.statistics().waiters)
        run(main)
        """,
        loop=loop,
    )
    clean(end, 0, "0")


# By Ctrl-C


@on_each_loop
def test_ctrl_c(loop: str) -> None:
    """It ends the process at once, as it ends any other."""
    end = end_of(WAITS + "run(main)", loop=loop, signals=(signal.SIGINT,))
    assert (end.code, end.out) == (-signal.SIGINT, ["in the load"])
    assert end.err.rstrip().endswith("KeyboardInterrupt")
    assert "Fatal" not in end.err
    assert end.seconds < SOON


@in_each_way
def test_ctrl_c_and_exit_process(hangs: str, path: Path) -> None:
    """Where a program catches it, exit_process has the last word, whatever the load hangs in."""
    end = end_of(
        WAITS
        + """
initializer = opened()
try:
    initializer.init_sync(HANGS)
except KeyboardInterrupt:
    say(len(initializer.close(0)))
    exit_process(130)
""",
        hangs=hangs,
        path=path,
        signals=(signal.SIGINT,),
    )
    clean(end, 130, "1")


@on_each_loop
def test_ctrl_c_in_the_grace(loop: str) -> None:
    """Who does not want to wait for the grace of a close presses it again."""
    end = end_of(
        """
        def tell():
            while True:
                try:
                    initializer.init_sync(ModelConfig("free"), timeout=0.01)
                except TimeoutError:
                    continue
                except Exception as error:
                    say(type(error).__name__)
                    return

        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(initializer.init, HANGS)
                while not initializer.statistics().running:
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            threading.Thread(target=tell).start()
            try:
                await initializer.aclose(1000)
            finally:
                say("out of it")

        initializer = opened()
        run(main)
        """,
        loop=loop,
        signals=(signal.SIGCONT, signal.SIGINT),
    )
    assert (end.code, end.out) == (-signal.SIGINT, ["in the load", "ClosedError", "out of it"]), (
        end.err
    )
    assert end.seconds < SOON


def test_ctrl_c_in_a_plain_thread() -> None:
    """init_sync on the main thread hears it; ``with`` then closes, and that hears it too."""
    end = end_of(
        """
        try:
            with opened() as initializer:
                try:
                    initializer.init_sync(HANGS)
                finally:
                    say("closing")
        finally:
            say("closed", initializer.statistics().waiters)
        """,
        signals=(signal.SIGINT, signal.SIGINT),
    )
    assert (end.code, end.out) == (-signal.SIGINT, ["in the load", "closing", "closed 0"])
    assert end.seconds < SOON


# By SIGTERM


@in_each_way
def test_sigterm(hangs: str, path: Path) -> None:
    """Without a handler it ends the process at once."""
    end = end_of(WAITS + "run(main)", hangs=hangs, path=path, signals=(signal.SIGTERM,))
    clean(end, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("loop", "hangs"),
    [*(("asyncio", hangs) for hangs in HANGS), ("uvloop", "in Python"), ("trio", NATIVE)],
)
def test_sigterm_with_a_handler(loop: str, hangs: str, path: Path) -> None:
    """A server that hears it closes, sees what it leaves behind, and ends with its own code."""
    end = end_of(
        """
        async def main():
            initializer = opened()
            async with anyio.create_task_group() as tasks:
                with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                    tasks.start_soon(ask, initializer)
                    async for _ in signals:
                        break
                left = await initializer.aclose(0.1)
                say(len(left), left[0].model, left[0].abandoned)
        run(main)
        exit_process(0)
        """,
        loop=loop,
        hangs=hangs,
        path=path,
        signals=(signal.SIGTERM,),
    )
    assert end.out[0] == "in the load"
    assert sorted(end.out[1:]) == ["1 hangs True", "ClosedError"]
    assert (end.code, end.err) == (0, "")
