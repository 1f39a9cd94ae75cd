"""Bad input ends with exit code 2 and a message that helps, and leaves nothing in the way."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from launch import train
from tests import runs
from tests.data import toys
from tljax import study
from tljax.checkpoints import Checkpoints

SOURCE = 'data.streams.source.'


@pytest.fixture
def refused(tmp_path, capsys):
    """`refused(*overrides)` launches what has to be refused, and returns the message."""

    def launch(*overrides, **options):
        assert runs.launch(tmp_path / 'run', *overrides, **options) == 2
        message = capsys.readouterr().err
        assert 'Traceback' not in message
        before, _, text = message.partition('(TLJAX_TRACEBACK=1 shows where)\nerror: ')
        assert text
        assert 'error' not in before
        assert list((tmp_path / 'run').glob('[!.]*')) == []  # a corrected config may come here
        return text

    return launch


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('stepz=3', "unknown key of config 'stepz': there are block, cache_prefix, data,"),
        (
            'hparams.ratee=1',
            "of config.hparams 'ratee': there are calibration, label_smoothing, margin",
        ),
        (SOURCE + 'bach=8', "of config.data.streams.source 'bach': .*; did you mean 'batch'?"),
        ('nothing.rate=1', "the config has no 'nothing'; tljax/config.py has every key"),
        ('steps=many', "flag --config.steps=many: invalid literal for int.* 'many'"),
        ('steps=-1', 'steps is -1; expected 0 or more'),
        ('block=0', 'block is 0; expected 1 or more'),
        (SOURCE + 'batch=0', r'data\.streams\.source\.batch is 0; expected 1 or more'),
        ('method=supervized', "unknown method 'supervized': .*; did you mean 'supervised'?"),
        ('net.name=lenett', "unknown backbone 'lenett': .*; did you mean 'lenet'?"),
        ('net.width=3', "unknown option of backbone 'mlp' 'width': .* widths; did you mean"),
        ('net.input.sizes=3', "unknown key of net.input 'sizes': .*; did you mean 'size'?"),
        ('head.name=cosin', "unknown head 'cosin': .*; did you mean 'cosine'?"),
        ('net={}', "^unknown backbone '': there are "),
        ('net.dense=-3', r'net: MLP cannot be made for images \[8, 8, 1\]: '),
        (
            'net.input.mean=(0.1, 0.2)',
            '^net.input: mean and std need one number, or one a channel: Inp',
        ),
        ('net.input.mean=0.5', r"^net=.* cannot be made: object of type 'float' has no len"),
        ('net={"name": "vit", "blocks": "x"}', "^net=.*'blocks': 'x'.* cannot be made: "),
        ('options.auxiliary=x', "options.auxiliary is 'x'; expected a number, 0 or more"),
        (SOURCE + 'augment=shift:inf', 'augment crop: expected a whole number of pixels, not inf'),
        (SOURCE + 'labelled=False', "data.streams: expected a labelled stream 'source'"),
        ('head={"name": "linear", "classes": 3}', 'head.classes: the data tell the number of cl'),
        ('selection=best', "unknown selection 'best': there are last, source_validation, entropy"),
        ('selection=source_validation', r'selection=source_validation needs data\.evaluate\.val'),
        ('lifting=pmap', "unknown lifting 'pmap': there are auto, vmap, map; did you mean"),
        ('sharding.parameters=zero', "unknown sharding.parameters 'zero': there are replicated"),
        ('sharding.devices=-1', 'sharding.devices is -1; expected 0 or more'),
        ('sharding.devices=99', r'devices=99 asked for, but there are \d+ \(cpu\)'),
        ('optimizer.name=sdg', "unknown optimizer 'sdg': .*; did you mean 'sgd'?"),
        ('optimizer.schedule=cosin', "unknown schedule 'cosin': .*; did you mean 'cosine'?"),
        ('members.sed=(0, 1)', "key of config.members 'sed': .*; did you mean 'seed'?"),
        ('members.seed=(0, 0)', r'members.seed=\(0, 0\): expected different whole numbers'),
        ('members.seed=(0, -1)', r'members.seed=\(0, -1\): expected different whole numbers in 0'),
        ('members.rate=("x",)', r"members.rate=\('x',\): expected different numbers"),
        ('hparams.momentum=1.5', 'hparams.momentum is 1.5; expected 0 or more and under 1'),
        ('members.rate=(0.1, -0.1)', 'hparams.rate is -0.1; expected 0 or more$'),
        ('seed=-1', r'members.seed=\(-1,\): expected different whole numbers in 0'),
        ('trains=heads', "pattern 'heads' matches no parameter; nearest: head, head/bias"),
        ('trains=head|encodr/hidden1', r"'encodr/hidden1' \(in .*\) matches no parameter; nearest"),
        ('optimizer.rates={"encodr": 0.1}', "pattern 'encodr' matches no parameter; nearest: enc"),
        ('optimizer.rates={"head": -1}', r"optimizer.rates\['head'\] is -1; expected 0 or more"),
        (SOURCE + 'dataset=sklern:digits', "stream 'source': can't read data set 'sklern:digits'"),
        (SOURCE + 'dataset=sklearn:digit', "no data set sklearn:digit; did you mean 'digits'?"),
        (SOURCE + 'split=trian', "stream 'source': there is no split 'trian'; there are: train"),
        (SOURCE + 'split=train[:5', r"can't read split 'train\[:5'"),
        (SOURCE + 'classes=(5, 11)', 'there is no class 11; they are 0..9'),
        (SOURCE + 'classes=(0, 1)', "streams 'source' .* and 'test' .* differ in classes"),
        (SOURCE + 'augment=flop', 'flop'),
        (SOURCE + 'labels_per_class=999', "999 labels per class asked, but class '.' has only"),
        (SOURCE + 'labels_per_class=2', 'a batch of 25 is larger than the 10 examples of sklearn'),
        ('options.depth=3', "unknown option of method 'supervised' 'depth': there are auxiliary"),
        ('init.from=runs/nowhere', 'init.from=runs/nowhere: no run directory with checkpoints'),
        ('cache_prefix=True', "the first stage of the encoder, 'hidden1', is trained"),
    ],
)
def test_config_that_cannot_be(refused, override, message):
    assert matches(refused(override), message)


def matches(text, pattern):
    """Whether a message has the pattern; shows both where not."""
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)
    return True


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('c.stepz = 3', "unknown key of config 'stepz': there are .*did you mean 'steps'?"),
        ("c.steps = 'x'", r'own\.py, line 4: TypeError: Could not override field .steps.'),
        ('c.nothing.at.all = 3', r'own\.py, line 4: AttributeError'),
        ('c.steps = ', r'own\.py, line 4: SyntaxError: invalid syntax'),
        ('import nothing', r"own\.py, line 4: ModuleNotFoundError: No module named 'nothing'"),
        ("config.stream('a', bach=3)", r"own\.py, line 4: .*'bach'"),
        ("c.runs.one = {'stepz': 1}", "key of config.runs.one 'stepz': .*did you mean 'steps'?"),
    ],
)
def test_config_file_that_cannot_be(refused, tmp_path, change, message):
    head = 'from tljax import config\ndef get_config():\n    c = config.default()\n'
    (tmp_path / 'own.py').write_text(f'{head}    {change}\n    return c\n')
    assert matches(refused(config=str(tmp_path / 'own.py')), message)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--workdir=x'], '--config is missing; see python launch/train.py --help'),
        (['--config=tests/runs.py'], '--workdir is missing'),
        (['--config=nowhere.py', '--workdir=x'], '--config nowhere.py: there is no such file'),
        (['--config=tests/runs.py', '--workdri=x'], "Unknown command line flag 'workdri'. Did you"),
        (['--config=tests/runs.py', '--workdir=x', 'more'], 'unexpected arguments: more'),
    ],
)
def test_command_line_that_cannot_be(monkeypatch, request, capsys, arguments, message):
    monkeypatch.chdir(request.config.rootpath)
    assert train.main(['train.py', *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('compare.baseline=scrach', "No arm is named 'scrach'. Did you mean 'scratch'?"),
        ('compare.arms=("scratch", "tuned")', "unknown arm in compare.arms 'tuned': there are"),
        (
            'compare.arms=()',
            'compare.arms is empty: name the runs to compare (--config.compare.arms=',
        ),
        ('sharding.devices=2', 'devices=2 asked for, but there are 1'),
        ('compare.stream=tset', "was not evaluated on 'tset'. Did you mean 'test'?"),
        ('compare.also=("tset",)', "unknown stream in compare.also of scratch 'tset'"),
        ('compare.metric=acuracy', "has no 'acuracy' on 'test'. Did you mean 'accuracy' or"),
        ('runs.frozen.members={"seed": (7,)}', "Arm 'frozen' and baseline 'scratch' have no memb"),
        ('runs.pretrain.init={"from": "frozen"}', 'runs go by each other: '),
        ('runs.frozen.method=supervized', "unknown method 'supervized'"),
    ],
)
def test_study_that_could_not_be_compared_is_not_begun(refused, override, message, monkeypatch):
    monkeypatch.setattr(study.experiment, 'run', None)
    assert message in refused(override, config='tests/runs.py:study')


def test_finite_numbers_end_with_the_step_and_the_last_checkpoint(tmp_path, capsys):
    blow_up = ('optimizer.schedule=step', 'optimizer.boundaries=(10,)', 'optimizer.factor=1e30')
    overrides = (*blow_up, 'save_every=5', 'evaluate_every=0')
    for _ in range(2):  # again, from the checkpoint
        assert runs.launch(tmp_path, *overrides) == 1
        text = capsys.readouterr().err
        assert "error: the loss of player 'model' is not finite at step 11; the last ch" in text
        assert 'Traceback' not in text
        assert newest(tmp_path)['step'] == 10
    for file in (tmp_path / 'checkpoints' / '2' / 'model').rglob('*'):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert runs.launch(tmp_path, *overrides) == 2
    text = capsys.readouterr().err
    assert f'error: checkpoint {tmp_path}/checkpoints/2 cannot be read (' in text
    assert text.endswith('delete that folder to go on from the checkpoint before it\n')
    shutil.rmtree(tmp_path / 'checkpoints' / '2')
    assert runs.launch(tmp_path, *overrides) == 1
    shown = capsys.readouterr()
    assert 'tiny: going on from step 5' in shown.out
    assert 'not finite at step 11' in shown.err


def newest(directory):
    checkpoints = Checkpoints(directory / 'checkpoints')
    meta = checkpoints.latest()
    checkpoints.close()
    return meta


def test_one_member_that_is_not_finite_is_named(tmp_path, capsys):
    assert runs.launch(tmp_path, 'members.rate=(0.01, 1e30)', 'save_every=1') == 1
    text = capsys.readouterr().err
    assert "is not finite at step 1 in member 1 of 2 ({'seed': 0, 'rate': 1e+30})" in text


@pytest.fixture
def images(tmp_path):
    """A folder of two classes with some images of uncommon kinds, and what makes it a run."""
    random = np.random.RandomState(0)
    for name in ('cat', 'dog'):
        folder = tmp_path / 'images' / name
        folder.mkdir(parents=True)
        for number in range(10):
            array = random.randint(0, 256, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(array).save(folder / f'{number}.jpg')
        Image.fromarray(array[..., 0].astype(np.uint16) * 257).save(folder / 'deep.png')
        Image.fromarray(array).convert('CMYK').save(folder / 'cmyk.jpg')
    spec = f'folder:{tmp_path / "images"}'
    stream = {'dataset': spec, 'split': 'train', 'classes': ()}
    return tmp_path / 'images', (
        f'data.streams.source={stream | {"batch": 4}}',
        f'data.evaluate.test={stream}',
        'steps=2',
    )


def test_folder_with_uncommon_images_runs(images, tmp_path):
    assert runs.launch(tmp_path / 'run', *images[1]) == 0
    assert runs.results(tmp_path / 'run')['classes'] == ['cat', 'dog']


def test_folder_that_cannot_be(images, refused, tmp_path):
    folder, overrides = images
    shutil.move(folder, tmp_path / 'elsewhere')
    assert f'{folder}: there is no such folder; expected one with a' in refused(*overrides)
    shutil.move(tmp_path / 'elsewhere', folder)
    (folder / 'cow').mkdir()
    assert f'{folder}/cow: holds no image files; fill the class folder or' in refused(*overrides)
    (folder / 'cow').rmdir()
    for number in range(10):
        (folder / 'dog' / f'{number}.jpg').write_text('no image')
    assert 'jpg: is no image that Pillow can read' in refused(*overrides)
    for number in range(10):
        short = (folder / 'cat' / f'{number}.jpg').read_bytes()[:-200]
        (folder / 'dog' / f'{number}.jpg').write_bytes(short)
    assert 'jpg: is truncated or damaged' in refused(*overrides)
    for number in range(10):
        shutil.copy(folder / 'cat' / f'{number}.jpg', folder / 'dog')
    assert runs.launch(tmp_path / 'run', *overrides) == 0


def test_bad_image_of_a_fed_stream_stops_the_run_and_may_be_restored(images, tmp_path, capsys):
    folder, overrides = images
    overrides = (*overrides, 'data.resident_mb=0', 'steps=12', 'evaluate_every=2')
    spoilt = sorted((folder / 'dog').glob('*.jpg'))[5:8]
    kept = [path.read_bytes() for path in spoilt]
    for path in spoilt:
        path.write_text('no image')
    assert runs.launch(tmp_path / 'run', *overrides) == 2
    text = capsys.readouterr().err
    assert 'jpg: is no image that Pillow can read' in text
    assert 'Traceback' not in text
    for path, data in zip(spoilt, kept, strict=True):
        path.write_bytes(data)
    assert runs.launch(tmp_path / 'run', *overrides) == 0


def test_labels_out_of_range(refused, tmp_path):
    images = np.zeros((6, 8, 8), np.uint8)
    labels, classes = np.array([0, 1, 0, 1, 2, 1]), np.array(['a', 'b'])
    np.savez(tmp_path / 'a.npz', image=images, label=labels, classes=classes)
    text = refused(f'data.streams.source.dataset=npz:{tmp_path}/a.npz')
    assert 'a.npz: row 4 has the label 2; labels must be in 0..1, as it has 2 classes' in text


def test_tfds_set_that_is_no_image_classification(refused, tmp_path):
    toys.ToyCaptions(data_dir=str(tmp_path), file_format='array_record').download_and_prepare()
    text = refused('data.streams.source.dataset=tfds:toy_captions', f'data.data_dir={tmp_path}')
    assert 'tfds:toy_captions is not an image-classification set: expected an Image and a' in text
    text = refused('data.streams.source.dataset=tfds:toy_caption', f'data.data_dir={tmp_path}')
    assert 'tfds:toy_caption is not prepared in ' in text


def test_what_a_library_raises_is_not_taken_for_bad_input(monkeypatch, tmp_path):
    monkeypatch.setattr(study, 'run', lambda *_: np.zeros(3).reshape(2))
    with pytest.raises(ValueError, match='cannot reshape array'):
        runs.launch(tmp_path)


def test_traceback_is_there_for_the_asking(monkeypatch, tmp_path):
    monkeypatch.setenv('TLJAX_TRACEBACK', '1')
    with pytest.raises(ValueError, match='unknown method'):
        runs.launch(tmp_path, 'method=none')


@pytest.fixture
def environment(tmp_path, request):
    """`environment(script)` sets up a .venv with a Python that is that script."""

    def launch(script):
        (tmp_path / 'python3').write_text(f'#!/bin/sh\n{script}\n')
        (tmp_path / 'python3').chmod(0o755)
        places = {'PYTHON': str(tmp_path / 'python3'), 'TLJAX_VENV': str(tmp_path / 'venv')}
        command = 'set -eu; source launch/environment.sh; environment -r requirements.txt'
        return subprocess.run(
            ['bash', '-c', command],
            cwd=request.config.rootpath,
            env=os.environ | places,
            capture_output=True,
            text=True,
        )

    return launch


# What `python3 -m venv --clear` leaves: a Python without pip and a failure, or neither.
HALF = """set -eu
[ "$*" = "-m venv --clear $TLJAX_VENV" ]
rm -rf "$TLJAX_VENV"
mkdir -p "$TLJAX_VENV/bin"
touch "$TLJAX_VENV/pyvenv.cfg"
printf '#!/bin/sh\\nexit {0}\\n' > "$TLJAX_VENV/bin/python"
chmod +x "$TLJAX_VENV/bin/python"
exit {0}"""


def test_environment_that_was_made_by_half_is_made_anew(environment, tmp_path):
    failed = environment(HALF.format(1))
    assert failed.returncode == 1
    assert 'apt install python3-venv' in failed.stderr
    assert os.access(tmp_path / 'venv/bin/python', os.X_OK)
    assert environment(HALF.format(0)).returncode == 0
    assert list((tmp_path / 'venv').glob('installed-*'))
    again = environment('exit 1')
    assert (again.returncode, again.stdout) == (0, '')


def test_folder_that_is_no_environment_is_left_alone(environment, tmp_path):
    (tmp_path / 'venv').mkdir()
    (tmp_path / 'venv/thesis.tex').touch()
    refused = environment(HALF.format(0))
    assert refused.returncode == 1
    assert f'error: {tmp_path}/venv is there but is no virtual environment' in refused.stderr
    assert (tmp_path / 'venv/thesis.tex').exists()
