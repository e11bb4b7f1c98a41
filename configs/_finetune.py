"""What the configs that fine-tune a model on your own trajectories share.

Full fine-tuning: parameters, gradients and Adam's moments are in float32, the
computation is in bfloat16, and all are sharded over all devices. The schedule
is conventional and was not tuned.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

from isft_jax.config import MeshConfig, OptimConfig, RunConfig
from isft_jax.models.presets import model_config

# Old names in an argument, which version 0.2 will no longer accept -> names.
_RENAMED = {'batch': 'batch_size', 'length': 'seq_len'}


def run_config(
  text: str,
  *,
  name: str,
  model: str,
  init_from: str,
  batch_size: int,
  seq_len: int,
  learning_rate: float,
  fsdp_at_most: int,
  fastest: Mapping[str, Any] | None = None,
) -> RunConfig:
  """Returns the settings of a fine-tuning run.

  Args:
    text: argument of the config, such as 'batch_size=8,seq_len=4096'; changes
      the batch size, the length of a row, and the devices that split a row.
      'fastest=1' takes the settings `fastest`.
    name: of the config.
    model: name of its shape in isft_jax/models/presets.py.
    init_from: id on the Hugging Face hub of the weights to start from.
    batch_size: rows per step.
    seq_len: tokens per row.
    learning_rate: after the warm-up; falls to 0 along a cosine.
    fsdp_at_most: see `MeshConfig`.
    fastest: settings that isft-compile --search found for the default batch:
      dotted field -> value. Without them the backward pass recomputes each
      layer, which needs the least memory, on any number of devices.

  Raises:
    ValueError: the argument has another form, or 'fastest=1' comes with another
      batch, or with a config for which nothing was searched.
  """
  defaults = {'batch_size': batch_size, 'seq_len': seq_len, 'context': 1}
  numbers = parse_numbers(text, **defaults, fastest=0)
  is_fastest = bool(numbers.pop('fastest'))
  if is_fastest and (not fastest or numbers != defaults):
    raise ValueError(
      'fastest=1 needs the default batch of a config that has FASTEST (got '
      f'{text!r}); leave it out, and use isft-compile --search'
    )
  config = RunConfig(
    name=name,
    batch_size=numbers['batch_size'],
    seq_len=numbers['seq_len'],
    targets_per_row=0,  # from the records
    epochs=2,
    eval_every=100,
    model=model_config(
      model, init_from=init_from, dtype='bfloat16', remat='full'
    ),
    mesh=MeshConfig(
      data=-1,
      fsdp=-1,
      context=numbers['context'],
      fsdp_at_most=fsdp_at_most,
    ),
    optim=OptimConfig(
      learning_rate=learning_rate, schedule='cosine', warmup_steps=20, b2=0.95
    ),
  )
  for path, value in (fastest or {}).items() if is_fastest else ():
    group, _, field = path.partition('.')
    setattr(getattr(config, group), field, value)
  return config


def parse_rank(text: str, *words: str) -> int:
  """Returns the rank in a config's argument 'lora=RANK'; 0 for any other word.

  Args:
    text: the argument.
    *words: other arguments that the config takes, besides an empty one.

  Raises:
    ValueError: the text is another word.
  """
  if text in ('', *words):
    return 0
  match = re.fullmatch(r'lora=([1-9]\d{0,3})', text)
  if not match:
    choices = ''.join(f'{word!r}, ' for word in words)
    raise ValueError(
      f"its argument must be {choices}'lora=RANK' with a rank from 1 to 9999, "
      f'or nothing (got {text!r})'
    )
  return int(match[1])


def parse_words(
  text: str, **choices: tuple[str, ...]
) -> tuple[dict[str, str], str]:
  """Returns the words in a config's argument, and what is left of it.

  Args:
    text: comma-separated NAME=VALUE, in any order.
    **choices: values allowed for each name; the first is its default.

  Returns:
    (the value of each name, the items with other names).

  Raises:
    ValueError: a value is not allowed.
  """
  words = {name: values[0] for name, values in choices.items()}
  rest = []
  for item in filter(None, text.split(',')):
    name, _, value = item.partition('=')
    if name not in choices:
      rest.append(item)
      continue
    if value not in choices[name]:
      raise ValueError(
        f'its {name} must be one of {", ".join(choices[name])} (got {value!r})'
      )
    words[name] = value
  return words, ','.join(rest)


def parse_numbers(text: str, **defaults: int) -> dict[str, int]:
  """Returns the numbers in a config's argument: 'batch_size=8,seq_len=4096'.

  Args:
    text: comma-separated NAME=NUMBER, in any order.
    **defaults: the names allowed, and the numbers of those that are missing.

  Raises:
    ValueError: a name or a number is not allowed.
  """
  numbers = dict(defaults)
  for item in filter(None, text.split(',')):
    name, _, value = item.partition('=')
    if name in _RENAMED:
      warnings.warn(
        f'{name} is the old name of {_RENAMED[name]}; write '
        f'{item.replace(name, _RENAMED[name])}',
        FutureWarning,
        stacklevel=2,
      )
      name = _RENAMED[name]
    if name not in defaults or not value.isdecimal():
      forms = ', '.join(f'{name}=NUMBER' for name in defaults)
      raise ValueError(f'its argument must be one of {forms} (got {item!r})')
    numbers[name] = int(value)
  return numbers
