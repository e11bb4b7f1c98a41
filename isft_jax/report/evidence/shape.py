"""Shape of results.json of the evidence; see `report.shapes`."""

from isft_jax.report.lying_agent.shape import BASE, ENVIRONMENT

_END = (float, None)  # None for a single seed
_MEAN = {'mean': float, 'lo': _END, 'hi': _END}
_INTERVAL = {**_MEAN, 'per_seed?': [float]}
_DIFFERENCE = {**_MEAN, 'per_seed': [float], 'positive': int}
_AGAINST = {
  'mean_margin': _DIFFERENCE,
  'says_truth': _DIFFERENCE,
  'facts_higher': [int],
  'facts': int,
}
_HALF = {
  **dict.fromkeys(('mean_margin', 'prefers_lie', 'says_truth'), _INTERVAL),
  **dict.fromkeys(('truth_after_truth', 'truth_after_lie'), _INTERVAL),
  **dict.fromkeys(('against_base?', 'against_observational?'), _AGAINST),
}
_WHEEL = {
  'accuracy': [_INTERVAL],
  'heldout': {'accuracy': [_INTERVAL], 'per_seed?': [[float]]},
  'user_like?': [_INTERVAL],
  'ended?': [_INTERVAL],
  'margin?': _INTERVAL,
  'unread?': int,
  'per_seed': [[float]],
  'against_observational?': [_DIFFERENCE],
}
_WORLD = {
  'style': str,
  'p_user_wrong': float,
  'p_lie': float,
  'difference?': {**_INTERVAL, 'positive?': int},
  'arms?': {...: {'mean_margin': _INTERVAL, 'prefers_lie?': _INTERVAL}},
}
_COSTS = {
  'nll': {...: _INTERVAL},
  'kl?': {...: _INTERVAL},
  **dict.fromkeys(('ended', 'user_like', 'good_nll'), _INTERVAL),
  **dict.fromkeys(('contradicts?', 'entropy?', 'elsewhere?'), _INTERVAL),
}
_RUN = {
  'name': str,
  'seed': int,
  'seconds': float,
  'train': [
    {
      'objective': str,
      'steps': int,
      'learning_rate': float,
      **dict.fromkeys(('seed?', 'scored_tokens?', 'clip_norm?'), float),
      **dict.fromkeys(('eps?', 'final_loss?', 'seconds?'), (float, None)),
    }
  ],
}
_PART = {'stage': {'steps': int, 'optim': {'learning_rate': float}}}
RUN = {
  'experiment': str,
  'seed?': int,
  'seeds': [int],
  'config': {
    'facts': int,
    'flywheel': _PART,
    'worlds': _PART,
    'model?': {'init_from?': str},
  },
  'environment?': ENVIRONMENT,
  'base?': BASE,
  'flywheel?': {...: _WHEEL},
  'arms?': {...: {'told': _HALF}},
  'heldout?': {...: {'told': _HALF, 'heldout': _HALF}},
  'worlds?': [_WORLD],
  'costs?': {...: _COSTS},
  'runs': {...: [_RUN]},
}
