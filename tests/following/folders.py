"""A folder of transcripts to follow, and a model that learns from it."""

import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.types import Example, Trajectory

LONGEST = 256  # tokens of an example
# A transcript of nonsense, on which the held-out loss rises.
GARBAGE = json.dumps(
  {
    'messages': [
      {'role': 'user', 'content': 'q ' * 30},
      {'role': 'assistant', 'content': 'zz ' * 30},
    ]
    * 2
  }
)

# Its step is the program of test_finite.py, which is compiled once.
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
      'mesh': MeshConfig(1, 1, 1),
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


def losses(graphdef, params, example: Example) -> list[tuple[int, float]]:
  """Returns author and -log p of each target of an example, in float64.

  The example is alone in its row, and all logits are there at once.
  """
  T = len(example.tokens_T)
  row = np.zeros((3, 1, LONGEST), np.int32)  # padding has segment 0
  row[0, 0, :T], row[1, 0, :T], row[2, 0, :T] = example.tokens_T, range(T), 1
  logits_LV = np.asarray(_logits(graphdef, params, *row)[0], np.float64)
  logits_LV -= logits_LV.max(axis=-1, keepdims=True)
  log_p_LV = logits_LV - np.log(np.exp(logits_LV).sum(axis=-1, keepdims=True))
  return [
    (int(example.provenance_T[t]), -log_p_LV[t - 1, example.tokens_T[t]])
    for t in range(max(1, example.scored_from), T)
  ]


@jax.jit(static_argnums=0)
def _logits(graphdef, params, tokens_BL, positions_BL, segment_ids_BL):
  network = nnx.merge(graphdef, params)
  return network.logits(network(tokens_BL, positions_BL, segment_ids_BL))
