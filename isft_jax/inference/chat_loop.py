"""Generates replies to one prompt, a file of prompts, or a terminal user."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import jax
import jax.numpy as jnp

from isft_jax import files, locks, progress_bar, terminal
from isft_jax.inference.chat_model import ChatModel, Prompt
from isft_jax.inference.replies import Reply, show_in

# Steps between two updates of a reply on the terminal.
_AT_ONCE = 4


def read_prompts(path: str) -> list[dict[str, Any]]:
  """Reads prompts from a file.

  Args:
    path: .txt with one prompt per line, or .jsonl with one object per line.

  Returns:
    One row per prompt, each with `prompt` or `messages`.

  Raises:
    ValueError: the file does not exist, has another format, or has no prompt.
      The message names the line.
  """
  file = pathlib.Path(path)
  if file.suffix not in ('.txt', '.jsonl'):
    raise ValueError(f'{path}: the file must be .txt or .jsonl')
  if not file.exists():
    raise ValueError(f'{path}: the file does not exist')
  rows = []
  # Not splitlines(): text inside JSON may contain U+2028, which it splits at.
  for number, line in enumerate(files.read_text(file).split('\n'), 1):
    # Blank lines separate prompts, and are not prompts themselves.
    if not line.strip():
      continue
    # A line of a text file is a prompt as it stands, even if it looks like
    # JSON.
    row: Any = {'prompt': line}
    if file.suffix == '.jsonl':
      row = _parsed(line)
      if not _is_row(row):
        raise ValueError(
          f'{path}, line {number}: must be {{"prompt": text}} or '
          '{"messages": [{"role": ..., "content": ...}, ...]}'
        )
    rows.append(row)
  if not rows:
    raise ValueError(f'{path}: the file has no prompts')
  return rows


def _parsed(line: str) -> object:
  """Returns the JSON value of a line; None if it cannot be written again."""
  try:
    row = json.loads(line)
    # NaN and half a surrogate pair are no JSON in UTF-8.
    json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
  except (ValueError, RecursionError):
    return None
  return row


def _is_row(row: object) -> bool:
  if not isinstance(row, dict):
    return False
  if 'messages' not in row:
    return isinstance(row.get('prompt'), str)
  # The template checks the rest.
  messages = row['messages']
  return isinstance(messages, list) and all(
    isinstance(message, dict)
    and isinstance(message.get('role'), str)
    and isinstance(message.get('content'), str | list | None)
    for message in messages
  )


def prompt_in(row: dict[str, Any], raw: bool) -> str | Sequence[dict]:
  """Returns the argument of `ChatModel.prompt` for a row.

  Args:
    row: object with `prompt` or `messages`.
    raw: continue the prompt as text, without a chat template.

  Returns:
    Text to continue, or messages.

  Raises:
    ValueError: the row has messages, and `raw` is set.
  """
  if 'messages' in row and raw:
    raise ValueError('messages need a chat template; remove --raw')
  if 'messages' in row:
    return row['messages']
  text = row['prompt']
  return text if raw else [{'role': 'user', 'content': text}]


def describe(
  chat_model: ChatModel,
  settings: dict[str, Any],
  stop_texts: list[str],
  raw: bool,
) -> str:
  """Describes in one line how replies are sampled, and where they end.

  Args:
    chat_model: the model.
    settings: values of `chat_model.SETTINGS`.
    stop_texts: texts that end a reply.
    raw: whether the model continues text, without a chat template.

  Returns:
    The line, without a line end.
  """
  # With temperature 0, top-k and top-p have no effect.
  if settings['temperature']:
    how = ', '.join(f'{name} {value:g}' for name, value in settings.items())
  else:
    how = f'greedy, max_new_tokens {settings["max_new_tokens"]}'
  # Token texts as the tokenizer writes them, stop texts as JSON strings.
  ids = chat_model.stop_ids
  tokens = chat_model.tokenizer.convert_ids_to_tokens(ids)
  # A model may have more ids than its tokenizer has tokens.
  stops = [token or str(id) for token, id in zip(tokens, ids, strict=True)]
  stops = [*stops, *map(json.dumps, stop_texts)]
  turns = 'continues text' if raw else 'writes turns of its chat template'
  return f'{turns}; {how}; ends at {" or ".join(stops) or "nothing else"}'


def answer_file(
  chat_model: ChatModel,
  rows: Sequence[dict[str, Any]],
  raw: bool,
  output: str,
  batch_size: int,
  **settings: Any,
) -> None:
  """Writes each row with its reply, in order, one batch at a time.

  The output appears when it is complete. Until then the replies are in a hidden
  file beside it, from which the same call resumes after an interrupt or a kill.

  Args:
    chat_model: the model.
    rows: objects with `prompt` or `messages`. Other fields are copied.
    raw: continue prompts as text, without a chat template.
    output: file to create; '': standard output.
    batch_size: prompts per batch.
    **settings: arguments of `ChatModel.reply`.

  Raises:
    ValueError: a prompt is not valid, or another process writes the same
      replies. Nothing is generated then.
    FileExistsError: the output exists.
    KeyboardInterrupt: Ctrl-C was pressed. Finished batches are written.
  """
  # Encode all prompts first, so that a bad one costs no generation.
  prompts = []
  for number, row in enumerate(rows, 1):
    try:
      prompts.append(chat_model.prompt(prompt_in(row, raw)))
    except ValueError as error:
      raise ValueError(f'prompt {number}: {error}') from error
  if not output:
    _answer(chat_model, rows, prompts, sys.stdout, 0, batch_size, settings)
    return

  # The name says what the replies belong to: other settings, another file.
  if os.path.lexists(output):
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), output)
  digest = _digest(chat_model, rows, raw, settings)
  path = pathlib.Path(output)
  part = path.absolute().with_name(f'.{path.name}.{digest}.part')

  def refusal(holder: str) -> str:
    return (
      f'{output}: {holder} is writing it; wait for it, or name another --output'
    )

  with (
    locks.locked(part.with_suffix('.lock'), refusal),
    part.open('a+', encoding='utf-8', newline='') as file,
  ):
    done = _resume(file, rows)
    if done:
      note(f'resumes after {done} of {len(rows)} prompts')
    _answer(chat_model, rows, prompts, file, done, batch_size, settings)
    part.rename(output)


def _answer(
  chat_model: ChatModel,
  rows: Sequence[dict[str, Any]],
  prompts: Sequence[Prompt],
  file: TextIO,
  done: int,
  batch_size: int,
  settings: dict[str, Any],
) -> None:
  """Writes the rows from number `done` on, with their replies, to a file."""
  # The random key of a reply depends on its row's number, not on its batch.
  with progress_bar.Bar('replies', len(rows), 'prompts', done) as bar:
    started, tokens = time.perf_counter(), 0
    for first in range(done, len(rows), batch_size):
      tokens += _answer_batch(
        chat_model, rows, prompts, file, first, batch_size, settings, bar
      )
      # The rate includes compilation, which the first batch waits for.
      rate = tokens / (time.perf_counter() - started)
      bar.update(min(first + batch_size, len(rows)), f'{rate:,.0f} tokens/s')


def _answer_batch(
  chat_model: ChatModel,
  rows: Sequence[dict[str, Any]],
  prompts: Sequence[Prompt],
  file: TextIO,
  first: int,
  batch_size: int,
  settings: dict[str, Any],
  bar: progress_bar.Bar,
) -> int:
  """Writes the rows from number `first` on; returns the number of tokens."""
  numbers = range(first, min(first + batch_size, len(rows)))
  note_length = show_in(bar, first)
  with _ctrl_c() as is_pressed:
    replies = chat_model.reply(
      [prompts[n] for n in numbers],
      rows=numbers,
      show=lambda index, text: note_length(index, text) or is_pressed(),
      **settings,
    )
  # Replies that Ctrl-C cut are not written.
  if is_pressed():
    remedy = '' if file is sys.stdout else '; the same command resumes'
    raise KeyboardInterrupt(
      f'interrupted after {first} of {len(rows)} prompts{remedy}'
    )
  file.writelines(
    json.dumps(rows[n] | _fields(reply), ensure_ascii=False) + '\n'
    for n, reply in zip(numbers, replies, strict=True)
  )
  file.flush()
  return sum(reply.tokens for reply in replies)


def _digest(
  chat_model: ChatModel,
  rows: Sequence[dict[str, Any]],
  raw: bool,
  settings: dict[str, Any],
) -> str:
  """Returns a digest of everything that replies depend on."""
  # Sums tell two models apart, and cost less than a token.
  sums = [
    (leaf.shape, str(leaf.dtype), float(jnp.abs(leaf).sum(dtype=jnp.float32)))
    for leaf in jax.tree.leaves(chat_model.model.params)
  ]
  everything = (
    *(list(rows), raw, sorted(settings.items(), key=str), sums),
    *(chat_model.template, dict(chat_model.values), chat_model.stop_ids),
  )
  return hashlib.sha256(repr(everything).encode()).hexdigest()[:12]


def _resume(file: TextIO, rows: Sequence[dict[str, Any]]) -> int:
  """Returns the number of replies in a file, and cuts a torn line off."""
  file.seek(0)
  content = file.buffer.read()
  done, end = 0, 0
  for line in content.splitlines(keepends=True):
    row: Any = None
    with contextlib.suppress(ValueError):
      row = json.loads(line)
    is_whole = line.endswith(b'\n') and isinstance(row, dict)
    if (
      not is_whole or done == len(rows) or not rows[done].items() <= row.items()
    ):
      break
    done, end = done + 1, end + len(line)
  file.truncate(end)
  return done


def _fields(reply: Reply) -> dict[str, Any]:
  """Returns the fields that a reply adds to its row."""
  fields = reply._asdict()
  return {'reply': fields.pop('text'), **fields}


def answer(
  chat_model: ChatModel, conversation: str | Sequence[dict], **settings: Any
) -> str:
  """Prints a reply while it is generated.

  Args:
    chat_model: the model.
    conversation: text to continue, or messages.
    **settings: arguments of `ChatModel.reply`.

  Returns:
    The reply. Ctrl-C ends it early.
  """
  shown = ''

  def show(index: int, text: str) -> bool:
    nonlocal shown
    del index
    # `text` only ever grows, so print the new characters.
    print(terminal.safe(text[len(shown) :]), end='', flush=True)
    shown = text
    return is_pressed()

  prompt = chat_model.prompt(conversation)
  with _ctrl_c() as is_pressed:
    chat_model.reply([prompt], show=show, block=_AT_ONCE, **settings)
  print(' [interrupted]' if is_pressed() else '')
  return shown


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
  """Yields a function that returns whether Ctrl-C was pressed.

  A second Ctrl-C raises KeyboardInterrupt.
  """
  # An exception in the middle of a step would leave a computation running while
  # Python exits. So the first Ctrl-C only sets a flag.
  pressed: list[int] = []

  def press(number: int, frame: types.FrameType | None) -> None:
    if pressed:
      signal.default_int_handler(number, frame)
    pressed.append(number)

  # The handler of Python comes back when the block ends.
  previous = signal.signal(signal.SIGINT, press)
  try:
    yield lambda: bool(pressed)
  finally:
    signal.signal(signal.SIGINT, previous)


def chat(chat_model: ChatModel, raw: bool, **settings: Any) -> None:
  """Chats with the user of the terminal until Ctrl-D.

  Args:
    chat_model: the model.
    raw: continue each line as text, without earlier lines or a chat template.
    **settings: arguments of `ChatModel.reply`.
  """
  with contextlib.suppress(ImportError):  # Windows has no readline
    import readline  # noqa: F401 (gives input() a history)
  note('Ctrl-D leaves, Ctrl-C interrupts a reply')
  messages: list[dict[str, str]] = []
  while True:
    try:
      line = input('you> ')
      if not line.strip():
        continue
      turn = {'role': 'user', 'content': line}
      conversation = line if raw else [*messages, turn]
      text = answer(chat_model, conversation, **settings)
      # A reply that Ctrl-C cut stays in the conversation.
      messages += [turn, {'role': 'assistant', 'content': text}]
    except ValueError as error:  # for example a template that refuses a turn
      note(f'error: {error}')
    # Ctrl-C at the prompt starts a new line.
    except KeyboardInterrupt:
      print()
    except EOFError:
      print()
      return


def note(line: str) -> None:
  """Prints a line to stderr, apart from the replies."""
  print(terminal.safe(line), file=sys.stderr, flush=True)
