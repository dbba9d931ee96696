"""A pytest plug-in for caikit's own tests: another class is LOCAL, and what came of each is told.

``--initializer`` says which class, ``--outcomes`` where the outcomes go, as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aconfig
import pytest
from caikit.core.model_management import model_initializer_factory
from caikit.core.model_management.local_model_initializer import LocalModelInitializer

from anyload.caikit import AnyloadInitializer


class Ours(AnyloadInitializer):
    """Our class under caikit's name, with caikit's keys."""

    name = "LOCAL"


class InWorkers(Ours):
    """The same with a key of ours, so that every load is in a worker thread."""

    def __init__(self, config: aconfig.Config, instance_name: str) -> None:
        further = {**config, "max_concurrent_loads": 4}
        super().__init__(aconfig.Config(further, override_env_vars=False), instance_name)


CLASSES = {"caikits": LocalModelInitializer, "ours": Ours, "in_workers": InWorkers}


class Outcomes:
    """What came of each test, and how many loads there were."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._outcomes: dict[str, str] = {}
        self.loads = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test; the call counts, and what is wrong before or after it."""
        if report.when == "call" or not report.passed:
            self._outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Write down what was noted."""
        told = {"outcomes": self._outcomes, "loads": self.loads}
        self._file.write_text(json.dumps(told))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--initializer", choices=CLASSES)
    parser.addoption("--outcomes")


def pytest_configure(config: pytest.Config) -> None:
    outcomes = Outcomes(config.getoption("outcomes"))
    config.pluginmanager.register(outcomes)
    kind: Any = CLASSES[config.getoption("initializer")]
    init = kind.init

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        outcomes.loads += 1
        return init(self, *args, **kwargs)

    kind.init = counted
    model_initializer_factory._registered_types["LOCAL"] = kind
