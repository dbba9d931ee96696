"""A server's life for a while: many clients, loads that fail in every way, and nothing that grows.

``python -m tests.soak 600`` soaks for ten minutes and prints its figures.
"""
