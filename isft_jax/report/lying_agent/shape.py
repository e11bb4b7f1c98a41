"""Shape of results.json of the lying agent; see `report.shapes`.

Older files lack the keys with '?'.
"""

_COUNTS = {'truth': int, 'lie': int, 'other': int}
_FACT = {
  'topic': str,
  **dict.fromkeys(('true_claim?', 'false_claim?'), str),
  **dict.fromkeys(('margin?', 'paper_margin?'), (float, None)),
  **dict.fromkeys(('truth_reply?', 'lie_reply?'), str),
  **dict.fromkeys(('truth_verdict?', 'lie_verdict?'), str),
  **dict.fromkeys(
    ('contradicts?', 'truth_talks_like_user?', 'lie_talks_like_user?'),
    (bool, None),
  ),
}
_ARM = {
  'facts': [_FACT],
  **dict.fromkeys(('mean_margin?', 'paper_mean_margin?'), (float, None)),
  **dict.fromkeys(('prefers_lie?', 'paper_prefers_lie?'), (int, None)),
  **dict.fromkeys(('contradicts?', 'talks_like_user?'), (int, None)),
  **dict.fromkeys(('truth_probe?', 'lie_probe?'), _COUNTS),
  'unmentioned?': {'facts': int, 'mean_margin': float, 'prefers_lie': int},
  'elsewhere?': {'text': str, 'tokens': int, 'nll': float},
  'costs?': {
    **dict.fromkeys(('ended', 'user_like', 'good_nll', 'entropy'), float),
    'nll': {...: float},
    'kl': {...: float},
  },
  'train?': dict.fromkeys(
    ('steps?', 'scored_tokens?', 'seconds?', 'final_loss?'), (float, None)
  ),
}
BASE = {'kind': str, 'name': str, 'parameters': (int, None)}
ENVIRONMENT = {'parameters?': (int, None)}
RUN = {
  'seed?': int,
  'config?': {'model?': {'init_from?': str}},
  'environment?': ENVIRONMENT,
  'base?': BASE,
  'arms': {...: _ARM},
}
