"""Data and texts of the figures of theory.json, drawn by `charts`.

A part that was not run has no figure.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Numbers of the colors --arm-0 to --arm-5, as in `colors`.
GRAY, VERMILION, BLUE, ORANGE, GREEN, PINK = range(6)
# Accounting -> number of its color, the same in all figures.
ACCOUNTINGS = {'interventional': BLUE, 'conditional': VERMILION}
# Behaviour of the teaching part -> its words.
WRITERS = {
  'own': 'learner acts',
  'random': 'chance acts',
  'expert': 'expert acts',
}


@dataclasses.dataclass(frozen=True)
class Line:
  """A line through points."""

  name: str
  x: Sequence[float]
  y: Sequence[float]
  color: int  # its number, see above
  # 'solid', 'dashed', 'dotted', 'points' (points only), or 'both' (a solid line
  # with points).
  kind: str = 'solid'


@dataclasses.dataclass(frozen=True)
class Mark:
  """A vertical line at a threshold."""

  name: str
  x: float
  color: int = GRAY


@dataclasses.dataclass(frozen=True)
class Figure:
  """Lines over an axis, with a caption."""

  name: str  # of its file
  title: str
  x_label: str
  y_label: str
  lines: tuple[Line, ...]
  shows: str  # first part of the caption
  not_shown: str  # second part of the caption: limits of the figure
  marks: tuple[Mark, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
  """A cell of the grid: a loss, and who acts in its data."""

  name: str
  headline: bool  # trained longest, on several seeds: drawn as a filled dot
  # Accounting -> KL to its prediction as (mean, lo, hi), nats per step.
  kl: Mapping[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Grid:
  """Rows of dots on a log scale, one dot per accounting."""

  name: str
  title: str
  x_label: str
  rows: tuple[Row, ...]
  shows: str
  not_shown: str


def figures(results: Mapping) -> dict[str, list[Figure | Grid]]:
  """Returns part -> figures, for the parts in theory.json."""
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
  # Colors stand for the accounting, and dashes for who acts.
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
    'This is an average. It does not show whether a deluded learner is sure of '
    'its arm; the table of the bandit counts such learners.',
  )


def _phase(results: Mapping) -> Figure:
  bandit = results['bandit']
  # Keys of a JSON object are text: sort them as numbers.
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
    'The line is a limit for long episodes. Below it a wrong belief can last; '
    'above it an episode may still end during one.',
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
    'Cost of imitation, by author',
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
    "Lines are bounds, dots are results. The cost in the world's slots does "
    "not depend on the other authors. The cost in the agent's slots grows as "
    'rho / (1 - rho). Counterfactual actions as lessons keep it below ln 1/w.',
    'A small sum does not guarantee good behaviour in every slot. The second '
    'bound does not hold for a gate that depends on content.',
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
    'An agent that counts its own symbols as evidence can come to believe in '
    'p_A although the world writes p_B. Locked means a belief above 0.99.',
    'Below the thresholds some agents are still locked when the episode ends, '
    'and would recover later. Interventional accounting locks no agent.',
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
    'The conditional learner keeps its first arm forever, with the same loss '
    'at every step. The interventional one is Thompson sampling.',
    'An expert that makes mistakes would slow the delusion; this one makes '
    'none.',
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
    'Two boxes: predictions learned with masked actions',
    'q, how often the expert finds the prize',
    'P(prize)',
    tuple(
      Line(name, x, [boxes[q][key] for q in accuracies], color, kind)
      for name, key, color, kind in lines
    ),
    'With every action masked, a model still learns from the expert that an '
    'opened box contains the prize. A mask does not make an intervention: that '
    'depends on who chose the action, and on what they saw.',
    'Two boxes and one step. The grid of teaching measures longer histories.',
  )


def _grid(results: Mapping) -> Grid:
  # Cells with several seeds first, then in this order of losses.
  losses = ('counterfactual', 'actions', 'observations', 'all')
  order = sorted(
    results['teaching'],
    key=lambda cell: (-cell['seeds'], losses.index(cell['loss'])),
  )
  return Grid(
    'teaching',
    'A decoder taught twelve ways, along its own rollouts',
    "KL from the exact prediction to the model's, nats per step",
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
    'Rows name the targets of the loss, and who acts in the data; left is '
    'closer. If the actor does not know the best arm, counterfactual teaching '
    'reaches the interventional prediction, and so does a mask over actions '
    '(observations). If the expert acts, every loss reaches the conditional '
    'prediction, also the mask.',
    'The first rows have several seeds, with their spread, and were trained '
    'longest. A row measures the targets of its loss: outcomes for '
    'observations, both for all, else actions. Actions of the learner or of '
    'chance as targets teach neither prediction.',
  )


def _taught(results: Mapping) -> Figure:
  # The cells whose losses have the two closed forms as minimisers.
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
  # The closed forms, as far as the episodes of teaching last.
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
    'Each decoder follows the closed form of the minimiser of its loss, along '
    'its own new rollouts.',
    'The horizon is short: the gap between the two continues to grow, as the '
    'figure of the bandit shows.',
  )
