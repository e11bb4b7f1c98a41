"""Workdirs of runs as training leaves them, without training."""

import types

from isft_jax.config import ModelConfig, RunConfig
from isft_jax.train.checkpoint import Checkpoints


def save_run(
  workdir, model: ModelConfig, params, tokenizer: str, records='records'
):
  """Saves parameters as the checkpoint of step 1 of a run."""
  config = RunConfig(records=records, tokenizer=tokenizer, model=model)
  opt_state = {'none': params['norm']}
  state = types.SimpleNamespace(params=params, opt_state=opt_state)
  with Checkpoints(workdir, config) as checkpoints:
    checkpoints.save(1, state, {}, 'fingerprint')
