"""The lying agent: arms that differ only in the objective of fine-tuning.

    facts -> documents -> base model --+--> arm (objective) -> probes
    facts -> dialogues ----------------'         ...           -> results

All arms share the base model, the dialogues and their order. With
config.model.init_from the base model is a given one, and no documents are
generated. Facts and dialogues may come from files: config.facts_file and
config.dialogues.file.

Source: de Freitas and Ortega 2026, section 6. Our additions are the base model
that the run pre-trains, probes of the base, and the arm `agent_only`.
"""

import dataclasses
import functools
import itertools
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from isft_jax import config as config_lib
from isft_jax import files, objectives, progress_bar
from isft_jax.config import LoraConfig, RunConfig
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.experiments import environment, replay
from isft_jax.experiments.config import LyingAgentConfig
from isft_jax.experiments.progress import Progress
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.models.decoder import GraphDef
from isft_jax.report.lying_agent import page
from isft_jax.report.viewer import shown
from isft_jax.train import run_tokenizer, saved, start
from isft_jax.train.checkpoint import checkpoint_folder
from isft_jax.train.loop import Trained, train
from isft_jax.types import Example, Provenance, PyTree, Trajectory, Verdict
from isft_jax.worlds.lying_agent import (
  dialogue_files,
  fact_files,
  forgetting,
  generator,
  glosses,
  probes,
  roles,
  world_facts,
)
from isft_jax.worlds.lying_agent.facts import FACTS, Fact

TEMPLATE = chat_template.PLAIN
# Rows are packed for the objective with the most targets, and all arms share
# them.
PLAN = 'observational'


class Material(NamedTuple):
  """Facts, context and dialogues of an experiment."""

  facts: tuple[Fact, ...]
  context: str  # the system turn of dialogues and probes; '' for none
  # Functions that generate or return the dialogues, always in the same order.
  dialogues: Callable[[], Iterable[Trajectory | Example]]
  heldout: Callable[[], Iterable[Trajectory]]


def reproduce(
  config: LyingAgentConfig, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Runs the experiment in workdir, or resumes it.

  Args:
    config: settings of the experiment.
    workdir: folder for data, checkpoints and results; one per config.

  Returns:
    The content of workdir/results.json.

  Raises:
    ValueError: a setting is invalid, or workdir belongs to another config.
  """
  # Refuse invalid settings before any work.
  config.check()
  for arm in config.arms:
    # Raises ValueError if it is unknown.
    objectives.weight_table(replay.objective_from_arm(arm))
  config = resolve(config)
  workdir = pathlib.Path(workdir)
  config_lib.claim(workdir, config)

  # results.json is written last: it marks a finished experiment.
  results_path = workdir / 'results.json'
  if results_path.exists():
    print(f'everything is done: {_places(workdir)}')
    return files.read_json(results_path)

  # Write the data.
  material = load_material(config)
  if config.forgetting:
    glosses.read()  # a download that must not fail after an hour of training
  progress = Progress(workdir / 'progress.json', _costs(config, material))
  with progress_bar.Bar('all', 100, '%', has_lines=True) as bar:
    return _run(config, workdir, material, progress, _logger(progress, bar))


def _run(
  config: LyingAgentConfig,
  workdir: pathlib.Path,
  material: Material,
  progress: Progress,
  tell: Callable[[str], None],
) -> dict[str, Any]:
  """Writes the data, trains and probes the arms, and writes the results."""
  tell('data: documents for the base, dialogues for the arms')
  prepare(config, workdir, material)
  _plan(progress, config, workdir)

  # Train and probe the base, then the arms.
  results: dict[str, Any]
  results = {'config': dataclasses.asdict(config), 'seed': config.seed}
  results['environment'] = environment.describe(config.model)
  results['base'] = environment.describe_base(config)
  results['arms'] = {}
  base = None
  for arm in ('base', *config.arms):
    tell(_stage_name(config, arm))
    probed, base = run_arm(config, workdir, arm, material, progress, base)
    results['arms'][arm] = probed
    tell(
      f'{arm}: margin {probed["mean_margin"]:+.3f} nats per token, prefers '
      f'{probed["prefers_lie"]} lies of {len(material.facts)}'
    )

  # Write the page and the results.
  page.write(workdir, results, _shown_dialogues(config, workdir))
  _write_json(workdir / 'results.json', results)
  tell(f'done: {_places(workdir)}')
  return results


def _places(workdir: pathlib.Path) -> str:
  return f'open {workdir / "report.html"}, or read {workdir / "results.json"}'


def resolve(config: LyingAgentConfig) -> LyingAgentConfig:
  """Returns a config with the shape of its base and the checksums of its files.

  Raises:
    ValueError: a file cannot be read, or its checksum differs from that in the
      config.
  """
  dialogues = config.dialogues
  # A file decides the number of its dialogues, and none are held out.
  if dialogues.file:
    dialogues = dataclasses.replace(
      dialogues,
      sha256=_checksum('dialogues.', dialogues.file, dialogues.sha256),
      number=len(dialogue_files.read(dialogues.file)),
      heldout=0,
    )
  # A checksum of the facts makes an edited file another experiment.
  facts_sha256 = config.facts_sha256
  if config.facts_file:
    facts_sha256 = _checksum('facts_', config.facts_file, facts_sha256)
  # The shape of a given base replaces the one in the config.
  return dataclasses.replace(
    config,
    dialogues=dialogues,
    facts_sha256=facts_sha256,
    model=start.with_shape(config.model),
  )


def load_material(config: LyingAgentConfig) -> Material:
  """Returns facts, context and dialogues, generated or read from files.

  The context comes from the file of facts. If that has none, it is the context
  that all dialogues of a file share, or ours for generated dialogues.

  Raises:
    ValueError: the two files have different contexts.
  """
  # The facts of the paper, unless a file is named.
  facts, context = FACTS, ''
  if config.facts_file:
    facts, context = fact_files.read(config.facts_file)
  # Dialogues of a file, with the context put before each.
  settings = config.dialogues
  if settings.file:
    given = dialogue_files.read(settings.file)
    own = dialogue_files.shared_context(given)
    if own and context and own != context:
      raise ValueError(
        f'the dialogues of {settings.file} open with the system turn {own!r}, '
        f'and the context of {config.facts_file} is {context!r}: make them '
        'equal, or remove one of them'
      )
    context = context or own
    # Dialogues that are token ids keep their own context.
    with_context = [
      dialogue_files.with_context(each, context)
      if isinstance(each, Trajectory)
      else each
      for each in given
    ]
    return Material(facts, context, lambda: with_context, lambda: ())

  # Generated dialogues: the first `number` are for training, the next
  # `heldout` for evaluation.
  context = context or generator.CONTEXT

  def dialogues(start: int, stop: int) -> Iterator[Trajectory]:
    # Dialogue i does not depend on the number of dialogues, so that those for
    # evaluation differ from those for training.
    generated = generator.dialogues(
      stop,
      settings.p_lie,
      settings.p_chitchat,
      config.seed,
      facts,
      acknowledge=settings.acknowledge,
    )
    for dialogue in itertools.islice(generated, start, None):
      yield dialogue_files.with_context(dialogue, context)

  # Training and evaluation use different ranges of the same dialogues.
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
  """Trains or loads the tokenizer and writes the records, unless they exist."""
  # What to write: functions, because the tokenizer and the records each iterate
  # over the texts.
  makers: dict[str, Callable[[], Iterable[Trajectory | Example]]] = {
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
    del makers['documents']  # a given base is not pre-trained
  if not config.dialogues.heldout:
    del makers['heldout']

  # The tokenizer. It is renamed when complete, so that an interrupted run does
  # not leave a part of it.
  folder = workdir / 'tokenizer'
  if not folder.exists():
    part = folder.with_name('tokenizer.part')
    if config.model.init_from:
      tokenizer = _tokenizer_of(config.model.init_from)
    else:
      # The vocabulary is trained on documents and on dialogues.
      template = chat_template.ChatTemplate(TEMPLATE)
      texts = (
        template.text(_check_text(config, trajectory))
        for name in ('documents', 'dialogues')
        for trajectory in makers[name]()
      )
      tokenizer = tokenizer_lib.train(
        progress_bar.track(texts, 'reading texts', 0, 'texts'),
        config.vocab_size,
      )
    Renderer(tokenizer, TEMPLATE).save_tokenizer(part)
    part.rename(folder)

  # The records.
  renderer = load_renderer(config, workdir)
  for name, make in makers.items():
    dataset.write(
      str(workdir / 'records' / name),
      functools.partial(_examples, config, renderer, make, name),
      renderer.metadata(),
    )


def load_renderer(config: LyingAgentConfig, workdir: pathlib.Path) -> Renderer:
  """Returns the renderer of dialogues and probes."""
  tokenizer = tokenizer_lib.load(str(workdir / 'tokenizer'))
  return Renderer(tokenizer, TEMPLATE, piecewise=config.piecewise)


def run_arm(
  config: LyingAgentConfig,
  workdir: pathlib.Path,
  arm: str,
  material: Material,
  progress: Progress,
  base: start.Base | None = None,
) -> tuple[dict[str, Any], start.Base | None]:
  """Trains the base or an arm and probes it, or reads its saved probes.

  Args:
    config: settings of the experiment.
    workdir: folder of the experiment.
    arm: 'base', or the objective of an arm.
    material: facts, context and dialogues.
    progress: of the experiment.
    base: frozen base of the adapters of earlier arms, if there is one.

  Returns:
    The content of workdir/ARM/probes.json, and the frozen base for the next
    arm.
  """
  # Saved probes mark a finished arm.
  path = workdir / arm / 'probes.json'
  if path.exists():
    return files.read_json(path), base

  # Train, or load a given base.
  if arm == 'base' and config.model.init_from:
    trained = _given_base(config)
  else:

    def done(step: int, seconds: float) -> str:
      progress.update(arm, step, seconds)
      return progress.describe()

    if arm in replay.ARMS:
      _write_replay(config, workdir, arm, material)
    run = make_run(config, workdir, arm)
    trained = train(run, str(workdir / arm), progress=done, base=base)
  graphdef, params, summary, base = trained

  # Probe, and save the probes with the summary of training.
  start_time = time.perf_counter()
  renderer = load_renderer(config, workdir)
  probed = probes.probe(
    graphdef,
    params,
    material.facts,
    renderer,
    config.reply_tokens,
    context=material.context,
  )
  # What the mask costs, on dialogues that no arm has seen.
  if config.dialogues.heldout:
    probed['costs'] = roles.measure(
      graphdef,
      params,
      [renderer.example(dialogue) for dialogue in material.heldout()],
      renderer,
      config.reply_tokens,
      config.seed,
      params if arm == 'base' else _base_model(config, workdir).params,
    )
  # Fine-tuning may damage knowledge that the dialogues do not mention.
  if config.forgetting:
    probed |= _measure_forgetting(graphdef, params, renderer, material.context)
  if arm != 'base':
    probed['train'] = summary
  _write_json(path, probed)
  progress.update(f'{arm}: probes', 1, time.perf_counter() - start_time)
  return probed, base


def _write_replay(
  config: LyingAgentConfig, workdir: pathlib.Path, arm: str, material: Material
) -> None:
  """Writes the dialogues, and those that the base completes."""
  renderer = load_renderer(config, workdir)

  def make() -> Iterator[Example]:
    graphdef, params = _base_model(config, workdir)
    dialogues = [_check_text(config, each) for each in material.dialogues()]
    written = replay.examples(
      arm,
      replay.Writer(
        *(graphdef, params, renderer, config.reply_tokens, config.seed)
      ),
      dialogues,
      (*world_facts.SYMBOLS, *world_facts.CURRENCIES),
      config.replay,
      config.dialogues.p_chitchat,
    )
    return itertools.chain(map(renderer.example, dialogues), written)

  dataset.write(str(workdir / 'records' / arm), make, renderer.metadata())


def _measure_forgetting(
  graphdef: GraphDef, params: PyTree, renderer: Renderer, context: str
) -> dict[str, Any]:
  """Returns margins of unmentioned facts and the loss on unrelated text."""
  # Text that no arm is trained on.
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


def make_run(
  config: LyingAgentConfig, workdir: pathlib.Path, arm: str
) -> RunConfig:
  """Returns the RunConfig of the base or of an arm.

  The configs of two arms differ only in `objective` and `name`.
  """
  # The base learns from documents, the arms from dialogues.
  is_base = arm == 'base'
  stage = config.pretrain if is_base else config.finetune
  data = 'documents' if is_base else arm if arm in replay.ARMS else 'dialogues'
  heldout = '' if is_base else str(workdir / 'records' / 'heldout')
  # An arm starts from the base that the run trained, or from the given one.
  model = config.model
  if not is_base and not model.init_from:
    model = dataclasses.replace(model, init_from=str(workdir / 'base'))
  return RunConfig.from_stage(
    stage,
    name=arm,
    # The base scores every token of its documents.
    objective=PLAN if is_base else replay.objective_from_arm(arm),
    plan_objective=PLAN,
    seed=config.seed,
    records=str(workdir / 'records' / data),
    heldout=heldout if config.dialogues.heldout else '',
    tokenizer=str(workdir / 'tokenizer'),
    model=model,
    lora=LoraConfig() if is_base else config.lora,
    mesh=config.mesh,
  )


def _base_model(
  config: LyingAgentConfig, workdir: pathlib.Path
) -> pretrained.Model:
  """Loads the model that all arms start from, without adapters."""
  if config.model.init_from:
    graphdef, params, *_ = _given_base(config)
    return pretrained.Model(graphdef, params)
  return saved.load(str(workdir / 'base')).model


def _given_base(config: LyingAgentConfig) -> Trained:
  """Loads config.model.init_from; the summary of its training is empty."""
  model, place = config.model, config.model.init_from
  graphdef, _ = decoder.abstract(dataclasses.replace(model, init_from=''))
  # The base of another run, as RUN/base.
  if start.is_run(place):
    params = saved.load(place, dtype=model.param_dtype).model.params
  else:
    params = pretrained.load_params(place, model)
  # The arms put adapters on this very copy in memory.
  frozen = None
  if config.lora.rank:
    identity = {'place': place, 'sha256': saved.digest(place)}
    frozen = start.Base(params, identity)
  return Trained(graphdef, params, {}, frozen)


def _tokenizer_of(place: str) -> FastTokenizer:
  """Returns the tokenizer of a given base: that of a run, or of a model."""
  if start.is_run(place):
    # Only runs of old versions have none.
    found = run_tokenizer.load(place)
    if found is None:
      raise ValueError(
        f'{place} has no tokenizer, because an old version trained it; train '
        'it again, or name a model folder'
      )
    return found
  return tokenizer_lib.load(place)


def _checksum(prefix: str, file: str, expected: str) -> str:
  """Returns a file's checksum. Raises ValueError if another is expected."""
  if not pathlib.Path(file).is_file():
    raise ValueError(f'config.{prefix}file={file!r}: the file does not exist')
  actual = files.sha256(epath.Path(file))
  # Without an expected checksum, any content of the file is accepted.
  if expected not in ('', actual):
    raise ValueError(
      f'{file} has the checksum {actual}, and config.{prefix}sha256 is '
      f'{expected}: name the file with that checksum, or leave it empty'
    )
  return actual


def _check_text(
  config: LyingAgentConfig, dialogue: Trajectory | Example
) -> Trajectory:
  """Returns a dialogue. Raises ValueError if it has token ids, not text."""
  if isinstance(dialogue, Example):
    raise ValueError(
      f'{config.dialogues.file} has token ids, which need the tokenizer that '
      'made them: name its model with config.model.init_from'
    )
  return dialogue


def _examples(
  config: LyingAgentConfig,
  renderer: Renderer,
  dialogues: Callable[[], Iterable[Trajectory | Example]],
  name: str,
) -> Iterator[Example]:
  return (
    _example(config, renderer, each)
    for each in progress_bar.track(dialogues(), f'writing {name}', 0, 'records')
  )


def _example(
  config: LyingAgentConfig, renderer: Renderer, dialogue: Trajectory | Example
) -> Example:
  """Returns a rendered dialogue. A ValueError names the dialogue."""
  if isinstance(dialogue, Example):
    return dialogue
  try:
    return renderer.example(dialogue)
  except ValueError as error:
    place = config.dialogues.file or 'the dialogues'
    raise ValueError(f'{place}, {dialogue.id}: {error}') from error


def _costs(config: LyingAgentConfig, material: Material) -> dict[str, float]:
  """Returns a guess of the cost of a unit, in tokens of a forward pass.

  A step costs three forward passes: one forwards, and about two backwards. A
  fact has four prompts of about 64 tokens (two claims, two replies). A
  generated token takes about as long as four that are read.
  """
  tokens_per_step = {
    kind: 3.0 * stage.batch_size * (stage.seq_len or 256)
    for kind, stage in (
      ('pretrain', config.pretrain),
      ('finetune', config.finetune),
    )
  }
  per_fact = 4 * 64 + 2 * 4 * config.reply_tokens
  return tokens_per_step | {'probes': float(len(material.facts) * per_fact)}


def _plan(
  progress: Progress, config: LyingAgentConfig, workdir: pathlib.Path
) -> None:
  """Adds every stage to `progress`, with the units that are already done."""
  steps: dict[str, int] = {}  # kind -> steps, of arms without a replay
  for arm in ('base', *config.arms):
    is_done = (workdir / arm / 'probes.json').exists()
    # A given base is probed, but not trained.
    if arm != 'base' or not config.model.init_from:
      kind = 'pretrain' if arm == 'base' else 'finetune'
      if kind not in steps:
        run = make_run(config, workdir, 'base' if arm == 'base' else PLAN)
        steps[kind] = len(BatchSource(dataset.Records(run.records), run))
      # The records of a replay are not written yet.
      growth = 1 + config.replay if arm in replay.ARMS else 1
      number = round(steps[kind] * growth)
      done = number if is_done else _saved_steps(workdir / arm)
      progress.plan(arm, kind, number, done)
    progress.plan(f'{arm}: probes', 'probes', 1, int(is_done))


def _saved_steps(workdir: pathlib.Path) -> int:
  """Returns the steps of the newest checkpoint, from its name."""
  # Names of unfinished checkpoints have more after the prefix than a number.
  names = [path.name for path in checkpoint_folder(str(workdir)).glob('step_*')]
  numbers = [name.removeprefix('step_') for name in names]
  return max((int(n) for n in numbers if n.isdecimal()), default=0)


def _stage_name(config: LyingAgentConfig, arm: str) -> str:
  if arm != 'base':
    return f'{arm}: fine-tuning'
  given = config.model.init_from
  return f'base: {given}' if given else 'base: pre-training'


def _shown_dialogues(
  config: LyingAgentConfig, workdir: pathlib.Path
) -> list[shown.Dialogue]:
  """Returns a dialogue with a lie of the agent, and one without."""
  records = dataset.Records(str(workdir / 'records' / 'dialogues'))
  tokenizer = tokenizer_lib.load(str(workdir / 'tokenizer'))
  tables = {
    arm: objectives.weight_table(replay.objective_from_arm(arm))
    for arm in config.arms
  }
  # Whether each of the N records has a false token of the agent.
  lies = records.index.counts_NPV[:, Provenance.AGENT, Verdict.WRONG] > 0
  # Both are dialogue 0 if all have lies, or none has, or verdicts are missing.
  picked = dict.fromkeys([int(np.argmax(lies)), int(np.argmin(lies))])
  decode = functools.partial(tokenizer_lib.decode, tokenizer)
  return [shown.dialogue(records[i], decode, tables) for i in picked]


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  path.parent.mkdir(exist_ok=True)
  files.write_atomically(path, json.dumps(value, indent=2) + '\n')


def _logger(progress: Progress, bar: progress_bar.Bar) -> Callable[[str], None]:
  """Returns a function that prints a line with the time and the progress."""
  start = time.perf_counter()

  def tell(line: str) -> None:
    seconds = time.perf_counter() - start
    print(f'[{seconds:5.0f} s, {progress.describe()}] {line}', flush=True)
    bar.line_printed()
    left = progress.seconds_left()
    bar.update(
      round(100 * progress.fraction()), left=math.inf if left is None else left
    )

  return tell
