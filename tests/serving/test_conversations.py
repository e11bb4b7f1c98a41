"""Conversations: continued exactly, published once, learned once."""

import json

import numpy as np
import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.serving import conversations as conversations_lib
from isft_jax.serving.conversations import Conversations
from isft_jax.serving.prompts import Tokens
from isft_jax.serving.sampler import Completion
from isft_jax.serving.transcripts import Transcripts
from isft_jax.types import Provenance

ABOUT = {'model': 'm', 'tokenizer': 'abc'}
IDLE = 60
LETTERS = {'t': 'TEMPLATE', 'c': 'CONTEXT', 'u': 'USER', 'a': 'AGENT'}


def user(text):
  return {'role': 'user', 'content': text}


def assistant(text):
  return {'role': 'assistant', 'content': text}


class Server:
  """A server without a model: a token is a character.

  Each user's turn is its text and '>', and each reply ends with '.'.
  """

  def __init__(self, folder):
    self.folder, self.now = folder, 0.0
    self.conversations = Conversations(
      Transcripts(folder) if folder else None, ABOUT, IDLE, lambda: self.now
    )

  def prepare(self, messages):
    match = self.conversations.match(messages)
    tokens = match.known.tokens if match else Tokens([], [], [])
    for turn, message in enumerate(messages):
      if match and turn < match.known.messages:
        continue
      who = Provenance.USER if message['role'] == 'user' else Provenance.CONTEXT
      text = message['content']
      n = len(text)
      ids = [*map(ord, text), ord('>')]
      authors = [who] * n + [Provenance.TEMPLATE]
      tokens += Tokens(ids, authors, [turn] * (n + 1))
    return match, messages, tokens

  def finish(self, job, *replies):
    self.conversations.add(
      *job,
      [
        Completion(r, [*map(ord, r), ord('.')], '.', 'stop', 'run/step_1')
        for r in replies
      ],
    )

  def answer(self, messages, *replies):
    self.finish(self.prepare(messages), *replies)


def shown(path):
  """Returns the characters and authors of a transcript, as prepare reads it."""
  row = json.loads(path.read_text())
  parsed = registry.parse(row, row['id'], 'auto', Rules())
  assert not parsed.unused
  example = parsed.result
  text = ''.join(map(chr, example.tokens_T))
  names = {member.value: member.name for member in Provenance}
  letters = {name: letter for letter, name in LETTERS.items()}
  authors = ''.join(letters[names[p]] for p in example.provenance_T.tolist())
  assert (np.diff(example.segment_T) >= 0).all()
  return text, authors


def files_of(folder):
  return sorted(shown(path) for path in folder.glob('*.jsonl'))


@pytest.fixture
def server(tmp_path):
  transcripts = Transcripts(tmp_path)
  with transcripts.locked():
    yield Server(tmp_path)


def test_a_conversation_grows_in_one_file(server):
  server.answer([user('u1')], 'a1')
  # Clients may strip replies.
  server.answer([user('u1'), assistant(' a1\n'), user('u2')], 'a2')
  assert files_of(server.folder) == []
  assert files_of(server.folder / '.open') == [('u1>a1.u2>a2.', 'uutaaauutaaa')]
  server.conversations.publish_all()
  assert files_of(server.folder / '.open') == []
  (path,) = server.folder.glob('*.jsonl')
  assert shown(path) == ('u1>a1.u2>a2.', 'uutaaauutaaa')
  reply = {
    'role': 'assistant',
    'finish_reason': 'stop',
    'tail': '.',
    'parameters': 'run/step_1',
  }
  assert json.loads(path.read_text())['transcript'] == {
    **ABOUT,
    'continues': None,
    'messages': [
      user('u1'),
      reply | {'content': 'a1'},
      user('u2'),
      reply | {'content': 'a2'},
    ],
  }


def test_an_edited_history_is_a_new_conversation(server):
  server.answer([user('u1')], 'a1')
  server.answer([user('u1'), assistant('x'), user('u2')], 'a2')
  server.conversations.publish_all()
  assert files_of(server.folder) == [
    ('u1>a1.', 'uutaaa'),
    ('u1>x>u2>a2.', 'uutctuutaaa'),
  ]


def test_two_continuations_of_one_reply_share_its_tokens_as_context(server):
  server.answer([user('u1')], 'a1')
  history = [user('u1'), assistant('a1')]
  # Two clients at once.
  jobs = [server.prepare([*history, user(text)]) for text in ('u2', 'u3')]
  for job, reply in zip(jobs, ('a2', 'a3'), strict=True):
    server.finish(job, reply)
  # An earlier reply, too, although the conversation is longer by now.
  server.answer([*history, user('u4')], 'a4')
  server.conversations.publish_all()
  assert files_of(server.folder) == [
    ('u1>a1.u2>a2.', 'uutaaauutaaa'),
    ('u1>a1.u3>a3.', 'ccccccuutaaa'),
    ('u1>a1.u4>a4.', 'ccccccuutaaa'),
  ]


def test_choices_share_their_prompt_as_context(server):
  server.answer([user('u1')], 'a1', 'a2')
  server.answer([user('u1'), assistant('a2'), user('u2')], 'a3')
  server.conversations.publish_all()
  assert files_of(server.folder) == [
    ('u1>a1.', 'uutaaa'),
    ('u1>a2.u2>a3.', 'cccaaauutaaa'),
  ]


def test_equal_conversations_are_two(server):
  server.answer([user('u1')], 'a1')
  server.answer([user('u1')], 'a1')
  history = [user('u1'), assistant('a1')]
  server.answer([*history, user('u2')], 'a2')
  server.answer([*history, user('u3')], 'a3')
  server.conversations.publish_all()
  assert files_of(server.folder) == [
    ('u1>a1.u2>a2.', 'uutaaauutaaa'),
    ('u1>a1.u3>a3.', 'uutaaauutaaa'),
  ]


def test_what_is_published_is_never_changed_and_continues_as_context(server):
  server.answer([user('u1')], 'a1')
  server.now = IDLE - 1.0
  server.conversations.publish_idle()
  assert files_of(server.folder) == []
  server.now = IDLE
  server.conversations.publish_idle()
  (path,) = server.folder.glob('*.jsonl')
  before = path.read_bytes()
  server.answer([user('u1'), assistant('a1'), user('u2')], 'a2')
  server.conversations.publish_all()
  assert path.read_bytes() == before
  assert files_of(server.folder) == [
    ('u1>a1.', 'uutaaa'),
    ('u1>a1.u2>a2.', 'ccccccuutaaa'),
  ]
  (other,) = {*server.folder.glob('*.jsonl')} - {path}
  transcript = json.loads(other.read_text())['transcript']
  assert transcript['continues'] == path.stem


def test_a_request_keeps_its_conversation_open(server):
  server.answer([user('u1')], 'a1')
  server.now = IDLE - 1.0
  job = server.prepare([user('u1'), assistant('a1'), user('u2')])
  server.now = IDLE + 1.0
  server.conversations.publish_idle()
  server.finish(job, 'a2')
  server.conversations.publish_all()
  assert files_of(server.folder) == [('u1>a1.u2>a2.', 'uutaaauutaaa')]


def test_a_conversation_that_was_published_meanwhile_is_continued(server):
  server.answer([user('u1')], 'a1')
  job = server.prepare([user('u1'), assistant('a1'), user('u2')])
  server.now = IDLE
  server.conversations.publish_idle()
  server.finish(job, 'a2')
  server.conversations.publish_all()
  assert files_of(server.folder) == [
    ('u1>a1.', 'uutaaa'),
    ('u1>a1.u2>a2.', 'ccccccuutaaa'),
  ]


def test_a_killed_server_loses_nothing(server):
  server.answer([user('u1')], 'a1')
  (server.folder / '.open' / '.x.jsonl.1.part').write_text('torn')
  # The next process publishes it, and continues it with its exact tokens.
  (server.folder / '.lock').unlink()
  with Transcripts(server.folder).locked():
    assert [*(server.folder / '.open').iterdir()] == []
    assert files_of(server.folder) == [('u1>a1.', 'uutaaa')]
    again = Server(server.folder)
    again.answer([user('u1'), assistant('a1'), user('u2')], 'a2')
    again.conversations.publish_all()
  assert files_of(server.folder) == [
    ('u1>a1.', 'uutaaa'),
    ('u1>a1.u2>a2.', 'ccccccuutaaa'),
  ]


def test_transcripts_of_another_tokenizer_are_not_continued(
  server, monkeypatch
):
  server.answer([user('u1')], 'a1')
  server.conversations.publish_all()
  (server.folder / 'other.jsonl').write_text('{"tokens": [1]}\n')
  (server.folder / 'torn.jsonl').write_text('{"tokens')
  messages = [user('u1'), assistant('a1'), user('u2')]
  assert Server(server.folder).conversations.match(messages)
  monkeypatch.setitem(ABOUT, 'tokenizer', 'another')
  assert not Server(server.folder).conversations.match(messages)


def test_the_memory_is_bounded(server, monkeypatch):
  monkeypatch.setattr(conversations_lib, '_MOST', 2)
  for text in ('u1', 'u2', 'u3'):
    server.answer([user(text)], 'a')
  assert files_of(server.folder) == [('u1>a.', 'uutaa')]
  found = [
    server.conversations.match([user(text), assistant('a'), user('x')])
    for text in ('u1', 'u2', 'u3')
  ]
  assert [match is not None for match in found] == [False, True, True]


def test_tokens_in_memory_are_bounded_too(server, monkeypatch):
  monkeypatch.setattr(conversations_lib, '_MOST_TOKENS', 12)
  for text in ('u1', 'u2', 'u3'):
    server.answer([user(text)], 'a')
  assert files_of(server.folder) == [('u1>a.', 'uutaa')]
  server.conversations.publish_all()
  # A conversation that is longer is still remembered until the next one.
  server.answer([user('u' * 20)], 'a')
  assert server.conversations.match([user('u' * 20), assistant('a'), user('x')])
  # The next server begins with the newest.
  (server.folder / 'zz.jsonl').write_text('{}')
  monkeypatch.setattr(conversations_lib, '_MOST_TOKENS', 5)
  last = max(server.folder.glob('2*.jsonl'))
  again = Server(server.folder).conversations
  assert [*again._all] == [last.stem]


def test_a_conversation_that_a_full_disk_did_not_take(server, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(Transcripts, 'write', full)
    with pytest.raises(OSError, match='No space'):
      server.answer([user('u1')], 'a1')
  server.now = IDLE
  server.conversations.publish_idle()
  assert files_of(server.folder) == []
  # Its continuation has all of it.
  server.answer([user('u2')], 'a2')
  server.conversations.publish_all()
  assert files_of(server.folder) == [('u2>a2.', 'uutaaa')]


def test_without_a_folder_conversations_are_only_remembered():
  server = Server(None)
  server.answer([user('u1')], 'a1')
  server.now = IDLE
  server.conversations.publish_idle()
  _, _, tokens = server.prepare([user('u1'), assistant('a1'), user('u2')])
  assert ''.join(map(chr, tokens.ids)) == 'u1>a1.u2>'
