"""A run's trained network as weights that other programs read."""

from pathlib import Path
from typing import NamedTuple

import jax

from tljax import backbones, initial, partition
from tljax import predict as predicting
from tljax.methods.networks import encoder
from tljax.nets import pretrained


class Exported(NamedTuple):
    """What of a run a file holds."""

    roles: tuple[str, ...]
    left: tuple[str, ...]  # roles that the run has beside these


def to_file(run: Path, out: Path, member: int | None = None) -> Exported:
    """Writes a member's encoder and, where the run has them, its classifier and auxiliary heads.

    Names and orders are those of `pretrained.export`: the layout in which weights of the net are
    published, or the net's own names, if they are published nowhere. A classifier that is not
    linear, or reads another endpoint than 'features', is left out; layers behind that endpoint are
    not there.

    Args:
      run: directory of a finished run.
      out: the file to write; ends in .safetensors.
      member: its number in results.json; None: the only one.

    Raises:
      ValueError: the run is not finished, has several members and none is chosen, or no encoder of
        its net; or the file is there already or cannot be.
    """
    run, out = Path(run), Path(out)
    results, config = predicting.results_of(run), predicting.config_of(run)
    members = results['members']
    if member is None and len(members) > 1:
        axes = ', '.join(members[0])
        raise ValueError(
            f'{run} has the members 0..{len(members) - 1}, which differ in {axes}: choose one by '
            '--member, as results.json numbers them'
        )
    if out.exists() or not out.absolute().parent.is_dir():
        is_so = 'is there already' if out.exists() else 'cannot be: there is no such folder'
        raise ValueError(f'--out {out} {is_so}; choose another file')
    row, net = member or 0, encoder(config)
    until = {'until': (config.endpoint,), 'member': row}
    own = backbones.values(str(run), net, tuple(results['image']), **until)
    params, mutable = {'encoder': own.pop('params', {})}, {'encoder': own}
    if not partition.paths(params):
        raise ValueError(f'--run {run}: its net, {config.net.name}, has no layers to export')
    theirs, stats = initial.trained(run)
    roles = ['head'] if _is_classifier(theirs.get('head', {}), config, results) else []
    roles += [role for role in getattr(net, 'auxiliary', {}) if role in theirs]
    for whole, part in ((theirs, params), (stats, mutable)):
        part |= {role: jax.tree.map(lambda x: x[row], whole.get(role, {})) for role in roles}
    pretrained.export(out, net, params, mutable)
    return Exported(tuple(params), tuple(sorted(set(theirs) - set(params))))


def _is_classifier(head, config, results) -> bool:
    """Whether a head is what its source has: linear, from the features to the classes."""
    several = results.get('tasks') or results.get('embeddings')
    plain = config.head.name == 'linear' and config.endpoint == 'features' and not several
    return plain and set(head) == {'kernel', 'bias'} and head['bias'].ndim == 2
