"""Logs scalars of a run to TensorBoard and, optionally, Weights & Biases."""

import dataclasses
import types
import typing
import uuid

import tensorboardX
from etils import epath

from isft_jax.config import RunConfig

if typing.TYPE_CHECKING:
  import wandb


class Loggers:
  """Logs scalars by step. A resumed run appends to its own curves."""

  def __init__(
    self, folder: epath.Path, config: RunConfig, done: int, wandb: str = ''
  ) -> None:
    """Opens TensorBoard in a folder, and Weights & Biases if it is named.

    Args:
      folder: folder of the run.
      config: config of the run, for Weights & Biases.
      done: steps done. Points of later steps are deleted.
      wandb: project of Weights & Biases; '' for none.

    Raises:
      ValueError: Weights & Biases is not installed.
    """
    self._wandb = _open_wandb(folder, config, wandb) if wandb else None
    # purge_step hides points of steps that a resumed run repeats. tensorboardX
    # writes to buckets too, and needs no TensorFlow.
    self._tensorboard = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'), purge_step=done + 1
    )

  def add(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of a step."""
    for name, value in scalars.items():
      self._tensorboard.add_scalar(name, value, step)
    if self._wandb:
      self._wandb.log(scalars, step=step)

  def close(self) -> None:
    """Writes buffered points, and closes all loggers."""
    self._tensorboard.close()
    if self._wandb:
      self._wandb.finish()


def _open_wandb(
  folder: epath.Path, config: RunConfig, project: str
) -> 'wandb.Run':
  wandb = _imported()
  # The id is kept in the workdir, so a resumed run continues its W&B run.
  path = folder / 'wandb_id'
  # A random id, because W&B ids must be unique within a project.
  if not path.exists():
    path.write_text(uuid.uuid4().hex)
  # resume='allow' continues the run with this id, or starts it.
  return wandb.init(
    project=project,
    id=path.read_text(),
    name=config.name,
    # The whole config is stored with the run, to filter runs by it.
    config=dataclasses.asdict(config),
    resume='allow',
  )


def _imported() -> types.ModuleType:
  try:
    import wandb  # optional, and slow to import
  except ImportError:
    raise ValueError(
      '--wandb needs Weights & Biases: pip install wandb'
    ) from None
  return wandb
