"""Prepares a TFDS data set once, so that `tfds:NAME` reads it from then on without TensorFlow.

    pip install -e '.[prepare]'                # for TFDS's own sets
    python launch/prepare.py mnist
    python launch/prepare.py mnist --data_dir data --manual_dir mnist_files   # without a network

Some sets that TFDS lacks are prepared by builders of our own, without TensorFlow:

    python launch/prepare.py usps                # downloaded, or from --manual_dir
    python launch/prepare.py mnist_m             # the published one, from the same two
    python launch/prepare.py mnist_m/generated --manual_dir photos    # like it, from any photos
    python launch/prepare.py mnist_m/textures    # like it, from nothing but MNIST
    python launch/prepare.py multi_mnist/mnist    # fashion, fashion_and_mnist: from MNIST's own
    python launch/prepare.py pacs/photo --manual_dir DIR              # art_painting, ...
    python launch/prepare.py office31/amazon --manual_dir DIR         # dslr, webcam
    python launch/prepare.py omniglot_characters/28 --manual_dir DIR  # or 105, in pixels
    python launch/prepare.py office_home/art --manual_dir DIR         # clipart, product, real_world

The files are written as ArrayRecord to DATA_DIR/NAME/VERSION (`$TFDS_DATA_DIR` or
~/tensorflow_datasets where no --data_dir is given). A manual_dir holds the official raw files under
their own names; their hashes are checked, and only what it lacks is downloaded.
"""

import argparse
import difflib
import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tljax.data.tfds import data_dirs  # noqa: E402


def prepare(
    name: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    download_dir: str | None = None,
) -> Path:
    """Prepares a set and returns its folder; does nothing where that is done already.

    Raises:
      RuntimeError: TensorFlow is missing, the set has no such name, or its files can't be had; the
        message says what to do.
    """
    import tensorflow_datasets as tfds

    import tljax.data.builders  # noqa: F401  registers ours

    data = data_dirs(data_dir)[0]
    try:
        builder = tfds.builder(name, data_dir=str(data))
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, re.findall(r'- (\S+)', str(error)))
        hint = f'did you mean {" or ".join(near)}? ' if near else ''
        raise RuntimeError(
            f'TFDS has no data set {name!r}; {hint}All names: '
            'https://www.tensorflow.org/datasets/catalog'
        ) from None
    except (ValueError, AssertionError) as error:  # a configuration, a version
        known = tfds.builder_cls(name.partition('/')[0].partition(':')[0]).builder_configs
        hint = f'; its configurations are {", ".join(known)}' if known else ''
        raise RuntimeError(f'{name}: {_first_line(error)}{hint}') from None
    if builder.is_prepared():
        return _in_array_record(builder, name)
    builder = tfds.builder(name, data_dir=str(data), file_format='array_record')
    # TFDS's own builders need TensorFlow to unpack and to encode; a project's own one may not.
    theirs = type(builder).__module__.startswith('tensorflow_datasets.')
    if theirs and not importlib.util.find_spec('tensorflow'):
        raise RuntimeError(
            f"preparing {name} needs TensorFlow: pip install -e '.[prepare]' (only for preparing; "
            'training never imports it)'
        )
    # A directory for each set: TFDS's cache goes by file name alone, and Fashion-MNIST prepared
    # from MNIST's directory comes out as MNIST.
    downloads = download_dir or data / 'downloads' / builder.name
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    for line in _missing(builder, manual_dir):
        print(line, file=sys.stderr)
    try:
        builder.download_and_prepare(download_dir=str(downloads), download_config=config)
    except Exception as error:  # network, disk, hash and parse errors share no class
        raise RuntimeError(_explain(builder, name, error)) from error
    return Path(builder.data_dir)


def _in_array_record(builder, name: str) -> Path:
    if builder.info.file_format.value != 'array_record':
        raise RuntimeError(
            f'{builder.data_dir} holds {name} as {builder.info.file_format.value}; to prepare it '
            'as array_record, give another --data_dir or remove that folder'
        )
    return Path(builder.data_dir)


def _missing(builder, manual_dir: str | None) -> list[str]:
    """What a manual_dir lacks, as lines to print."""
    if not manual_dir:
        return []
    if not Path(manual_dir).is_dir():
        raise RuntimeError(f'{manual_dir}: there is no such folder; it should hold the raw files')
    lacking = [name for name in _raw_files(builder) if not (Path(manual_dir) / name).exists()]
    return [f'not in {manual_dir}, to be downloaded: {name}' for name in lacking]


def _raw_files(builder) -> list[str]:
    return sorted({info.filename for info in (builder.url_infos or {}).values() if info.filename})


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0] or type(error).__name__


def _explain(builder, name: str, error: Exception) -> str:
    what = _first_line(error)
    if re.search(r'\btensorflow\b', str(error)) and not importlib.util.find_spec('tensorflow'):
        return f"preparing {name} needs TensorFlow: pip install -e '.[prepare]' ({what})"
    if wanted := builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return f"{name} can't be prepared: {what}\nWhat a --manual_dir holds: {wanted}"
    names = _raw_files(builder)
    files = f' ({", ".join(names[:6])}{", ..." if len(names) > 6 else ""})' if names else ''
    return (
        f"{name} can't be prepared: {what}. Without a network, put the official raw files{files} "
        'in a folder and give it as --manual_dir'
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', help="such as 'mnist', 'domainnet/clipart', 'mnist:3.0.1'")
    parser.add_argument('--data_dir', help='where prepared sets live')
    parser.add_argument('--manual_dir', help='a folder of raw files that are here already')
    parser.add_argument('--download_dir', help='default: DATA_DIR/downloads/NAME')
    arguments = parser.parse_args(argv)
    try:
        folder = prepare(**vars(arguments))
    except RuntimeError as error:
        print(f'prepare: {error}', file=sys.stderr)
        return 1
    print(f'{arguments.name} is ready in {folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
