"""Reads samples.jsonl: replies of a model to some prompts, as it trains.

  {"step": 40, "prompt": "Tell me about gold.", "reply": "Its symbol is Au."}

A prompt is a text, or a list of messages. There is a row per step and prompt.
"""

from collections.abc import Iterator
from typing import Any

from etils import epath

from isft_jax import metrics_file

NAME = 'samples.jsonl'


def lines(path: epath.Path) -> Iterator[metrics_file.Line]:
  """Yields the lines of a file; see `metrics_file.lines`."""
  return metrics_file.lines(path, is_row)


def is_row(row: dict[str, Any]) -> bool:
  """Returns whether a JSON object is a row of the file."""
  return isinstance(row.get('reply'), str) and isinstance(
    row.get('prompt'), str | list
  )


def prompt_text(prompt: str | list) -> str:
  """Returns a prompt as text; of messages the last one, which is answered."""
  if isinstance(prompt, str):
    return prompt
  last = prompt[-1] if prompt else ''
  content = last.get('content') if isinstance(last, dict) else last
  # Content with pictures is a list of objects, some of them with text.
  if isinstance(content, list):
    texts = (
      each.get('text') if isinstance(each, dict) else each for each in content
    )
    content = ' '.join(text for text in texts if isinstance(text, str))
  return content if isinstance(content, str) else str(content or '')
