"""Arms: the lying agent's dialogues, and every way of weighting them.

    told facts -> dialogues --+--> arm (objective) -> probes of both halves
                              '--> the agent's true turns as demonstrations

Beside the objectives by name:

  observational_matched  L_obs divided by the number of the world's tokens
  demonstration          L_do, where a third party wrote the agent's true turns
"""

import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from isft_jax import objectives
from isft_jax.data.batching.packing import targets_of_records
from isft_jax.data.records.dataset import Index
from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.evidence import bases
from isft_jax.experiments.evidence.bases import Base
from isft_jax.types import Provenance, PyTree, Trajectory, Verdict
from isft_jax.worlds.lying_agent import generator, probes, roles
from isft_jax.worlds.lying_agent.judge import judge
from isft_jax.worlds.lying_agent.one_line import one_line_replies

MATCHED, DEMONSTRATION = 'observational_matched', 'demonstration'
HALVES = ('told', 'heldout')


def objective_of(arm: str) -> str:
  """Returns the objective of an arm. Raises ValueError for an unknown one."""
  objective = {MATCHED: 'observational', DEMONSTRATION: 'interventional'}
  objectives.weight_table(objective.get(arm, arm))
  return objective.get(arm, arm)


def demonstrated(trajectory: Trajectory) -> Trajectory:
  """Returns a trajectory whose right turns of the agent a third party wrote."""
  segments = (
    dataclasses.replace(segment, provenance=Provenance.DEMONSTRATION)
    if (segment.provenance, segment.verdict)
    == (Provenance.AGENT, Verdict.RIGHT)
    else segment
    for segment in trajectory.segments
  )
  return dataclasses.replace(trajectory, segments=tuple(segments))


def dialogues(
  config: EvidenceConfig, base: Base
) -> tuple[list[Trajectory], list[Trajectory]]:
  """Returns the dialogues to train on, and others of the same kind."""
  settings = config.dialogues
  made = generator.dialogues(
    settings.number + settings.heldout,
    settings.p_lie,
    settings.p_chitchat,
    base.seed,
    base.told,
    acknowledge=settings.acknowledge,
  )
  return list(itertools.islice(made, settings.number)), list(made)


def run(
  config: EvidenceConfig, base: Base, folder: pathlib.Path, arm: str
) -> dict[str, Any]:
  """Trains an arm from the base of a seed (none for 'base'), and probes it."""
  told, others = dialogues(config, base)
  params, trained = base.params, None
  if arm != 'base':
    if arm == DEMONSTRATION:
      told = [demonstrated(dialogue) for dialogue in told]
    found = base.write(folder, map(base.renderer.example, told))
    settings = bases.run_of(
      config, config.finetune, arm, objective_of(arm), folder, base.seed
    )
    if arm == MATCHED:
      settings.optim = bases.matched(
        settings.optim, ratio_of_targets(found.index)
      )
    params, trained = bases.fit(settings, found, params)
  return {
    **facts_probed(config, base, params),
    'costs': roles.measure(
      base.graphdef,
      params,
      [base.renderer.example(dialogue) for dialogue in others],
      base.renderer,
      config.reply_tokens,
      base.seed,
    ),
    'train': trained,
  }


def ratio_of_targets(index: Index) -> float:
  """Returns how many tokens L_obs scores for each that L_do scores."""
  observational, interventional = (
    targets_of_records(index, objectives.weight_table(name)).sum()
    for name in ('observational', 'interventional')
  )
  return float(observational / interventional)


def facts_probed(
  config: EvidenceConfig, base: Base, params: PyTree
) -> dict[str, dict[str, Any]]:
  """Returns what the probes say of either half of the facts, as shares.

  margins: of each fact; prefers_lie: below 0; says_truth: greedy answers to the
  question; truth_after_truth, truth_after_lie: greedy replies to the user.
  """
  renderer, model = base.renderer, (base.graphdef, params)
  found = probes.probe_prepared(
    *model, base.probes, renderer, config.reply_tokens
  )
  questions = [claim.prompt_T for claim in base.probes.claims[::2]]
  answers = one_line_replies(
    *model, questions, config.reply_tokens, renderer.tokenizer
  )
  rows = [
    row | {'answer_verdict': judge(answer.text, fact)}
    for row, answer, fact in zip(
      found['facts'], answers, base.facts, strict=True
    )
  ]
  split = len(base.told)
  return {
    half: _shares(part)
    for half, part in zip(HALVES, (rows[:split], rows[split:]), strict=True)
  }


def _shares(rows: list[dict[str, Any]]) -> dict[str, Any]:
  margins = [row['margin'] for row in rows]

  def share_of_truth(kind: str) -> float:
    return float(np.mean([row[f'{kind}_verdict'] == 'truth' for row in rows]))

  return {
    'mean_margin': float(np.mean(margins)),
    'prefers_lie': float(np.mean(np.array(margins) < 0)),
    'says_truth': share_of_truth('answer'),
    'truth_after_truth': share_of_truth('truth'),
    'truth_after_lie': share_of_truth('lie'),
    'margins': [round(margin, 5) for margin in margins],
  }
