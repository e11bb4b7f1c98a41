"""Beliefs over a finite set of hypotheses, when some slots are one's own.

  w_t(h)  prop. to  w_0(h) prod over i <= t with gate_i = 0 of p_h(z_i | z_<i)

What the agent wrote (gate 1) is an intervention: it says nothing about the
world and leaves the belief as it was. What the world wrote (gate 0) is evidence
(de Freitas and Ortega, 2026, section 5). An all-zero gate is the naive
accounting, in which an agent takes its own words for evidence.

Letters of this file: T slots, H hypotheses, S symbols.
"""

import numpy as np

# A prior typed in decimals misses one by rounding, never by this much.
_SUM_TOLERANCE = 1e-9


def posterior(
  prior_H: np.ndarray, likelihood_TH: np.ndarray, gate_T: np.ndarray
) -> np.ndarray:
  """Returns float64 weights_TH: the belief after each slot.

  prior_H: the belief before the first slot, sums to one.
  likelihood_TH: p_h(z_t | z_<t), what each hypothesis gave to the symbol that
    was written, whoever wrote it.
  gate_T: 1 where the agent wrote the slot, 0 where the world did.

  Raises ValueError for shapes that do not fit, a prior that is no distribution,
  a likelihood that is negative or not finite, a gate other than 0 and 1, and
  for evidence that every hypothesis in the prior rules out.

  Source: de Freitas and Ortega (2026), section 5; logarithms are ours, so that
  long histories do not underflow.
  """
  prior_H = _checked_prior(prior_H)
  likelihood_TH = np.asarray(likelihood_TH, np.float64)
  gate_T = np.asarray(gate_T)
  if likelihood_TH.ndim != 2 or likelihood_TH.shape[1] != prior_H.size:
    raise ValueError(
      f'likelihood_TH has shape {likelihood_TH.shape}; the prior is over '
      f'{prior_H.size} hypotheses'
    )
  if gate_T.shape != likelihood_TH.shape[:1]:
    raise ValueError(
      f'gate_T has shape {gate_T.shape} for {len(likelihood_TH)} slots'
    )
  if not np.isin(gate_T, (0, 1)).all():
    raise ValueError('gate_T holds something else than 0 and 1')
  if not (np.isfinite(likelihood_TH) & (likelihood_TH >= 0)).all():
    raise ValueError('likelihood_TH is negative or not finite somewhere')

  # A product with the gate would give 0 * -inf = nan for an agent that wrote
  # what some hypothesis excludes.
  evidence_TH = np.where(gate_T[:, None] == 1, 1.0, likelihood_TH)
  with np.errstate(divide='ignore'):
    log_TH = np.log(prior_H) + np.cumsum(np.log(evidence_TH), axis=0)
  top_T1 = log_TH.max(axis=1, keepdims=True)
  if np.isneginf(top_T1).any():
    slot = int(np.argmax(np.isneginf(top_T1)))
    raise ValueError(f'slot {slot}: no hypothesis allows what the world wrote')
  weights_TH = np.exp(log_TH - top_T1)
  return weights_TH / weights_TH.sum(axis=1, keepdims=True)


def predictive(prior_H: np.ndarray, p_HS: np.ndarray) -> np.ndarray:
  """Returns float64 p_S: what the mixture expects next, sum_h w(h) p_h(s).

  prior_H: the belief now, sums to one; a row of `posterior` serves.
  p_HS: each hypothesis's probability of each symbol.

  Raises ValueError for shapes that do not fit or a prior that is no
  distribution. Source: de Freitas and Ortega (2026), section 5.
  """
  prior_H = _checked_prior(prior_H)
  p_HS = np.asarray(p_HS, np.float64)
  if p_HS.ndim != 2 or p_HS.shape[0] != prior_H.size:
    raise ValueError(
      f'p_HS has shape {p_HS.shape}; the prior is over {prior_H.size} '
      'hypotheses'
    )
  return prior_H @ p_HS


def _checked_prior(prior_H: np.ndarray) -> np.ndarray:
  prior_H = np.asarray(prior_H, np.float64)
  if prior_H.ndim != 1 or not prior_H.size:
    raise ValueError(f'prior_H has shape {prior_H.shape}; one axis is needed')
  # Written so that nan fails too.
  if not ((prior_H >= 0).all() and abs(prior_H.sum() - 1) <= _SUM_TOLERANCE):
    raise ValueError(
      f'prior_H sums to {prior_H.sum()} with smallest entry {prior_H.min()}; '
      'a prior is non-negative and sums to 1'
    )
  return prior_H
