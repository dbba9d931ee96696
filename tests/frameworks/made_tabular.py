"""Forests, boosters and pipelines made on the spot: small and valid, or as big as is wanted."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

FEATURES = 8


def rows(count: int) -> tuple[Any, Any]:
    """Return rows of random features, and a random class for each."""
    import numpy as np

    random = np.random.default_rng(0)
    return random.standard_normal((count, FEATURES)), random.integers(0, 2, count)


def forest(trees: int = 3, *, count: int = 200, copies: int = 1) -> Any:
    """Return a random forest; copies of its trees make it as big as it would be by training."""
    from sklearn.ensemble import RandomForestClassifier

    made = RandomForestClassifier(trees, random_state=0).fit(*rows(count))
    made.estimators_ = [deepcopy(tree) for _ in range(copies) for tree in made.estimators_]
    return made


def xgboost_booster(*, depth: int = 3, rounds: int = 3, count: int = 200) -> Any:
    """Return a booster of XGBoost."""
    import xgboost

    features, labels = rows(count)
    options = {"objective": "binary:logistic", "max_depth": depth, "nthread": 2}
    return xgboost.train(options, xgboost.DMatrix(features, label=labels), rounds)


def lightgbm_booster(*, leaves: int = 7, rounds: int = 3, count: int = 200) -> Any:
    """Return a booster of LightGBM."""
    import lightgbm

    features, labels = rows(count)
    options = {
        "objective": "binary",
        "verbose": -1,
        "num_leaves": leaves,
        "min_data_in_leaf": 2,
        "num_threads": 2,
    }
    return lightgbm.train(options, lightgbm.Dataset(features, label=labels), rounds)


def spacy_pipeline(path: Path, *, words: int = 0) -> Path:
    """Write a pipeline that finds sentences and classifies texts; it may know many words."""
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    classifier = nlp.add_pipe("textcat")
    for label in ("GOOD", "BAD"):
        classifier.add_label(label)
    for number in range(words):
        nlp.vocab.strings.add(f"word-{number:09d}")
    nlp.initialize()
    nlp.to_disk(path)
    return path
