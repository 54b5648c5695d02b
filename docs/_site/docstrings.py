"""Docstrings as Markdown: formulas as MathML, roles as links to the API pages (an extension of griffe)."""
from __future__ import annotations

import re
from textwrap import dedent

import griffe
from latex2mathml.converter import convert

MATH_BLOCK = re.compile(r'^( *)\.\. math::((?:.*\n)(?:\1 +\S.*\n?)*)', re.MULTILINE)
MATH_ROLE = re.compile(r':math:`([^`]+)`')
ROLE = re.compile(r':(?:class|func|meth|data|attr):`([^`]+)`')
ARGUMENTS = re.compile(r'^( +)((?:\*{0,2}\w+, )*\*{0,2}\w+,)\n\1 +(?=[\w, *]+(?: \(.*\))?: )', re.MULTILINE)
EXAMPLE = re.compile(r'^( *)Example:$', re.MULTILINE)


class Markdown(griffe.Extension):
    """Rewrite every docstring of the package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Called by griffe when ``pkg`` and all of its modules have been read."""
        self.public = {}
        for module in (pkg, *modules(pkg)):
            for name in module.exports or ():
                self.public[str(name)] = f'{module.path}.{name}'  # the deepest package comes last
        found = (pkg, *modules(pkg))
        for module in found:
            self.rewrite(module)
        for module in found:
            for name in map(str, module.exports or ()):
                member = module.members.get(name)
                if member is None or member.is_alias and not member.target_path.startswith(pkg.path):
                    continue  # what another package defines is not read
                if member.is_module and name in member.members:
                    # as in Python, where the import replaces the module of the same name
                    module.members[name] = griffe.Alias(name, target=member.members[name], parent=module)

    def rewrite(self, item: griffe.Object) -> None:
        """``item`` and its members."""
        if item.docstring:
            item.docstring.value = self.markdown(item.docstring.value)
        for member in item.members.values():
            if not member.is_alias and not member.is_module:
                self.rewrite(member)

    def markdown(self, text: str) -> str:
        """A docstring's text."""
        text = MATH_BLOCK.sub(lambda match: indented(convert(dedent(match[2]).replace('\n', ' ').strip(),
                                                             display='block'), match[1]), text)
        text = MATH_ROLE.sub(lambda match: f'<span>{convert(match[1])}</span>', text)
        text = ROLE.sub(self.link, text)
        text = ARGUMENTS.sub(r'\1\2 ', text)  # names on two lines
        return EXAMPLE.sub(r'\1Examples:', text)

    def link(self, match: re.Match) -> str:
        """A role as a link where its target has a place in the API pages, else as code."""
        path = match[1].removeprefix('~')
        name = path.rpartition('.')[2]
        code = f'`{name if match[1].startswith("~") else path}`'
        return f'[{code}][{self.public[name]}]' if name in self.public else code


def modules(package: griffe.Module) -> list[griffe.Module]:
    """All modules below a package, each before those below it."""
    found = []
    for module in package.modules.values():
        if not module.is_alias:
            found += [module, *modules(module)]
    return found


def indented(markup: str, margin: str) -> str:
    """A block of its own, with the docstring's margin."""
    return f'\n{margin}{markup}\n'
