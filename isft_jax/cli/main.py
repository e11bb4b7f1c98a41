"""Flags, help and one-line errors shared by all commands.

A command calls `run`, or `run_config` if it takes a config and a workdir.
"""

import ast
import contextlib
import difflib
import errno
import functools
import glob
import importlib.metadata
import logging as std_logging
import os
import pathlib
import platform
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from absl.flags import FlagHolder
from ml_collections import config_flags

import isft_jax
import isft_jax.configs as configs
from isft_jax import terminal
from isft_jax.cli import config_help, flag_help, streams
from isft_jax.config import RENAMED

# command(config, workdir), where config is of a type that the command expects.
ConfigCommand = Callable[[Any, str], None]

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'Name of a packaged config, or path of a file with get_config(). Fields are '
  'set with --config.FIELD=VALUE, and listed by --config=NAME --help.',
)
WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder of the run (default runs/NAME-seedSEED, with the name and seed of '
  'the config).',
)
# Spellings that absl accepts; --helpfull, which lists all flags, is left to it.
_HELP = '-h', '--help', '-help', '--helpshort', '-helpshort'


def run(
  command: Callable[..., None],
  doc: str,
  flag_holders: Sequence[FlagHolder],
  config_types: tuple[type, ...] = (),
  is_lasting: bool = False,
  takes_arguments: bool = False,
) -> None:
  """Runs a command as a program, which exits with 1 if it fails.

  Args:
    command: called after flags are parsed, with the arguments that are no
      flags.
    doc: text for --help.
    flag_holders: flags that the command reads, for --help.
    config_types: dataclasses that --config may return, the usual one first.
    is_lasting: whether it continues when nobody reads stdout any more.
    takes_arguments: whether it takes arguments that are no flags.
  """

  def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    _hush()
    _spare_tpus(os.environ)
    try:
      command(*argv[1:])
    except Exception as error:
      line = _as_line(error)
      if line is None:
        raise  # a bug in isft_jax: the traceback helps more than one line
      fail(line if len(sys.argv) > 1 else f'{line} (--help shows how)')
    except KeyboardInterrupt as interrupt:
      print(f'\n{str(interrupt) or "interrupted"}', file=sys.stderr)
      sys.exit(130)

  # absl prints the docstring of __main__, and the key flags of argv[0].
  sys.modules['__main__'].__doc__ = doc
  for holder in flag_holders:
    flag = flags.FLAGS[holder.name]
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  # absl calls the parser before `main`.
  parser = functools.partial(
    parse,
    doc=doc,
    flag_holders=flag_holders,
    config_types=config_types,
    takes_arguments=takes_arguments,
  )
  # It removes other handlers of stderr, which it knows by their stream: so it
  # comes before stderr is another one.
  logging.use_absl_handler()
  with streams.guarded(is_lasting):
    # From here on, no text of data can control the terminal.
    terminal.guard()
    logging.get_absl_handler().python_handler.setStream(sys.stderr)
    app.run(main, flags_parser=parser)


def run_config(
  command: ConfigCommand,
  doc: str,
  flag_holders: Sequence[FlagHolder] = (),
  config_types: tuple[type, ...] = (),
  is_lasting: bool = False,
) -> None:
  """Runs command(config, workdir), both taken from flags, as a program.

  Args:
    command: called after flags are parsed.
    doc: text for --help.
    flag_holders: flags that the command reads besides --config and --workdir.
    config_types: dataclasses that --config may return, the usual one first.
    is_lasting: whether it continues when nobody reads stdout any more.
  """
  holders = CONFIG, WORKDIR, *flag_holders
  run(lambda: configured(command), doc, holders, config_types, is_lasting)


def configured(command: ConfigCommand) -> None:
  """Calls command(config, workdir), both taken from flags."""
  config = CONFIG.value
  if config is None:
    raise ValueError('name the settings, as in --config=configs/NAME.py')
  # The default is the same for every run of a config and a seed.
  workdir = WORKDIR.value or f'runs/{config.name}-seed{config.seed}'
  with resumable(workdir):
    command(config, workdir)


@contextlib.contextmanager
def resumable(workdir: str) -> Iterator[None]:
  """Adds to an interrupt of its block that the command can be resumed."""
  try:
    yield
  except KeyboardInterrupt:
    raise KeyboardInterrupt(
      f'interrupted; run the same command again to resume from {workdir}'
    ) from None


def parse(
  argv: list[str],
  doc: str = '',
  flag_holders: Sequence[FlagHolder] = (),
  config_types: tuple[type, ...] = (),
  takes_arguments: bool = False,
) -> list[str]:
  """Parses flags, prints help, and reports an error on one line.

  Args:
    argv: program and arguments.
    doc, flag_holders, config_types, takes_arguments: see `run`.

  Returns:
    argv without flags: the program, and arguments if the command takes any.
  """
  # Help and versions work without valid flags; arguments after -- are no flags.
  argv, warnings = _with_new_names(_with_config_path(argv))
  sys.argv[:] = argv  # where ml_collections looks for --config.FIELD
  until = argv.index('--') if '--' in argv else len(argv)
  asked = set(argv[1:until])
  if asked & {'--version', '-version'}:
    print(version())
    sys.exit()
  # Only commands with a config can list its fields.
  takes_config = _takes_config(flag_holders)
  if takes_config and asked & {'--config.help', '-config.help'}:
    print(_fields_help(argv, config_types))
    sys.exit()
  if asked.intersection(_HELP):
    print(_help(argv, doc, flag_holders, config_types))
    sys.exit()
  # Everything else is parsed by absl, whose errors get a hint.
  try:
    rest = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    config = _default_config(argv, config_types) if takes_config else None
    fail(_unknown_flag(error.flagname, flag_holders, config))
  except flags.Error as error:
    fail(f'{_without_traceback(str(error))} (--help lists the flags)')
  except Exception as error:  # an unknown field, or any error of a config file
    fail(_unknown_field(argv) or _config_file_error(error))
  except SystemExit:
    sys.exit()  # absl exits with 1 after --helpfull
  if takes_config:
    _check_type(argv, config_types)
  for warning in warnings:
    print(f'warning: {warning}', file=sys.stderr)
  # Most commands have only flags: an argument is a flag without dashes.
  if len(rest) > 1 and not takes_arguments:
    fail(f'unexpected argument {rest[1]!r}; a flag is --NAME=VALUE')
  return rest


def _check_type(argv: list[str], config_types: tuple[type, ...]) -> None:
  """Ends with one line if the config is of a type that the command refuses."""
  path = _config_argument(argv)
  config = CONFIG.value
  if not path or not config_types or isinstance(config, config_types):
    return
  names = ' or '.join(each.__name__ for each in config_types)
  fail(
    f'get_config() of {path.partition(":")[0]} returns '
    f'{"None" if config is None else f"a {type(config).__name__}"}, and '
    f'{pathlib.Path(sys.argv[0]).name} needs a {names}; --help lists the '
    'packaged configs that it takes'
  )


def add_default_config(argv: Sequence[str], name: str) -> list[str]:
  """Returns argv with --config=NAME if it sets fields, but names no config."""
  names_config = any(re.match('--?config(=|$)', each) for each in argv)
  sets_fields = any(re.match(r'--?(no)?config\.\w', each) for each in argv)
  if names_config or not sets_fields or '--config.help' in argv:
    return [*argv]
  return [argv[0], f'--config={name}', *argv[1:]]


def _with_config_path(argv: list[str]) -> list[str]:
  """Replaces `--config NAME` and `--config=NAME[:ARGUMENT]` by a file path."""
  # absl needs --config=FILE as one argument.
  joined: list[str] = []
  for argument in argv:
    is_value = bool(joined) and not argument.startswith('-')
    if is_value and joined[-1] in ('--config', '-config'):
      joined[-1] += f'={argument}'
    else:
      joined.append(argument)
  return [_resolve(argument) for argument in joined]


def _resolve(argument: str) -> str:
  """Returns --config=FILE[:ARGUMENT] with a file, here or in the package."""
  match = re.fullmatch(r'(--?config=)([^:]*)(:.*)?', argument)
  if not match or not match[2]:
    return argument
  if pathlib.Path(match[2]).is_file():
    if not match[2].endswith('.py'):
      fail(
        f'{match[2]}: a config is a Python file with get_config(); write one '
        'like those in configs/, and change single fields with --config.FIELD'
      )
    return argument
  # Not a file here: a packaged config, with or without .py.
  name = match[2].removesuffix('.py')
  packaged = {path.stem: path for path in _packaged()}
  if name in packaged:
    return f'{match[1]}{packaged[name]}{match[3] or ""}'
  fail(f'no config file {match[2]}; the package has {", ".join(packaged)}')


def _with_new_names(argv: list[str]) -> tuple[list[str], list[str]]:
  """Replaces old names of fields in flags; returns argv and warnings."""
  argv = list(argv)
  until = argv.index('--') if '--' in argv else len(argv)
  renamed, written = [], set()  # fields under old names, and under new ones
  for index, argument in enumerate(argv[:until]):
    match = re.match(r'--?((?:no)?config\.(?:\w+\.)*)(\w+)(?![\w.])', argument)
    if match and match[2] in RENAMED:
      old, new = (match[1] + name for name in (match[2], RENAMED[match[2]]))
      renamed.append((old, new))
      argv[index] = f'--{new}{argument[match.end() :]}'
    elif match:
      written.add(match[1] + match[2])
  for old, new in renamed:
    if new in written:
      fail(f'--{old} is the old name of --{new}; give only --{new}')
  return argv, [
    f'--{old} is the old name of --{new}; version 0.2 will not accept it'
    for old, new in dict.fromkeys(renamed)
  ]


def _packaged() -> list[pathlib.Path]:
  """Returns the files of the packaged configs."""
  return sorted(pathlib.Path(configs.__path__[0]).glob('[!_]*.py'))


def version() -> str:
  """Returns the versions of isft_jax, JAX and Python."""
  # From its metadata: to import jax takes a second.
  jax = importlib.metadata.version('jax')
  python = platform.python_version()
  return f'isft_jax {isft_jax.__version__}, jax {jax}, Python {python}'


# ------------------------------------------------------------------------- help


def _help(
  argv: list[str],
  doc: str,
  flag_holders: Sequence[FlagHolder],
  config_types: tuple[type, ...],
) -> str:
  """Returns the text of --help: description, flags, configs or fields."""
  holders = sorted(flag_holders, key=lambda holder: holder.name)
  listed = [flag_help.describe(flags.FLAGS[holder.name]) for holder in holders]
  blocks = [
    doc.strip(),
    'Flags:\n' + '\n'.join(listed),
    '--version prints versions; --helpfull also lists flags of libraries.',
  ]
  # With a config its fields are listed, without one the configs.
  if _takes_config(flag_holders):
    if _config_argument(argv):
      blocks.append(_fields_help(argv, config_types))
    else:
      blocks.append(_configs_help(config_types))
  return '\n\n'.join(blocks)


def _takes_config(flag_holders: Sequence[FlagHolder]) -> bool:
  return CONFIG.name in [holder.name for holder in flag_holders]


def _configs_help(config_types: tuple[type, ...]) -> str:
  """Returns the packaged configs that a command accepts, one per line."""
  lines = ['Packaged configs (--config=NAME --help lists their fields):']
  paths = [path for path in _packaged() if _suits(path, config_types)]
  width = max(len(path.stem) for path in paths)
  for path in paths:
    # Parsed, not imported: only the first line of the docstring is needed.
    doc = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    lines += textwrap.wrap(
      f'{path.stem:{width}}  {doc.partition(chr(10))[0]}',
      config_help.WIDTH,
      initial_indent='  ',
      subsequent_indent=' ' * (width + 4),
      break_on_hyphens=False,
    )
  return '\n'.join(lines)


def _suits(path: pathlib.Path, config_types: tuple[type, ...]) -> bool:
  # A config file imports no jax, so that it runs quickly.
  config = runpy.run_path(str(path))['get_config']()
  return isinstance(config, config_types or object)


def _fields_help(argv: list[str], config_types: tuple[type, ...]) -> str:
  """Returns the fields of the config in argv, or of the usual type."""
  path = _config_argument(argv)
  try:
    config = _default_config(argv, config_types)
  except Exception as error:
    fail(_config_file_error(error))
  if config is None:
    fail('name the config whose fields to list, as in --config=NAME --help')
  name = pathlib.Path(path.partition(':')[0]).stem
  holder = f'the config {name}' if name else type(config).__name__
  return (
    f'Fields of {holder} (--config.FIELD=VALUE sets one):\n\n'
    + config_help.describe(config)
  )


def _config_argument(argv: list[str]) -> str:
  """Returns FILE[:ARGUMENT] of --config, or '' if it is not set."""
  for argument in argv[1:]:
    if match := re.fullmatch(r'--?config=(.+)', argument):
      return match[1]
  return ''


def _default_config(argv: list[str], config_types: tuple[type, ...]) -> Any:
  """Returns the config in argv without overrides, or one of the usual type."""
  path = _config_argument(argv)
  if not path:
    return config_types[0]() if config_types else None
  # The parser of ml_collections runs the file with its ARGUMENT.
  return flags.FLAGS[CONFIG.name].parser.parse(path)


# Error numbers of a full disk, file or quota, and of missing permissions.
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def _as_line(error: Exception) -> str | None:
  """Returns a line with a remedy for a user's error, or None for a bug."""
  text = str(error)
  if _is_full(error):
    return f'{text}; free some space, then run the same command to resume'
  # jaxlib reports a full device as XlaRuntimeError with this word.
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in text:
    return (
      f'out of memory: {text.splitlines()[0]}; try fewer rows per step, '
      'shorter rows, config.model.remat=full or more devices in '
      'config.mesh.fsdp'
    )
  if isinstance(error, OSError):
    line = f'{error.filename or "writing"}: {error.strerror or error}'
    if error.errno in _FORBIDDEN:
      return f'{line}; {_remedy(error.filename)}'
    return line
  # Our own checks raise these two, with a message for the user.
  if isinstance(error, ValueError | FloatingPointError):
    return text
  return None


def _remedy(place: str | bytes | None) -> str:
  """Returns advice for a path without permission to read or write."""
  if place and os.path.isfile(place) and not os.access(place, os.R_OK):
    return 'name a file that you may read'
  return 'name a place in a folder that you may write to'


def _is_full(error: BaseException | None) -> bool:
  # C++ libraries put the system's message into exceptions of their own.
  return any(os.strerror(number) in str(error) for number in _FULL)


# What a thread raises that still runs when the main thread has ended.
_TOO_LATE = 'cannot schedule new futures after'


def _hush() -> None:
  """Silences messages of libraries that repeat the error that `run` prints.

  If a disk is full, Orbax's threads log it and then raise it again in our
  thread. Their event loops close, and pending writes complain about that; so
  does a thread that would start another one after our last line. If the network
  is down, two loggers of huggingface_hub report each attempt.
  """
  show_unraisable = sys.unraisablehook

  def is_not_repeated(record: std_logging.LogRecord) -> bool:
    error = record.exc_info and record.exc_info[1]
    return not error or not (_is_full(error) or _TOO_LATE in str(error))

  def unraisable(args: 'sys.UnraisableHookArgs') -> None:
    if repr(args.exc_value) != "RuntimeError('Event loop is closed')":
      show_unraisable(args)

  std_logging.getLogger('huggingface_hub').propagate = False
  http = std_logging.getLogger('huggingface_hub.utils._http')
  http.addFilter(lambda record: 'thrown while requesting' not in record.msg)
  logging.get_absl_handler().addFilter(is_not_repeated)
  sys.unraisablehook = unraisable


def _spare_tpus(
  environ: MutableMapping[str, str],
  find: Callable[[str], list[str]] = glob.glob,
) -> None:
  """Stops libtpu from querying TPU metadata on a machine without a TPU.

  The query would time out with six lines of warnings; four remain if it is
  skipped and the other two are not set. isft-compile uses libtpu on machines
  without a TPU.
  """
  if not find('/dev/accel*') and not find('/dev/vfio/[0-9]*'):
    environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-1')
    environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')


def _without_traceback(text: str) -> str:
  """Returns an error of a flag without the traceback of a config file in it.

  ml_collections puts the traceback of `get_config` into its message. The last
  line is the error itself, such as 'ValueError: its argument must be ...'.
  """
  flag, traceback, rest = text.partition('Traceback (most recent call last):')
  if not traceback:
    return text
  lines = [line for line in rest.splitlines() if line.strip()]
  words = re.sub(r'^[\w.]+: ', '', lines[-1].strip()) if lines else ''
  name = flag.partition(': ')[0]
  return f'{name}: {words}'


def _unknown_flag(
  name: str, flag_holders: Sequence[FlagHolder], config: Any
) -> str:
  """Returns one line that suggests a flag or a config field."""
  # --learning_rate suggests --config.optim.learning_rate.
  hints = config_help.suggest(config, name) if config else []
  # A field of exactly this name comes before flags with a similar name.
  if not any(hint.endswith(f'.{name}') for hint in hints):
    names = [holder.name for holder in flag_holders]
    close = difflib.get_close_matches(name, names, n=1)
    hints = [*(f'--{each}' for each in close), *hints]
  hint = config_help.did_you_mean(hints) or '--help lists the flags'
  return f'unknown flag --{name}; {hint}'


def _config_file_error(error: Exception) -> str:
  return f'the config file raised {type(error).__name__}: {error}'


def _unknown_field(argv: list[str]) -> str | None:
  """Returns one line about the first --config.FIELD that does not exist."""
  try:
    config = _default_config(argv, ())
  except Exception:  # a config file may raise anything
    return None
  # Booleans are also written as --noconfig.FIELD.
  for argument in argv[1:]:
    match = re.match(r'--?(?:no)?(config\.[\w.]+)', argument)
    if match and (line := config_help.explain_unknown(config, match[1])):
      return line
  return None


def fail(message: object) -> NoReturn:
  """Prints one line and exits with 1."""
  # Messages of libraries have line breaks; one line is easier to search for.
  sys.exit(f'error: {terminal.safe_line(str(message))}')
