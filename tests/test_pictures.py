"""What a run shows of itself: grids of images, features in the plane, and both in its report."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests import runs, toys
from tests.test_methods import config_for
from tljax import experiment, pictures, report
from tljax.config import held_out
from tljax.types import Method, Phase, Picture


def test_a_grid_puts_versions_under_each_other():
    """Three images of one pixel in two versions, in one row of three columns."""
    images = np.zeros((3, 2, 1, 1, 1))
    images[:, 0, 0, 0, 0] = 0.0, 0.2, 0.4
    images[:, 1, 0, 0, 0] = 0.6, 0.8, 2.0
    found = pictures.grid(images)
    side = pictures.SIDE + 2  # with a white border
    assert found.shape == (2 * side, 3 * side, 3) and found.dtype == np.uint8
    for version, row in enumerate(((0, 51, 102), (153, 204, 255))):
        for column, value in enumerate(row):
            cell = found[version * side : (version + 1) * side, column * side : (column + 1) * side]
            assert (cell[1:-1, 1:-1] == value).all()
            assert (cell[0] == 255).all()


def test_a_long_grid_goes_on_below():
    images = np.random.RandomState(0).rand(12, 3, 8, 8, 3)
    found = pictures.grid(images)
    height, width = 3 * (56 + 2), 10 * (56 + 2)
    assert found.shape == (2 * height + 2 * 7, width, 3)
    below = found[height + 14 :]
    pixel = np.rint(255 * images[11, 2, 4, 5])
    np.testing.assert_array_equal(below[2 * 58 + 1 + 4 * 7, 58 + 1 + 5 * 7], pixel)
    assert (below[:, 2 * 58 :] == 255).all(), 'where there is no image it is white'


@pytest.mark.parametrize('fed', [False, True])
def test_a_sample_is_spread_evenly_over_what_the_first_member_draws_from(fed):
    stream = toys.stream(of=toys.source(30), fed=fed)
    images, labels = pictures.sample(stream, 4)
    rows = [0, 10, 19, 29]
    np.testing.assert_array_equal(labels, stream.source.labels[rows])
    np.testing.assert_array_equal(images, [stream.source.fetch(row) for row in rows])
    few = stream._replace(count=np.array([3], np.int32))
    assert pictures.sample(few, 10)[1].tolist() == stream.source.labels[:3].tolist()


def test_a_picture_says_where_its_images_are_from(tmp_path):
    invert = Picture('target', 'Dark and light.', lambda p, m, x: jnp.stack([x, 1 - x], 1) / p['a'])
    stream = toys.stream(of=toys.source(3))._replace(image=np.ones((3, 4, 4, 1), np.float32))
    pictures.write_picture(tmp_path / 'twice', invert, ({'a': 2.0}, {}), stream)
    found = np.asarray(Image.open(tmp_path / 'twice.png'))
    assert (found[1:57, 1:57] == 128).all() and (found[59:115, 1:57] == 0).all()
    note = (tmp_path / 'twice.txt').read_text()
    assert note == 'Dark and light. From toy, evenly spaced; first member.'


def test_t_sne_keeps_groups_together_and_survives_a_collapse():
    random = np.random.RandomState(0)
    groups = np.arange(60) % 3
    place = pictures.t_sne((10 * np.eye(3)[groups] + random.randn(60, 3)).astype(np.float32))
    distance = np.linalg.norm(place[:, None] - place, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (groups[distance.argmin(1)] == groups).all()
    assert np.isfinite(pictures.t_sne(np.ones((12, 5), np.float32))).all()


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    """A finished run of DRCN, which evaluates on both domains."""
    config = config_for('drcn')
    config.data.evaluate.val = held_out(runs.DIGITS, classes=runs.NEW, split='train[:40]')
    path = tmp_path_factory.mktemp('runs') / 'drcn'
    experiment.run(config, path)
    report.write(path)
    return path


def test_a_run_with_two_domains_leaves_pictures_and_features(directory):
    names = {file.name for file in (directory / 'figures').iterdir()}
    expected = [
        f'reconstruction_{name}.{end}' for name in ('source', 'target') for end in ('png', 'txt')
    ]
    assert names == {*expected, 'features.npz'}
    assert 'train[:40]' in (directory / 'figures/reconstruction_source.txt').read_text()
    found = np.load(directory / 'figures/features.npz')
    count = len(found['label'])
    assert found['place'].shape == (count, 2) and np.isfinite(found['place']).all()
    counts = runs.results(directory)['scores']
    assert (~found['target']).sum() == counts['val']['count']
    assert found['target'].sum() == counts['test']['count'] < pictures.POINTS
    assert set(found['label']) == set(range(5))


def test_each_domain_goes_its_own_way(tmp_path, monkeypatch):
    """As in ADDA, whose source encoder is another than the target's."""
    way = lambda factor: lambda params, mutable, images: {'features': factor * images}
    method = Method(None, (Phase('only', 1, ()),), way(1.0), predict_source=way(2.0))
    monkeypatch.setattr(pictures, 'sample', lambda stream, count: (np.ones((3, 2)), np.arange(3)))
    monkeypatch.setattr(pictures, 't_sne', lambda features: features)
    prepared, stream = SimpleNamespace(method=method), SimpleNamespace(labelled=True)
    domains = {'source': stream, 'target': stream}
    pictures.write_features(tmp_path / 'x.npz', prepared, ({}, {}), domains)
    found = np.load(tmp_path / 'x.npz')
    np.testing.assert_array_equal(found['place'][:, 0], [2, 2, 2, 1, 1, 1])


def test_the_report_shows_them(directory):
    html = (directory / 'report.html').read_text()
    assert 'Where features lie' in html
    assert html.count('data:image/png;base64,') == 2
    assert 'Images of the target and their reconstructions' in html
    assert 'aria-label="Features of tiny in the plane, by class and domain."' in html


def test_a_run_with_one_domain_leaves_none(tiny_study):
    assert not list(tiny_study.glob('*/figures'))
    assert 'Where features lie' not in (tiny_study / 'report.html').read_text()
