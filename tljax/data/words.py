"""Word vectors of class names, from the files that word2vec, GloVe and others leave."""

import itertools
import json
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tljax.data.splits import did_you_mean

_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.IGNORECASE)
_FIRST = 100  # lines that tell how many numbers there are in one


def of_classes(file: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """Word vectors: word2vec (text, .bin), GloVe (text), or word -> vector as JSON, .js or .npz.

    A class whose whole name has a vector gets that ('polar_bear', 'Polar bear'), of several the one
    that is spelt as the class is, or else the first; any other class gets the mean of its words'.
    """
    del which
    wanted = {spelt for name in map(plain, classes) for spelt in (name, *name.split())}
    if not file.is_file():
        raise ValueError(f'{file}: there is no such file of word vectors')
    reader = {'.bin': _word2vec_binary, '.json': _json, '.js': _json, '.npz': _npz}
    known: dict[str, np.ndarray] = {}
    vocabulary = []
    try:
        for word, vector in reader.get(file.suffix, _word_lines)(file):
            vocabulary.append(word)
            spelt = plain(word)
            if spelt in wanted and (spelt not in known or word in classes):
                known[spelt] = np.asarray(vector, np.float32)
    except Exception as error:  # each reader raises its own
        raise ValueError(f"{file}: can't be read as word vectors ({error})") from None
    shapes = {word: vector.shape for word, vector in known.items()}
    usual = statistics.mode(shapes.values()) if shapes else ()
    for word, shape in shapes.items():
        if shape != usual or len(shape) != 1:
            raise ValueError(
                f'{file}: the vector of {word!r} is {list(shape)}; expected one row of numbers, as '
                f'many as others have ({list(usual)})'
            )
    return np.stack([_phrase(plain(name), known, vocabulary, file) for name in classes])


def _phrase(name: str, known: Mapping, vocabulary: Sequence[str], file: Path) -> np.ndarray:
    if name in known:
        return known[name]
    for word in name.split():
        if word not in known:
            hint = did_you_mean(word, vocabulary)
            raise ValueError(f'{file}: has no vector for {word!r} of class {name!r}; {hint}')
    return np.mean([known[word] for word in name.split()], axis=0)


def _word_lines(file: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """'word x1 ... xA' a line, where a word may have blanks in it; word2vec's has 'N A' before."""
    with file.open(encoding='utf-8', errors='replace') as text:
        first = list(itertools.islice(text, _FIRST))
        header = re.fullmatch(r'\d+\s+(\d+)\s*', first[0]) if first else None
        width = int(header[1]) if header else _width(first)
        for number, line in enumerate(itertools.chain(first, text), start=1):
            if (number == 1 and header) or not line.strip():
                continue
            cells = line.rsplit(None, width)
            # Of a word that is nothing but blanks, rsplit leaves none.
            word = '' if len(cells) == width and line[0].isspace() else cells.pop(0)
            if len(cells) != width:
                raise ValueError(f'line {number} has {len(cells)} numbers, not {width}')
            yield word, cells


def _width(lines: Sequence[str]) -> int:
    """How many numbers most lines end in."""
    numbers = lambda line: itertools.takewhile(_NUMBER.fullmatch, reversed(line.split()[1:]))
    width = statistics.mode(len(list(numbers(line))) for line in lines) if lines else 0
    if not width:
        raise ValueError('its lines are no words with numbers behind')
    return width


def _word2vec_binary(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    with file.open('rb') as data:
        count, width = map(int, data.readline().split())
        for _ in range(count):
            word = bytearray()
            while (letter := data.read(1)) not in (b' ', b''):
                word += letter
            vector = data.read(4 * width)
            if len(vector) < 4 * width:
                raise ValueError(f'it ends before its {count} words do')
            yield word.decode('utf-8', 'replace').strip(), np.frombuffer(vector, '<f4')


def _json(file: Path) -> Iterable[tuple[str, Sequence[float]]]:
    """{"word": [x1, ...], ...}, also as 'var NAME = {...};' and with a comma after the last."""
    text = file.read_text(encoding='utf-8')
    text = text[text.index('{') : text.rindex('}') + 1]
    return json.loads(re.sub(r',\s*}$', '}', text)).items()


def _npz(file: Path) -> Iterable[tuple[str, np.ndarray]]:
    with np.load(file, allow_pickle=False) as arrays:
        return [(name, arrays[name]) for name in arrays.files]


def plain(name: str) -> str:
    """'Polar+Bear' -> 'polar bear'."""
    return re.sub(r'[\s+_-]+', ' ', str(name)).strip().lower()
