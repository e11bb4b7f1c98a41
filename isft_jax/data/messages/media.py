"""Rejects rows with images, videos or audio, which have no text.

The model that wrote the row saw them, so that the text without them says
something else. Only the text of a row can become tokens.
"""

import re
from collections.abc import Collection, Mapping

from isft_jax.data.messages.conversation import Malformed

_KINDS = ('image', 'video', 'audio')
# Keys of a row, of a message or of a part of its content.
KEYS = frozenset(
  (
    *(kind + ending for kind in _KINDS for ending in ('', 's')),
    *(
      f'{kind}_{ending}'
      for kind in _KINDS
      for ending in ('url', 'urls', 'path', 'paths', 'file', 'files')
    ),
    *('input_image', 'input_audio', 'pixel_values', 'multi_modal_data'),
  )
)
# Files of any type in a message are something that the model saw, too.
_MESSAGE_KEYS = KEYS | {'attachments', 'experimental_attachments'}
# A text under `image` may be the name of a container, as 'ubuntu:22.04'.
_NAMED = ('image', 'image_file', 'image_path')
# A URL, 1,000 characters of base64, or the name of an image file.
_IS_IMAGE = re.compile(
  r'^(data:|https?://|[A-Za-z0-9+/=\s]{1000})'
  r'|\.(jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif)\b',
  re.IGNORECASE,
)


def check_row(row: object) -> None:
  """Checks that a row has no images, videos or audio beside its messages.

  Args:
    row: a JSON value.

  Raises:
    Malformed: it has some. The message has the key.
  """
  # One intersection of sets: most rows have no such key.
  if isinstance(row, Mapping) and not KEYS.isdisjoint(row):
    _check(row, KEYS, 'the row')


def check_message(message: Mapping, where: str) -> None:
  """Checks that a message has no images, videos, audio or attached files.

  Args:
    message: the message.
    where: its turn, for error messages.

  Raises:
    Malformed: it has some. The message has the key.
  """
  if not _MESSAGE_KEYS.isdisjoint(message):
    _check(message, _MESSAGE_KEYS, where)


def is_empty(value: object) -> bool:
  """Returns whether a JSON value holds nothing: null, '', [null], {'a': ''}."""
  if isinstance(value, dict):
    return all(map(is_empty, value.values()))
  if isinstance(value, list):
    return all(map(is_empty, value))
  return value is None or value == ''


def _check(holder: Mapping, keys: Collection[str], where: str) -> None:
  for key, value in holder.items():
    if key not in keys or is_empty(value) or value is False or value == 0:
      continue
    is_name = key in _NAMED and isinstance(value, str)
    if is_name and not _IS_IMAGE.search(value):
      continue
    raise Malformed(
      f'{where} has {key}, which has no text: only text can become tokens'
    )
