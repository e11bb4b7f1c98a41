"""Loads the newest checkpoint of a run as a model with its tokenizer."""

from typing import Any, NamedTuple

import jax

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained
from isft_jax.inference.chat_model import ChatModel, chat_model_from_rendering
from isft_jax.models import decoder
from isft_jax.train import checkpoint, run_tokenizer
from isft_jax.train.checkpoint import Checkpoints, Wanted
from isft_jax.types import PyTree


class Saved(NamedTuple):
  """A trained model with its config and tokenizer.

  Attributes:
    model: decoder with its parameters.
    config: config of the model.
    tokenizer: the tokenizer of the run's records.
    run: config of the whole run, as a dict.
  """

  model: pretrained.Model
  config: ModelConfig
  tokenizer: FastTokenizer
  run: dict[str, Any]


def load(
  workdir: str, dtype: str = '', step: Wanted = None, tokenizer: str = ''
) -> Saved:
  """Loads a checkpoint of a run, on any number of devices.

  The parameters are sharded over the devices of this host, or over the largest
  number of them that divides every parameter. The run's mesh does not matter.

  Args:
    workdir: folder of the run.
    dtype: data type of the parameters; '' keeps that of the run.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of its tokenizer; '' means the one in the workdir, or, for
      runs of old versions, the one of the records.

  Returns:
    The model, its config, its tokenizer, and the config of the run.

  Raises:
    ValueError: the run has no such checkpoint.
  """
  # A mistyped workdir gets a message of its own.
  if not checkpoint.checkpoint_folder(workdir).is_dir():
    raise ValueError(
      f'{workdir}: no checkpoints there; name the workdir of a run'
    )
  with Checkpoints(workdir, step=step) as checkpoints:
    if checkpoints.latest() is None:
      raise ValueError(
        f'{workdir}: no finished checkpoint there; train until the first one '
        'is saved'
      )
    run = checkpoints.restore_run()['config']
    # All mixture components share a tokenizer and template: take the first.
    run['records'] = run['records'] or run['mixture'][0][0]
    config = ModelConfig(**run['model'])
    config.param_dtype = dtype or config.param_dtype
    # The run's attention kernel may not exist on this device.
    config.attention = 'auto'
    # Orbax casts the parameters to the types of these shapes.
    graphdef, shapes = decoder.abstract(config)
    params, _ = checkpoints.restore_params(_placed(shapes))
  return Saved(
    pretrained.Model(graphdef, params),
    config,
    _tokenizer(workdir, run, tokenizer),
    run,
  )


def _tokenizer(workdir: str, run: dict[str, Any], place: str) -> FastTokenizer:
  """Returns the tokenizer at a place, or that of the run."""
  if not place and (found := run_tokenizer.load(workdir)):
    return found
  # Old versions kept no tokenizer in the workdir.
  return tokenizer_lib.load(
    place or run['tokenizer'] or tokenizer_lib.beside(run['records'])
  )


def chat_model_from_run(
  workdir: str, step: Wanted = None, tokenizer: str = ''
) -> ChatModel:
  """Loads the model of a run's checkpoint, to chat with.

  Args:
    workdir: folder of the run.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of its tokenizer; '' means its own.

  Returns:
    The model, with the chat template of the run's records. If the workdir does
    not have it and the records do not exist any more, the template is that of
    the tokenizer.

  Raises:
    ValueError: the run has no such checkpoint, or its records were encoded
      piecewise.
  """
  model, _, encoder, run = load(workdir, step=step, tokenizer=tokenizer)
  rendering = _rendering(workdir, run)
  if rendering.get('piecewise'):
    raise ValueError(
      f'{workdir} was trained on turns whose headers were encoded apart from '
      'the words (config.piecewise), and prompts here are encoded whole; its '
      'own results.json has its probes'
    )
  return chat_model_from_rendering(model, encoder, rendering, run['records'])


def _rendering(workdir: str, run: dict[str, Any]) -> dict[str, Any]:
  """Returns how the records of a run were rendered; {} if nothing says it."""
  if kept := run_tokenizer.read_rendering(workdir):
    return kept['rendering']
  try:
    return Records(run['records']).metadata['rendering']
  except (OSError, ValueError, KeyError):
    return {}


def _placed(shapes: PyTree) -> PyTree:
  """Adds shardings over as many devices as divide every parameter."""
  devices = jax.local_devices()
  # Try all devices, then one fewer, until every parameter divides.
  for number in range(len(devices), 0, -1):
    # fsdp shards the parameters, unlike data.
    mesh = sharding.make_mesh(MeshConfig(1, number, 1), devices[:number])
    try:
      placed = sharding.shardings(shapes, decoder.PARTITION_RULES, mesh)
    except ValueError:
      continue
    return jax.tree.map(
      lambda leaf, placement: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=placement
      ),
      shapes,
      placed,
    )
  raise AssertionError('one device divides everything')
