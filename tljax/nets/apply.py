"""Applying the network of a role, in training and in evaluation, with one signature."""

import flax.linen as nn

from tljax.partition import LIVE
from tljax.types import Array, Key, Mutable, Params


def apply(
    net: nn.Module,
    role: str,
    params: Params,
    mutable: Mutable,
    *inputs: Array,
    key: Key | None = None,
    **options,
) -> tuple[Array, Mutable]:
    """`net(*inputs, **options)` with the values of a role.

    Args:
      net: the module.
      role: its entry in `params` and `mutable`.
      params: by role.
      mutable: by role; in training as lent to a player.
      *inputs: arrays.
      key: randomness of dropout. With a key this is training, and layers whose statistics lie in
        'batch_stats' are live; without one nothing is live or written.
      **options: passed on, such as since= and until=.

    Returns:
      the output, and `mutable` with this role's new statistics.
    """
    own = mutable.get(role, {})
    variables = {'params': params.get(role, {}), **own}
    if key is None or LIVE not in own:
        return net.apply(variables, *inputs, **options), mutable
    output, new = net.apply(variables, *inputs, **options, mutable=[LIVE], rngs={'dropout': key})
    # A slice that reaches no norm returns none of the statistics: keep those that were there.
    return output, {**mutable, role: {**own, **new}}


def variables(net: nn.Module, key: Key, *inputs: Array, **options) -> tuple[dict, dict]:
    """Initial `(params, mutable)` of a role."""
    made = dict(net.init({'params': key, 'dropout': key}, *inputs, **options))
    return made.pop('params', {}), made
