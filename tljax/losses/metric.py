"""Losses that shape a space of embeddings: of pairs, of labelled batches and of episodes."""

import jax
import jax.numpy as jnp
import optax

from tljax.kernels import unit_length
from tljax.types import Array, Scalar


def squared_distances(x: Array, y: Array) -> Array:
    """||x_i - y_j||^2: [N, D], [M, D] -> [N, M]."""
    cross = jnp.matmul(x, y.T, precision='highest')  # a difference of large numbers
    squares = jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)
    return jnp.maximum(squares - 2 * cross, 0.0)


def distance(x: Array, y: Array) -> Array:
    """||x_i - y_i||, whose gradient is 0 where it is 0: [N, D], [N, D] -> [N]."""
    return _root(jnp.sum((x - y) ** 2, -1))


def _root(squared: Array) -> Array:
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def contrastive(x: Array, y: Array, same: Array, margin: float = 1.0) -> Scalar:
    """Mean over pairs of 1/2 s D^2 + 1/2 (1 - s) max(0, m - D)^2, D = ||x - y||.

    Hadsell et al. 2006, "Dimensionality reduction by learning an invariant mapping", eq. 4, whose
    Y is 1 - s.

    Args:
      x: [N, D] embeddings.
      y: [N, D] of the others of each pair.
      same: s, [N] bool: of one class.
      margin: m > 0, beyond which different ones no longer push.
    """
    apart = distance(x, y)
    return 0.5 * jnp.mean(jnp.where(same, apart**2, jnp.maximum(0.0, margin - apart) ** 2))


def pair_cross_entropy(logits: Array, same: Array) -> Scalar:
    """-s log p - (1 - s) log(1 - p), p = sigmoid(logit), `balanced` over both kinds of pairs.

    Koch et al. 2015, "Siamese neural networks for one-shot image recognition", section 3.2, where
    half of the pairs are of one class, without the penalty of weights, which is the optimizer's;
    the logit is that of `weighted_l1`.

    Args:
      logits: [N].
      same: s, [N] bool.
    """
    return balanced(optax.sigmoid_binary_cross_entropy(logits, same.astype(logits.dtype)), same)


def balanced(values: Array, same: Array) -> Scalar:
    """Half of the mean over pairs of one class and half of that over the others: [N], [N] bool."""
    return 0.5 * (_mean(values, same) + _mean(values, ~same))


def weighted_l1(x: Array, y: Array, weights: Array, bias: Array) -> Array:
    """sum_d a_d |x_d - y_d| + b, the logit of being of one class: Koch et al. 2015, section 3.1.

    Args:
      x: [..., D].
      y: [..., D], broadcast against x.
      weights: a, [D].
      bias: b, [].
    """
    return jnp.abs(x - y) @ weights + bias


def triplet(x: Array, label: Array, margin: float = 0.2, mining: str = 'hard') -> Scalar:
    """Mean over anchors or pairs of max(0, m + D(a, p) - D(a, n)), D Euclidean, mined in the batch.

    'hard': an anchor's farthest positive and nearest negative; Hermans et al. 2017, "In defense of
    the triplet loss for person re-identification", eq. 5. 'semi': of each pair of one class, the
    nearest negative that is farther than the positive, or the farthest if none is; Schroff et al.
    2015, "FaceNet", section 3.2, with D in place of its square.

    Args:
      x: [N, D].
      label: [N]; anchors without a positive or a negative do not count.
      margin: m.
      mining: 'hard' or 'semi'.
    """
    apart = _root(squared_distances(x, x))
    positive, negative = _relations(label)
    if mining == 'hard':
        far = jnp.max(jnp.where(positive, apart, -jnp.inf), 1)
        near = jnp.min(jnp.where(negative, apart, jnp.inf), 1)
        counts = positive.any(1) & negative.any(1)
        hinge = jnp.maximum(0.0, margin + jnp.where(counts, far - near, 0.0))
    elif mining == 'semi':
        outside = negative[:, None] & (apart[:, None] > apart[:, :, None])  # [a, p, n]
        beyond = jnp.min(jnp.where(outside, apart[:, None], jnp.inf), 2)
        farthest = jnp.max(jnp.where(negative, apart, -jnp.inf), 1)[:, None]
        chosen = jnp.where(outside.any(2), beyond, farthest)
        counts = positive & negative.any(1)[:, None]
        hinge = jnp.maximum(0.0, margin + jnp.where(counts, apart - chosen, 0.0))
    else:
        raise ValueError(f"mining={mining!r}: there are 'hard' and 'semi'")
    return _mean(hinge, counts)


def supervised_contrastive(x: Array, label: Array, temperature: float = 0.1) -> Scalar:
    """Mean over anchors i of -1/|P_i| sum_{p in P_i} log(exp(s_ip) / sum_{a != i} exp(s_ia)).

    s_ij = cos(x_i, x_j) / t and P_i the others of i's class: Khosla et al. 2020, arXiv:2004.11362,
    eq. 2. With two examples a class it is the InfoNCE of both directions with all others as
    negatives.

    Args:
      x: [N, D].
      label: [N]; anchors without a positive do not count.
      temperature: t > 0.
    """
    similar = jnp.matmul(unit_length(x), unit_length(x).T, precision='highest') / temperature
    positive, _ = _relations(label)
    others = jnp.where(jnp.eye(len(label), dtype=bool), -jnp.inf, similar)
    log_share = similar - jax.nn.logsumexp(others, axis=1, keepdims=True)
    of_anchor = -jnp.where(positive, log_share, 0.0).sum(1) / jnp.maximum(positive.sum(1), 1)
    return _mean(of_anchor, positive.any(1))


def info_nce(x: Array, y: Array, temperature: float = 0.1, similarity: str = 'cosine') -> Scalar:
    """Mean over i of -log(exp(s_ii) / sum_j exp(s_ij)), s_ij = cos(x_i, y_j) / t.

    van den Oord et al. 2018, arXiv:1807.03748, eq. 4; with products x_i . y_j in place of cosines
    and t = 1 it is the N-pair loss of Sohn 2016, "Improved deep metric learning with multi-class
    N-pair loss objective", eq. 7, without its penalty of the embeddings' norms.

    Args:
      x: [N, D] anchors, of N different classes.
      y: [N, D] their positives, each the others' negatives.
      temperature: t > 0.
      similarity: 'cosine' or 'dot'.
    """
    if similarity not in ('cosine', 'dot'):
        raise ValueError(f"similarity={similarity!r}: there are 'cosine' and 'dot'")
    if similarity == 'cosine':
        x, y = unit_length(x), unit_length(y)
    similar = jnp.matmul(x, y.T, precision='highest') / temperature
    return optax.softmax_cross_entropy_with_integer_labels(similar, jnp.arange(len(x))).mean()


def prototypes(support: Array) -> Array:
    """Means of the classes: [way, shot, D] -> [way, D]; Snell et al. 2017, eq. 1."""
    return support.mean(1)


def prototypical_logits(support: Array, query: Array) -> Array:
    """-||q_i - c_k||^2, whose softmax is Snell et al. 2017, arXiv:1703.05175, eq. 2.

    Args:
      support: [way, shot, D].
      query: [N, D].

    Returns:
      [N, way].
    """
    return -squared_distances(query, prototypes(support))


def matching_logits(support: Array, query: Array, scale: float = 10.0) -> Array:
    """log sum_{j of class k} a(q, x_j), a the softmax of cosines over all support examples.

    Vinyals et al. 2016, arXiv:1606.04080, eq. 1 and section 2.1.1, without full context embedding;
    the cosines are multiplied by `scale`, without which the softmax can't be sharp.

    Args:
      support: [way, shot, D].
      query: [N, D].
      scale: of the cosines.

    Returns:
      [N, way] log probabilities.
    """
    way, shot, width = support.shape
    others = unit_length(support.reshape(-1, width))
    cosines = jnp.matmul(unit_length(query), others.T, precision='highest')
    attention = jax.nn.log_softmax(scale * cosines)
    return jax.nn.logsumexp(attention.reshape(-1, way, shot), axis=-1)


def _relations(label: Array) -> tuple[Array, Array]:
    """[N, N] each: pairs of two examples of one class, and of two classes."""
    same = label[:, None] == label
    return same & ~jnp.eye(len(label), dtype=bool), ~same


def _mean(values: Array, counts: Array) -> Scalar:
    return jnp.where(counts, values, 0.0).sum() / jnp.maximum(counts.sum(), 1)
