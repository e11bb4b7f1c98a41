"""What a run reads: its sources, what is held out of them, one tokenizer."""

import dataclasses
import pathlib
from typing import NamedTuple

from isft_jax import config as config_lib
from isft_jax import sharding
from isft_jax.config import RunConfig
from isft_jax.data.batching import pipeline
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer
from isft_jax.train import start


class Inputs(NamedTuple):
  """The inputs of a run, opened on this host.

  config: of the run, its model in the shape of what it starts from.
  names: of the sources.
  source: the batches.
  heldout: the batches to measure, of each source that has some.
  fingerprint: of how the tokens of all of them were made.
  """

  config: RunConfig
  names: tuple[str, ...]
  source: pipeline.BatchSource
  heldout: dict[str, pipeline.BatchSource]
  fingerprint: str


def open_inputs(config: RunConfig) -> Inputs:
  """Opens what a run reads, if it may train on it.

  Raises ValueError if records were not rendered with the run's tokenizer, or
  not all with the same template.
  """
  folders = [records for records, _, _ in config_lib.sources_of(config)]
  train = [Records(folder) for folder in folders]
  encoder = tokenizer.load(config.tokenizer or tokenizer.beside(folders[0]))
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  config = _with_vocabulary(config, tokenizer.size(encoder))
  names = _names(folders)
  heldout = {
    name: Records(folder, 'heldout')
    for name, folder, records in zip(names, folders, train, strict=True)
    if 'heldout' in records.splits
  }
  if config.heldout:
    heldout = {pathlib.PurePath(config.heldout).name: Records(config.heldout)}

  fingerprints = {
    records.folder: tokenizer.check(encoder, records.metadata, records.folder)
    for records in (*train, *heldout.values())
  }
  for folder, fingerprint in fingerprints.items():
    if fingerprint != fingerprints[folders[0]]:
      raise ValueError(
        f'{folder} was rendered with another chat template than {folders[0]}: '
        'prepare both with the same one'
      )
  part = sharding.part_of_host(sharding.make_mesh(config.mesh))
  return Inputs(
    config,
    names,
    pipeline.BatchSource(train, config, *part),
    {
      name: pipeline.BatchSource(records, _everything(config), *part)
      for name, records in heldout.items()
    },
    fingerprints[folders[0]],
  )


def _everything(config: RunConfig) -> RunConfig:
  """Returns the settings of records of which every author is measured, once."""
  objective = 'observational'
  return dataclasses.replace(
    config,
    sources=(),
    objective=objective,
    plan_objective=objective,
    epochs=1,
    steps=0,
  )


def _names(folders: list[str]) -> tuple[str, ...]:
  """Returns what to call sources: the last parts of paths, if they differ."""
  short = tuple(pathlib.PurePath(folder).name for folder in folders)
  return short if len(set(short)) == len(short) else tuple(folders)


def _with_vocabulary(config: RunConfig, ids: int) -> RunConfig:
  """Returns the config of a model that has an embedding for each id."""
  model = config.model
  if model.vocab_size == 0:  # a round number shards, and fits the hardware
    model = dataclasses.replace(model, vocab_size=-(-ids // 128) * 128)
  if model.vocab_size < ids:
    raise ValueError(
      f'config.model.vocab_size={model.vocab_size}, and the tokenizer has '
      f'{ids} ids; 0 takes as many as it has'
    )
  return dataclasses.replace(config, model=model)
