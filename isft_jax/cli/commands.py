"""Runs a command by its name: `isft train` is the same as `isft-train`.

isft COMMAND [FLAGS]
isft COMMAND --help
python -m isft_jax COMMAND [FLAGS]
"""

import ast
import difflib
import pathlib
import pkgutil
import sys
import textwrap

import isft_jax
from isft_jax.cli import streams

# In the order in which a newcomer needs them.
NAMES = (
  *('inspect', 'diff', 'prepare', 'train', 'report', 'generate', 'probe'),
  *('export', 'compile', 'reproduce', 'theory'),
)


def main() -> None:
  """Runs the console script isft, importing only the command that it names."""
  name, *arguments = sys.argv[1:] or ['--help']
  if name in ('-h', '--help', 'help'):
    _print(overview())
    return
  if name == '--version':
    # Imported late: --help need not wait for absl.
    from isft_jax.cli import main as main_lib

    _print(main_lib.version())
    return
  name = name.removeprefix('isft-')
  if name not in NAMES:
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f'did you mean {close[0]}?' if close else f'use {", ".join(NAMES)}'
    sys.exit(f'error: unknown command {name!r}; {hint}')
  # Usage lines and errors then show the name of the command's own script.
  sys.argv = [f'isft-{name}', *arguments]
  pkgutil.resolve_name(f'isft_jax.cli.{name}:run')()


def _print(text: str) -> None:
  with streams.guarded():
    print(text)


def overview() -> str:
  """Returns the usage and one line per command, from its module docstring."""
  usage = textwrap.dedent(__doc__.partition('\n\n')[2]).rstrip()
  lines = [isft_jax.__doc__.partition('\n')[0], '']
  lines += [textwrap.indent(usage, '  '), '', 'Commands:']
  for name in NAMES:
    # Parsed, not imported: two commands may define a flag of the same name.
    source = pathlib.Path(__file__).with_name(f'{name}.py').read_text('utf-8')
    docstring = ast.get_docstring(ast.parse(source)) or ''
    summary = docstring.partition('\n')[0]
    lines += textwrap.wrap(
      f'{name:10}  {summary}',
      80,
      initial_indent='  ',
      subsequent_indent=' ' * 14,
    )
  return '\n'.join(lines)
