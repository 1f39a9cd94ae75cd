"""Real features that scikit-learn ships: 8 x 8 digits, and the splits that the tests use."""

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10
STRENGTHS = np.array([0.1, 1.0, 10.0, 100.0], np.float32)

_all = load_digits()
X = (_all.data / 16.0).astype(np.float32)
Y = _all.target.astype(np.int32)
TRAIN, VALIDATION, TEST = slice(0, 600), slice(600, 900), slice(900, 1300)

# Three seeds' subsets of the training split, each with every class.
SUBSETS = (np.random.default_rng(0).random((3, 600)) < 0.3).astype(np.float32)
