"""Real threads, real loops, and very many callers at once, in a small size and a large one.

``python -m tests.storm`` runs the large ones and prints their figures.
"""
