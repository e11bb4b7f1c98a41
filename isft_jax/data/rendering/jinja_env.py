"""Jinja environment for chat templates that keeps the origins of tracked text.

The environment is set up as in transformers. Two changes to the compiler add
the turn to the template's own text: this text gets an origin when it is
emitted or collected in a namespace, and each loop reports its current message.
The header of a turn is thereby assigned to that turn without any knowledge of
its wording.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from isft_jax.data.rendering import tracked_str
from isft_jax.data.rendering.tracked_str import LITERAL, Tracked

_DICT_ATTRIBUTES = frozenset(dir(dict))
# Methods that are safe without the sandbox: they only read their string.
# `format` can reach attributes of its arguments.
_STR_METHODS = frozenset(name for name in dir(str) if name[0] != '_') - {
  'format',
  'format_map',
}


_LOOP_ATTRIBUTES = frozenset(
  ('first', 'last', 'index', 'index0', 'revindex', 'revindex0', 'length')
)

# Filters that return a text unchanged, a part of it, or the result of a method
# of str, so that `Tracked` keeps the origins right.
_TRACKED_FILTERS = frozenset(
  (
    *('attr', 'capitalize', 'd', 'default', 'first', 'last', 'lower', 'max'),
    *('min', 'random', 'replace', 'reverse', 'title', 'trim', 'truncate'),
    'upper',
  )
)
# Arguments that compiled templates add to a call in a loop or in a block.
_JINJA_ARGUMENTS = ('_loop_vars', '_block_vars')


class Message(dict):
  """A message of a conversation that knows the index of its turn."""

  def __init__(self, turn: int) -> None:
    super().__init__()
    self._turn = turn  # the sandbox refuses names with an underscore


class _Generator(CodeGenerator):
  """Compiles templates to code that calls the tracking functions."""

  # The operator `~`: Jinja's own code would join plain strings.
  def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
    self.write("environment.joined('', (")
    for child in node.nodes:
      self.visit(child, frame)
      self.write(', ')
    self.write('))')

  def visit_Call(
    self, node: nodes.Call, frame: Frame, forward_caller: bool = False
  ) -> None:
    if not isinstance(node.node, nodes.EnvironmentAttribute):
      super().visit_Call(node, frame, forward_caller=forward_caller)
      return
    # A call that `_mark_turns` inserted. It bypasses the sandbox.
    self.visit(node.node, frame)
    self.write('(')
    for argument in node.args:
      self.visit(argument, frame)
    self.write(')')

  # Constant text is emitted at run time, when its turn is known.
  def _output_const_repr(self, group: Iterable[Any]) -> str:
    return f'environment.finalize({super()._output_const_repr(group)})'


class _Generation(jinja2.ext.Extension):
  """Accepts {% generation %}, which marks masks for other trainers."""

  tags = {'generation'}  # noqa: RUF012 (Jinja wants a set)

  def parse(self, parser: Parser) -> nodes.Scope:
    line = next(parser.stream).lineno
    # The body is rendered as if the tags were not there.
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


class Environment(ImmutableSandboxedEnvironment):
  """Renders one template at a time and keeps the index of its current turn."""

  code_generator_class = _Generator
  intercepted_binops = frozenset({'%'})  # formatting of strings
  concat = staticmethod(functools.partial(tracked_str.join, ''))
  joined = staticmethod(tracked_str.join)

  def __init__(self) -> None:
    # The options of transformers' chat templates.
    super().__init__(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[_Generation, jinja2.ext.loopcontrols],
      finalize=self.emit,
    )
    self.filters = {
      **{
        name: _checked_filter(filter, name in _TRACKED_FILTERS)
        for name, filter in self.filters.items()
      },
      'format': _percent_filter,
      'indent': tracked_str.indent,
      'join': self._join,
      'string': tracked_str.written,
      'safe': tracked_str.safe,
      'tojson': tracked_str.to_json,
    }
    self.globals['raise_exception'] = _raise
    # Index of the current turn, the turns outside of the current loops, and the
    # codes of each turn's literals: printed, or collected in a namespace.
    self._turn = -1
    self._outer: list[int] = []
    # The current item of a loop over indices of messages.
    self._index: int | None = None
    self._literals: Sequence[str] = [LITERAL]
    self._collected: Sequence[str] = [LITERAL]

  def render(
    self,
    template: jinja2.Template,
    context: dict[str, Any],
    literals: Sequence[str],
    collected: Sequence[str],
  ) -> tuple[Tracked, str]:
    """Renders a template.

    Args:
      template: the compiled template.
      context: its variables.
      literals: code of the literals of each turn; the last one is for text
        outside of all turns.
      collected: the same for literals that are collected in a namespace.

    Returns:
      The tracked text, and one code of `literals` per character: the turn that
      the template was processing when it wrote that character.
    """
    self._turn, self._outer, self._index = -1, [], None
    self._literals, self._collected = literals, collected
    pieces: list[Tracked] = []
    homes: list[str] = []
    # The template is a generator: `self._turn` changes between its pieces.
    for piece in template.root_render_func(template.new_context(context)):
      pieces.append(self.emit(piece))
      homes.append(literals[self._turn] * len(piece))
    codes = ''.join(piece.origins for piece in pieces)
    return Tracked(''.join(pieces), codes), ''.join(homes)

  def emit(self, value: object) -> Tracked:
    """Returns a value as text; literals become literals of the current turn."""
    text = tracked_str.written(value)
    literal = self._literals[self._turn]
    if not isinstance(text, Tracked):
      return Tracked(text, literal * len(text))
    codes = text.origins.replace(LITERAL, literal)
    # A block that was captured before the first turn, and is printed in this
    # one, belongs to this one.
    return Tracked(text, codes.replace(self._literals[-1], literal))

  def _parse(
    self, source: str, name: str | None, filename: str | None
  ) -> nodes.Template:
    tree = super()._parse(source, name, filename)
    _mark_turns(tree)
    return tree

  # `_mark_turns` inserts calls of the next three methods into templates.
  def push(self) -> None:
    """Begins a loop."""
    self._outer.append(self._turn)

  def enter(self, item: object) -> None:
    """Begins an iteration."""
    # An item that is not a message of ours, such as a tool call or a message
    # that the template makes up, keeps the turn outside of the loop. So does an
    # earlier message: the template looks something up in it, such as the id of
    # the call that a tool answers.
    outer = self._outer[-1]
    turn = item._turn if isinstance(item, Message) else -1
    self._turn = max(turn, outer)
    # {% for i in range(messages | length) %}: `getitem` enters messages[i].
    self._index = item if type(item) is int and outer < 0 else None

  def pop(self) -> None:
    """Ends a loop."""
    self._turn = self._outer.pop()

  def settle(self, value: object) -> object:
    """Returns a value for a namespace; its literals belong to this turn.

    Some templates collect all turns in a namespace, and print it at the end.
    """
    if not isinstance(value, Tracked) or self._turn < 0:
      return value
    codes = value.origins.replace(LITERAL, self._collected[self._turn])
    return Tracked(value, codes)

  def getitem(self, obj: Any, argument: Any) -> Any:
    if isinstance(obj, dict) and type(argument) is str and argument in obj:
      return obj[argument]
    value = super().getitem(obj, argument)
    # In a loop over numbers: the message of this number, or, if the template
    # counts in another variable, the first message that it takes.
    is_turn = argument == self._index or self._turn < 0
    if self._index is not None and is_turn and isinstance(value, Message):
      self._turn = value._turn
    return value

  # Jinja checks every attribute with its sandbox, which takes twice as long as
  # all the rest of rendering. Keys of dicts, methods of text and
  # counters of loops skip it.
  def getattr(self, obj: Any, attribute: str) -> Any:
    if isinstance(obj, dict) and attribute not in _DICT_ATTRIBUTES:
      if attribute in obj:
        return obj[attribute]
      if attribute[0] != '_':
        return self.undefined(obj=obj, name=attribute)
    if type(obj) is Tracked and attribute in _STR_METHODS:
      return getattr(obj, attribute)
    if type(obj) is LoopContext and attribute in _LOOP_ATTRIBUTES:
      return getattr(obj, attribute)
    return super().getattr(obj, attribute)

  def call(
    __self, __context: Context, __callable: Any, *args: Any, **kwargs: Any
  ) -> Any:
    owner = getattr(__callable, '__self__', None)
    own_kwargs = {k: v for k, v in kwargs.items() if k not in _JINJA_ARGUMENTS}
    # A method of a literal that takes tracked text, as ', '.join(names).
    joins = getattr(__callable, '__name__', '') == 'join'
    if type(owner) is str and (joins or tracked_str.is_tracked(args)):
      owner = Tracked(owner, tracked_str.origins(owner))
      __callable = getattr(owner, __callable.__name__)
    if type(owner) is Tracked and __callable.__name__ in _STR_METHODS:
      result = __callable(*args, **own_kwargs)
    else:
      result = super().call(__context, __callable, *args, **kwargs)
    # The sandbox wraps str.format.
    format: Any = getattr(__callable, '__wrapped__', None)
    if getattr(format, '__name__', '') == 'format':
      text = format.__self__
      return tracked_str.brace_format(text, result, args, own_kwargs)
    # Methods such as get() return an item with the origins that it has.
    if isinstance(owner, dict | list):
      return result
    return _checked(result, owner, *args, *own_kwargs.values())

  def call_binop(
    self, context: Context, operator: str, left: Any, right: Any
  ) -> Any:
    if isinstance(left, str):
      return tracked_str.percent_format(left, right)
    return _checked(
      super().call_binop(context, operator, left, right), left, right
    )

  def _join(
    self,
    values: Iterable[Any],
    separator: str = '',
    attribute: str | None = None,
  ) -> Tracked:
    if attribute is not None:
      values = (self.getitem(value, attribute) for value in values)
    return tracked_str.join(separator, values)


def _percent_filter(text: str, *values: Any, **named: Any) -> str:
  """The filter `format`, which is the operator %."""
  return tracked_str.percent_format(text, named or values)


def _mark_turns(node: nodes.Node) -> None:
  """Inserts calls that tell the environment which turn writes what.

  {% for m in messages %} ... {% endfor %}
  -> push(); {% for m in messages %} enter(m) ... {% endfor %}; pop()

  {% set ns.text = ns.text ~ m.content %}
  -> {% set ns.text = settle(ns.text ~ m.content) %}
  """
  # Recurse into single children, and rebuild lists of children.
  for _, children in node.iter_fields():
    if isinstance(children, nodes.Node):
      _mark_turns(children)
    if not isinstance(children, list):
      continue
    marked = []
    for child in children:
      if isinstance(child, nodes.Node):
        _mark_turns(child)
      if isinstance(child, nodes.Assign) and isinstance(
        child.target, nodes.NSRef
      ):
        child.node = _call('settle', [child.node], child.lineno)
      if isinstance(child, nodes.For) and isinstance(child.target, nodes.Name):
        item = nodes.Name(child.target.name, 'load')
        child.body.insert(0, _statement('enter', [item], child.lineno))
        marked += [
          _statement('push', [], child.lineno),
          child,
          _statement('pop', [], child.lineno),
        ]
      else:
        marked.append(child)
    children[:] = marked


def _call(method: str, arguments: list[Any], line: int) -> nodes.Call:
  """Returns an expression that calls a method of the environment."""
  attribute = nodes.EnvironmentAttribute(method)
  call = nodes.Call(attribute, arguments, [], None, None)
  call.set_lineno(line, override=True)
  return call


def _statement(
  method: str, arguments: list[nodes.Expr], line: int
) -> nodes.Node:
  """Returns a statement that calls a method of the environment."""
  call = _call(method, arguments, line)
  return nodes.ExprStmt(call).set_lineno(line, override=True)


def _checked_filter(
  filter: Callable[..., Any], keeps_origins: bool
) -> Callable[..., Any]:
  """Wraps a filter of Jinja so that its text is UNKNOWN if origins are lost."""

  @functools.wraps(filter)  # keeps the attributes that Jinja sets on filters
  def checked(*args: Any, **kwargs: Any) -> Any:
    result = filter(*args, **kwargs)
    if isinstance(result, Tracked) and not keeps_origins:
      result = str.__str__(result)
    return _checked(result, *args, *kwargs.values())

  return checked


def _checked(result: Any, *sources: object) -> Any:
  """Returns a result; plain text made from tracked sources becomes UNKNOWN."""
  if isinstance(result, Tracked) or not isinstance(result, str | bytes):
    return result
  if not any(map(tracked_str.is_tracked, sources)):
    # str() turns Markup into text: Markup would absorb other text untracked.
    return str(result) if isinstance(result, str) else result
  if isinstance(result, bytes):
    raise jinja2.TemplateError('bytes have no tracked origin')
  return tracked_str.lost(str(result))


def _raise(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)
