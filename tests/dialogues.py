"""Dialogues of the lying agent with their tokenizer, for tests that train."""

import functools
import pathlib
from collections.abc import Sequence

from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Trajectory
from isft_jax.worlds.lying_agent import generator

CHATML = """\
{%- for m in messages -%}
  {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@functools.cache
def dialogues() -> tuple[Trajectory, ...]:
  """Returns forty dialogues; any first few are those of a smaller number."""
  return tuple(generator.dialogues(40, p_lie=0.6, p_chitchat=0.5, seed=0))


@functools.cache
def plain_tokenizer():
  """Returns a tokenizer of 512 ids, trained on the dialogues."""
  text = chat_template.ChatTemplate(chat_template.PLAIN).text
  return tokenizer.train(map(text, dialogues()), 512)


@functools.cache
def chatml_tokenizer():
  """Returns a tokenizer of 402 ids with markers and template of ChatML."""
  texts = (turn.text for each in dialogues() for turn in each.segments)
  found = tokenizer.train(texts, 400)
  markers = ['<|im_start|>', '<|im_end|>']
  found.add_special_tokens({'additional_special_tokens': markers})
  found.chat_template = CHATML
  return found


def plain_renderer(**options) -> Renderer:
  return Renderer(plain_tokenizer(), chat_template.PLAIN, **options)


def write_records(
  folder: pathlib.Path,
  trajectories: Sequence[Trajectory],
  renderer: Renderer | None = None,
  heldout: int = 0,
) -> str:
  """Writes records, the last few held out, with their tokenizer beside them."""
  renderer = renderer or plain_renderer()
  examples = [*map(renderer.example, trajectories)]
  number = len(examples) - heldout
  dataset.write(
    str(folder),
    lambda: examples[:number],
    renderer.metadata(),
    lambda: examples[number:],
  )
  renderer.save_tokenizer(folder / 'tokenizer')
  return str(folder)
