"""isft-generate --serve as a process, with OpenAI's own client."""

import json
import os
import signal
import socket
import sys
import time
from concurrent import futures

import pytest

from isft_jax.data.records.dataset import Records
from isft_jax.serving import server as server_lib
from isft_jax.types import Provenance
from tests.commands import command, error_line
from tests.dialogues import chatml_tokenizer
from tests.serving.servers import PATIENCE, openai, serving

SYSTEM = {'role': 'system', 'content': 'Be good.'}
USER = {'role': 'user', 'content': 'Tell me about gold.'}
NEXT = {'role': 'user', 'content': 'And Mars?'}


@pytest.fixture(scope='module')
def model_folder(served_folder, tmp_path_factory):
  """The folder under a name of its own, which the server takes."""
  path = tmp_path_factory.mktemp('named') / 'model'
  path.symlink_to(served_folder)
  return path


@pytest.fixture(scope='module')
def server(model_folder):
  """One server for tests that leave no trace in it."""
  with serving(
    f'--model={model_folder}', '--max_request_bytes=20000', '--max_context=3000'
  ) as running:
    yield running


def rows(folder):
  return [
    json.loads(path.read_text()) for path in sorted(folder.glob('*.jsonl'))
  ]


def contents(row):
  return [message['content'] for message in row['transcript']['messages']]


def runs(row):
  """Returns (author, text) of each run of tokens of one author."""
  tokenizer = chatml_tokenizer()
  found = []
  for id, author in zip(row['tokens'], row['provenance'], strict=True):
    if not found or found[-1][0] != author:
      found.append((author, []))
    found[-1][1].append(id)
  return [(author, tokenizer.decode(ids)) for author, ids in found]


# ----------------------------------------------------------- serve, log, learn


def test_two_calls_are_one_transcript_that_prepare_reads(
  model_folder, served_model, tmp_path
):
  folder = tmp_path / 'transcripts'
  with serving(f'--model={model_folder}', f'--transcripts={folder}') as server:
    first = server.chat(SYSTEM, USER, max_tokens=6, seed=3, temperature=1)
    reply = first.choices[0].message
    stream = server.chat(
      *(SYSTEM, USER, reply, NEXT),
      max_completion_tokens=7,
      seed=4,
      temperature=1,
      stream=True,
      stream_options={'include_usage': True},
    )
    *chunks, last = stream
    text = ''.join(c.choices[0].delta.content or '' for c in chunks)
    done = server.end()
  assert done.returncode == 0, done.stderr
  # The transcript has what the client got, and the model saw.
  (row,) = rows(folder)
  assert contents(row) == [
    *(SYSTEM['content'], USER['content'], reply.content),
    *(NEXT['content'], text),
  ]
  usage = first.usage
  assert (usage.prompt_tokens, usage.completion_tokens) == (38, 6)
  prompt = served_model.prompt([SYSTEM, USER])
  assert row['tokens'][:38] == prompt.ids_T.tolist()
  found = runs(row)
  start, end = '<|im_start|>', '<|im_end|>\n'
  assert found[:5] == [
    ('template', f'{start}system\n'),
    ('context', 'Be good.'),
    ('template', f'{end}{start}user\n'),
    ('user', 'Tell me about gold.'),
    ('template', f'{end}{start}assistant\n'),
  ]
  # Both replies were cut by their length: the template closes the first.
  assert [author for author, _ in found[5:]] == [
    *('agent', 'template', 'user', 'template', 'agent')
  ]
  assert [text for _, text in found[6:9]] == [
    f'{end}{start}user\n',
    'And Mars?',
    f'{end}{start}assistant\n',
  ]
  assert row['provenance'][38:44] == ['agent'] * 6
  # The second call read all of the first, and its usage is exact.
  assert (last.choices, last.usage.completion_tokens) == ([], 7)
  assert last.usage.prompt_tokens == len(row['tokens']) - 7
  assert {c.choices[0].finish_reason for c in chunks} == {None, 'length'}
  # The replies are those that the model gives to these ids.
  records = tmp_path / 'records'
  prepared = command(
    'prepare',
    f'--input={folder}',
    f'--tokenizer={model_folder}',
    f'--output={records}',
    '--heldout=0',
  )
  assert prepared.returncode == 0, prepared.stderr
  assert 'keys that were not used' not in prepared.stdout
  (example,) = Records(str(records))
  assert example.tokens_T.tolist() == row['tokens']
  assert [Provenance(p).name.lower() for p in example.provenance_T] == (
    row['provenance']
  )


def test_a_seed_gives_a_reply_again_streamed_or_not(server):
  settings = {'max_tokens': 6, 'seed': 5, 'temperature': 1, 'n': 2}
  whole = server.chat(USER, **settings)
  texts = [choice.message.content for choice in whole.choices]
  assert texts[0] != texts[1]
  streamed = ['', '']
  for chunk in server.chat(USER, stream=True, **settings):
    (choice,) = chunk.choices
    streamed[choice.index] += choice.delta.content or ''
  assert streamed == texts
  assert whole.usage.completion_tokens == 12
  # Without one, they differ.
  del settings['seed']
  again = [server.chat(USER, **settings) for _ in range(2)]
  assert len({each.choices[0].message.content for each in again}) == 2


def test_stop_texts_end_a_reply(server):
  settings = {'max_tokens': 12, 'temperature': 0}
  text = server.chat(USER, **settings).choices[0].message.content
  stop = next(c for c in text[2:] if c.isascii())
  choice = server.chat(USER, stop=[stop], **settings).choices[0]
  assert choice.message.content == text[: text.index(stop)]
  assert choice.finish_reason == 'stop'


def test_two_clients_at_once(model_folder, tmp_path):
  folder = tmp_path / 'transcripts'
  flags = f'--transcripts={folder}', '--idle_seconds=0.2'
  with serving(f'--model={model_folder}', *flags) as server:

    def talk(name):
      messages = [{'role': 'user', 'content': name}]
      for number in range(3):
        reply = server.chat(*messages, max_tokens=4).choices[0].message
        messages += [reply, {'role': 'user', 'content': str(number)}]
      return [reply.content for reply in messages[1::2]]

    with futures.ThreadPoolExecutor(2) as clients:
      replies = [*clients.map(talk, ('Ann', 'Bob'))]
    # Idle conversations appear while the server runs.
    end = time.monotonic() + PATIENCE
    while [*(folder / '.open').iterdir()] and time.monotonic() < end:
      time.sleep(0.05)
    found = rows(folder)
    assert server.end(signal.SIGINT).returncode == 0
  assert rows(folder) == found
  # Each word of a client is the user's in one file.
  words = [text for row in found for who, text in runs(row) if who == 'user']
  assert sorted(words) == sorted(['Ann', 'Bob', '0', '0', '1', '1'])
  # The longest file of each has all replies.
  longest = {
    texts[0]: texts[1::2] for row in found if len(texts := contents(row)) == 6
  }
  assert longest == dict(zip(('Ann', 'Bob'), replies, strict=True))


def test_a_kill_loses_nothing(model_folder, tmp_path):
  folder = tmp_path / 'transcripts'
  with serving(f'--model={model_folder}', f'--transcripts={folder}') as server:
    reply = server.chat(USER, max_tokens=4).choices[0].message
    server.running.process.kill()
    server.running.process.join()
  assert rows(folder) == []
  with serving(f'--model={model_folder}', f'--transcripts={folder}') as server:
    (first,) = rows(folder)
    # The next server continues the exact tokens.
    server.chat(USER, reply, NEXT, max_tokens=4)
    assert server.end().returncode == 0
  (again, second) = sorted(rows(folder), key=lambda row: len(row['tokens']))
  assert again == first
  size = len(first['tokens'])
  assert second['tokens'][:size] == first['tokens']
  assert {*second['provenance'][:size]} == {'context'}
  assert [who for who, _ in runs(second)] == [
    *('context', 'template', 'user', 'template', 'agent')
  ]


def test_a_client_that_leaves_ends_its_reply(model_folder, tmp_path):
  folder = tmp_path / 'transcripts'
  flags = f'--transcripts={folder}', '--max_context=1000000'
  with serving(f'--model={model_folder}', *flags) as server:
    server.chat(USER, max_tokens=4)  # compiles
    long = {'max_tokens': 200_000, 'temperature': 0}
    with server.chat(NEXT, stream=True, **long) as stream:
      next(chunk for chunk in stream if chunk.choices[0].delta.content)
    # 200,000 tokens take minutes: the next reply does not wait for them.
    server.chat(USER, max_tokens=4)
    server.client = server.client.with_options(timeout=1.0)
    with pytest.raises(openai.APITimeoutError):
      server.chat(NEXT, **long)
    server.client = server.client.with_options(timeout=PATIENCE)
    server.chat(USER, max_tokens=4)
    # The server ends without waiting for a long reply.
    stream = server.chat(NEXT, stream=True, **long)
    with pytest.raises(openai.APIError, match='the server stops'):
      for chunk in stream:
        if chunk.choices[0].delta.content:
          os.kill(server.running.process.pid, signal.SIGTERM)
    assert server.running.wait(PATIENCE).returncode == 0
  # Nobody read those replies: they are in no transcript.
  assert {contents(row)[0] for row in rows(folder)} == {USER['content']}


# -------------------------------------------------------------------- refusals


def test_models_and_health(server):
  (model,) = server.client.models.list()
  assert model.id == 'model'
  assert server.request('GET', '/health')[2] == {'status': 'ok'}


@pytest.mark.parametrize(
  ('fields', 'error', 'words'),
  [
    ({'model': 'gpt-4'}, 'NotFoundError', "this server has 'model'"),
    ({'logprobs': True}, 'BadRequestError', 'not supported'),
    ({'messages': []}, 'BadRequestError', 'a list with a message'),
    (
      {'messages': [{'role': 'user', 'content': '<|im_end|>'}]},
      'BadRequestError',
      'special token',
    ),
    (
      {'messages': [{'role': 'user', 'content': 'gold ' * 2000}]},
      'BadRequestError',
      'the model reads at most 3000 tokens',
    ),
    ({'max_tokens': 3000}, 'BadRequestError', 'the reply may have 3000'),
    (
      {'messages': [{'role': 'user', 'content': 'x' * 20_000}]},
      'APIStatusError',
      'larger than --max_request_bytes',
    ),
  ],
  ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize('stream', [False, True])
def test_the_client_gets_the_error(server, fields, error, words, stream):
  arguments = {'model': 'model', 'messages': [USER], 'stream': stream} | fields
  with pytest.raises(getattr(openai, error), match=words) as failure:
    server.client.chat.completions.create(**arguments)
  assert type(failure.value).__name__ == error
  assert failure.value.body.keys() == {'message', 'type', 'param', 'code'}


def test_a_body_without_a_length_is_counted(server):
  piece = b' ' * 1000

  def request(pieces):
    return server.request(
      'POST',
      '/v1/chat/completions',
      (piece for _ in range(pieces)),
      **{'Content-Type': 'application/json'},
    )[::2]

  status, body = request(30)
  assert (status, body['error']['code']) == (413, 'request_too_large')
  # A small one is read, and is no JSON.
  status, body = request(3)
  assert (status, body['error']['type']) == (400, 'invalid_request_error')


@pytest.mark.parametrize(
  ('method', 'path', 'headers', 'status', 'words'),
  [
    ('GET', '/v1/engines', {}, 404, 'this server has POST /v1/chat'),
    ('GET', '/v1/chat/completions', {}, 405, 'this server has POST /v1/chat'),
    # What a page in a browser can send, without asking or under another name.
    (
      'POST',
      '/v1/chat/completions',
      {'Content-Type': 'text/plain'},
      415,
      'application/json',
    ),
    ('GET', '/health', {'Host': 'evil.example:8000'}, 403, 'only for'),
  ],
)
def test_other_requests(server, method, path, headers, status, words):
  found, got, body = server.request(method, path, '{}', **headers)
  assert found == status
  assert words in body['error']['message']
  assert (got['Allow'] == 'POST') == (status == 405)


def test_only_this_machine_is_served(server):
  host, _, port = server.url.removeprefix('http://').partition(':')
  assert host == '127.0.0.1'
  socket.create_connection((host, int(port))).close()
  # Another address of this machine, which 0.0.0.0 would have too.
  with pytest.raises(ConnectionRefusedError):
    socket.create_connection(('127.0.0.2', int(port)))


def test_a_taken_port_is_named(server):
  port = server.url.rpartition(':')[2]
  line = error_line('generate', '--model=m', '--serve', f'--port={port}')
  assert f'--host=127.0.0.1 --port={port}: Address already in use' in line
  assert 'name another --port' in line


def test_a_missing_library_is_named():
  line = error_line(
    'generate', '--model=m', '--serve', '--port=0', before=_without_aiohttp
  )
  assert (
    "--serve needs aiohttp; install it with pip install -e '.[serve]'" in line
  )


def _without_aiohttp():
  for name in [*sys.modules]:
    if name.startswith('isft_jax.serving'):
      del sys.modules[name]
  sys.modules['aiohttp'] = None


def test_a_name_is_an_address():
  with server_lib.listen('localhost', 0) as listener:
    assert listener.getsockname()[0] in ('127.0.0.1', '::1')
  assert listener.family in (socket.AF_INET, socket.AF_INET6)
