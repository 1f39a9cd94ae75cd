"""Which source? Candidates ranked by scores of their features on the target's training examples.

Nothing is trained and no test example is looked at. Of a study that did fine-tune every candidate,
`agreement` tells which scores would have chosen well.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich import box
from rich.table import Table
from scipy.stats import kendalltau

from tljax import backbones, choices, initial, inputs, nets, prepare, workdir
from tljax import config as configs
from tljax import predict as predicting
from tljax.evaluation.transferability import OF_FEATURES, OF_PROBABILITIES
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.types import Array, PyTree, unknown

SCORES = (*OF_FEATURES, *OF_PROBABILITIES)


class Candidate(NamedTuple):
    """A source and what it would be fine-tuned to."""

    name: str
    config: ConfigDict  # net, init.from and the target's labelled stream 'source'


def of_study(directory: Path) -> tuple[list[Candidate], dict[str, float]]:
    """The arms of a finished study that start from a source, and their mean scores there.

    Raises:
      ValueError: it is no finished study, or has no such arm.
    """
    directory = Path(directory)
    if not (directory / 'results.json').exists():
        raise ValueError(f'{directory} is not finished: it has no results.json')
    results = workdir.read_json(directory / 'results.json')
    if 'arms' not in results:
        raise ValueError(f'{directory} is a single run; expected a study of several sources')
    candidates, reached = [], {}
    for arm in results['arms']:
        config = predicting.config_of(directory / arm)
        if config.init['from']:
            scores = workdir.read_json(directory / arm / 'results.json')['scores']
            candidates.append(Candidate(arm, config))
            reached[arm] = float(np.mean(scores[results['stream']][results['metric']]))
    if not candidates:
        raise ValueError(f'{directory}: none of its arms starts from a source')
    return candidates, reached


def candidate(
    weights: str,
    dataset: str,
    *,
    net: Mapping | None = None,
    split: str = 'train',
    labels_per_class: int = 0,
    data_dir: str = '',
    root: str = '',
) -> Candidate:
    """A source and the labelled data of a target.

    Args:
      weights: a run's directory, or published weights.
      dataset: of the target.
      net: as config.net has it; None: what the weights tell.
      split: of the target, whose labels are used.
      labels_per_class: 0: all.
      data_dir: of prepared TFDS sets.
      root: a store of features; '': features are computed for this ranking only.

    Raises:
      ValueError: the weights do not tell their net, or there is no run in the directory.
    """
    c = configs.default()
    c.net = dict(net or backbones.net_of(weights))
    if not pretrained.is_published(weights):
        theirs = predicting.config_of(weights)
        c.endpoint, c.pool = theirs.endpoint, theirs.pool
    c.data.update(backbones.pixels_of(weights))
    c.features.root = root
    c.init['from'], c.data.data_dir = weights, data_dir
    c.data.streams.source = configs.stream(
        dataset, split=split, labels_per_class=labels_per_class, batch=1
    )
    return Candidate(weights, configs.checked(c))


def scores(candidate: Candidate) -> dict[str, list[float]]:
    """Every score of `transferability`, for each member's own labelled examples.

    Features are those of a run on cached features: from the store of config.features.root, if it
    names one. LEEP and NCE need the source's classifier, and are left out where there is none.

    Raises:
      ValueError: the config, its data or its weights cannot be.
    """
    config = _frozen(candidate.config)
    members = choices.members(config)
    streams = inputs.training_streams(config, members)
    ready = prepare.cached(prepare.assembled(config, members, streams, {}))
    stream, classes = ready.streams['source'], len(ready.spec.classes)
    heads = classifiers(config, members.table)
    found: dict[str, list[float]] = {}
    for number, head in enumerate(heads):
        entries = np.arange(stream.count[number])
        rows = stream.order[number, entries]
        seen = stream.image[number, entries] if stream.cached else stream.image[rows]
        for kind, table in (('features', OF_FEATURES), ('probabilities', OF_PROBABILITIES)):
            if kind == 'probabilities':
                seen = head and head(jnp.asarray(seen))
            for name, score in table.items() if seen is not None else ():
                value = score(seen, stream.source.labels[rows], classes=classes)
                found.setdefault(name, []).append(float(value))
    return found


def _frozen(config: ConfigDict) -> ConfigDict:
    """The same source and target, with the encoder as it comes and images as they are."""
    frozen = config.copy_and_resolve_references()
    frozen.update(method='supervised', trains='head', cache_prefix=True)
    frozen.options = ConfigDict()
    frozen.data.streams = {'source': frozen.data.streams.source}
    frozen.data.streams.source.augment = ''
    return frozen


def classifiers(config, members: Sequence[Mapping]) -> list[Callable[[Array], Array] | None]:
    """For each member its source's own classifier, features [N, D] -> probabilities [N, Z].

    None where there is none, as in a run of several tasks, which has a head for each, or where it
    reads another endpoint than the run that is to start from it.
    """
    start = config.init['from']
    if pretrained.is_published(start):
        found = pretrained.classifier(start, encoder(config))
        if not found or config.endpoint != 'features':
            return [None] * len(members)
        net = nets.build_head('linear', found['bias'].shape[-1])
        return [partial(_probabilities, net, {'params': found})] * len(members)
    theirs = predicting.config_of(start)
    alike = (theirs.endpoint, theirs.pool) == (config.endpoint, config.pool)
    results = workdir.read_json(Path(start) / 'results.json')
    rows = initial.counterparts(members, results['members'], start)
    params, mutable = initial.trained(Path(start))
    if 'head' not in params or results.get('tasks') or not alike:
        return [None] * len(members)
    options = theirs.head.to_dict()
    net = nets.build_head(options.pop('name'), len(results['classes']), **options)
    head = {'params': params['head'], **mutable.get('head', {})}
    return [
        partial(_probabilities, net, jax.tree.map(lambda leaf: leaf[row], head)) for row in rows
    ]


def _probabilities(net, variables: PyTree, features: Array) -> Array:
    logits = net.apply(variables, features)
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


def agreement(
    table: Mapping[str, Mapping[str, Sequence[float]]], reached: Mapping[str, float]
) -> dict[str, float]:
    """Kendall's tau-b between each score's order of the candidates and that of what they reached.

    1: the same order, -1: the opposite one. Kendall 1945, "The treatment of ties in ranking
    problems".

    Args:
      table: candidate -> score -> one number a member, of which the mean counts.
      reached: candidate -> accuracy after fine-tuning.

    Returns:
      tau of every score that all candidates have.
    """
    names = list(reached)
    actual = [reached[name] for name in names]
    common = [score for score in SCORES if all(score in table[name] for name in names)]
    return {
        score: float(kendalltau([np.mean(table[name][score]) for name in names], actual).statistic)
        for score in common
    }


def check_score(by: str) -> None:
    """Raises ValueError for a score that there is not."""
    if by not in SCORES:
        raise unknown('score', by, SCORES)


def format_table(
    table: Mapping[str, Mapping[str, Sequence[float]]],
    reached: Mapping[str, float],
    tau: Mapping[str, float],
    by: str = 'logme',
) -> Table:
    """A table for the terminal: candidates from best to worst by one score, tau in the last row.

    Raises:
      ValueError: there is no such score.
    """
    check_score(by)
    last = ('fine-tuned',) if reached else ()
    shown = Table(title=f'Sources by {by}; of all scores, higher is better', box=box.SIMPLE)
    shown.add_column('source', overflow='fold', min_width=13)
    for score in (*SCORES, *last):
        shown.add_column(score.replace('_', ' '), justify='right')
    mean = {name: {k: float(np.mean(v)) for k, v in row.items()} for name, row in table.items()}
    for name in sorted(table, key=lambda one: -mean[one].get(by, -np.inf)):
        cells = [f'{mean[name][k]:.3f}' if k in mean[name] else '-' for k in SCORES]
        shown.add_row(name, *cells, *([f'{reached[name]:.3f}'] if reached else []))
    if tau:
        shown.add_section()
        cells = [f'{tau[k]:+.2f}' if k in tau else '-' for k in SCORES]
        shown.add_row("Kendall's tau", *cells, *last and [''])
    return shown
