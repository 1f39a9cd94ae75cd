"""Classifiers by distance: the k nearest neighbours, and the nearest class mean."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.shallow.linear import Linear, prepare, traced
from tljax.shallow.linear import check as check_arrays
from tljax.types import Array, unknown

METRICS = ('euclidean', 'cosine')
FAR = -1e9  # the logit of a class without example: finite, as parameters have to be


class Neighbours(NamedTuple):
    """Stored examples and, for every k, how much the vote of each of the nearest counts."""

    center: Array  # [D], subtracted from stored and asked features
    features: Array  # [N, D] float32
    labels: Array  # [N] in [0, C)
    valid: Array  # [N] bool
    votes: Array  # [R, K] 1 for the first k of the K nearest, else 0
    onehot: Array  # [C, C], the identity: its size says how many classes there are


def nearest(
    model: Neighbours, features: Array, count: int, *, block: int = 1024, itself: bool = True
) -> tuple[Array, Array]:
    """The nearest stored examples, exactly: one matrix product a block of asked features.

    ||q - x||^2 - ||q||^2 = ||x||^2 - 2 q . x orders the x. Of equal distances (as computed, in
    float32) the example that is stored first comes first.

    Args:
      model: the stored examples; those that are not valid are never found.
      features: [Q, D] float.
      count: how many, at most N.
      block: features asked at once; memory grows with block * N.
      itself: False leaves out, for question i, stored example i (leave one out: Q = N).

    Returns:
      squared distances less ||q||^2 [Q, count], smallest first, infinite where too few are valid;
      and places [Q, count] int.
    """
    norms = jnp.where(model.valid, jnp.sum(model.features**2, axis=1), jnp.inf)

    def one(question):
        place, query = question
        product = jnp.matmul(model.features, query - model.center, precision='highest')
        distance = norms - 2.0 * product
        if not itself:
            distance = distance.at[place].set(jnp.inf)
        value, index = jax.lax.top_k(-distance, count)
        return -value, index

    questions = jnp.arange(features.shape[0]), features.astype(jnp.float32)
    return jax.lax.map(one, questions, batch_size=min(block, features.shape[0]))


def check(
    features, labels, strengths, weights, *, classes: int, metric: str = 'euclidean', most: int = 32
) -> None:
    """Refuses what `fit` says that it refuses; of traced arrays, what their shapes tell.

    Raises:
      ValueError: saying what is wrong with which argument.
    """
    if metric not in METRICS:
        raise unknown('metric', metric, METRICS)
    check_arrays(features, labels, strengths, weights, classes=classes)
    if traced(strengths):
        return
    check_counts(strengths, most)
    voters = features.shape[0]
    if weights is not None and not traced(weights):
        voters = int((weights > 0).sum(axis=-1).min())
    if voters < max(strengths):
        raise ValueError(f'k is {int(max(strengths))}, more than the {voters} examples that vote')


def check_counts(strengths, most: int = 32) -> None:
    """Refuses numbers of neighbours that are not whole numbers from 1 to `most`.

    Raises:
      ValueError: names them.
    """
    wrong = [float(k) for k in strengths if float(k) != round(float(k)) or not 1 <= k <= most]
    if wrong:
        raise ValueError(f'k is {wrong}; expected whole numbers from 1 to most, {most}')


def pick(model: Neighbours, index: Array) -> Neighbours:
    """The same examples with only the k of one place in the grid, [1, K]."""
    return model._replace(votes=model.votes[index][None])


def fit(
    features: Array,
    labels: Array,
    strengths: Array,
    weights: Array | None = None,
    *,
    classes: int,
    metric: str = 'euclidean',
    most: int = 32,
) -> Neighbours:
    """Stores the examples; each strength is a number of neighbours k that vote, equally.

    As scikit-learn's `KNeighborsClassifier(k, metric=metric)`: Hastie et al. 2009, The Elements of
    Statistical Learning, section 13.3. Ties: of examples at equal distance the one stored first is
    nearer; of classes with equally many votes the lowest label wins.

    Args:
      features: [N, D] float; for 'cosine' only their direction counts.
      labels: [N] int in [0, classes).
      strengths: [R] k, whole numbers from 1 to `most`.
      weights: [N]; an example of weight 0 never votes, all others vote alike.
      classes: C.
      metric: 'euclidean' or 'cosine'.
      most: K, the largest k: a fixed number, so that all k share one program.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example,
        features that are not finite, an unknown metric, a k that is no whole number from 1 to
        `most`, or fewer than k examples of positive weight.
    """
    check(features, labels, strengths, weights, classes=classes, metric=metric, most=most)
    x, labels, strengths, weights = prepare(features, labels, strengths, weights, classes)
    center = jnp.zeros(x.shape[1])
    if metric == 'euclidean':
        # Distances do not change, and long vectors that differ little keep their digits.
        center = x.mean(axis=0)
        x = x - center
    else:
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    votes = (jnp.arange(min(most, x.shape[0])) < strengths[:, None]).astype(jnp.float32)
    return Neighbours(center, x, labels, weights > 0, votes, jnp.eye(classes))


@partial(jax.jit, static_argnames=('block', 'itself'))
def logits(model: Neighbours, features: Array, *, block: int = 1024, itself: bool = True) -> Array:
    """Votes for each class among the k nearest, for every k.

    Args:
      model: of R values of k.
      features: [N, D] float.
      block: see `nearest`.
      itself: see `nearest`.

    Returns:
      [R, N, C] float32.
    """
    most = model.votes.shape[1]
    distance, index = nearest(model, features, most, block=block, itself=itself)
    classes = model.onehot[model.labels[index]] * jnp.isfinite(distance)[..., None]
    return jnp.einsum('rk,nkc->rnc', model.votes, classes)


def nearest_mean(
    features: Array,
    labels: Array,
    strengths: Array,
    weights: Array | None = None,
    *,
    classes: int,
) -> Linear:
    """The nearest class mean, which is linear: 2 m_c . x - ||m_c||^2 = ||x||^2 - ||x - m_c||^2.

    As scikit-learn's `NearestCentroid`: Mensink et al. 2013, equations 1 and 2, with
    weighted means m_c. Nothing is regularised: the one solution is given R times, so that this
    probe fits where the others do.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      strengths: [R] over 0; only R counts.
      weights: [N] of 0 or more: 0 leaves an example out. None weighs all of them 1.
      classes: C.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example, or
        features that are not finite.
    """
    x, labels, strengths, weights = prepare(features, labels, strengths, weights, classes)
    belongs = jax.nn.one_hot(labels, classes) * weights[:, None]
    # Distances from the overall mean lose no digits to a common offset.
    center = jnp.sum(weights[:, None] * x, axis=0) / weights.sum()
    sums = jnp.matmul(belongs.T, x - center, precision='highest')
    count = belongs.sum(axis=0)
    means = sums / jnp.where(count > 0, count, 1.0)[:, None]
    bias = -jnp.sum(means**2, axis=1) - 2.0 * jnp.sum(means * center, axis=1)
    bias = jnp.where(count > 0, bias, FAR)  # where values are not checked, nothing is of the class
    repeat = lambda one: jnp.broadcast_to(one, (strengths.shape[0], *one.shape))
    return Linear(repeat(2.0 * means.T), repeat(bias))
