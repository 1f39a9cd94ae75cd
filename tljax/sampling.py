"""What is drawn at (seed, stream, step): one random-access permutation for host and device.

Epoch e of a stream of n examples is a permutation of range(n) keyed by (seed, stream, e), and it is
computed entry by entry, so that any step's batch is known without walking there and without a
shuffled array. The same unsigned arithmetic runs in NumPy and in jax.numpy, bit for bit.

The permutation is a Feistel network over the smallest even number of bits that holds n, with cycle
walking: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 4.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS = 12


def stream_id(name: str) -> int:
    """A 32-bit number for a stream's name, the same in every process."""
    return zlib.crc32(name.encode())


def mix(x, xp):
    """The 32-bit finaliser of MurmurHash3: every input bit changes every output bit."""
    x = (x ^ (x >> xp.uint32(16))) * xp.uint32(0x85EBCA6B)
    x = (x ^ (x >> xp.uint32(13))) * xp.uint32(0xC2B2AE35)
    return x ^ (x >> xp.uint32(16))


def _half_bits(n, xp):
    """Half the even number of bits that holds range(n), at least 1."""
    powers = xp.asarray([4**k for k in range(1, 16)], dtype=xp.uint32)
    return xp.uint32(1) + xp.sum(powers < n).astype(xp.uint32)


def _encipher(x, key, half, xp):
    mask = (xp.uint32(1) << half) - xp.uint32(1)
    left, right = x >> half, x & mask
    for i in range(ROUNDS):
        turn = mix(key + xp.uint32((0x9E3779B9 * (i + 1)) & 0xFFFFFFFF), xp)
        left, right = right, left ^ (mix(right ^ turn, xp) & mask)
    return (left << half) | right


def permute(position, key, n, xp):
    """Entry `position` of a pseudo-random permutation of range(n).

    Args:
      position: uint32 [...], each below n.
      key: uint32 [...] of the same shape, or a scalar.
      n: the size, 1 <= n < 2**30; a traced scalar is fine.
      xp: numpy or jax.numpy.
    """
    way = _permute if xp is np else _traced_once
    return way(position, key, xp.asarray(n).astype(xp.uint32), xp)


def _permute(position, key, n, xp):
    half = _half_bits(n, xp)

    def outside(x):
        return x >= n

    def walk(x):
        return xp.where(outside(x), _encipher(x, key, half, xp), x)

    x = _encipher(position, key, half, xp)
    if xp is np:
        while outside(x).any():
            x = walk(x)
        return x
    return jax.lax.while_loop(lambda x: jnp.any(outside(x)), walk, x)


# Some 500 operations, which would be traced anew for every stream of every program.
_traced_once = jax.jit(_permute, static_argnums=3)


def draw(seed, stream: str, position, n, xp):
    """The example at a position of a stream: [...] int32 in range(n).

    Args:
      seed: a 32-bit seed, possibly traced.
      stream: the stream's name.
      position: uint32 [...]; position n * e + i is entry i of epoch e.
      n: number of examples, possibly traced.
      xp: numpy or jax.numpy; both give the same numbers.
    """
    with np.errstate(over='ignore'):
        position = xp.asarray(position).astype(xp.uint32)
        n = xp.asarray(n).astype(xp.uint32)
        epoch, entry = position // n, position % n
        key = mix(xp.asarray(seed).astype(xp.uint32) ^ xp.uint32(stream_id(stream)), xp)
        key = mix(key + epoch * xp.uint32(0x9E3779B9), xp)
        return permute(entry, key, n, xp).astype(xp.int32)


def indices(seed, stream: str, step, batch: int, n, xp):
    """The examples of one step: [batch] int32 in range(n), without repeats inside an epoch.

    A batch may span two epochs, and then hold an example twice. Steps times batch must stay below
    2**32 (`check_range`).
    """
    start = xp.asarray(step).astype(xp.uint32) * xp.uint32(batch)
    return draw(seed, stream, start + xp.arange(batch, dtype=xp.uint32), n, xp)


def check_range(steps: int, batch: int, stream: str) -> None:
    """Refuses a run whose positions would not fit in 32 bits, where draws would repeat."""
    if steps * batch >= 2**32:
        raise ValueError(
            f'stream {stream!r}: {steps} steps of {batch} examples exceed 2**32 draws; '
            'use fewer steps or a smaller batch'
        )
