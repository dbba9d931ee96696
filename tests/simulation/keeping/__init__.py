"""A server that keeps more models than fit, likewise: `ModelRepository` in the made-up world.

``python -m tests.simulation --repository 1234`` plays a seed again and prints what happened.
"""
