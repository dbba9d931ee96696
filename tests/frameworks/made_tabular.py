"""Forests, boosters and pipelines made on the spot: small and valid, or as big as is wanted."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

FEATURES = 8
ROUNDS = 3


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


def forests(directory: Path) -> Path:
    """Write the same forest in both formats of scikit-learn."""
    import joblib
    import skops.io

    directory.mkdir()
    made = forest()
    skops.io.dump(made, directory / "forest.skops")
    joblib.dump(made, directory / "forest.joblib")
    return directory


def xgboost_booster(*, depth: int = 3, count: int = 200, copies: int = 1) -> Any:
    """Return a booster of XGBoost; copies of its trees make it as big as by training."""
    import xgboost

    features, labels = rows(count)
    options = {"objective": "binary:logistic", "max_depth": depth, "nthread": 1}
    options["min_child_weight"] = 0
    made = xgboost.train(options, xgboost.DMatrix(features, label=labels), ROUNDS)
    if copies == 1:
        return made
    whole = json.loads(made.save_raw("json"))
    model = whole["learner"]["gradient_booster"]["model"]
    model["trees"] = [
        {**tree, "id": place * ROUNDS + tree["id"]}
        for place in range(copies)
        for tree in model["trees"]
    ]
    model["tree_info"] *= copies
    model["iteration_indptr"] = list(range(copies * ROUNDS + 1))
    model["gbtree_model_param"]["num_trees"] = str(copies * ROUNDS)
    return xgboost.Booster(model_file=bytearray(json.dumps(whole).encode()))


def lightgbm_booster(*, leaves: int = 7, count: int = 200, copies: int = 1) -> Any:
    """Return a booster of LightGBM; copies of its trees make it as big as by training."""
    import lightgbm

    features, labels = rows(count)
    options = {
        "objective": "binary",
        "verbose": -1,
        "num_leaves": leaves,
        "min_data_in_leaf": 2,
        "num_threads": 1,
    }
    made = lightgbm.train(options, lightgbm.Dataset(features, label=labels), ROUNDS)
    if copies == 1:
        return made
    head, *trees = re.split("^Tree=[0-9]+\n", made.model_to_string(), flags=re.MULTILINE)
    trees[-1], end, tail = trees[-1].partition("end of trees\n")
    trees = [f"Tree={place}\n{tree}" for place, tree in enumerate(trees * copies)]
    sizes = " ".join(str(len(tree)) for tree in trees)
    head = re.sub("tree_sizes=.*", f"tree_sizes={sizes}", head)
    return lightgbm.Booster(model_str="".join([head, *trees, end, tail]))


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
