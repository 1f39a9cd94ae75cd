"""Class embeddings from files of every kind, written here by hand."""

import json
import sys
import types

import numpy as np
import pytest
from scipy.io import savemat

from tljax.data import semantics

CLASSES = ('polar bear', 'Horse')
VECTORS = {'horse': [1, 2, 3], 'bear': [0, 2, 2], 'polar': [4, 0, 2], 'house': [9, 9, 9]}
MEAN = [[2, 1, 2], [1, 2, 3]]


@pytest.fixture
def awa(tmp_path):
    (tmp_path / 'classes.txt').write_text('     1\thorse\n     2\tpolar+bear\n     3\tox\n')
    (tmp_path / 'predicates.txt').write_text('     1\tblack\n     2\tsmall ears\n')
    (tmp_path / 'predicate-matrix-continuous.txt').write_text(' -1.00 2.5\n 3 4\n 5 6\n')
    (tmp_path / 'predicate-matrix-binary.txt').write_text('0 1\n1 1\n0 1\n')
    return tmp_path


def write_words(path, kind):
    """The word vectors as a file of a kind."""
    rows = ''.join(f'{word} {" ".join(map(str, v))}\n' for word, v in VECTORS.items())
    if kind == 'glove.txt':
        path.write_text(rows)
    elif kind == 'word2vec.txt':
        path.write_text(f'{len(VECTORS)} 3\n{rows}')
    elif kind == 'vectors.bin':
        data = (word.encode() + b' ' + np.array(v, '<f4').tobytes() for word, v in VECTORS.items())
        path.write_bytes(b'4 3\n' + b'\n'.join(data))
    elif kind == 'vectors.json':
        path.write_text(json.dumps(VECTORS))
    elif kind == 'vectors.js':
        path.write_text(f'var words={json.dumps(VECTORS)[:-1]},\n}};\n')
    else:
        np.savez(path, **VECTORS)


KINDS = ('glove.txt', 'word2vec.txt', 'vectors.bin', 'vectors.json', 'vectors.js', 'vectors.npz')


@pytest.mark.parametrize('kind', KINDS)
def test_words_of_a_name_are_averaged(kind, tmp_path):
    write_words(tmp_path / kind, kind)
    found = semantics.load((f'words:{tmp_path / kind}',), CLASSES)
    np.testing.assert_array_equal(found.vectors, np.float32(MEAN))
    assert found.vectors.dtype == np.float32


@pytest.mark.parametrize('key', ['Polar_Bear', 'polar-bear', 'polar bear', 'polar+bear'])
def test_a_vector_of_the_whole_name_comes_first(key, tmp_path):
    (tmp_path / 'w.json').write_text(json.dumps({**VECTORS, key: [7, 7, 7]}))
    found = semantics.load((f'words:{tmp_path / "w.json"}',), CLASSES)
    np.testing.assert_array_equal(found.vectors[0], [7, 7, 7])


def test_vectors_by_whole_names_need_no_single_words(tmp_path):
    np.savez(tmp_path / 'w.npz', **{'polar+bear': [7, 7], 'horse': [1, 2]})
    found = semantics.load((f'words:{tmp_path / "w.npz"}',), CLASSES)
    np.testing.assert_array_equal(found.vectors, [[7, 7], [1, 2]])


def test_of_several_spellings_that_of_the_class_comes_first(tmp_path):
    file = tmp_path / 'w.json'
    file.write_text(json.dumps({'horse': [1], 'Horse': [2], 'HORSE': [3], 'polar bear': [4]}))
    for name, value in (('horse', 1), ('Horse', 2), ('HORSE', 3), ('hOrse', 1)):
        assert semantics.load((f'words:{file}',), (name,)).vectors == value


@pytest.mark.parametrize('header', ['', '5 3\n'])
@pytest.mark.parametrize('odd', ['. . .', '\xa0', 'at 1.5', 'a\xa0b'])
def test_words_with_blanks_in_them(header, odd, tmp_path):
    """As in glove.840B; also where the first line has one, and with a blank at the end of lines."""
    lines = [f'{odd} 9 9 9 \n', 'polar bear 7 7 7\n', 'bear 0 2 2 \n', 'horse 1\t2 3\n', 'a 1 1 1']
    for rows in (lines, [*lines[1:4], lines[0]]):
        (tmp_path / 'w.txt').write_text(header + ''.join(rows))
        found = semantics.load((f'words:{tmp_path / "w.txt"}',), CLASSES)
        np.testing.assert_array_equal(found.vectors, [[7, 7, 7], [1, 2, 3]])


@pytest.mark.parametrize('kind', KINDS)
def test_a_missing_word_is_named_with_near_misses(kind, tmp_path):
    write_words(tmp_path / kind, kind)
    message = f"{kind}: has no vector for 'hors' of class 'wild hors'; did you mean 'horse' or 'hou"
    with pytest.raises(ValueError, match="no vector for 'wild' of class 'wild hors'"):
        semantics.load((f'words:{tmp_path / kind}',), ('wild hors',))
    with pytest.raises(ValueError, match=message.replace('wild ', '')):
        semantics.load((f'words:{tmp_path / kind}',), ('hors',))


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('w.txt', 'a 1 2\nhorse 1\n', r"w.txt: can't be read as word vectors \(line 2 has 1 num"),
        ('w.txt', '', r"can't be read as word vectors \(its lines are no words with numbers"),
        ('w.txt', 'polar 1 x\nbear 1 2\nhorse 1 2\n', "could not convert string to float: 'x'"),
        ('w.json', '{"horse": [1,', "w.json: can't be read as word vectors"),
        ('w.npz', 'no zip', "w.npz: can't be read as word vectors"),
        ('w.bin', '3 4\nhorse ', r'w.bin: .*ends before its 3 words do'),
        ('w.json', '{"polar": [1], "bear": [-1], "horse": [1]}', "class 'polar bear' is all 0"),
        ('w.json', '{"polar": [NaN], "bear": [1], "horse": [1]}', "'polar bear' is not finite"),
        ('w.json', '{"polar": {"x": 1}, "bear": [1], "horse": [1]}', "w.json: can't be read as"),
        ('w.json', '{"polar": 1, "bear": 2, "horse": 3}', r"'polar' is \[\]; expected one row"),
        ('w.json', '{"polar": [1, 2], "bear": [1], "horse": [1]}', r"'polar' is \[2\]; .*\[1\]"),
        ('w.npz', '', "w.npz: can't be read as word vectors"),
        ('w.npz', 'PK\x03\x04', "w.npz: can't be read as word vectors"),
    ],
)
def test_bad_word_vectors(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        semantics.load((f'words:{tmp_path / name}',), CLASSES)


def test_awa_attributes(awa):
    found = semantics.load((f'awa:{awa}', f'awa:{awa}#binary'), CLASSES)
    np.testing.assert_array_equal(found.vectors, [[3, 4, 1, 1], [-1, 2.5, 0, 1]])
    assert found.part.tolist() == [0, 0, 1, 1]
    assert found.columns == (('black', 'small ears'),) * 2


def test_bad_awa_attributes(awa):
    with pytest.raises(ValueError, match="binary or continuous, not 'wv'"):
        semantics.load((f'awa:{awa}#wv',), CLASSES)
    with pytest.raises(ValueError, match="no class 'hose'; did you mean 'horse'"):
        semantics.load((f'awa:{awa}',), ('hose',))
    (awa / 'predicate-matrix-binary.txt').write_text('0 1\n1 1\n')
    with pytest.raises(ValueError, match=r'has 2 rows; expected 3, one for each of classes.txt'):
        semantics.load((f'awa:{awa}#binary',), CLASSES)
    (awa / 'predicate-matrix-binary.txt').write_text('0 1\n1 x\n0 1')
    with pytest.raises(ValueError, match=r'binary.txt: is no matrix of numbers'):
        semantics.load((f'awa:{awa}#binary',), CLASSES)
    (awa / 'predicates.txt').write_text('1\tblack\n')
    with pytest.raises(ValueError, match=r'has 1 names of 2 columns'):
        semantics.load((f'awa:{awa}',), CLASSES)
    (awa / 'classes.txt').unlink()
    with pytest.raises(ValueError, match=r'classes.txt: there is no such file'):
        semantics.load((f'awa:{awa}',), CLASSES)


def test_xian_matrices(tmp_path):
    names = np.array([['horse'], ['polar+bear'], ['ox']], object)
    matrix = np.arange(6.0).reshape(2, 3) + 1
    file = tmp_path / 'att_splits.mat'
    savemat(file, {'att': matrix, 'wv': -matrix, 'allclasses_names': names})
    found = semantics.load((f'xian:{tmp_path}', f'xian:{tmp_path}#wv'), CLASSES)
    np.testing.assert_array_equal(found.vectors, [[2, 5, -2, -5], [1, 4, -1, -4]])
    assert found.columns == (('att1', 'att2'), ('wv1', 'wv2'))
    with pytest.raises(ValueError, match='no variable original_att'):
        semantics.load((f'xian:{tmp_path}#original_att',), CLASSES)
    savemat(file, {'att': matrix[:, :2], 'allclasses_names': names})
    with pytest.raises(ValueError, match=r'att is \[2, 2\]; expected \[A, 3\]'):
        semantics.load((f'xian:{tmp_path}',), CLASSES)
    file.write_text('nothing of MATLAB')
    with pytest.raises(ValueError, match=r"att_splits.mat: can't be read as a MATLAB file"):
        semantics.load((f'xian:{tmp_path}',), CLASSES)
    file.unlink()
    with pytest.raises(ValueError, match=r'att_splits.mat: there is no such file'):
        semantics.load((f'xian:{tmp_path}',), CLASSES)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', "expected a first line 'class,ATTRIBUTE"),
        ('class,a\n', 'and a line for each class'),
        ('class,a,b\nhorse,1\n', "class 'horse' has 1 numbers; expected 2"),
        ('class,a\nhorse,big\n', "class 'horse' has 'big' for 'a'; expected a number"),
        ('class,a\nhorse,1\nhorse,2\n', "class 'horse' is there twice"),
        ('class,a\nhorse,1\nPolar-Bare,2\n', "no class 'polar bear'; did you mean 'polar bare'"),
        ('class,a\nhorse,1\npolar bear,0\n', "class 'polar bear' is all 0"),
    ],
)
def test_tables_by_hand(text, message, tmp_path):
    file = tmp_path / 't.csv'
    file.write_text('class, stripes,legs\nhorse,0,4\n\npolar_bear, 0.5,-1\n')
    found = semantics.load((f'csv:{file}',), CLASSES)
    np.testing.assert_array_equal(found.vectors, [[0.5, -1], [0, 4]])
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        semantics.load((f'csv:{file}',), CLASSES)


def test_sentences_go_through_the_library(tmp_path, monkeypatch):
    """With a stand-in for sentence-transformers, whose models need a download."""
    file = tmp_path / 't.csv'
    file.write_text('horse,"A large animal, with hooves."\npolar bear,White\n')
    monkeypatch.setitem(sys.modules, 'sentence_transformers', None)
    with pytest.raises(ValueError, match=r"need the package .*: pip install '.\[text\]'"):
        semantics.load((f'text:{file}',), CLASSES)

    class Model:
        def __init__(self, name):
            self.name = name

        def encode(self, texts):
            return np.array([[len(text), len(self.name)] for text in texts])

    stand_in = types.SimpleNamespace(SentenceTransformer=Model)
    monkeypatch.setitem(sys.modules, 'sentence_transformers', stand_in)
    found = semantics.load((f'text:{file}#tiny',), CLASSES)
    np.testing.assert_array_equal(found.vectors, [[5, 4], [28, 4]])
    for text, message in (
        ('horse,A large animal, with hooves.\n', r"'horse,A large .*' is not class,TEXT; .*quotes"),
        ('horse\n', "'horse' is not class,TEXT"),
        ('horse,Big\nHorse,Small\n', "class 'Horse' is there twice"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            semantics.load((f'text:{file}',), ('horse',))


def test_a_table_of_another_alphabet_is_named(tmp_path):
    file = tmp_path / 't.csv'
    file.write_bytes('class,a\ncafé,1\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=r't\.csv: is not UTF-8 .*in Excel as "CSV UTF-8"'):
        semantics.load((f'csv:{file}',), ('café',))


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['horse', '', 'ox'], 'allclasses_names holds nothing in cell 2'),
        (['horse', 'ox', 'Horse'], "allclasses_names holds 'Horse' twice in cell 3"),
    ],
)
def test_names_of_matlab_files_are_told_apart(names, message, tmp_path):
    cells = np.array([[name] for name in names], object)
    savemat(tmp_path / 'att_splits.mat', {'att': np.ones((2, 3)), 'allclasses_names': cells})
    with pytest.raises(ValueError, match=message):
        semantics.load((f'xian:{tmp_path}',), ('horse',))


@pytest.mark.parametrize('spec', ['t.csv', 'cvs:t.csv', 'csv:'])
def test_unknown_kinds(spec):
    with pytest.raises(ValueError, match=r'expected one of awa:..., csv:..., text:..., words:'):
        semantics.load((spec,), CLASSES)


def test_real_names_have_the_same_vectors_in_both_files(data_root):
    names = [line.split()[1] for line in (data_root / 'awa1/classes.txt').read_text().splitlines()]
    specs = (f'awa:{data_root}/awa1', f'xian:{data_root}/awa2#original_att')
    found = semantics.load(specs, names).vectors
    np.testing.assert_allclose(found[:, :85], found[:, 85:], atol=1e-4)
