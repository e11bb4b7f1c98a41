"""Requests: what they mean, and a clear error for what cannot be honoured."""

import json

import pytest

from isft_jax.serving.request import HARMLESS, ApiError, ChatRequest, parse

USER = {'role': 'user', 'content': 'Hi'}


def read(names=frozenset(), **fields):
  body = {'model': 'm', 'messages': [USER], **fields}
  return parse(json.dumps(body).encode(), 'm', names)


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({}, {}),
    ({'n': 3}, {'number': 3}),
    ({'max_tokens': 5}, {'max_new_tokens': 5}),
    ({'max_completion_tokens': 5}, {'max_new_tokens': 5}),
    ({'max_completion_tokens': 5, 'max_tokens': 5}, {'max_new_tokens': 5}),
    ({'temperature': 0, 'top_p': 1}, {'temperature': 0.0, 'top_p': 1.0}),
    ({'seed': -1}, {'seed': -1}),
    ({'stop': '\n'}, {'stop_texts': ('\n',)}),
    ({'stop': ['a', 'b']}, {'stop_texts': ('a', 'b')}),
    ({'stream': True}, {'stream': True}),
    (
      {'stream': True, 'stream_options': {'include_usage': True}},
      {'stream': True, 'include_usage': True},
    ),
    # Null is a field that is not set.
    ({'temperature': None, 'tools': None, 'stop': None, 'model': None}, {}),
    # These change nothing.
    ({'logprobs': False, 'tools': [], 'presence_penalty': 0.0}, {}),
    ({'response_format': {'type': 'text'}, 'tool_choice': 'auto'}, {}),
    (dict.fromkeys(sorted(HARMLESS), 'x'), {}),
  ],
  ids=str,
)
def test_fields(fields, expected):
  assert read(**fields) == ChatRequest([USER], **expected)


@pytest.mark.parametrize(
  ('message', 'names', 'expected'),
  [
    ({'role': 'system', 'content': 'a'}, '', 'same'),
    # Templates of before 2025 know the role by its old name.
    (
      {'role': 'developer', 'content': 'a'},
      '',
      {'role': 'system', 'content': 'a'},
    ),
    ({'role': 'developer', 'content': 'a'}, 'developer', 'same'),
    (
      {
        'role': 'user',
        'content': [{'type': 'text', 'text': t} for t in ('a', ' b')],
      },
      '',
      {'role': 'user', 'content': 'a b'},
    ),
    (
      {'role': 'tool', 'content': 'a', 'tool_call_id': '1', 'name': 'f'},
      '',
      'same',
    ),
    ({'role': 'user', 'content': 'a', 'name': 'Ann'}, 'name', 'same'),
  ],
  ids=str,
)
def test_messages(message, names, expected):
  (found, _) = read(frozenset(names.split()), messages=[message, USER]).messages
  assert found == (message if expected == 'same' else expected)


def test_a_reply_that_the_client_library_sends_back():
  message = {'role': 'assistant', 'content': 'a', 'refusal': None}
  message |= {'tool_calls': None, 'audio': None, 'annotations': []}
  assert read(messages=[message, USER]).messages[0] == {
    'role': 'assistant',
    'content': 'a',
  }


@pytest.mark.parametrize(
  ('fields', 'words', 'param'),
  [
    ({'messages': None}, 'must be a list with a message', 'messages'),
    ({'messages': []}, 'must be a list with a message', 'messages'),
    ({'messages': 'Hi'}, 'must be a list with a message', 'messages'),
    ({'messages': ['Hi']}, 'must be an object', 'messages[0]'),
    (
      {'messages': [{'role': 'bot', 'content': 'a'}]},
      "must be one of system, developer, user, assistant, tool (got 'bot')",
      'messages[0].role',
    ),
    ({'messages': [{'content': 'a'}]}, 'got None', 'messages[0].role'),
    (
      {'messages': [{'role': 'user'}]},
      'must be a text',
      'messages[0].content',
    ),
    (
      {'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]},
      'must be a part of type text',
      'messages[0].content[0]',
    ),
    (
      {'messages': [USER, {'role': 'assistant', 'content': 'a'}]},
      'there is nothing to answer',
      'messages[1]',
    ),
    (
      {'messages': [{**USER, 'name': 'Ann'}]},
      'not supported',
      'messages[0].name',
    ),
    (
      {'messages': [{**USER, 'tool_calls': [{}]}]},
      'not supported',
      'messages[0].tool_calls',
    ),
    ({'temperature': -1}, 'from 0 to 2 (got -1)', 'temperature'),
    ({'temperature': True}, 'must be a number', 'temperature'),
    ({'temperature': float('nan')}, 'got nan', 'temperature'),
    ({'temperature': 10**400}, 'from 0 to 2', 'temperature'),
    ({'top_p': 0}, 'must be above 0', 'top_p'),
    ({'n': 0}, 'from 1 to 16 (got 0)', 'n'),
    ({'n': 17}, 'from 1 to 16', 'n'),
    ({'n': True}, 'must be an integer', 'n'),
    ({'max_tokens': 0}, 'from 1', 'max_tokens'),
    ({'max_tokens': 1.5}, 'must be an integer', 'max_tokens'),
    ({'max_tokens': 1, 'max_completion_tokens': 2}, 'differ', 'max_tokens'),
    ({'seed': 'x'}, 'must be an integer', 'seed'),
    ({'stop': ''}, 'not empty', 'stop'),
    ({'stop': ['a', 1]}, 'not empty', 'stop'),
    ({'stop': ['a'] * 17}, 'at most 16', 'stop'),
    ({'stream': 1}, 'must be true or false', 'stream'),
    ({'stream_options': {'include_usage': True}}, 'needs', 'stream_options'),
    (
      {'stream': True, 'stream_options': {'x': 1}},
      'not supported',
      'stream_options.x',
    ),
    ({'logprobs': True}, 'leave it out, or set false', 'logprobs'),
    ({'tools': [{'type': 'function'}]}, 'or set []', 'tools'),
    (
      {'response_format': {'type': 'json_object'}},
      'or set {"type": "text"}',
      'response_format',
    ),
    ({'presence_penalty': 1}, 'not supported', 'presence_penalty'),
    ({'best_of': 2}, 'best_of=2 is not supported; leave it out', 'best_of'),
    ({'a\x1bb': 2}, 'not supported', "'a\\x1bb'"),
  ],
  ids=str,
)
def test_what_cannot_be_honoured_is_refused(fields, words, param):
  with pytest.raises(ApiError) as failure:
    read(**fields)
  assert words in str(failure.value)
  assert str(failure.value).isprintable()
  assert failure.value.status == 400
  assert failure.value.fields['param'] == param
  assert failure.value.fields['type'] == 'invalid_request_error'


def test_another_model_does_not_exist():
  with pytest.raises(ApiError, match="this server has 'm'") as failure:
    read(model='gpt-4')
  assert failure.value.status == 404
  assert failure.value.fields['code'] == 'model_not_found'


@pytest.mark.parametrize(
  ('body', 'words'),
  [
    (b'', 'not JSON'),
    (b'{"model": ', 'not JSON'),
    (b'[]', 'must be a JSON object'),
    (b'\xff\xfe', 'not JSON'),
    (b'[' * 99_999, 'not JSON'),
    (b'{"n": ' + b'9' * 9999 + b'}', 'not JSON'),
  ],
)
def test_a_body_that_is_no_object(body, words):
  with pytest.raises(ApiError, match=words) as failure:
    parse(body, 'm', frozenset())
  assert str(failure.value).isprintable()
