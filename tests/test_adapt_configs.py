"""configs/adapt.py and configs/adapt_pretrained.py: what their arguments make of a pair of sets."""

import pytest

from configs import adapt
from tests.data import toys
from tests.test_configs import shrink
from tljax import config as configs
from tljax import experiment


def augments(c, method: str) -> set[str]:
    """Of all training streams of a method and its twins."""
    streams = (c.data.streams.source, c.runs[method].data.streams.target)
    return {stream.augment for stream in (*streams, c.runs.oracle.data.streams.source)}


def test_only_who_asks_for_it_has_images_mirrored():
    for pair in ('tfds:svhn_cropped,tfds:mnist', 'folder:mnist,folder:usps'):
        assert not any('flip' in one for one in augments(adapt.get_config(f'dann,{pair}'), 'dann'))
    mirrored = adapt.get_config('dann,folder:a,folder:b,full,flip')
    assert mirrored.steps == adapt.FULL
    assert augments(mirrored, 'dann') == {'flip|shift:3'}
    with pytest.raises(ValueError, match='each once or not'):
        adapt.get_config('dann,folder:a,folder:b,only=1,only=2')


def test_svhn_and_mnist_are_digits_of_one_form(tmp_path):
    for builder in (toys.SvhnCropped, toys.Mnist):
        toys.prepared(builder, tmp_path)
    c = configs.checked(adapt.get_config('dann,tfds:svhn_cropped,tfds:mnist'))
    c = configs.merged(c, c.runs.dann)
    shrink(c)
    c.data.data_dir, c.block = str(tmp_path), 20
    found = experiment.run(c, tmp_path / 'run')
    assert found['image'] == [32, 32, 3]
    assert 'tfds:mnist (test), all 40 examples' in found['protocol']
