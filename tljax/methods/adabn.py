"""Adaptive batch normalisation: train on the source, then take the target's statistics."""

from collections.abc import Callable

import jax

from tljax import partition
from tljax.methods import supervised
from tljax.methods.adaptation import check_streams
from tljax.methods.networks import Classifier
from tljax.nets.norm import MOMENTS
from tljax.shallow.linear import traced
from tljax.types import Array, Method, Mutable, Params, Spec, solve


def build(config, spec: Spec, optimizer, *, passes: int = 0) -> Method:
    """Supervised training on the stream 'source', then every norm's statistics from 'target'.

    Each norm of the encoder gets the mean and the variance of its inputs over all of the target,
    as the adapted layers before it make them. A pass over the target measures the inputs of all
    norms at once; the first settles the norms that have none before them, the second those with one
    before them, and so on: after as many passes as there are norms everything is exact. Fewer
    passes are an estimate of the deeper ones. A pass holds two numbers per example and channel.

    Li et al. 2016, "Revisiting batch normalization for practical domain adaptation",
    arXiv:1603.04779, Algorithm 1.

    Args:
      config: the run's config: net, head, trains, steps; without steps the encoder is taken as it
        comes, from `init`.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      passes: over the target; 0: as many as there are norms.

    Raises:
      ValueError: the encoder has no norms, or part of it is cached.
    """
    check_streams(config)
    classifier = Classifier.build(config, spec)
    norms = _norms(classifier, spec, config.net.to_dict())
    if passes < 0:
        raise ValueError(f'options.passes is {passes}; expected 0 or more')

    def fit(params, mutable, over, hp, key):
        del hp, key

        def renewed(mutable):
            measure = lambda batch: {
                'valid': batch['valid'],
                **moments(classifier, params, mutable, batch['image']),
            }
            return with_statistics(mutable, pooled(**over('target', measure)))

        return params, _repeated(passes or norms, renewed, mutable)

    trained = supervised.build(config, spec, optimizer)
    return trained._replace(phases=(*trained.phases, solve('adapt', fit)))


def moments(classifier: Classifier, params: Params, mutable: Mutable, images: Array) -> dict:
    """'mean' and 'var' of what comes into each norm, of each example: {path: [N, C]} each."""
    own = {'params': params['encoder'], **mutable['encoder']}
    net, until = classifier.encoder, classifier.endpoint
    _, found = net.apply(own, net.input.normalise(images), until=until, mutable=[MOMENTS])
    leaves = partition.flat(found[MOMENTS])
    of = lambda name: {p.rpartition('/')[0]: x for p, x in leaves.items() if p.endswith(f'/{name}')}
    return {'mean': of('mean'), 'var': of('var')}


def pooled(valid: Array, mean: dict, var: dict) -> dict[str, Array]:
    """'layer/mean' and 'layer/var' [C] over all valid examples, from those of each [N, C].

    The variance is the mean of the examples' variances and the variance of their means.
    """
    share = valid / valid.sum()
    found = {}
    for layer, each in mean.items():
        centre = found[f'{layer}/mean'] = share @ each
        found[f'{layer}/var'] = share @ (var[layer] + (each - centre) ** 2)
    return found


def with_statistics(mutable: Mutable, statistics: dict[str, Array]) -> Mutable:
    """`mutable` with these statistics of the encoder's norms."""
    own = mutable['encoder']
    live = partition.flat(own[partition.LIVE]) | statistics
    return {**mutable, 'encoder': {**own, partition.LIVE: partition.nested(live)}}


def _repeated(count: int, fn: Callable[[Mutable], Mutable], start: Mutable) -> Mutable:
    """`fn` so many times: one compiled loop, or in turn where `over` reads a fed stream."""
    if traced(*jax.tree.leaves(start)):
        return jax.lax.fori_loop(0, count, lambda _, mutable: fn(mutable), start)
    for _ in range(count):
        start = fn(start)
    return start


def _norms(classifier: Classifier, spec: Spec, net: dict) -> int:
    """How many norms the encoder has; refuses none at all, and a cached prefix."""
    _, mutable = jax.eval_shape(lambda: classifier.init(jax.random.key(0), spec))
    statistics = mutable.get('encoder', {}).get(partition.LIVE, {})
    every = {p.rpartition('/')[0] for p in partition.paths(statistics) if p.endswith('/mean')}
    if not every:
        raise ValueError(
            f'adabn: net={net} has no batch normalisation, so there are no statistics to adapt; '
            'choose a net that has, such as resnet, or another method'
        )
    if classifier.since:
        raise ValueError(
            f'adabn: cache_prefix has computed the encoder up to {classifier.since!r} with the '
            "source's statistics; set cache_prefix=False"
        )
    return len(every)
