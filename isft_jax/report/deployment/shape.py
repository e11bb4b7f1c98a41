"""Shape of results.json of a deployment; see `report.shapes`."""

from isft_jax.report.lying_agent.shape import BASE, ENVIRONMENT

_END = (float, None)  # None for a single seed
_MEAN = {'mean': float, 'lo': _END, 'hi': _END}
_SUMMARY = {**_MEAN, 'per_seed': [float]}
_SHARE = {
  **_SUMMARY,
  'right': int,
  'number': int,
  'wilson': ({'lo': float, 'hi': float}, None),
}
_DIFFERENCE = {**_SUMMARY, 'positive': int}
_ARM = {
  **dict.fromkeys(('first', 'asked_again', 'second'), _SHARE),
  **dict.fromkeys(('again', 'after_sft'), _SHARE),
  **dict.fromkeys(
    ('repaired_second', 'repaired_again', 'repaired_after_sft'), _SHARE
  ),
  **dict.fromkeys(('unreadable', 'turns', 'corrections'), int),
  'wrong_corrections': int,
  **dict.fromkeys(('steps', 'scored_tokens'), float),
  'second_minus_again': _DIFFERENCE,
  'against': {...: {...: _DIFFERENCE}},
}
_BY_INCREMENT = [(_MEAN, None)]
_CONTINUAL = {
  'all': [_MEAN],
  'final': _SUMMARY,
  'forgetting': (_SUMMARY, None),
  **dict.fromkeys(('old?', 'new?', 'unseen?'), _BY_INCREMENT),
  'against': {...: {...: _DIFFERENCE}},
}
_STAGE = {'batch_size': int, 'optim': {'learning_rate': float}}
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
      **dict.fromkeys(('reward_first?', 'reward_last?'), float),
    }
  ],
}
RUN = {
  'experiment': str,
  'seed?': int,
  'seeds': [int],
  'config': {
    'world': str,
    **dict.fromkeys(('turns', 'tests', 'samples'), int),
    'evaluate_on': str,
    'lora': {'rank': int},
    'reinforce': _STAGE,
    'continual': {'turns': int, 'steps': int},
    'model?': {'init_from?': str},
  },
  'environment?': ENVIRONMENT,
  'base?': BASE,
  'arms?': {...: _ARM},
  'continual?': {...: _CONTINUAL},
  'runs': {...: [_RUN]},
}
