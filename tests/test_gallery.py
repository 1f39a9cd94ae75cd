"""Enrolling new classes by images, with a tiny run on digits 0-4 and images of 5-9."""

import csv
import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from launch import predict
from tests import runs
from tljax import config, gallery, study
from tljax import predict as models
from tljax.data import sources


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    c = runs.run(method='prototypical', steps=60, evaluate_every=0)
    c.optimizer.name, c.hparams.rate = 'adam', 1e-3
    c.data.streams.source.update(classes=runs.OLD, draw='episode:5x1x5')
    new = {'classes': runs.NEW}
    c.data.evaluate.test = config.held_out(runs.DIGITS, **new, protocol='episode:5x1x5:50')
    c.data.evaluate.pairs = config.held_out(runs.DIGITS, **new, protocol='pairs:200')
    directory = tmp_path_factory.mktemp('one_shot') / 'run'
    study.run(config.checked(c), directory)
    return directory


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """enrol/CLASS/0.png and ask/CLASS_k.png of the digits 5 to 9."""
    top = tmp_path_factory.mktemp('digits')
    source = sources.load(runs.DIGITS, 'test', classes=runs.NEW)
    for label, name in enumerate(source.classes):
        for k, row in enumerate(np.flatnonzero(source.labels == label)[:5]):
            path = top / (f'enrol/{name}/{k}.png' if k == 0 else f'ask/{name}_{k}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.fetch(row)[..., 0]).save(path)
    return top


def call(capsys, *arguments):
    code = predict.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_scores_and_threshold_of_the_run(run):
    scores = runs.results(run)['scores']
    assert scores['test']['accuracy'][0] > 0.4, 'chance is 0.2'
    assert scores['pairs']['auc'][0] > 0.6
    assert models.load(run).threshold == scores['pairs']['validated_threshold'][0]
    assert 0.5 < scores['pairs']['validated_accuracy'][0] <= 1


def test_the_threshold_of_runs_without_validation_classes(run, tmp_path):
    shutil.copytree(run, tmp_path / 'run')
    results = runs.results(run)
    pairs = results['scores']['pairs']
    del pairs['validated_threshold'], pairs['validated_accuracy']
    (tmp_path / 'run/results.json').write_text(json.dumps(results))
    assert models.load(tmp_path / 'run').threshold == pairs['threshold'][0]


def test_enrolled_images_are_found_again(run, folder, capsys, tmp_path):
    saved, far = tmp_path / 'digits.npz', ('--threshold', 1e9)  # nothing is unknown
    options = ('--run', run, '--gallery', folder / 'enrol', '--save_gallery', saved)
    code, out, _ = call(capsys, *options, '--format', 'csv', folder / 'enrol')
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row['class'] for row in rows] == list('56789')
    assert max(float(row['distance']) for row in rows) < 1e-3
    code, again, _ = call(
        capsys, '--run', run, '--gallery', saved, *far, '--format', 'csv', folder / 'ask'
    )
    rows = list(csv.DictReader(io.StringIO(again)))
    assert code == 0
    source = sources.load(runs.DIGITS, 'test', classes=runs.NEW)
    images = np.stack([source.fetch(row) for row in range(len(source.labels))])
    features = models.load(run).features(images)
    first = [np.flatnonzero(source.labels == label)[0] for label in range(5)]
    asked = [np.flatnonzero(source.labels == label)[k] for label in range(5) for k in range(1, 5)]
    apart = np.linalg.norm(features[asked][:, None] - features[first], axis=-1)
    assert [row['class'] for row in rows] == [str(5 + k) for k in apart.argmin(1)]
    np.testing.assert_allclose([float(row['distance']) for row in rows], apart.min(1), 1e-3)
    with np.load(saved) as arrays:
        assert arrays['names'].tolist() == list('56789')


def test_a_gallery_is_saved_extended_and_listed_without_images(run, folder, capsys, tmp_path):
    saved, both = tmp_path / 'one.npz', tmp_path / 'both.npz'
    options = ('--run', run, '--gallery')
    code, out, _ = call(capsys, *options, folder / 'enrol', '--save_gallery', saved)
    assert code == 0
    assert out.split() == ['class', 'images', *(cell for name in '56789' for cell in (name, '1'))]
    more = tmp_path / 'more'
    for path, name in (('5_1', '5/a'), ('5_2', '5/b'), ('6_1', 'six/a')):
        (more / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f'ask/{path}.png', more / f'{name}.png')
    extend = (saved, '--gallery', more, '--save_gallery', both)
    counts = {'5': 3, '6': 1, '7': 1, '8': 1, '9': 1, 'six': 1}
    for arguments in (extend, (both,)):
        code, out, _ = call(capsys, *options, *arguments, '--format', 'json')
        assert code == 0
        assert {row['class']: row['images'] for row in json.loads(out)} == counts
    for arguments in ((), ('--verify',), ('--verify', '--gallery', saved)):
        code, _, err = call(capsys, '--run', run, *arguments)
        assert (code, err.startswith('error: name an image; only a --gallery')) == (2, True)


def test_unknown_beyond_lambda(run, folder, capsys):
    options = ('--run', run, '--gallery', folder / 'enrol', '--format', 'csv')
    _, out, _ = call(capsys, *options, '--threshold', 1e-9, folder / 'ask')
    assert {row['class'] for row in csv.DictReader(io.StringIO(out))} == {'unknown'}


def test_verify(run, folder, capsys):
    one = folder / 'enrol/5/0.png'
    code, out, _ = call(capsys, '--run', run, '--verify', one, folder / 'ask/5_1.png')
    assert code == 0
    assert 'lambda' in out
    other = folder / 'ask/7_1.png'
    options = ('--run', run, '--verify')
    assert call(capsys, *options, '--threshold', 1e9, one, other)[1].startswith('same')
    assert call(capsys, *options, '--threshold', 0, one, other)[1].startswith('different')
    code, _, err = call(capsys, *options, one)
    assert (code, 'needs two images' in err) == (2, True)


def test_galleries_are_extended_and_checked(run, folder, tmp_path):
    model = models.load(run)
    one = gallery.enrol(model, folder / 'enrol')
    both = gallery.extended(one, gallery.enrol(model, folder / 'ask'))
    assert len(both.classes) == 25
    again = gallery.extended(one, one)
    np.testing.assert_allclose(again.means, one.means, 1e-6)
    gallery.save(one, tmp_path / 'a.npz')
    whole = (tmp_path / 'a.npz').read_bytes()
    for damaged in (b'no', whole[:-40], whole[: len(whole) // 2]):
        (tmp_path / 'b.npz').write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.npz: can't be read as a gallery"):
            gallery.load(tmp_path / 'b.npz', model)
    for wrong in (one.features[:-1], one.features * np.nan):
        gallery.save(one._replace(features=wrong), tmp_path / 'c.npz')
        with pytest.raises(ValueError, match=r"c\.npz: can't be read as a gallery .*enrol again"):
            gallery.load(tmp_path / 'c.npz', model)
    with pytest.raises(ValueError, match=r'saved as \.npz'):
        gallery.save(one, tmp_path / 'a.txt')
    image = next((folder / 'ask').rglob('*.png'))
    with pytest.raises(ValueError, match=r'\.png: is no folder of images, nor a gallery'):
        gallery.open_(model, image)


def test_a_gallery_is_of_weights_and_not_of_a_place(run, folder, tmp_path, monkeypatch):
    model, saved = models.load(run), tmp_path / 'a.npz'
    one = gallery.enrol(model, folder / 'enrol')
    gallery.save(one, saved)
    shutil.copytree(run, tmp_path / 'moved')
    moved = models.load(tmp_path / 'moved')
    assert gallery.load(saved, moved).run == moved.title
    assert len(gallery.extended(one, gallery.enrol(moved, folder / 'ask')).classes) == 25
    trained = models.initial.trained
    add = lambda path: jax.tree.map(lambda x: x + 1, trained(path))
    monkeypatch.setattr(models.initial, 'trained', add)
    for other in (model._replace(inverted=True), models.load(run)):
        with pytest.raises(
            ValueError, match=r'a\.npz: is a gallery of .* weights, images or --inv'
        ):
            gallery.load(saved, other)
        with pytest.raises(ValueError, match='galleries of different runs'):
            gallery.extended(one, gallery.enrol(other, folder / 'ask'))


def test_a_kill_while_saving_keeps_what_was_there(run, folder, tmp_path, monkeypatch):
    one = gallery.enrol(models.load(run), folder / 'enrol')
    gallery.save(one, tmp_path / 'a.npz')
    before = (tmp_path / 'a.npz').read_bytes()

    def killed(file, **arrays):
        file.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery.np, 'savez', killed)
    with pytest.raises(KeyboardInterrupt):
        gallery.save(one, tmp_path / 'a.npz')
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']
    assert (tmp_path / 'a.npz').read_bytes() == before


def test_bad_queries_are_named_and_the_others_found(run, folder, tmp_path, capsys):
    (tmp_path / 'a.png').write_text('no image')
    options = ('--run', run, '--gallery', folder / 'enrol', '--format', 'csv')
    code, out, err = call(capsys, *options, tmp_path, folder / 'ask/5_1.png')
    assert code == 3
    assert [row['image'] for row in csv.DictReader(io.StringIO(out))] == [
        str(folder / 'ask/5_1.png')
    ]
    assert f'error: {tmp_path}/a.png: is no image that Pillow can read' in err
    assert err.endswith('error: 1 of 2 images could not be read\n')
    code, out, _ = call(capsys, *options, tmp_path)
    assert (code, out) == (3, 'image,class,distance\n')


def test_where_a_gallery_is_kept_is_known_to_be_possible_first(
    run, folder, tmp_path, capsys, monkeypatch
):
    image = folder / 'ask/5_1.png'
    options = ('--run', run, '--gallery', folder / 'enrol')
    assert call(capsys, *options, '--save_gallery', tmp_path / 'new/p.npz', image)[0] == 0
    assert (tmp_path / 'new/p.npz').is_file()
    monkeypatch.setattr(gallery, 'enrol', None)
    (tmp_path / 'file').write_text('')
    code, _, err = call(capsys, *options, '--save_gallery', tmp_path / 'file/p.npz', image)
    assert code == 2
    assert 'file/p.npz cannot be written (' in err
    for other in ((), ('--verify', '--gallery', folder / 'enrol')):
        save = ('--save_gallery', tmp_path / 'p.npz')
        code, _, err = call(capsys, '--run', run, *other, *save, image, image)
        assert (code, err) == (2, 'error: --save_gallery needs --gallery FOLDER, and no --verify\n')


@pytest.mark.parametrize('metric', ['euclidean', 'manhattan'])
def test_search_is_exact(metric, monkeypatch):
    monkeypatch.setattr(gallery, '_BLOCK', 100)
    random = np.random.RandomState(0)
    means, asked = random.randn(9, 4), random.randn(30, 4)
    names = tuple(map(str, range(9)))
    found = gallery.search(gallery.Gallery(means, names, metric, ''), asked, 2)
    for x, nearest in zip(asked, found, strict=True):
        order = 2 if metric == 'euclidean' else 1
        apart = np.linalg.norm(means - x, order, axis=1)
        assert [name for name, _ in nearest] == [str(k) for k in np.argsort(apart)[:2]]
        np.testing.assert_allclose([d for _, d in nearest], np.sort(apart)[:2])
