"""A folder of transcripts to follow, and a model that learns from it."""

import json
import pathlib
from collections.abc import Sequence

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.types import Trajectory

# Its step is the program of test_loop.py, which is compiled once.
MODEL = ModelConfig(
  vocab_size=512, width=16, layers=2, head_size=4, mlp_width=32
)


def config(data: pathlib.Path, **settings) -> RunConfig:
  """Returns a config whose transcripts are rendered like the dialogues."""
  return RunConfig(
    **{
      'records': f'{data}/records',
      'tokenizer': f'{data}/tokenizer',
      'heldout': f'{data}/records',
      'seq_len': 256,
      'targets_per_row': 256,
      'epochs': 2,
      'model': MODEL,
      'optim': OptimConfig(learning_rate=1e-2),
    }
    | settings
  )


def transcript(trajectory: Trajectory) -> str:
  """Returns a dialogue as the JSON of a transcript."""
  turns = [
    {'role': turn.role, 'content': turn.text} for turn in trajectory.segments
  ]
  return json.dumps({'messages': turns})


def put(
  folder: pathlib.Path, trajectories: Sequence[Trajectory], first: int = 0
) -> list[str]:
  """Writes a transcript for each dialogue, as 0000.json; returns the names."""
  folder.mkdir(parents=True, exist_ok=True)
  names = []
  for number, trajectory in enumerate(trajectories, first):
    names.append(f'{number:04d}.json')
    (folder / names[-1]).write_text(transcript(trajectory))
  return names
