"""Tiny whole runs on scikit-learn's digits: configs, and launch/train.py called as a function."""

import json
from pathlib import Path

from launch import train
from tljax import config

DIGITS = 'sklearn:digits'
OLD, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)


def get_config(kind: str = 'run'):
    """For `--config tests/runs.py`."""
    return {'run': run, 'study': study, 'hosts': hosts}[kind]()


def run(**changes):
    """One run of one member; `changes` are keys such as 'data.resident_mb' or whole dicts."""
    c = config.default()
    c.name = 'tiny'
    c.net = {'name': 'mlp', 'widths': (24,), 'dense': 16, 'input': {'size': 8, 'channels': 1}}
    c.data.streams.source = config.stream(DIGITS, classes=NEW, batch=25)
    c.data.evaluate.test = config.held_out(DIGITS, classes=NEW)
    c.steps = 20
    c.evaluate_every = 10
    c.update_from_flattened_dict(changes)
    return c


def hosts():
    """Two runs, of images in memory and of decoded ones, whose batch two hosts can share."""
    c = run(steps=30, evaluate_every=10)
    c.data.streams.source.update(batch=24, augment='shift:1')
    c.sharding.parameters = 'fsdp'
    c.net.widths = (256,)
    c.selection = 'source_validation'
    c.data.evaluate.val = config.held_out(DIGITS, classes=NEW)
    c.members.seed = (0, 1)
    c.runs = {'memory': {}, 'decoded': {'data': {'resident_mb': 0}, 'steps': 6}}
    c.compare.update(baseline='memory', arms=('memory', 'decoded'))
    return c


def study(**changes):
    """The runs of a transfer study with two seeds and two label counts."""
    c = run(name='tiny_study', **changes)
    c.members.seed = (0, 1)
    c.members.labels_per_class = (5, 20)
    c.compare.also = ('test:per_class_accuracy',)
    return config.transfer_study(
        c,
        pretrain={
            'members': {'labels_per_class': ()},
            'data': {
                'streams': {'source': {'classes': OLD, 'batch': 50}},
                'evaluate': {'test': {'classes': OLD}},
            },
        },
    )


def launch(workdir: Path, *overrides: str, config: str = 'tests/runs.py') -> int:
    """The exit code of launch/train.py with overrides such as 'steps=3'."""
    flags = [f'--config.{override}' for override in overrides]
    root = Path(__file__).parents[1]
    return train.main(['train.py', f'--config={root / config}', f'--workdir={workdir}', *flags])


def lines(directory: Path) -> list[dict]:
    """metrics.jsonl without the seconds, which no two runs share."""
    found = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != 'seconds'} for line in found]


def results(directory: Path) -> dict:
    """results.json without the seconds."""
    found = json.loads((directory / 'results.json').read_text())
    return {key: value for key, value in found.items() if key != 'seconds'}
