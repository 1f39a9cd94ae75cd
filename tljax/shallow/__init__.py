"""Closed forms and probes on feature arrays.

`PROBES` names them all; `select.choose` picks a strength for each of several seeds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tljax.shallow import linear, logistic, minibatch, neighbours, ridge, svm
from tljax.types import unknown


class Probe(NamedTuple):
    """A shallow classifier, solved for R strengths at once."""

    fit: Callable  # (features, labels, strengths, weights, *, classes, **options) -> model
    logits: Callable  # (model, features) -> [R, N, C]
    pick: Callable = linear.pick  # (model, index) -> the model of that strength alone
    check: Callable = linear.check  # as fit, but only raises; weights may be [S, N]


PROBES: Mapping[str, Probe] = {
    'ridge': Probe(ridge.fit, linear.logits),
    'logistic': Probe(logistic.fit, linear.logits),
    'minibatch_logistic': Probe(minibatch.fit, linear.logits),
    'svm': Probe(svm.fit, linear.logits),
    'neighbours': Probe(neighbours.fit, neighbours.logits, neighbours.pick, neighbours.check),
    'nearest_mean': Probe(neighbours.nearest_mean, linear.logits),
}


def probe(name: str) -> Probe:
    """The probe of that name.

    Raises:
      ValueError: if there is none, listing those there are.
    """
    if name not in PROBES:
        raise unknown('probe', name, PROBES)
    return PROBES[name]
