"""Imports flow one way: every module imports only from the layers before its own."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Modules and packages, each line from the lines above it only. Inside a package anything goes that
# is no circle.
LAYERS = (
    ('types', 'sampling', 'wording', 'console', 'board', 'signals'),
    ('config', 'hosts'),
    ('workdir',),
    ('partition', 'sharding', 'checkpoints', 'kernels', 'store', 'tuning'),
    ('losses', 'nets', 'data', 'shallow', 'optimizers', 'trunk', 'verdict', 'tables'),
    ('evaluation',),
    ('selection', 'collapse'),
    ('methods', 'train', 'report'),
    ('initial', 'program', 'inputs'),
    ('backbones', 'choices'),
    ('features',),
    ('prefix',),
    ('loop', 'prepare'),
    ('pictures', 'summary'),
    ('experiment', 'predict'),
    ('ranking',),
    ('study',),
    ('gallery', 'export'),
    ('configs', 'launch'),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

PLACES = ('tljax/**/*.py', 'configs/*.py', 'launch/*.py')
FILES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for place in PLACES
    for path in sorted(ROOT.glob(place))
}


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: import by full name, not relative'
            for alias in node.names:
                full = f'{node.module}.{alias.name}'
                found.add(full if full in FILES else node.module)
    return {name for name in found if name.split('.')[0] in ('tljax', 'configs', 'launch', 'tests')}


def unit(module: str) -> str:
    """The module or package of a layer that a module belongs to."""
    return module.removeprefix('tljax.').split('.')[0]


@pytest.mark.parametrize('module', sorted(FILES.keys() - {'tljax'}))
def test_imports_come_from_layers_before(module):
    own = unit(module)
    assert own in RANK, f'{module} has no layer yet: give it one'
    for other in imports(FILES[module]):
        theirs = unit(other)
        assert other == 'tljax' or theirs == own or RANK.get(theirs, 99) < RANK[own], other


def test_there_are_no_circles():
    graph = {module: imports(path) - {module} for module, path in FILES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_a_circle_would_be_found(tmp_path):
    """The parser sees every form of import."""
    file = tmp_path / 'module.py'
    file.write_text(
        'import tljax.train\n'
        'from tljax import loop, sharding as s\n'
        'def late():\n'
        '    from tljax.data import streams\n'
        '    from tljax.types import Phase\n'
        '    import numpy\n'
    )
    names = 'train', 'loop', 'sharding', 'data.streams', 'types'
    assert imports(file) == {f'tljax.{name}' for name in names}
