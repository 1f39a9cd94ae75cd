"""Translation of target images into the source's style, for a classifier of the source.

The translation is CycleGAN's: Zhu et al., 2017, arXiv:1703.10593.
"""

import jax

from tljax.methods.adaptation import check_source_share, check_streams
from tljax.methods.networks import Classifier
from tljax.methods.supervised import source_phase
from tljax.methods.translator import Translator, check_pool
from tljax.nets.generators import Generator, PatchDiscriminator
from tljax.types import Key, Method, Phase, Spec


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    source_share: float = 0.2,
    momentum: float = 0.5,
    cycle: float = 10.0,
    identity: float = 0.0,
    pool: int = 128,
    widths: tuple[int, ...] = Generator.widths,
    blocks: int = Generator.blocks,
    kernel: int = Generator.kernel,
    patch_widths: tuple[int, ...] = PatchDiscriminator.widths,
) -> Method:
    """First a classifier of the source; then, with it fixed, translation between the domains.

    A target image is translated to the source, and that is classified.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      source_share: of the steps, for the classifier; 0 where `init.from` gives one.
      momentum: of the optimizers of translation (the paper's Adam has 0.5).
      cycle: weight of the cycle loss, times `hparams.weight`.
      identity: weight of the identity loss; 0: there is none.
      pool: translations of each domain that are kept to show the discriminators; 0: none.
      widths: of the generators.
      blocks: of the generators.
      kernel: of the generators.
      patch_widths: of the discriminators.

    Raises:
      ValueError: a share or a pool that cannot be, or inputs that are a cached endpoint.
    """
    check_streams(config)
    check_source_share(source_share)
    check_pool(config, pool)
    classifier = Classifier.build(config, spec)
    translator = Translator.build(spec, pool, widths, blocks, kernel, patch_widths)
    before = round(source_share * config.steps)
    rule = optimizer(config.steps - before)

    def generate(params, mutable, batch, hp, key):
        del key
        value, parts, _ = translator.generate(params, batch, hp['weight'] * cycle, identity)
        return value, (parts, mutable)

    def init(key: Key, spec: Spec):
        keys = jax.random.split(key)
        made = classifier.init(keys[0], spec), translator.init(keys[1], spec)
        return tuple(one | other for one, other in zip(*made, strict=True))

    def predict(params, mutable, images):
        return classifier(params, mutable, translator.translated('source', params, images))[0]

    def plain(params, mutable, images):
        return classifier(params, mutable, images)[0]

    phases = [source_phase('source', config, classifier, optimizer, before)._replace(predict=plain)]
    players = translator.players(generate, lambda hp: rule(hp | {'momentum': momentum}))
    phases += [Phase('translation', config.steps - before, players, simultaneous=True)]
    return Method(
        init,
        tuple(phases[0 if before else 1 :]),
        predict,
        pictures=translator.pictures(),
        predict_source=plain,
    )
