"""Closed forms of zero-shot learning on feature arrays, and their strengths by splits of classes.

A closed form finds a projection P [B, A] of inputs into the space of class embeddings. Its work is
in three steps, of which the first knows no strength and the others one each, so that strengths
share what does not depend on them: products of all examples are taken once for all. Inputs are
features [N, B], or for a kernel its values with the N examples, and B = N.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from tljax.kernels import compatibility
from tljax.types import Array, Key, Scalar

# Calibration is chosen among these times the mean spread of an example's scores over classes.
CALIBRATIONS = tuple(0.05 * i for i in range(61))
LEAST = 1e-6  # SAE: sums of eigenvalues below this share of the largest are taken for 0


class Examples(NamedTuple):
    """Inputs and labels; weights are 1 or 0, which leaves an example out."""

    inputs: Array  # [N, B]
    labels: Array  # [N] int
    weights: Array  # [N]


class Form(NamedTuple):
    """A closed form, see above."""

    gather: Callable  # (examples, embeddings [C, A], among [C] bool) -> moments
    begin: Callable  # (moments, first strength) -> left [B, K]
    finish: Callable  # (moments, second strength) -> right [K, A], and P = left right
    similarity: str  # of projections and embeddings; see kernels.compatibility

    def solve(self, of: Examples, embeddings: Array, among: Array, strengths: Array) -> Array:
        """P, by two strengths."""
        moments = self.gather(of, embeddings, among)
        return self.begin(moments, strengths[0]) @ self.finish(moments, strengths[1])


class Choice(NamedTuple):
    """What is found."""

    projection: Array  # [B, A]
    strengths: Array  # [2]
    curve: Array  # [R1, R2] accuracy on classes held out
    calibration: Scalar  # to take off the scores of seen classes
    harmonic: Array  # [G] on classes held out, for each of CALIBRATIONS


def eszsl(kernel: bool = False) -> Form:
    """ESZSL: Romera-Paredes and Torr 2015, "An embarrassingly simple approach to ZSL".

    The minimum over P [B, A] of its squared loss with its regulariser (section 3.1),

        ||X P S^T - Y||^2 + g ||P S^T||^2 + l ||X P||^2 + g l ||P||^2
        P = (X^T X + g I)^-1 X^T Y S (S^T S + l I)^-1

    with Y = 1 for the label and -1 for other classes, and S [Z, A] the classes' embeddings. With a
    kernel P = Phi^T a is in its space of features Phi, and

        a = (K + g I)^-1 Y S (S^T S + l I)^-1.

    The strengths are g and l over the mean of the diagonals of X^T X (or K) and S^T S. Scores are
    X P S^T, with a kernel k(X', X) a S^T.
    """

    def gather(of: Examples, embeddings: Array, among: Array):
        w = (of.weights * among[of.labels])[:, None]
        s = embeddings * among[:, None]
        y = (2.0 * jax.nn.one_hot(of.labels, len(embeddings)) - 1.0) * w
        x = of.inputs * w
        if kernel:  # examples that are left out have rows of zeros
            return x * w.T, y @ s, s.T @ s, w.sum()
        return x.T @ x, x.T @ (y @ s), s.T @ s, x.shape[1]

    def begin(moments, strength: Scalar):
        gram, mixed, _, count = moments
        return cho_solve(cho_factor(_ridged(gram, strength, count)), mixed)

    def finish(moments, strength: Scalar):
        square = moments[2]
        return jnp.linalg.inv(_ridged(square, strength, len(square)))

    return Form(gather, begin, finish, 'dot')


def _ridged(matrix: Array, strength: Scalar, count: Scalar) -> Array:
    """With the strength times the mean of `count` entries of the diagonal added to the diagonal."""
    return matrix + strength * jnp.trace(matrix) / count * jnp.eye(len(matrix))


def sae() -> Form:
    """SAE: Kodirov, Xiang and Gong 2017, "Semantic autoencoder", arXiv:1704.08345.

    The minimum over P [B, A] of ||X - S_n P^T||^2 + l ||X P - S_n||^2, with S_n [N, A] the
    embeddings of the examples' classes, is where (a Sylvester equation in W = P^T)

        S_n^T S_n W + W l X^T X = (1 + l) S_n^T X

    With S_n^T S_n = U diag(a) U^T and X^T X = V diag(b) V^T it is W = U M V^T,
    M_ij = (1 + l) (U^T S_n^T X V)_ij / (a_i + l b_j). The first strength is not used, the second is
    l over trace(S_n^T S_n) / trace(X^T X).
    """

    def gather(of: Examples, embeddings: Array, among: Array):
        w = (of.weights * among[of.labels])[:, None]
        x, s = of.inputs * w, embeddings[of.labels] * w
        (a, u), (b, v) = jnp.linalg.eigh(s.T @ s), jnp.linalg.eigh(x.T @ x)
        return jnp.maximum(a, 0.0), u, jnp.maximum(b, 0.0), v, u.T @ (s.T @ x) @ v

    def begin(moments, strength: Scalar):
        del strength
        return moments[3]

    def finish(moments, strength: Scalar):
        a, u, b, _, mixed = moments
        weight = strength * a.sum() / b.sum()
        sums = a[:, None] + weight * b
        seen = sums > LEAST * sums.max()
        middle = jnp.where(seen, (1.0 + weight) * mixed / jnp.where(seen, sums, 1.0), 0.0)
        return (u @ middle).T

    return Form(gather, begin, finish, 'cosine')


def class_folds(key: Key, seen: Array, count: int, share: float) -> Array:
    """Random splits of the seen classes: those held out, [count, C] bool.

    Each holds out `share` of them, rounded, and at least two, of which to tell one.
    """
    total = seen.sum()
    most = jnp.clip(jnp.round(share * total), 2, total - 1)

    def one(key):
        order = jnp.argsort(jax.random.uniform(key, seen.shape) + jnp.where(seen, 0.0, 2.0))
        return jnp.argsort(order) < most

    return jax.vmap(one)(jax.random.split(key, count))


def per_class(scores: Array, labels: Array, weights: Array, among: Array) -> Scalar:
    """Mean over classes of the accuracy within each; of classes with any weight.

    Args:
      scores: [N, C].
      labels: [N].
      weights: [N].
      among: [C] bool; the answer is one of these.
    """
    answer = jnp.argmax(jnp.where(among, scores, -jnp.inf), axis=1)
    of_class = jax.nn.one_hot(labels, scores.shape[1]) * weights[:, None]
    right, all_of = (answer == labels) @ of_class, of_class.sum(axis=0)
    return jnp.sum(right / jnp.maximum(all_of, 1.0)) / jnp.maximum((all_of > 0).sum(), 1)


def harmonic_mean(a: Array, b: Array) -> Array:
    """2 a b / (a + b), and 0 where both are; of NumPy's arrays or JAX's."""
    return 2.0 * a * b / (a + b + (a + b == 0))


def spread(scores: Array, among: Array, weights: Array) -> Scalar:
    """The mean over examples of the standard deviation of their scores over some classes."""
    each = jnp.std(scores, axis=1, where=among)
    return each @ weights / weights.sum()


class Split(NamedTuple):
    """Which classes are held out, and which examples of the others are fitted."""

    out: Array  # [C] bool
    keep: Array  # [N] bool

    def fitted(self, of: Examples) -> Examples:
        return of._replace(weights=of.weights * self.keep * ~self.out[of.labels])

    def unseen(self, of: Examples) -> Array:
        """[N] weights of the examples of classes held out."""
        return of.weights * self.out[of.labels]

    def left(self, of: Examples, seen: Array) -> Array:
        """[N] weights of the other classes' examples that are not fitted."""
        return of.weights * ~self.keep * (seen & ~self.out)[of.labels]


def choose(
    form: Form,
    firsts: Array,
    seconds: Array,
    of: Examples,
    embeddings: Array,
    seen: Array,
    key: Key,
    *,
    folds: int,
    share: float,
) -> Choice:
    """Strengths and calibration by splits of the seen classes; then the projection with all.

    In each split, classes are held out, and a fifth of the examples of the others. The strengths
    are those of the best mean accuracy on held-out classes among themselves; of equally good ones
    the largest. The calibration is chosen by `harmonic_means`.

    Args:
      form: the closed form.
      firsts: [R1] strengths of its first step, ascending.
      seconds: [R2], of its second step.
      of: N examples.
      embeddings: [C, A].
      seen: [C] bool.
      key: of the splits.
      folds: how many splits.
      share: of the seen classes that a split holds out.
    """
    keys = jax.random.split(key)
    held = class_folds(keys[0], seen, folds, share)
    splits = Split(held, jax.random.uniform(keys[1], (folds, len(of.labels))) >= 0.2)
    # C classes span C dimensions at most: long word vectors lose nothing by going there and back.
    back = None
    if embeddings.shape[0] < embeddings.shape[1]:
        left, size, back = jnp.linalg.svd(embeddings, full_matrices=False)
        embeddings = left * size
    curve = partial(accuracies, form, firsts, seconds, of, embeddings, seen)
    accuracy = jax.lax.map(curve, splits).mean(axis=0)
    last = accuracy.size - 1 - jnp.argmax(accuracy.ravel()[::-1])
    strengths = jnp.stack([firsts[last // len(seconds)], seconds[last % len(seconds)]])
    means = partial(harmonic_means, form, strengths, of, embeddings, seen)
    harmonic = jax.lax.map(means, splits).mean(axis=0)
    projection = form.solve(of, embeddings, seen, strengths)
    rated = compatibility(of.inputs @ projection, embeddings, form.similarity)
    calibration = jnp.asarray(CALIBRATIONS)[jnp.argmax(harmonic)] * spread(rated, seen, of.weights)
    projection = projection if back is None else projection @ back
    return Choice(projection, strengths, accuracy, calibration, harmonic)


def accuracies(
    form: Form,
    firsts: Array,
    seconds: Array,
    of: Examples,
    embeddings: Array,
    seen: Array,
    split: Split,
) -> Array:
    """Accuracy on a split's held-out classes among themselves, for all strengths: [R1, R2]."""
    moments = form.gather(split.fitted(of), embeddings, seen & ~split.out)

    def first(strength):
        half = of.inputs @ form.begin(moments, strength)

        def score(second):
            scores = compatibility(half @ form.finish(moments, second), embeddings, form.similarity)
            return per_class(scores, of.labels, split.unseen(of), split.out)

        return jax.lax.map(score, seconds)

    return jax.lax.map(first, firsts)


def harmonic_means(
    form: Form, strengths: Array, of: Examples, embeddings: Array, seen: Array, split: Split
) -> Array:
    """Of the accuracies on held-out classes and on held-out examples: one a calibration, [G].

    The answer is one of all classes. A calibration (of stacking: Chao et al. 2016,
    arXiv:1605.04253) is taken off the scores of fitted classes, in units of the scores' `spread`.
    """
    among = seen & ~split.out
    projection = form.solve(split.fitted(of), embeddings, among, strengths)
    scores = compatibility(of.inputs @ projection, embeddings, form.similarity)
    unit = spread(scores, seen, of.weights)

    def one(calibration):
        moved = scores - calibration * unit * among
        answers = (
            per_class(moved, of.labels, weights, seen)
            for weights in (split.left(of, seen), split.unseen(of))
        )
        return harmonic_mean(*answers)

    return jax.lax.map(one, jnp.asarray(CALIBRATIONS))
