"""Facts, base model and fine-tuning that the runs of a seed share.

    seed -> facts -> documents -> tokenizer, base model   in bases/seed-N
    a stage, trajectories, an objective -> fit -> a model  in memory

The evidence runs hundreds of short fine-tunes. They save no checkpoints: an
interrupted one is repeated.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax import objectives, sharding
from isft_jax.config import OptimConfig, RunConfig, StageConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments.config import DeploymentConfig, EvidenceConfig
from isft_jax.hf import pretrained
from isft_jax.models import decoder, lora
from isft_jax.train.loop import train
from isft_jax.train.trainer import make_trainer
from isft_jax.types import Example, PyTree, Trajectory
from isft_jax.worlds.lying_agent import (
  fact_bank,
  fact_files,
  generator,
  probes,
  world_facts,
)
from isft_jax.worlds.lying_agent.facts import Fact

# Rows are packed for the objective with the most targets, and all arms share
# them.
PLAN = 'observational'
# Added to the seed of dialogues and documents that no arm is trained on.
OTHER_TEXTS = 1_000_000


class Bank(NamedTuple):
  """The facts of a seed, and the questions about them."""

  told: tuple[Fact, ...]  # facts that dialogues are about
  heldout: tuple[Fact, ...]  # facts that dialogues never mention
  questions: tuple[str, ...] = generator.QUESTIONS  # with the field {topic}
  context: str = generator.CONTEXT  # the system turn before a question

  @property
  def facts(self) -> tuple[Fact, ...]:
    return self.told + self.heldout


class Base(NamedTuple):
  """The facts of a seed, and the base model, pre-trained on all of them."""

  seed: int
  bank: Bank
  renderer: Renderer
  graphdef: decoder.GraphDef
  params: PyTree
  probes: probes.Prepared  # of all facts, rendered once

  @property
  def told(self) -> tuple[Fact, ...]:
    return self.bank.told

  @property
  def facts(self) -> tuple[Fact, ...]:
    return self.bank.facts

  def told_margins(self, params: PyTree) -> np.ndarray:
    """Returns the margin of each told fact, nats per token."""
    # A true and a false claim per fact, told facts first.
    claims = self.probes.claims[: 2 * len(self.told)]
    prepared = probes.Prepared(self.told, claims, [])
    return probes.margins(self.graphdef, params, prepared)

  def write(
    self, folder: pathlib.Path, examples: Iterable[Example]
  ) -> dataset.Records:
    """Writes records of examples in place of earlier ones, and opens them."""
    return write_records(self.renderer, folder, examples)


def prepare_base(
  config: EvidenceConfig, workdir: pathlib.Path, seed: int
) -> Base:
  """Trains the base of a seed, resumes its training, or loads it."""
  bank = make_bank(config, seed)
  workdir = workdir / 'bases' / f'seed-{seed}'
  # A given model comes with its own tokenizer.
  if config.model.init_from:
    tokenizer = tokenizer_lib.load(config.model.init_from)
    model = dataclasses.replace(config.model, init_from='')
    graphdef, _ = decoder.abstract(model)
    loaded, _ = pretrained.load(config.model.init_from, dtype=model.param_dtype)
    # A chat model knows real facts in its own chat template.
    template = config.bank == 'world' and tokenizer.chat_template
    params, renderer = (
      loaded.params,
      Renderer(tokenizer, template or chat_template.PLAIN),
    )
  else:
    # Otherwise, pre-train a small model on documents about the facts.
    renderer = prepare_documents(
      workdir,
      config.vocab_size,
      lambda: _documents(config, bank.facts, seed),
    )
    run = make_run(config, config.pretrain, 'base', PLAN, workdir, seed)
    graphdef, params, *_ = train(run, str(workdir / 'run'))
  # Prompts are the same in all runs of the seed, so that they are made once.
  prepared = probes.prepare(bank.facts, renderer, bank.context)
  return Base(seed, bank, renderer, graphdef, params, prepared)


def make_bank(config: EvidenceConfig, seed: int) -> Bank:
  """Returns the facts of a seed: invented, read from a file, or real."""
  if config.bank == 'world':
    # The table interleaves kinds of facts, so that both parts have all kinds.
    return Bank(
      told=world_facts.MIXED[: config.facts],
      heldout=world_facts.MIXED[config.facts :],
      questions=world_facts.QUESTIONS,
      context=world_facts.CONTEXT,
    )
  facts = (
    fact_files.read(config.facts_csv)[0]
    if config.facts_csv
    else fact_bank.generate(config.facts, seed)
  )
  return Bank(*fact_bank.halves(facts, seed))


def make_run(
  config: EvidenceConfig | DeploymentConfig,
  stage: StageConfig,
  name: str,
  objective: str,
  folder: pathlib.Path,
  seed: int,
) -> RunConfig:
  """Returns the RunConfig of a stage on the records in folder."""
  return RunConfig.from_stage(
    stage,
    name=name,
    objective=objective,
    plan_objective=PLAN,
    seed=seed,
    records=str(folder / 'records'),
    tokenizer=str(folder / 'tokenizer'),
    # The parameters come from the base, and not from `init_from`.
    model=dataclasses.replace(config.model, init_from=''),
    lora=config.lora,
    mesh=config.mesh,
  )


def fit(
  run: RunConfig, records: dataset.Records, params: PyTree, steps: int = 0
) -> tuple[PyTree, dict[str, Any]]:
  """Trains a model in memory, without checkpoints.

  Args:
    run: settings of the stage.
    records: the records to train on.
    params: initial parameters, which stay unchanged. An anchored objective
      stays near them. With adapters, only those learn, and the base without
      them is the anchor.
    steps: steps to train; 0: those of the stage. Another number needs no new
      compilation.

  Returns:
    The new parameters, and a summary: seed, objective, settings of the
    optimizer, steps, scored tokens, mean loss of the last epoch (nats per unit
    of weight) and seconds.

  Raises:
    FloatingPointError: a loss is not finite.
  """
  # Compile the step, and copy the parameters: it may write into its state.
  source = pipeline.BatchSource(records, run)
  anchor = objectives.anchor(run.objective)
  trainer = make_trainer(
    *(run.model, run.optim, run.mesh, len(source)),
    lora=run.lora,
    anchors=(anchor,),
  )
  has_copy = objectives.needs_base(run.objective)
  learning, frozen = params, params if has_copy else ()
  if run.lora.rank:
    learning, frozen = lora.split(params)
  state = trainer.start(jax.tree.map(jnp.copy, learning))
  state = state._replace(frozen=frozen)
  # Train. Values stay on the device until the end, so that steps do not wait.
  started, rows = time.perf_counter(), []
  steps = steps or len(source)
  for batch in itertools.islice(pipeline.batches(source), steps):
    state, values = trainer.step(state, sharding.to_global(batch, trainer.mesh))
    rows.append([values[name] for name in ('loss', 'weight', 'targets')])
  # Reading the values waits for the last step.
  losses = [tuple(map(float, row)) for row in rows]
  if not all(math.isfinite(loss) for loss, *_ in losses):
    raise FloatingPointError(
      f'{run.name}, seed {run.seed}: a loss is not finite; lower the learning '
      'rate of its stage'
    )
  # The final loss is the mean of the last epoch, by weight.
  epoch = losses[-source.steps_per_epoch :]
  weight = sum(weight for _, weight, _ in epoch)
  params = lora.join(frozen, state.params) if run.lora.rank else state.params
  return params, {
    'seed': run.seed,
    'objective': run.objective,
    'learning_rate': run.optim.learning_rate,
    'clip_norm': run.optim.clip_norm,
    'eps': run.optim.eps,
    'steps': len(losses),
    'scored_tokens': round(sum(targets for *_, targets in losses)),
    'final_loss': sum(loss * w for loss, w, _ in epoch) / weight,
    'seconds': round(time.perf_counter() - started, 2),
  }


def matched_optimizer(optim: OptimConfig, ratio: float) -> OptimConfig:
  """Returns AdamW that steps as if gradients were `ratio` times as large.

    clip(r g, C) = r clip(g, C / r)
    m / (sqrt(v) + e) for r g  =  m / (sqrt(v) + e / r) for g

  Dividing the observational sum by the number of the world's tokens multiplies
  its gradient by N / N_o. For AdamW that changes only the clipping threshold
  and the constant e of 1e-8.

  Args:
    optim: the optimizer of L_obs.
    ratio: r = N / N_o, targets of L_obs per target of L_do in the data set.
  """
  return dataclasses.replace(
    optim, clip_norm=optim.clip_norm / ratio, eps=optim.eps / ratio
  )


def _documents(
  config: EvidenceConfig, facts: Sequence[Fact], seed: int
) -> list[Trajectory]:
  """Returns the documents that the base of a seed is pre-trained on."""
  documents = config.documents
  written = generator.documents(
    documents.number,
    documents.p_true,
    seed,
    facts,
    config.max_turns,
    config.p_denial,
  )
  p_false = 1 - documents.p_true
  spoken = generator.dialogues(
    documents.dialogues,
    p_false,
    config.dialogues.p_chitchat,
    # Not the dialogues that the arms are trained on.
    seed + OTHER_TEXTS,
    facts,
    p_user_wrong=p_false,
    acknowledge=config.dialogues.acknowledge,
  )
  return [*written, *spoken]


def prepare_documents(
  workdir: pathlib.Path,
  vocab_size: int,
  make: Callable[[], Sequence[Trajectory]],
  more_text: Sequence[Trajectory] = (),
) -> Renderer:
  """Writes the tokenizer and the records of documents, unless they exist.

  Args:
    workdir: folder of the base.
    vocab_size: maximum number of ids of the tokenizer.
    make: returns the documents. It is called only if something is written.
    more_text: conversations that the tokenizer also learns from.

  Returns:
    The renderer of the documents, in the plain format.
  """
  folder = workdir / 'tokenizer'
  # Generated at most once, and only if something must be written.
  documents = functools.cache(make)
  if not folder.exists():
    template = chat_template.ChatTemplate(chat_template.PLAIN)
    tokenizer = tokenizer_lib.train(
      map(template.text, (*documents(), *more_text)), vocab_size
    )
    # Renamed when complete: an interrupted run leaves no part of a tokenizer.
    part = folder.with_name('tokenizer.part')
    Renderer(tokenizer, chat_template.PLAIN).save_tokenizer(part)
    part.rename(folder)
  renderer = Renderer(tokenizer_lib.load(str(folder)), chat_template.PLAIN)
  # Records of the documents. Existing ones are kept.
  dataset.write(
    str(workdir / 'records'),
    lambda: map(renderer.example, documents()),
    renderer.metadata(),
  )
  return renderer


def write_records(
  renderer: Renderer, folder: pathlib.Path, examples: Iterable[Example]
) -> dataset.Records:
  """Writes records of examples in place of earlier ones, and opens them.

  Args:
    renderer: the renderer of the examples.
    folder: folder of a run, which gets a subfolder 'records'.
    examples: the examples.
  """
  folder = folder / 'records'
  shutil.rmtree(folder, ignore_errors=True)
  return dataset.write(str(folder), lambda: examples, renderer.metadata())
