"""N-way K-shot classification by the nearest class mean, with 95 % intervals. Ties are wrong."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp


class Episodes(NamedTuple):
    """Rows of the supports [E, way, shot] and of the queries [E, way, query]."""

    support: np.ndarray
    query: np.ndarray


def drawn(
    labels: np.ndarray,
    way: int,
    shot: int,
    query: int,
    count: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> Episodes:
    """Episodes of random classes and examples.

    Args:
      labels: [N] of the rows.
      way: classes an episode.
      shot: supports a class.
      query: queries a class.
      count: episodes.
      seed: of the draw.
      groups: [C] of each class; with them an episode stays in one group, groups take turns, and
        the k-th example of every class is by one drawer: all supports of an episode come from
        `shot` drawers, all queries from `query` others.

    Raises:
      ValueError: there are too few classes with as many examples.
    """
    random = np.random.RandomState(seed)
    rows = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    fit = np.array([c for c, own in enumerate(rows) if len(own) >= shot + query], int)
    pools = [fit]
    if groups is not None:
        pools = [fit[groups[fit] == g] for g in np.unique(groups)]
    pools = [pool for pool in pools if len(pool) >= way]
    if not pools:
        where = '' if groups is None else ' in one group'
        raise ValueError(
            f'{way} classes{where} with {shot + query} examples each are needed; '
            f'{len(fit)} of {len(rows)} classes have as many'
        )
    found = []
    for number in range(count):
        classes = random.choice(pools[number % len(pools)], way, replace=False)
        if groups is None:
            own = [random.choice(rows[c], shot + query, replace=False) for c in classes]
        else:
            least = min(len(rows[c]) for c in classes)
            drawers = random.choice(least, shot + query, replace=False)
            own = [rows[c][drawers] for c in classes]
        found.append(own)
    both = np.array(found)
    return Episodes(both[..., :shot], both[..., shot:])


def listed(labels: np.ndarray, way: int) -> Episodes:
    """Episodes that follow each other in the rows: `way` supports, then a query of each of them.

    Raises:
      ValueError: rows are not like that.
    """
    blocks = labels.reshape(-1, 2, way) if len(labels) % (2 * way) == 0 else None
    if blocks is None or not (np.sort(blocks[:, 0]) == np.sort(blocks[:, 1])).all():
        raise ValueError(
            f'expected runs of {way} supports and {way} queries of the same classes, row by row'
        )
    rows = np.arange(len(labels)).reshape(blocks.shape)
    order = np.argsort(blocks, axis=-1, kind='stable')
    rows = np.take_along_axis(rows, order, -1)
    return Episodes(rows[:, 0, :, None], rows[:, 1, :, None])


def distances(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """'euclidean' or 'manhattan', of [N, D] and [M, D]: [N, M]."""
    if metric == 'manhattan':
        return np.abs(x[:, None] - y).sum(-1)
    return np.sqrt(((x[:, None] - y) ** 2).sum(-1))


def scores(features: np.ndarray, episodes: Episodes, metric: str) -> dict[str, float]:
    """'accuracy', 'interval' and 'loss' of the nearest mean over all episodes.

    A query is right if its class's mean is nearer than every other, so that ties are wrong;
    'interval' is 1.96 standard errors of the mean over episodes; 'loss' the mean cross entropy of
    softmax(-distance).
    """
    features = features.astype(np.float64)
    right, loss = [], []
    for support, query in zip(*episodes, strict=True):
        means = features[support].mean(1)
        apart = distances(features[query].reshape(-1, features.shape[-1]), means, metric)
        local = np.repeat(np.arange(len(means)), query.shape[1])
        own = np.take_along_axis(apart, local[:, None], 1)
        right.append(((apart <= own).sum(1) == 1).mean())
        loss.append((own[:, 0] + logsumexp(-apart, axis=1)).mean())
    spread = np.std(right, ddof=1) if len(right) > 1 else 0.0
    return {
        'accuracy': float(np.mean(right)),
        'interval': float(1.96 * spread / np.sqrt(len(right))),
        'loss': float(np.mean(loss)),
    }
