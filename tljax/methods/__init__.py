"""Methods by name: each is one file, one row here and one config."""

from collections.abc import Callable, Mapping
from functools import partial

from tljax.methods import (
    adabn,
    adda,
    adversarial,
    alignment,
    confidence,
    cycada,
    divergence,
    drcn,
    embedding,
    mcd,
    multitask,
    probe,
    shot,
    supervised,
    translation,
    wdgrl,
)
from tljax.types import Method

# name -> build(config, spec, optimizer: steps -> (hp -> optax transformation), **options), with
# the keywords that `config.options` may set
METHODS: Mapping[str, Callable[..., Method]] = {
    'adabn': adabn.build,
    'adda': adda.build,
    'cdan': adversarial.cdan,
    'cdan_e': partial(adversarial.cdan, entropy=True),
    'cmd': divergence.cmd,
    'coral': divergence.coral,
    'coral_features': alignment.coral_features,
    'cycada': cycada.build,
    'dan': divergence.dan,
    'dann': adversarial.dann,
    'drcn': drcn.build,
    'entropy': confidence.entropy,
    'infonce': embedding.infonce,
    'jan': divergence.jan,
    'matching': embedding.matching,
    'mcc': confidence.mcc,
    'mcd': mcd.build,
    'multitask': multitask.build,
    'probe': probe.build,
    'prototypical': embedding.prototypical,
    'shot': shot.build,
    'siamese': embedding.siamese,
    'siamese_contrastive': embedding.siamese_contrastive,
    'sinkhorn': divergence.sinkhorn,
    'subspace_alignment': alignment.subspace_alignment,
    'supervised': supervised.build,
    'supervised_contrastive': embedding.supervised_contrastive,
    'tca': alignment.tca,
    'translation': translation.build,
    'triplet': embedding.triplet,
    'wdgrl': wdgrl.build,
}
