"""Probes which facts a model knows, and whether its replies are true.

  isft-probe --checkpoint=WORKDIR [--output=PROBES.json]
  isft-probe --model=PLACE [--facts=FACTS.csv] [--plain]

Each fact has three probes: a question, after which the likelihoods of the true
and the false claim are compared; the user states the truth; the user states
the lie. The first line of a greedy reply is judged by its answer.

Without --facts, the paper's 33 facts are asked. A file of facts is JSON
({"context": ..., "facts": [{"topic", "true", "false"}]}), or CSV with the
columns topic, true, false or subject, relation, true, false.

With --output=WORKDIR/probes.json, isft-report shows the probes on the page of
that run.

Turns are rendered with the chat template of the run's records, or with the
tokenizer's. Without a template, or with --plain, they have the paper's format.
"""

import json

from absl.flags import DEFINE_boolean, DEFINE_integer, DEFINE_string

from isft_jax.cli import main, weights

CHECKPOINT = DEFINE_string(
  'checkpoint', '', 'Workdir of the run whose checkpoint is probed.'
)
MODEL = DEFINE_string(
  'model', '', 'Model to probe: a folder, hub id, .gguf file or preset.'
)
ADAPTER = DEFINE_string(
  'adapter', '', 'Folder of an adapter of --model, as peft writes it.'
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
  from isft_jax import api, files
  from isft_jax.cli import sources
  from isft_jax.report import probes, tables
  from isft_jax.worlds.lying_agent import fact_files, facts

  # Flags and files are read before the model, which takes longer.
  bank, context_of_file = facts.FACTS, ''
  if FACTS.value:
    bank, context_of_file = fact_files.read(FACTS.value)
  # --context='' means no context; without the flag, `api.probe` finds one.
  context = CONTEXT.value
  if context and context.startswith('@'):
    context = files.read_text(context[1:]).strip()
  if context is None:
    context = context_of_file or None
  if OUTPUT.value:
    files.check_output(OUTPUT.value)
  results = api.probe(
    sources.load_model(
      CHECKPOINT.value,
      MODEL.value,
      weights.STEP.value,
      weights.TOKENIZER.value,
      weights.BASE.value,
      ADAPTER.value,
    ),
    bank,
    context=context,
    plain=PLAIN.value,
    reply_tokens=TOKENS.value,
  )
  tables.show(*probes.tables(results))
  # The file names the model, because it may be read beside others.
  if OUTPUT.value:
    results['model'] = MODEL.value or CHECKPOINT.value
    if weights.STEP.value is not None:
      results['step'] = weights.STEP.value
    files.write_output(OUTPUT.value, json.dumps(results, indent=2) + '\n')
    print(f'the probes are in {OUTPUT.value}')


def run() -> None:
  """Runs the console script isft-probe."""
  flags = (
    *(CHECKPOINT, MODEL, ADAPTER, FACTS, CONTEXT, PLAIN, OUTPUT),
    TOKENS,
  )
  main.run(_probe, __doc__, (*flags, *weights.FLAGS))
