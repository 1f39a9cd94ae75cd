"""Methods by name: each is one file, one row here and one config."""

from collections.abc import Callable, Mapping
from functools import partial

from tljax.methods import (
    adabn,
    adamatch,
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
    zero_shot,
    zero_shot_solved,
)
from tljax.types import Method

# name -> build(config, spec, optimizer: steps -> (hp -> optax transformation), **options), with
# the keywords that `config.options` may set
METHODS: Mapping[str, Callable[..., Method]] = {
    'adabn': adabn.build,
    'adamatch': adamatch.build,
    'adda': adda.build,
    'ale': zero_shot.ale,
    'cdan': adversarial.cdan,
    'cdan_e': partial(adversarial.cdan, entropy=True),
    'cmd': divergence.cmd,
    'conse': zero_shot.conse,
    'coral': divergence.coral,
    'coral_features': alignment.coral_features,
    'cycada': cycada.build,
    'dan': divergence.dan,
    'dann': adversarial.dann,
    'dap': zero_shot.dap,
    'dem': zero_shot.dem,
    'devise': zero_shot.devise,
    'drcn': drcn.build,
    'entropy': confidence.entropy,
    'eszsl': zero_shot_solved.eszsl,
    'infonce': embedding.infonce,
    'jan': divergence.jan,
    'matching': embedding.matching,
    'mcc': confidence.mcc,
    'mcd': mcd.build,
    'multitask': multitask.build,
    'probe': probe.build,
    'projection': zero_shot.projection,
    'sae': zero_shot_solved.sae,
    'prototypical': embedding.prototypical,
    'shot': shot.build,
    'siamese': embedding.siamese,
    'siamese_contrastive': embedding.siamese_contrastive,
    'sinkhorn': divergence.sinkhorn,
    'sje': zero_shot.sje,
    'subspace_alignment': alignment.subspace_alignment,
    'supervised': supervised.build,
    'supervised_contrastive': embedding.supervised_contrastive,
    'tca': alignment.tca,
    'translation': translation.build,
    'triplet': embedding.triplet,
    'wdgrl': wdgrl.build,
}

# name -> check(config), for a method whose options can be told to be wrong before data are read
CHECKS: Mapping[str, Callable[..., None]] = {'multitask': multitask.check}
