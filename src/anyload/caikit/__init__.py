"""The drop-in for caikit: its models load off the event loop, by one key of the configuration.

``type: ANYLOAD`` with ``import_class: anyload.caikit.AnyloadInitializer`` in
``model_management.initializers`` replaces caikit's ``LOCAL``, and `load` is ``caikit.load`` for
async servers. The rules of a load are those of caikit's ``LocalModelInitializer`` (Apache-2.0).
"""

try:
    import caikit.core as _core  # noqa: F401  # asked for here, so that its lack has one error
except ModuleNotFoundError as error:
    if error.name != "caikit":
        raise
    from ..errors import MissingExtraError

    raise MissingExtraError("caikit", "caikit") from error

from ._initializer import AnyloadInitializer
from ._manager import load

__all__ = ["AnyloadInitializer", "load"]
