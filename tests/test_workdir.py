"""Whose a run directory is, and how its files are written."""

import shutil

import pytest

from tests import runs
from tljax import workdir


def test_workdir_that_is_not_ours(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.tex').write_text('')
    for place in ('run', 'study'):
        config = f'tests/runs.py:{place}'
        assert runs.launch(tmp_path / 'file' / 'below', config=config) == 2
        text = capsys.readouterr().err
        assert f'workdir {tmp_path}/file/below' in text
        assert ' cannot be written (Not a directory); choose another --workdir' in text
        assert runs.launch(tmp_path / 'other', config=config) == 2
        assert 'other holds thesis.tex, of which this config knows' in capsys.readouterr().err
    assert [p.name for p in (tmp_path / 'other').iterdir()] == ['thesis.tex']


def test_workdir_of_another_config(tiny_study, tmp_path, capsys):
    kind = {'config': 'tests/runs.py:study'}
    shutil.copytree(tiny_study, tmp_path / 'study')
    assert runs.launch(tmp_path / 'study', **kind) == 0  # a study may move
    assert runs.launch(tmp_path / 'study' / 'scratch', 'steps=5') == 2
    text = capsys.readouterr().err
    assert 'scratch belongs to a run of another config; choose another --workdir, or' in text
    assert '\n  steps: 20 there, 5 now' in text
    assert runs.launch(tmp_path / 'study') == 2
    assert 'study belongs to a run of another config' in capsys.readouterr().err
    assert runs.launch(tmp_path / 'study' / 'scratch', **kind) == 2
    assert 'scratch belongs to a single run' in capsys.readouterr().err
    assert runs.launch(tmp_path / 'study', 'runs.pretrain.steps=5', **kind) == 2
    assert 'study/pretrain belongs to a run of another config' in capsys.readouterr().err
    # What started from a run of another config is of another config, too.
    shutil.rmtree(tmp_path / 'study' / 'pretrain')
    assert runs.launch(tmp_path / 'study', 'runs.pretrain.steps=5', **kind) == 2
    text = capsys.readouterr().err
    assert 'study/frozen belongs to a run of another config' in text
    assert '\n  start.steps: 20 there, 5 now' in text


def test_a_run_of_an_older_version_goes_on(tmp_path):
    c = runs.run()
    older = c.to_dict() | {'title': 'of old'}
    del older['hparams']['label_smoothing'], older['data']['streams']['source']['draw']
    del older['data']['evaluate']['test']['among'], older['cache_prefix']
    workdir.claim(tmp_path, older | {'start': older})
    workdir.check(tmp_path, c.to_dict() | {'start': c.to_dict()})
    c.data.streams.source.draw = 'pairs:4'
    c.hparams.label_smoothing = 0.1
    with pytest.raises(ValueError, match='of another config') as error:
        workdir.check(tmp_path, c.to_dict() | {'start': older})
    assert str(error.value).splitlines()[1:] == [
        "  data.streams.source.draw: 'absent' there, 'pairs:4' now",
        "  hparams.label_smoothing: 'absent' there, 0.1 now",
    ]


def test_results_are_json_even_where_numbers_are_not_finite(tmp_path):
    workdir.write_json(tmp_path / 'a.json', {'loss': [float('nan'), 1.5, float('inf')]})
    assert '"loss": [\n  null,\n  1.5,\n  null' in (tmp_path / 'a.json').read_text()


def test_metrics_are_cut_back_to_a_number_of_lines(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    # Two phases may end at one step, so that the step would not tell which lines are saved.
    path.write_text('{"step": 4, "phase": "a"}\n{"step": 4, "phase": "b"}\n{"step": 6, "ph')
    file = workdir.MetricsFile(path, 3)
    file.append({'step': 6, 'phase': 'c'})
    assert [line['phase'] for line in runs.lines(tmp_path)] == ['a', 'b', 'c']
    workdir.MetricsFile(path, 1)
    assert [line['phase'] for line in runs.lines(tmp_path)] == ['a']
