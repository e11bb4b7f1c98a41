"""theory.json as tables, for the terminal and for the page alike."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Table(NamedTuple):
  """A title, a header, and rows as long as it; all text."""

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]


def tables(results: Mapping) -> list[Table]:
  """Returns the tables of what theory.json holds, in the order of parts."""
  makers = {
    'mixture': _mixture,
    'bandit': _bandit,
    'imitation': _imitation,
    'beta': _beta,
    'boxes': _boxes,
    'teaching': _teaching,
  }
  return [
    table
    for part, make in makers.items()
    if results.get(part)
    for table in make(results)
  ]


def text(table: Table) -> str:
  """Returns a table as lines for a terminal, the first column to the left."""
  columns = list(zip(table.header, *table.rows, strict=True))
  widths = [max(map(len, column)) for column in columns]
  lines = [table.title]
  for row in (table.header, *table.rows):
    first, *others = (
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    lines.append('  '.join([first, *others]).rstrip())
  return '\n'.join(lines)


def _mixture(results):
  found = results['mixture']
  yield Table(
    'Two hypotheses: the weight of p_B',
    ('accounting', 'at first', 'the agent writes A', 'the world writes B'),
    [
      (name, f'{found["prior"]:.4f}', *(f'{w:.6f}' for w in found[name]))
      for name in ('interventional', 'naive')
    ],
  )


def _bandit(results):
  found = results['bandit']
  rows, steps = [], []
  for side, label in ('own', 'own rollout'), ('expert', "expert's trajectory"):
    for name in ('interventional', 'conditional'):
      cell = found[side][name]
      last = len(cell['p_best']) - 1
      steps = sorted({t for t in (0, 5, 10, 20, 50) if t < last} | {last})
      rows.append(
        (
          f'{label}, {name}',
          *(f'{cell["p_best"][t]:.3f}' for t in steps),
          f'{cell["sum_kl"]:.2f} ± {2 * cell["sum_kl_error"]:.2f}',
          f'{cell["sum_reward_kl"]:.2f}',
          f'{cell["sure_and_wrong"]:.1%}',
        )
      )
  yield Table(
    'Five-armed bandit: P(best arm) at t, and KL from expert to learner',
    (
      'who acts, accounting',
      *(f't={t}' for t in steps),
      'sum KL, nats',
      'of rewards',
      'sure and wrong',
    ),
    rows,
  )
  own = found['expert']['conditional']
  total = own['sum_kl'] + own['sum_reward_kl'] + own['entropy']
  yield Table(
    "ln 5 = 1.6094: conditional accounting, expert's trajectories",
    ('actions', 'rewards', 'still unknown', 'sum'),
    [
      (
        f'{own["sum_kl"]:.4f}',
        f'{own["sum_reward_kl"]:.4f}',
        f'{own["entropy"]:.4f}',
        f'{total:.4f} ± {2 * own["total_error"]:.4f}',
      )
    ],
  )
  yield Table(
    f'Sure and wrong over h; boundary {found["boundary"]:.4f}',
    ('h', *found['phase']),
    [('share', *(f'{share:.3f}' for share in found['phase'].values()))],
  )


def _imitation(results):
  yield Table(
    'Imitation over rho: sums of KL in nats, shares locked into p_A',
    (
      'rho',
      "agent's slots",
      'bound',
      "world's slots",
      'bound',
      'blocks, taught',
      'locked, sampling',
      'locked, greedy',
    ),
    [
      (
        rho,
        *(
          f'{cell[name]:.3f}'
          for name in ('agent_kl', 'bound', 'world_kl', 'world_bound')
        ),
        f'{cell["taught"]["mean"]:.3f}',
        f'{cell["locked_sampling"]:.3f}',
        f'{cell["locked_greedy"]:.3f}',
      )
      for rho, cell in results['imitation'].items()
    ],
  )
  yield Table(
    'Whose block is it? The weight of p_B after each of three blocks',
    ('the middle one is', 'first', 'middle', 'last'),
    [
      (label, *(f'{w:.4f}' for w in results['blocks'][name]))
      for name, label in (
        ('agent', "the agent's"),
        ('third_party', "a third party's"),
      )
    ],
  )


def _beta(results):
  found = results['beta']
  steps = len(found['interventional']['regret'])
  shown = [t for t in (10, 20, 50, 100) if t <= steps]
  yield Table(
    f'Beta bandit: regret; P(first arm is best | it paid) = '
    f'{found["p_first_is_best"]:.4f}',
    ('accounting', *(f't={t}' for t in shown), 'P(best) at the end'),
    [
      (
        name,
        *(f'{found[name]["regret"][t - 1]:.2f}' for t in shown),
        f'{found[name]["p_best"][-1]:.3f}',
      )
      for name in ('interventional', 'conditional')
    ],
  )


def _boxes(results):
  yield Table(
    'Two boxes: P(prize), and what a model learns with actions masked',
    ('q', 'given a', 'given do(a)', "from the expert's data", 'blind data'),
    [
      (q, *(f'{value:.4f}' for value in cell.values()))
      for q, cell in results['boxes'].items()
    ],
  )


def _teaching(results):
  def interval(found):
    return f'{found["mean"]:.4f} ({found["lo"]:.4f}, {found["hi"]:.4f})'

  yield Table(
    'Teaching a decoder: KL in nats a step and reward, along own rollouts',
    (
      'loss / who wrote the actions',
      'seeds x steps',
      'KL to interventional',
      'KL to conditional',
      'reward a step',
    ),
    [
      (
        f'{cell["loss"]} / {cell["behaviour"]}',
        f'{cell["seeds"]} x {cell["steps"]}',
        interval(cell['kl_to_interventional']),
        interval(cell['kl_to_conditional']),
        interval(cell['reward']),
      )
      for cell in results['teaching']
    ],
  )
