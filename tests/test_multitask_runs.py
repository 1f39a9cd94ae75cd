"""Several tasks in runs and studies: data in memory or not, twins, verdicts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.multitask import DATA, get_config, wider
from launch import prepare, train
from tests import runs
from tests.data import toys  # noqa: F401  registers the toy sets
from tests.test_multitask import config
from tljax import predict, study
from tljax.data import labels

ROOT = Path(__file__).parents[1]


def test_decoded_batches_are_those_of_memory(tmp_path):
    found = []
    for limit in (0, 1024):
        c = config(balancer='dwa')
        c.data.resident_mb, c.steps, c.evaluate_every = limit, 3, 0
        found.append(study.run(c, tmp_path / str(limit))['scores']['test'])
    np.testing.assert_allclose(found[0]['ink_rmse'], found[1]['ink_rmse'], 1e-4)
    np.testing.assert_allclose(found[0]['loss'], found[1]['loss'], 1e-4)


def test_affinities_are_told_and_drawn(tmp_path):
    c = config(('label', 'parity'), affinity=True)
    found = study.run(c, tmp_path)
    cosine = np.array(found['outcome']['cosine'])
    assert cosine.shape == (1, 2, 2)
    np.testing.assert_allclose(cosine[0].diagonal(), 1, 1e-3)
    ahead = np.array(found['outcome']['lookahead'])
    assert ahead.shape == (1, 2, 2)
    assert (ahead[0].diagonal() > 0).all()
    page = (tmp_path / 'report.html').read_text()
    assert 'Tasks: cosine of gradients' in page
    assert 'Tasks: inter-task affinity' in page


def test_study_judges_every_task_by_its_twin(tmp_path):
    c = config(('label', 'ink'), balancer='equal')
    c.members.seed = (0, 1)
    c.runs.single = {
        'data': {
            'streams': {'source': {'tasks': ('ink',)}},
            'evaluate': {'test': {'tasks': ('ink',)}},
        }
    }
    few = {'data': {'streams': {'source': {'shares': {'ink': 0.5}}}}}
    c.runs.both, c.runs.few = {}, few
    c.runs.single_few = {
        'data': {
            'streams': {'source': {'tasks': ('ink',), 'shares': {'ink': 0.5}}},
            'evaluate': {'test': {'tasks': ('ink',)}},
        }
    }
    twins = {'ink': 'single', 'few': {'ink': 'single_few'}}
    c.compare.update(baseline='both', arms=('both', 'few'), twins=twins)
    found = study.run(c, tmp_path)['tasks']
    rows = found['verdicts']['ink']['rows']
    assert found['verdicts']['ink']['lower']
    assert [row['arm'] for row in rows] == ['single', 'both', 'few']
    for arm, twin, row in (('both', 'single', rows[1]), ('few', 'single_few', rows[2])):
        ours, alone = (
            np.array(runs.results(tmp_path / one)['scores']['test']['ink_rmse'])
            for one in (arm, twin)
        )
        np.testing.assert_allclose(row['delta_mean'], (ours - alone).mean(), 1e-5, 1e-8)
        np.testing.assert_allclose(found['relative_change'][arm], (alone - ours) / alone, 1e-5)
    assert labels.OWN in runs.results(tmp_path / 'both')['tasks']
    assert 'against learning it alone' in (tmp_path / 'report.html').read_text()


@pytest.fixture
def weighed(tmp_path):
    """A folder whose table tells two numbers of every image."""
    lines = ['image,age,weight']
    for i in range(20):
        Image.fromarray(np.full((8, 8, 3), 9 * i, np.uint8)).save(tmp_path / f'{i}.png')
        lines.append(f'{i}.png,{i}.5,{20 - i}.25')
    (tmp_path / 'labels.csv').write_text('\n'.join(lines))
    return tmp_path


def test_a_study_of_regressions_is_compared_by_what_it_has(weighed, tmp_path, capsys):
    c = get_config(f'folder:{weighed},equal,tasks=age+weight')
    c.net = runs.run().net
    c.steps, c.members.seed, c.data.streams.source.batch = 2, (0, 1), 4
    c.runs.slow = {'hparams': {'rate': 1e-6}}
    c.compare.arms = ('equal', 'slow')
    c.compare.also = ('test:age_rmse',)
    found = study.run(c, tmp_path / 'run')
    assert (found['metric'], found['lower_is_better']) == ('loss', True)
    rows = {row['arm']: row['mean'] for row in found['comparison']}
    for arm, mean in rows.items():
        loss = runs.results(tmp_path / 'run' / arm)['scores']['test']['loss']
        assert mean == pytest.approx(np.mean(loss))
    shown = capsys.readouterr().out
    assert "arms are compared by 'loss'" in shown
    assert 'equal: step 2 of 2  test loss ' in shown
    c.compare.metric = 'age_rmse'  # nothing is trained anew
    again = study.run(c, tmp_path / 'run')
    assert again['lower_is_better']
    assert again['comparison'] == again['also']['test age_rmse'] == found['also']['test age_rmse']


def test_a_metric_that_no_task_has_is_refused_before_training(weighed, tmp_path, monkeypatch):
    c = get_config(f'folder:{weighed},equal,tasks=age+weight')
    monkeypatch.setattr(study.experiment, 'run', None)
    c.compare.metric = 'height_rmse'
    with pytest.raises(ValueError, match=r"no 'height_rmse' on 'test'.*or 'age_rmse'"):
        study.run(c, tmp_path / 'run')


def test_a_set_of_one_split_is_trained_and_tested_on_parts_of_it(tmp_path):
    prepare.prepare('toy_village', str(tmp_path))
    (tmp_path / 'toy_village').rename(tmp_path / 'plant_village')
    c = get_config('tfds:plant_village,equal')
    c.net, c.data.data_dir = runs.run().net, str(tmp_path)
    c.steps, c.members.seed, c.data.streams.source.batch = 2, (0, 1), 8
    found = study.run(c, tmp_path / 'run')
    assert set(found['tasks']['verdicts']) == {'host', 'disease'}
    for arm in ('equal', 'single_host', 'single_disease'):
        results = runs.results(tmp_path / 'run' / arm)
        assert results['scores']['test']['count'] == 8
    assert set(runs.results(tmp_path / 'run' / 'equal')['tasks']) == {'host', 'disease'}


@pytest.mark.parametrize('data', [*DATA, 'folder:leaves'])
def test_width_makes_the_net_of_any_data_narrower(data):
    c = get_config(f'{data},equal,width=50+200')
    for arm, factor in (('width_50', 0.5), ('width_200', 2)):
        net = c.runs[arm].net
        assert [width / factor for width in net.widths] == [*c.net.widths]
        assert net.get('dense', 0) / factor == c.net.get('dense', 0)
    with pytest.raises(ValueError, match="'vit'} tells neither"):
        wider({'name': 'vit'}, 0.5)


def parsed(argument: str, *flags: str):
    """The config of a command line."""
    config = f'--config={ROOT / "configs/multitask.py"}:sklearn:digits,{argument}'
    return train.parse(['train.py', config, '--workdir=runs/a', *flags])[0]


def test_balancers_are_told_by_flag_or_by_field():
    runs_of = '--config.runs'
    c = parsed(
        'fixed+cagrad,tasks=label+ink',
        f'{runs_of}.fixed.options.balance.weights=(1.0,0.3)',
        f'{runs_of}.cagrad.options.balance.c=0.5',
    )
    assert c.runs.fixed.options.balance.weights == (1.0, 0.3)
    assert c.runs.cagrad.options.balance.c == 0.5
    assert 'balance' not in c.runs.equal.options
    pairs = {name: get_config(f'tfds:multi_mnist/{name},mgda_ub') for name in ('mnist', 'fashion')}
    told = {name: c.runs.mgda_ub.options.balance.normalize for name, c in pairs.items()}
    assert told == {'mnist': 'loss', 'fashion': 'none'}
    c = get_config('sklearn:digits,fixed,tasks=label+ink,weights=1+0.3')
    assert c.runs.fixed.options.balance.weights == (1.0, 0.3)


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('fixed,weights=1+2', 'weights=1\\+2 are not 4 numbers'),
        ('fixed,weights=1+2+3+x', 'are not 4 numbers'),
        ('equal,weights=1+1+1+1', 'which is not named'),
        ('mdga', "unknown balancer 'mdga'.*did you mean 'mgda'"),
    ],
)
def test_balancers_that_cannot_be_are_refused_in_the_argument(argument, message):
    with pytest.raises(ValueError, match=message):
        get_config(f'sklearn:digits,{argument}')


def test_weights_that_lack_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(study.experiment, 'run', None)
    c = get_config('sklearn:digits,fixed')
    with pytest.raises(
        ValueError, match=r'weights \(\); expected 4, .* as options.balance.weights'
    ):
        study.run(c, tmp_path / 'run')


def test_a_regression_is_learnt_in_deviations_and_told_in_its_unit(tmp_path):
    bright = np.random.RandomState(0).randint(0, 256, 80)
    images = np.tile(bright[:, None, None], (8, 8)).astype(np.uint8)
    age, arrays = 20 + 55 * bright / 255, {}
    for split, rows in (('train', slice(60)), ('test', slice(60, None))):
        arrays |= {f'{split}_image': images[rows], f'{split}_label': bright[rows] % 2}
        arrays |= {f'{split}_label_age': age[rows]}
    np.savez(tmp_path / 'a.npz', **arrays)
    c = config(('label', 'age'))
    c.steps = 100
    for stream in (c.data.streams.source, c.data.evaluate.test):
        stream.dataset = f'npz:{tmp_path / "a.npz"}'
    found = study.run(c, tmp_path / 'run')
    spread = age[:60].std()
    np.testing.assert_allclose(found['tasks']['age']['centre'], [age[:60].mean()], 1e-6)
    np.testing.assert_allclose(found['tasks']['age']['spread'], [spread], 1e-6)
    rmse, loss = (found['scores']['test'][f'age_{name}'][0] for name in ('rmse', 'loss'))
    assert rmse < spread / 3
    np.testing.assert_allclose(loss, (rmse / spread) ** 2, 1e-4)
    answers = predict.load(tmp_path / 'run').answers(images[60:, ..., None])
    told = np.array([answer['age'][0] for answer in answers])
    np.testing.assert_allclose(np.sqrt(np.mean((told - age[60:]) ** 2)), rmse, 1e-3)


def test_tasks_may_have_a_data_set_each(tmp_path):
    random, sets = np.random.RandomState(0), []
    for name, classes in (('cats', 2), ('trees', 3)):
        arrays = {}
        for split, count in (('train', 24), ('test', 12)):
            arrays[f'{split}_image'] = random.randint(0, 256, (count, 8, 8), np.uint8)
            arrays[f'{split}_label'] = np.arange(count) % classes
        np.savez(tmp_path / f'{name}.npz', **arrays)
        sets.append(f'npz:{tmp_path / name}.npz')
    c = get_config(f'{"+".join(sets)},pcgrad,share=trees:2')
    c.net, c.steps, c.members.seed = runs.run().net, 2, (0, 1)
    c.data.wrap = True  # the sets are smaller than a batch
    found = study.run(c, tmp_path / 'run')
    assert found['arms'] == ['equal', 'pcgrad', 'trees_1_in_2']
    assert set(found['tasks']['verdicts']) == {'cats', 'trees'}
    assert len(found['tasks']['relative_change']['pcgrad']) == 2
    arm = runs.results(tmp_path / 'run' / 'pcgrad')
    assert {name: len(task['classes']) for name, task in arm['tasks'].items()} == {
        'cats': 2,
        'trees': 3,
    }
    assert set(arm['scores']) == {'test', 'test_trees'}
    row = next(r for r in found['tasks']['verdicts']['trees']['rows'] if r['arm'] == 'pcgrad')
    ours, alone = (
        np.mean(runs.results(tmp_path / 'run' / run)['scores'][stream]['trees_accuracy'])
        for run, stream in (('pcgrad', 'test_trees'), ('single_trees', 'test'))
    )
    assert row['delta_mean'] == pytest.approx(ours - alone)


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('equal,sharing=mtann', "unknown sharing 'mtann'.*did you mean 'mtan'"),
        ('equal,width=abc', "width=abc: 'abc' is not a whole number over 0"),
        ('equal,share=label:0', "share=label:0: '0' is not a whole number over 0"),
        ('equal,share=label', 'share=label is not TASK:N'),
        ('equal,share=lable:10', "unknown task in share= 'lable'.*did you mean 'label'"),
        ('equal,tasks=', 'is not DATA,BALANCER'),
        ('equal,affinity=no', 'is not DATA,BALANCER'),
        ('equal,width=50,width=25', 'each once'),
    ],
)
def test_fields_that_cannot_be_are_refused_in_the_argument(argument, message):
    with pytest.raises(ValueError, match=message):
        get_config(f'sklearn:digits,{argument}')


def test_columns_are_named_of_one_set_only():
    with pytest.raises(ValueError, match='tasks=a names columns of one set'):
        get_config('npz:a.npz+npz:b.npz,equal,tasks=a')


def test_a_twin_that_does_not_learn_the_task_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(study.experiment, 'run', None)
    c = get_config('sklearn:digits,equal')
    c.compare.twins.parity = 'single_label'
    with pytest.raises(ValueError, match="alone has no score of task 'parity'"):
        study.run(c, tmp_path)
