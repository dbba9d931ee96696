"""Mutants of the core's concurrency rules, and what runs the tests against them."""
