"""Starts a run's model: at random, from another run, or from a place of models.

See `places` for those.
"""

import dataclasses

import jax

from isft_jax import places, sharding
from isft_jax.config import ModelConfig, RunConfig
from isft_jax.hf import config_json, pretrained, tensor_files
from isft_jax.train import checkpoint
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.step import TrainState
from isft_jax.train.trainer import Trainer
from isft_jax.types import PyTree


def is_run(place: str) -> bool:
  """Returns whether a folder is the workdir of a run."""
  return bool(place) and checkpoint.folder_of(place).is_dir()


def with_shape(model: ModelConfig) -> ModelConfig:
  """Returns a model's config in the shape of the weights it starts from.

  Raises ValueError if they are of a model that the decoder is not, or if
  init_from names nothing.
  """
  if not model.init_from or is_run(model.init_from):
    return model
  place = model.init_from
  is_place = places.is_gguf(place) or places.is_hub_id(place)
  if not is_place and not tensor_files.is_folder(place):
    raise ValueError(
      f'config.model.init_from={place!r} must be the workdir of a run with a '
      f'checkpoint, {places.KINDS}'
    )
  found = pretrained.read_config(place)
  shape = {name: getattr(found, name) for name in config_json.SHAPE}
  return dataclasses.replace(model, **shape)


def begin(config: RunConfig, trainer: Trainer, fingerprint: str) -> TrainState:
  """Returns the state before the first step, sharded from its birth.

  fingerprint: of the records; a run to start from must have had the same.

  Raises ValueError if it had another, or has no checkpoint.
  """
  place = config.model.init_from
  if not place:
    return trainer.init(config.seed)
  if is_run(place):
    return trainer.start(_params_of_run(place, trainer, fingerprint))
  shardings = {
    sharding.path_name(path): leaf.sharding
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      trainer.abstract.params
    )
  }
  model, _ = pretrained.load(
    place,
    dtype=config.model.param_dtype,
    place=lambda path, shape: shardings[path],
  )
  return trainer.start(model.params)


def _params_of_run(run: str, trainer: Trainer, fingerprint: str) -> PyTree:
  with Checkpoints(run) as checkpoints:
    if checkpoints.latest() is None:
      raise ValueError(f'{run}: no checkpoint there to start from')
    params, theirs = checkpoints.restore_params(trainer.abstract.params)
  if theirs != fingerprint:
    raise ValueError(
      f'{run} was trained on records with fingerprint {theirs}, and these have '
      f'{fingerprint}: its embedding belongs to another tokenizer or template'
    )
  return params
