"""How much of everything: the sizes of the theory's runs."""

import dataclasses
from dataclasses import field

from isft_jax.theory.teaching import Lesson


@dataclasses.dataclass(frozen=True)
class Settings:
  """The defaults are those of the figures in the README."""

  # Bandit: episodes of `steps`, of `long_steps`, and at each h of the phase.
  episodes: int = 200_000
  steps: int = 100
  long_episodes: int = 20_000
  long_steps: int = 1000
  phase_episodes: int = 50_000
  phase_steps: int = 300
  phase_rewards: tuple[float, ...] = (0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9)
  # Imitation: slots of an episode, and turns of one in blocks; episodes that
  # are sampled, to check what is exact.
  rhos: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
  slots: int = 400
  turns: int = 200
  samples: int = 20_000
  # Teaching: the headline cells with all steps and seeds, the others with
  # fewer steps and one seed.
  lesson: Lesson = field(default_factory=Lesson)
  seeds: int = 3
  other_steps: int = 400
  # Beta: steps. Boxes: the experts' accuracies.
  beta_steps: int = 100
  accuracies: tuple[float, ...] = (0.5, 0.6, 0.75, 0.9, 0.99)
