"""Prepares a TFDS data set once, so that `tfds:NAME` reads it from then on without TensorFlow.

    pip install 'tljax[prepare]'
    python launch/prepare.py mnist
    python launch/prepare.py mnist --data_dir data --manual_dir mnist_files   # without a network

The files are written as ArrayRecord to DATA_DIR/NAME/VERSION (`$TFDS_DATA_DIR` or
~/tensorflow_datasets where no --data_dir is given). A manual_dir holds the official raw files under
their own names; their hashes are checked, and only what it lacks is downloaded.
"""

import argparse
import difflib
import importlib.util
import os
import re
import sys
from pathlib import Path


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

    data = Path(data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()
    try:
        builder = tfds.builder(name, data_dir=str(data))
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, re.findall(r'- (\S+)', str(error)))
        hint = f'did you mean {" or ".join(near)}? ' if near else ''
        raise RuntimeError(
            f'TFDS has no data set {name!r}; {hint}All names: '
            'https://www.tensorflow.org/datasets/catalog'
        ) from None
    if builder.is_prepared():
        return _in_array_record(builder, name)
    builder = tfds.builder(name, data_dir=str(data), file_format='array_record')
    # TFDS's own builders need TensorFlow to unpack and to encode; a project's own one may not.
    theirs = type(builder).__module__.startswith('tensorflow_datasets.')
    if theirs and not importlib.util.find_spec('tensorflow'):
        raise RuntimeError(
            f"preparing {name} needs TensorFlow: pip install 'tljax[prepare]' (only for preparing; "
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


def _explain(builder, name: str, error: Exception) -> str:
    what = str(error).strip().partition('\n')[0] or type(error).__name__
    if 'tensorflow' in str(error) and not importlib.util.find_spec('tensorflow'):
        return f"preparing {name} needs TensorFlow: pip install 'tljax[prepare]' ({what})"
    names = _raw_files(builder)
    files = f' ({", ".join(names[:6])}{", ..." if len(names) > 6 else ""})' if names else ''
    return (
        f"{name} can't be prepared: {what}. Without a network, put the official raw files{files} "
        'in a folder and give it as --manual_dir'
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('name', help="a TFDS name, 'mnist', or 'domainnet/clipart', 'mnist:3.0.1'")
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
