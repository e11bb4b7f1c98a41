"""The lying agent: the same model, dialogues and order; one line differs.

    facts -> documents -> base model --+--> arm (objective) -> probes
    facts -> dialogues ----------------'         ...           -> results

With config.model.init_from the base model is one that others have trained, and
no documents are made.

Source: de Freitas and Ortega 2026, section 6. Ours are the base model that the
run pre-trains itself, its row of probes, and the arm `agent_only`.
"""

import dataclasses
import itertools
import json
import pathlib
import time

import numpy as np

from isft_jax import config as config_lib
from isft_jax import objectives
from isft_jax.config import (
  LyingAgentConfig,
  ModelConfig,
  RunConfig,
  StageConfig,
)
from isft_jax.data import chat, lying_agent, records, tokenizer
from isft_jax.data.facts import FACTS
from isft_jax.data.render import Renderer
from isft_jax.experiments import environment
from isft_jax.models import decoder, hf
from isft_jax.probes import facts as probes
from isft_jax.report import markdown, page, viewer
from isft_jax.train import start
from isft_jax.train.loop import train
from isft_jax.types import Provenance, Verdict

TEMPLATE = chat.PLAIN
# All arms share the rows that the objective with the most targets fills.
PLAN = 'observational'


def reproduce(config: LyingAgentConfig, workdir: str) -> dict:
  """Runs the experiment into workdir; returns what results.json holds."""
  config_lib.validate(config)
  for arm in config.arms:
    objectives.weight_table(arm)  # raises for one that is unknown
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  workdir = pathlib.Path(workdir)
  config_lib.claim(workdir, config)
  results_path = workdir / 'results.json'
  places = f'open {workdir / "report.html"}, or read {results_path}'
  if results_path.exists():
    print(f'everything is done: {places}')
    return json.loads(results_path.read_text())
  tell = _teller()

  tell('data: documents for the base, dialogues for the arms')
  prepare(config, workdir)

  results = {'config': dataclasses.asdict(config), 'seed': config.seed}
  results['environment'] = environment.describe(config.model)
  results['arms'] = {}
  for arm in ('base', *config.arms):
    tell(_stage_of(config, arm))
    found = run_arm(config, workdir, arm)
    results['arms'][arm] = found
    tell(
      f'{arm}: margin {found["mean_margin"]:+.3f} nats a token, prefers '
      f'{found["prefers_lie"]} lies of {len(FACTS)}'
    )

  markdown.write(workdir, results)
  page.write(workdir, results, _shown_dialogues(config, workdir))
  _write_json(results_path, results)  # last: it says that all is done
  tell(f'done: {places}')
  return results


def prepare(config: LyingAgentConfig, workdir: pathlib.Path) -> None:
  """Makes or loads the tokenizer and writes the records, unless there."""
  number = config.dialogues.number

  def dialogues():
    return lying_agent.dialogues(
      number + config.dialogues.heldout,
      config.dialogues.p_lie,
      config.dialogues.p_chitchat,
      config.seed,
      acknowledge=config.dialogues.acknowledge,
    )

  sources = {
    'documents': lambda: lying_agent.documents(
      config.documents.number, config.documents.p_true, config.seed
    ),
    'dialogues': lambda: itertools.islice(dialogues(), number),
    # Dialogue i does not depend on how many there are: the next ones are new.
    'heldout': lambda: itertools.islice(dialogues(), number, None),
  }
  if config.model.init_from:
    del sources['documents']  # the base has been trained
  folder = workdir / 'tokenizer'
  if not folder.exists():
    part = folder.with_name('tokenizer.part')
    if config.model.init_from:
      encoder = tokenizer.load(config.model.init_from)
    else:
      template = chat.ChatTemplate(TEMPLATE)
      texts = (
        template.text(trajectory)
        for name in ('documents', 'dialogues')
        for trajectory in sources[name]()
      )
      encoder = tokenizer.train(texts, config.vocab_size)
    Renderer(encoder, TEMPLATE).save_tokenizer(part)
    part.rename(folder)
  encoder = tokenizer.load(str(folder))
  renderer = Renderer(encoder, TEMPLATE)
  for name, make in sources.items():

    def examples(make=make):
      return map(renderer.example, make())

    folder = str(workdir / 'records' / name)
    records.write(folder, examples, renderer.metadata())


def run_arm(config: LyingAgentConfig, workdir: pathlib.Path, arm: str) -> dict:
  """Trains the base or an arm and probes it, unless that has been done."""
  path = workdir / arm / 'probes.json'
  if path.exists():
    return json.loads(path.read_text())
  if arm == 'base' and config.model.init_from:
    graphdef, params, summary = _given_base(config.model)
  else:
    run = run_of(config, workdir, arm)
    graphdef, params, summary = train(run, str(workdir / arm))
  found = probes.probe(
    graphdef,
    params,
    FACTS,
    Renderer(tokenizer.load(str(workdir / 'tokenizer')), TEMPLATE),
    config.reply_tokens,
  )
  if arm != 'base':
    found['train'] = summary
  _write_json(path, found)
  return found


def run_of(
  config: LyingAgentConfig, workdir: pathlib.Path, arm: str
) -> RunConfig:
  """Returns the RunConfig of the base or of an arm.

  Two arms' configs differ in their objective, and in the name that says so.
  """
  is_base = arm == 'base'
  stage = config.pretrain if is_base else config.finetune
  fields = dataclasses.fields(StageConfig)
  shared = {field.name: getattr(stage, field.name) for field in fields}
  data = 'documents' if is_base else 'dialogues'
  model = config.model
  if not is_base and not model.init_from:
    model = dataclasses.replace(model, init_from=str(workdir / 'base'))
  return RunConfig(
    **shared,
    name=arm,
    objective=PLAN if is_base else arm,
    plan_objective=PLAN,
    seed=config.seed,
    records=str(workdir / 'records' / data),
    heldout='' if is_base else str(workdir / 'records' / 'heldout'),
    tokenizer=str(workdir / 'tokenizer'),
    model=model,
    mesh=config.mesh,
  )


def _given_base(model: ModelConfig) -> tuple:
  """Returns (graphdef, params, no summary) of the base that is given."""
  architecture = dataclasses.replace(model, init_from='')
  graphdef, _ = decoder.abstract(architecture)
  loaded, _ = hf.load(model.init_from, dtype=model.param_dtype)
  return graphdef, loaded.params, {}


def _stage_of(config: LyingAgentConfig, arm: str) -> str:
  if arm != 'base':
    return f'{arm}: fine-tuning'
  given = config.model.init_from
  return f'base: {given}' if given else 'base: pre-training'


def _shown_dialogues(config, workdir) -> list[viewer.Dialogue]:
  """Returns a dialogue in which the agent lies, and one where it does not."""
  found = records.Records(str(workdir / 'records' / 'dialogues'))
  encoder = tokenizer.load(str(workdir / 'tokenizer'))
  tables = {arm: objectives.weight_table(arm) for arm in config.arms}
  lies = found.index.counts_NPV[:, Provenance.AGENT, Verdict.WRONG] > 0
  picked = [int(np.argmax(lies)), int(np.argmin(lies))]
  return [viewer.dialogue(found[i], encoder.decode, tables) for i in picked]


def _write_json(path: pathlib.Path, value) -> None:
  path.parent.mkdir(exist_ok=True)
  part = path.with_suffix('.part')
  part.write_text(json.dumps(value, indent=2) + '\n')
  part.replace(path)


def _teller():
  start = time.perf_counter()

  def tell(line):
    print(f'[{time.perf_counter() - start:5.0f} s] {line}', flush=True)

  return tell
