"""The loop is closed: what a server logs is learned, id for id."""

import asyncio

import numpy as np

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.records.dataset import Records
from isft_jax.following import follow
from isft_jax.following.settings import Settings
from isft_jax.serving.conversations import Conversations
from isft_jax.serving.prompts import PromptEncoder
from isft_jax.serving.request import ChatRequest
from isft_jax.serving.service import ChatService
from isft_jax.serving.transcripts import Transcripts
from isft_jax.types import Provenance

DEFAULTS = {
  'temperature': 1.0,
  'top_k': 0,
  'top_p': 1.0,
  'max_new_tokens': 6,
}


def serve(model, folder):
  """Two turns of a conversation; returns its ids and authors."""
  transcripts = Transcripts(folder)
  with transcripts.locked():
    encoder = PromptEncoder(model)
    conversations = Conversations(
      transcripts, {'tokenizer': encoder.fingerprint}, 60
    )
    service = ChatService(model, encoder, conversations, DEFAULTS, [], 0, 256)
    messages = []
    for question in ('Tell me about gold.', 'No. Its symbol is Au.'):
      messages.append({'role': 'user', 'content': question})
      job = service.prepare(ChatRequest(list(messages)))
      (completion,) = asyncio.run(service.run(job))
      messages.append({'role': 'assistant', 'content': completion.text})
    service.close()
  ids = [*job.tokens.ids, *completion.ids]
  authors = [*job.tokens.authors]
  return ids, authors + [Provenance.AGENT] * len(completion.ids)


def test_what_is_served_is_learned_id_for_id(
  served_folder, served_model, tmp_path
):
  ids, authors = serve(served_model, tmp_path / 'log')
  config = RunConfig(
    tokenizer=str(served_folder),
    seq_len=128,
    targets_per_row=128,
    batch_size=8,
    epochs=1,
    model=ModelConfig(init_from=str(served_folder), vocab_size=0),
    optim=OptimConfig(learning_rate=1e-2),
  )
  events = follow.follow(
    config,
    tmp_path / 'run',
    Settings(str(tmp_path / 'log'), seconds=0.01, until_idle=True),
  )
  assert [event['event'] for event in events] == [
    *('begun', 'measured', 'found', 'scored', 'trained', 'measured'),
    'accepted',
  ]
  (record,) = Records(str(tmp_path / 'run' / 'records' / '0001'))
  assert record.tokens_T.tolist() == ids
  assert record.provenance_T.tolist() == authors
  # All of the user's and the template's tokens are learned, and no other.
  trained = next(e for e in events if e['event'] == 'trained')
  is_scored = ~np.isin(authors, (Provenance.AGENT, Provenance.CONTEXT))
  assert trained['scored_tokens'] == is_scored[1:].sum()
