"""Sample replies of a run: the model answers some prompts as it trains.

The prompts have the same shapes at every step, so that generation compiles only
once. It uses the parameters of the training itself, on their shards.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from isft_jax import files, samples_file
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained
from isft_jax.inference import chat_loop
from isft_jax.inference.chat_model import chat_model_from_rendering
from isft_jax.inference.replies import Reply
from isft_jax.train import history, multihost
from isft_jax.types import PyTree

_BATCH = 16  # prompts per batch
_SHOWN = 3  # replies on the terminal, per evaluation
_PROMPT, _REPLY = 40, 80  # characters of a prompt and a reply there


class Samples:
  """Greedy replies to some prompts. Every host takes part in generating them.

  Only the first host writes and prints.
  """

  def __init__(
    self,
    rows: Sequence[Mapping[str, Any]],
    new_tokens: int,
    model: pretrained.Model,
    tokenizer: FastTokenizer,
    rendering: Mapping[str, Any],
  ) -> None:
    """Encodes the prompts as the records were.

    Args:
      rows: the prompts; see `chat_loop.read_prompts`.
      new_tokens: maximum tokens per reply.
      model: structure of the model; its parameters may be ShapeDtypeStructs.
      tokenizer: the tokenizer of the records.
      rendering: how their text was made; see `Renderer.rendering`.

    Raises:
      ValueError: the chat template refuses a prompt, or the records were
        encoded piecewise.
    """
    if rendering.get('piecewise'):
      raise ValueError(
        '--samples cannot ask a model of records whose headers were encoded '
        'apart from the words (config.piecewise); leave it out'
      )
    self._new_tokens = new_tokens
    self._chat_model = chat_model_from_rendering(model, tokenizer, rendering)
    self._asked = [row.get('messages', row.get('prompt')) for row in rows]
    # A bad prompt costs no compilation.
    self._prompts = []
    for number, row in enumerate(rows, 1):
      try:
        prompt = chat_loop.prompt_in(
          dict(row), raw=not self._chat_model.template
        )
        self._prompts.append(self._chat_model.prompt(prompt))
      except ValueError as error:
        raise ValueError(f'--samples, prompt {number}: {error}') from error
    self._path = self._draft = epath.Path(samples_file.NAME)

  def begin(self, workdir: epath.Path, done: int) -> None:
    """Repairs samples.jsonl, and deletes rows of steps after `done`.

    Args:
      workdir: folder of the run, on disk or in a bucket.
      done: steps done.
    """
    if not multihost.is_first():
      return
    self._path = self._draft = workdir / samples_file.NAME
    # Files in a bucket cannot be appended to: write a local one, and copy it.
    if '://' in str(self._path):
      self._draft = epath.Path(tempfile.mkdtemp()) / self._path.name
      if self._path.exists():
        self._path.copy(self._draft)
    damaged = history.cut(
      self._draft, done, lambda *row: None, samples_file.is_row
    )
    if damaged:
      print(f'warning: {self._path}: {history.repaired(damaged)}', flush=True)

  def answer(self, name: str, step: int, steps: int, params: PyTree) -> None:
    """Answers all prompts, writes the replies and prints the first of them.

    Args:
      name: name of the run.
      step: steps done.
      steps: steps of the whole run.
      params: parameters of the model, on the devices.
    """
    graphdef, abstract = self._chat_model.model
    self._chat_model.model = pretrained.Model(graphdef, params)
    try:
      replies = self._replies()
    finally:
      self._chat_model.model = pretrained.Model(graphdef, abstract)
    if not multihost.is_first():
      return
    self._write(
      [
        {'step': step, 'prompt': prompt, 'reply': reply.text}
        for prompt, reply in zip(self._asked, replies, strict=True)
      ]
    )
    for prompt, reply in list(zip(self._asked, replies, strict=True))[:_SHOWN]:
      asked = files.one_line(samples_file.prompt_text(prompt), _PROMPT)
      multihost.tell(
        f'  {name:<16} step {step:>5}/{steps}  sample  {asked} -> '
        f'{files.one_line(reply.text, _REPLY)}'
      )

  def _replies(self) -> list[Reply]:
    replies: list[Reply] = []
    for first in range(0, len(self._prompts), _BATCH):
      batch = self._prompts[first : first + _BATCH]
      # The last of several batches is filled up: as many rows, no compilation.
      filled = batch + batch[-1:] * (_BATCH - len(batch)) if first else batch
      found = self._chat_model.reply(
        filled, self._new_tokens, self._chat_model.stop_texts
      )
      replies += found[: len(batch)]
    return replies

  def _write(self, rows: Sequence[dict[str, Any]]) -> None:
    # A byte-level reply can have half a character, which UTF-8 cannot encode.
    content = ''.join(
      json.dumps(row, ensure_ascii=False) + '\n' for row in rows
    ).encode('utf-8', 'backslashreplace')
    # A checkpoint of this step may follow: its rows must survive a power cut.
    with files.named(self._draft), open(self._draft, 'ab') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    if self._draft != self._path:
      self._draft.copy(self._path, overwrite=True)
