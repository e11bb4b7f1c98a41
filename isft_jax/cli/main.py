"""What every command shares: its flags, and errors as one clear line."""

import contextlib
import dataclasses
import difflib
import errno
import glob
import logging as std_logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, NoReturn

from absl import app, flags, logging
from absl.flags import FlagHolder
from ml_collections import config_flags

import isft_jax.configs as configs

# A command of a config, of the type that the command expects, and a workdir.
ConfigCommand = Callable[[Any, str], None]

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A file whose get_config() returns the settings, or the name of one that '
  'comes with the package. Any setting can be changed, as in --config.seed=1 '
  'or --config.mesh.fsdp=8.',
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where results go; by default runs/<name>-seed<seed>.'
)


def run(
  command: Callable[[], None], doc: str, flag_holders: Iterable[FlagHolder]
) -> None:
  """Runs a command as a program; a failure exits with 1.

  flag_holders: the flags that it reads, for --help.
  """

  def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    _hush()
    _spare_tpus(os.environ)
    try:
      command()
    except Exception as error:
      line = _as_line(error)
      if line is None:
        raise  # a bug of ours: its traceback says more
      fail(line if len(sys.argv) > 1 else f'{line} (--help shows how)')
    except KeyboardInterrupt as interrupt:
      print(f'\n{str(interrupt) or "interrupted"}', file=sys.stderr)
      sys.exit(130)

  sys.modules['__main__'].__doc__ = doc  # what absl prints for --help
  for holder in flag_holders:
    flag = flags.FLAGS[holder.name]
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  app.run(main, flags_parser=parse)


def run_config(
  command: ConfigCommand, doc: str, flag_holders: Iterable[FlagHolder] = ()
) -> None:
  """Runs command(config, workdir), both from flags, as a program.

  flag_holders: of other flags that it reads.
  """
  run(lambda: configured(command), doc, (CONFIG, WORKDIR, *flag_holders))


def configured(command: ConfigCommand) -> None:
  """Calls command(config, workdir), both from flags."""
  config = CONFIG.value
  if config is None:
    raise ValueError('name the settings, as in --config=configs/NAME.py')
  workdir = WORKDIR.value or f'runs/{config.name}-seed{config.seed}'
  with resumable(workdir):
    command(config, workdir)


@contextlib.contextmanager
def resumable(workdir: str) -> Iterator[None]:
  """Says, when its block is interrupted, that the command can go on."""
  try:
    yield
  except KeyboardInterrupt:
    raise KeyboardInterrupt(
      f'interrupted; the same command goes on from what is in {workdir}'
    ) from None


def parse(argv: list[str]) -> list[str]:
  """Parses the flags; what absl and ml_collections raise becomes one line."""
  argv = [_resolve(argument) for argument in argv]
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    fail(f'{error} (--help lists the flags)')
  except KeyError as error:
    fail(_unknown_field(str(error.args[0])))
  except Exception as error:  # whatever a config file does
    fail(f'the config file raised {type(error).__name__}: {error}')
  except SystemExit:
    sys.exit()  # absl exits with 1 where help was asked for and given
  if len(rest) > 1:
    fail(f'unexpected argument {rest[1]!r}; a flag is --NAME=VALUE')
  return rest


def _resolve(argument: str) -> str:
  """Finds the file of --config=FILE[:ARGUMENT], here or in the package."""
  found = re.fullmatch(r'(--?config=)([^:]*)(:.*)?', argument)
  if not found or not found[2] or pathlib.Path(found[2]).is_file():
    return argument
  folder = pathlib.Path(configs.__path__[0])
  packaged = folder / f'{found[2].removesuffix(".py")}.py'
  if packaged.is_file():
    return f'{found[1]}{packaged}{found[3] or ""}'
  names = sorted(path.stem for path in folder.glob('[!_]*.py'))
  fail(f'no config file {found[2]}; the package has {", ".join(names)}')


_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def _as_line(error: Exception) -> str | None:
  """Returns what to print of an error that a user can mend, else None."""
  text = str(error)
  if _is_full(error):
    return f'{text}; free some space, then run the same command: it goes on'
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in text:
    return (
      f'out of memory: {text.splitlines()[0]}; try fewer rows a step, shorter '
      'rows, config.model.remat=full or more devices in config.mesh.fsdp'
    )
  if isinstance(error, OSError):
    what = f'{error.filename or "writing"}: {error.strerror or error}'
    if error.errno in _FORBIDDEN:
      return f'{what}; {_remedy(error.filename)}'
    return what
  if isinstance(error, ValueError | FloatingPointError):
    return text
  return None


def _remedy(place: str | bytes | None) -> str:
  """Returns what to do about a place that may not be read or written."""
  if place and os.path.isfile(place) and not os.access(place, os.R_OK):
    return 'name a file that you may read'
  return 'name a place in a folder that you may write to'


def _is_full(error: BaseException | None) -> bool:
  # Libraries in C++ wrap what the system said in exceptions of their own.
  return any(os.strerror(number) in str(error) for number in _FULL)


def _hush() -> None:
  """Leaves it to the one line that `run` prints to say what went wrong.

  Orbax's threads log that a disk is full, and raise it again in ours. Their
  event loops end with it: writes that come back later find them closed. The
  hub tells twice, by two loggers, each time that it finds no network.
  """

  show = sys.unraisablehook

  def is_news(record: std_logging.LogRecord) -> bool:
    return not (record.exc_info and _is_full(record.exc_info[1]))

  def unraisable(lost: 'sys.UnraisableHookArgs') -> None:
    if repr(lost.exc_value) != "RuntimeError('Event loop is closed')":
      show(lost)

  std_logging.getLogger('huggingface_hub').propagate = False
  tries = std_logging.getLogger('huggingface_hub.utils._http')
  tries.addFilter(lambda record: 'thrown while requesting' not in record.msg)
  logging.get_absl_handler().addFilter(is_news)
  sys.unraisablehook = unraisable


def _spare_tpus(
  environ: MutableMapping[str, str],
  find: Callable[[str], list[str]] = glob.glob,
) -> None:
  """Where there is no TPU, keeps libtpu from asking the network for its kind.

  It would warn in six lines that nobody answers. Compiling needs libtpu alone.
  """
  if not find('/dev/accel*') and not find('/dev/vfio/[0-9]*'):
    environ.setdefault('TPU_SKIP_MDS_QUERY', '1')


def _unknown_field(message: str) -> str:
  found = re.match(
    r"Field (\w+) not found on dataclass <class '(.*)\.(\w+)'>", message
  )
  module = sys.modules.get(found[2]) if found else None
  holder = getattr(module, found[3], None) if found else None
  if not found or not holder:
    return message
  names = [field.name for field in dataclasses.fields(holder)]
  close = difflib.get_close_matches(found[1], names, n=1)
  hint = f'did you mean {close[0]}?' if close else f'it has {", ".join(names)}'
  return f'{found[3]} has no field {found[1]!r}; {hint}'


def fail(message: object) -> NoReturn:
  """Prints one line and exits with 1."""
  sys.exit('error: ' + ' '.join(str(message).split()))
