"""The lying agent: the same model, dialogues and order; one line differs.

    facts -> documents -> base model --+--> arm (objective) -> probes
    facts -> dialogues ----------------'         ...           -> results

With config.model.init_from the base model is one that others have trained, and
no documents are made. Facts and dialogues may come from files that others have
written: config.facts_file and config.dialogues.file.

Source: de Freitas and Ortega 2026, section 6. Ours are the base model that the
run pre-trains itself, its row of probes, and the arm `agent_only`.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from isft_jax import config as config_lib
from isft_jax import files, objectives
from isft_jax.config import ModelConfig, RunConfig
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset, shards
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments import environment
from isft_jax.experiments.config import LyingAgentConfig
from isft_jax.experiments.progress import Progress
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.models.decoder import GraphDef
from isft_jax.report.lying_agent import page
from isft_jax.report.viewer import shown
from isft_jax.train import start
from isft_jax.train.checkpoint import folder_of
from isft_jax.train.loop import Trained, train
from isft_jax.types import Example, Provenance, PyTree, Trajectory, Verdict
from isft_jax.worlds.lying_agent import (
  dialogue_files,
  fact_files,
  forgetting,
  generator,
  glosses,
  probes,
  world_facts,
)
from isft_jax.worlds.lying_agent.facts import FACTS, Fact

TEMPLATE = chat_template.PLAIN
# All arms share the rows that the objective with the most targets fills.
PLAN = 'observational'


class Material(NamedTuple):
  """What the arms talk about, and are asked about.

  context: the system turn of dialogues and probes, '' if they have none.
  dialogues, heldout: make them, in their order.
  """

  facts: tuple[Fact, ...]
  context: str
  dialogues: Callable[[], Iterable[Trajectory | Example]]
  heldout: Callable[[], Iterable[Trajectory]]


def reproduce(
  config: LyingAgentConfig, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Runs the experiment into workdir; returns what results.json holds."""
  config.check()
  for arm in config.arms:
    objectives.weight_table(arm)  # raises for one that is unknown
  config = resolved(config)
  workdir = pathlib.Path(workdir)
  config_lib.claim(workdir, config)
  results_path = workdir / 'results.json'
  places = f'open {workdir / "report.html"}, or read {results_path}'
  if results_path.exists():
    print(f'everything is done: {places}')
    return json.loads(results_path.read_text())
  material = material_of(config)
  if config.forgetting:
    glosses.read()  # downloads them now, not after an hour of training
  progress = Progress(workdir / 'progress.json', _costs(config, material))
  tell = _teller(progress)

  tell('data: documents for the base, dialogues for the arms')
  prepare(config, workdir, material)
  _plan(progress, config, workdir)

  results: dict[str, Any]
  results = {'config': dataclasses.asdict(config), 'seed': config.seed}
  results['environment'] = environment.describe(config.model)
  results['base'] = environment.describe_base(config)
  results['arms'] = {}
  for arm in ('base', *config.arms):
    tell(_stage_of(config, arm))
    found = run_arm(config, workdir, arm, material, progress)
    results['arms'][arm] = found
    tell(
      f'{arm}: margin {found["mean_margin"]:+.3f} nats per token, prefers '
      f'{found["prefers_lie"]} lies of {len(material.facts)}'
    )

  page.write(workdir, results, _shown_dialogues(config, workdir))
  _write_json(results_path, results)  # last: it says that all is done
  tell(f'done: {places}')
  return results


def resolved(config: LyingAgentConfig) -> LyingAgentConfig:
  """Returns a config with the shape of its base and the checksums of its files.

  Raises ValueError if a file is not the one whose checksum the config has, or
  cannot be read.
  """
  dialogues = config.dialogues
  if dialogues.file:
    dialogues = dataclasses.replace(
      dialogues,
      sha256=_checked('dialogues.', dialogues.file, dialogues.sha256),
      number=len(dialogue_files.read(dialogues.file)),
      heldout=0,
    )
  facts_sha256 = config.facts_sha256
  if config.facts_file:
    facts_sha256 = _checked('facts_', config.facts_file, facts_sha256)
  return dataclasses.replace(
    config,
    dialogues=dialogues,
    facts_sha256=facts_sha256,
    model=start.with_shape(config.model),
  )


def material_of(config: LyingAgentConfig) -> Material:
  """Returns facts, context and dialogues, made or read from files.

  The context is that of the file of facts. Without one it is that of the file
  of dialogues, if they share one, and of dialogues that are made it is ours.

  Raises ValueError if dialogues of a file have another context.
  """
  facts, context = FACTS, ''
  if config.facts_file:
    facts, context = fact_files.read(config.facts_file)
  settings = config.dialogues
  if settings.file:
    given = dialogue_files.read(settings.file)
    own = dialogue_files.shared_context(given)
    if own and context and own != context:
      raise ValueError(
        f'the dialogues of {settings.file} open with the system turn {own!r}, '
        f'and the context of {config.facts_file} is {context!r}: make them the '
        'same, or remove one of them'
      )
    context = context or own
    with_context = [
      dialogue_files.with_context(each, context)
      if isinstance(each, Trajectory)
      else each
      for each in given
    ]
    return Material(facts, context, lambda: with_context, lambda: ())

  context = context or generator.CONTEXT

  def dialogues(start: int, stop: int) -> Iterator[Trajectory]:
    # Dialogue i does not depend on how many there are: the next ones are new.
    made = generator.dialogues(
      stop,
      settings.p_lie,
      settings.p_chitchat,
      config.seed,
      facts,
      acknowledge=settings.acknowledge,
    )
    for dialogue in itertools.islice(made, start, None):
      yield dialogue_files.with_context(dialogue, context)

  number, total = settings.number, settings.number + settings.heldout
  return Material(
    facts,
    context,
    lambda: dialogues(0, number),
    lambda: dialogues(number, total),
  )


def prepare(
  config: LyingAgentConfig, workdir: pathlib.Path, material: Material
) -> None:
  """Makes or loads the tokenizer and writes the records, unless there."""
  sources: dict[str, Callable[[], Iterable[Trajectory | Example]]] = {
    'documents': lambda: generator.documents(
      config.documents.number,
      config.documents.p_true,
      config.seed,
      material.facts,
    ),
    'dialogues': material.dialogues,
    'heldout': material.heldout,
  }
  if config.model.init_from:
    del sources['documents']  # the base has been trained
  if not config.dialogues.heldout:
    del sources['heldout']
  folder = workdir / 'tokenizer'
  if not folder.exists():
    part = folder.with_name('tokenizer.part')
    if config.model.init_from:
      encoder = tokenizer.load(config.model.init_from)
    else:
      template = chat_template.ChatTemplate(TEMPLATE)
      texts = (
        template.text(_text_of(config, trajectory))
        for name in ('documents', 'dialogues')
        for trajectory in sources[name]()
      )
      encoder = tokenizer.train(texts, config.vocab_size)
    Renderer(encoder, TEMPLATE).save_tokenizer(part)
    part.rename(folder)
  renderer = renderer_of(config, workdir)
  for name, make in sources.items():
    dataset.write(
      str(workdir / 'records' / name),
      functools.partial(_examples, config, renderer, make),
      renderer.metadata(),
    )


def renderer_of(config: LyingAgentConfig, workdir: pathlib.Path) -> Renderer:
  """Returns what renders dialogues and probes alike."""
  encoder = tokenizer.load(str(workdir / 'tokenizer'))
  return Renderer(encoder, TEMPLATE, piecewise=config.piecewise)


def run_arm(
  config: LyingAgentConfig,
  workdir: pathlib.Path,
  arm: str,
  material: Material,
  progress: Progress,
) -> dict[str, Any]:
  """Trains the base or an arm and probes it, unless that has been done."""
  path = workdir / arm / 'probes.json'
  if path.exists():
    return json.loads(path.read_text())
  if arm == 'base' and config.model.init_from:
    graphdef, params, summary = _given_base(config.model)
  else:

    def done(step: int, seconds: float) -> str:
      progress.update(arm, step, seconds)
      return progress.describe()

    run = run_of(config, workdir, arm)
    graphdef, params, summary = train(run, str(workdir / arm), progress=done)
  since = time.perf_counter()
  renderer = renderer_of(config, workdir)
  found = probes.probe(
    graphdef,
    params,
    material.facts,
    renderer,
    config.reply_tokens,
    context=material.context,
  )
  if config.forgetting:
    found |= _measure_forgetting(graphdef, params, renderer, material.context)
  if arm != 'base':
    found['train'] = summary
  _write_json(path, found)
  progress.update(f'{arm}: probes', 1, time.perf_counter() - since)
  return found


def _measure_forgetting(
  graphdef: GraphDef, params: PyTree, renderer: Renderer, context: str
) -> dict[str, Any]:
  """Returns what a model says of facts and texts that no dialogue has."""
  texts = glosses.read()
  nll, tokens = forgetting.nll_per_token(
    graphdef, params, renderer.tokenizer, texts
  )
  return {
    'unmentioned': forgetting.measure_unmentioned(
      graphdef, params, world_facts.CAPITALS, renderer, context
    ),
    'elsewhere': {'text': glosses.SOURCE, 'tokens': tokens, 'nll': nll},
  }


def run_of(
  config: LyingAgentConfig, workdir: pathlib.Path, arm: str
) -> RunConfig:
  """Returns the RunConfig of the base or of an arm.

  Two arms' configs differ in their objective, and in the name that says so.
  """
  is_base = arm == 'base'
  stage = config.pretrain if is_base else config.finetune
  data = 'documents' if is_base else 'dialogues'
  heldout = '' if is_base else str(workdir / 'records' / 'heldout')
  model = config.model
  if not is_base and not model.init_from:
    model = dataclasses.replace(model, init_from=str(workdir / 'base'))
  return RunConfig.from_stage(
    stage,
    name=arm,
    objective=PLAN if is_base else arm,
    plan_objective=PLAN,
    seed=config.seed,
    records=str(workdir / 'records' / data),
    heldout=heldout if config.dialogues.heldout else '',
    tokenizer=str(workdir / 'tokenizer'),
    model=model,
    mesh=config.mesh,
  )


def _given_base(model: ModelConfig) -> Trained:
  """Returns (graphdef, params, no summary) of the base that is given."""
  architecture = dataclasses.replace(model, init_from='')
  graphdef, _ = decoder.abstract(architecture)
  loaded, _ = pretrained.load(model.init_from, dtype=model.param_dtype)
  return Trained(graphdef, loaded.params, {})


def _checked(prefix: str, file: str, expected: str) -> str:
  """Returns the checksum of a file. Raises ValueError if it is another."""
  if not pathlib.Path(file).is_file():
    raise ValueError(f'config.{prefix}file={file!r}: no such file')
  actual = shards.sha256(epath.Path(file))
  if expected not in ('', actual):
    raise ValueError(
      f'{file} has the checksum {actual}, and config.{prefix}sha256 is '
      f'{expected}: name the file that it is of, or leave the checksum empty'
    )
  return actual


def _text_of(
  config: LyingAgentConfig, dialogue: Trajectory | Example
) -> Trajectory:
  """Returns a dialogue to train a tokenizer on. Raises ValueError for ids."""
  if isinstance(dialogue, Example):
    raise ValueError(
      f'{config.dialogues.file} holds ids, which mean something to one '
      'tokenizer only: name its model with config.model.init_from'
    )
  return dialogue


def _examples(
  config: LyingAgentConfig,
  renderer: Renderer,
  dialogues: Callable[[], Iterable[Trajectory | Example]],
) -> Iterator[Example]:
  return (_example(config, renderer, each) for each in dialogues())


def _example(
  config: LyingAgentConfig, renderer: Renderer, dialogue: Trajectory | Example
) -> Example:
  """Returns a rendered dialogue. Raises ValueError, naming it."""
  if isinstance(dialogue, Example):
    return dialogue
  try:
    return renderer.example(dialogue)
  except ValueError as error:
    place = config.dialogues.file or 'the dialogues'
    raise ValueError(f'{place}, {dialogue.id}: {error}') from error


def _costs(config: LyingAgentConfig, material: Material) -> dict[str, float]:
  """Returns a guess of what a unit of work costs, in tokens read forwards.

  A step is three passes. Two claims and two replies are probed for each fact;
  a token that is generated takes the time of about four that are read.
  """
  tokens_BL = {
    kind: 3.0 * stage.rows * (stage.row_length or 256)
    for kind, stage in (
      ('pretrain', config.pretrain),
      ('finetune', config.finetune),
    )
  }
  per_fact = 4 * 64 + 2 * 4 * config.reply_tokens
  return tokens_BL | {'probes': float(len(material.facts) * per_fact)}


def _plan(
  progress: Progress, config: LyingAgentConfig, workdir: pathlib.Path
) -> None:
  """Tells progress what is to be done, and what of it has been done."""
  steps: dict[str, int] = {}  # of a stage; all arms have as many
  for arm in ('base', *config.arms):
    is_done = (workdir / arm / 'probes.json').exists()
    if arm != 'base' or not config.model.init_from:
      kind = 'pretrain' if arm == 'base' else 'finetune'
      if kind not in steps:
        run = run_of(config, workdir, arm)
        steps[kind] = len(BatchSource(dataset.Records(run.records), run))
      done = steps[kind] if is_done else _saved_steps(workdir / arm)
      progress.plan(arm, kind, steps[kind], done)
    progress.plan(f'{arm}: probes', 'probes', 1, int(is_done))


def _saved_steps(workdir: pathlib.Path) -> int:
  """Returns the steps of the newest checkpoint, from its name."""
  names = [path.name for path in folder_of(str(workdir)).glob('step_*')]
  numbers = [name.removeprefix('step_') for name in names]
  return max((int(n) for n in numbers if n.isdecimal()), default=0)


def _stage_of(config: LyingAgentConfig, arm: str) -> str:
  if arm != 'base':
    return f'{arm}: fine-tuning'
  given = config.model.init_from
  return f'base: {given}' if given else 'base: pre-training'


def _shown_dialogues(
  config: LyingAgentConfig, workdir: pathlib.Path
) -> list[shown.Dialogue]:
  """Returns a dialogue in which the agent lies, and one where it does not."""
  found = dataset.Records(str(workdir / 'records' / 'dialogues'))
  encoder = tokenizer.load(str(workdir / 'tokenizer'))
  tables = {arm: objectives.weight_table(arm) for arm in config.arms}
  lies = found.index.counts_NPV[:, Provenance.AGENT, Verdict.WRONG] > 0
  # The same one, where all dialogues are of one kind or have no verdicts.
  picked = dict.fromkeys([int(np.argmax(lies)), int(np.argmin(lies))])
  decode = functools.partial(tokenizer.decode, encoder)
  return [shown.dialogue(found[i], decode, tables) for i in picked]


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  path.parent.mkdir(exist_ok=True)
  files.write_atomically(path, json.dumps(value, indent=2) + '\n')


def _teller(progress: Progress) -> Callable[[str], None]:
  start = time.perf_counter()

  def tell(line: str) -> None:
    seconds = time.perf_counter() - start
    print(f'[{seconds:5.0f} s, {progress.describe()}] {line}', flush=True)

  return tell
