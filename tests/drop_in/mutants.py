"""Copies of our class with one thing wrong in each."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

PACKAGE = "anyload.caikit"
FILES = ("_options", "_modules", "_raising", "_initializer")
"""In the order in which they import each other."""


class Mutant(NamedTuple):
    """One thing that is wrong.

    Args:
        file: where.
        right: the text there, once.
        wrong: what it is replaced with.
    """

    file: str
    right: str
    wrong: str

    def make(self) -> Any:
        """Return our class, made from the changed text."""
        with mock.patch.dict(sys.modules):
            for file in FILES:
                module = _executed(file, self)
        return module.AnyloadInitializer


def _executed(file: str, mutant: Mutant) -> ModuleType:
    name = f"{PACKAGE}.{file}"
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text()
    if file == mutant.file:
        assert text.count(mutant.right) == 1, f"not once in {spec.origin}: {mutant.right}"
        text = text.replace(mutant.right, mutant.wrong)
    module = ModuleType(name)
    module.__package__ = PACKAGE
    sys.modules[name] = module
    exec(compile(text, spec.origin, "exec"), vars(module))
    return module


# What more than one mutant is about.
FIRST = "model = load(first, **further, **kwargs)"
SECOND = "model = load(*second, **further, **kwargs)"
AFTER = "except Exception as raised:\n            if not second"
RULE = "if rule is None:\n        return config, path"
NAMED = "if named else {}"
CHECK = 'error.type_check("<COR40080753E>", ModuleBase, model=model)'
TELL = "model.set_load_backend(backend.wrapped)"
MADE_WITH = 'model_config.get("model_backend", backend_types.LOCAL)'
SUPPORTED = "elif made_with not in self._get_supported_load_backends(entry.impl_class):"
RAISED = "return last.error if"
CONTEXT = 'put(raised, "__context__", context)  #'
CALLERS = "        self._callers = Callers(self._core)\n"
METHODS = "    def init(self, model_config: ModuleConfig"

MUTANTS = {
    # How load is called
    "drops_kwargs": Mutant("_modules", FIRST, "model = load(first, **further)"),
    "drops_kwargs_the_second_time": Mutant("_modules", SECOND, "model = load(*second, **further)"),
    "drops_the_backend_the_second_time": Mutant(
        "_modules", SECOND, "model = load(*second, **kwargs)"
    ),
    "copies_kwargs": Mutant(
        "_modules", FIRST, f"import copy; kwargs = copy.deepcopy(kwargs); {FIRST}"
    ),
    "copies_the_config": Mutant(
        "_initializer",
        "model_config=model_config, files",
        "model_config=model_config.copy(), files",
    ),
    "passes_the_config_by_name": Mutant(
        "_modules", FIRST, "model = load(model_path=first, **further, **kwargs)"
    ),
    "passes_the_path_first": Mutant(
        "_modules", RULE, "if rule is None:\n        return path, config"
    ),
    "tries_no_path": Mutant("_modules", RULE, "if rule is None:\n        return (config,)"),
    "tries_no_path_that_is_none": Mutant(
        "_modules", RULE, "if rule is None:\n        return (config, path) if path else (config,)"
    ),
    "tries_the_path_after_anything": Mutant(
        "_modules", AFTER, AFTER.replace("Exception", "BaseException")
    ),
    "tries_the_path_after_a_type_error": Mutant(
        "_modules", AFTER, AFTER.replace("Exception", "TypeError")
    ),
    "does_not_warn_of_the_path": Mutant("_modules", "log.warning(", "log.debug("),
    "warns_of_another_id": Mutant("_modules", "self.cls.MODULE_ID,", "self.module_id,"),
    "takes_kwargs_for_load_backend": Mutant(
        "_modules", NAMED, 'if named or self.supports_arg(load, "kwargs") else {}'
    ),
    "does_not_ask_a_subclass_what_is_named": Mutant(
        "_initializer", "self._supports_arg\n", "LocalModelInitializer._supports_arg\n"
    ),
    "always_passes_load_backend": Mutant("_modules", NAMED, "if True else {}"),
    "never_passes_load_backend": Mutant("_modules", NAMED, "if False else {}"),
    "passes_another_backend": Mutant(
        "_modules", '{"load_backend": backend.wrapped}', '{"load_backend": backend}'
    ),
    "lets_the_caller_choose_the_backend": Mutant(
        "_modules", FIRST, "model = load(first, **{**further, **kwargs})"
    ),
    "goes_by_annotations": Mutant("_options", "argument: Rule = None", 'argument: Rule = "auto"'),
    # What becomes of what it returns
    "tells_no_model_its_backend": Mutant("_modules", TELL, "pass"),
    "sets_the_backend_itself": Mutant("_modules", TELL, "model._load_backend = backend.wrapped"),
    "takes_anything_for_a_model": Mutant("_modules", CHECK, "pass"),
    "takes_only_its_own_models": Mutant("_modules", CHECK, CHECK.replace("ModuleBase", "self.cls")),
    "returns_none_for_none": Mutant(
        "_modules", CHECK, f"if model is None:\n            return None\n        {CHECK}"
    ),
    "caches_by_path": Mutant(
        "_initializer",
        CALLERS,
        f"""{CALLERS}
        models, call = {{}}, self._callers.call_sync

        def cached(key, begin, priority):
            path = begin().model
            models[path] = models.get(path) or call(key, begin, priority)
            return models[path]

        self._callers.call_sync = cached
""",
    ),
    "keeps_models": Mutant(
        "_initializer",
        CALLERS,
        f"""{CALLERS}
        kept, call = [], self._callers.call_sync
        self._callers.call_sync = lambda *args: kept.append(call(*args)) or kept[-1]
""",
    ),
    # Which backend loads
    "reverses_the_priority": Mutant(
        "_initializer", "for choice in self._choices:", "for choice in self._choices[::-1]:"
    ),
    "ignores_what_is_supported": Mutant("_initializer", SUPPORTED, "elif False:"),
    "supports_what_is_undeclared": Mutant(
        "_initializer",
        SUPPORTED,
        'elif made_with not in getattr(entry.impl_class, "SUPPORTED_LOAD_BACKENDS", [made_with]):',
    ),
    "compares_what_is_supported": Mutant(
        "_initializer",
        SUPPORTED,
        "elif made_with not in list(self._get_supported_load_backends(entry.impl_class)):",
    ),
    "knows_no_creation_backend": Mutant("_initializer", MADE_WITH, "backend_types.LOCAL"),
    "takes_none_for_local": Mutant(
        "_initializer", MADE_WITH, 'model_config.get("model_backend") or backend_types.LOCAL'
    ),
    "looks_at_every_class": Mutant("_initializer", "break  # no other", "pass  # no other"),
    "remembers_what_is_registered": Mutant(
        "_initializer",
        "registered = module_backend_registry().get(module_id, {})",
        "registered = vars(self).setdefault("
        "module_id, dict(module_backend_registry().get(module_id, {})))",
    ),
    "remembers_classes_by_their_id": Mutant(
        "_initializer",
        "known = self._implementations.get((module_id, backend_type, module))",
        "known = {key[:2]: one for key, one in self._implementations.items()}.get("
        "(module_id, backend_type))",
    ),
    "raises_where_nothing_matches": Mutant(
        "_initializer",
        "if not plan.candidates:\n            return None",
        "if not plan.candidates:\n            raise LookupError(model_config.module_id)",
    ),
    "goes_on_after_an_error": Mutant(
        "_options", '["next", "raise"] = "raise"', '["next", "raise"] = "next"'
    ),
    # What comes out
    "wraps_errors": Mutant("_initializer", RAISED, "return None if"),
    "wraps_what_is_no_exception": Mutant(
        "_initializer", RAISED, "return RuntimeError(last.error) if"
    ),
    "wraps_stop_iteration": Mutant(
        "_initializer",
        RAISED,
        "stopped = isinstance(last.error, StopIteration)\n"
        "        return RuntimeError(last.error) if stopped else last.error if",
    ),
    "copies_errors": Mutant("_initializer", "shared=key is not None)", "shared=True)"),
    "swallows_errors": Mutant(
        "_initializer",
        METHODS,
        f"""    def init(self, model_config, **kwargs):
        try:
            return self._init(model_config, **kwargs)
        except Exception:
            return None

{METHODS.replace("init", "_init", 1)}""",
    ),
    "loses_the_context": Mutant("_raising", CONTEXT, CONTEXT.replace(" context)", " None)")),
    "replaces_the_context": Mutant("_raising", CONTEXT, "pass  #"),
    "loses_what_is_handled": Mutant("_raising", 'put(last, "__context__", handled)  #', "pass  #"),
    "compares_errors": Mutant(
        "_raising", "while id(last) not in chain:", "while last not in chain.values():"
    ),
    "loses_the_traceback": Mutant(
        "_raising", ".with_traceback(traceback)", ".with_traceback(None)"
    ),
    # What is around
    "registers_no_overrides": Mutant(
        "_initializer", METHODS, f"    _configure_backend_overrides = print\n\n{METHODS}"
    ),
    "gives_its_own_list_of_backends": Mutant(
        "_initializer",
        METHODS,
        f"    backends = property(lambda self: self._backends)\n\n{METHODS}",
    ),
    "starts_backends": Mutant(
        "_initializer",
        CALLERS,
        f"{CALLERS}        [backend.start() for backend in self._backends]\n",
    ),
    "refuses_unknown_keys": Mutant("_options", "logger.warning(", "raise ValueError("),
    "loads_one_at_a_time": Mutant("_options", "_loads or sys.maxsize", "_loads or 1"),
    "shares_by_default": Mutant("_options", "share: bool = False", "share: bool = True"),
    "takes_any_exclusive_group": Mutant(
        "_modules", "(declared if isinstance(declared, str) and declared else None)", "declared"
    ),
    "prepares_modules": Mutant(
        "_modules",
        "prepare=None,",
        "prepare=getattr(module, 'prepare', None),",
    ),
    "needs_a_path_with_text": Mutant(
        "_initializer",
        "path if isinstance(path, str) else str(module_id)",
        "str(path or module_id)",
    ),
    "forgets_the_callers_context": Mutant(
        "_initializer", "contextvars.copy_context()", "contextvars.Context()"
    ),
}
