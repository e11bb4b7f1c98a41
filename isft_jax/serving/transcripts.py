"""Writes conversations to a folder, one file each, for isft-prepare.

    DIR/20260131-141502-9f3a62c1.jsonl     complete, and never changed
    DIR/.open/20260131-141733-0b7d5e44.jsonl     rewritten after each reply

A file has one row of the format `tokens`, with the messages for people to read:

    {"id": ..., "tokens": [1, 5, 7], "provenance": ["user", ...],
     "segment": [0, 0, 1], "transcript": {"messages": [...], ...}}

Publishing is a rename, so that readers see whole files only. What a kill leaves
in .open is published at the next start.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from isft_jax import files, locks
from isft_jax.serving.prompts import Tokens

_SUFFIX = '.jsonl'


class Transcripts:
  """The folder of transcripts."""

  def __init__(self, folder: str | os.PathLike) -> None:
    self._folder = pathlib.Path(folder)
    self._open = self._folder / '.open'

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Holds the folder, and publishes what an earlier process left open.

    Raises:
      ValueError: another process writes to the folder.
      OSError: the folder cannot be written to.
    """

    def refusal(holder: str) -> str:
      return (
        f'{self._folder}: {holder} writes transcripts there; name another '
        '--transcripts'
      )

    self._open.mkdir(parents=True, exist_ok=True)
    with locks.locked(self._folder / '.lock', refusal):
      for path in sorted(self._open.iterdir()):
        if path.name.startswith('.'):  # a file that a kill cut
          path.unlink()
        else:
          self.publish(path.name.removesuffix(_SUFFIX))
      yield

  def write(self, id: str, tokens: Tokens, transcript: Mapping) -> None:
    """Writes a conversation that may still be continued.

    Args:
      id: name of its file.
      tokens: its tokens with authors.
      transcript: what people want to know, such as the messages.
    """
    row = {
      'id': id,
      'tokens': tokens.ids,
      'provenance': [author.name.lower() for author in tokens.authors],
      'segment': tokens.turns,
      'transcript': transcript,
    }
    line = json.dumps(row, ensure_ascii=False) + '\n'
    files.write_atomically(self._open / f'{id}{_SUFFIX}', line)

  def publish(self, id: str) -> None:
    """Moves a conversation to the files that are never changed."""
    # It has no file if a full disk did not take it.
    with contextlib.suppress(FileNotFoundError):
      (self._open / f'{id}{_SUFFIX}').rename(self._folder / f'{id}{_SUFFIX}')

  def newest(self) -> Iterator[dict[str, Any]]:
    """Yields the rows of complete conversations, the newest first."""
    # Names begin with the time.
    for path in sorted(self._folder.glob(f'*{_SUFFIX}'), reverse=True):
      with contextlib.suppress(ValueError):  # not one of ours
        yield files.read_json(path)
