"""Jinja, as transformers sets it up for chat templates, over tracked text.

Two changes to the compiler: the template's own text is marked where it is
emitted, and each loop tells which message it is at. So the header of a turn is
known to stand in that turn, whatever its words are.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from isft_jax.data.rendering import tracked_str
from isft_jax.data.rendering.tracked_str import LITERAL, Tracked

_OF_DICT = frozenset(dir(dict))
# Methods that need no sandbox: they read their string, and that is all.
_OF_STR = frozenset(name for name in dir(str) if name[0] != '_') - {
  'format',
  'format_map',
}


# Filters that return text, parts of it, or what the methods of str make of it.
_FOLLOWED = frozenset(
  (
    *('attr', 'capitalize', 'd', 'default', 'first', 'last', 'lower', 'max'),
    *('min', 'random', 'replace', 'reverse', 'title', 'trim', 'truncate'),
    'upper',
  )
)
# What compiled templates add to the arguments of a call in a loop or a block.
_OF_JINJA = ('_loop_vars', '_block_vars')


class Message(dict):
  """A message of a conversation."""

  def __init__(self, turn: int) -> None:
    super().__init__()
    self._turn = turn  # underscored: no template can ask for it


class _Generator(CodeGenerator):
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
    # One of ours: no sandbox.
    self.visit(node.node, frame)
    self.write('(')
    for argument in node.args:
      self.visit(argument, frame)
    self.write(')')

  def _output_const_repr(self, group: Iterable[Any]) -> str:
    return f'environment.finalize({super()._output_const_repr(group)})'


class _Generation(jinja2.ext.Extension):
  """{% generation %}, which some templates have for other trainers."""

  tags = {'generation'}  # noqa: RUF012 (Jinja wants a set)

  def parse(self, parser: Parser) -> nodes.Scope:
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


class Environment(ImmutableSandboxedEnvironment):
  """Renders one template at a time: it remembers at which turn it is."""

  code_generator_class = _Generator
  intercepted_binops = frozenset({'%'})
  concat = staticmethod(functools.partial(tracked_str.join, ''))
  joined = staticmethod(tracked_str.join)

  def __init__(self) -> None:
    super().__init__(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[_Generation, jinja2.ext.loopcontrols],
      finalize=self.emit,
    )
    self.filters = {
      **{
        name: _careful(filter, name in _FOLLOWED)
        for name, filter in self.filters.items()
      },
      'tojson': tracked_str.to_json,
      'join': self._join,
      'string': tracked_str.written,
      'safe': tracked_str.written,
    }
    self.globals['raise_exception'] = _raise
    self._turn = -1
    self._outer: list[int] = []
    self._literals: Sequence[str] = [LITERAL]

  def render(
    self,
    template: jinja2.Template,
    context: dict[str, Any],
    literals: Sequence[str],
  ) -> tuple[Tracked, str]:
    """Renders; returns the text and, for each character, the literals' code of
    the turn that the template was at when it wrote it.

    literals: the code of a turn's literals, by turn; the last is of no turn.
    """
    self._turn, self._outer, self._literals = -1, [], literals
    pieces: list[Tracked] = []
    homes: list[str] = []
    # A generator: `self._turn` moves while pieces come out of it.
    for piece in template.root_render_func(template.new_context(context)):
      pieces.append(self.emit(piece))
      homes.append(literals[self._turn] * len(piece))
    codes = ''.join(piece.origins for piece in pieces)
    return Tracked(''.join(pieces), codes), ''.join(homes)

  def emit(self, value: object) -> Tracked:
    """What is written here and now is a literal of the turn we are at."""
    text = tracked_str.written(value)
    literal = self._literals[self._turn]
    if not isinstance(text, Tracked):
      return Tracked(text, literal * len(text))
    codes = text.origins.replace(LITERAL, literal)
    # Kept since before the first turn, in a block, and shown in this one.
    return Tracked(text, codes.replace(self._literals[-1], literal))

  def _parse(
    self, source: str, name: str | None, filename: str | None
  ) -> nodes.Template:
    tree = super()._parse(source, name, filename)
    _mark_loops(tree)
    return tree

  # The three calls that `_mark_loops` puts into a template.
  def push(self) -> None:
    self._outer.append(self._turn)

  def enter(self, item: object) -> None:
    # One that is no message, or that the template adds, is of the turn outside.
    self._turn = item._turn if isinstance(item, Message) else self._outer[-1]

  def pop(self) -> None:
    self._turn = self._outer.pop()

  # Jinja asks its sandbox for every attribute, twice as long as all the rest.
  def getattr(self, obj: Any, attribute: str) -> Any:
    if isinstance(obj, dict) and attribute in obj and attribute not in _OF_DICT:
      return obj[attribute]
    if type(obj) is Tracked and attribute in _OF_STR:
      return getattr(obj, attribute)
    return super().getattr(obj, attribute)

  def call(
    __self, __context: Context, __callable: Any, *args: Any, **kwargs: Any
  ) -> Any:
    owner = getattr(__callable, '__self__', None)
    given = {k: v for k, v in kwargs.items() if k not in _OF_JINJA}
    joins = getattr(__callable, '__name__', '') == 'join'
    if type(owner) is str and (joins or tracked_str.is_tracked(args)):
      owner = Tracked(owner, tracked_str.origins(owner))
      __callable = getattr(owner, __callable.__name__)
    if type(owner) is Tracked and __callable.__name__ in _OF_STR:
      made = __callable(*args, **given)
    else:
      made = super().call(__context, __callable, *args, **kwargs)
    if isinstance(owner, dict | list):
      return made  # one of its items, as get() returns it
    return _checked(made, owner, *args, *given.values())

  def call_binop(
    self, context: Context, operator: str, left: Any, right: Any
  ) -> Any:
    made = super().call_binop(context, operator, left, right)
    return _checked(made, left, right)

  def _join(
    self,
    values: Iterable[Any],
    separator: str = '',
    attribute: str | None = None,
  ) -> Tracked:
    if attribute is not None:
      values = (self.getitem(value, attribute) for value in values)
    return tracked_str.join(separator, values)


def _mark_loops(node: nodes.Node) -> None:
  """Makes every loop tell the environment which item it is at."""
  for _, children in node.iter_fields():
    if isinstance(children, nodes.Node):
      _mark_loops(children)
    if not isinstance(children, list):
      continue
    marked = []
    for child in children:
      if isinstance(child, nodes.Node):
        _mark_loops(child)
      if isinstance(child, nodes.For) and isinstance(child.target, nodes.Name):
        item = nodes.Name(child.target.name, 'load')
        child.body.insert(0, _tell('enter', [item], child.lineno))
        marked += [
          _tell('push', [], child.lineno),
          child,
          _tell('pop', [], child.lineno),
        ]
      else:
        marked.append(child)
    children[:] = marked


def _tell(method: str, arguments: list[nodes.Expr], line: int) -> nodes.Node:
  told = nodes.EnvironmentAttribute(method)
  call = nodes.Call(told, arguments, [], None, None)
  return nodes.ExprStmt(call).set_lineno(line, override=True)


def _careful(
  filter: Callable[..., Any], is_followed: bool
) -> Callable[..., Any]:
  """A filter of Jinja's own: what text it makes of tracked text loses track,
  unless it does nothing but what `Tracked` follows."""

  @functools.wraps(filter)  # keeps what Jinja notes on a filter
  def careful(*args: Any, **kwargs: Any) -> Any:
    made = filter(*args, **kwargs)
    if isinstance(made, Tracked) and not is_followed:
      made = str.__str__(made)
    return _checked(made, *args, *kwargs.values())

  return careful


def _checked(made: Any, *sources: object) -> Any:
  if isinstance(made, Tracked) or not isinstance(made, str | bytes):
    return made
  if not any(map(tracked_str.is_tracked, sources)):
    # Of markup, which would take other text in without a trace, the text.
    return str(made) if isinstance(made, str) else made
  if isinstance(made, bytes):
    raise jinja2.TemplateError('bytes do not tell whose they are')
  return tracked_str.lost(str(made))


def _raise(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)
