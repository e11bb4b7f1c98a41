"""Trains a model on records, or goes on from the newest checkpoint in workdir.

  isft-train --config=configs/train_tiny.py --config.records=DIR \\
    --config.tokenizer=DIR [--config.model.init_from=WORKDIR] \\
    [--config.objective=interventional]
"""

from isft_jax.cli import main


def _train(config, workdir):
  # Imported late: --help need not wait for jax.
  from isft_jax.train import loop

  summary = loop.train(config, workdir).summary
  print(
    f'{config.name}: {summary["steps"]} steps on {summary["scored_tokens"]:,} '
    f'scored tokens, final loss {summary["final_loss"]:.4f}\n'
    f'checkpoints and metrics.jsonl are in {workdir}'
  )


def run():
  """The console script isft-train."""
  main.run_config(_train, __doc__)
