"""Help for the flags of a command: one sentence and the default of each."""

import re
import textwrap

from absl import flags

from isft_jax.cli.config_help import WIDTH


def describe(flag: flags.Flag) -> str:
  """Returns the help of a flag, as in '  --batch: Prompts (default 16).'"""
  name = f'[no]{flag.name}' if flag.boolean else flag.name
  return textwrap.fill(
    f'--{name}: {sentence(flag)}',
    WIDTH,
    initial_indent='  ',
    subsequent_indent='    ',
    break_on_hyphens=False,
    break_long_words=False,
  )


def sentence(flag: flags.Flag) -> str:
  """Returns the help text of a flag, with its choices and its default.

  A text that describes the default itself, as in '(default all)', keeps that
  description, because the value of its flag is then None or empty.
  """
  # absl puts the choices of an enum before the text, as in '<a|b>: '. An empty
  # choice is none that a user would name.
  text = re.sub('^<.*>: ', '', flag.help).removesuffix('.')
  text, _, default = text.partition(' (default ')
  if isinstance(flag.parser, flags.EnumParser):
    text = f'<{"|".join(filter(None, flag.parser.enum_values))}>: {text}'
  default = default.removesuffix(')')
  if not default and flag.default not in (None, '', []):
    default = _shown(flag.default)
  return f'{text} (default {default}).' if default else f'{text}.'


def _shown(default: object) -> str:
  # As a user would write the value in a flag.
  if isinstance(default, bool):
    return str(default).lower()
  if isinstance(default, list):
    return ','.join(default)
  return f'{default:g}' if isinstance(default, float) else str(default)
