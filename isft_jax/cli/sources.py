"""Finds the records that a command looks at, and the tokenizer they go with."""

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

# What an experiment's data depend on.
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

  Raises ValueError, naming the remedy, for a folder without them, for a
  tokenizer that did not render the records, and for an index out of range.
  """
  if (config is None) == (not records):
    raise ValueError('name either --records=DIR, --config=FILE or --input=RUNS')
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
    found = dataset.Records(str(records))
    encoder = _tokenizer(tokenizer or _beside(records), found)
    if not 0 <= index < len(found):
      raise ValueError(
        f'--index={index}: {records} holds records 0 to {len(found) - 1}'
      )
    return found[index], encoder


def _experiment(
  config: LyingAgentConfig, workdir: pathlib.Path, scratch: pathlib.Path
) -> pathlib.Path:
  """Returns the folder that holds the experiment's data, made if need be."""
  from isft_jax.experiments import lying_agent  # late: it brings jax

  config = lying_agent.resolved(config)
  if not (workdir / 'records' / 'dialogues').is_dir():
    print(f'no dialogues in {workdir}: making them for now', file=sys.stderr)
    # All documents, although only dialogues are shown: the tokenizer learns
    # from both, and the ids shall be those of the run.
    lying_agent.prepare(config, scratch, lying_agent.material_of(config))
    return scratch
  there = json.loads((workdir / 'config.json').read_text())
  names = [name for name, *_ in config_lib.differences(there, config)]
  groups = dict.fromkeys(name.split('.')[0] for name in names)
  differ = [name for name in groups if name in _DATA]
  if differ:
    raise ValueError(
      f'{workdir} holds data of another config (other {" and ".join(differ)}); '
      'give another --workdir'
    )
  return workdir


def _beside(records: str | pathlib.Path) -> pathlib.Path:
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
