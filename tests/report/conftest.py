"""Results of a run on a given base model, with every figure that there is."""

import pytest

CLAIMS = {
  'gold': ('Its symbol is Au.', 'Its symbol is Go.'),
  'Japan': ('It uses the yen.', 'It uses the won.'),
}


def _fact(topic, margins, replies, contradicts, talks_like_user):
  claims = dict(zip(('truth', 'lie'), CLAIMS[topic], strict=True))
  margin, paper_margin = margins
  fact = {
    'topic': topic,
    'true_claim': claims['truth'],
    'false_claim': claims['lie'],
    'margin': margin,
    'paper_margin': paper_margin,
    'contradicts': contradicts,
  }
  for probe, reply in zip(('truth', 'lie'), replies, strict=True):
    fact[f'{probe}_reply'] = claims.get(reply, 'Hm.')
    fact[f'{probe}_verdict'] = reply
    fact[f'{probe}_talks_like_user'] = probe in talks_like_user
  return fact


def _arm(facts, unmentioned, nll, trained=True):
  arm = {
    'mean_margin': sum(fact['margin'] for fact in facts) / len(facts),
    'prefers_lie': sum(fact['margin'] < 0 for fact in facts),
    'paper_mean_margin': sum(f['paper_margin'] for f in facts) / len(facts),
    'paper_prefers_lie': sum(fact['paper_margin'] < 0 for fact in facts),
    'contradicts': sum(fact['contradicts'] for fact in facts),
    'talks_like_user': sum(
      fact['truth_talks_like_user'] + fact['lie_talks_like_user']
      for fact in facts
    ),
    'facts': facts,
    'unmentioned': {
      'facts': 120,
      'mean_margin': unmentioned[0],
      'prefers_lie': unmentioned[1],
    },
    'elsewhere': {'text': 'glosses', 'tokens': 2000, 'nll': nll},
  }
  for probe in ('truth', 'lie'):
    verdicts = [fact[f'{probe}_verdict'] for fact in facts]
    arm[f'{probe}_probe'] = {
      verdict: verdicts.count(verdict) for verdict in ('truth', 'lie', 'other')
    }
  if trained:
    arm['train'] = {'steps': 4, 'scored_tokens': 900}
  return arm


@pytest.fixture
def given_results():
  """A base of 134.5 M parameters, two arms, two facts."""
  #        fact     margin, paper's   replies to     contra-   like the user
  #                                   truth, lie     dicts     in
  base = (
    _fact('gold', (0.5, 0.25), ('truth', 'other'), False, ()),
    _fact('Japan', (0.25, -0.5), ('other', 'lie'), False, ('lie',)),
  )
  obs = (
    _fact('gold', (-0.5, -0.25), ('lie', 'lie'), True, ('truth', 'lie')),
    _fact('Japan', (0.25, 0.5), ('truth', 'truth'), True, ('truth',)),
  )
  do = (
    _fact('gold', (1.0, 1.5), ('truth', 'truth'), False, ()),
    _fact('Japan', (0.5, 0.25), ('truth', 'truth'), True, ('truth',)),
  )
  return {
    'config': {
      'model': {'init_from': 'smollm2', 'layers': 30},
      'documents': {'number': 20_000, 'p_true': 0.85},
      'pretrain': {'steps': 180, 'optim': {'learning_rate': 5e-3}},
      'finetune': {'epochs': 1},
    },
    'seed': 0,
    'base': {
      'kind': 'given',
      'name': 'SmolLM2-135M-Instruct',
      'parameters': 134_515_008,
    },
    'environment': {'parameters': 134_515_008},
    'arms': {
      'base': _arm(base, (0.75, 10), 3.5, trained=False),
      'observational': _arm(obs, (0.5, 20), 3.75),
      'interventional': _arm(do, (0.625, 12), 3.625),
    },
  }
