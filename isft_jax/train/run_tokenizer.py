"""Keeps the tokenizer and the chat template of a run in its workdir.

    workdir/tokenizer/       tokenizer of the records, saved by transformers
    workdir/rendering.json   how their text was made; it is written last

A model can then be used, exported and moved after its records are gone.
"""

import copy
import json
import tempfile
from collections.abc import Mapping
from typing import Any

from etils import epath

from isft_jax import files
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer

_FOLDER = 'tokenizer'
_RENDERING = 'rendering.json'


def write(
  workdir: epath.PathLike,
  tokenizer: FastTokenizer,
  rendering: Mapping[str, Any],
  fingerprint: str,
) -> None:
  """Writes both into a workdir, unless they are there already.

  Args:
    workdir: folder of the run, on disk or in a bucket.
    tokenizer: the tokenizer of the records.
    rendering: `Renderer.rendering` of the records; {} for very old records.
    fingerprint: fingerprint of both, from the records.
  """
  workdir = epath.Path(workdir)
  content = {'fingerprint': fingerprint, 'rendering': dict(rendering)}
  if read_rendering(workdir) == content:
    return
  folder = workdir / _FOLDER
  # transformers writes to disks only.
  with tempfile.TemporaryDirectory() as scratch:
    # A copy: the tokenizer of the caller stays as it is.
    saved = copy.deepcopy(tokenizer)
    saved.chat_template = rendering.get('template', saved.chat_template)
    saved.save_pretrained(scratch)
    _copy(epath.Path(scratch), folder)
  text = json.dumps(content, indent=1) + '\n'
  files.write_atomically(workdir / _RENDERING, text)


def read_rendering(workdir: epath.PathLike) -> dict[str, Any] | None:
  """Returns `fingerprint` and `rendering` of a run; None if it has none.

  Raises:
    ValueError: the file is damaged.
  """
  path = epath.Path(workdir) / _RENDERING
  if not path.exists():
    return None
  try:
    content = json.loads(path.read_text())
    if not isinstance(content['rendering'], dict):
      raise ValueError('"rendering" is not an object')
    return {name: content[name] for name in ('fingerprint', 'rendering')}
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{path} is damaged ({error}); remove it, and the run writes it again'
    ) from error


def load(workdir: epath.PathLike) -> FastTokenizer | None:
  """Loads the tokenizer of a run; None if its workdir has none.

  Raises:
    ValueError: the tokenizer is damaged.
  """
  folder = epath.Path(workdir) / _FOLDER
  if read_rendering(workdir) is None:
    return None
  # Remote files are copied, because transformers reads disks only.
  if '://' not in str(folder):
    return tokenizer_lib.load(str(folder))
  with tempfile.TemporaryDirectory() as scratch:
    _copy(folder, epath.Path(scratch))
    return tokenizer_lib.load(scratch)


def _copy(source: epath.Path, target: epath.Path) -> None:
  """Copies the files of a folder and of those below it."""
  target.mkdir(parents=True, exist_ok=True)
  for path in source.iterdir():
    if path.is_dir():
      _copy(path, target / path.name)
    else:
      files.write_atomically(target / path.name, path.read_bytes())
