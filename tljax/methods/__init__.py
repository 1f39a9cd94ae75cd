"""Methods by name: each is one file, one row here and one config."""

from collections.abc import Callable, Mapping

from tljax.methods import adabn, alignment, divergence, probe, supervised
from tljax.types import Method

# name -> build(config, spec, optimizer: steps -> (hp -> optax transformation), **options), with
# the keywords that `config.options` may set
METHODS: Mapping[str, Callable[..., Method]] = {
    'adabn': adabn.build,
    'cmd': divergence.cmd,
    'coral': divergence.coral,
    'coral_features': alignment.coral_features,
    'dan': divergence.dan,
    'jan': divergence.jan,
    'probe': probe.build,
    'sinkhorn': divergence.sinkhorn,
    'subspace_alignment': alignment.subspace_alignment,
    'supervised': supervised.build,
    'tca': alignment.tca,
}
