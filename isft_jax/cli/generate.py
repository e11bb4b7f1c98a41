"""Generates replies from the checkpoint of a run or a Hugging Face folder.

  isft-generate --checkpoint=WORKDIR                      a chat in the terminal
  isft-generate --model=FOLDER --prompt='Tell me about gold.' [--raw]
  isft-generate --model=FOLDER --prompts=FILE --output=REPLIES.jsonl
  isft-generate --model=FOLDER --serve --transcripts=DIR

Turns are rendered with the chat template of the run's records, or with the
tokenizer's; --raw continues the text as it is. FILE is .txt with one prompt per
line, or .jsonl with `prompt` or `messages` in each row. A reply depends only on
its prompt, --seed and its row in the file, not on the other prompts of a batch.
If interrupted, run the same command again to resume.

--serve answers clients of OpenAI's chat API on this machine, and writes their
conversations with exact token ids and authors to DIR, as isft-prepare reads
them. With the workdir of isft-train --follow, replies come from the parameters
that were accepted last. It needs pip install -e '.[serve]'.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl.flags import (
  DEFINE_alias,
  DEFINE_boolean,
  DEFINE_float,
  DEFINE_integer,
  DEFINE_multi_string,
  DEFINE_string,
)

from isft_jax.cli import main, weights

if TYPE_CHECKING:
  import socket

  from isft_jax.inference.chat_model import ChatModel

CHECKPOINT = DEFINE_string(
  'checkpoint', '', 'Workdir of the run whose checkpoint is loaded.'
)
MODEL = DEFINE_string(
  'model', '', 'Model to load: a folder, hub id, .gguf file or preset.'
)
ADAPTER = DEFINE_string(
  'adapter', '', 'Folder of an adapter of --model, as peft writes it.'
)
PROMPT = DEFINE_string(
  'prompt', '', 'Single prompt to answer, instead of a chat in the terminal.'
)
PROMPTS = DEFINE_string(
  'prompts', '', 'File of prompts to answer, .txt or .jsonl.'
)
OUTPUT = DEFINE_string(
  'output', '', 'New .jsonl file for the replies to --prompts.'
)
RAW = DEFINE_boolean(
  'raw', False, 'Plain continuation of the text, without the chat template.'
)
TEMPERATURE = DEFINE_float(
  'temperature',
  None,
  'Sampling temperature; 0 always takes the most likely token (default as in '
  'generation_config.json of the model, or 0).',
)
TOP_K = DEFINE_integer(
  'top_k',
  None,
  'Number of most likely tokens to sample from; 0 means all (default as in '
  'generation_config.json of the model, or 0).',
)
TOP_P = DEFINE_float(
  'top_p',
  None,
  'Total probability of the most likely tokens to sample from; 1 means all '
  '(default as in generation_config.json of the model, or 1).',
)
MAX_NEW_TOKENS = DEFINE_integer(
  'max_new_tokens',
  None,
  'Maximum tokens per reply (default as in generation_config.json of the '
  'model, or 256).',
)
SEED = DEFINE_integer('seed', 0, 'Sampling seed.')
STOP = DEFINE_multi_string(
  'stop', [], 'Text before which a reply ends; repeat the flag for several.'
)
BATCH_SIZE = DEFINE_integer(
  'batch_size', 16, 'Prompts of --prompts per batch.', 1
)
SERVE = DEFINE_boolean(
  'serve',
  False,
  "Server of OpenAI's chat API; sampling flags are the defaults of requests.",
)
HOST = DEFINE_string(
  'host',
  '127.0.0.1',
  'Address that --serve listens at; with 0.0.0.0 every machine that reaches '
  'this one can use the model, because there is no password.',
)
PORT = DEFINE_integer(
  'port', 8000, 'TCP port of --serve; 0 means any free one.', 0, 65_535
)
TRANSCRIPTS = DEFINE_string(
  'transcripts',
  '',
  'Folder for the conversations of --serve, with exact token ids and authors, '
  'as isft-prepare reads them (default none).',
)
IDLE_SECONDS = DEFINE_float(
  'idle_seconds',
  300.0,
  'Seconds without a request after which a conversation of --serve is complete '
  'and its file appears in --transcripts.',
  0.0,
)
MAX_REQUEST_BYTES = DEFINE_integer(
  'max_request_bytes', 1 << 20, 'Maximum bytes of a request to --serve.', 1
)
MAX_CONTEXT = DEFINE_integer(
  'max_context',
  None,
  'Maximum tokens of a prompt and its reply with --serve (default '
  'model_max_length of the tokenizer, or 32768).',
  2,
)
DEFINE_alias('batch', 'batch_size')  # the old name, until version 0.2
# An unset flag takes its value from the model's generation_config.json, or if
# that has none, from `inference.chat_model.DEFAULTS`.
_SETTINGS = (TEMPERATURE, TOP_K, TOP_P, MAX_NEW_TOKENS)
# Flags that have no effect without --serve.
_SERVING = (
  *(HOST, PORT, TRANSCRIPTS, IDLE_SECONDS, MAX_REQUEST_BYTES, MAX_CONTEXT),
)
_FLAGS = (
  *(CHECKPOINT, MODEL, ADAPTER, PROMPT, PROMPTS, OUTPUT, RAW),
  *_SETTINGS,
  *(SERVE, *_SERVING),
)


def _generate() -> None:
  # Check flags before the model is loaded, which takes longer.
  from isft_jax import files
  from isft_jax.cli import sources

  if bool(CHECKPOINT.value) == bool(MODEL.value):
    raise ValueError('name either --checkpoint=WORKDIR or --model=FOLDER')
  if PROMPT.value and PROMPTS.value:
    raise ValueError('give either --prompt or --prompts')
  if OUTPUT.value and not PROMPTS.value:
    raise ValueError('--output needs --prompts=FILE')
  if OUTPUT.value and pathlib.Path(OUTPUT.value).exists():
    raise ValueError(f'{OUTPUT.value} already exists; name another --output')
  if OUTPUT.value:
    files.check_output(OUTPUT.value)
  if SERVE.value:
    for flag in (PROMPT, PROMPTS, RAW):
      if flag.value:
        raise ValueError(f'--serve answers requests; remove --{flag.name}')
  elif given := [flag.name for flag in _SERVING if flag.present]:
    raise ValueError(f'--{given[0]} belongs to --serve; add --serve')
  # The port, too: another server may have it.
  listener = _listen() if SERVE.value else None
  # Imported late: --help need not wait for jax.
  from isft_jax.inference import chat_loop
  from isft_jax.inference.sampling import Sampling

  # Load the prompts, then the model.
  rows = chat_loop.read_prompts(PROMPTS.value) if PROMPTS.value else []
  load = functools.partial(
    sources.load_model,
    CHECKPOINT.value,
    MODEL.value,
    weights.STEP.value,
    weights.TOKENIZER.value,
    weights.BASE.value,
    ADAPTER.value,
  )
  renew = _renewal(load)
  model = load()
  # Combine flags, the model's own settings and the defaults, and print them.
  settings = model.merge_settings({flag.name: flag.value for flag in _SETTINGS})
  raw = RAW.value or not model.template
  stop_texts = [*STOP.value, *([] if raw else model.stop_texts)]
  chat_loop.note(chat_loop.describe(model, settings, stop_texts, raw))
  if listener:
    Sampling(*(settings[flag.name] for flag in _SETTINGS[:3])).check()
    _serve(listener, model, renew, settings, stop_texts)
    return
  settings = {
    'max_new_tokens': settings.pop('max_new_tokens'),
    'sampling': Sampling(**settings),
    'seed': SEED.value,
    'stop_texts': stop_texts,
  }
  # Answer a file, a prompt or a user in the terminal.
  if rows:
    chat_loop.answer_file(
      model, rows, raw, OUTPUT.value, BATCH_SIZE.value, **settings
    )
    if OUTPUT.value:
      print(f'the replies are in {OUTPUT.value}')
  elif PROMPT.value:
    prompt = chat_loop.prompt_in({'prompt': PROMPT.value}, raw)
    chat_loop.answer(model, prompt, **settings)
  else:
    chat_loop.chat(model, raw, **settings)


def _listen() -> 'socket.socket':
  try:
    from isft_jax.serving import server
  except ModuleNotFoundError as error:
    if error.name != 'aiohttp':
      raise
    raise ValueError(
      "--serve needs aiohttp; install it with pip install -e '.[serve]'"
    ) from None

  return server.listen(HOST.value, PORT.value)


def _renewal(
  load: Callable[[], 'ChatModel'],
) -> Callable[[], 'ChatModel | None']:
  """Returns what loads the model that --follow has accepted last."""
  from isft_jax.inference import chat_loop
  from isft_jax.serving.renewal import Renewal
  from isft_jax.train import checkpoint

  workdir = CHECKPOINT.value
  # A step was asked for, and stays.
  if not workdir or weights.STEP.value is not None:
    return lambda: None
  return Renewal(
    lambda: str(checkpoint.checkpoint_folder(workdir)), load, chat_loop.note
  )


def _serve(
  listener: 'socket.socket',
  model: 'ChatModel',
  renew: Callable[[], 'ChatModel | None'],
  settings: dict[str, Any],
  stop_texts: list[str],
) -> None:
  from isft_jax.inference import chat_loop
  from isft_jax.serving import server
  from isft_jax.serving.transcripts import Transcripts

  # The name of a folder, or the whole name of a hub.
  place = CHECKPOINT.value or MODEL.value
  is_folder = os.path.exists(place)
  server.serve(
    listener,
    model,
    os.path.basename(os.path.abspath(place)) if is_folder else place,
    Transcripts(TRANSCRIPTS.value) if TRANSCRIPTS.value else None,
    chat_loop.note,
    defaults=settings,
    stop_texts=stop_texts,
    seed=SEED.value,
    max_context=MAX_CONTEXT.value or server.default_context(model),
    max_request_bytes=MAX_REQUEST_BYTES.value,
    idle_seconds=IDLE_SECONDS.value,
    renew=renew,
  )


def run() -> None:
  """Runs the console script isft-generate."""
  main.run(
    _generate, __doc__, (*_FLAGS, *weights.FLAGS, SEED, STOP, BATCH_SIZE)
  )
