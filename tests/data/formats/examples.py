"""The same conversation in many formats, as literal rows.

The system prompt, the user, the agent with a thought, a text and a call, the
tool, and the agent. Formats without a system prompt or tools leave them out.
"""

from tests.data.formats import log_rows

PARAMETERS = {'type': 'object', 'properties': {'city': {'type': 'string'}}}
SCHEMA = {'name': 'look', 'description': 'Looks.', 'parameters': PARAMETERS}
TOOL = {'type': 'function', 'function': SCHEMA}
ARGUMENTS = '{"city": "Rome"}'
CALL = {
  'type': 'function',
  'function': {'name': 'look', 'arguments': {'city': 'Rome'}},
}

# The messages that every format gives, apart from ids of calls.
MESSAGES = [
  {'role': 'system', 'content': 'Be brief.'},
  {'role': 'user', 'content': 'Ask one?'},
  {
    'role': 'assistant',
    'content': 'Look.',
    'reasoning_content': 'Hm.',
    'tool_calls': [CALL],
  },
  {'role': 'tool', 'content': 'warm'},
  {'role': 'assistant', 'content': 'Say one.'},
]
AUTHORS = ['CONTEXT', 'USER', 'AGENT', 'TOOL', 'AGENT']

ANTHROPIC = {
  'system': 'Be brief.',
  'tools': [
    {'name': 'look', 'description': 'Looks.', 'input_schema': PARAMETERS}
  ],
  'messages': [
    {'role': 'user', 'content': 'Ask one?'},
    {
      'role': 'assistant',
      'content': [
        {'type': 'thinking', 'thinking': 'Hm.', 'signature': 'E'},
        {'type': 'text', 'text': 'Look.'},
        {
          'type': 'tool_use',
          'id': 'c1',
          'name': 'look',
          'input': {'city': 'Rome'},
        },
      ],
    },
    {
      'role': 'user',
      'content': [
        {'type': 'tool_result', 'tool_use_id': 'c1', 'content': 'warm'}
      ],
    },
    {'role': 'assistant', 'content': 'Say one.'},
  ],
}

ATIF = {
  'schema_version': 'ATIF-v1.7',
  'agent': {'name': 'a', 'tool_definitions': [TOOL]},
  'steps': [
    {'source': 'system', 'message': 'Be brief.'},
    {'source': 'user', 'message': 'Ask one?'},
    {
      'source': 'agent',
      'message': 'Look.',
      'reasoning_content': 'Hm.',
      'tool_calls': [
        {
          'tool_call_id': 'c1',
          'function_name': 'look',
          'arguments': {'city': 'Rome'},
        }
      ],
      'observation': {'results': [{'source_call_id': 'c1', 'content': 'warm'}]},
    },
    {'source': 'agent', 'message': 'Say one.'},
  ],
}

# The context of a model.
AUTOGEN = [
  {'type': 'SystemMessage', 'content': 'Be brief.'},
  {'type': 'TextMessage', 'source': 'user', 'content': 'Ask one?'},
  {'type': 'ThoughtEvent', 'source': 'a', 'content': 'Hm.'},
  {'type': 'TextMessage', 'source': 'a', 'content': 'Look.'},
  {
    'type': 'ToolCallRequestEvent',
    'source': 'a',
    'content': [{'id': 'c1', 'name': 'look', 'arguments': ARGUMENTS}],
  },
  {
    'type': 'ToolCallExecutionEvent',
    'source': 'a',
    'content': [
      {'call_id': 'c1', 'name': 'look', 'content': 'warm', 'is_error': False}
    ],
  },
  {'type': 'ToolCallSummaryMessage', 'source': 'a', 'content': 'warm'},
  {'type': 'TextMessage', 'source': 'a', 'content': 'Say one.'},
]

BEDROCK = {
  'system': [{'text': 'Be brief.'}],
  'toolConfig': {
    'tools': [
      {
        'toolSpec': {
          'name': 'look',
          'description': 'Looks.',
          'inputSchema': {'json': PARAMETERS},
        }
      }
    ]
  },
  'messages': [
    {'role': 'user', 'content': [{'text': 'Ask one?'}]},
    {
      'role': 'assistant',
      'content': [
        {'reasoningContent': {'reasoningText': {'text': 'Hm.'}}},
        {'text': 'Look.'},
        {
          'toolUse': {
            'toolUseId': 'c1',
            'name': 'look',
            'input': {'city': 'Rome'},
          }
        },
      ],
    },
    {
      'role': 'user',
      'content': [
        {'toolResult': {'toolUseId': 'c1', 'content': [{'text': 'warm'}]}}
      ],
    },
    {'role': 'assistant', 'content': [{'text': 'Say one.'}]},
  ],
}

# A session has no system prompt. Each line has one block of the agent.
_AGENT = {'sessionId': 's', 'type': 'assistant'}
CLAUDE_CODE = [
  {'type': 'summary', 'summary': 'Of another session.', 'leafUuid': 'x'},
  {
    'type': 'user',
    'uuid': 'u1',
    'parentUuid': None,
    'sessionId': 's',
    'message': {'role': 'user', 'content': 'Ask one?'},
  },
  {
    **_AGENT,
    'uuid': 'u2',
    'parentUuid': 'u1',
    'message': {
      'id': 'm1',
      'role': 'assistant',
      'content': [{'type': 'thinking', 'thinking': 'Hm.', 'signature': 'E'}],
    },
  },
  {
    **_AGENT,
    'uuid': 'u3',
    'parentUuid': 'u2',
    'message': {
      'id': 'm1',
      'role': 'assistant',
      'content': [{'type': 'text', 'text': 'Look.'}],
    },
  },
  {
    **_AGENT,
    'uuid': 'u4',
    'parentUuid': 'u3',
    'message': {
      'id': 'm1',
      'role': 'assistant',
      'content': [
        {
          'type': 'tool_use',
          'id': 'c1',
          'name': 'look',
          'input': {'city': 'Rome'},
        }
      ],
    },
  },
  {
    'type': 'user',
    'uuid': 'u5',
    'parentUuid': 'u4',
    'sessionId': 's',
    'toolUseResult': 'warm',
    'message': {
      'role': 'user',
      'content': [
        {'type': 'tool_result', 'tool_use_id': 'c1', 'content': 'warm'}
      ],
    },
  },
  {
    **_AGENT,
    'uuid': 'u6',
    'parentUuid': 'u5',
    'message': {
      'id': 'm2',
      'role': 'assistant',
      'content': [{'type': 'text', 'text': 'Say one.'}],
    },
  },
]

_ITEMS = [
  {
    'type': 'message',
    'role': 'user',
    'content': [{'type': 'input_text', 'text': 'Ask one?'}],
  },
  {
    'type': 'reasoning',
    'summary': [{'type': 'summary_text', 'text': 'Hm.'}],
    'encrypted_content': 'gA',
  },
  {
    'type': 'message',
    'role': 'assistant',
    'content': [{'type': 'output_text', 'text': 'Look.'}],
  },
  {
    'type': 'function_call',
    'call_id': 'c1',
    'name': 'look',
    'arguments': ARGUMENTS,
  },
  {'type': 'function_call_output', 'call_id': 'c1', 'output': 'warm'},
  {
    'type': 'message',
    'role': 'assistant',
    'content': [{'type': 'output_text', 'text': 'Say one.'}],
  },
]
RESPONSES = {
  'instructions': 'Be brief.',
  'tools': [{'type': 'function', **SCHEMA}],
  'input': _ITEMS[:-1],
  'output': _ITEMS[-1:],
}

# A rollout has no schemas of tools.
CODEX = [
  {
    'type': 'session_meta',
    'payload': {'id': 's', 'base_instructions': {'text': 'Be brief.'}},
  },
  {'type': 'turn_context', 'payload': {'cwd': '/'}},
  {'type': 'event_msg', 'payload': {'type': 'user_message'}},
  *({'type': 'response_item', 'payload': item} for item in _ITEMS),
]

GEMINI = {
  'systemInstruction': {'parts': [{'text': 'Be brief.'}]},
  'tools': [{'functionDeclarations': [SCHEMA]}],
  'contents': [
    {'role': 'user', 'parts': [{'text': 'Ask one?'}]},
    {
      'role': 'model',
      'parts': [
        {'text': 'Hm.', 'thought': True},
        {'text': 'Look.'},
        {
          'functionCall': {'name': 'look', 'args': {'city': 'Rome'}},
          'thoughtSignature': 'E',
        },
      ],
    },
    {
      'role': 'user',
      'parts': [
        {'functionResponse': {'name': 'look', 'response': {'output': 'warm'}}}
      ],
    },
    {'role': 'model', 'parts': [{'text': 'Say one.'}]},
  ],
}

LANGCHAIN = {
  'tools': [TOOL],
  'messages': [
    {'type': 'system', 'content': 'Be brief.'},
    {'type': 'human', 'content': 'Ask one?'},
    {
      'type': 'ai',
      'content': 'Look.',
      'additional_kwargs': {'reasoning_content': 'Hm.'},
      'tool_calls': [
        {
          'name': 'look',
          'args': {'city': 'Rome'},
          'id': 'c1',
          'type': 'tool_call',
        }
      ],
    },
    {'type': 'tool', 'content': 'warm', 'tool_call_id': 'c1'},
    {'type': 'ai', 'content': 'Say one.'},
  ],
}

LLAMA_FACTORY = {
  'tools': '[{"type": "function", "function": {"name": "look", '
  '"description": "Looks.", "parameters": {"type": "object", "properties": '
  '{"city": {"type": "string"}}}}}]',
  'messages': [
    {'role': 'system', 'content': [{'type': 'text', 'value': 'Be brief.'}]},
    {'role': 'user', 'content': [{'type': 'text', 'value': 'Ask one?'}]},
    {
      'role': 'assistant',
      'content': [
        {'type': 'reasoning', 'value': 'Hm.'},
        {'type': 'text', 'value': 'Look.'},
        {
          'type': 'tool_call',
          'value': '{"name": "look", "arguments": {"city": "Rome"}}',
        },
      ],
      'loss_weight': 1.0,
    },
    {'role': 'tool', 'content': [{'type': 'text', 'value': 'warm'}]},
    {'role': 'assistant', 'content': [{'type': 'text', 'value': 'Say one.'}]},
  ],
}

OPENAI = {
  'tools': [TOOL],
  'messages': [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'Ask one?'},
    {
      'role': 'assistant',
      'content': 'Look.',
      'reasoning_content': 'Hm.',
      'tool_calls': [{'id': 'c1', **CALL}],
    },
    {'role': 'tool', 'content': 'warm', 'tool_call_id': 'c1'},
    {'role': 'assistant', 'content': 'Say one.'},
  ],
}

REACT = (
  'Be brief.\nQuestion: Ask one?\nThought: Hm.\nAction: look\n'
  'Action Input: Rome\nObservation: warm\nFinal Answer: Say one.\n'
)

SHAREGPT = {
  'system': 'Be brief.',
  'conversations': [
    {'from': 'human', 'value': 'Ask one?'},
    {
      'from': 'function_call',
      'value': '{"name": "look", "arguments": {"city": "Rome"}}',
    },
    {'from': 'observation', 'value': 'warm'},
    {'from': 'gpt', 'value': 'Say one.'},
  ],
}

SWE_AGENT = {
  'history': [
    {
      'role': 'system',
      'content': 'Be brief.',
      'message_type': 'system_prompt',
    },
    {'role': 'user', 'content': 'Ask one?', 'message_type': 'observation'},
    {'role': 'assistant', 'content': 'look', 'message_type': 'action'},
    {'role': 'user', 'content': 'warm', 'message_type': 'observation'},
    {'role': 'assistant', 'content': 'Say one.', 'message_type': 'action'},
  ]
}

TOKENS = {'tokens': [1, 2, 3], 'provenance': ['user', 'agent', 'agent']}

TURNS = {
  'turns': [
    {'role': 'system', 'text': 'Be brief.'},
    {'role': 'user', 'text': 'Ask one?'},
    {'role': 'agent', 'text': 'Look.'},
    {'role': 'tool', 'text': 'warm'},
    {'role': 'agent', 'text': 'Say one.'},
  ]
}

PROMPT_COMPLETION = {
  'tools': [TOOL],
  'prompt': OPENAI['messages'][:2],
  'completion': OPENAI['messages'][2:],
}

# Formats that can say all of it.
WHOLE = {
  'anthropic': ANTHROPIC,
  'atif': ATIF,
  'bedrock': BEDROCK,
  'codex': CODEX,
  'autogen': AUTOGEN,
  'claude_code': CLAUDE_CODE,
  'gemini': GEMINI,
  'langchain': LANGCHAIN,
  'llama_factory': LLAMA_FACTORY,
  'openai': OPENAI,
  'prompt_completion': PROMPT_COMPLETION,
  'responses': RESPONSES,
}
# One row of each format.
ROWS = {
  **log_rows.ROWS,
  **WHOLE,
  'react': REACT,
  'sharegpt': SHAREGPT,
  'swe_agent': SWE_AGENT,
  'tokens': TOKENS,
  'turns': TURNS,
}
# Formats whose rows have no system prompt, and no schemas of tools.
WITHOUT_SYSTEM = ('claude_code',)
WITHOUT_TOOLS = ('autogen', 'claude_code', 'codex')
