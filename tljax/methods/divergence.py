"""Matching the domains' distributions: one player lowers a divergence beside the source's loss.

All of these minimise, over what `trains` names,

    cross entropy on the source + weight * ramp(progress) * divergence(source, target)

and differ in the divergence and in the layers that it sees. A layer is 'features', what the head
reads; 'logits'; 'predictions', their softmax; or any endpoint of the encoder, flattened. All are
`build(config, spec, optimizer)`, with config's net, head, trains and steps, the data's `spec`, and
`optimizer` from steps to (hp -> optax transformation); and all have the options

- layers: which; by default those of the paper.
- together: one batch of both domains, normalised together, or one after the other.
- ramped: False keeps the weight constant.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from tljax.kernels import Gaussians, check_kernel
from tljax.losses import divergence
from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.adaptation import both, check_streams, one_player, ramp
from tljax.methods.networks import Classifier
from tljax.types import Array, Method, Scalar, Spec, unknown

OUTPUTS = ('features', 'logits', 'predictions')  # what the head reads and makes

Divergence = Callable[[Sequence[Array], Sequence[Array]], Scalar]  # of the layers of two domains


def dan(
    config,
    spec: Spec,
    optimizer,
    *,
    layers=('features', 'logits'),
    bandwidth='mean',
    kernels: int = 5,
    factor: float = 2.0,
    estimator: str = 'unbiased',
    together: bool = True,
    ramped: bool = True,
) -> Method:
    """Deep adaptation network: the sum over layers of their multi-kernel MMD.

    Long et al. 2015, "Learning transferable features with deep adaptation networks",
    arXiv:1502.02791. As in the code that its authors released, kernels weigh alike, around the mean
    squared distance, and the estimate is over all pairs; the paper itself takes the linear-time
    estimator, the median, and learns the kernels' weights.

    Args:
      bandwidth: 'mean', 'median' or a number; see `kernels.Gaussians`.
      kernels: how many.
      factor: between one and the next.
      estimator: 'unbiased', 'biased' or 'linear'; see `losses.divergence.mmd`.
    """
    kernel = Gaussians(bandwidth, kernels, factor)
    _check_mmd([kernel], estimator)
    loss = _summed(partial(divergence.mmd, kernel=kernel, estimator=estimator))
    return _matching(config, spec, optimizer, loss, layers, together, ramped)


def jan(
    config,
    spec: Spec,
    optimizer,
    *,
    layers=('features', 'predictions'),
    bandwidths=('mean', 1.68),
    kernels=(5, 1),
    factor: float = 2.0,
    estimator: str = 'unbiased',
    together: bool = True,
    ramped: bool = True,
) -> Method:
    """Joint adaptation network: the MMD of features and predictions under a product of kernels.

    Long et al. 2017, "Deep transfer learning with joint adaptation networks", arXiv:1605.06636,
    without the adversarial variant (JAN-A); kernels as in the code that its authors released.

    Args:
      bandwidths: of each layer; see `kernels.Gaussians`.
      kernels: how many for each layer.
      factor: between one and the next.
      estimator: 'unbiased', 'biased' or 'linear'; see `losses.divergence.mmd`.

    Raises:
      ValueError: not as many bandwidths or numbers of kernels as layers.
    """
    if not len(layers) == len(bandwidths) == len(kernels):
        raise ValueError(
            f'options: {len(layers)} layers, {len(bandwidths)} bandwidths and {len(kernels)} '
            'numbers of kernels; jan needs one of each for every layer'
        )
    each = [Gaussians(b, count, factor) for b, count in zip(bandwidths, kernels, strict=True)]
    _check_mmd(each, estimator)
    loss = partial(divergence.joint_mmd, kernels=each, estimator=estimator)
    return _matching(config, spec, optimizer, loss, layers, together, ramped)


def coral(
    config,
    spec: Spec,
    optimizer,
    *,
    layers=('logits',),
    together: bool = True,
    ramped: bool = True,
) -> Method:
    """Deep CORAL: the distance of the domains' covariances, summed over layers.

    Sun and Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation",
    arXiv:1607.01719, which takes the logits, and chooses the weight so that both losses end about
    equal.
    """
    loss = _summed(divergence.coral)
    return _matching(config, spec, optimizer, loss, layers, together, ramped)


def cmd(
    config,
    spec: Spec,
    optimizer,
    *,
    layers=('features',),
    moments: int = 5,
    span: float = 1.0,
    together: bool = True,
    ramped: bool = True,
) -> Method:
    """Central moment discrepancy of the hyperbolic tangent of the layers, summed over layers.

    Zellinger et al. 2017, "Central moment discrepancy (CMD) for domain-invariant representation
    learning", arXiv:1702.08811. It is for bounded activations: of features after a ReLU the tangent
    lies in [0, 1), so that the span is 1; of others it is 2.

    Args:
      moments: up to which order.
      span: length of the interval that holds the compared activations.
    """

    def bounded(source, target):
        return divergence.cmd(jnp.tanh(source), jnp.tanh(target), moments, span)

    return _matching(config, spec, optimizer, _summed(bounded), layers, together, ramped)


def sinkhorn(
    config,
    spec: Spec,
    optimizer,
    *,
    layers=('features',),
    epsilon: float = 0.05,
    iterations: int = 100,
    together: bool = True,
    ramped: bool = True,
) -> Method:
    """The Sinkhorn divergence, near the squared Wasserstein-2 distance, summed over layers.

    Feydy et al. 2019, "Interpolating between optimal transport and MMD using Sinkhorn divergences",
    arXiv:1810.08278. Of no published method of adaptation: the plainest use of optimal transport
    between features.

    Args:
      epsilon: of entropy, as a share of the mean cost; see `losses.divergence.sinkhorn`.
      iterations: at most.

    Raises:
      ValueError: OTT-JAX is not installed.
    """
    divergence.solver()
    loss = _summed(partial(divergence.sinkhorn, epsilon=epsilon, iterations=iterations))
    return _matching(config, spec, optimizer, loss, layers, together, ramped)


def _matching(
    config,
    spec: Spec,
    optimizer,
    loss: Divergence,
    layers: Sequence[str],
    together: bool,
    ramped: bool,
) -> Method:
    """The method of the player 'model', with the metrics 'accuracy' and 'divergence'."""
    check_streams(config)
    classifier = Classifier.build(config, spec)
    _check_layers(layers, classifier)
    also = tuple(layer for layer in layers if layer not in OUTPUTS)
    seen = classifier._replace(also=also)

    def model(params, mutable, batch, hp, key):
        *domains, mutable = both(seen, params, mutable, batch, key, together)
        source, label = domains[0]['logits'], batch['source']['label']
        apart = loss(*([_read(out, layer) for layer in layers] for out in domains))
        weight = hp['weight'] * (ramp(hp['progress']) if ramped else 1.0)
        value = cross_entropy(source, label, hp['label_smoothing']) + weight * apart
        return value, ({'accuracy': accuracy(source, label), 'divergence': apart}, mutable)

    return one_player(config, classifier, model, optimizer)


def _read(out: dict[str, Array], layer: str) -> Array:
    """A layer of what a classifier returns, [N, D]."""
    if layer == 'predictions':
        return jax.nn.softmax(out['logits'])
    return out[layer].reshape(len(out[layer]), -1)


def _summed(loss: Callable[[Array, Array], Scalar]) -> Divergence:
    """The sum over layers of a divergence of one."""
    return lambda source, target: sum(map(loss, source, target))


def _check_mmd(kernels: Sequence[Gaussians], estimator: str) -> None:
    for kernel in kernels:
        check_kernel(kernel)
    if estimator not in divergence.ESTIMATORS:
        raise unknown('estimator', estimator, divergence.ESTIMATORS)


def _check_layers(layers: Sequence[str], classifier: Classifier) -> None:
    """Raises ValueError for no layer, one that there is not, or one that a cached prefix hides."""
    endpoints, since = classifier.encoder.endpoints, classifier.since
    known = dict.fromkeys((*endpoints[: endpoints.index(classifier.endpoint) + 1], *OUTPUTS))
    if isinstance(layers, str) or not layers:
        raise ValueError(f"options.layers is {layers!r}; expected names, such as ('features',)")
    for layer in layers:
        if layer not in known:
            raise unknown('layer in options.layers', layer, known)
        if layer not in OUTPUTS and since and endpoints.index(layer) < endpoints.index(since):
            raise ValueError(
                f'options.layers: {layer!r} comes before {since!r}, up to which cache_prefix has '
                'computed the encoder; leave it out, or set cache_prefix=False'
            )
