"""Domain adversarial networks: a classifier against a discriminator of its own features.

DANN's discriminator sees the features, CDAN's sees them together with the predictions.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.losses.adversarial import domain_accuracy, domain_bce
from tljax.losses.classification import accuracy, cross_entropy
from tljax.losses.entropy import entropy_weights
from tljax.methods.adaptation import both, check_streams, ramp
from tljax.methods.networks import Classifier
from tljax.nets import build_head
from tljax.nets.apply import apply, variables
from tljax.nets.discriminators import Multilinear, reverse
from tljax.types import Array, Batch, Key, Method, Mutable, Params, Phase, Player, Spec, unknown

FORMS = ('players', 'reversal')


def dann(
    config,
    spec: Spec,
    optimizer,
    *,
    form: str = 'players',
    widths=(500, 500),
    dropout: float = 0.0,
    together: bool = True,
) -> Method:
    """Domain-adversarial training: Ganin et al. 2016, JMLR 17, section 4.

    With L_y the source's cross entropy, L_d the discriminator's binary one and strength s =
    hp['weight'] * ramp(progress), at every step, all gradients at one point:

        encoder, head: down the gradient of L_y - s L_d;  discriminator: down that of L_d.

    'players' writes this as a game of two, 'reversal' as one player who minimises L_y + L_d, with
    the gradient reversed on its way from the discriminator to the encoder. Both make the same steps
    at the same cost; a clip of the gradient's norm is each player's own in the first. With dropout
    in the encoder the players draw masks of their own, and 'reversal' is cheaper.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      form: 'players' or 'reversal'.
      widths: of the discriminator's hidden layers.
      dropout: in them.
      together: one batch of both domains, normalised together, or one after the other.
    """
    discriminator = build_head('mlp', 1, widths=tuple(widths), dropout=dropout)
    judge = Judge(_classifier(config, spec), discriminator, None, False, together)
    return _method(config, optimizer, judge, form)


def cdan(
    config,
    spec: Spec,
    optimizer,
    *,
    form: str = 'players',
    widths=(500, 500),
    dropout: float = 0.0,
    together: bool = True,
    limit: int = 4096,
    random_width: int = 1024,
    entropy: bool = False,
) -> Method:
    """Conditional adversarial network: Long et al. 2018, arXiv:1705.10667, section 3.

    As `dann`, but the discriminator sees `Multilinear(features, predictions)`, and with `entropy`
    (CDAN+E) an example counts 1 + exp(-H) in its loss, H being its prediction's entropy, normalised
    in each domain. As in the code that its authors released, no gradient passes through the
    predictions that the map takes.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      form: as of `dann`.
      widths: of the discriminator's hidden layers.
      dropout: in them.
      together: as of `dann`.
      limit: features times classes up to which the map is exact; randomised above.
      random_width: of the randomised map.
      entropy: whether sure examples weigh more.
    """
    discriminator = build_head('mlp', 1, widths=tuple(widths), dropout=dropout)
    seen = Multilinear(limit, random_width)
    judge = Judge(_classifier(config, spec), discriminator, seen, entropy, together)
    return _method(config, optimizer, judge, form)


def _classifier(config, spec: Spec) -> Classifier:
    check_streams(config)
    return Classifier.build(config, spec)


class Judged(NamedTuple):
    """What comes of a batch: the discriminator's loss and accuracy, and the source's logits."""

    loss: Array
    accuracy: Array
    logits: Array  # [N, C]


class Judge(NamedTuple):
    """A classifier and the discriminator, in the role 'discriminator', that watches it."""

    classifier: Classifier
    discriminator: nn.Module
    multilinear: Multilinear | None  # what it sees; None: the features
    weighted: bool  # by the entropy of the predictions
    together: bool

    def init(self, key: Key, spec: Spec) -> tuple[Params, Mutable]:
        """Of the roles 'encoder', 'head', 'discriminator' and, in `mutable`, 'multilinear'."""
        keys = jax.random.split(key, 3)
        params, mutable = self.classifier.init(keys[0], spec)
        seen = jnp.zeros((1, self.classifier.width(spec)))
        if self.multilinear:
            guess = jnp.zeros((1, len(spec.classes)))
            _, mutable['multilinear'] = variables(self.multilinear, keys[2], seen, guess)
            seen, _ = apply(self.multilinear, 'multilinear', {}, mutable, seen, guess)
        made = variables(self.discriminator, keys[1], seen)
        params['discriminator'], mutable['discriminator'] = made
        return params, mutable

    def __call__(
        self, params: Params, mutable: Mutable, batch: Batch, key: Key, strength: Array
    ) -> tuple[Judged, Mutable]:
        """Judges both streams; the classifier gets -strength times the gradient of the loss."""
        keys = jax.random.split(key)
        parts = both(self.classifier, params, mutable, batch, keys[0], self.together)
        *outs, mutable = parts
        seen = jnp.concatenate([self.sees(mutable, out) for out in outs])
        logits, mutable = apply(
            self.discriminator,
            'discriminator',
            params,
            mutable,
            reverse(seen, strength),
            key=keys[1],
        )
        domains = jnp.split(logits[:, 0], [len(outs[0]['logits'])])
        weights = tuple(entropy_weights(out['logits']) for out in outs) if self.weighted else None
        loss, right = domain_bce(*domains, weights), domain_accuracy(*domains)
        return Judged(loss, right, outs[0]['logits']), mutable

    def sees(self, mutable: Mutable, out: dict[str, Array]) -> Array:
        if self.multilinear is None:
            return out['features']
        soft = jax.lax.stop_gradient(jax.nn.softmax(out['logits']))
        args = ({}, mutable, out['features'], soft)
        return apply(self.multilinear, 'multilinear', *args)[0]


def _method(config, optimizer, judge: Judge, form: str) -> Method:
    if form not in FORMS:
        raise unknown('options.form', form, FORMS)

    def model(params, mutable, batch, hp, key):
        strength = hp['weight'] * ramp(hp['progress'])
        judged, mutable = judge(params, mutable, batch, key, strength)
        label = batch['source']['label']
        found = {'accuracy': accuracy(judged.logits, label)}
        if form == 'reversal':
            found['discriminator/accuracy'] = judged.accuracy
        # Of two players this one cannot move the discriminator, and as the gradient is reversed it
        # goes down L_y - s L_d. Written so, both players share the pass back, too.
        value = cross_entropy(judged.logits, label, hp['label_smoothing']) + judged.loss
        return value, (found, mutable)

    def domain(params, mutable, batch, hp, key):
        judged, mutable = judge(params, mutable, batch, key, jnp.zeros(()))
        return judged.loss, ({'accuracy': judged.accuracy}, mutable)

    rule = optimizer(config.steps)
    if form == 'players':
        opponent = Player('discriminator', 'discriminator', domain, rule)
        players = (Player('model', config.trains, model, rule), opponent)
    else:
        players = (Player('model', f'{config.trains}|discriminator', model, rule),)
    return Method(
        init=judge.init,
        phases=(Phase('train', config.steps, players, simultaneous=True),),
        predict=lambda params, mutable, images: judge.classifier(params, mutable, images)[0],
    )
