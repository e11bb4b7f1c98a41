"""A real language model learns from conversations about its own mistakes.

Reproduces: nothing of the paper, which scripts the lies. SmolLM2-135M-Instruct
  (a package of PyPI) answers questions about 200 real facts by sampling; a user
  who knows states the truth; it is trained on the transcripts and answers
  again, for three rounds. Capitals, currencies and chemical symbols, of which
  12 more are never asked in training.
Hardware: two CPU cores and 8 GB, or any accelerator.
Expected: right answers go from 29 % to 92 % (interventional), 69
  (observational), 64 (truth_only) and 35 (agent_only), means of three seeds.
  On an H200 the twelve runs took 177 to 219 seconds, side by side; on two
  cores, one after the other, we expect three hours.
Command:

  isft-reproduce --config=flywheel_smollm2
"""

from isft_jax.config import (
  EvidenceConfig,
  FlywheelConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  StageConfig,
)


def get_config() -> EvidenceConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return EvidenceConfig(
    name='flywheel_smollm2',
    only='flywheel',
    seeds=3,
    bank='world',
    facts=200,
    model=ModelConfig(init_from='smollm2-135m-instruct', head_chunk=0),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),  # a batch of one row
    flywheel=FlywheelConfig(
      rounds=3,
      temperature=0.7,
      stage=StageConfig(
        rows=1,
        row_length=256,
        epochs=1,
        optim=OptimConfig(
          learning_rate=5e-5, schedule='cosine', final_fraction=0.1
        ),
      ),
    ),
    reply_tokens=24,
  )
