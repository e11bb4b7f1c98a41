"""Opens the inputs of a run: training records, held-out records, tokenizer."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath
from flax import traverse_util

from isft_jax import config as config_lib
from isft_jax import sharding
from isft_jax.config import RunConfig
from isft_jax.data.batching import packing, pipeline
from isft_jax.data.batching.scored_rows import KnownPlans
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.objectives import evidence, weight_table
from isft_jax.train import plans, start

_EVERYTHING = 'observational'  # the objective that scores every author


class Inputs(NamedTuple):
  """The inputs of a run, opened on this host.

  Attributes:
    config: config of the run. Its model has the shape of the weights that it
      starts from, and its vocabulary fits the tokenizer.
    names: names of the mixture components.
    source: training batches.
    heldout: held-out batches by name of the component, if it has any. With
      `config.keep_best`, their weights are those of the objective.
    fingerprint: fingerprint of the tokenizer and the chat template, which all
      records share.
    records: digests of the records and number of rows, as JSON values, to
      compare runs by; see `_identify`.
    plans: budgets of the plans, for `plans.write`.
    tokenizer: tokenizer of all records.
    rendering: how their text was made, from their metadata: see
      `Renderer.rendering`.
  """

  config: RunConfig
  names: tuple[str, ...]
  source: pipeline.BatchSource
  heldout: dict[str, pipeline.BatchSource]
  fingerprint: str
  records: dict[str, Any]
  plans: KnownPlans
  tokenizer: FastTokenizer
  rendering: dict[str, Any]


def open_inputs(
  config: RunConfig, workdir: epath.PathLike | None = None
) -> Inputs:
  """Opens the inputs of a run, and checks that they fit each other.

  Args:
    config: config of the run.
    workdir: folder of the run, whose known plans are used; None for none.

  Returns:
    The opened inputs.

  Raises:
    ValueError: records were rendered with another tokenizer than the run's, or
      with different chat templates; or `config.keep_best` is set, and there is
      no held-out record or no token of them that is scored.
  """
  # Records, tokenizer, and the final shape of the model.
  folders = [records for records, _, _ in config_lib.mixture_components(config)]
  train = [Records(folder) for folder in folders]
  tokenizer = tokenizer_lib.load(
    config.tokenizer or tokenizer_lib.beside(folders[0])
  )
  config = with_shapes(config, tokenizer)

  # Held-out records: a folder of the config, or the split of each component.
  names = _names(folders)
  heldout = {
    name: Records(folder, 'heldout')
    for name, folder, records in zip(names, folders, train, strict=True)
    # Records without a held-out split are only trained on.
    if 'heldout' in records.splits
  }
  if config.heldout:
    heldout = {pathlib.PurePath(config.heldout).name: Records(config.heldout)}
  if config.keep_best and not heldout:
    raise ValueError(
      f'config.keep_best needs held-out records, and {", ".join(folders)} has '
      'none; name some with config.heldout, or prepare with '
      'isft-prepare --heldout=0.05'
    )

  # All records must have the same token ids for the same text.
  fingerprints = {
    records.folder: tokenizer_lib.check(
      tokenizer, records.metadata, records.folder
    )
    for records in (*train, *heldout.values())
  }
  for folder, fingerprint in fingerprints.items():
    if fingerprint != fingerprints[folders[0]]:
      raise ValueError(
        f'{folder} was rendered with another chat template than {folders[0]}: '
        'prepare both with the same one'
      )

  # The weights of held-out targets: 1, or those of the loss to compare.
  objectives = dict.fromkeys(heldout, _EVERYTHING)
  if config.keep_best:
    objectives = _scored_by(config, names, heldout)
  # Each host reads an equal share of every batch.
  share = sharding.host_share(sharding.make_mesh(config.mesh))
  known = plans.read(workdir)
  with plans.Progress() as progress:
    source = pipeline.BatchSource(train, config, *share, known, progress)
    heldout_source = {
      name: pipeline.BatchSource(
        records, _everything(config, objectives[name]), *share, known, progress
      )
      for name, records in heldout.items()
    }
  return Inputs(
    config,
    names,
    source,
    heldout_source,
    fingerprints[folders[0]],
    _identify(dict(zip(names, train, strict=True)), heldout, source),
    known,
    tokenizer,
    train[0].metadata.get('rendering', {}),
  )


def with_shapes(config: RunConfig, tokenizer: FastTokenizer) -> RunConfig:
  """Returns a config with the shapes of its weights, adapter and vocabulary.

  Args:
    config: config of the run.
    tokenizer: tokenizer of its records.

  Raises:
    ValueError: the weights or the adapter cannot be read, or the vocabulary is
      smaller than that of the tokenizer.
  """
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  config = start.with_adapter(config)
  return _with_vocabulary(config, tokenizer_lib.size(tokenizer))


def _identify(
  train: Mapping[str, Records],
  heldout: Mapping[str, Records],
  source: pipeline.BatchSource,
) -> dict[str, Any]:
  """Returns `digests` of all records by name, and `rows_per_epoch`."""
  named = [('records', train), ('held-out records', heldout)]
  return {
    'digests': {
      f'{kind} of {name}': records.digest()
      for kind, by_name in named
      for name, records in by_name.items()
    },
    'rows_per_epoch': len(source.plan),
  }


def describe(opened: Inputs) -> dict[str, Any]:
  """Returns what must be equal on all hosts, as JSON values by name."""
  settings = traverse_util.flatten_dict(
    dataclasses.asdict(opened.config), sep='.'
  )
  return {
    **{f'config.{name}': value for name, value in settings.items()},
    'fingerprint': opened.fingerprint,
    **opened.records['digests'],
    'rows per epoch': opened.records['rows_per_epoch'],
    'steps': len(opened.source),
    'digest of the plan': _plan_digest(opened.source),
  }


def _plan_digest(source: pipeline.BatchSource) -> str:
  digest = hashlib.sha256(source.plan.turns_W.astype('<i8').tobytes())
  for plan in source.plan.plans:
    digest.update(plan.digest().encode())
  return digest.hexdigest()


def _scored_by(
  config: RunConfig, names: tuple[str, ...], heldout: Mapping[str, Records]
) -> dict[str, str]:
  """Returns the objective of held-out records, by name of the component.

  Raises:
    ValueError: the objective scores no token of some of the records.
  """
  components = config_lib.mixture_components(config)
  objectives = {
    name: evidence(objective)
    for name, (_, _, objective) in zip(names, components, strict=True)
  }
  # Held-out records in a separate folder belong to no component.
  if config.heldout:
    objectives = dict.fromkeys(heldout, evidence(config.objective))
  for name, records in heldout.items():
    table_PV = weight_table(objectives[name])
    if not packing.count_targets(records.index, table_PV).any():
      raise ValueError(
        f'config.keep_best needs scored tokens, and objective '
        f'{objectives[name]!r} scores none of the held-out records of '
        f'{records.folder}; hold out others'
      )
  return objectives


def _everything(config: RunConfig, objective: str) -> RunConfig:
  """Returns a config that measures every author of the records once.

  Args:
    config: config of the run.
    objective: objective of the weights.
  """
  return dataclasses.replace(
    config,
    mixture=(),
    objective=objective,
    # It plans every author, so the loss of each one is measured.
    plan_objective=_EVERYTHING,
    epochs=1,
    steps=0,
  )


def _names(folders: list[str]) -> tuple[str, ...]:
  """Returns the last parts of the paths if they differ, else the paths."""
  # Short names make shorter lines in metrics and loggers.
  short = tuple(pathlib.PurePath(folder).name for folder in folders)
  return short if len(set(short)) == len(short) else tuple(folders)


def _with_vocabulary(config: RunConfig, ids: int) -> RunConfig:
  """Returns the config with an embedding for each of the tokenizer's ids."""
  model = config.model
  # A multiple of 128 divides over devices, and over the lanes of a TPU.
  if model.vocab_size == 0:
    model = dataclasses.replace(model, vocab_size=-(-ids // 128) * 128)
  if model.vocab_size < ids:
    raise ValueError(
      f'config.model.vocab_size={model.vocab_size} is less than the '
      f"tokenizer's {ids} ids; set it to 0 to use the tokenizer's size"
    )
  return dataclasses.replace(config, model=model)
