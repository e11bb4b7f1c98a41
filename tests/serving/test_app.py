"""Errors of the server, before and in a stream."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from isft_jax.serving.request import ApiError
from isft_jax.serving.sampler import Completion, Interrupted
from tests.fixtures import import_or_skip

import_or_skip('aiohttp')

from aiohttp import test_utils  # noqa: E402

from isft_jax.serving import app as app_lib  # noqa: E402

USER = {'role': 'user', 'content': 'Hi'}


class Service:
  """A service whose replies are 'ab' and then a result or an error."""

  def __init__(self, result):
    self.result = result

  def prepare(self, request):
    if isinstance(self.result, ApiError):
      raise self.result
    tokens = SimpleNamespace(ids=[1, 2, 3])
    return SimpleNamespace(request=request, tokens=tokens)

  async def run(self, job, on_text=None):
    if on_text:
      on_text(0, 'a')
      on_text(0, 'ab')
      await asyncio.sleep(0)
    if isinstance(self.result, Exception):
      raise self.result
    return self.result


def answer(result, **fields):
  """Returns the status and the text of an answer."""

  async def talk():
    app = app_lib.make_app(
      Service(result), 'm', frozenset(), '127.0.0.1', 10_000
    )
    async with test_utils.TestClient(test_utils.TestServer(app)) as client:
      response = await client.post(
        '/v1/chat/completions', json={'messages': [USER], **fields}
      )
      return response.status, await response.text()

  return asyncio.run(talk())


def events(text):
  """Returns the events of a stream, without what all have in common."""
  found = []
  for line in text.removesuffix('\n\n').split('\n\n'):
    data = line.removeprefix('data: ')
    event = data if data == '[DONE]' else json.loads(data)
    if 'choices' in event:
      assert event['object'] == 'chat.completion.chunk'
      choices = [
        (c['index'], c['delta'], c['finish_reason']) for c in event['choices']
      ]
      event = (choices, event.get('usage', 'absent'))
    found.append(event)
  return found


REPLY = [Completion('abc', [7, 8], '<end>', 'stop')]
USAGE = {'prompt_tokens': 3, 'completion_tokens': 2, 'total_tokens': 5}
START = [
  ([(0, {'role': 'assistant', 'content': ''}, None)]),
  ([(0, {'content': 'a'}, None)]),
  ([(0, {'content': 'b'}, None)]),
]


def test_a_stream_has_the_events_of_openai():
  status, text = answer(REPLY, stream=True)
  ends = [[(0, {'content': 'c'}, None)], [(0, {}, 'stop')]]
  assert status == 200
  assert events(text) == [
    *((choices, 'absent') for choices in (*START, *ends)),
    '[DONE]',
  ]
  options = {'include_usage': True}
  status, text = answer(REPLY, stream=True, stream_options=options)
  assert events(text) == [
    *((choices, None) for choices in (*START, *ends)),
    ([], USAGE),
    '[DONE]',
  ]


def test_an_answer_without_a_stream():
  status, text = answer(REPLY)
  value = json.loads(text)
  assert (status, value['object'], value['model']) == (
    *(200, 'chat.completion', 'm'),
  )
  assert value['usage'] == USAGE
  assert value['choices'] == [
    {
      'index': 0,
      'message': {'role': 'assistant', 'content': 'abc'},
      'logprobs': None,
      'finish_reason': 'stop',
    }
  ]


@pytest.mark.parametrize(
  ('error', 'status', 'message', 'type'),
  [
    (Interrupted(), 503, 'the server stops', 'server_error'),
    (
      MemoryError('secret'),
      500,
      'MemoryError in the server; its log has more',
      'server_error',
    ),
  ],
)
def test_an_error_while_sampling(error, status, message, type, capsys):
  found, text = answer(error)
  assert found == status
  fields = {'message': message, 'type': type, 'param': None, 'code': None}
  assert json.loads(text) == {'error': fields}
  # In a stream, it is too late for a status.
  found, text = answer(error, stream=True)
  assert found == 200
  assert events(text) == [
    *((choices, 'absent') for choices in START),
    {'error': fields},
  ]
  assert ('secret' in capsys.readouterr().err) == (status == 500)


def test_an_error_before_a_stream_has_a_status():
  status, text = answer(ApiError('no', 'messages'), stream=True)
  assert (status, json.loads(text)['error']['message']) == (400, 'no')
