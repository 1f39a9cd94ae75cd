import os

import numpy as np
import pytest
from PIL import Image

from tljax.data import sources


def fill(folder, count, colour='red', size=(6, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new('RGB', size, colour).save(folder / f'{number}.png')


@pytest.fixture
def pool(tmp_path):
    """Two classes without split folders."""
    fill(tmp_path / 'cat', 10)
    fill(tmp_path / 'ant', 5, 'blue')
    return tmp_path


def load(path, split='train', **options):
    return sources.load(f'folder:{path}', split, **options)


def test_pool_is_split_four_to_one_in_every_class(pool):
    train, test = load(pool), load(pool, 'test')
    assert train.classes == ('ant', 'cat')
    assert np.bincount(train.labels).tolist() == [4, 8]
    assert np.bincount(test.labels).tolist() == [1, 2]
    every = load(pool, 'all')
    assert every.keys == [*train.keys, *test.keys]
    assert len(set(every.keys)) == 15
    assert load(pool).keys == train.keys


def test_images_labels_and_keys_belong_together(pool):
    source = load(pool, size=4, channels=3)
    assert source.image == (4, 4, 3)
    for row, key in enumerate(source.keys):
        colour = source.fetch(row)[0, 0].tolist()
        assert colour == ([255, 0, 0] if '/cat/' in key else [0, 0, 255])
        assert source.classes[source.labels[row]] in key


def test_rows_are_mixed_so_that_a_slice_is_a_fair_sample(tmp_path):
    for name in 'ab':
        fill(tmp_path / 'train' / name, 30)
    assert set(load(tmp_path, 'train[:20%]').labels.tolist()) == {0, 1}


@pytest.mark.parametrize('validation', ['val', 'valid', 'validation', 'Val'])
def test_split_folders(tmp_path, validation):
    for split, count in (('train', 3), (validation, 2), ('test', 1)):
        for name in ('b', 'a'):
            fill(tmp_path / split / name, count)
    assert len(load(tmp_path).labels) == 6
    assert len(load(tmp_path, 'val').labels) == len(load(tmp_path, 'validation').labels) == 4
    assert len(load(tmp_path, 'all').labels) == 12
    with pytest.raises(ValueError, match=r'no split .extra.; there are: train \(6 rows\), val \(4'):
        load(tmp_path, 'extra')


def test_a_class_may_be_called_train(tmp_path):
    for name in ('train', 'plane'):
        fill(tmp_path / name, 5)
    assert load(tmp_path).classes == ('plane', 'train')


def test_nested_folders_are_searched_and_hidden_and_foreign_files_passed_over(pool):
    fill(pool / 'cat' / 'tabby' / 'young', 2)
    (pool / 'cat' / '.hidden.png').write_bytes(b'no image')
    (pool / 'cat' / 'notes.txt').write_text('no image')
    fill(pool / '.cache', 3)
    source = load(pool, 'all')
    assert source.classes == ('ant', 'cat')
    assert np.bincount(source.labels).tolist() == [5, 12]


def test_sizes_that_differ_need_a_size(pool):
    Image.new('RGB', (9, 9)).save(pool / 'cat' / 'odd.png')
    source = load(pool, 'all')
    with pytest.raises(
        ValueError, match=r'odd.png: is 9x9, but the first image is 6x4; give a size'
    ):
        sources.arrays(source)
    assert sources.arrays(load(pool, 'all', size=5)).shape == (16, 5, 5, 3)


def test_grey_files_among_coloured_ones_become_rgb_unless_asked(pool):
    Image.new('L', (6, 4), 9).save(pool / 'ant' / '2.png')
    assert sources.arrays(load(pool, 'all')).shape == (15, 4, 6, 3)
    assert sources.arrays(load(pool, 'all', channels=1)).shape == (15, 4, 6, 1)


def test_corrupt_file_is_named_by_arrays(pool):
    (pool / 'ant' / '3.png').write_bytes(b'oops')
    every = [name for name in ('train', 'test') if any('ant/3' in k for k in load(pool, name).keys)]
    with pytest.raises(ValueError, match=r'ant/3.png: is no image that Pillow can read'):
        sources.arrays(load(pool, every[0], size=4), workers=3)


def test_missing_folder(tmp_path):
    with pytest.raises(
        ValueError, match='nowhere: there is no such folder; expected one with a sub'
    ):
        load(tmp_path / 'nowhere')


def test_empty_class_folder(pool):
    (pool / 'bee').mkdir()
    (pool / 'bee' / 'readme.txt').touch()
    with pytest.raises(
        ValueError, match=r'bee: holds no image files; fill the class folder or rem'
    ):
        load(pool)


def test_no_class_folders(tmp_path):
    fill(tmp_path, 3)
    with pytest.raises(ValueError, match=r'has no class sub-folders \(3 image files lie in it dir'):
        load(tmp_path)


def test_images_without_classes(pool):
    """All below a folder, whatever they lie in; in a mixed order that is always the same."""
    source = sources.load(f'images:{pool}', 'all', size=4)
    assert source.classes == ('image',) and not source.labels.any()
    assert len(source.keys) == sum(
        len(sources.load(f'folder:{pool}', one).keys) for one in ('train', 'test')
    )
    assert list(source.keys) != sorted(source.keys)
    assert list(source.keys) == list(sources.load(f'images:{pool}', 'train').keys)


def test_images_that_are_not_there(tmp_path):
    with pytest.raises(
        ValueError, match='nowhere: there is no such folder; expected one of images'
    ):
        sources.load(f'images:{tmp_path}/nowhere')
    with pytest.raises(ValueError, match='there is no image file below it'):
        sources.load(f'images:{tmp_path}')


def test_one_class_only(tmp_path):
    fill(tmp_path / 'cat', 3)
    with pytest.raises(ValueError, match=r"has the one class 'cat'; expected .* two or more"):
        load(tmp_path)


def test_split_folder_with_a_class_of_its_own(tmp_path):
    for name in 'ab':
        fill(tmp_path / 'train' / name, 2)
    fill(tmp_path / 'val' / 'c', 2)
    with pytest.raises(
        ValueError, match=r"val/c: class 'c' is not in .*train, whose classes are a, b"
    ):
        load(tmp_path)


def test_two_folders_for_one_split(tmp_path):
    for split in ('train', 'val', 'valid'):
        for name in 'ab':
            fill(tmp_path / split / name, 1)
    with pytest.raises(ValueError, match="are both the split 'val': remove one"):
        load(tmp_path)


def test_hymenoptera(data_root):
    root = data_root / 'hymenoptera'
    train, val = load(root, size=32), load(root, 'validation', size=32)
    assert train.classes == val.classes == ('ants', 'bees')
    files = [name for _, _, names in os.walk(root / 'train') for name in names]
    assert len(train.labels) == len(files) == 243
    assert np.bincount(val.labels).tolist() == [70, 83]
    images = sources.arrays(val)
    assert images.shape == (153, 32, 32, 3)
    assert 90 < images.mean() < 150


def test_pacs_domains_share_their_classes(data_root):
    domains = [load(data_root / 'pacs' / d, 'all', size=16) for d in ('photo', 'sketch')]
    assert domains[0].classes == domains[1].classes
    assert domains[0].classes[:2] == ('dog', 'elephant')
    assert [len(domain.labels) for domain in domains] == [280, 280]


def test_links_below_a_class_are_followed_but_never_in_circles(pool, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    fill(elsewhere / 'young', 2)
    (pool / 'cat' / 'more').symlink_to(elsewhere)
    (elsewhere / 'again').symlink_to(elsewhere)
    (elsewhere / 'young' / 'up').symlink_to(pool)
    source = load(pool, 'all')
    assert np.bincount(source.labels).tolist() == [5, 12]
    assert len({os.path.realpath(key) for key in source.keys}) == 17


@pytest.mark.parametrize('name', [b'caf\xe9', b'cat/caf\xe9', b'cat/caf\xe9.png'])
def test_names_that_are_not_utf8_are_refused(pool, name):
    path = pool / os.fsdecode(name)
    try:
        if path.suffix:
            (pool / 'cat' / '0.png').rename(path)
        else:
            fill(path, 1)
    except OSError:
        pytest.skip('this file system takes UTF-8 names only')
    with pytest.raises(ValueError, match=r'caf\\xe9.*: this name is not UTF-8, .* rename it'):
        load(pool)


def tabled(folder, names, column='kind', cells='ab'):
    """Images and a `labels.csv` that names them."""
    for name in names:
        fill((folder / name).parent, 1)
        (folder / name).parent.joinpath('0.png').rename(folder / name)
    rows = [f'{name},{cells[i % len(cells)]}' for i, name in enumerate(names)]
    (folder / 'labels.csv').write_text('\n'.join([f'image,{column}', *rows]))


def test_split_folders_of_a_table_are_the_splits(tmp_path):
    held = [f'Validation/{i}.jpg' for i in range(4)]
    tabled(tmp_path, [f'train/{i}.jpg' for i in range(6)] + held)
    assert [len(load(tmp_path, split).labels) for split in ('train', 'val', 'all')] == [6, 4, 10]
    assert {os.path.relpath(key, tmp_path) for key in load(tmp_path, 'val').keys} == set(held)
    assert set(load(tmp_path, 'val', tasks=('kind',)).targets['kind'].tolist()) == {0, 1}


@pytest.mark.parametrize('other', ['own.jpg', 'more/own.jpg', 'train/own.jpg'])
def test_table_of_which_an_image_is_in_no_split_is_divided(tmp_path, other):
    tabled(tmp_path, [f'train/{i}.jpg' for i in range(9)] + [other])
    assert [len(load(tmp_path, split).labels) for split in ('train', 'test')] == [8, 2]


@pytest.mark.parametrize(
    ('cells', 'kind'),
    [
        (('0', '0.5', '1', 'NA'), 'regression'),
        (('1', '2', '1e-3', 'NaN'), 'regression'),
        (('1', '2', '3', 'nan'), 'classification'),
        (('0.5', 'low', '1', ''), 'classification'),
    ],
)
def test_one_point_makes_numbers_a_regression(tmp_path, cells, kind):
    tabled(tmp_path, [f'{i}.jpg' for i in range(8)], cells=cells)
    source = load(tmp_path, 'all', tasks=('kind',))
    assert source.tasks['kind'].kind == kind
    values = source.targets['kind']
    assert (np.isnan(values) if kind == 'regression' else values < 0).sum() == 2
    if kind == 'classification':
        assert source.tasks['kind'].classes == tuple(sorted(cells[:3]))


def test_table_as_excel_writes_it(tmp_path):
    tabled(tmp_path, [f'{i}.jpg' for i in range(4)], cells=('café', 'thé'))
    file = tmp_path / 'labels.csv'
    text = file.read_text(encoding='utf-8')
    file.write_text(text, encoding='utf-8-sig')
    assert load(tmp_path, 'all').classes == ('café', 'thé')
    file.write_text(text, encoding='cp1252')
    with pytest.raises(ValueError, match=r'labels\.csv: is not UTF-8 .* save it as UTF-8'):
        load(tmp_path)
