"""Trains a config, or goes on with it.

    python launch/train.py --config configs/quickstart.py --workdir runs/quickstart
    python launch/train.py --config configs/folder.py:PATH --workdir DIR --config.steps=500

Exit codes: 0 finished; 1 a loss was not finite; 2 bad input; 75 stopped by SIGTERM with everything
saved, so the same command goes on.
"""

import os
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from absl import app, flags, logging  # noqa: E402
from ml_collections import config_flags  # noqa: E402

CONFIG = config_flags.DEFINE_config_file('config', None, 'A file in configs/, with its argument.')
WORKDIR = flags.DEFINE_string('workdir', None, 'The run directory: made, or gone on with.')

STOPPED = 75  # EX_TEMPFAIL: try again


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    # Imported late, so that --help and a bad config key answer at once.
    import jax

    from tljax import loop, sharding, study

    logging.set_verbosity(logging.ERROR)
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/tljax/xla'))
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
    sharding.start()
    command = 'python launch/train.py ' + shlex.join(sys.argv[1:])
    try:
        study.run(CONFIG.value, Path(WORKDIR.value), command)
    except loop.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    except (ValueError, FloatingPointError) as error:
        if os.environ.get('TLJAX_TRACEBACK'):
            raise
        print(f'error: {error}\n(TLJAX_TRACEBACK=1 shows where)', file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    return 0


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'workdir'])
    # 'from' is a word of Python, which the flag's parser would stumble over.
    arguments = [re.sub(r'\.from\b(?==|$)', "['from']", argument) for argument in sys.argv]
    app.run(lambda argv: sys.exit(main(argv)), arguments)
