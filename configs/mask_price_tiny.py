"""The price of the mask, and what lowers it, with a tiny decoder on a laptop.

L_do gives the agent's turns no gradient, so that an agent may begin to talk
like the user. This bench measures that price for many objectives, some of which
keep the manner of the agent's turns and leave their content unscored.

Reproduces: no published result.
Hardware: two CPU cores and 4 GB of memory. Nothing is downloaded.
Time: about an hour on two CPU cores that did much other work as well, and
  five minutes for the part `flywheel`.
Expected: means over seeds 0 to 4. Margin of the base +0.192, observational
  +0.203, interventional +0.392, weighted_first(0.3) +0.390. Turns that talk
  like the user: base 15.8 %, observational 1.4 %, interventional 25.5 %,
  weighted_first(0.3) 2.2 %. See docs/evidence.md.
Commands:

  isft-reproduce --config=mask_price_tiny
  isft-reproduce --config=mask_price_tiny:only=flywheel

The first is the part `arms`. Both share one workdir and its bases, which
  differ from those of evidence_tiny in one thing: among their documents are
  dialogues, so that a base knows who says what. The number of dialogues and the
  weights of objectives were chosen on seed 100.
"""

import dataclasses

from isft_jax.configs import evidence_tiny
from isft_jax.experiments.config import EvidenceConfig

# Objectives and arms that need no verdict and no demonstration.
CURES = (
  'weighted(0.05)',
  'weighted(0.1)',
  'weighted_first(0.3)',
  'weighted_first(1)',
  'weighted_ends(0.1)',
  'weighted_ends(0.3)',
  'weighted_ends(1)',
  'anchored(0.1)',
  'reverse_anchored(0.1)',
  'reverse_anchored_ends(1)',
  'averaged(0.1)',
  'replay',
  'hindsight',
)


def get_config(text: str = '') -> EvidenceConfig:
  """Returns the settings; --config.FIELD=VALUE changes any of them.

  Args:
    text: 'only=PART'; '' for the arms.

  Raises:
    ValueError: the argument has another form.
  """
  config = evidence_tiny.get_config(text or 'only=arms')
  return dataclasses.replace(
    config,
    name='mask_price_tiny',
    documents=dataclasses.replace(config.documents, dialogues=600),
    arms=(
      'observational',
      'interventional',
      *CURES,
      'error_masked',
      'truth_only',
      'demonstration',
    ),
    flywheel=dataclasses.replace(
      config.flywheel,
      arms=(
        'observational',
        'interventional',
        'weighted_first(0.3)',
        'weighted_ends(0.3)',
        'error_masked',
      ),
    ),
  )
