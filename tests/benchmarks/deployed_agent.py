"""A scripted user corrects a real agent, which learns while it is served.

  python tests/benchmarks/deployed_agent.py --workdir=runs/deployed_agent

    user --question--> isft-generate --serve --answer--> user
    user --verdict, and the truth after an error--> server --> transcripts
    transcripts --> isft-train --follow --> accepted parameters --> server

SmolLM2-135M-Instruct answers questions about real facts. Every increment has
conversations about facts that were never asked before, and repeats some of
those before it. At the end the same transcripts are learned at once, from the
same start and in as many steps, which shows what the increments forget. Both
agents are asked about all facts in other words.

It needs the extra `serve`, the package that holds the model, and 8 GB of
memory. Processes of two commands run beside this one. results.json in the
workdir has all answers.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence

import numpy as np

from isft_jax import follow_file
from isft_jax.inference.chat_model import ChatModel, chat_model_from_place
from isft_jax.inference.generate import generate
from isft_jax.train.saved import chat_model_from_run
from isft_jax.worlds.lying_agent import world_facts
from isft_jax.worlds.problems import phrases
from isft_jax.worlds.problems.fact_questions import FACT_QUESTIONS as WORLD
from isft_jax.worlds.problems.problem import Problem

MODEL = 'smollm2-135m-instruct'
SYSTEM = {'role': 'system', 'content': WORLD.context}
REPLY_TOKENS = 24
ROWS = 42  # prompts of a batch

# Steps of one row of 256 tokens, as in the flywheel of the same model.
TRAINING = (
  f'--config.model.init_from={MODEL}',
  '--config.model.head_chunk=0',
  '--config.seq_len=256',
  '--config.targets_per_row=256',
  '--config.batch_size=1',
  '--config.optim.schedule=constant',
)


def command(name: str, *flags: str) -> list[str]:
  return [sys.executable, '-m', 'isft_jax', name, *flags]


def say(line: str) -> None:
  print(f'[{time.strftime("%H:%M:%S")}] {line}', flush=True)


class Process:
  """A command that runs, with a log; killed if its block raises."""

  def __init__(self, log: pathlib.Path, *argv: str):
    self.log = log
    with log.open('wb') as file:
      self._process = subprocess.Popen(argv, stdout=file, stderr=file)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._process.send_signal(signal.SIGTERM)
    try:
      self._process.wait(120)
    except subprocess.TimeoutExpired:
      self._process.kill()

  def wait_for(self, found):
    """Returns the first true value of a function."""
    while not (value := found()):
      if self._process.poll() is not None:
        raise RuntimeError(f'it has ended:\n{self.log.read_text()[-3000:]}')
      time.sleep(0.2)
    return value


# ----------------------------------------------------------------- the user


def chat(url: str, messages: Sequence[dict], temperature: float) -> str:
  """Returns the reply of the server."""
  body = {
    'model': 'agent',
    'messages': messages,
    'temperature': temperature,
    'max_tokens': REPLY_TOKENS,
  }
  request = urllib.request.Request(
    f'{url}/v1/chat/completions',
    json.dumps(body).encode(),
    {'Content-Type': 'application/json'},
  )
  with urllib.request.urlopen(request) as response:
    return json.load(response)['choices'][0]['message']['content']


def talk(url: str, problem: Problem, rng: np.random.Generator) -> str:
  """Asks, and says whether the answer is right; returns the answer's kind."""
  messages = [SYSTEM, {'role': 'user', 'content': problem.question}]
  answer = chat(url, messages, temperature=0.7)
  outcome = WORLD.verify(answer, problem)
  verdict = phrases.draw_verdict(outcome.is_right, rng)
  if not outcome.is_right:
    verdict += f' {problem.solution}'
  messages += [
    {'role': 'assistant', 'content': answer},
    {'role': 'user', 'content': verdict},
  ]
  chat(url, messages, temperature=0.7)
  return outcome.kind


# ------------------------------------------------------------- the evaluation


def questions(problems: Sequence[Problem]) -> list[list[str]]:
  """Returns the other wordings of each problem's question."""
  found = []
  for problem in problems:
    (topic,) = {
      match[1]
      for phrase in world_facts.QUESTIONS
      if (
        match := re.fullmatch(
          re.escape(phrase).replace(r'\{topic\}', '(.+)'), problem.question
        )
      )
    }
    asked = [each.format(topic=topic) for each in world_facts.QUESTIONS]
    found.append([each for each in asked if each != problem.question])
  return found


def evaluate(model: ChatModel, problems, wordings: int) -> list[str]:
  """Returns a text per problem with '1' for each wording answered right."""
  asked = [
    (problem, question)
    for problem, others in zip(problems, questions(problems), strict=True)
    for question in others[:wordings]
  ]
  prompts = [
    model.prompt([SYSTEM, {'role': 'user', 'content': question}])
    for _, question in asked
  ]
  # Every batch has one shape.
  longest = max((prompt.ids_T for prompt in prompts), key=len)
  marks = ''
  pairs = list(zip(asked, prompts, strict=True))
  for start in range(0, len(pairs), ROWS):
    batch = pairs[start : start + ROWS]
    filled = [prompt.ids_T for _, prompt in batch]
    filled += [longest] * (ROWS + 1 - len(batch))
    replies = generate(
      *model.model, filled, REPLY_TOKENS, stop_ids=model.stop_ids
    )
    for ((problem, _), prompt), ids_T in zip(batch, replies, strict=False):
      reply = model.decode_reply(prompt, ids_T)
      marks += '01'[WORLD.verify(reply, problem).is_right]
  return [marks[i : i + wordings] for i in range(0, len(marks), wordings)]


def share(marks: Sequence[str]) -> float:
  """Returns the share of right answers, in per cent."""
  together = ''.join(marks)
  return 100 * together.count('1') / len(together)


# ------------------------------------------------------------------- the loop


def write_heldout(folder: pathlib.Path) -> None:
  """Writes corrected conversations about other facts, for the gate."""
  rng = np.random.default_rng(0)
  rows = [
    {
      'messages': [
        SYSTEM,
        {'role': 'user', 'content': problem.question},
        {'role': 'assistant', 'content': problem.wrong_solution},
        {
          'role': 'user',
          'content': f'{phrases.draw_verdict(False, rng)} {problem.solution}',
        },
      ]
    }
    for problem in WORLD.make('train', WORLD.size('train'), 0)
  ]
  source = folder / 'heldout.jsonl'
  source.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  subprocess.run(
    command(
      'prepare',
      f'--input={source}',
      f'--tokenizer={MODEL}',
      f'--output={folder}/heldout',
    ),
    check=True,
    stdout=subprocess.DEVNULL,
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--workdir', type=pathlib.Path, required=True, help='new folder'
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--increments', type=int, default=20)
  parser.add_argument(
    '--facts', type=int, default=6, help='asked per increment'
  )
  parser.add_argument(
    '--objective', default='interventional', help='what is learned'
  )
  parser.add_argument(
    '--learning_rate', default='5e-5', help='constant, with a new optimizer'
  )
  parser.add_argument(
    '--replay', type=float, default=0.5, help='share of earlier records'
  )
  parser.add_argument(
    '--epochs', type=int, default=1, help='passes over an increment'
  )
  parser.add_argument(
    '--rise', type=float, default=0.1, help='of the held-out loss, in nats'
  )
  parser.add_argument(
    '--wordings', type=int, default=2, help='of each question, 1 to 5'
  )
  parser.add_argument(
    '--every', type=int, default=5, help='increments between two evaluations'
  )
  args = parser.parse_args()
  training = (
    *TRAINING,
    f'--config.objective={args.objective}',
    f'--config.optim.learning_rate={args.learning_rate}',
  )
  folder = args.workdir.absolute()
  folder.mkdir(parents=True)
  transcripts = folder / 'transcripts'
  transcripts.mkdir()

  rng = np.random.default_rng(args.seed)
  every = [
    problem
    for split in ('agent', 'test')
    for problem in WORLD.make(split, WORLD.size(split), args.seed)
  ]
  count = args.increments * args.facts
  problems = [every[i] for i in rng.permutation(len(every))[:count]]
  results = {'settings': vars(args) | {'workdir': ''}, 'evaluations': {}}

  def note(name: str, model: ChatModel) -> None:
    marks = evaluate(model, problems, args.wordings)
    results['evaluations'][name] = marks
    (folder / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
    asked = args.facts * int(name) if name.isdecimal() else count
    line = f'{name}: {share(marks):.1f} % right'
    if asked:
      line += f', {share(marks[:asked]):.1f} % of those it was asked'
    say(line)

  say(f'{count} facts in {args.increments} increments')
  note('0', chat_model_from_place(MODEL))
  write_heldout(folder)
  agent = folder / 'agent'
  follower = command(
    'train',
    f'--follow={transcripts}',
    f'--workdir={agent}',
    f'--config.heldout={folder}/heldout',
    f'--config.epochs={args.epochs}',
    f'--config.seed={args.seed}',
    f'--follow_rise={args.rise}',
    f'--follow_least={args.facts}',
    f'--follow_most={args.facts}',
    f'--follow_replay={args.replay}',
    '--follow_seconds=1',
    f'--follow_increments={args.increments}',
    *training,
  )
  server = command(
    'generate',
    f'--checkpoint={agent}',
    '--serve',
    '--port=0',
    f'--transcripts={transcripts}',
    '--idle_seconds=1',
  )
  results['kinds'], results['ends'] = [], []
  with Process(folder / 'follow.log', *follower) as following:
    following.wait_for((agent / 'accepted.json').exists)
    with Process(folder / 'serve.log', *server) as serving:
      url = serving.wait_for(
        lambda: re.search(r'at (http://\S+)/v1', serving.log.read_text())
      )[1]
      for number in range(1, args.increments + 1):
        increment = problems[(number - 1) * args.facts : number * args.facts]
        kinds = [talk(url, problem, rng) for problem in increment]
        results['kinds'].append(kinds)

        def ended(number=number):
          for event in follow_file.read(agent / follow_file.NAME):
            if (
              event['increment'] == number
              and event['event'] in follow_file.ENDS
            ):
              return event
          return None

        end = following.wait_for(ended)
        results['ends'].append(end['event'])
        say(
          f'increment {number}: {kinds.count("right")} of {len(kinds)} right, '
          f'{end["event"]} {end.get("because", "")}'
        )
        if number % args.every == 0 or number == args.increments:
          note(str(number), chat_model_from_run(str(agent)))

  # The same transcripts at once, in as many steps.
  steps = sum(
    event['steps']
    for event in follow_file.read(agent / follow_file.NAME)
    if event['event'] == 'trained'
  )
  for argv in (
    command(
      'prepare',
      f'--input={transcripts}',
      f'--tokenizer={agent}/tokenizer',
      f'--output={folder}/records',
    ),
    command(
      'train',
      '--config=finetune',
      f'--config.records={folder}/records',
      f'--workdir={folder}/joint',
      f'--config.steps={steps}',
      f'--config.seed={args.seed}',
      *training,
    ),
  ):
    with (folder / 'joint.log').open('ab') as log:
      subprocess.run(argv, check=True, stdout=log, stderr=log)
  note('joint', chat_model_from_run(str(folder / 'joint')))

  last = results['evaluations'][str(args.increments)]
  joint = results['evaluations']['joint']
  halves = slice(0, count // 2), slice(count // 2, count)
  for name, half in zip(('first half', 'second half'), halves, strict=True):
    say(
      f'facts of the {name}: {share(last[half]):.1f} % after all increments, '
      f'{share(joint[half]):.1f} % if learned at once'
    )


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  main()
