"""Which source model? Scores of its features, or predictions, on target data without training.

All are larger for the better source. `OF_FEATURES` names those of features [N, D] float,
`OF_PROBABILITIES` those of the source classifier's probabilities [N, Z] on the target's images.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from tljax.shallow import linear, neighbours, ridge
from tljax.shallow.descent import basis
from tljax.types import Array, Scalar


def _checked(features, labels, classes: int, strengths=(1.0,)):
    """Features as float32 and labels, as every shallow classifier wants them."""
    return linear.prepare(features, labels, jnp.asarray(strengths), None, classes)[:2]


def logme(features: Array, labels: Array, *, classes: int) -> Scalar:
    """Log maximum evidence of a linear model of each class, a label: You et al. 2021, LogME.

    With F [N, D], y the 0/1 targets of one class, A = alpha I + beta F^T F and
    m = beta A^-1 F^T y, equation 2 is

        L = N/2 log beta + D/2 log alpha - N/2 log 2 pi
            - beta/2 ||F m - y||^2 - alpha/2 ||m||^2 - 1/2 log |A|

    at the fixed point of algorithm 1, gamma = sum_k beta s_k / (alpha + beta s_k),
    alpha = gamma / ||m||^2, beta = (N - gamma) / ||F m - y||^2, with s the eigenvalues of F^T F.
    The score is the mean of L / N over the classes. F is taken as it is, not centred.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      classes: C.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example, or
        features that are not finite.
    """
    return _logme(*_checked(features, labels, classes), classes)


@partial(jax.jit, static_argnums=2)
def _logme(x, labels, classes):
    with jax.default_matmul_precision('highest'):
        where = basis(x, centred=False)
        square = x.shape[0] * where.values
        target = jax.nn.one_hot(labels, classes).T
        return jax.vmap(lambda y: _evidence(where.rows, square, y))(target).mean()


def _evidence(rows: Array, square: Array, y: Array) -> Scalar:
    """max L / N of one target [N], from F along the eigenvectors of F^T F, [N, K]."""
    count = y.shape[0]
    along = rows.T @ y
    least = 1e-6 * jnp.sum(y**2)  # what float32 can tell from a perfect fit

    def terms(alpha, beta):
        m = beta * along / (alpha + beta * square)
        return jnp.maximum(jnp.sum((rows @ m - y) ** 2), least), jnp.sum(m**2)

    def step(carry):
        turn, alpha, beta, _ = carry
        error, length = terms(alpha, beta)
        gamma = jnp.sum(beta * square / (alpha + beta * square))
        new = gamma / jnp.maximum(length, 1e-12), (count - gamma) / error
        new = tuple(jnp.clip(one, 1e-12, 1e12) for one in new)
        moved = jnp.abs(jnp.log(new[0] / new[1]) - jnp.log(alpha / beta))
        return turn + 1, *new, moved

    start = (0, jnp.ones(()), jnp.ones(()), jnp.full((), jnp.inf))
    going = lambda carry: (carry[0] < 100) & (carry[3] > 1e-4)
    _, alpha, beta, _ = jax.lax.while_loop(going, step, start)
    error, length = terms(alpha, beta)
    # D log alpha - log |A|, without the directions that cancel
    volume = -jnp.sum(jnp.log1p(beta * square / alpha))
    evidence = count * (jnp.log(beta) - jnp.log(2 * jnp.pi)) + volume
    return 0.5 * (evidence - beta * error - alpha * length) / count


def _joint(probabilities: Array, labels: Array, classes: int) -> tuple[Array, Array]:
    """P(y, z) and P(y | z), [C, Z] each: the latter 0 where P(z) is."""
    joint = jax.nn.one_hot(labels, classes).T @ probabilities / labels.shape[0]
    source = joint.sum(axis=0)
    return joint, joint / jnp.where(source > 0, source, 1.0)


def _distributions(probabilities: Array, labels: Array, classes: int):
    """The checked arguments of the scores that look at the source's predictions."""
    probabilities, labels = _checked(probabilities, labels, classes)
    if not isinstance(probabilities, jax.core.Tracer):
        off = float(jnp.abs(probabilities.sum(axis=1) - 1.0).max())
        if off > 1e-3 or float(probabilities.min()) < 0:
            raise ValueError(
                'probabilities must be 0 or more with rows that sum to 1: these are off by '
                f'{off:.3g}, the smallest is {float(probabilities.min()):.3g}; apply a softmax?'
            )
    return probabilities, labels


def leep(probabilities: Array, labels: Array, *, classes: int) -> Scalar:
    """Log expected empirical prediction: Nguyen et al. 2020, LEEP, section 3.

    With theta the source's probabilities and P(y, z) = 1/N sum_{i: y_i = y} theta(x_i)_z, the
    score is 1/N sum_i log sum_z P(y_i | z) theta(x_i)_z; 0 at most.

    Args:
      probabilities: [N, Z] float, rows that sum to 1.
      labels: [N] int in [0, classes).
      classes: C.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example, or
        rows that are no distributions.
    """
    return _leep(*_distributions(probabilities, labels, classes), classes)


@partial(jax.jit, static_argnums=2)
def _leep(probabilities, labels, classes):
    with jax.default_matmul_precision('highest'):
        given = _joint(probabilities, labels, classes)[1]
    expected = jnp.sum(given[labels] * probabilities, axis=1)
    return jnp.log(jnp.maximum(expected, jnp.finfo(jnp.float32).tiny)).mean()


def nce(probabilities: Array, labels: Array, *, classes: int) -> Scalar:
    """Negative conditional entropy -H(Y | Z) of the labels: Tran et al. 2019, theorem 1.

    With z_i the source's most probable class of example i and P the empirical distribution of
    (y, z), the score is sum_{y, z} P(y, z) log P(y | z); 0 at most.

    Args:
      probabilities: [N, Z] float, rows that sum to 1.
      labels: [N] int in [0, classes).
      classes: C.

    Raises:
      ValueError: as `leep`.
    """
    return _nce(*_distributions(probabilities, labels, classes), classes)


@partial(jax.jit, static_argnums=2)
def _nce(probabilities, labels, classes):
    hard = jax.nn.one_hot(jnp.argmax(probabilities, axis=1), probabilities.shape[1])
    joint, given = _joint(hard, labels, classes)
    return jnp.sum(jax.scipy.special.xlogy(joint, given))


def h_score(features: Array, labels: Array, *, classes: int, shrink: bool = False) -> Scalar:
    """tr(cov(f)^-1 cov(E[f | y])): Bao et al. 2019, definition 1; from 0 to C - 1.

    Directions of a variance under max(N, D) float32 epsilons of the largest count nothing. With
    few examples for the width the covariance is a poor estimate and the score too high; `shrink`
    is then Ibrahim et al. 2022, section 3: (1 - a) tr(S^-1 cov(E[f | y])) with
    S = (1 - a) cov(f) + a tr(cov(f)) / D I, and the weight a of Ledoit and Wolf 2004 (as
    scikit-learn's `ledoit_wolf_shrinkage`).

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      classes: C.
      shrink: regularise the covariance.

    Raises:
      ValueError: as `logme`.
    """
    return _h_score(*_checked(features, labels, classes), classes, shrink)


@partial(jax.jit, static_argnums=(2, 3))
def _h_score(x, labels, classes, shrink):
    with jax.default_matmul_precision('highest'):
        count, width = x.shape
        where = basis(x)
        belongs = jax.nn.one_hot(labels, classes)
        share = belongs.mean(axis=0)
        means = belongs.T @ where.rows / count / share[:, None]
        between = share @ means**2  # variance of the class means along each axis, [K]
        if not shrink:
            least = max(count, width) * jnp.finfo(x.dtype).eps * where.values[-1]
            kept = where.values > least
            return jnp.sum(jnp.where(kept, between / jnp.where(kept, where.values, 1.0), 0.0))
        mean = where.values.sum() / width
        norm = jnp.sum(where.values**2)
        beta = (jnp.mean(jnp.sum(where.rows**2, axis=1) ** 2) - norm) / count
        a = jnp.clip(beta / (norm - width * mean**2), 0.0, 1.0)
        return (1 - a) * jnp.sum(between / ((1 - a) * where.values + a * mean))


def neighbour_accuracy(
    features: Array, labels: Array, *, classes: int, k: int = 5, metric: str = 'cosine'
) -> Scalar:
    """Leave-one-out accuracy of the k nearest neighbours among the other examples.

    Hastie et al. 2009, The Elements of Statistical Learning, equation 7.48 with N folds and 0/1
    loss; ties as in `shallow.neighbours.fit`.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      classes: C.
      k: neighbours that vote, under N.
      metric: 'cosine' or 'euclidean'.

    Raises:
      ValueError: as `logme`, or for a k that is not from 1 to N - 1.
    """
    features, labels = _checked(features, labels, classes)
    if not 1 <= k < labels.shape[0]:
        raise ValueError(f'k is {k}; expected 1 to {labels.shape[0] - 1}, the other examples')
    strengths = jnp.array([k], jnp.float32)
    model = neighbours.fit(features, labels, strengths, classes=classes, metric=metric, most=k)
    votes = neighbours.logits(model, features, itself=False)[0]
    return (jnp.argmax(votes, axis=-1) == labels).astype(jnp.float32).mean()


def probe_accuracy(
    features: Array,
    labels: Array,
    *,
    classes: int,
    folds: int = 5,
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> Scalar:
    """Cross-validated accuracy of ridge regression to the classes, at its best strength.

    Hastie et al. 2009, The Elements of Statistical Learning, equation 7.48 with 0/1 loss. Each
    class is dealt to the folds in turn, in the order of the examples. The strength is chosen on
    the same folds: slightly optimistic, and alike for every source.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      classes: C.
      folds: 2 or more; no class may have fewer than 2 examples.
      strengths: lambda as multiples of tr(X^T X) / D, so that the features' scale does not matter.

    Raises:
      ValueError: as `logme`, or for too few folds, or a class of one example.
    """
    features, labels = _checked(features, labels, classes, strengths)
    if folds < 2:
        raise ValueError(f'{folds} folds; expected 2 or more')
    if not isinstance(labels, jax.core.Tracer):
        single = jnp.flatnonzero(jnp.bincount(labels, length=classes) < 2)
        if single.size:
            raise ValueError(f'cross-validation needs 2 examples of each class; 1 of {single[:10]}')
    return _probe_accuracy(features, labels, jnp.asarray(strengths), folds, classes)


@partial(jax.jit, static_argnums=(3, 4))
def _probe_accuracy(x, labels, strengths, folds, classes):
    belongs = jax.nn.one_hot(labels, classes)
    turn = jnp.take_along_axis(jnp.cumsum(belongs, axis=0), labels[:, None], axis=1)[:, 0] - 1
    strengths = strengths * jnp.mean((x - x.mean(axis=0)) ** 2) * x.shape[0]

    def one(fold):
        held = turn % folds == fold
        model = ridge.fit(x, labels, strengths, 1.0 - held, classes=classes)
        right = jnp.argmax(linear.logits(model, x), axis=-1) == labels
        return jnp.sum(right & held, axis=1)

    return jnp.max(jax.lax.map(one, jnp.arange(folds)).sum(axis=0)) / labels.shape[0]


OF_FEATURES: Mapping[str, Callable] = {
    'logme': logme,
    'h_score': h_score,
    'shrunk_h_score': partial(h_score, shrink=True),
    'neighbours': neighbour_accuracy,
    'probe': probe_accuracy,
}
OF_PROBABILITIES: Mapping[str, Callable] = {'leep': leep, 'nce': nce}
