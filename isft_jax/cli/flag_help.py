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
  # absl puts the choices of an enum before the text, as in '<a|b>: '.
  text = re.sub('^<.*>: ', '', flag.help).removesuffix('.')
  text, _, default = text.partition(' (default ')
  # Details in parentheses: the choices, then the default.
  details = []
  if isinstance(flag.parser, flags.EnumParser):
    *others, last = filter(None, flag.parser.enum_values)
    details.append(f'{", ".join(others)} or {last}')
  if default:
    details.append(f'default {default.removesuffix(")")}')
  elif flag.default not in (None, '', []):
    details.append(f'default {_shown(flag.default)}')
  return f'{text} ({"; ".join(details)}).' if details else f'{text}.'


def _shown(default: object) -> str:
  # As a user would write the value in a flag.
  if isinstance(default, bool):
    return str(default).lower()
  if isinstance(default, list):
    return ','.join(default)
  return f'{default:g}' if isinstance(default, float) else str(default)
