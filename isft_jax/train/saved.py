"""Loads the newest checkpoint of a run as a model with its tokenizer."""

from typing import Any, NamedTuple

import jax

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained
from isft_jax.inference.chat_model import ChatModel, template_from_tokenizer
from isft_jax.models import decoder
from isft_jax.train import checkpoint
from isft_jax.train.checkpoint import Checkpoints
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


def load(workdir: str, dtype: str = '') -> Saved:
  """Loads the newest checkpoint of a run, on any number of devices.

  The parameters are sharded over the devices of this host, or over the largest
  number of them that divides every parameter. The run's mesh does not matter.

  Args:
    workdir: folder of the run.
    dtype: data type of the parameters; '' keeps that of the run.

  Returns:
    The model, its config, its tokenizer, and the config of the run.

  Raises:
    ValueError: the run has no checkpoint.
  """
  # A mistyped workdir gets a message of its own.
  if not checkpoint.checkpoint_folder(workdir).is_dir():
    raise ValueError(
      f'{workdir}: no checkpoints there; name the workdir of a run'
    )
  with Checkpoints(workdir) as checkpoints:
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
  tokenizer = tokenizer_lib.load(
    run['tokenizer'] or tokenizer_lib.beside(run['records'])
  )
  return Saved(pretrained.Model(graphdef, params), config, tokenizer, run)


def chat_model_from_run(workdir: str) -> ChatModel:
  """Loads the model of a run's newest checkpoint, to chat with.

  Args:
    workdir: folder of the run.

  Returns:
    The model, with the chat template of the run's records. If the records do
    not exist any more, the template is that of the tokenizer.

  Raises:
    ValueError: the run has no checkpoint, or its records were encoded
      piecewise.
  """
  model, _, tokenizer, run = load(workdir)
  try:
    rendering = Records(run['records']).metadata['rendering']
  except (OSError, ValueError, KeyError):
    # The records have moved: use the template of the tokenizer.
    rendering = {'template': template_from_tokenizer(tokenizer), 'values': {}}
  if rendering.get('piecewise'):
    raise ValueError(
      f'{workdir} was trained on turns whose headers were encoded apart from '
      'the words (config.piecewise), and prompts here are encoded whole; its '
      'own results.json has its probes'
    )
  # Values are arguments of the template. Old records have none.
  template, values = rendering['template'], rendering.get('values', {})
  # The default template is for conversations without tools.
  if isinstance(template, dict):
    template = template.get('default') or next(iter(template.values()))
  return ChatModel(model, tokenizer, template, values, {}, run['records'])


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
