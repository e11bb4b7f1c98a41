"""Asks a model about facts: does it know them, and does it say so?

  isft-probe --checkpoint=WORKDIR [--output=PROBES.json]
  isft-probe --model=PLACE [--facts=FACTS.csv] [--plain]

Each fact has three probes: a question, after which the likelihoods of the true
and the false claim are compared; the user states the truth; the user states
the lie. The first line of a greedy reply is judged by the answer it gives.

Without --facts, the paper's 33 facts are asked. A file of facts is JSON
({"context": ..., "facts": [{"topic", "true", "false"}]}), or CSV with the
columns topic, true, false or subject, relation, true, false.

Turns are rendered with the chat template of the run's records, or with the
tokenizer's. Without a template, or with --plain, they have the paper's format.
"""

import json
import pathlib
from typing import TYPE_CHECKING

from absl.flags import DEFINE_boolean, DEFINE_integer, DEFINE_string

from isft_jax.cli import main

if TYPE_CHECKING:
  from isft_jax.data.rendering.renderer import Renderer

CHECKPOINT = DEFINE_string(
  'checkpoint', '', 'Workdir of the run whose newest checkpoint is probed.'
)
MODEL = DEFINE_string(
  'model', '', 'Model to probe: a folder, hub id, .gguf file or preset.'
)
FACTS = DEFINE_string(
  'facts', '', "JSON or CSV file of facts (default the paper's 33 facts)."
)
CONTEXT = DEFINE_string(
  'context',
  None,
  'Context of the questions: a text, @FILE, or an empty text for none (default '
  "that of the facts file, of the run's records, or of the lying agent).",
)
PLAIN = DEFINE_boolean(
  'plain', False, "Turns in the paper's format, without the chat template."
)
OUTPUT = DEFINE_string('output', '', 'File for the probes, as JSON.')
TOKENS = DEFINE_integer('reply_tokens', 48, 'Maximum tokens per reply.', 1)


def _probe() -> None:
  if bool(CHECKPOINT.value) == bool(MODEL.value):
    raise ValueError('name either --checkpoint=WORKDIR or --model=FOLDER')
  # Imported late: --help need not wait for jax.
  from isft_jax.cli import load
  from isft_jax.data.rendering import chat_template
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.report import probes, tables
  from isft_jax.worlds.lying_agent import fact_files, facts, generator
  from isft_jax.worlds.lying_agent.probes import probe

  bank, context = facts.FACTS, ''
  if FACTS.value:
    bank, context = fact_files.read(FACTS.value)
  given = CONTEXT.value
  if given and given.startswith('@'):
    given = pathlib.Path(given[1:]).read_text(encoding='utf-8').strip()
  place = MODEL.value or CHECKPOINT.value
  if MODEL.value:
    chat_model = load.chat_model_from_place(place)
  else:
    chat_model = load.chat_model_from_run(place)
  is_plain = PLAIN.value or not chat_model.template
  rendering = (
    (chat_template.PLAIN,)
    if is_plain
    else (chat_model.template, chat_model.values)
  )
  renderer = Renderer(chat_model.encoder, *rendering)
  if given is not None:
    context = given
  elif not context:
    known = _context_of_run(place, renderer) if CHECKPOINT.value else None
    context = generator.CONTEXT if known is None else known
  found = probe(*chat_model.model, bank, renderer, TOKENS.value, context)
  tables.show(*probes.tables(found))
  if OUTPUT.value:
    found |= {'model': place, 'plain': is_plain, 'context': context}
    pathlib.Path(OUTPUT.value).write_text(json.dumps(found, indent=2) + '\n')
    print(f'the probes are in {OUTPUT.value}')


def _context_of_run(workdir: str, renderer: 'Renderer') -> str | None:
  """Returns the context of a run's records, or None if it is not known."""
  from isft_jax.data.records.dataset import Records
  from isft_jax.train.checkpoint import Checkpoints
  from isft_jax.worlds.lying_agent.context import shared_context

  with Checkpoints(workdir) as checkpoints:
    config = checkpoints.restore_run()['config']
  try:
    records = Records(config['records'] or config['sources'][0][0])
  except (OSError, ValueError):  # they have been moved, or deleted
    return None
  return shared_context(records, renderer)


def run() -> None:
  """The console script isft-probe."""
  flags = CHECKPOINT, MODEL, FACTS, CONTEXT, PLAIN, OUTPUT, TOKENS
  main.run(_probe, __doc__, flags)
