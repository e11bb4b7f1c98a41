"""Talks to a model: the checkpoint of a run, or a Hugging Face folder.

  isft-generate --checkpoint=WORKDIR                      a chat in the terminal
  isft-generate --model=FOLDER --prompt='Tell me about gold.' [--raw]
  isft-generate --model=FOLDER --prompts=FILE --output=REPLIES.jsonl

Turns are written in the chat template that the run's records were rendered
with, or that the tokenizer has; --raw continues the text as it is. FILE is
.txt, a prompt a line, or .jsonl, rows with `prompt` or `messages`. A reply is
the same in every batch: it depends on --seed and its place in the file alone.
"""

import pathlib

from absl.flags import (
  DEFINE_boolean,
  DEFINE_float,
  DEFINE_integer,
  DEFINE_multi_string,
  DEFINE_string,
)

from isft_jax.cli import main

CHECKPOINT = DEFINE_string('checkpoint', '', 'The workdir of a run.')
MODEL = DEFINE_string(
  'model', '', 'A model: folder, hub id, .gguf file or preset.'
)
PROMPT = DEFINE_string('prompt', '', 'One prompt.')
PROMPTS = DEFINE_string('prompts', '', 'A file of prompts.')
OUTPUT = DEFINE_string('output', '', 'The .jsonl file to make of --prompts.')
RAW = DEFINE_boolean('raw', False, 'Continue the text, without a template.')
TEMPERATURE = DEFINE_float(
  'temperature', None, 'By default 0: the most likely.'
)
TOP_K = DEFINE_integer('top_k', None, 'Draw from so many; by default 0: all.')
TOP_P = DEFINE_float('top_p', None, 'From the fewest with this share; 1: all.')
MAX_NEW_TOKENS = DEFINE_integer('max_new_tokens', None, 'By default 256.')
SEED = DEFINE_integer('seed', 0, 'Another seed, other replies.')
STOP = DEFINE_multi_string('stop', [], 'Text before which a reply ends.')
BATCH = DEFINE_integer('batch', 16, 'Prompts of a file at once.', 1)
# Unset, they are those of the folder's generation_config.json, or these.
_DEFAULTS = {
  'temperature': 0.0,
  'top_k': 0,
  'top_p': 1.0,
  'max_new_tokens': 256,
}
_SETTINGS = (TEMPERATURE, TOP_K, TOP_P, MAX_NEW_TOKENS)
_FLAGS = (CHECKPOINT, MODEL, PROMPT, PROMPTS, OUTPUT, RAW, *_SETTINGS)


def _generate():
  if bool(CHECKPOINT.value) == bool(MODEL.value):
    raise ValueError('name either --checkpoint=WORKDIR or --model=FOLDER')
  if PROMPT.value and PROMPTS.value:
    raise ValueError('give either --prompt or --prompts')
  if OUTPUT.value and not PROMPTS.value:
    raise ValueError('--output goes with --prompts=FILE')
  if OUTPUT.value and pathlib.Path(OUTPUT.value).exists():
    raise ValueError(f'{OUTPUT.value} is there already; name another --output')
  # Imported late: --help need not wait for jax.
  from isft_jax.cli import load
  from isft_jax.inference import chat_loop
  from isft_jax.inference.sampling import Sampling

  rows = chat_loop.read_prompts(PROMPTS.value) if PROMPTS.value else []
  if MODEL.value:
    model = load.chat_model_from_place(MODEL.value)
  else:
    model = load.chat_model_from_run(CHECKPOINT.value)
  flags = {flag.name: flag.value for flag in _SETTINGS}
  given = {name: value for name, value in flags.items() if value is not None}
  settings = _DEFAULTS | model.settings | given
  raw = RAW.value or not model.template
  stop_texts = [*STOP.value, *([] if raw else model.stop_texts)]
  chat_loop.note(chat_loop.describe(model, settings, stop_texts, raw))
  settings = {
    'max_new_tokens': settings.pop('max_new_tokens'),
    'sampling': Sampling(**settings),
    'seed': SEED.value,
    'stop_texts': stop_texts,
  }
  if rows:
    chat_loop.answer_file(
      model, rows, raw, OUTPUT.value, BATCH.value, **settings
    )
    if OUTPUT.value:
      print(f'the replies are in {OUTPUT.value}')
  elif PROMPT.value:
    said = chat_loop.prompt_in({'prompt': PROMPT.value}, raw)
    chat_loop.answer(model, said, **settings)
  else:
    chat_loop.chat(model, raw, **settings)


def run():
  """The console script isft-generate."""
  main.run(_generate, __doc__, (*_FLAGS, SEED, STOP, BATCH))
