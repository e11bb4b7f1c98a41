"""Initialises a run: from a seed, another run's checkpoint, or a model.

`config.model.init_from` decides: '' (random parameters), the workdir of a run,
or a place of a model (see `places`). With adapters it names the frozen base,
and `config.lora.init_from` decides how the adapters begin.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax

from isft_jax import config as config_lib
from isft_jax import objectives, places
from isft_jax.config import LoraConfig, ModelConfig, RunConfig
from isft_jax.data.rendering import same_tokens
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import (
  adapter_folder,
  config_json,
  pretrained,
  tensor_files,
)
from isft_jax.train import checkpoint, saved
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.step import TrainState
from isft_jax.train.trainer import Trainer
from isft_jax.types import PyTree


class Base(NamedTuple):
  """Frozen parameters of a run with adapters.

  Attributes:
    params: nested dict of arrays on the devices.
    identity: `place` and `sha256` of its weights.
  """

  params: PyTree
  identity: dict[str, str]


def has_base(config: RunConfig) -> bool:
  """Returns whether a run has frozen parameters.

  They are the base of adapters, or of an anchored objective.
  """
  return bool(config.lora.rank) or _is_anchored(config)


def check_base(config: RunConfig) -> None:
  """Raises ValueError if an objective is anchored to a base without a name."""
  if _is_anchored(config) and not config.model.init_from:
    raise ValueError(
      'an anchored objective needs a base to stay near: name one with '
      'config.model.init_from'
    )


def _is_anchored(config: RunConfig) -> bool:
  return any(
    objectives.needs_base(objective)
    for _, _, objective in config_lib.mixture_components(config)
  )


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


def with_adapter(config: RunConfig) -> RunConfig:
  """Returns a run's config with the settings of the adapter it starts from.

  Raises:
    ValueError: the adapter cannot be read, or has other settings than those
      that the config sets.
  """
  if not config.lora.init_from:
    return config
  stored = adapter_folder.read_config(config.lora.init_from)
  # Fields that were left at their defaults are taken from the adapter.
  blank = dataclasses.replace(LoraConfig(), init_from=config.lora.init_from)
  if config.lora not in (blank, stored):
    raise ValueError(
      f'config.lora differs from the adapter in {config.lora.init_from} (there '
      f'{_settings(stored)}, now {_settings(config.lora)}); leave out all its '
      'fields but init_from'
    )
  return dataclasses.replace(config, lora=stored)


def _settings(lora: LoraConfig) -> str:
  return (
    f'rank={lora.rank}, alpha={lora.alpha:g}, targets={",".join(lora.targets)}'
    f', rslora={lora.rslora}'
  )


def begin(
  config: RunConfig, trainer: Trainer, fingerprint: str, sha256: str = ''
) -> TrainState:
  """Returns the state before the first step, initialised on its shards.

  Args:
    config: config of the run.
    trainer: trainer of the run.
    fingerprint: fingerprint of the records. A run to start from must have had
      the same.
    sha256: digest of the base that an adapter to start from must have had.

  Returns:
    The state at step 0, without frozen parameters.

  Raises:
    ValueError: the run to start from had another fingerprint, or has no
      checkpoint; or the adapter does not fit the base.
  """
  # Adapters: new ones, or those of a folder, put on their shards.
  lora = config.lora
  if lora.rank and lora.init_from:
    adapters = adapter_folder.load(lora.init_from, config.model, lora, sha256)
    placed = jax.tree.map(lambda leaf: leaf.sharding, trainer.abstract.params)
    return trainer.start(jax.device_put(adapters, placed))
  # From a seed: each device draws only its own shards.
  if lora.rank or not config.model.init_from:
    return trainer.init(config.seed)
  return trainer.start(
    _read_params(config.model, trainer.abstract.params, fingerprint)
  )


def load_base(config: RunConfig, trainer: Trainer, fingerprint: str) -> Base:
  """Loads the frozen parameters of a run with adapters onto their shards.

  Args:
    config: config of the run.
    trainer: trainer of the run.
    fingerprint: fingerprint of the records.

  Returns:
    The base.

  Raises:
    ValueError: as `begin` raises it.
  """
  place = config.model.init_from
  identity = {'place': place, 'sha256': saved.digest(place)}
  params = _read_params(config.model, trainer.abstract.frozen, fingerprint)
  return Base(params, identity)


def place_base(base: Base, trainer: Trainer) -> Base:
  """Puts a loaded base on a trainer's shards; on the same ones, no copy."""
  placed = jax.tree.map(lambda leaf: leaf.sharding, trainer.abstract.frozen)
  return base._replace(params=jax.device_put(base.params, placed))


def _read_params(
  config: ModelConfig, abstract: PyTree, fingerprint: str
) -> PyTree:
  """Reads the parameters at `init_from`, each device only its own shards.

  Args:
    config: config of the model.
    abstract: the parameters as ShapeDtypeStructs with shardings.
    fingerprint: fingerprint of the records.
  """
  place = config.init_from
  # Another run: only its parameters are read, not its optimizer state.
  if is_run(place):
    return _params_of_run(config, abstract, fingerprint)
  return pretrained.load_params(place, config, abstract)


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


def _params_of_run(
  config: ModelConfig, abstract: PyTree, fingerprint: str
) -> PyTree:
  run = config.init_from
  saved.refuse_int8(run, config.param_dtype)
  with Checkpoints(run) as checkpoints:
    if checkpoints.latest() is None:
      raise ValueError(f'{run}: no checkpoint there to start from')
    stored = checkpoints.restore_run()
    expected = stored['fingerprint']
    if stored['config'].get('lora', {}).get('rank'):
      # Its parameters are adapters. The model is the base with them merged.
      merged = saved.load(run, dtype=config.param_dtype).model.params
      placed = jax.tree.map(lambda leaf: leaf.sharding, abstract)
      params = jax.device_put(merged, placed)
    else:
      params, expected = checkpoints.restore_params(abstract)
  # Token ids of two tokenizers mean different things, so the embedding would be
  # wrong without any error.
  if expected != fingerprint:
    raise ValueError(
      f'{run} was trained on records with fingerprint {expected}, and these '
      f'have {fingerprint}: its embedding belongs to another tokenizer or '
      'template; prepare the records again with those of the run'
    )
  return params
