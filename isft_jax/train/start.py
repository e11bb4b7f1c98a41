"""Initialises a run: from a seed, another run's checkpoint, or a model.

`config.model.init_from` decides: '' (random parameters), the workdir of a run,
or a place of a model (see `places`).
"""

import dataclasses
from collections.abc import Mapping

import jax

from isft_jax import places, sharding
from isft_jax.config import ModelConfig, RunConfig
from isft_jax.data.rendering import same_tokens
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
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


def check_tokenizer(
  place: str,
  records: str,
  tokenizer: FastTokenizer,
  template: str | Mapping[str, str],
) -> list[str]:
  """Checks that a model reads ids as the records mean them.

  Args:
    place: a model to start from: a folder, a GGUF file or a hub id.
    records: folder of the records, for the messages.
    tokenizer: the tokenizer of the records.
    template: the chat template of the records.

  Returns:
    Warnings, each on one line: the model has no tokenizer, has other added
    tokens, or has another chat template.

  Raises:
    ValueError: an id of an ordinary token stands for another text.
  """
  try:
    theirs = tokenizer_lib.load(place)
  except ValueError as error:
    return [
      f'{error}; whether its weights are for the tokenizer of {records} cannot '
      'be checked'
    ]
  ordinary, added = same_tokens.differences(tokenizer, theirs)
  if ordinary:
    raise ValueError(
      f'the tokenizers of {records} and {place} differ in {len(ordinary):,} '
      f'ids, the first of them {ordinary[0]}, so that the embedding would be '
      f'wrong; prepare the records with --tokenizer={place}'
    )
  warnings = []
  # Renamed reserved tokens keep their rows of the embedding, and new tokens
  # have rows without any training.
  if added:
    shown = ', '.join(map(str, added[:3])) + (', ...' if added[3:] else '')
    warnings.append(
      f'the tokenizers of {records} and {place} differ in {len(added):,} added '
      f'tokens: {shown}'
    )
  if theirs.chat_template and theirs.chat_template != template:
    warnings.append(
      f'{records} and {place} have different chat templates; the model learns '
      'that of the records. To keep its own, prepare them with '
      f'--tokenizer={place}'
    )
  return warnings


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
