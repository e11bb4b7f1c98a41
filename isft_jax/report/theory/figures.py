"""theory.json as figures: data and words, drawn by `charts`.

A part that has not been run has no figure.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Numbers of the colors --arm-0 to --arm-5, as in `colors`.
GRAY, VERMILION, BLUE, ORANGE, GREEN, PINK = range(6)
ACCOUNTINGS = {'interventional': BLUE, 'conditional': VERMILION}
# Behaviours of teaching, in words.
WRITERS = {
  'own': 'learner acts',
  'random': 'chance acts',
  'expert': 'expert acts',
}


@dataclasses.dataclass(frozen=True)
class Line:
  """A line through points.

  color: its number. kind: 'solid', 'dashed', 'dotted'; 'points' for points
    alone, 'both' for a solid line that shows them.
  """

  name: str
  x: Sequence[float]
  y: Sequence[float]
  color: int
  kind: str = 'solid'


@dataclasses.dataclass(frozen=True)
class Mark:
  """A vertical line at a threshold."""

  name: str
  x: float
  color: int = GRAY


@dataclasses.dataclass(frozen=True)
class Figure:
  """Lines over an axis. name: the file's. shows, not_shown: the caption."""

  name: str
  title: str
  x_label: str
  y_label: str
  lines: tuple[Line, ...]
  shows: str
  not_shown: str
  marks: tuple[Mark, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
  """A cell of the grid: KL to each oracle as (mean, lo, hi), nats a step."""

  name: str
  headline: bool
  kl: Mapping[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Grid:
  """Rows of dots on a log scale, one dot an oracle."""

  name: str
  title: str
  x_label: str
  rows: tuple[Row, ...]
  shows: str
  not_shown: str


def figures(results: Mapping) -> dict[str, list[Figure | Grid]]:
  """Returns part -> its figures, for those parts that theory.json holds."""
  makers: dict[str, Sequence[Callable[[Mapping], Figure | Grid]]] = {
    'bandit': (_best_arm, _phase),
    'teaching': (_grid, _taught),
    'imitation': (_costs, _lock_in),
    'beta': (_regret,),
    'boxes': (_boxes,),
  }
  return {
    part: [make(results) for make in of_part]
    for part, of_part in makers.items()
    if results.get(part)
  }


def _best_arm(results: Mapping) -> Figure:
  bandit = results['bandit']
  lines = [
    Line(
      f'{writer}, {accounting}',
      range(len(bandit[side][accounting]['p_best'])),
      bandit[side][accounting]['p_best'],
      color,
      kind,
    )
    for side, writer, kind in (
      ('own', 'own actions', 'solid'),
      ('expert', "expert's actions", 'dashed'),
    )
    for accounting, color in ACCOUNTINGS.items()
  ]
  return Figure(
    'bandit',
    'The five-armed bandit: the chance of the best arm',
    'steps so far',
    'P(best arm)',
    tuple(lines),
    "On the expert's trajectories the conditional accounting learns fastest. "
    'When the learner acts, the same accounting stops short of the best arm: '
    "it takes its own choices for the expert's.",
    'That is an average. It does not show that a deluded learner is sure of '
    'its arm; the table of the bandit counts those.',
  )


def _phase(results: Mapping) -> Figure:
  bandit = results['bandit']
  rewards = sorted(bandit['phase'], key=float)
  return Figure(
    'bandit_phase',
    'Delusion ends where rewards outweigh own actions',
    'h, the chance that the best arm pays',
    'sure and wrong, share',
    (
      Line(
        'conditional, own actions',
        [float(h) for h in rewards],
        [bandit['phase'][h] for h in rewards],
        VERMILION,
        'both',
      ),
    ),
    'The share of learners that end with a belief above 0.99 in a wrong arm. '
    'Beyond the line no wrong belief sustains itself.',
    'The line is a limit for long episodes: below it a wrong belief can last, '
    'above it an episode may still end in the middle of one.',
    (Mark(f'boundary, h = {bandit["boundary"]:.4f}', bandit['boundary']),),
  )


def _costs(results: Mapping) -> Figure:
  imitation = results['imitation']
  rhos = sorted(imitation, key=float)
  x = [float(rho) for rho in rhos]

  def column(key: str) -> list[Any]:
    return [imitation[rho][key] for rho in rhos]

  return Figure(
    'imitation',
    'What imitation costs, by who writes',
    'rho, the chance that the agent writes a slot',
    'sum of KL, nats',
    (
      Line("bound, agent's slots", x, column('bound'), BLUE),
      Line("exact, agent's slots", x, column('agent_kl'), BLUE, 'points'),
      Line("bound, world's slots", x, column('world_bound'), GREEN, 'dashed'),
      Line("exact, world's slots", x, column('world_kl'), GREEN, 'points'),
      Line("bound, agent's blocks, taught", x, column('taught_bound'), ORANGE),
      Line(
        "sampled, agent's blocks, taught",
        x,
        [each['mean'] for each in column('taught')],
        ORANGE,
        'points',
      ),
    ),
    "Lines are bounds, dots what was found. The cost in the world's slots is "
    "the same whoever else writes; that in the agent's grows as rho / (1 - "
    'rho). Counterfactual actions as lessons keep it below ln 1/w.',
    'A small sum is no proof of good behaviour in any one slot; and a gate '
    'that looks at content is outside the second bound.',
  )


def _lock_in(results: Mapping) -> Figure:
  imitation = results['imitation']
  rhos = sorted(imitation, key=float)
  agents = {'sampling': VERMILION, 'greedy': PINK}
  return Figure(
    'lock_in',
    'Observational accounting: locked into the wrong hypothesis',
    'rho, the chance that the agent writes a slot',
    'locked, share',
    tuple(
      Line(
        f'{name} agent',
        [float(rho) for rho in rhos],
        [imitation[rho][f'locked_{name}'] for rho in rhos],
        color,
        'both',
      )
      for name, color in agents.items()
    ),
    'An agent that counts its own symbols as evidence can talk itself into '
    'p_A, though the world writes p_B; exact, a belief above 0.99.',
    'Below the thresholds some are still locked when the episode ends, and '
    'would get out of it later. Interventional accounting locks in nobody.',
    tuple(
      Mark(f'{name}: {results["lock_in"][name]:.3f}', x, agents[name])
      for name, x in results['lock_in'].items()
    ),
  )


def _regret(results: Mapping) -> Figure:
  beta = results['beta']
  return Figure(
    'beta',
    'Two arms with unknown odds: regret',
    'steps',
    'regret',
    tuple(
      Line(
        name,
        range(1, len(beta[name]['regret']) + 1),
        beta[name]['regret'],
        color,
      )
      for name, color in ACCOUNTINGS.items()
    ),
    'The conditional learner keeps its first arm for ever and loses the same '
    'at every step; the interventional one is Thompson sampling.',
    'An expert that errs would slow the delusion down; this one never does.',
  )


def _boxes(results: Mapping) -> Figure:
  boxes = results['boxes']
  accuracies = sorted(boxes, key=float)
  x = [float(q) for q in accuracies]
  lines = (
    ('P(prize | a)', 'conditional', VERMILION, 'solid'),
    ('P(prize | do(a))', 'interventional', BLUE, 'solid'),
    ("learned, masked, expert's data", 'masked_on_expert', VERMILION, 'points'),
    ('learned, masked, blind data', 'masked_on_blind', BLUE, 'points'),
  )
  return Figure(
    'boxes',
    'Two boxes: what a mask over actions learns',
    'q, how often the expert finds the prize',
    'P(prize)',
    tuple(
      Line(name, x, [boxes[q][key] for q in accuracies], color, kind)
      for name, key, color, kind in lines
    ),
    'With every action masked, a model still learns from the expert that a box '
    'that is opened holds the prize. Masks do not make an intervention; who '
    'chose, and what they saw, does.',
    'Two boxes and one step: how far this reaches in a longer history is what '
    'the grid of teaching measures.',
  )


def _grid(results: Mapping) -> Grid:
  losses = ('counterfactual', 'actions', 'observations', 'all')
  order = sorted(
    results['teaching'],
    key=lambda cell: (-cell['seeds'], losses.index(cell['loss'])),
  )
  return Grid(
    'teaching',
    'A decoder taught twelve ways, along its own rollouts',
    "KL from the exact prediction to the model's, nats a step",
    tuple(
      Row(
        f'{cell["loss"]}, {WRITERS[cell["behaviour"]]}',
        cell['seeds'] > 1,
        {
          name: tuple(
            cell[f'kl_to_{name}'][end] for end in ('mean', 'lo', 'hi')
          )
          for name in ACCOUNTINGS
        },
      )
      for cell in order
    ),
    'What the loss trains, and who acts in the data; left is closer. Where '
    'who acts does not know the best arm, counterfactual teaching comes to the '
    'interventional prediction, and so does a mask over actions '
    '(observations). Where the expert acts, every loss comes to the '
    'conditional one, the mask too.',
    'The first rows are of three seeds, with their spread, and were trained '
    'longest. A row measures what its loss trains: outcomes for observations, '
    'both for all, else actions. Actions of the learner or of chance, taken as '
    'targets, teach nothing of either.',
  )


def _taught(results: Mapping) -> Figure:
  shown = {
    ('own', 'counterfactual'): ('counterfactual, on own actions', BLUE),
    ('expert', 'actions'): ("actions, on the expert's (factual)", VERMILION),
  }
  lines = []
  for cell in results['teaching']:
    key = cell['behaviour'], cell['loss']
    if key in shown:
      steps = len(cell['p_best'])
      lines.append(
        Line(shown[key][0], range(steps), cell['p_best'], shown[key][1])
      )
  for name, color in ACCOUNTINGS.items():
    if lines and 'bandit' in results:
      exact = results['bandit']['own'][name]['p_best'][:steps]
      lines.append(
        Line(f'{name}, exact', range(len(exact)), exact, color, 'points')
      )
  return Figure(
    'teaching_curves',
    'Two taught decoders act: the chance of the best arm',
    'steps so far',
    'P(best arm)',
    tuple(lines),
    'Each decoder follows the closed form that its loss has for a minimiser, '
    'along fresh rollouts of its own.',
    'The horizon is short: the gap between the two goes on growing, as the '
    'figure of the bandit shows.',
  )
