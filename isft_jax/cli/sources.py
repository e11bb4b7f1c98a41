"""Finds the records that a command shows, and their tokenizer."""

import json
import pathlib
import sys
import tempfile

from isft_jax import config as config_lib
from isft_jax.config import RunConfig
from isft_jax.data.records import dataset
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.experiments.config import LyingAgentConfig
from isft_jax.types import Example

# Config fields that an experiment's records depend on.
_DATA = (
  *('seed', 'vocab_size', 'dialogues', 'documents', 'facts_sha256'),
  'piecewise',
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
  saved = json.loads((workdir / 'config.json').read_text())
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
