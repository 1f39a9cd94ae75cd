"""AdaMatch: pseudo-labels of weakly augmented target images, learnt on strongly augmented ones.

Berthelot et al. 2022, "AdaMatch: a unified approach to semi-supervised learning and domain
adaptation", arXiv:2106.04732, with one augmentation for all strong images in place of CTAugment.
"""

import jax
import jax.numpy as jnp
import optax

from tljax.data import augment
from tljax.data.streams import unit
from tljax.losses.classification import accuracy, cross_entropy
from tljax.losses.entropy import aligned_pseudo_labels
from tljax.methods.adaptation import check_streams, one_player
from tljax.methods.networks import Classifier
from tljax.types import Array, Key, Method, Scalar, Spec

STRONG = 'affine:15,0.2,0.2,3|erase:0.5'


def build(config, spec: Spec, optimizer, *, strong: str = STRONG, threshold: float = 0.9) -> Method:
    """The player 'model' minimises L_source + mu(progress) L_target.

    L_source is the cross entropy of weak and of strong images of the source. L_target is that of
    strong images of the target with the labels that `losses.entropy.aligned_pseudo_labels` makes of
    the weak ones. What streams give, augmented by their own `augment`, are the weak images.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      strong: what makes strong images of the weak ones; see `data.augment`.
      threshold: tau, of the mean confidence on the source.

    Raises:
      ValueError: inputs are a cached endpoint, which no augmentation can change; or the threshold
        is not in [0, 1].
    """
    check_streams(config)
    if spec.since is not None:
        raise ValueError('method adamatch augments images: set cache_prefix=False')
    if not 0 <= threshold <= 1:
        raise ValueError(f'options.threshold is {threshold}; expected a number in [0, 1]')
    classifier, distort = Classifier.build(config, spec), augment.build(strong)

    def model(params, mutable, batch, hp, key):
        keys = jax.random.split(key, 5)
        label = batch['source']['label']
        weak = [unit(batch[name]['image']) for name in ('source', 'target')]
        source, target = (
            jnp.concatenate([images, distort(key, images)])
            for images, key in zip(weak, keys, strict=False)
        )
        out, changed = classifier(params, mutable, jnp.concatenate([source, target]), keys[2])
        both, of_target = jnp.split(out['logits'], [len(source)])
        alone, _ = classifier(params, mutable, source, keys[3])
        of_source = interpolated(keys[4], both, alone['logits'])
        of_weak, of_strong = jnp.split(of_target, 2)
        pseudo, sure = aligned_pseudo_labels(of_source[: len(label)], of_weak, threshold)
        apart = optax.softmax_cross_entropy(of_strong.astype(jnp.float32), pseudo)
        value = 2.0 * cross_entropy(of_source, jnp.tile(label, 2), hp['label_smoothing'])
        value += hp['weight'] * warm_up(hp['progress']) * (apart * sure).mean()
        found = {'accuracy': accuracy(both[: len(label)], label), 'sure': sure.mean()}
        return value, (found, changed)

    return one_player(config, classifier, model, optimizer)


def interpolated(key: Key, both: Array, alone: Array) -> Array:
    """Random logit interpolation: l Z' + (1 - l) Z'', with l uniform in [0, 1) for each logit.

    Z' [N, C] are the source's logits in a batch with the target, Z'' those in a batch of its own,
    which batch statistics make differ.
    """
    share = jax.random.uniform(key, both.shape)
    return share * both + (1.0 - share) * alone


def warm_up(progress: Scalar) -> Scalar:
    """mu(p) = 1/2 - cos(min(pi, 2 pi p)) / 2: from 0 to 1 over the first half."""
    return 0.5 - jnp.cos(jnp.minimum(jnp.pi, 2.0 * jnp.pi * progress)) / 2.0
