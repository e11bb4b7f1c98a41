"""The loop is closed: what is served is learned, and then served."""

import asyncio
import json
import time

import numpy as np

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.records.dataset import Records
from isft_jax.following import follow
from isft_jax.following.settings import Settings
from isft_jax.inference.generate import generate
from isft_jax.serving.conversations import Conversations
from isft_jax.serving.prompts import PromptEncoder
from isft_jax.serving.request import ChatRequest
from isft_jax.serving.service import ChatService
from isft_jax.serving.transcripts import Transcripts
from isft_jax.train import saved
from isft_jax.types import Provenance
from tests.serving.servers import serving

USER = {'role': 'user', 'content': 'Tell me about gold.'}

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


def learn(model_folder, folder):
  """Learns from folder/log in folder/run until it is idle."""
  config = RunConfig(
    tokenizer=str(model_folder),
    seq_len=128,
    targets_per_row=128,
    batch_size=8,
    epochs=1,
    model=ModelConfig(init_from=str(model_folder), vocab_size=0),
    optim=OptimConfig(learning_rate=1.0),
  )
  settings = Settings(str(folder / 'log'), seconds=0.01, until_idle=True)
  return follow.follow(config, folder / 'run', settings)


def test_what_is_served_is_learned_id_for_id(
  served_folder, served_model, tmp_path
):
  ids, authors = serve(served_model, tmp_path / 'log')
  events = learn(served_folder, tmp_path)
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


def test_what_is_learned_is_served(served_folder, tmp_path):
  (tmp_path / 'log').mkdir()
  learn(served_folder, tmp_path)  # nothing yet
  run = tmp_path / 'run'
  with serving(
    f'--checkpoint={run}',
    f'--transcripts={tmp_path}/log',
    '--idle_seconds=0.05',
  ) as server:

    def answer():
      reply = server.chat(USER, max_tokens=6, temperature=0)
      return reply.choices[0].message.content

    first = answer()
    while not list((tmp_path / 'log').glob('*.jsonl')):
      time.sleep(0.05)
    events = learn(served_folder, tmp_path)
    assert events[-1]['event'] == 'accepted'
    second = answer()
    done = server.end()
  assert done.returncode == 0, done.stderr
  assert done.stderr.count('from now on') == 1
  assert f'replies come from {run}/increments/0001 from now on' in done.stderr
  # The second reply is that of the accepted parameters, as a new process reads
  # them.
  accepted = saved.chat_model_from_run(str(run))
  (ids_T,) = generate(
    *accepted.model, [accepted.prompt([USER]).ids_T], 6, stop_ids=()
  )
  assert second == accepted.decode_reply(accepted.prompt([USER]), ids_T)
  assert second != first
  # Each reply says which parameters it comes from.
  rows = [json.loads(p.read_text()) for p in (tmp_path / 'log').glob('*.jsonl')]
  places = [row['transcript']['messages'][-1]['parameters'] for row in rows]
  newest = accepted.place
  assert newest.startswith(f'{run}/increments/0001/checkpoints/step_')
  start = f'{run}/increments/0000/checkpoints/step_0'
  assert sorted(places) == [start, newest]
