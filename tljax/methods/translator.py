"""Generators between two domains, with a discriminator of images each: CycleGAN's nets and losses.

Zhu et al., 2017, "Unpaired image-to-image translation using cycle-consistent adversarial
networks", arXiv:1703.10593. Images are in [-1, 1] here, as there, so that weights compare.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.data.streams import unit
from tljax.losses.adversarial import domain_accuracy
from tljax.losses.reconstruction import absolute_error, least_squares
from tljax.nets.apply import variables
from tljax.nets.generators import Generator, PatchDiscriminator
from tljax.types import Array, Batch, Key, LossFn, Mutable, Params, Picture, Player, Scalar, Spec

DOMAINS = ('source', 'target')
OTHER = dict(zip(DOMAINS, reversed(DOMAINS), strict=True))


class Translator(NamedTuple):
    """In the roles 'generator_to_source', 'discriminator_source' and those of the target.

    Attributes:
      generator: of both directions.
      discriminator: of both domains.
      pool: translations of each domain that are kept to be shown to its discriminator.
    """

    generator: Generator
    discriminator: PatchDiscriminator
    pool: int

    @classmethod
    def build(
        cls,
        spec: Spec,
        pool: int,
        widths: tuple[int, ...],
        blocks: int,
        kernel: int,
        patch_widths: tuple[int, ...],
    ) -> 'Translator':
        """For the images of `spec`.

        Args:
          spec: what the data are.
          pool: how many translations are kept; 0: none.
          widths: of the generators.
          blocks: of the generators.
          kernel: of the generators.
          patch_widths: of the discriminators.

        Raises:
          ValueError: inputs are a cached endpoint, not images.
        """
        if spec.since is not None:
            raise ValueError('image translation needs images: set cache_prefix=False')
        generator = Generator(spec.image[-1], tuple(widths), blocks, kernel)
        return cls(generator, PatchDiscriminator(tuple(patch_widths)), pool)

    def init(self, key: Key, spec: Spec) -> tuple[Params, Mutable]:
        """Initial values of the four roles, and an empty pool."""
        nets = {f'generator_to_{name}': self.generator for name in DOMAINS}
        nets |= {f'discriminator_{name}': self.discriminator for name in DOMAINS}
        image, keys = jnp.zeros((1, *spec.image)), jax.random.split(key, len(nets))
        params = {
            role: variables(net, one, image)[0]
            for (role, net), one in zip(nets.items(), keys, strict=True)
        }
        empty = {
            'image': jnp.zeros((self.pool, *spec.image)),
            'filled': jnp.zeros(self.pool, bool),
        }
        return params, {'pool': dict.fromkeys(DOMAINS, empty)} if self.pool else {}

    def to(self, domain: str, params: Params, images: Array) -> Array:
        """Images in [-1, 1] in the style of a domain."""
        return self.generator.apply({'params': params[f'generator_to_{domain}']}, images)

    def translated(self, domain: str, params: Params, images: Array) -> Array:
        """The same for images as streams hold them; the result is in [0, 1]."""
        return (self.to(domain, params, signed(images)) + 1) / 2

    def scores(self, domain: str, params: Params, images: Array) -> Array:
        """How real patches of images in [-1, 1] look to a domain's discriminator."""
        net = {'params': params[f'discriminator_{domain}']}
        return self.discriminator.apply(net, images)

    def players(self, generate: LossFn, rule: Callable) -> tuple[Player, Player]:
        """Generators with the loss `generate`, and discriminators; for a simultaneous phase."""
        generators, discriminators = (
            '|'.join(f'{kind}{name}' for name in DOMAINS)
            for kind in ('generator_to_', 'discriminator_')
        )
        return (
            Player('generators', generators, generate, rule),
            Player('discriminators', discriminators, self.discriminate, rule),
        )

    def generate(
        self, params: Params, batch: Batch, cycle: Scalar, identity: float
    ) -> tuple[Scalar, dict[str, Scalar], dict[str, Array]]:
        """The loss of both generators, of eq. 3 and section 5.2 of the paper.

        With G_d the generator to domain d, and d' the other domain, it is the sum over domains of
        mean (D_d(G_d(x_d')) - 1)^2 + cycle |G_d(G_d'(x_d)) - x_d| + identity |G_d(x_d) - x_d|.

        Returns:
          the loss; its parts; and the translations into each domain, in [-1, 1].
        """
        real = {name: signed(batch[name]['image']) for name in DOMAINS}
        fake, parts = {}, {'deception': 0.0, 'cycle': 0.0} | ({'identity': 0.0} if identity else {})
        for name in DOMAINS:
            inputs = real[OTHER[name]]
            if identity:  # one batch, as no image sees another
                inputs = jnp.concatenate([inputs, real[name]])
            out = self.to(name, params, inputs)
            fake[name] = out[: len(real[OTHER[name]])]
            if identity:
                parts['identity'] += absolute_error(real[name], out[len(fake[name]) :])
        for name in DOMAINS:
            back = self.to(name, params, fake[OTHER[name]])
            parts['cycle'] += absolute_error(real[name], back)
            parts['deception'] += least_squares(self.scores(name, params, fake[name]), True)
        value = parts['deception'] + cycle * parts['cycle'] + identity * parts.get('identity', 0.0)
        return value, parts, fake

    def discriminate(self, params, mutable, batch, hp, key):
        """The loss of both discriminators: sum of (mean (D(x) - 1)^2 + mean D(fake)^2) / 2.

        What either gets right of patches, with the boundary half-way between 0 and 1, is told.
        """
        del hp
        value, found, pool = 0.0, {}, dict(mutable.get('pool', {}))
        for name, one in zip(DOMAINS, jax.random.split(key), strict=True):
            real = signed(batch[name]['image'])
            fake = self.to(name, params, signed(batch[OTHER[name]]['image']))
            if pool:
                fake, pool[name] = swapped(one, jax.lax.stop_gradient(fake), pool[name])
            scores = self.scores(name, params, jnp.concatenate([real, fake]))
            of_real, of_fake = jnp.split(scores, [len(real)])
            value += (least_squares(of_real, True) + least_squares(of_fake, False)) / 2
            right = domain_accuracy(of_real - 0.5, of_fake - 0.5)
            found[f'discriminator_{name}/accuracy'] = right
        return value, (found, {**mutable, 'pool': pool} if pool else mutable)

    def pictures(self) -> dict[str, Picture]:
        """Images of each domain, translated to the other, and back."""

        def drawer(name):
            def draw(params, mutable, images):
                del mutable
                there = self.translated(OTHER[name], params, images)
                return jnp.stack([unit(images), there, self.translated(name, params, there)], 1)

            return draw

        caption = 'Images of the {}, translated to the {}, and back.'
        return {
            f'translation_{name}': Picture(name, caption.format(name, OTHER[name]), drawer(name))
            for name in DOMAINS
        }


def signed(images: Array) -> Array:
    """Images as streams hold them, in [-1, 1]."""
    return 2 * unit(images) - 1


def check_pool(config, pool: int) -> None:
    """Refuses a pool in which the images of a batch have no place each."""
    largest = max(config.data.streams[name].batch for name in DOMAINS)
    if pool and pool < largest:
        raise ValueError(
            f'options.pool is {pool}, and a stream has a batch of {largest}: expected that many or '
            'more, or 0'
        )


def swapped(key: Key, images: Array, pool: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Translations to show to a discriminator: by half the new ones, by half older ones.

    Each image draws a place of its own in the pool. Where that is empty, the image is shown and
    kept there; else, by a fair coin, it is shown and not kept, or kept while the old one is shown.
    Shrivastava et al. 2017, arXiv:1612.07828, section 2.3, in CycleGAN's form.

    Args:
      key: of the draws.
      images: [N, H, W, C], N at most the size P of the pool.
      pool: 'image' [P, H, W, C] and 'filled' [P].

    Returns:
      [N, H, W, C] to show, and the new pool.
    """
    keys, count = jax.random.split(key), len(images)
    place = jax.random.permutation(keys[0], len(pool['filled']))[:count]
    filled = pool['filled'][place]
    coin = jax.random.bernoulli(keys[1], 0.5, (count,))
    old = pool['image'][place]
    spread = lambda flag: flag[:, None, None, None]
    shown = jnp.where(spread(filled & coin), old, images)
    kept = jnp.where(spread(filled & ~coin), old, images)
    return shown, {
        'image': pool['image'].at[place].set(kept),
        'filled': pool['filled'].at[place].set(True),
    }
