"""Finds the records and the model that the flags of a command name."""

import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING

from isft_jax import config as config_lib
from isft_jax import files, places
from isft_jax.config import RunConfig
from isft_jax.data.records import dataset
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.experiments.config import LyingAgentConfig
from isft_jax.types import Example

if TYPE_CHECKING:
  from isft_jax.inference.chat_model import ChatModel
  from isft_jax.train.checkpoint import Wanted

# Config fields that an experiment's records depend on.
_DATA = (
  *('seed', 'vocab_size', 'dialogues', 'documents', 'facts_sha256'),
  'piecewise',
)


def check_model_flags(checkpoint: str, model: str) -> None:
  """Raises ValueError unless one flag has a value, of the kind that it takes.

  Args:
    checkpoint: value of --checkpoint, which takes the workdir of a run.
    model: value of --model, which takes a place of a model.
  """
  from isft_jax.hf import adapter_folder

  if bool(checkpoint) == bool(model):
    raise ValueError('name either --checkpoint=WORKDIR or --model=FOLDER')
  if checkpoint and is_model(checkpoint):
    raise ValueError(
      f'--checkpoint={checkpoint}: a model, not the workdir of a run; give it '
      f'as --model={checkpoint}'
    )
  if model and adapter_folder.is_folder(model):
    raise ValueError(
      f'--model={model}: an adapter, which needs its base; give both, as '
      f'--model=BASE --adapter={model}'
    )
  if model and is_run(model):
    raise ValueError(
      f'--model={model}: the workdir of a run, not a model; give it as '
      f'--checkpoint={model}'
    )


def load_model(
  checkpoint: str,
  model: str,
  step: 'Wanted' = None,
  tokenizer: str = '',
  base: str = '',
  adapter: str = '',
) -> 'ChatModel':
  """Loads a checkpoint of a run, or the model of a place.

  Args:
    checkpoint: workdir of the run, or ''.
    model: place of the model, or ''.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of the tokenizer; '' means that of the run or model.
    base: place of the base of a run's adapters, or ''.
    adapter: folder of an adapter of the model, or ''.

  Raises:
    ValueError: both or none are named, a step of a model is named, or the
      weights, the tokenizer or the settings are damaged or not supported.
  """
  from isft_jax.inference.chat_model import chat_model_from_place
  from isft_jax.train.saved import chat_model_from_run

  check_model_flags(checkpoint, model)
  if model and step is not None:
    raise ValueError('--step belongs to --checkpoint; a --model has no steps')
  if model and base:
    raise ValueError('--base belongs to --checkpoint; a --model is the base')
  if checkpoint and adapter:
    raise ValueError(
      '--adapter belongs to --model; a --checkpoint has its own adapters'
    )
  if model:
    return chat_model_from_place(model, tokenizer, adapter)
  return chat_model_from_run(checkpoint, step, tokenizer, base)


def is_run(place: str) -> bool:
  """Returns whether a place is the workdir of a run, and no model folder."""
  from isft_jax.hf import tensor_files
  from isft_jax.train import start

  return start.is_run(place) and not tensor_files.is_folder(place)


def is_model(place: str) -> bool:
  """Returns whether a place is a model, and not the workdir of a run."""
  from isft_jax.hf import tensor_files
  from isft_jax.train import start

  is_place = tensor_files.is_folder(place) or places.is_gguf(place)
  return is_place and not start.is_run(place)


def check_records_flag(records: str) -> None:
  """Raises ValueError if --records names a run or a model."""
  if is_run(records):
    kind = 'the workdir of a run; its config.json names its records'
  elif is_model(records):
    kind = 'a model'
  else:
    return
  raise ValueError(
    f'--records={records}: {kind}; name a folder that isft-prepare has written'
  )


def read(
  config: RunConfig | LyingAgentConfig | None,
  workdir: str | None,
  records: str | pathlib.Path,
  tokenizer: str | pathlib.Path,
  index: int,
) -> tuple[Example, FastTokenizer]:
  """Returns an `Example` and its tokenizer, from a config or from a folder.

  Args:
    config: the config of a run or an experiment, or None to use `records`.
    workdir: the workdir of an experiment; by default that of its config.
    records: a folder of records, or '' to use `config`.
    tokenizer: its folder; '' to search for it beside the records.
    index: of the record, from 0.

  Raises:
    ValueError: the records or the tokenizer do not exist or do not match, or
      the index is out of range.
  """
  if (config is None) == (not records):
    raise ValueError('name either --records=DIR, --config=FILE or --input=RUNS')
  if records:
    check_records_flag(str(records))
  # Records of an experiment that has not run are generated in `scratch`.
  with tempfile.TemporaryDirectory() as scratch:
    if isinstance(config, LyingAgentConfig):
      workdir = workdir or f'runs/{config.name}-seed{config.seed}'
      folder = _experiment(config, pathlib.Path(workdir), pathlib.Path(scratch))
      records = folder / 'records' / 'dialogues'
      tokenizer = tokenizer or folder / 'tokenizer'
    elif config is not None:
      records, tokenizer = config.records, tokenizer or config.tokenizer
      if not records:
        raise ValueError(
          'config.records is empty: name a folder, as in --config.records=DIR'
        )
    opened = dataset.Records(str(records))
    # Checks that the tokenizer is that of the records.
    encoder = _tokenizer(tokenizer or _tokenizer_folder(records), opened)
    if not 0 <= index < len(opened):
      raise ValueError(
        f'--index={index}: {records} has the records 0 to {len(opened) - 1}'
      )
    return opened[index], encoder


def _experiment(
  config: LyingAgentConfig, workdir: pathlib.Path, scratch: pathlib.Path
) -> pathlib.Path:
  """Returns the folder of an experiment's data, in scratch if it has none."""
  from isft_jax.experiments import lying_agent  # imported late: it loads jax

  config = lying_agent.resolve(config)
  # Without a run, the dialogues of its config.
  if not (workdir / 'records' / 'dialogues').is_dir():
    print(
      f'no dialogues in {workdir}: generating them temporarily',
      file=sys.stderr,
    )
    # All documents, although only dialogues are shown: the tokenizer is trained
    # on both, and the ids must be those of the run.
    lying_agent.prepare(config, scratch, lying_agent.load_material(config))
    return scratch
  # Other settings, such as a learning rate, may differ: data do not change.
  saved = files.read_json(workdir / 'config.json')
  names = [name for name, *_ in config_lib.differences(saved, config)]
  # Differences within a group count for the whole group.
  groups = dict.fromkeys(name.split('.')[0] for name in names)
  differing = [name for name in groups if name in _DATA]
  if differing:
    raise ValueError(
      f'{workdir} has data of a config with other values of '
      f'{" and ".join(differing)}; name another --workdir'
    )
  return workdir


def _tokenizer_folder(records: str | pathlib.Path) -> pathlib.Path:
  """Returns records/tokenizer, or that of the workdir that has the records."""
  # isft-prepare writes the first, an experiment the second.
  records = pathlib.Path(records)
  folders = (records / 'tokenizer', records.absolute().parents[1] / 'tokenizer')
  for folder in folders:
    if (folder / 'tokenizer.json').exists():
      return folder
  places = ' nor '.join(map(str, folders))
  raise ValueError(f'no tokenizer in {places}; name it with --tokenizer=DIR')


def _tokenizer(
  folder: str | pathlib.Path, records: dataset.Records
) -> FastTokenizer:
  encoder = tokenizer_lib.load(str(folder))
  tokenizer_lib.check(encoder, records.metadata, records.folder)
  return encoder
