"""Training that has collapsed, told from what the run recorded."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

_DISCRIMINATOR = re.compile(r'(?:.*/)?(\w*discriminator\w*)/accuracy')  # whoever trains it
CHANCE = 0.5  # of telling two domains apart, or images from translations
NEAR = 0.02  # this close to it is at chance
PERFECT = 0.99
MEANING = {
    'at chance': 'either it cannot tell the two apart any more, or it has stopped learning',
    'all but perfect': 'what it sees of the two has come apart, and it teaches them little',
}


def warnings(lines: Sequence[Mapping], members: Sequence[Mapping]) -> list[str]:
    """A sentence for each discriminator that was at chance, or right throughout, for long.

    For long is the last half of the evaluations of a phase, of two or more; what is looked at is
    the mean accuracy in training since the evaluation before.

    Args:
      lines: of metrics.jsonl.
      members: of the run, as results.json has them.
    """
    found = []
    for phase, name, late in _late_lines(lines):
        curve = np.array([line['train'][name] for line in late], float)  # [T, M]
        states = {'at chance': abs(curve - CHANCE) <= NEAR, 'all but perfect': curve >= PERFECT}
        for state, hit in states.items():
            if (always := hit.all(axis=0)).any():
                found.append(
                    f'the {_DISCRIMINATOR.fullmatch(name)[1]} of phase {phase!r} was {state} '
                    f'({_range(curve[:, always])}) in the last half of the evaluations, steps '
                    f'{late[0]["step"]} to {late[-1]["step"]}{_which(members, always)}: '
                    f'{MEANING[state]}'
                )
    return found


def _late_lines(lines: Sequence[Mapping]) -> Iterator[tuple[str, str, list[Mapping]]]:
    """Phase, metric and the last half of the phase's lines, for each discriminator in it."""
    for phase in dict.fromkeys(line['phase'] for line in lines):
        own = [line for line in lines if line['phase'] == phase]
        if len(own) > 1:
            for name in filter(_DISCRIMINATOR.fullmatch, own[-1]['train']):
                yield phase, name, own[len(own) // 2 :]


def _range(values: np.ndarray) -> str:
    low, high = (f'{100 * value:.1f}' for value in (values.min(), values.max()))
    return f'{low} %' if low == high else f'{low} to {high} %'


def _which(members: Sequence[Mapping], hit: np.ndarray) -> str:
    if len(members) == 1:
        return ''
    named = [
        ', '.join(f'{axis} {value:g}' for axis, value in member.items())
        for member, one in zip(members, hit, strict=True)
        if one
    ]
    return f', in {len(named)} of {len(members)} members ({"; ".join(named)})'
