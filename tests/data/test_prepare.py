import importlib.util
import json
from pathlib import Path

import pytest

from launch import prepare
from tests.data import toys
from tljax.data import sources

no_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is not None, reason='says what happens without it'
)


def test_prepared_once_then_read_without_tensorflow(tmp_path, capsys):
    assert prepare.main(['toy_colours', '--data_dir', str(tmp_path)]) == 0
    assert f'ready in {tmp_path}/toy_colours/1.0.0' in capsys.readouterr().out
    source = sources.load('tfds:toy_colours', data_dir=str(tmp_path))
    assert len(source.labels) == 12
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()}
    assert prepare.prepare('toy_colours', str(tmp_path)) == tmp_path / 'toy_colours' / '1.0.0'
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()}


def test_download_directory_is_one_for_each_set(tmp_path):
    for name in ('toy_colours', 'toy_captions'):
        prepare.prepare(name, str(tmp_path))
        assert (tmp_path / 'downloads' / name).is_dir()


@no_tensorflow
def test_missing_extra_is_named_before_anything_is_downloaded(tmp_path, capsys):
    assert prepare.main(['mnist', '--data_dir', str(tmp_path)]) == 1
    assert "pip install -e '.[prepare]'" in capsys.readouterr().err
    assert not (tmp_path / 'downloads').exists()


@no_tensorflow
def test_own_builder_that_needs_tensorflow(tmp_path):
    with pytest.raises(RuntimeError, match=r"toy_tensorflow needs TensorFlow: pip install -e '"):
        prepare.prepare('toy_tensorflow', str(tmp_path))


def test_unknown_name_has_near_misses(tmp_path):
    with pytest.raises(RuntimeError, match=r"no data set 'toy_colors'; did you mean toy_colours"):
        prepare.prepare('toy_colors', str(tmp_path))


def test_network_failure_says_how_to_go_on_without(tmp_path, capsys):
    assert prepare.main(['toy_online', '--data_dir', str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert 'no route to host files.example' in error
    assert '--manual_dir' in error


def test_missing_manual_dir(tmp_path):
    with pytest.raises(RuntimeError, match='nowhere: there is no such folder'):
        prepare.prepare('toy_colours', str(tmp_path), manual_dir=str(tmp_path / 'nowhere'))


def test_manual_dir_lacks_files(tmp_path):
    info = type('Info', (), {'filename': 'train.gz'})
    builder = type('Builder', (), {'url_infos': {'http://files.example/train.gz': info}})
    assert 'train.gz' in prepare._missing(builder, str(tmp_path))[0]
    (tmp_path / 'train.gz').touch()
    assert not prepare._missing(builder, str(tmp_path))


def test_other_file_format_is_told_by_both(tmp_path):
    folder = prepare.prepare('toy_colours', str(tmp_path))
    info = folder / 'dataset_info.json'
    content = json.loads(info.read_text())
    content['fileFormat'] = 'tfrecord'
    info.write_text(json.dumps(content))
    with pytest.raises(RuntimeError, match=r'holds toy_colours as tfrecord; .* another --data_dir'):
        prepare.prepare('toy_colours', str(tmp_path))
    with pytest.raises(ValueError, match='is prepared as tfrecord, which needs TensorFlow') as told:
        sources.load('tfds:toy_colours', data_dir=str(tmp_path))
    assert 'python launch/prepare.py toy_colours --data_dir OTHER' in str(told.value)


def test_toys_are_registered():
    assert toys.ToyColours.name == 'toy_colours'
    assert Path(prepare.__file__).name == 'prepare.py'
