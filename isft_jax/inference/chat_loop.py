"""Answers one prompt, a file of prompts, or a person at the terminal."""

import contextlib
import json
import pathlib
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from isft_jax.inference.chat_model import ChatModel
from isft_jax.inference.replies import Reply

# Steps between two looks at a reply that someone waits for.
_AT_ONCE = 4


def read_prompts(path: str) -> list[dict[str, Any]]:
  """Returns the rows of a file, each with `prompt` or `messages`.

  path: .txt, a prompt a line; or .jsonl.

  Raises ValueError, naming file and line, for a row that is neither.
  """
  file = pathlib.Path(path)
  if file.suffix not in ('.txt', '.jsonl'):
    raise ValueError(f'{path} is neither .txt nor .jsonl')
  if not file.is_file():
    raise ValueError(f'{path}: the file does not exist')
  rows = []
  for number, line in enumerate(file.read_text('utf-8').split('\n'), 1):
    if not line.strip():
      continue
    row: Any = {'prompt': line.rstrip('\r')}
    if file.suffix == '.jsonl':
      row = None
      with contextlib.suppress(ValueError):
        row = json.loads(line)
      if not _is_row(row):
        raise ValueError(
          f'{path}, line {number}: neither {{"prompt": text}} nor '
          '{"messages": [{"role": ..., "content": ...}, ...]}'
        )
    rows.append(row)
  if not rows:
    raise ValueError(f'{path}: no prompt in it')
  return rows


def _is_row(row: object) -> bool:
  if not isinstance(row, dict):
    return False
  if 'messages' not in row:
    return isinstance(row.get('prompt'), str)
  messages = row['messages']
  return isinstance(messages, list) and all(
    isinstance(message, dict) and 'role' in message for message in messages
  )


def prompt_in(row: dict[str, Any], raw: bool) -> str | Sequence[dict]:
  """Returns what `ChatModel.prompt` takes: a text to continue, or messages.

  Raises ValueError for messages that are to be continued as they are.
  """
  if 'messages' in row and raw:
    raise ValueError('messages need a chat template, and not --raw')
  if 'messages' in row:
    return row['messages']
  said = row['prompt']
  return said if raw else [{'role': 'user', 'content': said}]


def describe(
  chat_model: ChatModel,
  settings: dict[str, Any],
  stop_texts: list[str],
  raw: bool,
) -> str:
  """Returns a line on how replies are drawn, and what ends them."""
  if settings['temperature']:
    how = ', '.join(f'{name} {value:g}' for name, value in settings.items())
  else:
    how = f'greedy, max_new_tokens {settings["max_new_tokens"]}'
  stops = chat_model.encoder.convert_ids_to_tokens(chat_model.stop_ids)
  stops = [*stops, *map(json.dumps, stop_texts)]
  turns = 'continues text' if raw else 'writes turns of its chat template'
  return f'{turns}; {how}; ends at {" or ".join(stops) or "nothing else"}'


def answer_file(
  chat_model: ChatModel,
  rows: Sequence[dict[str, Any]],
  raw: bool,
  output: str,
  batch: int,
  **settings: Any,
) -> None:
  """Writes each row with its reply, in order, a batch at a time.

  All prompts are looked at before the first reply is made.

  output: a file to make; '' is the standard output.
  """
  prompts = []
  for number, row in enumerate(rows, 1):
    try:
      prompts.append(chat_model.prompt(prompt_in(row, raw)))
    except ValueError as error:
      raise ValueError(f'prompt {number}: {error}') from error
  started, tokens = time.perf_counter(), 0
  for first in range(0, len(rows), batch):
    numbers = range(first, min(first + batch, len(rows)))
    with _ctrl_c() as is_pressed:
      replies = chat_model.reply(
        [prompts[n] for n in numbers],
        rows=numbers,
        show=lambda index, text: is_pressed(),
        **settings,
      )
    if is_pressed():
      raise KeyboardInterrupt(
        f'interrupted after {first} of {len(rows)} prompts'
      )
    lines = [
      json.dumps(rows[n] | _fields(reply), ensure_ascii=False) + '\n'
      for n, reply in zip(numbers, replies, strict=True)
    ]
    if output:
      with open(output, 'a' if first else 'x', encoding='utf-8') as file:
        file.writelines(lines)
    else:
      sys.stdout.writelines(lines)
      sys.stdout.flush()
    tokens += sum(reply.tokens for reply in replies)
    rate = tokens / (time.perf_counter() - started)
    note(f'{numbers.stop} of {len(rows)} prompts, {rate:,.0f} tokens/s')


def _fields(reply: Reply) -> dict[str, Any]:
  """Returns what a row of the output has beside its prompt."""
  fields = reply._asdict()
  return {'reply': fields.pop('text'), **fields}


def answer(
  chat_model: ChatModel, said: str | Sequence[dict], **settings: Any
) -> str:
  """Prints a reply as it comes; returns it, whole or up to a Ctrl-C."""
  shown = ''

  def show(index: int, text: str) -> bool:
    nonlocal shown
    del index
    print(text[len(shown) :], end='', flush=True)
    shown = text
    return is_pressed()

  prompt = chat_model.prompt(said)
  with _ctrl_c() as is_pressed:
    chat_model.reply([prompt], show=show, block=_AT_ONCE, **settings)
  print(' [interrupted]' if is_pressed() else '')
  return shown


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
  """Yields what tells whether Ctrl-C was pressed; pressed again, it raises.

  An exception in the middle of a step would leave a computation running, and
  Python must not end beneath it.
  """
  pressed: list[int] = []

  def press(number: int, frame: types.FrameType | None) -> None:
    if pressed:
      signal.default_int_handler(number, frame)
    pressed.append(number)

  before = signal.signal(signal.SIGINT, press)
  try:
    yield lambda: bool(pressed)
  finally:
    signal.signal(signal.SIGINT, before)


def chat(chat_model: ChatModel, raw: bool, **settings: Any) -> None:
  """Talks with whoever is at the terminal until they leave.

  raw: each line is text to continue, by itself.
  """
  with contextlib.suppress(ImportError):  # not on every system
    import readline  # noqa: F401 (input() then has a history)
  note('Ctrl-D leaves, Ctrl-C interrupts a reply')
  messages: list[dict[str, str]] = []
  while True:
    try:
      line = input('you> ')
      if not line.strip():
        continue
      turn = {'role': 'user', 'content': line}
      said = line if raw else [*messages, turn]
      text = answer(chat_model, said, **settings)
      messages += [turn, {'role': 'assistant', 'content': text}]
    except ValueError as error:  # as of a template that refuses a turn
      note(f'error: {error}')
    except KeyboardInterrupt:
      print()
    except EOFError:
      print()
      return


def note(line: str) -> None:
  """Says something beside the replies."""
  print(line, file=sys.stderr, flush=True)
