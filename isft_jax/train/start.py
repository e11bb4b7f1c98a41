"""Initialises a run: from a seed, another run's checkpoint, or a model.

`config.model.init_from` decides: '' (random parameters), the workdir of a run,
or a place of a model (see `places`).
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
  """Returns whether a place is the workdir of a run with checkpoints."""
  return bool(place) and checkpoint.checkpoint_folder(place).is_dir()


def with_shape(model: ModelConfig) -> ModelConfig:
  """Returns a model's config with the shape of the weights it starts from.

  Args:
    model: config whose `init_from` may name a model. Otherwise it is returned
      unchanged.

  Returns:
    The config with the fields `config_json.SHAPE` of those weights.

  Raises:
    ValueError: nothing is at `init_from`, or a model of an unsupported family.
  """
  # The parameters of a run must already have the shape of this config.
  if not model.init_from or is_run(model.init_from):
    return model
  # A GGUF file or a hub id need not exist yet: it is downloaded.
  place = model.init_from
  is_place = places.is_gguf(place) or places.is_hub_id(place)
  if not is_place and not tensor_files.is_folder(place):
    raise ValueError(
      f'config.model.init_from={place!r} must be the workdir of a run with a '
      f'checkpoint, {places.KINDS}'
    )
  stored = pretrained.read_config(place)
  shape = {name: getattr(stored, name) for name in config_json.SHAPE}
  return dataclasses.replace(model, **shape)


def begin(config: RunConfig, trainer: Trainer, fingerprint: str) -> TrainState:
  """Returns the state before the first step, initialised on its shards.

  Args:
    config: config of the run.
    trainer: trainer of the run.
    fingerprint: fingerprint of the records. A run to start from must have had
      the same.

  Returns:
    The state at step 0.

  Raises:
    ValueError: the run to start from had another fingerprint, or has no
      checkpoint.
  """
  place = config.model.init_from
  # From a seed: each device draws only its own shards.
  if not place:
    return trainer.init(config.seed)
  # Another run: only its parameters are read, not its optimizer state.
  if is_run(place):
    return trainer.start(_params_of_run(place, trainer, fingerprint))
  # A model folder: each device reads only its shards of the stored tensors.
  shardings = {
    sharding.path_name(path): leaf.sharding
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      trainer.abstract.params
    )
  }
  # The weights are cast to the type of the parameters while they are read.
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
    params, expected = checkpoints.restore_params(trainer.abstract.params)
  # Token ids of two tokenizers mean different things, so the embedding would be
  # wrong without any error.
  if expected != fingerprint:
    raise ValueError(
      f'{run} was trained on records with fingerprint {expected}, and these '
      f'have {fingerprint}: its embedding belongs to another tokenizer or '
      'template; prepare the records again with those of the run'
    )
  return params
