"""Who moves what: patterns over parameter paths, splitting a tree, and lending of statistics.

Freezing here is a partition of the parameters, not a mask on the updates: a loss is differentiated
with respect to a player's own leaves only, so no gradient, no optimizer state and no backward pass
exists for what is frozen.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from flax.traverse_util import flatten_dict, unflatten_dict

from tljax.types import Mutable, Params, PyTree

LIVE, KEPT = 'batch_stats', 'kept_stats'


def paths(tree: PyTree) -> list[str]:
    """All leaf paths of nested dicts, as 'role/layer/kernel'."""
    return list(flatten_dict(tree, sep='/'))


def flat(tree: PyTree) -> dict[str, PyTree]:
    """{'role/layer/kernel': leaf}, empty nodes kept; `nested` undoes it."""
    return flatten_dict(tree, sep='/', keep_empty_nodes=True)


def nested(leaves: Mapping[str, PyTree]) -> PyTree:
    return unflatten_dict(leaves, sep='/')


def module_path(path: str) -> str:
    """A leaf's path as patterns see it: without the collection, if it is one of statistics."""
    return '/'.join(part for part in path.split('/') if part not in (LIVE, KEPT))


def _regex(glob: str) -> re.Pattern:
    parts = re.split(r'((?<![^/])\*\*/|\*\*|\*|\?)', glob.strip('/'))
    wild = {'**/': '(.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]'}
    # A pattern that names a module means everything below it.
    return re.compile(''.join(wild.get(p, re.escape(p)) for p in parts) + '(/.*)?')


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern, as `select` reads it, names a path; matching nothing is no error here."""
    named = False
    for part in _alternatives(pattern):
        if _regex(part.lstrip('!')).fullmatch(path):
            named = not part.startswith('!')
    return named


def _alternatives(pattern: str) -> list[str]:
    return [part for part in (p.strip() for p in pattern.split('|')) if part]


def select(tree: PyTree, pattern: str) -> frozenset[str]:
    """The leaf paths that a pattern names.

    A pattern is alternatives joined by '|'. Each is a path or the beginning of one, at whole
    segments: 'encoder' means all below it. '*' stands for anything inside one segment, '**' for
    any number of segments, '?' for one character, and '!' in front takes away what the
    alternatives before it named: 'encoder|head|!encoder/stem|!**/bias'. The empty pattern names
    nothing.

    Raises:
      ValueError: an alternative matches nothing, and the message lists the nearest paths; or all
        that was named is taken away again.
    """
    leaves, parts = paths(tree), _alternatives(pattern)
    for part in parts:
        if not any(matches(leaf, part.lstrip('!')) for leaf in leaves):
            raise ValueError(_nothing(part, pattern, leaves))
    chosen = frozenset(leaf for leaf in leaves if matches(leaf, pattern))
    if parts and not chosen:
        raise ValueError(
            f"pattern {pattern!r}: nothing is left, for '!' only takes away from what is named "
            "before it, as in '**|!head'"
        )
    return chosen


def _nothing(part: str, pattern: str, leaves: list[str]) -> str:
    prefixes = {'/'.join(leaf.split('/')[:i]) for leaf in leaves for i in range(1, 9)}
    name = part.lstrip('!')
    near = difflib.get_close_matches(name, sorted(prefixes), n=5, cutoff=0.4)
    inside = f' (in {pattern!r})' if part != pattern else ''
    known = ', '.join(near or sorted({leaf.split('/')[0] for leaf in leaves}))
    return f'pattern {part!r}{inside} matches no parameter; nearest: {known}'


def split(tree: PyTree, chosen: Iterable[str]) -> tuple[PyTree, PyTree]:
    """Nested dicts `(own, rest)`: the leaves at the chosen paths, and all others."""
    chosen = frozenset(chosen)
    leaves = flat(tree)
    own = {path: leaf for path, leaf in leaves.items() if path in chosen}
    rest = {path: leaf for path, leaf in leaves.items() if path not in chosen}
    return nested(own), nested(rest)


def merge(own: PyTree, rest: PyTree) -> PyTree:
    """The inverse of `split`."""
    return nested(flat(rest) | flat(own))


def trained_modules(params: Params, mutable: Mutable, chosen: Iterable[str]) -> frozenset[str]:
    """Modules with statistics, as 'role/stage1/norm', that somebody who moves `chosen` trains.

    A norm is trained if one of its own parameters is; one without parameters (no scale, no bias;
    dropout) goes with the nearest module around it that has some.
    """
    leaves, chosen = paths(params), frozenset(chosen)
    trained = set()
    for module in _stat_modules(mutable):
        home = module
        while not (under := [leaf for leaf in leaves if leaf.startswith(home + '/')]):
            if '/' not in home:
                break
            home = home.rpartition('/')[0]
        if chosen.intersection(under):
            trained.add(module)
    return frozenset(trained)


def _stat_modules(mutable: Mutable) -> set[str]:
    modules = set()
    for role, collections in mutable.items():
        if isinstance(collections, Mapping):
            for path in paths(collections.get(LIVE, {})):
                modules.add(f'{role}/{path}'.rpartition('/')[0])
    return modules


def lend(mutable: Mutable, live: Iterable[str]) -> Mutable:
    """Moves the statistics of all modules but the `live` ones to the collection 'kept_stats'.

    Where the statistics lie is the flag: a norm or a dropout that finds its own in 'batch_stats'
    is live (batch statistics, random masks), one that finds them in 'kept_stats' acts as in
    evaluation. `give_back` undoes it.
    """
    live = frozenset(live)
    lent = dict(mutable)
    for role, collections in mutable.items():
        if not isinstance(collections, Mapping) or LIVE not in collections:
            continue
        leaves = flat(collections[LIVE])
        homes = {path: f'{role}/{path}'.rpartition('/')[0] in live for path in leaves}
        rest = {name: value for name, value in collections.items() if name != LIVE}
        for name, wanted in ((LIVE, True), (KEPT, False)):
            part = {path: leaf for path, leaf in leaves.items() if homes[path] is wanted}
            if part:
                rest[name] = nested(part)
        lent[role] = rest
    return lent


def give_back(lent: Mutable, before: Mutable, owned: Iterable[str]) -> Mutable:
    """The inverse of `lend` after a player's loss: only what it trains has new statistics.

    Args:
      lent: the mutable state that the loss returned, as lent.
      before: the state before the loss, not lent; gives the statistics of everybody else.
      owned: the modules that this player trains.
    """
    owned = frozenset(owned)
    result = dict(lent)
    for role, collections in before.items():
        if not isinstance(collections, Mapping) or LIVE not in collections:
            continue
        after = lent[role]
        fresh = flat(after.get(LIVE, {}))
        old = flat(collections[LIVE])
        merged = {
            path: fresh.get(path, leaf) if f'{role}/{path}'.rpartition('/')[0] in owned else leaf
            for path, leaf in old.items()
        }
        rest = {name: value for name, value in after.items() if name not in (LIVE, KEPT)}
        result[role] = rest | {LIVE: nested(merged)}
    return result
