"""All cases of the differential suite, by name."""

from __future__ import annotations

import cases_of_calls
import cases_of_configs
import cases_of_errors
import cases_of_nesting
import cases_of_plans
import cases_of_surroundings
from worlds import Case

CASES: dict[str, Case] = {
    name: case
    for cases in (
        cases_of_plans,
        cases_of_calls,
        cases_of_errors,
        cases_of_configs,
        cases_of_nesting,
        cases_of_surroundings,
    )
    for name, case in cases.CASES.items()
}

KNOWN = {
    "checks_are_off_and_load_returns-nothing": "anyload takes no other backend after None",
    "checks_are_off_and_nothing_loads": "anyload takes None for a failure",
    "what_only_the_callers_thread_has": "a load runs in another thread",
    "a_lock_of_the_caller": "a load runs in another thread",
    "an_error_that_is_raised_on": "a load runs in another thread",
}
"""The cases that differ where loads run in worker threads, and why."""
