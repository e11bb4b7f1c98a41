"""Tables of theory.json, for the terminal and for the page.

Two standard errors follow a sampled value, after the sign ±.
"""

from collections.abc import Callable, Iterator, Mapping

from isft_jax.report import shapes
from isft_jax.report.tables import Table
from isft_jax.report.theory.shape import THEORY


def tables(results: Mapping) -> dict[str, list[Table[str]]]:
  """Returns part -> tables, for the parts in theory.json.

  Raises:
    ValueError: a value has another type than the tables and figures show.
  """
  shapes.check(results, THEORY, 'theory.json')
  makers: dict[str, Callable[[Mapping], Iterator[Table[str]]]] = {
    'mixture': _mixture,
    'fire_engine': _fire_engine,
    'bandit': _bandit,
    'teaching': _teaching,
    'imitation': _imitation,
    'beta': _beta,
    'boxes': _boxes,
  }
  return {
    part: list(make(results))
    for part, make in makers.items()
    if results.get(part)
  }


def _mixture(results: Mapping) -> Iterator[Table[str]]:
  mixture = results['mixture']
  yield Table(
    'The weight of p_B',
    ('accounting', 'at first', 'the agent writes A', 'the world writes B'),
    [
      (name, f'{mixture["prior"]:.4f}', *(f'{w:.6f}' for w in mixture[name]))
      for name in ('interventional', 'naive')
    ],
  )


def _fire_engine(results: Mapping) -> Iterator[Table[str]]:
  example = results['fire_engine']
  yield Table(
    'The model: fire -> engine',
    ('', 'probability'),
    [
      (label, f'{example[name]:.3g}')
      for label, name in (
        ('P(fire)', 'p_fire'),
        ('P(engine | fire)', 'p_engine_if_fire'),
        ('P(engine | no fire)', 'p_engine_if_no_fire'),
      )
    ],
  )
  # Seeing an engine is evidence of a fire, and sending one is not.
  yield Table(
    'The chance of a fire',
    ('the engine was', 'before', 'with the engine there', 'which is'),
    [
      (how, f'{example["p_fire"]:.3f}', f'{example[how]:.3f}', name)
      for how, name in (
        ('seen', 'P(fire | engine)'),
        ('sent', 'P(fire | do(engine))'),
      )
    ],
  )


def _bandit(results: Mapping) -> Iterator[Table[str]]:
  bandit = results['bandit']
  # P(best arm) over steps, and sums of KL, for both actors and accountings.
  rows, steps = [], []
  for side, label in ('own', 'own rollout'), ('expert', "expert's trajectory"):
    for name in ('interventional', 'conditional'):
      cell = bandit[side][name]
      last = len(cell['p_best']) - 1
      # A few early steps, and the last one.
      steps = sorted({t for t in (0, 5, 10, 20, 50) if t < last} | {last})
      rows.append(
        (
          f'{label}, {name}',
          *(f'{cell["p_best"][t]:.3f}' for t in steps),
          _sampled(cell, 'sum_kl', '.3f'),
          _sampled(cell, 'sum_reward_kl', '.3f'),
          _sampled(cell, 'sure_and_wrong', '.1%'),
        )
      )
  # The largest standard error, for the title.
  largest = max(
    max(bandit[side][name]['p_best_error'])
    for side in ('own', 'expert')
    for name in bandit[side]
  )
  # A title has one error for all probabilities, so that cells stay short.
  yield Table(
    f'Five-armed bandit: P(best arm) at t, ± {2 * largest:.4f} at most, and KL '
    'from expert to learner',
    (
      'who acts, accounting',
      *(f't={t}' for t in steps),
      'sum KL, nats',
      'of rewards',
      'sure and wrong',
    ),
    rows,
  )
  # By the chain rule, the information about the best arm in actions and rewards
  # and the remaining entropy sum to ln 5, the entropy of the prior.
  expert = bandit['expert']['conditional']
  total = expert['sum_kl'] + expert['sum_reward_kl'] + expert['entropy']
  yield Table(
    "ln 5 = 1.6094: conditional accounting, expert's trajectories",
    ('actions', 'rewards', 'still unknown', 'sum'),
    [
      (
        f'{expert["sum_kl"]:.4f}',
        f'{expert["sum_reward_kl"]:.4f}',
        f'{expert["entropy"]:.4f}',
        f'{total:.4f} ± {2 * expert["total_error"]:.4f}',
      )
    ],
  )
  # Shows if the sum still grows in long episodes.
  yield Table(
    'Long own rollouts: KL from expert to learner, nats',
    ('accounting', 'steps', 'sum KL'),
    [
      (name, str(cell['steps']), _sampled(cell, 'sum_kl', '.2f'))
      for name, cell in bandit['long'].items()
    ],
  )
  # h is the probability that the best arm pays.
  yield Table(
    f'Sure and wrong over h; boundary {bandit["boundary"]:.4f}',
    ('h', *bandit['phase']),
    [
      ('share', *(f'{share:.3f}' for share in bandit['phase'].values())),
      ('±', *(f'{2 * error:.3f}' for error in bandit['phase_error'].values())),
    ],
  )


def _imitation(results: Mapping) -> Iterator[Table[str]]:
  # Exact sums with their bounds, and sampled sums that check them.
  yield Table(
    'Cost of imitation over rho: sums of KL, nats',
    (
      'rho',
      "world's slots",
      'bound',
      "agent's slots",
      'sampled',
      'bound',
      "agent's blocks, taught",
      'bound',
    ),
    [
      (
        rho,
        f'{cell["world_kl"]:.3f}',
        f'{cell["world_bound"]:.3f}',
        f'{cell["agent_kl"]:.3f}',
        _sampled(cell['agent_kl_sampled'], 'mean', '.3f', 'error'),
        f'{cell["bound"]:.3f}',
        _sampled(cell['taught'], 'mean', '.3f', 'error'),
        f'{cell["taught_bound"]:.3f}',
      )
      for rho, cell in results['imitation'].items()
    ],
  )
  # Above a threshold of rho, the agent's own symbols sustain the wrong belief.
  yield Table(
    'Observational accounting: the share that is locked into p_A',
    ('agent', 'lasts from rho', *results['imitation']),
    [
      (
        agent,
        f'{results["lock_in"][agent]:.3f}',
        *(
          f'{cell[f"locked_{agent}"]:.3f}'
          for cell in results['imitation'].values()
        ),
      )
      for agent in ('sampling', 'greedy')
    ],
  )
  # The same block, written by the agent or by a third party.
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


def _beta(results: Mapping) -> Iterator[Table[str]]:
  beta = results['beta']
  steps = len(beta['interventional']['regret'])
  # Selected steps, as far as the run has them.
  shown = [t for t in (10, 20, 50, 100) if t <= steps]
  yield Table(
    f'Beta bandit: regret; P(first arm is best | it paid) = '
    f'{beta["p_first_is_best"]:.4f}',
    ('accounting', *(f't={t}' for t in shown), 'P(best) at the end'),
    [
      (
        name,
        *(f'{beta[name]["regret"][t - 1]:.2f}' for t in shown),
        f'{beta[name]["p_best"][-1]:.3f}',
      )
      for name in ('interventional', 'conditional')
    ],
  )


def _boxes(results: Mapping) -> Iterator[Table[str]]:
  yield Table(
    'Two boxes: P(prize), and its prediction learned with masked actions',
    ('q', 'given a', 'given do(a)', "from the expert's data", 'blind data'),
    [
      (q, *(f'{value:.4f}' for value in cell.values()))
      for q, cell in results['boxes'].items()
    ],
  )


def _teaching(results: Mapping) -> Iterator[Table[str]]:
  def interval(value: Mapping[str, float]) -> str:
    return f'{value["mean"]:.4f} ({value["lo"]:.4f}, {value["hi"]:.4f})'

  yield Table(
    'Teaching a decoder: KL in nats per step and reward, along own rollouts, '
    'with (lowest, highest) of seeds ± two standard errors',
    (
      'loss, who acts',
      'seeds x steps',
      'KL to interventional',
      'KL to conditional',
      'reward per step',
    ),
    [
      (
        f'{cell["loss"]}, {cell["behaviour"]}',
        f'{cell["seeds"]} x {cell["steps"]}',
        interval(cell['kl_to_interventional']),
        interval(cell['kl_to_conditional']),
        interval(cell['reward']),
      )
      for cell in results['teaching']
    ],
  )


def _sampled(
  cell: Mapping[str, float], name: str, form: str, error: str = ''
) -> str:
  """Returns a value of a cell with two standard errors, as in '0.12 ± 0.01'."""
  deviation = cell[error or f'{name}_error']
  return f'{cell[name]:{form}} ± {2 * deviation:{form}}'
