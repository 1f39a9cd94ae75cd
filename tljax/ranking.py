"""Which source? Candidates ranked by scores of their features on the target's training examples.

Nothing is trained and no test example is looked at. Of a study that did fine-tune every candidate,
`agreement` tells which scores would have chosen well.
"""

from collections.abc import Mapping, Sequence
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

from tljax import config as configs
from tljax import initial, nets, prepare, train, workdir
from tljax import predict as predicting
from tljax.data import streams as data
from tljax.evaluation import transferability
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.nets.apply import apply
from tljax.types import unknown

SCORES = (*transferability.OF_FEATURES, *transferability.OF_PROBABILITIES)


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
) -> Candidate:
    """A source and the labelled data of a target.

    Args:
      weights: a run's directory, or published weights.
      dataset: of the target.
      net: config.net of published weights; a run knows its own.
      split: of the target, whose labels are used.
      labels_per_class: 0: all.
      data_dir: of prepared TFDS sets.

    Raises:
      ValueError: published weights without a net, or no run in the directory.
    """
    c = configs.default()
    if pretrained.is_published(weights):
        if net is None:
            raise ValueError(f'{weights}: say which net the weights are of, as in config.net')
        c.net = dict(net)
    else:
        c.net = predicting.config_of(weights).net.to_dict()
    c.init['from'], c.data.data_dir = weights, data_dir
    c.data.streams.source = configs.stream(
        dataset, split=split, labels_per_class=labels_per_class, batch=1
    )
    return Candidate(weights, configs.checked(c))


def scores(candidate: Candidate) -> dict[str, list[float]]:
    """Every score of `transferability`, for each member's own labelled examples.

    LEEP and NCE need the source's classifier, and are left out where there is none.

    Raises:
      ValueError: the config, its data or its weights cannot be.
    """
    config = candidate.config
    members = prepare.members_of(config)
    stream = prepare.training_streams(config, members)['source']
    spec = prepare.spec_of({'source': stream}, {})
    method = prepare.build_method(config, spec)
    values = initial.values(method, spec, members, config)
    heads = classifiers(config, members.table)
    net = encoder(config)

    def look(values, batch):
        params, mutable, head = values
        images = net.input.normalise(batch['image'])
        features, _ = apply(net, 'encoder', params, mutable, images)
        flat = features.reshape(len(features), -1).astype(jnp.float32)
        return {'features': flat} | ({} if head is None else {'probabilities': head(features)})

    lift = partial(train.lift, members=len(members.table), how='map')
    seen = data.over_blocks(look, stream, lift, config.block)((*values, heads))
    tables = {
        'features': transferability.OF_FEATURES,
        'probabilities': transferability.OF_PROBABILITIES,
    }
    found: dict[str, list[float]] = {}
    for kind, table in tables.items():
        for row, count, order in zip(seen.get(kind, ()), stream.count, stream.order, strict=False):
            labels = stream.source.labels[order[:count]]
            for name, score in table.items():
                value = score(row[:count], labels, classes=len(spec.classes))
                found.setdefault(name, []).append(float(value))
    return found


def classifiers(config, members: Sequence[Mapping]):
    """The source's own classifier as a function of features, with the member axis in front.

    Returns:
      a pytree that can be called, `features [N, ...] -> probabilities [N, Z]`, or None.
    """
    start = config.init['from']
    if pretrained.is_published(start):
        found = pretrained.classifier(start, encoder(config))
        head = found and {name: np.stack([leaf] * len(members)) for name, leaf in found.items()}
        return head and _Head(nets.build_head('linear', head['bias'].shape[-1]), head)
    theirs, run = predicting.config_of(start), Path(start)
    results = workdir.read_json(run / 'results.json')
    rows = initial.counterparts(members, results['members'], start)
    head = initial.trained(run)[0].get('head')
    if head is None:
        return None
    options = theirs.head.to_dict()
    net = nets.build_head(options.pop('name'), len(results['classes']), **options)
    return _Head(net, jax.tree.map(lambda leaf: leaf[np.asarray(rows)], head))


@jax.tree_util.register_pytree_node_class
class _Head:
    """A head with its parameters, which may be mapped over members."""

    def __init__(self, net, params):
        self.net, self.params = net, params

    def __call__(self, features):
        logits = self.net.apply({'params': self.params}, features)
        return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)

    def tree_flatten(self):
        return (self.params,), self.net

    @classmethod
    def tree_unflatten(cls, net, children):
        return cls(net, *children)


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
    if by not in SCORES:
        raise unknown('score', by, SCORES)
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
