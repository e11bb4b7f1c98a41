"""Loads the newest checkpoint of a run as a model with its tokenizer.

The checkpoint of a run with adapters does not hold their base. It is loaded
from where the run had it, and the adapters are merged into it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from isft_jax import sharding
from isft_jax.config import LoraConfig, MeshConfig, ModelConfig
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained, weight_digest
from isft_jax.inference.chat_model import ChatModel, chat_model_from_rendering
from isft_jax.models import decoder, projections
from isft_jax.models import lora as lora_lib
from isft_jax.train import checkpoint, run_tokenizer
from isft_jax.train.checkpoint import Checkpoints, Wanted
from isft_jax.types import PyTree


class Adapter(NamedTuple):
  """Adapters of a run.

  Attributes:
    params: nested dict of A and B.
    lora: their settings.
    model: config of the base; `init_from` is its place.
    sha256: digest of the base's weights.
    run: config of the whole run, as a dict.
  """

  params: dict
  lora: LoraConfig
  model: ModelConfig
  sha256: str
  run: dict[str, Any]


class Saved(NamedTuple):
  """A trained model with its config and tokenizer.

  Attributes:
    model: decoder with its parameters.
    config: config of the model.
    tokenizer: the tokenizer of the run's records.
    run: config of the whole run, as a dict.
    folder: folder of the checkpoint.
  """

  model: pretrained.Model
  config: ModelConfig
  tokenizer: FastTokenizer
  run: dict[str, Any]
  folder: str


def digest(place: str) -> str:
  """Returns the SHA-256 of the weights at a place: a run's, or a model's.

  Raises:
    ValueError: nothing is there, or a run without checksums.
  """
  if not checkpoint.checkpoint_folder(place).is_dir():
    return weight_digest.digest(place)
  with Checkpoints(place) as checkpoints:
    return checkpoints.digest()


def load(
  workdir: str,
  dtype: str = '',
  step: Wanted = None,
  tokenizer: str = '',
  base: str = '',
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
    base: place of the base of adapters; '' means where the run had it.

  Returns:
    The model, its config, its tokenizer, the config of the run, and the folder
    of the checkpoint.

  Raises:
    ValueError: the run has no such checkpoint, or the base is another one.
  """
  refuse_int8(workdir, dtype)
  with _opened(workdir, step) as checkpoints:
    stored = checkpoints.restore_run()
    run, lora = _run(stored), _lora(stored)
    config = ModelConfig(**run['model'])
    # The run's attention kernel may not exist on this device.
    config.attention = 'auto'
    # An int8 base is float again when adapters are merged into it.
    dtype = dtype or projections.float_type(config).name
    plain = dataclasses.replace(config, param_dtype=dtype)
    graphdef, shapes = decoder.abstract(plain)
    if lora.rank:
      place = base or config.init_from
      _check_base(workdir, place, stored['base']['sha256'])
      adapters, _ = checkpoints.restore_params(_placed_adapters(config, lora))
      params = _with_base(place, config, adapters, lora, dtype)
    elif base:
      raise ValueError(f'{workdir} has no adapters, so it needs no --base')
    else:
      # Orbax casts the parameters to the types of these shapes.
      params, _ = checkpoints.restore_params(_placed(shapes))
    folder = checkpoints.newest_folder()
  return Saved(
    pretrained.Model(graphdef, params),
    plain,
    load_tokenizer(workdir, run, tokenizer),
    run,
    folder,
  )


def load_adapter(workdir: str, step: Wanted = None) -> Adapter:
  """Loads the adapters of a run's checkpoint, without their base.

  Args:
    workdir: folder of the run.
    step: number of the checkpoint, or 'best'; None means the newest.

  Returns:
    The adapters.

  Raises:
    ValueError: the run has no such checkpoint, or no adapters.
  """
  with _opened(workdir, step) as checkpoints:
    stored = checkpoints.restore_run()
    run, lora = _run(stored), _lora(stored)
    if not lora.rank:
      raise ValueError(
        f'{workdir} trained all weights and has no adapter; export the model'
      )
    config = ModelConfig(**run['model'])
    params, _ = checkpoints.restore_params(_placed_adapters(config, lora))
  return Adapter(params, lora, config, stored['base']['sha256'], run)


def refuse_int8(workdir: str, dtype: str) -> None:
  """Raises ValueError for int8, which only a model folder can be read in."""
  if dtype == 'int8':
    raise ValueError(
      f'{workdir}: an int8 base must be a model folder; write one with '
      f'isft-export --checkpoint={workdir} --output=FOLDER'
    )


@contextlib.contextmanager
def _opened(workdir: str, step: Wanted) -> Iterator[Checkpoints]:
  """Opens the checkpoints of a run, of which there must be one to read."""
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
    yield checkpoints


def _run(stored: dict[str, Any]) -> dict[str, Any]:
  # All mixture components share a tokenizer and template: take the first.
  run = stored['config']
  return run | {'records': run['records'] or run['mixture'][0][0]}


def _lora(stored: dict[str, Any]) -> LoraConfig:
  # Runs of old versions have no adapters.
  settings = stored['config'].get('lora', {})
  return LoraConfig(
    **settings | {'targets': tuple(settings.get('targets', ()))}
  )


def _check_base(workdir: str, place: str, expected: str) -> None:
  try:
    actual = digest(place)
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{workdir} has only adapters, and their base cannot be loaded: {error}; '
      'if it has moved, name its new place with --base'
    ) from error
  if actual != expected:
    raise ValueError(
      f'{workdir}: the base of its adapters had the checksum {expected[:12]}, '
      f'and {place} has {actual[:12]}; name the base with --base'
    )


def _placed_adapters(config: ModelConfig, lora: LoraConfig) -> PyTree:
  return _placed(lora_lib.split(decoder.abstract(config, lora)[1])[0])


def _with_base(
  place: str,
  config: ModelConfig,
  adapters: PyTree,
  lora: LoraConfig,
  dtype: str,
) -> PyTree:
  """Returns the parameters of a base with its adapters merged into it.

  Args:
    place: of the base.
    config: config of the base, with the type that adapters were trained on.
    adapters: nested dict of A and B.
    lora: their settings.
    dtype: data type of the result.
  """
  if checkpoint.checkpoint_folder(place).is_dir():
    params = load(place, dtype=config.param_dtype).model.params
  else:
    shapes = _placed(decoder.abstract(config)[1])
    params = pretrained.load_params(place, config, shapes)
  joined = lora_lib.join(params, adapters)
  return lora_lib.merge(joined, lora, dtype)


def load_tokenizer(
  workdir: str, run: dict[str, Any], place: str = ''
) -> FastTokenizer:
  """Returns the tokenizer at a place, or that of a run.

  Args:
    workdir: folder of the run.
    run: config of the run, as a dict.
    place: of another tokenizer, or ''.
  """
  if not place and (found := run_tokenizer.load(workdir)):
    return found
  # Old versions kept no tokenizer in the workdir.
  return tokenizer_lib.load(
    place or run['tokenizer'] or tokenizer_lib.beside(run['records'])
  )


def chat_model_from_run(
  workdir: str, step: Wanted = None, tokenizer: str = '', base: str = ''
) -> ChatModel:
  """Loads the model of a run's checkpoint, to chat with.

  Args:
    workdir: folder of the run.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of its tokenizer; '' means its own.
    base: place of the base of adapters; '' means where the run had it.

  Returns:
    The model, with the chat template of the run's records. If the workdir does
    not have it and the records do not exist any more, the template is that of
    the tokenizer.

  Raises:
    ValueError: the run has no such checkpoint, or its records were encoded
      piecewise.
  """
  model, _, encoder, run, folder = load(
    workdir, step=step, tokenizer=tokenizer, base=base
  )
  rendering = _rendering(workdir, run)
  if rendering.get('piecewise'):
    raise ValueError(
      f'{workdir} was trained on turns whose headers were encoded apart from '
      'the words (config.piecewise), and prompts here are encoded whole; its '
      'own results.json has its probes'
    )
  return chat_model_from_rendering(
    model, encoder, rendering, run['records'], folder
  )


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
