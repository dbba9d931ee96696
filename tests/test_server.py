"""The server of the page on servers, as it stands there, behind a real uvicorn on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_docs import ROOT, blocks_of

PATIENCE = 60.0
RUNNING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="loads are held by a FIFO")


class Answer(NamedTuple):
    status: int
    body: Any
    retry_after: str | None


class Server:
    """A server in a process of its own.

    Args:
        process: the process.
        port: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self._port = port

    def ask(self, method: str, path: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = json.loads(response.read())
            return Answer(response.status, body, response.getheader("Retry-After"))
        finally:
            connection.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of the page; the weights of ``sentiment`` come when the test writes them."""
    for block in blocks_of(ROOT / "docs" / "server.md"):
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
    weights = tmp_path / "models" / "sentiment" / "weights.json"
    weights.rename(tmp_path / "sentiment.json")
    os.mkfifo(weights)
    return tmp_path


@contextmanager
def served(project: Path, log: Path) -> Iterator[Server]:
    """Run the server on a free port; it is gone afterwards, whatever happens."""
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "server:app", "--port", "0"]
    with log.open("w") as told:
        # A failure is remembered for longer than a busy machine takes between two requests.
        environ = {**os.environ, "ANYLOAD__REPOSITORY__COOL_DOWN": "200"}
        process = subprocess.Popen(
            command, cwd=project, env=environ, stderr=told, stdout=told, text=True
        )
    try:
        until(lambda: RUNNING.search(log.read_text()) or process.poll() is not None)
        found = RUNNING.search(log.read_text())
        assert found is not None, log.read_text()
        yield Server(process, int(found[1]))
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.01)


def test_probes_requests_and_the_end(project: Path, tmp_path: Path) -> None:
    """It is alive at once and ready when its model is there; it serves, refuses and ends."""
    log = tmp_path / "log"
    with served(project, log) as server:
        until(lambda: state_of(server, "sentiment") == "LOADING")
        assert server.ask("GET", "/live") == Answer(200, {"status": "alive"}, None)
        assert server.ask("GET", "/ready").status == 503
        spam = server.ask("POST", "/models/spam?text=win+a+prize")  # while the other one loads
        assert (spam.status, spam.body) == (200, {"result": 2})

        # Opening it waits for the load that reads it.
        (project / "models/sentiment/weights.json").write_text(
            (project / "sentiment.json").read_text()
        )
        until(lambda: server.ask("GET", "/ready").status == 200)
        sentiment = server.ask("POST", "/models/sentiment?text=a+great+bad+film")
        assert (sentiment.status, sentiment.body) == (200, {"result": 1})

        nobody = server.ask("POST", "/models/nobody?text=x")
        assert nobody.status == 404
        assert "nobody" in nobody.body["error"]
        assert server.stop() in (0, -signal.SIGTERM)
    assert "Application shutdown complete" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_model_that_fails(project: Path, tmp_path: Path) -> None:
    """What does not load is a 503 with the error, then with the time to wait; all else works."""
    (project / "models" / "spam" / "weights.json").write_text("{")
    log = tmp_path / "log"
    with served(project, log) as server:
        first = server.ask("POST", "/models/spam?text=x")
        assert (first.status, first.retry_after) == (503, None)
        assert "JSONDecodeError" in first.body["error"]
        second = server.ask("POST", "/models/spam?text=x")
        assert second.status == 503
        assert second.retry_after is not None
        assert 100 < int(second.retry_after) <= 200
        assert "'spam' is unavailable for another" in second.body["error"]
        assert state_of(server, "spam") == "UNAVAILABLE"
        assert server.ask("GET", "/live").status == 200


def state_of(server: Server, name: str) -> str:
    (row,) = (row for row in server.ask("GET", "/ready").body if row["name"] == name)
    return str(row["state"])
