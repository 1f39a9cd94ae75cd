"""launch/predict.py --classes: classes that a zero-shot run was not trained with."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import predict
from tests import runs
from tests.data.test_zero_shot import awa
from tljax import config as configs
from tljax import experiment
from tljax.data import added, semantics, sources

TABLE = Path(__file__).parents[1] / 'configs/seven_segment.csv'
SEEN, UNSEEN = (0, 1, 3, 4, 6, 7, 9), (2, 5, 8)
HEADER, *LINES = TABLE.read_text().splitlines()
NEW = '\n'.join([HEADER, *(LINES[digit] for digit in UNSEEN)]) + '\n'


def digits(directory, embeddings=f'csv:{TABLE}', method='projection', **which):
    """A run on seven digits; `which` says whether the others are classes of it."""
    c = runs.run(method=method, trains='head', steps=30, evaluate_every=0)
    c.net = {'name': 'identity'}
    c.data.size, c.data.channels = 8, 1
    c.data.embeddings = (embeddings,) if embeddings else ()
    c.data.streams.source = configs.stream(runs.DIGITS, **which, batch=25)
    c.data.evaluate.test = configs.held_out(runs.DIGITS, **which)
    experiment.run(configs.checked(c), directory)
    return directory


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Of a run that knows seven digits."""
    return digits(tmp_path_factory.mktemp('seven') / 'run', classes=SEEN)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    top = tmp_path_factory.mktemp('images')
    source = sources.load(runs.DIGITS, 'test')
    for row in range(60):
        Image.fromarray(source.fetch(row)[..., 0]).save(top / f'{row:02d}.png')
    return top


def call(capsys, *arguments):
    capsys.readouterr()  # what training has said
    code = predict.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def probabilities(capsys, images, *arguments):
    """{class: [N]}"""
    code, out, err = call(capsys, '--format', 'json', '--top', 10, *arguments, images)
    assert code == 0, err
    rows = [{p['class']: p['probability'] for p in one['predictions']} for one in json.loads(out)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_added_classes_count_as_those_that_were_there_unseen(
    run, images, tmp_path, capsys, monkeypatch
):
    """The projection is learnt from seen classes alone: both ways give the same ten classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'new.csv').write_text(NEW)
    whole = digits(tmp_path / 'whole', only=SEEN)
    there = probabilities(capsys, images, '--run', whole)
    joined = probabilities(capsys, images, '--run', run, '--classes', 'new.csv')
    assert sorted(joined) == sorted(there) == list('0123456789')
    for name, one in there.items():
        np.testing.assert_allclose(joined[name], one, rtol=1e-4, atol=1e-6)
    assert sorted(probabilities(capsys, images, '--run', run)) == list('0134679')
    alone = probabilities(capsys, images, '--run', run, '--classes', 'new.csv', '--only_new')
    share = there['2'] / (there['2'] + there['5'] + there['8'])
    assert sorted(alone) == list('258')
    np.testing.assert_allclose(alone['2'], share, rtol=1e-3, atol=1e-6)


def test_columns_are_found_by_name(run, images, tmp_path, capsys):
    (tmp_path / 'new.csv').write_text(NEW)
    header, *rows = (line.split(',') for line in NEW.splitlines())
    order = [0, *range(len(header) - 1, 0, -1)]
    turned = [','.join(row[i] for i in order) for row in (header, *rows)]
    (tmp_path / 'turned.csv').write_text('\n'.join(turned))
    found = [
        call(capsys, '--run', run, '--classes', tmp_path / name, '--format', 'csv', images)[1]
        for name in ('new.csv', 'turned.csv')
    ]
    assert found[0] == found[1]
    assert {row['class'] for row in csv.DictReader(io.StringIO(found[0]))} & set('258')


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        (',middle', '', "has no column 'middle', which the run was trained on; there is: "),
        (
            'middle',
            'midle',
            "has no column 'middle', which the run was trained on; did you mean 'm",
        ),
        ('middle', 'middle,dot', "class '2' has 7 numbers; expected 8, one for each attribute"),
        ('5,1,0', '2,1,0', "new.csv: class '2' is there twice"),
        ('5,1,0', '3,1,0', "new.csv: the run has a class '3' already"),
        ('5,1,0', '5,big,0', "class '5' has 'big' for 'top'; expected a number"),
        ('5,1,0', '5,nan,0', "the embedding of class '5' is not finite"),
        ('5,1,0,1,1,0,1,1', '5,0,0,0,0,0,0,0', "the embedding of class '5' is all 0"),
        ('top', 'middle', "has no column 'top', which the run was trained on"),
    ],
)
def test_tables_that_cannot_be(run, images, tmp_path, capsys, old, new, message):
    text = NEW.replace(old, new, 1)
    if new == '':
        text = '\n'.join(line.rpartition(',')[0] for line in NEW.splitlines())
    (tmp_path / 'new.csv').write_text(text)
    code, out, err = call(capsys, '--run', run, '--classes', tmp_path / 'new.csv', images)
    assert (code, out) == (2, '')
    assert message in err


def test_columns_the_run_knows_nothing_of(run, images, tmp_path, capsys):
    (tmp_path / 'new.csv').write_text(NEW.replace('\n', ',1\n').replace('middle,1', 'middle,dot'))
    code, _, err = call(capsys, '--run', run, '--classes', tmp_path / 'new.csv', images)
    assert code == 2
    assert "new.csv: the run was not trained on column 'dot'; there is: top, upper right" in err


def test_runs_that_take_no_classes(images, tmp_path, capsys):
    (tmp_path / 'new.csv').write_text(NEW)
    other = digits(tmp_path / 'other', '', 'supervised', classes=SEEN)
    code, _, err = call(capsys, '--run', other, '--classes', tmp_path / 'new.csv', images)
    assert code == 2
    assert "other is no zero-shot run: method 'supervised' does not know what classes are" in err
    code, _, err = call(capsys, '--run', other, '--classes', tmp_path / 'gone.csv', images)
    assert code == 2
    code, _, err = call(capsys, '--run', other, '--only_new', images)
    assert code == 2
    assert '--only_new needs --classes' in err


def test_word_vectors_are_found_by_name(images, tmp_path, capsys):
    rows = {line.split(',')[0]: list(map(float, line.split(',')[1:])) for line in LINES}
    words = tmp_path / 'words.json'
    words.write_text(json.dumps(rows))
    run = digits(tmp_path / 'run', f'words:{words}', classes=SEEN)
    new = tmp_path / 'new.csv'
    new.write_text('class\n2\n5\n')
    assert set('25') < set(probabilities(capsys, images, '--run', run, '--classes', new))
    new.write_text('class\n2\ntwelve\n')
    code, _, err = call(capsys, '--run', run, '--classes', new, images)
    assert code == 2
    assert "words.json: has no vector for 'twelve' of class 'twelve'" in err
    words.write_text(json.dumps({name: row[:5] for name, row in rows.items()}))
    new.write_text('class\n2\n')
    code, _, err = call(capsys, '--run', run, '--classes', new, images)
    assert code == 2
    assert re.search(r'its vectors have 5 numbers, but the run was trained on 7', err)


def test_kinds_side_by_side_keep_their_order(tmp_path):
    (tmp_path / 'a.csv').write_text('class,legs,tail\nox,4,1\n')
    (tmp_path / 'w.json').write_text('{"ox": [1, 2, 3], "emu": [4, 5, 6]}')
    (tmp_path / 'new.csv').write_text('class,tail,legs\nemu,0,2\n')
    specs = (f'words:{tmp_path / "w.json"}', f'csv:{tmp_path / "a.csv"}')
    trained = semantics.load(specs, ('ox',))
    names, vectors = added.load(tmp_path / 'new.csv', specs, trained)
    assert names == ('emu',)
    np.testing.assert_array_equal(vectors, [[4, 5, 6, 2, 0]])
    with pytest.raises(ValueError, match="several attributes 'legs': no table can tell them apart"):
        twice = semantics.load((specs[1], specs[1]), ('ox',))
        added.load(tmp_path / 'new.csv', (specs[1], specs[1]), twice)


def test_runs_on_vectors_predict_no_images(images, tmp_path, capsys):
    awa(tmp_path)
    run = tmp_path / 'run'
    c = runs.run(steps=1, evaluate_every=0, trains='head')
    c.net, c.data.wrap = {'name': 'identity'}, True
    c.data.streams.source.update(dataset=f'awa:{tmp_path}', split='trainval', classes=())
    c.data.evaluate.test.update(dataset=f'awa:{tmp_path}', split='test_seen', classes=())
    experiment.run(configs.checked(c), run)
    code, _, err = call(capsys, '--run', run, images)
    assert code == 2
    assert 'was trained on vectors of 5 numbers; images are predicted by a run that' in err
