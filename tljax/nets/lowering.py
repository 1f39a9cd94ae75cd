"""Convolution and pooling that are fast on the CPU too."""

from functools import partial

import flax.linen as nn
import jax

conv = jax.lax.conv_general_dilated
Conv = partial(nn.Conv, conv_general_dilated=conv)


def max_pool(x, window, strides=None):
    window = (window, window) if isinstance(window, int) else tuple(window)
    strides = window if strides is None else (strides,) * 2 if isinstance(strides, int) else strides
    return nn.max_pool(x, window, strides)
