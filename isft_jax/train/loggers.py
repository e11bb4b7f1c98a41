"""Where curves are drawn: TensorBoard, and Weights & Biases if asked for."""

import dataclasses
import types
import typing
import uuid

import tensorboardX
from etils import epath

from isft_jax.config import RunConfig

if typing.TYPE_CHECKING:
  import wandb


class Boards:
  """Draws scalars by step. A run that goes on draws on."""

  def __init__(
    self, folder: epath.Path, config: RunConfig, done: int, wandb: str = ''
  ) -> None:
    """Opens TensorBoard in folder, and a project of W&B if one is named.

    done: steps so far; what was drawn of later ones is dropped.

    Raises ValueError if W&B is not installed.
    """
    self._wandb = _open_wandb(folder, config, wandb) if wandb else None
    self._board = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'), purge_step=done + 1
    )

  def add(self, step: int, scalars: dict[str, float]) -> None:
    """Draws the scalars of a step."""
    for name, value in scalars.items():
      self._board.add_scalar(name, value, step)
    if self._wandb:
      self._wandb.log(scalars, step=step)

  def close(self) -> None:
    """Writes what has been drawn."""
    self._board.close()
    if self._wandb:
      self._wandb.finish()


def _open_wandb(
  folder: epath.Path, config: RunConfig, project: str
) -> 'wandb.Run':
  wandb = _imported()
  path = folder / 'wandb_id'  # the run that goes on where the workdir does
  if not path.exists():
    path.write_text(uuid.uuid4().hex)
  return wandb.init(
    project=project,
    id=path.read_text(),
    name=config.name,
    config=dataclasses.asdict(config),
    resume='allow',
  )


def _imported() -> types.ModuleType:
  try:
    import wandb  # an extra; late, as it is slow
  except ImportError:
    raise ValueError('--wandb needs it installed: pip install wandb') from None
  return wandb
