"""Loads real models inside an event loop: ``python -m demo``."""
