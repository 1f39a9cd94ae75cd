"""Same or different? ROC and what is read from it, and the threshold lambda of a gallery.

A pair is called the same if its distance is below the threshold; at the threshold it is not.
Lambda is chosen on pairs of some of the classes, the validation classes, and tried on pairs of all
others; or, for numbers that are compared with others', on one half of the pairs of all classes and
tried on the other half.
"""

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """Rows [N] of both of each pair, and whether they are of one class [N] bool."""

    one: np.ndarray
    other: np.ndarray
    same: np.ndarray


class Trials(NamedTuple):
    """Pairs of all classes; and of the two halves that share no class, None if there are none."""

    every: Pairs
    validation: Pairs | None = None
    test: Pairs | None = None


def drawn(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> Trials:
    """So many pairs of all classes, and half as many of either half of the classes.

    Groups, such as alphabets, are in one half as a whole, where there are enough of them. With
    fewer than four classes of two examples there are no halves.

    Args:
      labels: [N] of the rows.
      groups: [C] of each class.
      count: of pairs.
      seed: of the draw.

    Raises:
      ValueError: as `pairs`.
    """
    every, random = pairs(labels, count, seed), np.random.RandomState(seed)
    classes, size = np.unique(labels, return_counts=True)
    fit = classes[size > 1]
    for unit in (groups[fit], fit):
        units = np.unique(unit)
        held = np.isin(unit, random.permutation(units)[: len(units) // 2])
        if min(held.sum(), (~held).sum()) > 1:
            rows = (np.flatnonzero(np.isin(labels, fit[own])) for own in (held, ~held))
            return Trials(every, *(_among(labels, own, max(2, count // 2), seed) for own in rows))
    return Trials(every)


def _among(labels: np.ndarray, rows: np.ndarray, count: int, seed: int) -> Pairs:
    found = pairs(labels[rows], count, seed)
    return Pairs(rows[found.one], rows[found.other], found.same)


def pairs(labels: np.ndarray, count: int, seed: int) -> Pairs:
    """So many pairs, every other one of one class (of two examples) and of two classes.

    Raises:
      ValueError: no class has two examples, or there is one class only.
    """
    random = np.random.RandomState(seed)
    rows = [own for own in (np.flatnonzero(labels == c) for c in np.unique(labels)) if len(own) > 1]
    if len(rows) < 2:
        raise ValueError('pairs need two or more classes with two or more examples each')
    found = []
    for number in range(count):
        a, b = random.choice(len(rows), 2, replace=False)
        if number % 2 == 0:
            found.append(random.choice(rows[a], 2, replace=False))
        else:
            found.append([random.choice(rows[a]), random.choice(rows[b])])
    one, other = np.array(found).T
    return Pairs(one, other, np.arange(count) % 2 == 0)


def roc(distance: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true accept rates at each threshold: those at or below it are accepted.

    Returns:
      far, tar and thresholds, one for every different distance, after a first point (0, 0).

    Raises:
      ValueError: there are no pairs of one kind.
    """
    positives, negatives = int(same.sum()), int((~same).sum())
    if not positives or not negatives:
        raise ValueError('pairs of one class and pairs of two classes are needed')
    order = np.argsort(distance, kind='stable')
    ordered, hits = distance[order], same[order]
    last = np.r_[ordered[1:] != ordered[:-1], True]  # ties are accepted together
    tar = np.r_[0.0, np.cumsum(hits)[last] / positives]
    far = np.r_[0.0, np.cumsum(~hits)[last] / negatives]
    return far, tar, np.r_[-np.inf, ordered[last]]


def area(far: np.ndarray, tar: np.ndarray) -> float:
    """Under the ROC, by trapezoids."""
    return float(np.sum(np.diff(far) * (tar[1:] + tar[:-1]) / 2))


def equal_error_rate(far: np.ndarray, tar: np.ndarray) -> float:
    """The rate at which false accepts and false rejects are equal, between points linearly."""
    gap = far - (1 - tar)  # from -1 to 1, never falling
    i = int(np.argmax(gap >= 0))
    share = -gap[i - 1] / (gap[i] - gap[i - 1])
    return float(far[i - 1] + share * (far[i] - far[i - 1]))


def accept_rate(far: np.ndarray, tar: np.ndarray, most: float) -> float:
    """The largest true accept rate with false accepts of at most this rate."""
    return float(tar[far <= most].max())


def threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """lambda: the distance below which most pairs are called right, amid its neighbours."""
    far, tar, at = roc(distance, same)
    right = tar * same.sum() + (1 - far) * (~same).sum()
    best = int(np.argmax(right))
    if best == 0:
        return float(distance.min())
    return float(
        (at[best] + at[best + 1]) / 2 if best + 1 < len(at) else np.nextafter(at[-1], np.inf)
    )


def distances(features: np.ndarray, of: Pairs, metric: str) -> np.ndarray:
    """[N] of the pairs, of features [rows, D]."""
    difference = features[of.one].astype(np.float64) - features[of.other]
    if metric == 'manhattan':
        return np.abs(difference).sum(-1)
    return np.sqrt((difference**2).sum(-1))


def scores(features: np.ndarray, trials: Trials, metric: str) -> dict[str, float]:
    """Scores of features [rows, D], compared by a metric, 'euclidean' or 'manhattan'.

    By lambda of the validation classes: 'validated_accuracy', of pairs of the others, and
    'validated_threshold', that lambda; neither is there without such halves. Of pairs of all
    classes: 'auc', 'eer', 'tar_at_far_1' and 'threshold', the lambda of them all; and cross-fitted,
    each half of these pairs by lambda of the other: 'accuracy', 'interval' (1.96 standard errors)
    and 'loss' (mean cross entropy of sigmoid(lambda - distance)).
    """
    found = _cross_fitted(distances(features, trials.every, metric), trials.every)
    if trials.test is None:
        return found
    own, other = (distances(features, one, metric) for one in (trials.validation, trials.test))
    limit = threshold(own, trials.validation.same)
    right = ((other < limit) == trials.test.same).mean()
    return found | {'validated_accuracy': float(right), 'validated_threshold': limit}


def _cross_fitted(apart: np.ndarray, of: Pairs) -> dict[str, float]:
    far, tar, _ = roc(apart, of.same)
    first = np.arange(len(apart)) // 2 % 2 == 0
    right, margin = np.zeros(len(apart), bool), np.zeros(len(apart))
    for half in (first, ~first):
        margin[~half] = threshold(apart[half], of.same[half]) - apart[~half]
    right = (margin > 0) == of.same
    share = right.mean()
    return {
        'accuracy': float(share),
        'interval': float(1.96 * np.sqrt(share * (1 - share) / len(right))),
        'loss': float(np.logaddexp(0, np.where(of.same, -margin, margin)).mean()),
        'auc': area(far, tar),
        'eer': equal_error_rate(far, tar),
        'tar_at_far_1': accept_rate(far, tar, 0.01),
        'threshold': threshold(apart, of.same),
    }
