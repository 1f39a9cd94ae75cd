"""CyCADA: source images in the target's style for a classifier, then features that match.

Hoffman et al., 2018, "CyCADA: cycle-consistent adversarial domain adaptation", arXiv:1711.03213, in
the stages of section 3: a classifier of the source; translation that keeps what it sees in an
image; the classifier trained on the source in the target's style; and ADDA from there.
"""

import jax

from tljax.data.streams import unit
from tljax.losses.reconstruction import semantic_consistency
from tljax.methods import adda, supervised
from tljax.methods.adaptation import check_streams
from tljax.methods.networks import Classifier
from tljax.methods.translator import DOMAINS, OTHER, Translator, check_pool
from tljax.nets import build_head
from tljax.nets.generators import Generator, PatchDiscriminator
from tljax.types import Key, Method, Phase, Player, Spec

STAGES = ('source', 'pixels', 'model', 'adapt')


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    shares: tuple[float, float, float, float] = (0.2, 0.5, 0.15, 0.15),
    momentum: float = 0.5,
    cycle: float = 10.0,
    identity: float = 0.0,
    pool: int = 128,
    widths: tuple[int, ...] = Generator.widths,
    blocks: int = Generator.blocks,
    kernel: int = Generator.kernel,
    patch_widths: tuple[int, ...] = PatchDiscriminator.widths,
    discriminator_widths: tuple[int, ...] = (500, 500),
    adapts: str = '',
) -> Method:
    """Phases 'source', 'pixels', 'model' and 'adapt'; predicts with the target's encoder.

    `hparams.weight` is that of semantic consistency.

    Args:
      config: the run's config: net, head, trains (of the classifier), steps (of all phases).
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      shares: of the steps, for each phase; one of 0 is left out, as the first may be where
        `init.from` gives a classifier of the source.
      momentum: of the optimizers of 'pixels' and 'adapt'.
      cycle: weight of the cycle loss.
      identity: weight of the identity loss; 0: there is none.
      pool: translations of each domain that are kept to show the discriminators; 0: none.
      widths: of the generators.
      blocks: of the generators.
      kernel: of the generators.
      patch_widths: of the discriminators of images.
      discriminator_widths: of the hidden layers of the discriminator of features.
      adapts: pattern of what the player 'target' of the last phase may move; '': what `trains`
        names of the encoder.

    Raises:
      ValueError: shares, a pool or streams that cannot be, or inputs that are a cached endpoint.
    """
    check_streams(config)
    check_pool(config, pool)
    steps = steps_of(shares, config.steps)
    ours, net = Classifier.build(config, spec), build_head('mlp', 1, widths=discriminator_widths)
    translator = Translator.build(spec, pool, widths, blocks, kernel, patch_widths)

    def init(key: Key, spec: Spec):
        keys = jax.random.split(key)
        made = adda.init(ours, net, keys[0], spec), translator.init(keys[1], spec)
        return tuple(one | other for one, other in zip(*made, strict=True))

    def generate(params, mutable, batch, hp, key):
        del key
        value, parts, fake = translator.generate(params, batch, cycle, identity)
        parts['semantic'] = 0.0
        for name in DOMAINS:
            before = ours(params, mutable, unit(batch[OTHER[name]]['image']))[0]['logits']
            after = ours(params, mutable, (fake[name] + 1) / 2)[0]['logits']
            parts['semantic'] += semantic_consistency(before, after)
        return value + hp['weight'] * parts['semantic'], (parts, mutable)

    def styled(params, images):
        return translator.translated('target', params, images)

    def calm(phase):
        rule = optimizer(steps[phase])
        return lambda hp: rule(hp | {'momentum': momentum})

    plain = lambda *args: ours(*args)[0]

    def in_style(params, mutable, images):
        return plain(params, mutable, translator.translated('target', params, images))

    moves = adapts or adda.doubled(config, spec, ours)
    model = Player('model', config.trains, supervised.loss(ours, styled), optimizer(steps['model']))
    players = {
        'source': supervised.source_phase('', config, ours, optimizer, steps['source']).players,
        'pixels': translator.players(generate, calm('pixels')),
        'model': (model,),
        'adapt': adda.players(ours, net, moves, calm('adapt'), styled),
    }
    phases = {name: Phase(name, steps[name], players[name], predict=plain) for name in STAGES}
    phases['pixels'] = phases['pixels']._replace(simultaneous=True)
    enter = lambda params, mutable, *_: adda.copied(params, mutable)
    phases['adapt'] = phases['adapt']._replace(enter=enter, predict=None)
    return Method(
        init,
        tuple(phase for phase in phases.values() if phase.steps),
        lambda *args: adda.target_of(ours)(*args)[0],
        pictures=translator.pictures(),
        predict_source=in_style,
    )


def steps_of(shares: tuple[float, ...], steps: int) -> dict[str, int]:
    """Steps of each stage, which add up.

    Raises:
      ValueError: there are not four shares, one is negative, or they do not add up to one.
    """
    if len(shares) != len(STAGES) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f'options.shares is {tuple(shares)}; expected four shares of the steps, for '
            f'{", ".join(STAGES)}, that add up to 1'
        )
    ends = [round(steps * sum(shares[: i + 1])) for i in range(len(shares))]
    return {name: end - begin for name, begin, end in zip(STAGES, [0, *ends], ends, strict=False)}
