"""The evidence for and against L_do, on a laptop, from nothing.

Reproduces: what the paper leaves open: five seeds with 95 % intervals, more
  arms, facts that no dialogue mentions, the model's own mistakes in rounds,
  users who are wrong, and what the mask costs.
Hardware: two CPU cores and 4 GB; nothing is downloaded.
Time, of one core's processor: 9 minutes for the five bases, which parts share;
  then 7 for flywheel, 11 for arms, in which heldout is, 10 for worlds.
Expected, mean over seeds 0 to 4 with its 95 % interval, or of the difference
  from observational on the same seed:
  flywheel: accuracy 60 % before; after four rounds interventional 92 %,
    observational 79 %, truth_only 86 %, agent_only 50 %. Interventional
    +12.7 [+5.4, +20.0] points, above in 5 of 5 seeds.
  arms: margin 0.173 of the base; interventional 0.285, observational 0.189,
    agent_only 0.145. Interventional +0.096 [+0.070, +0.121] nats a token.
  heldout: interventional +0.018 [+0.012, +0.025], on facts never mentioned.
  worlds: interventional above observational in 24 of 27, clearly in 18; not
    where the agent lies in 30 % and users say no more than that it is wrong.
Settings were chosen on seeds 100 to 102, and are frozen. The base of seed 0 has
  learned less than the others: right on 38.5 %, they on 63.5 to 67 %.
They are of commit 258f83a with these settings. Another order of sums moves the
  figures of a seed: by later code, seed 1 began at 71 % for 67, and ended at
  97.5 (interventional) and 91.5 % (observational) for 97 and 92.
Command, for one part or for all:

  isft-reproduce --config=configs/evidence_tiny.py:only=flywheel
  isft-reproduce --config=configs/evidence_tiny.py

Parts: flywheel, arms, heldout, worlds. They share one workdir and its bases.
"""

from isft_jax.config import (
  DialoguesConfig,
  DocumentsConfig,
  EvidenceConfig,
  FlywheelConfig,
  ModelConfig,
  OptimConfig,
  StageConfig,
  WorldsConfig,
)


def get_config(text: str = '') -> EvidenceConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  text: 'only=PART', or nothing for all parts.

  Raises ValueError for anything else.
  """
  name, _, only = text.partition('=')
  if text and name != 'only':
    raise ValueError(f'its argument {text!r} is not only=PART')

  def stage(**changes):
    settings = {
      'rows': 8,
      'row_length': 192,
      'row_targets': 192,
      'optim': OptimConfig(learning_rate=5e-4),
    }
    return StageConfig(**{**settings, **changes})

  return EvidenceConfig(
    name='evidence_tiny',
    only=only,
    arms=(
      'observational',
      'interventional',
      'agent_only',
      'observational_matched',
      'error_masked',
      'truth_only',
      'weighted(0.1)',
      'weighted(0.3)',
      'demonstration',
    ),
    vocab_size=1408,
    facts=400,
    model=ModelConfig(
      vocab_size=1408,
      width=64,
      layers=2,
      kv_heads=2,
      head_size=16,
      hidden=256,
      remat='full',
    ),
    dialogues=DialoguesConfig(
      number=480,
      heldout=64,
      p_lie=0.6,
      p_chitchat=0.5,
      # Then a right acknowledgement is one more true turn of the agent's, for
      # the arms that learn from those.
      acknowledge='restate',
    ),
    documents=DocumentsConfig(number=12_000, p_true=0.75),
    pretrain=stage(
      rows=4,
      steps=1800,
      log_every=200,
      checkpoint_every=600,
      optim=OptimConfig(
        learning_rate=5e-3, schedule='cosine', warmup_steps=20, b2=0.99
      ),
    ),
    finetune=stage(steps=124),
    reply_tokens=24,
    flywheel=FlywheelConfig(rounds=4, temperature=1.0, stage=stage(steps=48)),
    # One epoch, and so a higher rate.
    worlds=WorldsConfig(
      dialogues=320,
      stage=stage(steps=42, optim=OptimConfig(learning_rate=1e-3)),
    ),
  )
