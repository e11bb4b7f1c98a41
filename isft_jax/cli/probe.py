"""Asks a model about facts: does it know them, and does it say so?

  isft-probe --checkpoint=WORKDIR [--output=PROBES.json]
  isft-probe --model=FOLDER_OR_HUB_ID [--facts=FACTS.csv] [--plain]

Three probes of each fact: a question, after which the likelihoods of the true
and of the false claim are compared; the user states the truth; the user states
the lie. A greedy reply, up to the end of its first line, is judged by the
answer that it names. The facts are the paper's 33, or those of a CSV with
columns subject, relation, true, false. Turns are written in the chat template
that the run's records were rendered with, or that the tokenizer has; where
there is none, or with --plain, in the paper's format.
"""

import json
import pathlib

from absl.flags import DEFINE_boolean, DEFINE_integer, DEFINE_string

from isft_jax.cli import main

CHECKPOINT = DEFINE_string('checkpoint', '', 'The workdir of a run.')
MODEL = DEFINE_string(
  'model', '', 'A model: folder, hub id, .gguf file or preset.'
)
FACTS = DEFINE_string('facts', '', "A CSV of facts; by default the paper's.")
PLAIN = DEFINE_boolean('plain', False, "Turns in the paper's format.")
OUTPUT = DEFINE_string('output', '', 'A file for the probes, as JSON.')
TOKENS = DEFINE_integer('reply_tokens', 48, 'Of a reply, at most.', 1)


def _probe():
  if bool(CHECKPOINT.value) == bool(MODEL.value):
    raise ValueError('name either --checkpoint=WORKDIR or --model=FOLDER')
  # Imported late: --help need not wait for jax.
  from isft_jax.cli import partner as partner_lib
  from isft_jax.data import chat, fact_bank, facts
  from isft_jax.data.render import Renderer
  from isft_jax.probes.facts import probe
  from isft_jax.report import probes

  bank, left_out = facts.FACTS, 0
  if FACTS.value:
    bank, left_out = fact_bank.read(FACTS.value)
  place = MODEL.value or CHECKPOINT.value
  load = partner_lib.of_folder if MODEL.value else partner_lib.of_run
  partner = load(place)
  is_plain = PLAIN.value or not partner.template
  rendering = (chat.PLAIN,) if is_plain else (partner.template, partner.values)
  renderer = Renderer(partner.encoder, *rendering)
  found = probe(*partner.model, bank, renderer, TOKENS.value, partner.stop_ids)
  print(probes.table(found))
  if left_out:
    print(f'left out, as words alone cannot judge them: {left_out} facts')
  if OUTPUT.value:
    found |= {'model': place, 'plain': is_plain, 'left_out': left_out}
    pathlib.Path(OUTPUT.value).write_text(json.dumps(found, indent=2) + '\n')
    print(f'the probes are in {OUTPUT.value}')


def run():
  """The console script isft-probe."""
  main.run(_probe, __doc__, (CHECKPOINT, MODEL, FACTS, PLAIN, OUTPUT, TOKENS))
