"""Subsets of labelled examples: the few-shot order."""

from collections.abc import Sequence

import numpy as np


def few_shot_order(
    labels: np.ndarray, labels_per_class_max: int, classes: int | Sequence[str], seed: int
) -> np.ndarray:
    """A seeded class-balanced order of rows, whose beginnings are nested few-shot subsets.

    Classes take turns (0, 1, ..., C-1, 0, 1, ...), so the first k * C rows hold exactly k rows of
    every class, and those for k are among those for k + 1.

    Args:
      labels: [N] int in [0, C).
      labels_per_class_max: how many rows to draw of every class.
      classes: C, or the C class names (used in messages).
      seed: shuffles within each class, each class on its own: drawing more rows per class only
        appends.

    Returns:
      Rows [labels_per_class_max * C] int32.

    Raises:
      ValueError: a class has fewer rows than asked for.
    """
    names = [str(c) for c in range(classes)] if isinstance(classes, int) else list(classes)
    counts = np.bincount(labels, minlength=len(names))
    scarce = int(np.argmin(counts[: len(names)]))
    if labels_per_class_max < 1:
        raise ValueError(f'labels per class must be at least 1, not {labels_per_class_max}')
    if counts[scarce] < labels_per_class_max:
        raise ValueError(
            f'{labels_per_class_max} labels per class asked, but class {names[scarce]!r} has only '
            f'{counts[scarce]} examples: ask for at most {counts[scarce]} per class'
        )
    columns = []
    for label in range(len(names)):
        # RandomState: NumPy promises never to change its numbers. One per class, so that a class's
        # order depends neither on the other classes nor on how many rows are drawn.
        random = np.random.RandomState([seed, label])
        columns.append(random.permutation(np.flatnonzero(labels == label))[:labels_per_class_max])
    return np.stack(columns, axis=1).reshape(-1).astype(np.int32)
