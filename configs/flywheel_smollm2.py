"""A real language model learns from conversations about its own mistakes.

Reproduces: no published result, because the paper scripts the lies. Here
  SmolLM2-135M-Instruct (from a package on PyPI) answers questions about 200
  real facts by sampling. A user who knows states the truth. The model is
  trained on these transcripts and answers again, for three rounds. The facts
  are capitals, currencies and chemical symbols; 12 more are never asked about
  in training.
Hardware: two CPU cores and 8 GB of memory, or any accelerator.
Time: on an H200 the twelve runs took 177 to 219 seconds, side by side. On two
  CPU cores, one after the other, we expect three hours.
Expected: correct answers go from 29 % to 92 % (interventional), 69
  (observational), 64 (truth_only) and 35 (agent_only), means of three seeds.
Command:

  isft-reproduce --config=flywheel_smollm2
"""

from isft_jax.config import MeshConfig, OptimConfig, StageConfig
from isft_jax.experiments.config import EvidenceConfig, FlywheelConfig
from isft_jax.models.presets import model_config


def get_config() -> EvidenceConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them."""
  return EvidenceConfig(
    name='flywheel_smollm2',
    only='flywheel',
    seeds=3,
    bank='world',
    facts=200,
    model=model_config(
      'smollm2-135m',
      init_from='smollm2-135m-instruct',
      head_chunk=0,  # the logits of one row are small
    ),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),  # a batch of one row
    flywheel=FlywheelConfig(
      rounds=3,
      temperature=0.7,
      stage=StageConfig(
        batch_size=1,
        seq_len=256,
        epochs=1,
        optim=OptimConfig(
          learning_rate=5e-5, schedule='cosine', final_fraction=0.1
        ),
      ),
    ),
    reply_tokens=24,
  )
