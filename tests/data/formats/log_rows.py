"""A row of every log format, as short as it can be with all kinds of turns."""

CALL = {
  'id': 'c',
  'type': 'function',
  'function': {'name': 'f', 'arguments': '{"x": 2}'},
}
SCHEMA = {'name': 'f', 'description': 'F.', 'parameters': {'type': 'object'}}
ANSWER = {'role': 'assistant', 'content': 'Let me see.', 'tool_calls': [CALL]}


def text(words):
  return {'type': 'text', 'text': words}


def action(name, source='agent', **args):
  return {'source': source, 'action': name, 'args': args}


def observation(name, content, **fields):
  return {
    'source': 'agent',
    'observation': name,
    'content': content,
    'extras': {},
    **fields,
  }


def called(id='c', response='r', message=None):
  """What OpenHands keeps of a call, in an action and in its observation."""
  return {
    'tool_call_id': id,
    'function_name': 'f',
    'total_calls_in_response': 1,
    'model_response': {
      'id': response,
      'choices': [{'message': message or ANSWER}],
    },
  }


def step(prompt, completion):
  return {
    'prompt_token_ids': prompt,
    'completion_token_ids': completion,
  }


ATIF_TOKENS = {
  'schema_version': 'ATIF-v1.8',
  'steps': [
    {'source': 'system', 'message': 'Be brief.'},
    {'source': 'user', 'message': '2 + 2?'},
    {
      'source': 'agent',
      'message': 'Let me see.',
      'observation': {'results': [{'content': '4'}]},
      'metrics': step([1, 2, 3], [4, 5]),
    },
    {
      'source': 'agent',
      'message': '4',
      'metrics': step([1, 2, 3, 4, 5, 6, 7], [8]),
    },
  ],
}
COMPLETION_LOG = {
  'messages': [
    {'role': 'system', 'content': [text('Be brief.')]},
    {'role': 'user', 'content': '2 + 2?'},
  ],
  'response': {'id': 'r', 'choices': [{'message': ANSWER}]},
  'kwargs': {'tools': [{'type': 'function', 'function': SCHEMA}]},
  'cost': 0.0,
}
INSPECT = {
  'id': 1,
  'epoch': 1,
  'input': '2 + 2?',
  'target': '4',
  'messages': [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': [text('2 + 2?')], 'source': 'input'},
    {
      'role': 'assistant',
      'content': [
        {'type': 'reasoning', 'reasoning': 'Hm.'},
        text('Let me see.'),
      ],
      'source': 'generate',
      'tool_calls': [
        {'id': 'c', 'function': 'f', 'arguments': {'x': 2}, 'type': 'function'}
      ],
    },
    {'role': 'tool', 'content': '4', 'tool_call_id': 'c', 'function': 'f'},
    {'role': 'assistant', 'content': '4', 'source': 'generate'},
  ],
  'output': {'model': 'm', 'choices': []},
}
MINI_SWE_AGENT = {
  'trajectory_format': 'mini-swe-agent-1.1',
  'info': {'exit_status': 'Submitted', 'submission': 'diff'},
  'messages': [
    {'role': 'system', 'content': 'Use bash.'},
    {'role': 'user', 'content': 'Fix it.'},
    {**ANSWER, 'extra': {'actions': []}},
    {'role': 'tool', 'content': '4', 'tool_call_id': 'c', 'extra': {}},
    {'role': 'exit', 'content': 'diff', 'extra': {}},
  ],
}
NEBIUS = {
  'instance_id': 'i',
  'trajectory': [
    {'role': 'system', 'system_prompt': 'Be brief.', 'text': None},
    {'role': 'user', 'system_prompt': None, 'text': '2 + 2?'},
    {'role': 'ai', 'system_prompt': None, 'text': 'Let me see.'},
    {'role': 'user', 'system_prompt': None, 'text': '4'},
  ],
}
NEMOTRON = {
  'input': [{'role': 'user', 'content': '2 + 2?'}],
  'output': '4',
  'system_prompt': 'Be brief.',
  'category': 'math',
}
OPENHANDS = [
  action('system', content='Be brief.', tools=[SCHEMA]),
  action('message', 'user', content='2 + 2?'),
  {'id': 2, **action('run', command='ls'), 'tool_call_metadata': called()},
  observation('run', '4', cause=2, tool_call_metadata=called()),
  action('run', command='ls', thought='Hm.'),
  observation('run', 'a.py'),
  action('finish', final_thought='4'),
]
OPENHANDS_SDK = {
  'events': [
    {
      'kind': 'SystemPromptEvent',
      'source': 'agent',
      'system_prompt': text('Be brief.'),
      'tools': [],
    },
    {
      'kind': 'MessageEvent',
      'source': 'user',
      'llm_message': {'role': 'user', 'content': [text('2 + 2?')]},
    },
    {
      'kind': 'ActionEvent',
      'source': 'agent',
      'thought': [text('Let me see.')],
      'action': {'kind': 'FAction'},
      'tool_call_id': 'c',
      'tool_call': {'id': 'c', 'name': 'f', 'arguments': '{"x": 2}'},
      'llm_response_id': 'r',
    },
    {
      'kind': 'ObservationEvent',
      'source': 'environment',
      'tool_name': 'f',
      'tool_call_id': 'c',
      'observation': {'content': [text('4')], 'is_error': False},
    },
    {'kind': 'PauseEvent', 'source': 'user'},
  ]
}
ROLLOUT_IDS = {
  'trajectory': [
    {
      'prompt': [{'role': 'user', 'content': '2 + 2?'}],
      'completion': [ANSWER],
      'tokens': {'prompt_ids': [1, 2, 3], 'completion_ids': [4, 5]},
    },
    {
      'prompt': [
        {'role': 'user', 'content': '2 + 2?'},
        ANSWER,
        {'role': 'tool', 'content': '4', 'tool_call_id': 'c'},
      ],
      'completion': [{'role': 'assistant', 'content': '4'}],
      'tokens': {
        'prompt_ids': [1, 2, 3, 4, 5, 6, 7],
        'completion_ids': [8],
        'completion_mask': [1],
      },
    },
  ],
  'reward': 1.0,
}
TAU2 = {
  'id': 's',
  'messages': [
    {'role': 'assistant', 'content': 'Hi.', 'turn_idx': 0},
    {'role': 'user', 'content': '2 + 2?', 'turn_idx': 1},
    {
      'role': 'assistant',
      'content': None,
      'tool_calls': [
        {
          'id': 'c',
          'name': 'f',
          'arguments': {'x': 2},
          'requestor': 'assistant',
        }
      ],
      'turn_idx': 2,
    },
    {'role': 'tool', 'id': 'c', 'content': '4', 'requestor': 'assistant'},
    {
      'role': 'user',
      'content': None,
      'tool_calls': [
        {'id': 'd', 'name': 'g', 'arguments': {}, 'requestor': 'user'}
      ],
    },
    {'role': 'tool', 'id': 'd', 'content': '5', 'requestor': 'user'},
    {'role': 'user', 'content': 'It is 5.', 'turn_idx': 6},
  ],
}
TINKER = {
  'model_input': {'chunks': [{'type': 'encoded_text', 'tokens': [1, 2, 3]}]},
  'loss_fn_inputs': {
    'target_tokens': {'data': [2, 3, 4], 'dtype': 'int64', 'shape': [3]},
    'weights': {'data': [0.0, 1.0, 1.0], 'dtype': 'float32', 'shape': [3]},
  },
}
VERIFIERS = {
  'id': 'v',
  'nodes': [
    {
      'parent': None,
      'message': {'role': 'user', 'content': '2 + 2?'},
      'sampled': False,
      'token_ids': [1, 2, 3],
      'mask': [False] * 3,
    },
    {
      'parent': 0,
      'message': {
        'role': 'assistant',
        'content': 'Let me see.',
        'tool_calls': [{'id': 'c', 'name': 'f', 'arguments': '{"x": 2}'}],
      },
      'sampled': True,
      'token_ids': [4, 5],
      'mask': [False, True],
    },
    {
      'parent': 1,
      'message': {'role': 'tool', 'content': '4', 'tool_call_id': 'c'},
      'sampled': False,
      'token_ids': [6, 7],
      'mask': [False] * 2,
      'is_content': [False, True],
    },
  ],
}
ROWS = {
  'atif_tokens': ATIF_TOKENS,
  'completion_log': COMPLETION_LOG,
  'inspect': INSPECT,
  'mini_swe_agent': MINI_SWE_AGENT,
  'nebius': NEBIUS,
  'nemotron': NEMOTRON,
  'openhands': OPENHANDS,
  'openhands_sdk': OPENHANDS_SDK,
  'rollout_ids': ROLLOUT_IDS,
  'tau2': TAU2,
  'tinker': TINKER,
  'verifiers': VERIFIERS,
}
