"""What results.json tells of a run: its scores, and everything needed to say what they are of."""

import os
import platform
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from tljax import collapse, loop, selection
from tljax.data.streams import Stream
from tljax.evaluation import unseen
from tljax.prepare import Prepared
from tljax.types import Method


def brief(scores: Mapping) -> dict:
    """What of the scores goes into a line of metrics: all but the confusion matrices."""
    return {
        stream: {k: v for k, v in found.items() if k not in ('confusion', 'count')}
        for stream, found in scores.items()
    }


def describe(
    prepared: Prepared, fitted: loop.Fitted, scores: Mapping, lines: Sequence[Mapping], command: str
) -> dict:
    """results.json: final numbers, with everything needed to say what they are of."""
    config, members, tasks = prepared.config, prepared.members.table, prepared.spec.tasks
    like = prepared.spec.embeddings
    return {
        'name': config.name,
        'description': config.description,
        'method': config.method,
        'sets': sets(prepared),
        'protocol': protocol(prepared),
        'command': command,
        'members': list(members),
        'image': list(prepared.spec.image),
        'classes': list(prepared.spec.classes),
        **({'tasks': {n: t._asdict() for n, t in tasks.items()}} if tasks else {}),
        **({'embeddings': like.columns} if like else {}),
        'selection': config.selection,
        'step': np.asarray(fitted.step).tolist(),
        'scores': scores,
        'selections': selection.chosen(lines, len(members)),
        'warnings': collapse.warnings(lines, members),
        **outcome(prepared.method, fitted),
        'parameters': prepared.table,
        'environment': {
            'jax': jax.__version__,
            'python': platform.python_version(),
            'device': jax.devices()[0].device_kind,
            'devices': prepared.options.mesh.size,
            'cores': _cores(),
        },
    }


def _cores() -> int:
    """Those this process may run on; not every system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def outcome(method: Method, fitted: loop.Fitted) -> dict[str, dict]:
    """As 'outcome' what the method tells besides its scores: by name, a list over members."""
    if method.outcome is None:
        return {}
    found = jax.vmap(method.outcome)(fitted.params, fitted.mutable)
    return {'outcome': jax.tree.map(lambda x: np.asarray(x).tolist(), dict(found))}


def sets(prepared: Prepared) -> str:
    """'full' where whole splits are trained and tested on, else 'sampled'."""
    data = prepared.config.data
    parts = [*data.streams.values(), *(one for n, one in data.evaluate.items() if n == 'test')]
    cut = any('[' in part.split or part.sample for part in parts)
    few = any((s.count < len(s.source.labels)).any() for s in prepared.streams.values())
    return 'sampled' if cut or few else 'full'


def protocol(prepared: Prepared) -> str:
    """One sentence: trained on what, tested on what, selected how."""
    parts = {n: f'{s.source.name}, {_span(s.count)} examples' for n, s in prepared.streams.items()}
    trained = ', '.join(f'{name}: {part}' for name, part in parts.items())
    if len(parts) == 1:  # whose name tells nothing, and in a transfer from a run not the truth
        (trained,) = parts.values()
    held = ', '.join(_held(name, stream) for name, stream in prepared.held.items())
    select = prepared.config.selection
    words = 'last step' if select == selection.LAST else selection.SELECTORS[select].words
    return f'Trained on {trained}. Evaluated on {held}. Reported: {words}.'


def _held(name: str, stream: Stream) -> str:
    amount = f'all {len(stream.source.labels)} examples'
    if stream.protocol:
        amount = f'{unseen.words(stream.protocol)} of {len(stream.source.labels)} examples'
    labels = '' if stream.labelled else ' without labels'
    return f'{name}: {stream.source.name}, {amount}{labels}'


def _span(count: np.ndarray) -> str:
    low, high = int(count.min()), int(count.max())
    return str(low) if low == high else f'{low} to {high}'
