"""Checks that a resumed run trains on the data of its checkpoint.

A checkpoint keeps the fingerprint of tokenizer and template, a digest of the
records of each split, and the number of rows of an epoch. With other data, the
batches after a resumption would not continue those before it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

_SHOWN = 12  # digits of a digest in a message; 48 bits tell records apart


def check_data(
  workdir: epath.PathLike,
  stored: Mapping[str, Any],
  fingerprint: str,
  records: Mapping[str, Any],
) -> None:
  """Compares the data of a checkpoint with those of the run that resumes.

  Args:
    workdir: folder of the run, for the message.
    stored: what `Checkpoints.restore_run` returns. Checkpoints of old versions
      have only a fingerprint, and only that is compared.
    fingerprint: fingerprint of the records.
    records: `Inputs.records` of the run.

  Raises:
    ValueError: the data are others. The message names the differences.
  """
  then = _facts(stored.get('fingerprint'), stored.get('records'))
  now = _facts(fingerprint, records if stored.get('records') else None)
  names = [name for name in (then | now) if then.get(name) != now.get(name)]
  if names:
    before, after = (
      ', '.join(f'{name} {facts.get(name, "none")}' for name in names)
      for facts in (then, now)
    )
    raise ValueError(
      f'{workdir}: this run was trained on records ({before}), these are '
      f'others ({after}); give it the records, template and tokenizer that it '
      'began with, or another --workdir'
    )


def check_base(
  workdir: epath.PathLike,
  stored: Mapping[str, Any],
  base: Mapping[str, str],
) -> None:
  """Compares the base of a checkpoint's adapters with that of the run.

  Args:
    workdir: folder of the run, for the message.
    stored: what `Checkpoints.restore_run` returns.
    base: `place` and `sha256` of the base; {} for a run without adapters.

  Raises:
    ValueError: the weights of the base are others.
  """
  then = stored.get('base') or {}
  if then.get('sha256') != base.get('sha256'):
    raise ValueError(
      f'{workdir}: its adapters were trained on the base {_base(then)}, and '
      f'this is {_base(base)}; give it the base that it began with as '
      'config.model.init_from, or another --workdir'
    )


def _base(base: Mapping[str, str]) -> str:
  if not base:
    return 'none'
  return f'{base["place"]} (checksum {base["sha256"][:_SHOWN]})'


def check_position(workdir: epath.PathLike, step: int, data: Any) -> None:
  """Checks that the batch after a checkpoint is that of the next step.

  Args:
    workdir: folder of the run, for the message.
    step: steps done.
    data: state of the data iterator at that step.

  Raises:
    ValueError: the iterator is at another step.
  """
  position = data.get('next_index') if isinstance(data, dict) else data
  # A bool or a float would equal an integer.
  if not isinstance(position, int | np.integer) or position != step:
    raise ValueError(
      f'{workdir}: the checkpoint of step {step} is damaged: its next batch is '
      f'number {position!r}, and must be {step}; move it away to use the one '
      'before it'
    )


def _facts(
  fingerprint: str | None, records: Mapping[str, Any] | None
) -> dict[str, object]:
  """Returns what is compared, by its name in messages."""
  facts: dict[str, object] = {'fingerprint': fingerprint}
  if records:
    facts |= {
      name: digest[:_SHOWN] for name, digest in records['digests'].items()
    }
    facts['rows per epoch'] = records['rows_per_epoch']
  return facts
