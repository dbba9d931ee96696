"""anyload loads machine-learning models inside running async servers.

Every public name is here; each is imported from its module when it is first used, so that
``import anyload`` costs next to nothing. `docs/architecture.md` says which floor of the library
each module is on.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._keeping.catalogue import CatalogueChange as CatalogueChange
    from ._keeping.eviction import EvictionPlan as EvictionPlan
    from ._keeping.index import ModelStatus as ModelStatus
    from ._keeping.index import RepositoryStatistics as RepositoryStatistics
    from ._keeping.leases import Lease as Lease
    from ._load.call import check_cancelled as check_cancelled
    from ._load.call import report_progress as report_progress
    from ._load.call import report_warning as report_warning
    from ._load.exit import exit_process as exit_process
    from ._load.plan import Candidate as Candidate
    from ._load.plan import Plan as Plan
    from ._load.plan import Skip as Skip
    from .backends import LocalBackend as LocalBackend
    from .bulk import BulkLoad as BulkLoad
    from .bulk import LoadOutcome as LoadOutcome
    from .config import BackendConfig as BackendConfig
    from .contracts import Admission as Admission
    from .contracts import Backend as Backend
    from .contracts import Module as Module
    from .errors import AnyloadError as AnyloadError
    from .errors import BulkLoadError as BulkLoadError
    from .errors import ClosedError as ClosedError
    from .errors import ConfigError as ConfigError
    from .errors import DrainTimeoutError as DrainTimeoutError
    from .errors import IntegrityError as IntegrityError
    from .errors import LoadCancelled as LoadCancelled
    from .errors import LoadError as LoadError
    from .errors import LoadTimeoutError as LoadTimeoutError
    from .errors import MemoryBudgetError as MemoryBudgetError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import ModelNotFoundError as ModelNotFoundError
    from .errors import ModelUnavailableError as ModelUnavailableError
    from .errors import QueueFullError as QueueFullError
    from .errors import ReentrantLoadError as ReentrantLoadError
    from .errors import RegistrationError as RegistrationError
    from .errors import SaturatedError as SaturatedError
    from .errors import UnsafeArchiveError as UnsafeArchiveError
    from .errors import UnsafePickleError as UnsafePickleError
    from .errors import WrongDeviceError as WrongDeviceError
    from .errors import WrongTypeError as WrongTypeError
    from .guard import ProcessGlobal as ProcessGlobal
    from .initializer import Initializer as Initializer
    from .model_config import ModelConfig as ModelConfig
    from .recorder import Recorder as Recorder
    from .registry import Registry as Registry
    from .reports import Attempt as Attempt
    from .reports import GlobalChange as GlobalChange
    from .reports import LoadReport as LoadReport
    from .reports import Observed as Observed
    from .reports import Statistics as Statistics
    from .reports import StuckLoad as StuckLoad
    from .repository import ModelRepository as ModelRepository
    from .timeline import Timeline as Timeline

_HOMES = MappingProxyType(
    {
        "_keeping.catalogue": ("CatalogueChange",),
        "_keeping.eviction": ("EvictionPlan",),
        "_keeping.index": ("ModelStatus", "RepositoryStatistics"),
        "_keeping.leases": ("Lease",),
        "_load.call": ("check_cancelled", "report_progress", "report_warning"),
        "_load.exit": ("exit_process",),
        "_load.plan": ("Candidate", "Plan", "Skip"),
        "backends": ("LocalBackend",),
        "bulk": ("BulkLoad", "LoadOutcome"),
        "config": ("BackendConfig",),
        "contracts": ("Admission", "Backend", "Module"),
        "errors": (
            "AnyloadError",
            "BulkLoadError",
            "ClosedError",
            "ConfigError",
            "DrainTimeoutError",
            "IntegrityError",
            "LoadCancelled",
            "LoadError",
            "LoadTimeoutError",
            "MemoryBudgetError",
            "MissingExtraError",
            "ModelNotFoundError",
            "ModelUnavailableError",
            "QueueFullError",
            "ReentrantLoadError",
            "RegistrationError",
            "SaturatedError",
            "UnsafeArchiveError",
            "UnsafePickleError",
            "WrongDeviceError",
            "WrongTypeError",
        ),
        "guard": ("ProcessGlobal",),
        "initializer": ("Initializer",),
        "model_config": ("ModelConfig",),
        "recorder": ("Recorder",),
        "registry": ("Registry",),
        "reports": ("Attempt", "GlobalChange", "LoadReport", "Observed", "Statistics", "StuckLoad"),
        "repository": ("ModelRepository",),
        "timeline": ("Timeline",),
    }
)
_HOME_OF = MappingProxyType({name: home for home, names in _HOMES.items() for name in names})

__version__ = "0.1.0"
__all__ = tuple(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
