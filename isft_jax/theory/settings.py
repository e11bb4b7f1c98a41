"""Sizes of the theory's computations: episodes, steps and seeds."""

import dataclasses
from dataclasses import field

from isft_jax.theory.teaching import Lesson


@dataclasses.dataclass(frozen=True)
class Settings:
  """Sizes of all parts; the README's figures use the defaults."""

  # Bandit: number and steps of short and of long episodes.
  episodes: int = 200_000
  steps: int = 100
  long_episodes: int = 20_000
  long_steps: int = 1000
  # The same for each reward probability of the best arm, see `episodes.phase`.
  phase_episodes: int = 50_000
  phase_steps: int = 300
  phase_rewards: tuple[float, ...] = (0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9)
  # Imitation: probabilities rho that the agent writes a slot.
  rhos: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
  slots: int = 400  # per episode
  turns: int = 200  # per episode of blocks
  samples: int = 20_000  # episodes, to check the exact results
  # Teaching: headline cells have the lesson's steps and `seeds` seeds; the
  # other cells have `other_steps` and one seed.
  lesson: Lesson = field(default_factory=Lesson)
  seeds: int = 3
  other_steps: int = 400
  # Beta: steps per episode.
  beta_steps: int = 100
  # Boxes: probabilities that the expert opens the box with the prize.
  accuracies: tuple[float, ...] = (0.5, 0.6, 0.75, 0.9, 0.99)
