"""Trains a config, or goes on with it.

    python launch/train.py --config configs/quickstart.py --workdir runs/quickstart
    python launch/train.py --config configs/folder.py:PATH --workdir DIR --config.steps=500

Exit codes: 0 finished; 1 a loss was not finite (or, with a traceback, a fault of the program);
2 bad input; 75 stopped by SIGTERM with everything saved, so that the same command goes on.
"""

import os
import re
import shlex
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from absl import flags, logging  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from tljax.signals import STOPPED, exit_on_sigterm  # noqa: E402


def main(argv: list[str]) -> int:
    if {'-h', '--help', '--helpfull'} & set(argv):
        print(__doc__)
        return 0
    try:
        config, directory = parse(argv)
        return train(config, directory, 'python launch/train.py ' + shlex.join(argv[1:]))
    except (ValueError, FloatingPointError) as error:
        # What our own code raises is for the user to read; what a library raises is a fault.
        raised = traceback.extract_tb(error.__traceback__)[-1]
        meant = raised.filename.startswith(str(ROOT)) and raised.line.startswith('raise ')
        if os.environ.get('TLJAX_TRACEBACK') or not meant:
            raise
        print(f'(TLJAX_TRACEBACK=1 shows where)\nerror: {error}', file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2


def train(config, directory: Path, command: str) -> int:
    # Imported late, so that --help and a bad flag answer at once.
    import jax

    from tljax import console, hosts, loop, study

    logging.set_verbosity(logging.ERROR)
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/tljax/xla'))
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
    hosts.start()
    console.CONSOLE.quiet = not hosts.leads()
    try:
        study.run(config, directory, command)
    except loop.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    return 0


def parse(argv: list[str]):
    """The config and the run directory that a command line names.

    Raises:
      ValueError: a flag, a config file or a value that cannot be.
    """
    # 'from' is a word of Python, which the flags' parser would stumble over.
    argv = [re.sub(r'\.from\b(?==|$)', "['from']", argument) for argument in argv]
    found = flags.FlagValues()
    config_flags.DEFINE_config_file('config', '', flag_values=found, sys_argv=[''])
    flags.DEFINE_string('workdir', '', 'The run directory.', flag_values=found)
    path = re.search(r'(?:^|\0)--?config[=\0]([^\0:]*)', '\0'.join(argv))
    if path and not Path(path[1]).is_file():
        raise ValueError(f'--config {path[1]}: there is no such file')
    try:
        rest = found(argv, known_only=True)
        config, extra = changed(found.config, rest) if path else (None, [])
    except Exception as error:  # a config file may raise anything
        raise ValueError(explain(error, path[1] if path else '')) from error
    if not path or not found.workdir:
        missing = 'workdir' if path else 'config'
        raise ValueError(f'--{missing} is missing; see python launch/train.py --help')
    if extra:
        raise ValueError(f'unexpected arguments: {" ".join(extra)}')
    return config, Path(found.workdir)


def changed(config, argv: list[str]):
    """The config with the changes --config.KEY=VALUE, and the other arguments."""
    config.unlock()
    for argument in argv[1:]:
        keys = re.findall(r"[^.\['\]]+", argument.partition('=')[0])[1:]
        if keys[:1] == ['runs'] and len(keys) > 2 and keys[1] in config.get('runs', ()):
            run = config.runs[keys[1]]  # which names no more than its file changes
            for key in keys[2:-1]:
                if key not in run:
                    run[key] = {}
                run = run[key]
    found = flags.FlagValues()
    # New keys pass here: tljax.config.checked tells the unknown ones, and what would be near.
    new = {'lock_config': False, 'accept_new_attributes': True}
    config_flags.DEFINE_config_dict('config', config, flag_values=found, sys_argv=argv, **new)
    flags.DEFINE_string('workdir', '', 'For hints at what is misspelt.', flag_values=found)
    extra = found(argv)[1:]
    return found.config, extra


def explain(error: Exception, file: str) -> str:
    """What went wrong with the flags, or on which line of the config file."""
    trace = ''.join(traceback.format_exception(error)).strip()
    lines = re.findall(rf'File "{re.escape(file)}", line (\d+)', trace) if file else ()
    if lines:
        what = trace.rpartition('\n')[2].removeprefix('ValueError: ')
        return f'{file}, line {lines[-1]}: {what}'
    if isinstance(error, LookupError | AttributeError):
        key = str(error.args[0]).partition('\n')[0].strip('\'"')
        return f'the config has no {key!r}; tljax/config.py has every key'
    return str(error)


if __name__ == '__main__':
    exit_on_sigterm()
    sys.exit(main(sys.argv))
