"""A server's life in a made-up world: seeded, in virtual time, and the same on every run.

``python -m tests.simulation 1234`` plays a seed again and prints what happened.
"""
