"""Shape of theory.json; see `report.shapes`. Parts that were not run lack."""

_CURVE = {
  'p_best': [float],
  'p_best_error': [float],
  **dict.fromkeys(('sum_kl', 'sum_kl_error'), float),
  **dict.fromkeys(('sum_reward_kl', 'sum_reward_kl_error'), float),
  **dict.fromkeys(('sure_and_wrong', 'sure_and_wrong_error'), float),
  **dict.fromkeys(('entropy', 'total_error'), float),
}
_SIDE = {'interventional': _CURVE, 'conditional': _CURVE}
_BANDIT = {
  'own': _SIDE,
  'expert': _SIDE,
  'long': {...: {'steps': int, 'sum_kl': float, 'sum_kl_error': float}},
  'phase': {...: float},
  'phase_error': {...: float},
  'boundary': float,
  'predictive?': {...: [[float]]},
}
_SPREAD = {'mean': float, 'lo': float, 'hi': float}
_LESSON = {
  **dict.fromkeys(('behaviour', 'loss'), str),
  **dict.fromkeys(('seeds', 'steps'), int),
  **dict.fromkeys(('kl_to_conditional', 'kl_to_interventional'), _SPREAD),
  'reward': _SPREAD,
  'p_best': [float],
}
_SAMPLED = {'mean': float, 'error': float}
_COST = {
  **dict.fromkeys(('agent_kl', 'world_kl', 'bound', 'world_bound'), float),
  **dict.fromkeys(('taught_bound', 'locked_sampling', 'locked_greedy'), float),
  **dict.fromkeys(('agent_kl_sampled', 'taught'), _SAMPLED),
  **dict.fromkeys(('world_kl_sampled?', 'untaught?'), _SAMPLED),
}
_REGRET = {'regret': [float], 'p_best': [float]}
THEORY = {
  'seed?': int,
  'seconds?': {...: float},
  'settings?': {},
  'environment?': {},
  'mixture?': {
    **dict.fromkeys(('prior', 'predicts_b?'), float),
    'interventional': [float],
    'naive': [float],
  },
  'fire_engine?': dict.fromkeys(
    ('p_fire', 'p_engine_if_fire', 'p_engine_if_no_fire', 'seen', 'sent'), float
  ),
  'bandit?': _BANDIT,
  'teaching?': [_LESSON],
  'imitation?': {...: _COST},
  'lock_in?': {'sampling': float, 'greedy': float},
  'blocks?': {'agent': [float], 'third_party': [float], 'blocks?': [[int]]},
  'beta?': {
    'p_first_is_best': float,
    'interventional': _REGRET,
    'conditional': _REGRET,
  },
  'boxes?': {
    ...: dict.fromkeys(
      ('conditional', 'interventional', 'masked_on_expert', 'masked_on_blind'),
      float,
    )
  },
}
