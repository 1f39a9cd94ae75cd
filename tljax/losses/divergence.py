"""Divergences of two samples of features: what separates the domains, as a loss.

All take examples of the source [N, D] and of the target [M, D], see the whole batch of each, are
computed in float32 whatever they are given, are differentiable in both, and 0 (the unbiased
estimators of MMD: on average) if the samples are of one distribution.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from tljax.kernels import (
    LEAST,
    Gaussians,
    bandwidth,
    check_kernel,
    covariance,
    gaussians,
    squared_distances,
)
from tljax.types import Array, Scalar, unknown

ESTIMATORS = ('biased', 'unbiased', 'linear')


def mmd(
    source: Array,
    target: Array,
    kernel: Gaussians = Gaussians(),  # noqa: B008 (an immutable value)
    estimator: str = 'unbiased',
) -> Scalar:
    """An estimate of the squared maximum mean discrepancy, E k(x,x') + E k(y,y') - 2 E k(x,y).

    - 'biased': 1/N^2 sum_ij k(x_i,x_j) + 1/M^2 sum_ij k(y_i,y_j) - 2/(NM) sum_ij k(x_i,y_j), which
      is 0 or more.
    - 'unbiased': the same without i = j in the first two sums, which are divided by N(N-1) and
      M(M-1); may be negative.
    - 'linear': unbiased from disjoint pairs, at a cost of N instead of N^2 (with the bandwidth
      'median' still N^2) and more variance: the mean over i of
      k(x_2i,x_2i+1) + k(y_2i,y_2i+1) - k(x_2i,y_2i+1) - k(x_2i+1,y_2i).

    Gretton et al. 2012, "A kernel two-sample test", JMLR 13: Lemma 6, and section 6 for the linear
    one. As the loss of a layer of multi-kernel MMD: Long et al. 2015, "Learning transferable
    features with deep adaptation networks", arXiv:1502.02791, here with all kernels weighed alike.

    Args:
      source: [N, D] float.
      target: [M, D] float.
      kernel: sum of Gaussians; its bandwidth is estimated on both samples together.
      estimator: 'biased', 'unbiased' or 'linear'.

    Raises:
      ValueError: an unknown estimator, a kernel that cannot be, widths that differ, too few
        examples, or for 'linear' N other than M.
    """
    return joint_mmd((source,), (target,), (kernel,), estimator)


def joint_mmd(
    source: Sequence[Array],
    target: Sequence[Array],
    kernels: Sequence[Gaussians],
    estimator: str = 'unbiased',
) -> Scalar:
    """The joint MMD of several layers: `mmd` under the product of the layers' kernels.

    k((z_1, z_2, ...), (z'_1, z'_2, ...)) = prod_l k_l(z_l, z'_l)

    Long et al. 2017, "Deep transfer learning with joint adaptation networks", arXiv:1605.06636.

    Args:
      source: of each layer [N, D_l] float.
      target: of each layer [M, D_l] float.
      kernels: of each layer.
      estimator: as in `mmd`.

    Raises:
      ValueError: as in `mmd`, or other numbers of layers.
    """
    if not len(source) == len(target) == len(kernels):
        raise ValueError(
            f'layers: {len(source)} of the source, {len(target)} of the target and '
            f'{len(kernels)} kernels; expected one kernel a layer'
        )
    source, target = [list(map(_float32, one)) for one in (source, target)]
    _check(source, target, estimator)
    for kernel in kernels:
        check_kernel(kernel)
    widths = [
        bandwidth(kernel, jnp.concatenate(pair))
        for kernel, *pair in zip(kernels, source, target, strict=True)
    ]

    def k(xs: Sequence[Array], ys: Sequence[Array], squared: Callable) -> Array:
        layers = zip(kernels, xs, ys, widths, strict=True)
        return math.prod(gaussians(one, squared(x, y), b) for one, x, y, b in layers)

    if estimator == 'linear':
        (x, x_), (y, y_) = (_halves(one) for one in (source, target))
        pairs = k(x, x_, _paired) + k(y, y_, _paired) - k(x, y_, _paired) - k(x_, y, _paired)
        return pairs.mean()
    within = [k(one, one, _among).mean() for one in (source, target)]
    if estimator == 'unbiased':
        itself = math.prod(kernel.count for kernel in kernels)  # k(z, z)
        counts = len(source[0]), len(target[0])
        within = [(n * mean - itself) / (n - 1) for n, mean in zip(counts, within, strict=True)]
    return sum(within) - 2.0 * k(source, target, squared_distances).mean()


def coral(source: Array, target: Array) -> Scalar:
    """||C_s - C_t||_F^2 / (4 D^2), with the covariances C = (X - mean)^T (X - mean) / (N - 1).

    Sun and Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation",
    arXiv:1607.01719, equations 1 to 3.

    Args:
      source: [N, D] float.
      target: [M, D] float.

    Raises:
      ValueError: widths that differ, or fewer than two examples.
    """
    source, target = _float32(source), _float32(target)
    _check([source], [target])
    difference = covariance(source) - covariance(target)
    return jnp.sum(difference**2) / (4.0 * source.shape[1] ** 2)


def cmd(source: Array, target: Array, moments: int = 5, span: float = 1.0) -> Scalar:
    """The central moment discrepancy, for activations that lie in an interval of length `span`:

    ||E x - E y|| / span + sum_{k=2..K} ||c_k(x) - c_k(y)|| / span^k

    with c_k(x) = E (x - E x)^k, element by element. At equal moments the gradient of a norm is
    taken as 0.

    Zellinger et al. 2017, "Central moment discrepancy (CMD) for domain-invariant representation
    learning", arXiv:1702.08811, where K = 5.

    Args:
      source: [N, D] float.
      target: [M, D] float.
      moments: K, over 0.
      span: over 0.

    Raises:
      ValueError: widths that differ, no moment, or a span not over 0.
    """
    source, target = _float32(source), _float32(target)
    _check([source], [target], least=1)
    if moments < 1 or not span > 0:
        raise ValueError(f'{moments} moments over a span of {span}; expected 1 or more, over 0')
    means = [x.mean(axis=0) for x in (source, target)]
    centred = [x - mean for x, mean in zip((source, target), means, strict=True)]
    total = optax.safe_norm(means[0] - means[1], 0.0) / span
    for k in range(2, moments + 1):
        c = [jnp.mean(x**k, axis=0) for x in centred]
        total += optax.safe_norm(c[0] - c[1], 0.0) / span**k
    return total


def sinkhorn(source: Array, target: Array, epsilon: float = 0.05, iterations: int = 100) -> Scalar:
    """The Sinkhorn divergence OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 for the cost ||x - y||^2.

    OT(x, y) = min_P sum_ij P_ij ||x_i - y_j||^2 + e KL(P | a b^T) over couplings P of the two
    samples, uniformly weighed by a and b; for small e the divergence is the squared Wasserstein-2
    distance. Here e is `epsilon` times the mean cost between the domains, and both e and the
    potentials are held fixed in the gradient, as Danskin's theorem allows.

    Feydy et al. 2019, "Interpolating between optimal transport and MMD using Sinkhorn
    divergences", arXiv:1810.08278; solved by OTT-JAX.

    Args:
      source: [N, D] float.
      target: [M, D] float.
      epsilon: of the mean cost, over 0.
      iterations: of Sinkhorn's algorithm, at most, for each of the three problems.

    Raises:
      ValueError: OTT-JAX is not installed, widths that differ, or a number not over 0.
    """
    source, target = _float32(source), _float32(target)
    _check([source], [target], least=1)
    if not epsilon > 0 or iterations < 1:
        raise ValueError(
            f'epsilon is {epsilon} and iterations {iterations}; expected both to be over 0'
        )
    cost = jax.lax.stop_gradient(squared_distances(source, target).mean())
    e = jnp.maximum(epsilon * cost, LEAST)
    solve = {'max_iterations': iterations, 'threshold': 1e-3}
    return solver()(source, target, epsilon=e, solve_kwargs=solve)[0]


def solver() -> Callable:
    """OTT-JAX's Sinkhorn divergence of two point clouds.

    Raises:
      ValueError: it is not installed.
    """
    try:
        from ott.tools.sinkhorn_divergence import sinkdiv
    except ImportError as error:
        raise ValueError("sinkhorn needs OTT-JAX: pip install -e '.[ot]'") from error
    return sinkdiv


def _float32(x: Array) -> Array:
    return jnp.asarray(x).astype(jnp.float32)


def _check(
    source: Sequence[Array], target: Sequence[Array], estimator: str = 'biased', least: int = 2
) -> None:
    """Refuses an estimator or samples for which a divergence has no value."""
    if estimator not in ESTIMATORS:
        raise unknown('estimator', estimator, ESTIMATORS)
    for x, y in zip(source, target, strict=True):
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
            raise ValueError(f'{x.shape} and {y.shape}: expected features [N, D] and [M, D]')
        if min(len(x), len(y)) < least:
            raise ValueError(f'{len(x)} and {len(y)} examples; expected {least} or more of each')
        if estimator == 'linear' and len(x) != len(y):
            raise ValueError(
                f"{len(x)} and {len(y)} examples; estimator='linear' pairs them: choose batches of "
                "equal size, or 'unbiased'"
            )


def _among(x: Array, y: Array) -> Array:
    """Squared distances of examples to those of the same sample, exactly 0 to themselves."""
    return jnp.where(jnp.eye(len(x), dtype=bool), 0.0, squared_distances(x, y))


def _halves(layers: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Examples 0, 2, 4, ... and 1, 3, 5, ... of each layer, equally many."""
    pairs = len(layers[0]) // 2
    return [x[0 : 2 * pairs : 2] for x in layers], [x[1 : 2 * pairs : 2] for x in layers]


def _paired(x: Array, y: Array) -> Array:
    """||x_i - y_i||^2 [N]."""
    return jnp.sum((x - y) ** 2, axis=1)
