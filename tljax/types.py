"""The vocabulary: every transfer strategy is a game between players over named parameters.

A batch, the parameters and the statistics are keyed by name, a `Player` may move the parameters
its pattern names, a `Phase` is a number of steps of some players, and a `Method` is a list of
phases and a way to predict. `tljax.train` is the one loop that plays the game.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
Array = jax.Array
Scalar = Array
Key = Array
Arrays = PyTree

Params = Mapping[str, PyTree]  # by role: {'encoder': ..., 'head': ..., 'discriminator': ...}
Mutable = Mapping[str, PyTree]  # by role: batch statistics; entries of no parameters: pools ...
Batch = Mapping[str, Mapping[str, Array]]  # by stream: {'source': {'image', 'label', 'index'}}
Inputs = Array  # images [N, H, W, C], or a cached endpoint's activations [N, ...]
Hparams = Mapping[str, Array]  # traced scalars: learning rate, loss weights ...; in a step also
# 'progress', the share of the phase's steps that are done, in [0, 1)
Metrics = Mapping[str, Scalar]

LossFn = Callable[[Params, Mutable, Batch, Hparams, Key], tuple[Scalar, tuple[Metrics, Mutable]]]
Over = Callable[[str, Callable[[Mapping[str, Array]], Arrays]], Arrays]
Hook = Callable[[Params, Mutable, Over, Hparams, Key], tuple[Params, Mutable]]
Gradient = Callable[
    [Callable[[PyTree], tuple[Array, Any]], PyTree, Key], tuple[tuple[Array, Any], PyTree]
]


def keep(params: Params, mutable: Mutable, over: Over, hp: Hparams, key: Key):
    """The hook that changes nothing."""
    del over, hp, key
    return params, mutable


def value_and_grad(loss: Callable[[PyTree], tuple[Scalar, Any]], own: PyTree, key: Key):
    """The default `Player.gradient`: `((loss, aux), d loss / d own)`."""
    del key
    return jax.value_and_grad(loss, has_aux=True)(own)


class Embeddings(NamedTuple):
    """What classes are like; columns of equal `part` are of one kind and are scaled together."""

    vectors: Array  # [C, A] float
    part: Array  # [A] int
    columns: tuple[tuple[str, ...], ...] = ()  # of each kind: its columns' names, () if it has none


class Task(NamedTuple):
    """One of several things to learn of each image; its kind says what a label is.

    'classification': int32 [N] in [0, C), -1 where absent. 'multilabel': int32 [N, C] of 0 and 1,
    -1 where absent. 'regression': float32 [N, C], NaN where absent; it is learnt in deviations
    `spread` [C] from `centre` [C], and told in the labels' own unit.
    """

    kind: str
    classes: tuple[str, ...]  # names of the C outputs
    centre: tuple[float, ...] = ()  # (): the mean of the training labels
    spread: tuple[float, ...] = ()  # (): their standard deviation

    def standard(self, label: Array) -> Array:
        """Labels or outputs [N, C] of a regression as its loss sees them."""
        return (label - jnp.array(self.centre)) / jnp.array(self.spread) if self.spread else label

    def told(self, output: Array) -> Array:
        """The inverse of `standard`; outputs of another kind as they are."""
        return output * jnp.array(self.spread) + jnp.array(self.centre) if self.spread else output


class Spec(NamedTuple):
    """What a method needs to know of the data."""

    image: tuple[int, ...]  # shape of one input: [H, W, C], or that of the cached endpoint
    classes: tuple[str, ...]  # class names in label order
    since: str | None = None  # the endpoint that inputs already are; None: they are images
    examples: Mapping[str, int] = {}  # stream -> how many, at most, a member draws from
    rows: Mapping[str, int] = {}  # stream -> the examples of its source, drawn from or not
    embeddings: Embeddings | None = None  # of the classes, for zero-shot learning
    seen: tuple[int, ...] = ()  # labels that labelled training streams have examples of
    tasks: Mapping[str, Task] = {}  # of streams whose 'label' is a mapping from task to labels


class Player(NamedTuple):
    """One side of the game.

    `gradient(loss, own, key) -> ((value, aux), gradient)` may be replaced by one that takes a loss
    of shape [T] and combines T gradients. `optimizer` receives the traced hyper-parameters.
    """

    name: str
    trains: str  # pattern over 'role/layer/kernel' paths: what this player may move
    loss: LossFn
    optimizer: Callable[[Hparams], optax.GradientTransformation]
    gradient: Gradient = value_and_grad


class Phase(NamedTuple):
    """Players who move together for a number of steps.

    Players move in turn, each seeing the moves before it, or `simultaneous`ly: all gradients are
    taken at one point (gradient reversal). The same player listed k times makes k inner steps.
    """

    name: str
    steps: int
    players: tuple[Player, ...]
    simultaneous: bool = False
    enter: Hook = keep  # values before the first step: copy 'encoder' to 'target_encoder' ...
    refresh: Hook = keep  # ... and again every `every` steps: pseudo-labels of the whole target set
    every: int = 0
    carry: bool = False  # optimizer leaves of equal path and shape go on from the last phase
    predict: Callable[[Params, Mutable, Inputs], Mapping[str, Array]] | None = None


def solve(name: str, fit: Hook) -> Phase:
    """A closed form (ridge, ESZSL, AdaBN ...): a phase without steps, all done on entering."""
    return Phase(name, 0, (), enter=fit)


class Picture(NamedTuple):
    """What a run shows of a few images of a domain: versions of each, under each other.

    `draw(params, mutable, images)` takes images [N, H, W, C] as streams hold them and returns
    [N, V, H, W, C] in [0, 1]; `caption` names the V versions in order.
    """

    domain: str  # 'source' or 'target'
    caption: str
    draw: Callable[[Params, Mutable, Inputs], Array]


class Method(NamedTuple):
    """Initial values of every role of every phase, the phases, and how to predict.

    `init(key, spec)` makes every role that any phase needs: hooks change values, never structure.
    `predict(params, mutable, inputs)` returns at least 'logits' [N, C] and 'features' [N, D].
    `outcome(params, mutable)` returns what else a run has found and should tell: numbers or arrays
    by name, such as a chosen strength and its validation curve.
    `pictures` are left by a run in its directory, under their names.
    `predict_source` is given where images of the source go another way than those of the target.
    """

    init: Callable[[Key, Spec], tuple[Params, Mutable]]
    phases: tuple[Phase, ...]
    predict: Callable[[Params, Mutable, Inputs], Mapping[str, Array]]
    outcome: Callable[[Params, Mutable], Mapping[str, Array]] | None = None
    pictures: Mapping[str, Picture] = {}
    predict_source: Callable[[Params, Mutable, Inputs], Mapping[str, Array]] | None = None


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is none of `known`: lists them and suggests the closest."""
    known = [str(one) for one in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f'; did you mean {close[0]!r}?' if close else ''
    return ValueError(f'unknown {kind} {name!r}: there are {", ".join(known) or "none"}{hint}')


def keywords(function: Callable) -> dict[str, Any]:
    """A function's parameters that have a default, with these."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def check_keywords(function: Callable, given: Iterable[str], kind: str) -> None:
    """Raises ValueError for a keyword that is none of the function's parameters with a default."""
    known = keywords(function)
    for name in given:
        if name not in known:
            raise unknown(kind, name, known)
