"""Settings of requests, and replies in the order of their requests."""

import asyncio

import pytest

from isft_jax.inference.sampling import Sampling
from isft_jax.serving import service as service_lib
from isft_jax.serving.conversations import Conversations
from isft_jax.serving.prompts import PromptEncoder
from isft_jax.serving.request import ApiError, ChatRequest
from isft_jax.serving.sampler import Completion, Interrupted
from isft_jax.serving.service import ChatService

USER = {'role': 'user', 'content': 'Tell me about gold.'}
DEFAULTS = {
  'temperature': 0.7,
  'top_k': 5,
  'top_p': 0.9,
  'max_new_tokens': 100,
}
LENGTH = 22  # tokens of USER and the headers


@pytest.fixture
def service(served_model):
  encoder = PromptEncoder(served_model)
  conversations = Conversations(None, {'tokenizer': ''}, 60)
  service = ChatService(
    served_model, encoder, conversations, DEFAULTS, ['\n'], 0, 64
  )
  yield service
  service.close()


def request(**fields):
  return ChatRequest([USER], **fields)


def test_settings(service):
  job = service.prepare(request())
  assert len(job.tokens.ids) == LENGTH
  # The default length is cut to the rest of the context.
  assert job.settings._replace(seed=0) == (
    64 - LENGTH,
    Sampling(0.7, 5, 0.9),
    0,
    ('\n',),
  )
  job = service.prepare(
    request(max_new_tokens=42, temperature=0.0, seed=-1, stop_texts=('x',))
  )
  assert job.settings == (
    42,
    Sampling(0.0, 5, 0.9),
    (1 << 32) - 1,
    ('\n', 'x'),
  )
  # Without a seed, each request has another one.
  seeds = {service.prepare(request()).settings.seed for _ in range(5)}
  assert len(seeds) == 5


@pytest.mark.parametrize(
  ('text', 'new', 'words'),
  [
    ('Hi', 60, 'and the reply may have 60'),
    ('gold ' * 30, None, 'and the reply may have 1'),
  ],
)
def test_a_conversation_that_is_too_long(service, text, new, words):
  messages = [{'role': 'user', 'content': text}]
  with pytest.raises(ApiError, match=words) as failure:
    service.prepare(ChatRequest(messages, max_new_tokens=new))
  assert failure.value.fields['code'] == 'context_length_exceeded'


def test_replies_come_in_order_and_those_of_cancelled_tasks_never(
  service, monkeypatch
):
  sampled = []

  def sample(chat_model, prompt, number, settings, show):
    sampled.append(settings.max_new_tokens)
    while settings.max_new_tokens == 1:  # until it is cancelled
      if show(0, 'so far'):
        raise Interrupted
    return [Completion('yes', [5], '', 'length')]

  monkeypatch.setattr(service_lib, 'sample', sample)

  async def talk():
    texts = []
    jobs = [service.prepare(request(max_new_tokens=n)) for n in (1, 2, 3, 4)]
    tasks = [
      asyncio.create_task(service.run(job, lambda _, text: texts.append(text)))
      for job in jobs
    ]
    while not texts:
      await asyncio.sleep(0.01)
    # The second waits, and is never sampled; the first is, and ends.
    tasks[1].cancel()
    tasks[0].cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)

  results = asyncio.run(talk())
  assert [type(each) for each in results[:2]] == [asyncio.CancelledError] * 2
  assert results[2] == results[3] == [Completion('yes', [5], '', 'length')]
  assert sampled == [1, 3, 4]


def test_a_closing_service_interrupts_all(service):
  async def talk():
    task = asyncio.create_task(
      service.run(service.prepare(request()), lambda *_: service.interrupt())
    )
    with pytest.raises(Interrupted):
      await task
    with pytest.raises(Interrupted):
      await service.run(service.prepare(request()))

  asyncio.run(talk())
