"""DRCN: a shared encoder classifies the source and reconstructs the target.

Ghifary et al., 2016, "Deep reconstruction-classification networks for unsupervised domain
adaptation", arXiv:1607.03516. The paper minimises lambda L_c + (1 - lambda) L_r; here it is
L_c + weight L_r, the same for weight = (1 - lambda) / lambda but for the scale of the rate.
"""

import jax
import jax.numpy as jnp

from tljax.data.streams import unit
from tljax.losses.reconstruction import squared_error
from tljax.methods import supervised
from tljax.methods.adaptation import beyond, check_streams
from tljax.methods.networks import Classifier
from tljax.nets.apply import apply, variables
from tljax.nets.decoders import Decoder
from tljax.types import Array, Key, Method, Phase, Picture, Player, Spec


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    corruption: float = 0.4,
    alternate: bool = True,
    widths: tuple[int, ...] = (32, 16),
    kernel: int = 5,
) -> Method:
    """Classifies 'source' and reconstructs 'target' through one encoder.

    `hparams.weight` is the share of reconstruction. Alternating, it scales the rate of the
    reconstruction's own optimizer, as Algorithm 1 scales its steps; else its loss. The encoder's
    running statistics are of the target's images as they are, neither corrupted nor the source's.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      corruption: the share of the pixels that the encoder sees black while it reconstructs.
      alternate: a step on the source, then one on the target (Algorithm 1, which alternates
        between epochs); False: one step on the sum of both losses.
      widths: of the decoder's convolutions.
      kernel: side of the decoder's kernels.

    Raises:
      ValueError: inputs are a cached endpoint, from which there is no way back to pixels; a stream
        is missing; or nothing of the encoder may move.
    """
    check_streams(config)
    if spec.since is not None:
        raise ValueError('method drcn reconstructs images: set cache_prefix=False')
    classifier, decoder = Classifier.build(config, spec), Decoder(spec.image, widths, kernel)

    def reconstructed(params, mutable, images, key=None):
        out, mutable = classifier(params, mutable, images, key)
        return apply(decoder, 'decoder', params, mutable, out['features'], key=key)

    def classify(params, mutable, batch, hp, key):
        value, (metrics, _) = supervised.loss(classifier)(params, mutable, batch, hp, key)
        return value, (metrics, mutable)

    def reconstruct(params, mutable, batch, hp, key):
        del hp
        images, keys = unit(batch['target']['image']), jax.random.split(key, 3)
        seen = corrupted(keys[0], images, corruption)
        found, moved = reconstructed(params, mutable, seen, keys[1])
        _, mutable = classifier(params, mutable, images, keys[2])  # what predictions will see
        return squared_error(images, found), ({}, {**mutable, 'decoder': moved['decoder']})

    def together(params, mutable, batch, hp, key):
        keys = jax.random.split(key)
        value, (metrics, _) = classify(params, mutable, batch, hp, keys[0])
        error, (_, mutable) = reconstruct(params, mutable, batch, hp, keys[1])
        metrics |= {'reconstruction': error}
        return value + hp['weight'] * error, (metrics, mutable)

    def weighted(hp):
        return rule(hp | {'rate': hp['rate'] * hp['weight']})

    rule = optimizer(config.steps)
    if alternate:
        players = (
            Player('model', config.trains, classify, rule),
            Player(
                'autoencoder',
                f'{beyond(config, spec, classifier, "head")}|decoder',
                reconstruct,
                weighted,
            ),
        )
    else:
        players = (Player('model', f'{config.trains}|decoder', together, rule),)

    def init(key: Key, spec: Spec):
        keys = jax.random.split(key)
        params, mutable = classifier.init(keys[0], spec)
        images = jnp.zeros((1, *spec.image))
        features = classifier(params, mutable, images)[0]['features']
        made = variables(decoder, keys[1], features)
        return params | {'decoder': made[0]}, mutable | {'decoder': made[1]}

    def beside(params, mutable, images):
        return jnp.stack([unit(images), reconstructed(params, mutable, images)[0]], 1)

    pictures = {
        f'reconstruction_{name}': Picture(
            name,
            f'Images of the {name} and their reconstructions by what learned on the target.',
            beside,
        )
        for name in ('source', 'target')
    }

    def predict(params, mutable, images):
        return classifier(params, mutable, images)[0]

    return Method(init, (Phase('train', config.steps, players),), predict, pictures=pictures)


def corrupted(key: Key, images: Array, share: float) -> Array:
    """Images with each pixel black with a probability, over all its channels."""
    kept = jax.random.bernoulli(key, 1 - share, images.shape[:-1])
    return images * kept[..., None]
