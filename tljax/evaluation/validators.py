"""Validators: how good a model is on the target, told without the target's labels.

Each is a function of what the model predicts on held out examples; higher is better.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from tljax.shallow import linear, logistic

STRENGTHS = (1e-2, 1e-1, 1.0)  # of the domain classifier's ridge, for each fitted example


def negative_entropy(logits: np.ndarray) -> float:
    """-1/N sum_i H(p_i), in nats: how sure the classifier is of the target's examples.

    H(p) = -sum_c p_c log p_c, p_i the softmax of row i. A classifier that calls everything one
    class is perfectly sure.

    Args:
      logits: [N, C] float.
    """
    return -float(_entropy(_probabilities(logits)).mean())


def information_maximisation(logits: np.ndarray) -> float:
    """H(1/N sum_i p_i) - 1/N sum_i H(p_i), in nats: sure of each example, of many classes in all.

    The mutual information of examples and predicted classes: Krause et al. 2010, "Discriminative
    clustering by regularized information maximization". The first term favours classes of equal
    size.

    Args:
      logits: [N, C] float.
    """
    p = _probabilities(logits)
    return float(_entropy(p.mean(axis=0)) - _entropy(p).mean())


def soft_neighbourhood_density(
    logits: np.ndarray, temperature: float = 0.05, block: int = 500
) -> float:
    """1/N sum_i H(P_i): how many neighbours an example has, of Saito et al. 2021.

    With f_i the softmax of row i divided by its Euclidean length and S_ij = f_i . f_j, P_i is the
    softmax of S_ij / temperature over all j but i itself, and H its entropy in nats.

    Reference: "Tune it the right way: unsupervised validation of domain adaptation via soft
    neighborhood density", arXiv:2108.10860.

    Args:
      logits: [N, C] float, N of 2 or more.
      temperature: of the softmax over neighbours.
      block: rows of S that are computed at once.
    """
    p = _probabilities(logits)
    f = p / np.linalg.norm(p, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, len(f), block):
        near = f[start : start + block] @ f.T / temperature
        rows = np.arange(len(near))
        near[rows, start + rows] = -np.inf
        total += _entropy(special.softmax(near, axis=1)).sum()
    return float(total / len(f))


def deep_embedded_validation(loss: np.ndarray, source: np.ndarray, target: np.ndarray) -> float:
    """Minus the target's risk, estimated on held out source examples: You et al. 2019, DEV.

    With the density ratios w_i = p_target(x_i) / p_source(x_i) of `density_ratio` and l_i the loss
    of example i, the risk is importance weighted and has a control variate:

        R = mean(w l) + eta mean(w) - eta,    eta = -Cov(w l, w) / Var(w)

    Where all w are equal there is nothing to control, and eta is 0.

    Reference: "Towards accurate model selection in deep unsupervised domain adaptation", ICML 2019.

    Args:
      loss: [N] float, the classifier's loss on examples of the source that it was not trained on.
      source: [N, D] float, features of these examples.
      target: [M, D] float, features of unlabelled examples of the target.
    """
    return -controlled_risk(loss, density_ratio(source, target))


def controlled_risk(loss: np.ndarray, weight: np.ndarray) -> float:
    """R of `deep_embedded_validation`, of losses [N] and density ratios [N]."""
    weighted = np.asarray(weight, np.float64) * loss
    variance = np.var(weight, ddof=1)
    eta = -np.cov(weighted, weight)[0, 1] / variance if variance > 0 else 0.0
    return float(weighted.mean() + eta * np.mean(weight) - eta)


def density_ratio(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """p_target / p_source at the rows of `source`, by a classifier that tells the domains apart.

    w(x) = n_source / n_target * J(target | x) / J(source | x), with J a logistic regression on
    standardised features and n the number of examples that it is fitted on. Each half of both
    domains is judged by the classifier of the other half, so that no example is judged by one that
    it has trained; the ridge strength is that of the lowest cross entropy on what is judged.

    Args:
      source: [N, D] float, N of 2 or more.
      target: [M, D] float, M of 2 or more.

    Returns:
      [N] float64, of 0 or more.
    """
    x = np.concatenate([source, target]).astype(np.float64)
    scale = x.std(axis=0)
    x = ((x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0)).astype(np.float32)
    domain = np.repeat([0, 1], [len(source), len(target)])
    half = np.concatenate([np.arange(len(source)), np.arange(len(target))]) % 2
    fitted = np.stack([half == 1, half == 0])  # by the classifier that judges the half 0, 1
    strengths = np.float32(STRENGTHS) * np.float32(len(x) / 2)
    logits = np.asarray(_domain_logits(x, domain, strengths, fitted.astype(np.float32)))
    logits = np.where(half[:, None] == 0, *logits)  # [R, N + M, 2]
    likelihood = special.log_softmax(logits, axis=-1)[:, np.arange(len(x)), domain]
    best = logits[likelihood.mean(axis=1).argmax()]
    counts = fitted.astype(int) @ np.eye(2, dtype=int)[domain]  # [half, domain]
    prior = np.log(counts[:, 0] / counts[:, 1])[half]
    return np.exp(prior + best[:, 1] - best[:, 0])[: len(source)]


def _domain_logits(x, domain, strengths, weights):
    """Of both classifiers, [2, R, N, 2]; side by side, for they share the features' basis."""
    fit = partial(logistic.fit, x, domain, strengths, classes=2)
    return jax.vmap(lambda one: linear.logits(fit(one), jnp.asarray(x)))(weights)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return special.softmax(np.asarray(logits, np.float64), axis=-1)


def _entropy(p: np.ndarray) -> np.ndarray:
    return special.entr(p).sum(axis=-1)
